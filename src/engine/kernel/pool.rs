//! A fixed pool of threads for one fork and one join at a time, that sleeps when idle.
//!
//! A thread that waits here waits in the kernel. Spin barriers are faster on a quiet machine and
//! 250 times slower on a shared one (measured with ggml's), and they turn idle watts into heat.
//! A second caller finds the pool taken and does its work alone: no queue, no deadlock.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Threads, the caller's included, that run the parts of a job.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    /// Held by the caller whose job is running.
    entry: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    job: Option<Job>,
    /// Parts taken so far, and how many there are.
    taken: usize,
    parts: usize,
    running: usize,
    panic: Option<Panic>,
    stop: bool,
}

type Panic = Box<dyn std::any::Any + Send>;

type BorrowedJob<'a> = dyn Fn(usize) + Sync + 'a;
type ErasedJob = dyn Fn(usize) + Sync;

/// A borrowed closure whose lifetime has been erased; see the safety argument in [`Pool::run`].
#[derive(Clone, Copy)]
struct Job(*const ErasedJob);

// SAFETY: the closure is `Sync`, so calling it from other threads is sound while it lives, and
// `Pool::run` keeps it alive until no thread uses it any more.
unsafe impl Send for Job {}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

impl Pool {
    /// A pool of `threads` threads (at least 1), one of which is whoever calls [`Pool::each`].
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        // First the pool, then its threads: if one can't be started, dropping it stops the others.
        let mut pool = Self { shared, entry: Mutex::new(()), workers: Vec::new() };
        for i in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new().name(format!("moed-kernel-{i}"));
            pool.workers.push(thread.spawn(move || shared.work())?);
        }
        Ok(pool)
    }

    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f` once for each item, on as many threads as there are, and returns when all are
    /// done. A panic in `f` is passed on after that.
    pub fn each<T: Send>(&self, items: &mut [T], f: impl Fn(usize, &mut T) + Sync) {
        let entry = if items.len() > 1 && !self.workers.is_empty() {
            match self.entry.try_lock() {
                Ok(entry) => Some(entry),
                Err(std::sync::TryLockError::Poisoned(entry)) => Some(entry.into_inner()),
                Err(std::sync::TryLockError::WouldBlock) => None,
            }
        } else {
            None
        };
        if entry.is_none() {
            items.iter_mut().enumerate().for_each(|(i, item)| f(i, item));
            return;
        }
        struct Items<T>(*mut T);
        // SAFETY: each index is given to one thread, once; `T` is `Send`.
        unsafe impl<T: Send> Sync for Items<T> {}
        impl<T> Items<T> {
            fn at(&self, i: usize) -> *mut T {
                self.0.wrapping_add(i)
            }
        }
        let parts = items.len();
        let items = Items(items.as_mut_ptr());
        self.run(parts, &|i| {
            // SAFETY: `i < parts`, and no other thread has this `i` (see `State::taken`).
            f(i, unsafe { &mut *items.at(i) });
        });
    }

    fn run(&self, parts: usize, job: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime changes. The job is taken back below before this function
        // returns, after every thread that took a part has finished it, whether `job` panics or
        // not: `work_off` catches panics.
        let job = unsafe { std::mem::transmute::<*const BorrowedJob<'_>, *const ErasedJob>(job) };
        {
            let mut state = self.shared.lock();
            *state = State { job: Some(Job(job)), parts, ..State::default() };
        }
        self.shared.work.notify_all();
        let mut state = self.shared.work_off(self.shared.lock());
        while state.running > 0 {
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.job = None;
        let panic = state.panic.take();
        drop(state);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches panics, so there is nothing to learn from its result.
            drop(worker.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        while !state.stop {
            state = self.work_off(state);
            if !state.stop && (state.job.is_none() || state.taken == state.parts) {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Takes parts of the current job until none is left.
    fn work_off<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while let Some(job) = state.job.filter(|_| state.taken < state.parts) {
            let part = state.taken;
            state.taken += 1;
            state.running += 1;
            drop(state);
            // SAFETY: `run` does not return, and so the closure lives, while `running` is not 0.
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*job.0)(part) }));
            state = self.lock();
            state.running -= 1;
            if let Err(panic) = result {
                state.panic = Some(panic);
            }
            if state.running == 0 {
                self.done.notify_all();
            }
        }
        state
    }
}
