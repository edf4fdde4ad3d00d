//! One model's place in the scheduler: its queue, and what its workers share.
//!
//! Nothing is answered while the lock is held. Knows neither threads nor sessions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::probe::Probe;
use super::quarantine::Quarantine;
use super::queue::{Pushed, Queue};
use super::{SchedulerOptions, shown};
use crate::infer::{Code, InferError, InferRequest};
use crate::metrics::ModelMetrics;
use crate::repository::slot::Slot;
use crate::repository::version::Version;

/// A request that was admitted.
#[derive(Debug)]
pub struct Job {
    pub request: InferRequest,
    pub admitted: Instant,
}

/// What a worker does next.
#[expect(clippy::large_enum_variant, reason = "it is moved once, and a box would be allocated")]
#[derive(Debug)]
pub enum Turn {
    Run(Job),
    /// Another version serves, or none.
    Renew,
    End,
}

/// A model's queue and what is shared around it.
pub struct Station {
    slot: Arc<Slot>,
    metrics: Arc<ModelMetrics>,
    options: SchedulerOptions,
    state: Mutex<State>,
    /// For workers: there is something to do.
    wake: Condvar,
    /// For who closes it: a worker has ended.
    ended: Condvar,
    born: Instant,
    /// For each worker, when its run began, in milliseconds after `born` plus 1; 0: none runs.
    busy_since_ms: Vec<AtomicU64>,
}

struct State {
    queue: Queue<Job>,
    quarantine: Quarantine,
    closing: bool,
    workers: usize,
    /// For each worker, what it is asked and has not passed.
    probes: Vec<Option<Arc<Probe>>>,
}

impl Station {
    pub fn new(slot: Arc<Slot>, metrics: Arc<ModelMetrics>, options: SchedulerOptions) -> Self {
        let state = State {
            queue: Queue::new(options.queue_requests_max),
            quarantine: Quarantine::new(options.quarantine.clone()),
            closing: false,
            workers: 0,
            probes: vec![None; options.workers],
        };
        Self {
            slot,
            metrics,
            state: Mutex::new(state),
            wake: Condvar::new(),
            ended: Condvar::new(),
            born: Instant::now(),
            busy_since_ms: (0..options.workers).map(|_| AtomicU64::new(0)).collect(),
            options,
        }
    }

    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    pub fn metrics(&self) -> &ModelMetrics {
        &self.metrics
    }

    pub fn options(&self) -> &SchedulerOptions {
        &self.options
    }

    /// Admits a request and returns its deadline, or answers it.
    pub fn submit(&self, request: InferRequest) -> Option<Instant> {
        let now = Instant::now();
        let checked = match self.slot.current() {
            Some(version) => check(&request, &version),
            None => Err(self.unavailable()),
        };
        if let Err(error) = checked {
            self.refuse(Job { request, admitted: now }, error);
            return None;
        }
        let (client, priority) = (request.client.clone(), request.options.priority);
        let deadline = request.deadline;
        let job = Job { request, admitted: now };
        let mut state = self.lock();
        let refusal = if state.closing {
            Some(stopping())
        } else {
            state.quarantine.remaining(now).map(in_quarantine)
        };
        if let Some(error) = refusal {
            drop(state);
            self.refuse(job, error);
            return None;
        }
        let pushed = state.queue.push(now, job, &client, priority, deadline);
        let queued = state.queue.len();
        let wait = state.queue.wait_estimate(self.options.workers);
        // While the lock is held: a worker that takes it at once notes that after this.
        self.metrics.note_queued(queued);
        drop(state);
        match pushed {
            Pushed::Admitted => self.wake.notify_one(),
            Pushed::Replaced(other) => self.refuse(other, overloaded(queued, wait)),
            Pushed::Refused(job) => {
                self.refuse(job, overloaded(queued, wait));
                return None;
            }
            Pushed::Late(job) => {
                self.refuse(job, late());
                return None;
            }
        }
        Some(deadline)
    }

