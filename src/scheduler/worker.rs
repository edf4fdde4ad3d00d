//! The threads that compute: each keeps a session and runs one request, or one batch, at a time.
//!
//! A panic ends the request, not the thread: the session is dropped and another one opened.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::station::{Job, Station, Turn, check};
use super::{batch, shown};
use crate::engine::LayerReport;
use crate::infer::{Answer, Code, Cost, InferError, RunError};
use crate::metrics::Observation;
use crate::repository::version::{Computed, Ready, Runner, Version};

/// Starts a station's workers.
pub fn start(station: &Arc<Station>) -> std::io::Result<()> {
    for number in 0..station.options().workers {
        let ended = Ended(Arc::clone(station));
        station.note_worker_started();
        let name = format!("moed-worker-{number}");
        std::thread::Builder::new().name(name).spawn(move || {
            Worker { station: &ended.0, number, runner: None, version: None }.work();
        })?;
    }
    Ok(())
}

/// Says that a worker has ended, however it did.
struct Ended(Arc<Station>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.note_worker_ended();
    }
}

struct Worker<'a> {
    station: &'a Arc<Station>,
    number: usize,
    /// The version that it has opened, or tried to.
    version: Option<Arc<Version>>,
    runner: Option<Runner>,
}

impl Worker<'_> {
    fn work(mut self) {
        let mut late = Vec::new();
        loop {
            match self.station.next(self.number, self.version.as_ref(), &mut late) {
                Turn::Run(job) => {
                    self.station.note_busy(self.number, Some(Instant::now()));
                    self.serve(job);
                    self.station.note_busy(self.number, None);
                }
                Turn::Renew => {
                    self.runner = None;
                    self.version = self.station.slot().current();
                }
                Turn::End => return,
            }
        }
    }

    fn serve(&mut self, job: Job) {
        let Some(version) = self.version.clone() else {
            return self.station.refuse(job, self.station.unavailable());
        };
        // Another version may serve by now than when it was admitted.
        if let Err(error) = check(&job.request, &version) {
            return self.station.refuse(job, error);
        }
        let rows_max = self.station.options().batch_rows_max;
        let mut others = Vec::new();
        if rows_max > 1 && batch::is_batchable(version.graph()) {
            self.gather(&job, rows_max, &mut others);
        }
        if others.is_empty() {
            self.serve_one(&version, job);
        } else {
            others.insert(0, job);
            self.serve_batch(&version, others);
        }
    }

    /// A session to run: the one that it has, or a new one.
    fn open(&mut self, version: &Arc<Version>) -> Result<Runner, InferError> {
        self.runner.take().map_or_else(|| version.runner(), Ok).map_err(|error| {
            let text = "model: it can't be run right now; try again later";
            InferError::new(Code::Unavailable, text).with_journal(error.to_string())
        })
    }

    fn serve_one(&mut self, version: &Arc<Version>, mut job: Job) {
        let mut runner = match self.open(version) {
            Ok(runner) => runner,
            Err(error) => return self.fail(job, error),
        };
        let started = Instant::now();
        let inputs = std::mem::take(&mut job.request.inputs);
        let options = &job.request.options;
        let run = catch_unwind(AssertUnwindSafe(|| runner.run(inputs, options)));
        match self.keep(runner, run) {
            Ok(computed) => {
                let metrics = self.station.metrics();
                metrics.note_run(1, computed.compute_infer, &computed.report);
                self.answer(job, version, started, computed);
            }
            Err(error) => self.fail(job, error.into()),
        }
    }

    /// Takes from the queue what may be computed together with `job`.
    fn gather(&self, job: &Job, rows_max: usize, others: &mut Vec<Job>) {
        let rows = |job: &Job| {
            let first = job.request.inputs.first();
            first.and_then(|input| input.tensor.shape().dims().first()).copied().unwrap_or(rows_max)
        };
        let (k, mut total) = (job.request.options.k, rows(job));
        let fits =
            |other: &Job, total| other.request.options.k == k && total + rows(other) <= rows_max;
        while let Some(next) = self.station.next_if(|other| fits(other, total)) {
            total += rows(&next);
            others.push(next);
        }
    }

    /// Computes in one run those of `jobs` that fit the first, and the others after it. If that
    /// run fails, each has one of its own: one bad request must not fail the others.
    fn serve_batch(&mut self, version: &Arc<Version>, jobs: Vec<Job>) {
        let started = Instant::now();
        let mut runner = match self.open(version) {
            Ok(runner) => runner,
            Err(error) => {
                return jobs.into_iter().for_each(|job| self.fail(job, error.clone()));
            }
        };
        let run = catch_unwind(AssertUnwindSafe(|| compute_together(&mut runner, &jobs)));
        let mut results = self.keep(runner, run).unwrap_or_default();
        let together = results.iter().flatten().count();
        if let Some(first) = results.iter().flatten().next() {
            self.station.metrics().note_run(together, first.compute_infer, &first.report);
        }
        results.resize_with(jobs.len(), || None);
        for (job, computed) in jobs.into_iter().zip(results) {
            match computed {
                Some(computed) => self.answer(job, version, started, computed),
                None => self.serve_one(version, job),
            }
        }
    }

    /// Keeps the session for the next run, unless this one panicked.
    fn keep<T>(
        &mut self,
        runner: Runner,
        run: std::thread::Result<Result<T, RunError>>,
    ) -> Result<T, RunError> {
        let run = run.unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
        match &run {
            Err(RunError::Panicked { journal }) => self.station.note_panic(journal),
            _ => self.runner = Some(runner),
        }
        run
    }

    fn answer(&self, job: Job, version: &Version, started: Instant, computed: Computed) {
        let queue = started.saturating_duration_since(job.admitted);
        let report = &computed.report;
        let observation = Observation {
            queue,
            compute_input: computed.compute_input,
            compute_infer: computed.compute_infer,
            compute_output: computed.compute_output,
            report,
        };
        let compute = observation.compute();
        self.station.metrics().note_answer(observation);
        self.station.note_success(compute);
        let experts =
            |layer: &LayerReport| layer.experts.iter().map(|(expert, _)| *expert).collect();
        let cost = Cost {
            k: report.layers.iter().map(|layer| layer.k).max().unwrap_or(0),
            experts: report.layers.iter().map(experts).collect(),
            weight_bytes_read: report.weight_bytes_read(),
            queue,
            compute,
        };
        let (model, version) = (Arc::clone(version.name()), Arc::clone(version.version()));
        job.request.reply.send(Ok(Answer { model, version, outputs: computed.outputs, cost }));
    }

    /// Answers with an error; a fault of the model or of ours is said in the journal too.
    fn fail(&self, job: Job, error: InferError) {
        if matches!(error.code, Code::ModelFailed | Code::Internal | Code::Unavailable) {
            let model = &**self.station.slot().name();
            let (id, peer) = (shown(&job.request.id), shown(&job.request.client.0));
            let journal = error.journal.as_deref().unwrap_or(&error.client);
            log::error!(
                MODEL = model, REQUEST_ID = id, CODE = error.code.word(), PEER = peer;
                "model {model}: request {id}: {journal}"
            );
        }
        self.station.refuse(job, error);
    }
}

