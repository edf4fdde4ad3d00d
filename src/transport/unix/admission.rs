//! Which connections may be there at once: so many in all, of one user, and of one process.
//!
//! Where there are too many, the one that has waited longest for its request gives way, first
//! among those that have sent a part of one. One that was answered before may wait longer. So
//! whoever holds connections without using them takes nothing from others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::peer::{Peer, User};
use super::progress::{Phase, Progress};
use super::settings::HttpLimits;

/// How many times as long as others a connection may wait that was answered before: whoever opens
/// connections again and again does not drive it out.
const KNOWN_PATIENCE: u32 = 10;

/// All connections.
pub(super) struct Table {
    connections_max: usize,
    per_user_max: usize,
    per_process_max: usize,
    idle_time_min: Duration,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    next: u64,
    taken: Vec<Slot>,
}

struct Slot {
    number: u64,
    user: User,
    process: Option<i32>,
    progress: Arc<Progress>,
}

/// A limit that a connection would have gone over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("connections: all {0} are in use: close those that you do not need, or try again")]
    All(usize),
    #[error(
        "connections: your user has {0}, and may have no more: close some, or send several \
         requests over one"
    )]
    User(usize),
    #[error(
        "connections: your process has {0}, and may have no more: close some, or send several \
         requests over one"
    )]
    Process(usize),
}

/// A connection's place in the table, for as long as it is kept.
pub(super) struct Ticket {
    table: Arc<super::Shared>,
    number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.table.table.lock().taken.retain(|slot| slot.number != self.number);
    }
}

impl Table {
    pub fn new(limits: &HttpLimits) -> Self {
        Self {
            connections_max: limits.connections_max,
            per_user_max: limits.connections_per_user_max,
            per_process_max: limits.connections_per_process_max,
            idle_time_min: limits.idle_time_min,
            slots: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        // Nothing panics while it is held.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a connection of `peer`, and perhaps another's: true, if so.
    fn admit(
        &self,
        peer: &Peer,
        progress: &Arc<Progress>,
        now: Instant,
    ) -> Result<(u64, bool), Refused> {
        let mut slots = self.lock();
        let of_user = |slot: &Slot| slot.user == peer.user;
        let of_process = |slot: &Slot| of_user(slot) && slot.process == peer.process;
        let mut has_evicted = false;
        if peer.process.is_some() {
            let refused = Refused::Process(self.per_process_max);
            has_evicted |= self.make_room(&mut slots, of_process, refused, now)?;
        }
        has_evicted |=
            self.make_room(&mut slots, of_user, Refused::User(self.per_user_max), now)?;
        has_evicted |=
            self.make_room(&mut slots, |_| true, Refused::All(self.connections_max), now)?;
        let number = slots.next;
        slots.next += 1;
        let (user, process, progress) = (peer.user, peer.process, Arc::clone(progress));
        slots.taken.push(Slot { number, user, process, progress });
        Ok((number, has_evicted))
    }

    /// Sees to it that there is a place among the connections that count for a limit. True if one
    /// had to give way.
    fn make_room(
        &self,
        slots: &mut Slots,
        counts: impl Fn(&Slot) -> bool,
        refused: Refused,
        now: Instant,
    ) -> Result<bool, Refused> {
        let (Refused::All(max) | Refused::User(max) | Refused::Process(max)) = refused;
        if slots.taken.iter().filter(|slot| counts(slot)).count() < max {
            return Ok(false);
        }
        let waited = |slot: &Slot| {
            let (is_stalled, since, patience) = match slot.progress.phase() {
                Phase::Head(since) => (true, since, 1),
                Phase::Idle { since, is_known: false } => (false, since, 1),
                Phase::Idle { since, is_known: true } => (false, since, KNOWN_PATIENCE),
                Phase::Busy | Phase::Answer { .. } => return None,
            };
            let waited = now.saturating_duration_since(since);
            (waited >= self.idle_time_min * patience).then_some((is_stalled, waited))
        };
        let candidates = slots.taken.iter().enumerate().filter(|(_, slot)| counts(slot));
        let longest = candidates.filter_map(|(at, slot)| Some((waited(slot)?, at))).max();
        let Some((_, at)) = longest else { return Err(refused) };
        slots.taken.swap_remove(at).progress.evict();
        Ok(true)
    }
}

/// As [`Table::admit`]; counts what happens.
pub(super) fn admit(
    shared: &Arc<super::Shared>,
    peer: &Peer,
    progress: &Arc<Progress>,
) -> Result<Ticket, Refused> {
    match shared.table.admit(peer, progress, Instant::now()) {
        Ok((number, has_evicted)) => {
            shared.counters.connections_accepted.add();
            if has_evicted {
                shared.counters.connections_evicted.add();
            }
            Ok(Ticket { table: Arc::clone(shared), number })
        }
        Err(refused) => {
            shared.counters.connections_refused.add();
            Err(refused)
        }
    }
}
