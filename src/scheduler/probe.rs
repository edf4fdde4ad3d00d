//! A question to every worker that passing by answers: whether it still works.
//!
//! A worker that is in a run passes when that has ended; one that hangs never does. Knows neither
//! queues nor who asks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Called once, when every worker has passed. Must not block.
pub type Passed = Box<dyn FnOnce() + Send>;

/// One question.
pub struct Probe {
    /// Workers that have not passed, and 1 while it is still being asked.
    left: AtomicUsize,
    passed: Mutex<Option<Passed>>,
}

impl Probe {
    pub fn new(passed: Passed) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(1), passed: Mutex::new(Some(passed)) })
    }

    /// One more worker has to pass.
    pub fn expect_one(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// A worker passes; or whoever asked has asked all.
    pub fn pass(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(passed) = passed {
            passed();
        }
    }
}
