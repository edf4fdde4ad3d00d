//! The threads that compute: each keeps a session and runs one request, or one batch, at a time.
//!
//! A panic ends the request, not the thread: the session is dropped and another one opened.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::station::{Job, Station, Turn, check};
use super::{batch, shown};
use crate::engine::RunReport;
use crate::infer::{Answer, Code, Cost, InferError, Priority, RunError};
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
            match self.station.next(self.version.as_ref(), &mut late) {
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
        let runner = match self.runner.take() {
            Some(runner) => Ok(runner),
            None => version.runner(),
        };
        let runner = match runner {
            Ok(runner) => runner,
            Err(error) => {
                let text = "model: it can't be run right now; try again later";
                let error = InferError::new(Code::Unavailable, text).with_journal(error.to_string());
                return self.fail(job, error);
            }
        };
        let jobs = self.gather(job, &runner);
        match jobs {
            Ok(job) => self.serve_one(job, runner),
            Err(jobs) => self.serve_batch(jobs, runner),
        }
    }

    /// The one request, or, as an "error", those that may be computed with it.
    fn gather(&self, job: Job, runner: &Runner) -> Result<Job, Vec<Job>> {
        let rows_max = self.station.options().batch_rows_max;
        if rows_max <= 1 || !batch::is_batchable(runner.version().graph()) {
            return Ok(job);
        }
        let rows = |job: &Job| {
            let inputs = &job.request.inputs;
            inputs.first().and_then(|input| input.tensor.shape().dims().first()).copied()
        };
        let (k, mut total) = (job.request.options.k, rows(&job).unwrap_or(rows_max));
        let mut jobs = vec![job];
        while let Some(next) = self.station.next_if(|job| {
            job.request.options.k == k && total + rows(job).unwrap_or(rows_max) <= rows_max
        }) {
            total += rows(&next).unwrap_or(0);
            jobs.push(next);
        }
        if jobs.len() == 1 { jobs.pop().map_or(Err(jobs), Ok) } else { Err(jobs) }
    }

    fn serve_one(&mut self, mut job: Job, mut runner: Runner) {
        let started = Instant::now();
        let inputs = std::mem::take(&mut job.request.inputs);
        let options = &job.request.options;
        let run = catch_unwind(AssertUnwindSafe(|| runner.run(inputs, options)));
        match run.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))) {
            Ok(computed) => {
                let metrics = self.station.metrics();
                metrics.note_run(1, computed.compute_infer, &computed.report);
                self.answer(job, runner.version(), started, computed);
                self.runner = Some(runner);
            }
            Err(error) => {
                if let RunError::Panicked { journal } = &error {
                    self.station.note_panic(journal);
                } else {
                    self.runner = Some(runner);
                }
                self.fail(job, error.into());
            }
        }
    }

    fn serve_batch(&mut self, jobs: Vec<Job>, mut runner: Runner) {
        let started = Instant::now();
        let mut ready: Vec<(Job, Ready)> = Vec::with_capacity(jobs.len());
        let mut alone = Vec::new();
        for mut job in jobs {
            let inputs = job.request.inputs.clone();
            match runner.prepare(inputs, &job.request.options) {
                Ok(prepared)
                    if ready.first().is_none_or(|(_, first)| {
                        batch::fit(&first.inputs, &prepared.inputs) && first.k == prepared.k
                    }) =>
                {
                    job.request.inputs.clear();
                    ready.push((job, prepared));
                }
                Ok(_) | Err(_) => alone.push(job),
            }
        }
        let run = catch_unwind(AssertUnwindSafe(|| run_batch(&mut runner, &ready)));
        match run.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))) {
            Ok((parts, report, infer)) => {
                self.station.metrics().note_run(ready.len(), infer, &report);
                for ((job, ready), outputs) in ready.into_iter().zip(parts) {
                    let finished = runner.finish(&ready, outputs, &job.request.options);
                    match finished {
                        Ok((outputs, compute_output)) => {
                            let computed = Computed {
                                outputs,
                                report: report.clone(),
                                compute_input: ready.took(),
                                compute_infer: infer,
                                compute_output,
                            };
                            self.answer(job, runner.version(), started, computed);
                        }
                        Err(error) => self.fail(job, error.into()),
                    }
                }
                self.runner = Some(runner);
            }
            Err(error) => {
                if let RunError::Panicked { journal } = &error {
                    self.station.note_panic(journal);
                } else {
                    self.runner = Some(runner);
                }
                for (job, _) in ready {
                    self.fail(job, error.clone().into());
                }
            }
        }
        alone.into_iter().for_each(|job| self.serve_alone(job));
    }

    /// For those that did not fit their batch: as if there had been none.
    fn serve_alone(&mut self, job: Job) {
        let Some(version) = self.version.clone() else {
            return self.station.refuse(job, self.station.unavailable());
        };
        let opened = self.runner.take().map_or_else(|| version.runner(), Ok);
        match opened {
            Ok(runner) => self.serve_one(job, runner),
            Err(error) => {
                let text = "model: it can't be run right now; try again later";
                let error = InferError::new(Code::Unavailable, text).with_journal(error.to_string());
                self.fail(job, error);
            }
        }
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
        let experts = |layer: &crate::engine::LayerReport| {
            layer.experts.iter().map(|(expert, _)| *expert).collect()
        };
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

type Parts = (Vec<Vec<crate::tensor::Tensor>>, RunReport, std::time::Duration);

fn run_batch(runner: &mut Runner, ready: &[(Job, Ready)]) -> Result<Parts, RunError> {
    let model_error = |cause: String| RunError::Model { cause };
    let inputs: Vec<_> = ready.iter().map(|(_, ready)| ready.inputs.as_slice()).collect();
    let rows: Vec<_> = inputs.iter().map(|inputs| batch::rows(inputs)).collect();
    let joined = batch::join(&inputs).map_err(|error| model_error(error.to_string()))?;
    let start = Instant::now();
    let (outputs, report) = runner.infer(&joined, ready.first().and_then(|(_, ready)| ready.k))?;
    let took = start.elapsed();
    let split = batch::split(&outputs, &rows);
    let parts = split.ok_or_else(|| model_error("its outputs are no batch".to_owned()))?;
    Ok((parts, report, took))
}

/// What a panic said.
fn panicked(panic: &(dyn std::any::Any + Send)) -> RunError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    RunError::Panicked { journal: text.unwrap_or("it said nothing").to_owned() }
}
