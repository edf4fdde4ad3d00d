//! The last values of something, for figures that follow what happens: a ring of fixed size.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Values that are kept.
const VALUES: usize = 256;

/// The last 256 values. Noting one allocates nothing and never waits.
#[derive(Debug)]
pub(super) struct Recent {
    noted: AtomicU64,
    ring: [AtomicU32; VALUES],
}

impl Recent {
    pub(super) fn new() -> Self {
        Self { noted: AtomicU64::new(0), ring: std::array::from_fn(|_| AtomicU32::new(0)) }
    }

    pub(super) fn note(&self, value: u32) {
        let at = self.noted.fetch_add(1, Ordering::Relaxed) % VALUES as u64;
        if let Some(place) = self.ring.get(usize::try_from(at).unwrap_or_default()) {
            place.store(value, Ordering::Relaxed);
        }
    }

    /// In no order. One that is being noted may be missing.
    fn values(&self) -> Vec<u32> {
        let noted = usize::try_from(self.noted.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        self.ring.iter().take(noted).map(|value| value.load(Ordering::Relaxed)).collect()
    }

    /// The smallest value that the share `quantile` of them does not exceed; `None` without any.
    pub(super) fn quantile(&self, quantile: f64) -> Option<u32> {
        let mut values = self.values();
        values.sort_unstable();
        let rank = (quantile * values.len() as f64).ceil() as usize;
        values.get(rank.saturating_sub(1)).copied()
    }

    /// `None` without any.
    pub(super) fn mean(&self) -> Option<f64> {
        let values = self.values();
        let sum: f64 = values.iter().copied().map(f64::from).sum();
        (!values.is_empty()).then(|| sum / values.len() as f64)
    }
}