/// Runs those of `jobs` that fit the first one together; `None` for the others.
fn compute_together(runner: &mut Runner, jobs: &[Job]) -> Result<Vec<Option<Computed>>, RunError> {
    let mut ready: Vec<Option<Ready>> = Vec::with_capacity(jobs.len());
    for Job { request, .. } in jobs {
        let prepared = runner.prepare(request.inputs.clone(), &request.options).ok();
        let first = ready.iter().flatten().next();
        let fits = |one: &Ready| {
            first.is_none_or(|first| first.k == one.k && batch::fit(&first.inputs, &one.inputs))
        };
        ready.push(prepared.filter(fits));
    }
    let failed = |cause: String| RunError::Model { cause };
    let inputs: Vec<_> = ready.iter().flatten().map(|one| one.inputs.as_slice()).collect();
    let rows: Vec<_> = inputs.iter().map(|inputs| batch::rows(inputs)).collect();
    let joined = batch::join(&inputs).map_err(|error| failed(error.to_string()))?;
    let start = Instant::now();
    let k = ready.iter().flatten().next().and_then(|first| first.k);
    let (outputs, report) = runner.infer(&joined, k)?;
    let compute_infer = start.elapsed();
    let parts = batch::split(&outputs, &rows);
    let mut parts = parts.ok_or_else(|| failed("its outputs are no batch".to_owned()))?.into_iter();
    let finished = ready.iter().zip(jobs).map(|(one, job)| {
        let Some(one) = one else { return Ok(None) };
        let outputs = parts.next().unwrap_or_default();
        let (outputs, compute_output) = runner.finish(one, outputs, &job.request.options)?;
        let (report, compute_input) = (report.clone(), one.took());
        Ok(Some(Computed { outputs, report, compute_input, compute_infer, compute_output }))
    });
    finished.collect()
}

/// What a panic said.
fn panicked(panic: &(dyn std::any::Any + Send)) -> RunError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    RunError::Panicked { journal: text.unwrap_or("it said nothing").to_owned() }
}
