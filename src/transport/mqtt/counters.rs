//! Counts of what happened over the broker, for whoever exposes metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, by: usize) {
        self.0.fetch_add(by as u64, Ordering::Relaxed);
    }
}

/// Since start. Every request is counted once under one of the next seven when its fate is known.
#[derive(Debug, Default)]
pub struct Counters {
    pub requests: Count,
    /// The broker has the reply.
    pub replies: Count,
    /// The reply's time had passed before the broker had it.
    pub replies_expired: Count,
    /// The broker did not want the reply: a right that is missing, most often.
    pub replies_refused: Count,
    /// Too many replies waited for the broker.
    pub replies_dropped: Count,
    /// Not answered on purpose: the request was a reply.
    pub loops_cut: Count,
    /// Not answered on purpose: the request was an old one that the broker had kept.
    pub retained_ignored: Count,
    /// Came again while the first was computed, and is answered with it.
    pub duplicates_joined: Count,

    /// Came again, and got the reply of before.
    pub duplicates_answered: Count,
    /// Answered with `overloaded` because too many waited.
    pub overloads: Count,
    /// Tried again at QoS 1, because a model's queue was full; each try counts.
    pub deferrals: Count,
    /// Replies larger than the broker takes: an error went instead.
    pub replies_too_large: Count,
    pub connects: Count,
    /// Connections that ended, and attempts that failed.
    pub connection_errors: Count,
    pub subscriptions_refused: Count,
    is_connected: AtomicBool,
}

impl Counters {
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    pub(super) fn set_connected(&self, is_connected: bool) {
        self.is_connected.store(is_connected, Ordering::Relaxed);
    }

    /// Requests whose fate is known.
    pub fn settled(&self) -> u64 {
        [
            &self.replies,
            &self.replies_expired,
            &self.replies_refused,
            &self.replies_dropped,
            &self.loops_cut,
            &self.retained_ignored,
            &self.duplicates_joined,
        ]
        .iter()
        .map(|count| count.get())
        .sum()
    }
}
