//! When a model that panics is left alone, and when it is tried again.
//!
//! A state machine that takes `now`. Panics within a window are counted; too many, and the model
//! is left alone for a time that doubles each time the next try panics too. It knows no threads.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// When it is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineOptions {
    /// As many within the window are too many.
    pub panics_max: usize,
    pub window: Duration,
    /// How long the first quarantine lasts, and the longest one.
    pub pause_min: Duration,
    pub pause_max: Duration,
}

impl Default for QuarantineOptions {
    fn default() -> Self {
        Self {
            panics_max: 3,
            window: Duration::from_secs(60),
            pause_min: Duration::from_secs(5),
            pause_max: Duration::from_secs(600),
        }
    }
}

/// How a model has behaved.
#[derive(Debug)]
pub struct Quarantine {
    options: QuarantineOptions,
    panics: VecDeque<Instant>,
    /// The end and the length of the last pause, until a run has gone well after it.
    pause: Option<(Instant, Duration)>,
    reason: Option<String>,
}

impl Quarantine {
    pub fn new(options: QuarantineOptions) -> Self {
        Self { options, panics: VecDeque::new(), pause: None, reason: None }
    }

    /// How much longer the model is left alone; `None`: it may run.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        let (end, _) = self.pause?;
        Some(end.saturating_duration_since(now)).filter(|remaining| !remaining.is_zero())
    }

    /// Why it is, or was last, in quarantine. It stays until a run goes well.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Notes a panic; returns whether a quarantine begins with it.
    pub fn note_panic(&mut self, now: Instant, cause: &str) -> bool {
        if self.remaining(now).is_some() {
            return false;
        }
        self.panics.push_back(now);
        let window = self.options.window;
        while self.panics.front().is_some_and(|&at| now.saturating_duration_since(at) > window) {
            self.panics.pop_front();
        }
        // After a pause, the first panic is one too many.
        if self.pause.is_none() && self.panics.len() < self.options.panics_max {
            return false;
        }
        let pause = match self.pause {
            Some((_, pause)) => pause.saturating_mul(2).min(self.options.pause_max),
            None => self.options.pause_min,
        };
        self.reason = Some(format!(
            "it panicked {} times within {} s, last with: {cause}; it is tried again after {} s",
            self.panics.len(),
            window.as_secs(),
            pause.as_secs_f32(),
        ));
        self.pause = Some((now + pause, pause));
        true
    }

    /// Notes a run that went well.
    pub fn note_success(&mut self) {
        if self.pause.is_some() {
            (self.pause, self.reason) = (None, None);
            self.panics.clear();
        }
    }

    /// A new version starts without a past.
    pub fn forget(&mut self) {
        (self.pause, self.reason) = (None, None);
        self.panics.clear();
    }
}
