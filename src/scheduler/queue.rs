//! The queue of one model: who is let in, who goes next, who came too late.
//!
//! A state machine: it takes `now`, waits for nothing, and answers nobody; what it gives out, its
//! caller answers. Higher priorities go first; inside a priority, clients take turns, one request
//! each. If it is full, whoever waits with the most requests of the lowest priority makes room for
//! who has fewer, so that one client can't keep the others out. It knows neither requests nor
//! threads.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::infer::{ClientId, Priority};

/// Weight of the newest measurement in the mean service time.
const SERVICE_SHARE: f64 = 0.1;

/// The least that is said as a time to wait.
const RETRY_MIN: Duration = Duration::from_millis(1);

/// Something that waits.
#[derive(Debug)]
struct Waiting<T> {
    item: T,
    deadline: Instant,
}

/// One client's requests of one priority, oldest first.
#[derive(Debug)]
struct Lane<T> {
    client: ClientId,
    waiting: VecDeque<Waiting<T>>,
}

/// What became of something that was pushed.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed<T> {
    Admitted,
    /// Admitted, and this one was pushed out to make room.
    Replaced(T),
    /// The queue is full.
    Refused(T),
    /// Its deadline has passed.
    Late(T),
}

/// Requests that wait for a worker.
#[derive(Debug)]
pub struct Queue<T> {
    /// By priority, lowest first; inside, clients in the order of their turns. No lane is empty.
    lanes: [VecDeque<Lane<T>>; 3],
    /// Empty lanes' storage, kept so that a steady load allocates nothing.
    spare: Vec<VecDeque<Waiting<T>>>,
    len: usize,
    requests_max: usize,
    /// No deadline is earlier; it may be the one of a request that is gone.
    earliest: Option<Instant>,
    service: Option<Duration>,
}

impl<T> Queue<T> {
    /// A queue in which at most `requests_max` requests wait.
    pub fn new(requests_max: usize) -> Self {
        Self {
            lanes: Default::default(),
            spare: Vec::new(),
            len: 0,
            requests_max,
            earliest: None,
            service: None,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lets `item` in, or says why not.
    pub fn push(
        &mut self,
        now: Instant,
        item: T,
        client: &ClientId,
        priority: Priority,
        deadline: Instant,
    ) -> Pushed<T> {
        if deadline <= now {
            return Pushed::Late(item);
        }
        let replaced = if self.len < self.requests_max {
            None
        } else {
            match self.push_out(client, priority) {
                Some(replaced) => Some(replaced),
                None => return Pushed::Refused(item),
            }
        };
        let waiting = Waiting { item, deadline };
        let lanes = &mut self.lanes[priority as usize];
        match lanes.iter_mut().find(|lane| lane.client == *client) {
            Some(lane) => lane.waiting.push_back(waiting),
            None => {
                let mut lane = self.spare.pop().unwrap_or_default();
                lane.push_back(waiting);
                lanes.push_back(Lane { client: client.clone(), waiting: lane });
            }
        }
        self.len += 1;
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
        replaced.map_or(Pushed::Admitted, Pushed::Replaced)
    }

    /// The next one to run. Call [`expire`](Self::expire) first.
    pub fn pop(&mut self) -> Option<T> {
        self.pop_if(|_| true)
    }

    /// The next one to run, if it is one that `wanted` takes.
    pub fn pop_if(&mut self, wanted: impl Fn(&T) -> bool) -> Option<T> {
        let lanes = self.lanes.iter_mut().rev().find(|lanes| !lanes.is_empty())?;
        if !lanes.front()?.waiting.front().is_some_and(|waiting| wanted(&waiting.item)) {
            return None;
        }
        let mut lane = lanes.pop_front()?;
        let next = lane.waiting.pop_front();
        if lane.waiting.is_empty() {
            self.spare.push(lane.waiting);
        } else {
            lanes.push_back(lane);
        }
        self.len -= usize::from(next.is_some());
        next.map(|waiting| waiting.item)
    }

    /// Moves those whose deadline has passed to `late`.
    pub fn expire(&mut self, now: Instant, late: &mut Vec<T>) {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return;
        }
        self.earliest = None;
        let before = late.len();
        for lane in self.lanes.iter_mut().flatten() {
            for _ in 0..lane.waiting.len() {
                let Some(waiting) = lane.waiting.pop_front() else { break };
                if waiting.deadline <= now {
                    late.push(waiting.item);
                } else {
                    let earliest = self.earliest.unwrap_or(waiting.deadline);
                    self.earliest = Some(earliest.min(waiting.deadline));
                    lane.waiting.push_back(waiting);
                }
            }
        }
        self.len -= late.len() - before;
        self.drop_empty_lanes();
    }

    /// Takes all out, whatever their turn.
    pub fn drain(&mut self, out: &mut Vec<T>) {
        out.extend(std::iter::from_fn(|| self.pop()));
        self.earliest = None;
    }

    /// When [`expire`](Self::expire) may find something; never later than the earliest deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.earliest.filter(|_| self.len > 0)
    }

    /// Notes what one request took a worker.
    pub fn note_service(&mut self, took: Duration) {
        let mean = self
            .service
            .map_or(took, |mean| mean.mul_f64(1.0 - SERVICE_SHARE) + took.mul_f64(SERVICE_SHARE));
        self.service = Some(mean);
    }

    /// How long until `workers` workers have served what waits now.
    pub fn wait_estimate(&self, workers: usize) -> Duration {
        let service = self.service.unwrap_or(RETRY_MIN);
        let turns = self.len.div_ceil(workers.max(1)).max(1);
        service.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX)).max(RETRY_MIN)
    }

    /// Makes room for `client`: takes the newest request of the client with the most, of the
    /// lowest priority that waits, unless that would only trade places.
    fn push_out(&mut self, client: &ClientId, priority: Priority) -> Option<T> {
        let lowest = self.lanes.iter().position(|lanes| !lanes.is_empty())?;
        if lowest > priority as usize {
            return None;
        }
        let lanes = &mut self.lanes[lowest];
        let of_client = lanes.iter().find(|lane| lane.client == *client);
        let of_client = of_client.map_or(0, |lane| lane.waiting.len());
        let longest = lanes.iter_mut().max_by_key(|lane| lane.waiting.len())?;
        if lowest == priority as usize && longest.waiting.len() < of_client + 2 {
            return None;
        }
        let replaced = longest.waiting.pop_back()?;
        self.len -= 1;
        self.drop_empty_lanes();
        Some(replaced.item)
    }

    fn drop_empty_lanes(&mut self) {
        for lanes in &mut self.lanes {
            for _ in 0..lanes.len() {
                let Some(lane) = lanes.pop_front() else { break };
                if lane.waiting.is_empty() {
                    self.spare.push(lane.waiting);
                } else {
                    lanes.push_back(lane);
                }
            }
        }
    }
}
