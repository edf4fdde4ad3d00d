//! What to load next of one model: the newest version that has not failed, or has waited.
//!
//! A state machine that takes `now` and what was found; it touches no file. What serves is never
//! given up for something that has not been loaded.

use std::time::{Duration, Instant};

use super::scan::Candidate;

/// The first wait after a failed load, and the longest.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(600);

/// How often in a row a model must be missing before it is gone: publishing by two renames leaves
/// it missing for a moment.
const MISSING_MAX: u32 = 2;

/// A load that failed.
#[derive(Debug)]
struct Failure {
    fingerprint: u64,
    attempts: u32,
    retry_at: Instant,
}

/// One model's past, as far as it matters for what comes next.
#[derive(Debug, Default)]
pub struct Plan {
    serving: Option<Candidate>,
    previous: Option<Candidate>,
    failures: Vec<Failure>,
    /// Rolled back from: not loaded again until its files change or its owner says so.
    rejected: Vec<u64>,
    is_unloaded: bool,
    is_due: bool,
    missing: u32,
}

impl Plan {
    /// What to load now, if anything, of what was found, best first.
    pub fn next<'a>(&self, now: Instant, found: &'a [Candidate]) -> Option<&'a Candidate> {
        if self.is_unloaded {
            return None;
        }
        let place = self.place(found);
        let version = self.serving.as_ref().and_then(|serving| serving.version);
        for (at, candidate) in found.iter().enumerate() {
            if self.serving.as_ref() == Some(candidate) {
                return Some(candidate).filter(|_| self.is_due);
            }
            // Its files have changed. What comes after it is worse, and it serves on.
            if place == Some(at) {
                return Some(candidate).filter(|one| self.may_load(now, one));
            }
            // Without its files, what serves is only given up for what is as new.
            let is_worse = place.is_none() && version.is_some() && candidate.version < version;
            if !is_worse && self.may_load(now, candidate) {
                return Some(candidate);
            }
        }
        None
    }

    /// Where among what was found that is what serves, changed or not.
    fn place(&self, found: &[Candidate]) -> Option<usize> {
        let serving = self.serving.as_ref()?;
        found.iter().position(|one| one.path == serving.path)
    }

    fn may_load(&self, now: Instant, candidate: &Candidate) -> bool {
        let fingerprint = candidate.fingerprint;
        let waits =
            |failure: &Failure| failure.fingerprint == fingerprint && failure.retry_at > now;
        !self.rejected.contains(&fingerprint) && !self.failures.iter().any(waits)
    }

    pub fn note_loaded(&mut self, candidate: &Candidate) {
        self.failures.retain(|failure| failure.fingerprint != candidate.fingerprint);
        (self.is_due, self.is_unloaded) = (false, false);
        if self.serving.as_ref() != Some(candidate) {
            self.previous = self.serving.replace(candidate.clone());
        }
    }

    /// Notes a load that failed; it is tried again later. `jitter` is 0 to 1: many boards that get
    /// the same bad model shall not all retry at once.
    pub fn note_failed(&mut self, candidate: &Candidate, now: Instant, jitter: f64) {
        let fingerprint = candidate.fingerprint;
        let same = |failure: &&mut Failure| failure.fingerprint == fingerprint;
        let attempts = match self.failures.iter_mut().find(same) {
            Some(failure) => {
                failure.attempts += 1;
                failure.attempts
            }
            None => {
                self.failures.push(Failure { fingerprint, attempts: 1, retry_at: now });
                1
            }
        };
        let wait = RETRY_MIN.saturating_mul(1 << (attempts - 1).min(10)).min(RETRY_MAX);
        let wait = wait.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0));
        if let Some(failure) = self.failures.iter_mut().find(same) {
            failure.retry_at = now + wait;
        }
        self.is_due = false;
    }

    /// Notes what was found, nothing included; returns whether the model is gone.
    pub fn note_found(&mut self, found: &[Candidate]) -> bool {
        let is_there = |fingerprint| found.iter().any(|one| one.fingerprint == fingerprint);
        self.failures.retain(|failure| is_there(failure.fingerprint));
        self.rejected.retain(|&fingerprint| is_there(fingerprint));
        self.missing = if found.is_empty() { self.missing + 1 } else { 0 };
        self.missing >= MISSING_MAX
    }

    /// The owner wants the newest one: what was refused before is tried again.
    pub fn load(&mut self) {
        self.failures.clear();
        self.rejected.clear();
        (self.is_unloaded, self.is_due) = (false, true);
    }

    /// What serves is to be loaded again, because something that it depends on has changed.
    pub fn renew(&mut self) {
        self.is_due = self.serving.is_some();
    }

    /// The owner wants none.
    pub fn unload(&mut self) {
        self.is_unloaded = true;
        self.serving = None;
    }

    /// What serves was removed by its owner: the best of what is left may take its place.
    pub fn note_removed(&mut self) {
        (self.serving, self.previous) = (None, None);
    }

    /// What serves.
    pub fn serving(&self) -> Option<&Candidate> {
        self.serving.as_ref()
    }

    /// What served before.
    pub fn previous(&self) -> Option<&Candidate> {
        self.previous.as_ref()
    }

    /// The version to go back to.
    pub fn rollback<'a>(&self, found: &'a [Candidate]) -> Option<&'a Candidate> {
        let serving = self.serving.as_ref()?;
        let is_other =
            |one: &&Candidate| *one != serving && !self.rejected.contains(&one.fingerprint);
        let previous = found.iter().find(|one| Some(*one) == self.previous.as_ref());
        let place = self.place(found);
        let is_worse = |at: usize, one: &Candidate| match place {
            Some(place) => at > place,
            None => one.version < serving.version,
        };
        previous.filter(is_other).or_else(|| {
            let mut others = found.iter().enumerate();
            others.find(|(at, one)| is_other(one) && is_worse(*at, one)).map(|(_, one)| one)
        })
    }

    /// Notes that `candidate` serves again in the place of a newer one.
    pub fn note_rolled_back(&mut self, candidate: &Candidate) {
        let from = self.serving.replace(candidate.clone());
        self.previous = None;
        self.rejected.extend(from.map(|from| from.fingerprint));
    }
}
