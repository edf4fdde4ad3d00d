//! A backend that pretends: for the tests of all that stands above an engine, and `--sim`.
//!
//! It answers each run with zeros in the shape of its signature, after what [`Behaviour`] says.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{
    Backend, Dim, LayerInfo, LoadError, LoadOptions, Model, Port, Run, RunOptions, RunReport,
    Session, Signature,
};
use crate::infer::RunError;
use crate::tensor::{DType, Data, Tensor};

/// What a run does before it answers.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// How long it takes.
    pub delay: Duration,
    /// Every n-th run of the model fails with an error; 0: none.
    pub error_every: u64,
    /// Every n-th run of the model panics; 0: none.
    pub panic_every: u64,
    /// Heap that a run allocates, writes to and frees, in bytes.
    pub allocation_bytes: usize,
}

/// Loads the same pretended model whatever file it is given.
#[derive(Debug, Clone)]
pub struct Sim {
    pub signature: Signature,
    pub behaviour: Behaviour,
}

impl Sim {
    /// A model that takes `x`, F32 [batch, 2], and gives `y`, F32 [batch, 3].
    pub fn new(behaviour: Behaviour) -> Self {
        let port = |name: &str, width| Port {
            name: name.to_owned(),
            dtype: DType::F32,
            dims: vec![Dim::Named("batch".to_owned()), Dim::Fixed(width)],
        };
        let signature = Signature { inputs: vec![port("x", 2)], outputs: vec![port("y", 3)] };
        Self { signature, behaviour }
    }
}

impl Backend for Sim {
    fn load(
        &self,
        _bundle: &Path,
        _file: &str,
        _options: &LoadOptions,
    ) -> Result<Box<dyn Model>, LoadError> {
        Ok(Box::new(SimModel { sim: self.clone(), runs: Arc::default() }))
    }
}

struct SimModel {
    sim: Sim,
    runs: Arc<AtomicU64>,
}

impl Model for SimModel {
    fn signature(&self) -> &Signature {
        &self.sim.signature
    }

    fn layers(&self) -> &[LayerInfo] {
        &[]
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(SimSession { sim: self.sim.clone(), runs: Arc::clone(&self.runs) }))
    }
}

struct SimSession {
    sim: Sim,
    runs: Arc<AtomicU64>,
}

impl Session for SimSession {
    fn run(&mut self, inputs: &[Tensor], _options: RunOptions) -> Result<Run, RunError> {
        self.sim.signature.check(inputs)?;
        let behaviour = &self.sim.behaviour;
        let run = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        let due = |every: u64| every > 0 && run.is_multiple_of(every);
        std::thread::sleep(behaviour.delay);
        std::hint::black_box(vec![1u8; behaviour.allocation_bytes]);
        assert!(!due(behaviour.panic_every), "simulated panic in run {run}");
        if due(behaviour.error_every) {
            return Err(RunError::Model { cause: format!("simulated error in run {run}") });
        }
        // Open dimensions follow the first input's first dimension, as a batch does.
        let batch = inputs.first().and_then(|input| input.shape().dims().first()).copied();
        let outputs = self.sim.signature.outputs.iter().map(|port| zeros(port, batch.unwrap_or(1)));
        Ok(Run { outputs: outputs.collect::<Result<_, _>>()?, report: RunReport::default() })
    }
}

fn zeros(port: &Port, batch: usize) -> Result<Tensor, RunError> {
    let size = |dim: &Dim| if let Dim::Fixed(size) = dim { *size } else { batch };
    let dims: Vec<usize> = port.dims.iter().map(size).collect();
    let elements: usize = dims.iter().product();
    let data = match port.dtype {
        DType::F32 => Data::F32(vec![0.0; elements]),
        DType::I64 => Data::I64(vec![0; elements]),
        dtype => return Err(RunError::Model { cause: format!("can't simulate {dtype:?}") }),
    };
    Tensor::new(&dims, data).map_err(|cause| RunError::Model { cause: cause.to_string() })
}
