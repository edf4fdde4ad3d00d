//! Whether a version that was installed does as well as it should: too many failures among its
//! first requests, and it is rolled back.
//!
//! A state machine: it is told counts, and says what they mean. Knows no model and no clock.

/// When it is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrialOptions {
    /// How many requests it lasts; 0: there is none.
    pub requests: u32,
    /// As many failures are too many.
    pub failures: u32,
}

impl Default for TrialOptions {
    fn default() -> Self {
        Self { requests: 20, failures: 3 }
    }
}

/// Counts that only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcomes {
    pub answered: u64,
    /// The model's fault; a request that is wrong counts nowhere.
    pub failed: u64,
}

/// What the counts mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pending,
    Passed,
    /// So many of so many requests failed.
    Failed {
        failed: u64,
        requests: u64,
    },
}

/// One version's trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    options: TrialOptions,
    before: Outcomes,
}

impl Trial {
    /// Begins with what was counted before; `None` if there is none to be.
    pub fn begin(options: TrialOptions, before: Outcomes) -> Option<Self> {
        (options.requests > 0).then_some(Self { options, before })
    }

    /// Judges what was counted until now. Counts may come late, with more requests than the trial
    /// lasts: then it fails if as large a part of them failed.
    pub fn judge(&self, now: Outcomes) -> Verdict {
        let failed = now.failed.saturating_sub(self.before.failed);
        let answered = now.answered.saturating_sub(self.before.answered);
        let requests = failed.saturating_add(answered);
        let lasts = u64::from(self.options.requests);
        let most = u64::from(self.options.failures);
        let part = u128::from(failed) * u128::from(lasts);
        let part_max = u128::from(most) * u128::from(requests.max(lasts));
        if failed >= most && part >= part_max {
            Verdict::Failed { failed, requests }
        } else if requests >= lasts {
            Verdict::Passed
        } else {
            Verdict::Pending
        }
    }
}
