//! The thread that answers requests whose deadline passes while no worker is free.
//!
//! It sleeps until the earliest deadline that it knows of. Most requests are long answered by
//! then, so it is woken only for a deadline that is earlier: once in a time limit, not once for
//! each request.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::station::Station;

/// What the thread waits for.
#[derive(Default)]
pub struct Deadlines {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    stations: Vec<Weak<Station>>,
    next: Option<Instant>,
    stop: bool,
}

impl Deadlines {
    pub fn start() -> std::io::Result<Arc<Self>> {
        let deadlines = Arc::new(Self::default());
        let watched = Arc::clone(&deadlines);
        std::thread::Builder::new()
            .name("moed-deadlines".to_owned())
            .spawn(move || watched.run())?;
        Ok(deadlines)
    }

    /// Looks after a station's queue from now on.
    pub fn watch(&self, station: &Arc<Station>) {
        self.lock().stations.push(Arc::downgrade(station));
    }

    /// Somebody waits until `deadline`.
    pub fn note(&self, deadline: Instant) {
        let mut state = self.lock();
        if state.next.is_none_or(|next| deadline < next) {
            state.next = Some(deadline);
            self.wake.notify_one();
        }
    }

    pub fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_one();
    }

    fn run(&self) {
        let mut late = Vec::new();
        let mut state = self.lock();
        while !state.stop {
            let now = Instant::now();
            match state.next {
                None => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(next) if next > now => {
                    let waited = self.wake.wait_timeout(state, next - now);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Some(_) => {
                    state.stations.retain(|station| station.strong_count() > 0);
                    state.next = None;
                    let stations: Vec<_> =
                        state.stations.iter().filter_map(Weak::upgrade).collect();
                    drop(state);
                    let next = stations.iter().filter_map(|one| one.expire(now, &mut late)).min();
                    drop(stations);
                    state = self.lock();
                    state.next = match (state.next, next) {
                        (Some(a), Some(b)) => Some(a.min(b)),
                        (a, b) => a.or(b),
                    };
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
