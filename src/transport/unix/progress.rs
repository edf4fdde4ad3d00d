//! How far a connection is with its present request: its reader, its handler and the table of
//! connections look at the same.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// What a connection is at, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests.
    Idle {
        since: Instant,
        /// It has had an answer before.
        is_known: bool,
    },
    /// A part of a request's head has come.
    Head(Instant),
    /// A handler has the request.
    Busy,
    /// An answer is being written.
    Answer {
        since: Instant,
        /// Bytes of the next request have come.
        has_next: bool,
    },
}

/// A connection's phase.
#[derive(Debug)]
pub(super) struct Progress {
    phase: Mutex<Phase>,
    evicted: Notify,
}

impl Progress {
    pub fn new(now: Instant) -> Self {
        Self {
            phase: Mutex::new(Phase::Idle { since: now, is_known: false }),
            evicted: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        // Nothing panics while it is held, and any phase is a valid one.
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn phase(&self) -> Phase {
        *self.lock()
    }

    /// Bytes have come.
    pub fn has_read(&self) {
        let mut phase = self.lock();
        match &mut *phase {
            Phase::Idle { .. } => *phase = Phase::Head(Instant::now()),
            Phase::Answer { has_next, .. } => *has_next = true,
            Phase::Head(_) | Phase::Busy => {}
        }
    }

    /// A handler got the request.
    pub fn has_head(&self) {
        *self.lock() = Phase::Busy;
    }

    /// The handler is done.
    pub fn has_answer(&self) {
        *self.lock() = Phase::Answer { since: Instant::now(), has_next: false };
    }

    /// All that there is was written. True if it ended an answer.
    pub fn has_written(&self) -> bool {
        let mut phase = self.lock();
        let Phase::Answer { has_next, .. } = *phase else { return false };
        let now = Instant::now();
        let idle = Phase::Idle { since: now, is_known: true };
        *phase = if has_next { Phase::Head(now) } else { idle };
        true
    }

    pub fn evict(&self) {
        self.evicted.notify_one();
    }

    /// Waits until the connection has to give way.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }
}
