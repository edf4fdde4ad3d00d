//! Who is computed, when, on which thread: queues, workers, and what happens when it goes wrong.
//!
//! [`Scheduler::submit`] admits a request to its model's [`station`] or answers it at once.
//! Workers are threads of their own; each keeps a session from one request to the next. Every
//! request is answered once: with outputs, or with an error, also if its deadline passes while
//! nobody is free. It knows neither transports nor files.

pub mod batch;
mod deadlines;
pub mod probe;
pub mod quarantine;
pub mod queue;
mod station;
mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::infer::{Code, InferError, InferRequest};
use crate::metrics::Metrics;
use crate::repository::slot::Slot;
use deadlines::Deadlines;
use probe::{Passed, Probe};
use quarantine::QuarantineOptions;
use station::Station;

/// Characters of a sender's text that are shown in errors and in the journal.
const SHOWN_CHARS_MAX: usize = 64;

/// Names that are less like the one asked for (1: equal) are not suggested.
const SIMILARITY_MIN: f64 = 0.7;

/// How requests are scheduled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerOptions {
    /// Requests of one model that wait.
    pub queue_requests_max: usize,
    /// Threads of each model, each with a session.
    pub workers: usize,
    /// Rows of the first dimension that one run may have for several requests; 1: no batches.
    pub batch_rows_max: usize,
    /// A run that takes longer counts as stuck: the process is no longer live.
    pub stuck_after: Duration,
    pub quarantine: QuarantineOptions,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            queue_requests_max: 64,
            workers: 1,
            batch_rows_max: 1,
            stuck_after: Duration::from_secs(60),
            quarantine: QuarantineOptions::default(),
        }
    }
}

/// All models' queues and workers.
pub struct Scheduler {
    stations: ArcSwap<BTreeMap<Arc<str>, Arc<Station>>>,
    /// Held by whoever changes `stations`.
    changing: Mutex<()>,
    options: SchedulerOptions,
    deadlines: Arc<Deadlines>,
}

impl Scheduler {
    /// Starts the thread that watches deadlines. Workers start with their models.
    pub fn start(options: SchedulerOptions) -> std::io::Result<Self> {
        Ok(Self {
            stations: ArcSwap::default(),
            changing: Mutex::default(),
            options,
            deadlines: Deadlines::start()?,
        })
    }

    /// Makes a queue for what `slot` serves, unless it has one, and tells its workers that another
    /// version serves.
    pub fn serve(&self, slot: &Arc<Slot>, metrics: &Metrics) -> std::io::Result<()> {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let stations = self.stations.load_full();
        if let Some(station) = stations.get(slot.name()) {
            station.renew();
            return Ok(());
        }
        let metrics = metrics.model(slot.name());
        let station = Station::new(Arc::clone(slot), metrics, self.options.clone());
        let station = Arc::new(station);
        worker::start(&station)?;
        self.deadlines.watch(&station);
        let mut stations = (*stations).clone();
        stations.insert(Arc::clone(slot.name()), station);
        self.stations.store(Arc::new(stations));
        drop(changing);
        Ok(())
    }

    /// Forgets a model: what waits is answered, its workers end.
    pub fn forget(&self, name: &str) {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stations = (**self.stations.load()).clone();
        let station = stations.remove(name);
        self.stations.store(Arc::new(stations));
        drop(changing);
        if let Some(station) = station {
            station.close();
        }
    }

    /// Takes a request, and answers it through its reply: at once, if it is refused.
    pub fn submit(&self, request: InferRequest) {
        let stations = self.stations.load();
        match stations.get(request.model.name.as_str()) {
            Some(station) => {
                if let Some(deadline) = station.submit(request) {
                    self.deadlines.note(deadline);
                }
            }
            None => {
                let names = stations.keys().map(|name| &**name);
                let error = not_found(&request.model.name, names);
                request.reply.send(Err(error));
            }
        }
    }

    /// Whether there is a queue for that name.
    pub fn serves(&self, name: &str) -> bool {
        self.stations.load().contains_key(name)
    }

    /// Tells a model's workers that what serves has changed.
    pub fn renew(&self, name: &str) {
        if let Some(station) = self.stations.load().get(name) {
            station.renew();
        }
    }

    /// Why a model is in quarantine, if it is.
    pub fn quarantine(&self, name: &str) -> Option<String> {
        self.stations.load().get(name).and_then(|station| station.quarantine(Instant::now()))
    }

    /// Whether no run has been going on for too long.
    pub fn is_live(&self) -> bool {
        let now = Instant::now();
        !self.stations.load().values().any(|station| station.is_stuck(now))
    }

    /// Asks every worker whether it still works. `passed` is called when all have passed by their
    /// queues, and never if one does not, or if its model goes before.
    pub fn probe(&self, passed: Passed) {
        let probe = Probe::new(passed);
        self.stations.load().values().for_each(|station| station.probe(&probe));
        probe.pass();
    }

    /// Lets what waits be computed until `deadline`, answers the rest, and refuses what comes.
    /// Returns whether all workers have ended.
    pub fn close(&self, deadline: Instant) -> bool {
        let stations = self.stations.load_full();
        stations.values().for_each(|station| station.close());
        // Each is waited for, also after one that did not end in time.
        let busy = stations.values().filter(|station| !station.wait_until_ended(deadline)).count();
        self.deadlines.stop();
        busy == 0
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.close(Instant::now());
    }
}

/// The error for a name that nobody serves, with the nearest one that somebody does.
pub fn not_found<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> InferError {
    let similarity = |other: &str| strsim::jaro_winkler(name, other);
    let nearest = known
        .clone()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
        .filter(|nearest| similarity(nearest) >= SIMILARITY_MIN);
    let shown = shown(name);
    let text = match nearest {
        Some(nearest) => format!("model `{shown}`: not known; did you mean `{nearest}`?"),
        None => {
            let known: Vec<_> = known.take(8).collect();
            let known = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
            format!("model `{shown}`: not known; the models here are: {known}")
        }
    };
    InferError::new(Code::NotFound, text)
}

/// A sender's text, made harmless for a journal and for a terminal.
pub fn shown(text: &str) -> String {
    let mut shown: String =
        text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}
