//! One loaded version of a model, and what a worker runs of it.
//!
//! A [`Version`] is shared; each worker opens a [`Runner`], which owns the buffers of its runs.
//! Knows neither queues nor files.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::bundle::{KRange, graph};
use crate::engine::{LayerInfo, LoadError, Model, RunOptions, RunReport, Session, Signature};
use crate::infer::{ModelInfo, NamedTensor, Output, RequestOptions, RunError};
use crate::pipeline::{BUDGET, Kept, Pipeline, Prepared, Task};
use crate::tensor::Tensor;

/// A version that is loaded.
pub struct Version {
    name: Arc<str>,
    version: Arc<str>,
    info: Arc<ModelInfo>,
    model: Box<dyn Model>,
    pipeline: Pipeline,
    k: Option<KRange>,
    /// Sessions that have run before, for the first who ask.
    warm: Mutex<Vec<Box<dyn Session>>>,
}

impl Version {
    pub fn new(
        info: ModelInfo,
        model: Box<dyn Model>,
        pipeline: Pipeline,
        k: Option<KRange>,
    ) -> Self {
        Self {
            name: info.name.as_str().into(),
            version: info.version.as_str().into(),
            info: Arc::new(info),
            model,
            pipeline,
            k,
            warm: Mutex::default(),
        }
    }

    /// A model of task `tensor` without a bundle: what clients see is what the graph has.
    ///
    /// # Errors
    /// If the graph can't be used as it is.
    pub fn plain(name: &str, model: Box<dyn Model>) -> Result<Self, String> {
        let pipeline = Pipeline::new(&Task::Tensor, &graph(model.signature()), None)?;
        let k_max = model.layers().iter().map(|layer| layer.k).max();
        let info = ModelInfo {
            name: name.to_owned(),
            version: "0.0.0".to_owned(),
            versions: vec!["0.0.0".to_owned()],
            task: Task::Tensor.word().to_owned(),
            inputs: pipeline.signature().inputs.clone(),
            outputs: pipeline.signature().outputs.clone(),
            k: k_max.map(|k_max| (1, k_max)),
            resident_bytes: 0,
        };
        Ok(Self::new(info, model, pipeline, None))
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    pub fn info(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    pub fn layers(&self) -> &[LayerInfo] {
        self.model.layers()
    }

    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// The graph's own inputs and outputs.
    pub fn graph(&self) -> &Signature {
        self.model.signature()
    }

    /// A runner: one that has run before, if there is one.
    pub fn runner(self: &Arc<Self>) -> Result<Runner, LoadError> {
        let warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let session = match warm {
            Some(session) => session,
            None => self.model.session()?,
        };
        Ok(Runner { version: Arc::clone(self), session })
    }

    /// Leaves a session that has run to whoever opens a runner next.
    pub fn keep_warm(&self, session: Box<dyn Session>) {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }

    /// The k that a run is given: the request's, or the manifest's where the graph has no
    /// allocator that chooses it.
    fn k(&self, options: &RequestOptions) -> Result<Option<usize>, RunError> {
        match (self.k, options.k) {
            (Some(range), Some(k)) if !(range.min()..=range.max()).contains(&k) => {
                Err(RunError::K { k, k_min: range.min(), k_max: range.max() })
            }
            (_, Some(k)) => Ok(Some(k)),
            (Some(range), None) if !self.chooses_k() => Ok(Some(range.default_k())),
            (_, None) => Ok(None),
        }
    }

    fn chooses_k(&self) -> bool {
        self.model.signature().inputs.iter().any(|input| input.name == BUDGET)
    }
}

/// One thread's use of a version.
pub struct Runner {
    version: Arc<Version>,
    session: Box<dyn Session>,
}

/// A request's inputs, ready for the graph.
#[derive(Debug)]
pub struct Ready {
    pub inputs: Vec<Tensor>,
    pub k: Option<usize>,
    kept: Kept,
    took: Duration,
}

/// What a request got, and what it took.
#[derive(Debug)]
pub struct Computed {
    pub outputs: Vec<Output>,
    pub report: RunReport,
    pub compute_input: Duration,
    pub compute_infer: Duration,
    pub compute_output: Duration,
}

impl Runner {
    pub fn version(&self) -> &Arc<Version> {
        &self.version
    }

    /// All three steps.
    pub fn run(
        &mut self,
        inputs: Vec<NamedTensor>,
        options: &RequestOptions,
    ) -> Result<Computed, RunError> {
        let ready = self.prepare(inputs, options)?;
        let start = Instant::now();
        let (outputs, report) = self.infer(&ready.inputs, ready.k)?;
        let compute_infer = start.elapsed();
        let (outputs, compute_output) = self.finish(&ready, outputs, options)?;
        Ok(Computed { outputs, report, compute_input: ready.took, compute_infer, compute_output })
    }

    /// Pre-processing.
    pub fn prepare(
        &self,
        inputs: Vec<NamedTensor>,
        options: &RequestOptions,
    ) -> Result<Ready, RunError> {
        let start = Instant::now();
        let k = self.version.k(options)?;
        let Prepared { inputs, kept } = self.version.pipeline.prepare(inputs, options.budget)?;
        Ok(Ready { inputs, k, kept, took: start.elapsed() })
    }

    /// The model.
    pub fn infer(
        &mut self,
        inputs: &[Tensor],
        k: Option<usize>,
    ) -> Result<(Vec<Tensor>, RunReport), RunError> {
        let run = self.session.run(inputs, RunOptions { k })?;
        Ok((run.outputs, run.report))
    }

    /// Post-processing; only the outputs that are wanted are kept.
    pub fn finish(
        &self,
        ready: &Ready,
        outputs: Vec<Tensor>,
        options: &RequestOptions,
    ) -> Result<(Vec<Output>, Duration), RunError> {
        let start = Instant::now();
        let mut outputs = self.version.pipeline.finish(&ready.kept, outputs)?;
        if !options.outputs.is_empty() {
            outputs.retain(|output| options.outputs.iter().any(|name| **name == *output.name));
        }
        Ok((outputs, start.elapsed()))
    }
}

impl Ready {
    /// What pre-processing took.
    pub fn took(&self) -> Duration {
        self.took
    }
}
