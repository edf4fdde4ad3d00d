//! How long to wait before the next attempt to connect: longer each time, and never as long as
//! another daemon waits, so that a broker that comes back is not met by all at once.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
/// A broker that comes back is found within about as long.
const LAST: Duration = Duration::from_secs(2);
/// After a refusal: it will be refused again until somebody does something.
const REFUSED: Duration = Duration::from_secs(30);
/// A connection that held this long was a good one.
const STABLE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    attempts: u64,
    random: RandomState,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST, attempts: 0, random: RandomState::new() }
    }
}

impl Backoff {
    /// How long to wait after a connection that held for `held`; zero if there was none.
    pub fn wait(&mut self, held: Duration, is_refused: bool) -> Duration {
        if held >= STABLE {
            self.next = FIRST;
        }
        let whole = if is_refused { REFUSED } else { self.next };
        self.next = (self.next * 2).min(LAST);
        self.attempts += 1;
        // Half of it, and a random part of the other half.
        let random = self.random.hash_one(self.attempts) % 1024;
        whole / 2 + whole / 2 * u32::try_from(random).unwrap_or_default() / 1024
    }
}
