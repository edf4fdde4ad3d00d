//! What tests of MQTT need: brokers real and false, a client, a proxy, and the transport itself.

pub mod broker;
pub mod client;
pub mod daemon;
pub mod fake;
pub mod packet;
pub mod proxy;
