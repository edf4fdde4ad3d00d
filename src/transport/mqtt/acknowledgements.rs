//! Which of the broker's messages it is told are dealt with, and when.
//!
//! In the order in which they came, as MQTT asks. A message is dealt with when its reply is, so
//! that the broker sends it again if the daemon is killed before; but none holds up the others for
//! longer than a while.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// One message on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckId(u64);

#[derive(Debug)]
struct Pending {
    packet: u16,
    received: Instant,
    is_done: bool,
}

#[derive(Debug)]
pub struct Acknowledgements {
    pending: VecDeque<Pending>,
    /// The id of the first that is pending.
    first: u64,
    time_max: Duration,
}

impl Acknowledgements {
    pub fn new(time_max: Duration) -> Self {
        Self { pending: VecDeque::new(), first: 0, time_max }
    }

    pub fn received(&mut self, packet: u16, now: Instant) -> AckId {
        self.pending.push_back(Pending { packet, received: now, is_done: false });
        AckId(self.first + self.pending.len() as u64 - 1)
    }

    /// Nothing happens if its connection has ended: the broker will send it again.
    pub fn done(&mut self, id: AckId) {
        let at = id.0.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(pending) = at.and_then(|at| self.pending.get_mut(at)) {
            pending.is_done = true;
        }
    }

    /// The number of the next message that can be acknowledged now.
    pub fn next(&mut self, now: Instant) -> Option<u16> {
        let is_due = |pending: &Pending| {
            pending.is_done || now.saturating_duration_since(pending.received) >= self.time_max
        };
        if !self.pending.front().is_some_and(is_due) {
            return None;
        }
        self.first += 1;
        self.pending.pop_front().map(|pending| pending.packet)
    }

    /// The connection has ended.
    pub fn clear(&mut self) {
        self.first += self.pending.len() as u64;
        self.pending.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
}
