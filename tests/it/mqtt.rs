//! MQTT: the session as a state machine, and the transport with real and false brokers.

mod session;