    /// What a worker that has `version` does next; waits until there is something.
    pub fn next(&self, worker: usize, version: Option<&Arc<Version>>, late: &mut Vec<Job>) -> Turn {
        let mut state = self.lock();
        loop {
            if let Some(probe) = state.probes.get_mut(worker).and_then(Option::take) {
                drop(state);
                probe.pass();
                state = self.lock();
            }
            let now = Instant::now();
            state.queue.expire(now, late);
            if !late.is_empty() {
                state = self.answer_late(state, late);
                continue;
            }
            if !self.slot.is_current(version) {
                return Turn::Renew;
            }
            if let Some(job) = state.queue.pop() {
                self.metrics.note_queued(state.queue.len());
                return Turn::Run(job);
            }
            if state.closing {
                return Turn::End;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The request after the one that a worker has, if `wanted` takes it.
    pub fn next_if(&self, wanted: impl Fn(&Job) -> bool) -> Option<Job> {
        let mut state = self.lock();
        let next = state.queue.pop_if(wanted);
        self.metrics.note_queued(state.queue.len());
        next
    }

    /// Answers those whose deadline has passed; returns the next deadline.
    pub fn expire(&self, now: Instant, late: &mut Vec<Job>) -> Option<Instant> {
        let mut state = self.lock();
        state.queue.expire(now, late);
        if !late.is_empty() {
            state = self.answer_late(state, late);
        }
        state.queue.next_deadline()
    }

    fn answer_late<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        jobs: &mut Vec<Job>,
    ) -> MutexGuard<'a, State> {
        self.metrics.note_queued(state.queue.len());
        drop(state);
        jobs.drain(..).for_each(|job| self.refuse(job, late()));
        self.lock()
    }

    /// Answers a request with an error, and counts it.
    pub fn refuse(&self, job: Job, error: InferError) {
        self.metrics.note_error(error.code, job.admitted.elapsed());
        job.request.reply.send(Err(error));
    }

    /// Notes a run that went well.
    pub fn note_success(&self, took: Duration) {
        let mut state = self.lock();
        state.queue.note_service(took);
        state.quarantine.note_success();
    }

    /// Notes a run that panicked. If it was one too many, all that waits is answered.
    pub fn note_panic(&self, cause: &str) {
        self.metrics.note_panic();
        let now = Instant::now();
        let mut state = self.lock();
        if !state.quarantine.note_panic(now, cause) {
            return;
        }
        let mut jobs = Vec::new();
        state.queue.drain(&mut jobs);
        let remaining = state.quarantine.remaining(now).unwrap_or_default();
        let reason = state.quarantine.reason().unwrap_or_default().to_owned();
        self.metrics.note_queued(0);
        drop(state);
        let name = &**self.slot.name();
        log::error!(MODEL = name; "model {name}: quarantined: {reason}");
        for job in jobs {
            self.refuse(job, in_quarantine(remaining));
        }
    }

    /// Why it is in quarantine, if it is.
    pub fn quarantine(&self, now: Instant) -> Option<String> {
        let state = self.lock();
        state.quarantine.remaining(now)?;
        state.quarantine.reason().map(str::to_owned)
    }

    /// Another version serves: its workers open it, and it starts without a past.
    pub fn renew(&self) {
        self.lock().quarantine.forget();
        self.wake.notify_all();
    }

    /// Asks every worker. One that has not passed an older probe owes only this one from now on:
    /// the older is never passed.
    pub fn probe(&self, probe: &Arc<Probe>) {
        let mut state = self.lock();
        for place in &mut state.probes {
            probe.expect_one();
            *place = Some(Arc::clone(probe));
        }
        drop(state);
        self.wake.notify_all();
    }

    pub fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_all();
    }

    /// Waits until all workers have ended; at `deadline`, answers what still waits.
    pub fn wait_until_ended(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        while state.workers > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.ended.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut jobs = Vec::new();
        state.queue.drain(&mut jobs);
        let ended = state.workers == 0;
        drop(state);
        for job in jobs {
            self.refuse(job, stopping());
        }
        ended
    }

    pub fn note_worker_started(&self) {
        self.lock().workers += 1;
    }

    pub fn note_worker_ended(&self) {
        let mut state = self.lock();
        state.workers = state.workers.saturating_sub(1);
        drop(state);
        self.ended.notify_all();
    }

    /// A worker's run begins at `now`, or has ended.
    pub fn note_busy(&self, worker: usize, now: Option<Instant>) {
        let ms = now.map_or(0, |now| self.ms_since_born(now) + 1);
        if let Some(busy) = self.busy_since_ms.get(worker) {
            busy.store(ms, Ordering::Relaxed);
        }
    }

    pub fn is_stuck(&self, now: Instant) -> bool {
        let limit = u64::try_from(self.options.stuck_after.as_millis()).unwrap_or(u64::MAX);
        let now = self.ms_since_born(now);
        let since = self.busy_since_ms.iter().map(|busy| busy.load(Ordering::Relaxed));
        since.filter(|&since| since > 0).any(|since| now.saturating_sub(since) > limit)
    }

    fn ms_since_born(&self, now: Instant) -> u64 {
        let ms = now.saturating_duration_since(self.born).as_millis();
        u64::try_from(ms).unwrap_or(u64::MAX - 1)
    }

    /// The error while nothing serves. The owner's reason is not the sender's.
    pub fn unavailable(&self) -> InferError {
        let standing = self.slot.standing();
        let text = format!("model `{}`: not ready; try again later", self.slot.name());
        let error = InferError::new(Code::Unavailable, text);
        match &standing.reason {
            Some(reason) => error.with_journal(reason.clone()),
            None => error,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses what asks for another version or for outputs that there are not.
pub fn check(request: &InferRequest, version: &Version) -> Result<(), InferError> {
    if let Some(wanted) = &request.model.version
        && **wanted != **version.version()
    {
        let (name, wanted, serving) = (version.name(), shown(wanted), version.version());
        let text = format!("model `{name}`: version {wanted}: not here; {serving} serves");
        return Err(InferError::new(Code::NotFound, text));
    }
    let outputs = &version.info().outputs;
    let is_known = |name: &&String| outputs.iter().any(|output| *output.name == ***name);
    if let Some(unknown) = request.options.outputs.iter().find(|name| !is_known(name)) {
        let names: Vec<_> = outputs.iter().map(|output| &*output.name).collect();
        let (unknown, names) = (shown(unknown), names.join(", "));
        let text = format!("output `{unknown}`: not known; the model gives: {names}");
        return Err(InferError::new(Code::InvalidRequest, text));
    }
    Ok(())
}

fn overloaded(queued: usize, wait: Duration) -> InferError {
    let text = format!("queue: full with {queued} requests; try again in {} ms", wait.as_millis());
    InferError::new(Code::Overloaded, text).with_retry_after(wait)
}

fn late() -> InferError {
    let text = "request: its deadline passed before it was computed; allow more time or send less";
    InferError::new(Code::DeadlineExceeded, text)
}

fn in_quarantine(remaining: Duration) -> InferError {
    let text = "model: it failed too often and is left alone for a while; try again later";
    InferError::new(Code::Unavailable, text).with_retry_after(remaining)
}

fn stopping() -> InferError {
    InferError::new(Code::Unavailable, "moed: it is stopping; try again in a few seconds")
        .with_retry_after(Duration::from_secs(2))
}
