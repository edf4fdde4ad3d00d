//! Which version of MQTT to try: 5, unless the broker can't.
//!
//! A broker that knows only 3.1.1 closes the connection, which looks like a fault of the network.
//! So one is taken for such a broker only after several attempts that came as far as the first
//! packet, and never after it has once spoken 5.

use super::settings::Protocol;

/// Attempts in a row that ended before the broker's consent.
const ABORTS_MAX: u32 = 2;

#[derive(Debug)]
pub struct Negotiation {
    protocol: Protocol,
    is_v5: bool,
    has_spoken_v5: bool,
    aborts: u32,
}

impl Negotiation {
    pub fn new(protocol: Protocol) -> Self {
        let is_v5 = protocol != Protocol::V311;
        Self { protocol, is_v5, has_spoken_v5: false, aborts: 0 }
    }

    /// Whether to try version 5.
    pub fn is_v5(&self) -> bool {
        self.is_v5
    }

    /// The broker has consented.
    pub fn connected(&mut self) {
        self.has_spoken_v5 |= self.is_v5;
        self.aborts = 0;
    }

    /// The broker was reached, and ended the connection without consent.
    pub fn aborted(&mut self) {
        self.aborts += 1;
        if self.protocol == Protocol::Automatic && !self.has_spoken_v5 && self.aborts >= ABORTS_MAX
        {
            self.aborts = 0;
            self.is_v5 = !self.is_v5;
        }
    }
}
