//! MQTT: the session as a state machine, and the transport with real and false brokers.

pub mod clients;
mod config;
mod embedded;
mod exchange;
mod faults;
mod misbehaviour;
mod presence;
mod process;
mod reach;
mod secrets;
mod session;
mod session_edges;
mod topics;

use crate::support::mqtt::broker::mosquitto;

/// Whether there is a broker on this host; tests that need one are named by `left_out` otherwise.
fn has_mosquitto() -> bool {
    mosquitto().is_some()
}
