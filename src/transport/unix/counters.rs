//! Counts of what happened to connections, for whoever exposes metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Since start.
#[derive(Debug, Default)]
pub struct Counters {
    pub connections_accepted: Count,
    /// Over a limit, and none could give way.
    pub connections_refused: Count,
    /// Closed for a new one, where there were too many.
    pub connections_evicted: Count,
    /// Accepting failed: most often, too many open files.
    pub accept_errors: Count,
    pub header_timeouts: Count,
    pub body_timeouts: Count,
    pub write_timeouts: Count,
    pub idle_timeouts: Count,
    /// Requests whose client left before its answer was there.
    pub clients_gone: Count,
    /// Answers by status.
    statuses: Statuses,
}

/// Every status that is answered.
pub const STATUSES: [u16; 13] = [200, 400, 404, 405, 408, 413, 414, 415, 429, 431, 500, 503, 504];

#[derive(Debug, Default)]
struct Statuses([Count; STATUSES.len()]);

impl Counters {
    /// Answers so far, with their status.
    pub fn answers(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        STATUSES.into_iter().zip(self.statuses.0.iter().map(Count::get))
    }

    pub(super) fn answered(&self, status: u16) {
        let counts = STATUSES.iter().zip(&self.statuses.0);
        if let Some((_, count)) = counts.into_iter().find(|(known, _)| **known == status) {
            count.add();
        }
    }
}
