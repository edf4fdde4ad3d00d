//! Which of the broker's messages it is told are dealt with, and when.
//!
//! In the order in which they came, as MQTT asks. A message is dealt with when its reply is, so
//! that the broker sends it again if the daemon is killed before; but none holds up the others for
//! longer than a while.
//!
//! A broker may have sent more than it was told to: mosquitto sends, for each acknowledgement, as
//! many again as it was told in all. As long as it has, acknowledgements go out a few at a time, so
//! that it keeps what can't be dealt with yet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Between two bursts of acknowledgements to a broker that has sent too much: for what it sends
/// then to arrive.
const BURST_INTERVAL: Duration = Duration::from_millis(10);

/// Acknowledgements in one burst, if none of the last bursts made the broker send more.
const BURST_MAX: usize = 4096;

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
    /// What the broker was told: how many may be pending.
    pending_max: usize,
    /// The burst that is under way: how many it is in all, and how many of them are left.
    burst: usize,
    left: usize,
    next_burst_at: Option<Instant>,
    /// Whether a message came since that burst began.
    is_followed: bool,
}

impl Acknowledgements {
    pub fn new(time_max: Duration, pending_max: usize) -> Self {
        Self {
            pending: VecDeque::new(),
            first: 0,
            time_max,
            pending_max,
            burst: 0,
            left: 0,
            next_burst_at: None,
            is_followed: true,
        }
    }

    pub fn received(&mut self, packet: u16, now: Instant) -> AckId {
        self.is_followed = true;
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
    pub fn next(&mut self, now: Instant, is_paced: bool) -> Option<u16> {
        let is_due = |pending: &Pending| {
            pending.is_done || now.saturating_duration_since(pending.received) >= self.time_max
        };
        if !self.pending.front().is_some_and(is_due) {
            return None;
        }
        if is_paced && self.is_too_much() && !self.takes_its_turn(now) {
            return None;
        }
        self.first += 1;
        self.pending.pop_front().map(|pending| pending.packet)
    }

    /// Whether the broker has sent more than it was told to.
    fn is_too_much(&self) -> bool {
        self.pending.len() > self.pending_max
    }

    fn takes_its_turn(&mut self, now: Instant) -> bool {
        if self.next_burst_at.is_none_or(|at| at <= now) {
            // A broker that has nothing more to send may have them all soon.
            self.burst = if self.is_followed { 1 } else { (self.burst * 2).clamp(1, BURST_MAX) };
            self.left = self.burst;
            self.is_followed = false;
            self.next_burst_at = Some(now + BURST_INTERVAL);
        }
        let is_its_turn = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_its_turn
    }

    /// When the next burst begins, if that is what the first message waits for.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let waits = self.is_too_much() && self.pending.front().is_some_and(|first| first.is_done);
        self.next_burst_at.filter(|&at| waits && at > now)
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
