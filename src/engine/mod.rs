//! Loads models and runs them: [`Backend`], [`Model`], [`Session`], and two backends behind them.
//!
//! [`tract`] runs ONNX files, with the MoE operators of [`moe`] on the kernels of [`kernel`];
//! [`sim`] pretends to, for the tests of everything above. The engine knows no transport, no
//! configuration, no queue and no clock.
//!
//! A model is loaded once and shared; each worker thread opens its own session, which owns all
//! buffers that a run needs. A session can be kept from one run to the next, so that models that
//! are run in steps (token by token) find their place here too.

pub mod inspect;
pub mod kernel;
pub mod layout;
pub mod limits;
mod load_error;
mod mapping;
pub mod moe;
pub mod sim;
pub mod tract;

use std::path::Path;

use crate::infer::RunError;
use crate::tensor::{DType, Tensor};

pub use load_error::LoadError;

/// Something that loads models.
pub trait Backend: Send + Sync {
    /// Loads the model file `file` in the bundle directory `bundle`.
    fn load(
        &self,
        bundle: &Path,
        file: &str,
        options: &LoadOptions,
    ) -> Result<Box<dyn Model>, LoadError>;
}

/// How to load a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// What a model may claim.
    pub limits: limits::Limits,
    /// Threads that compute one run, the caller's included; 0 is taken as 1.
    pub threads: usize,
}

/// A loaded model: weights and plan, shared by its sessions.
pub trait Model: Send + Sync {
    fn signature(&self) -> &Signature;

    /// Its MoE layers, in the order of the graph's nodes.
    fn layers(&self) -> &[LayerInfo];

    /// Opens a session with its own buffers.
    fn session(&self) -> Result<Box<dyn Session>, LoadError>;
}

/// One thread's use of a model.
pub trait Session: Send {
    /// Runs the model once. `inputs` are in the order of the signature.
    fn run(&mut self, inputs: &[Tensor], options: RunOptions) -> Result<Run, RunError>;
}

/// What a run may choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Experts for each row in each MoE layer; a layer whose own k is smaller keeps its own.
    /// `None`: each layer's own k.
    pub k: Option<usize>,
}

/// What a run gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// In the order of the signature.
    pub outputs: Vec<Tensor>,
    pub report: RunReport,
}

/// What a run cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunReport {
    /// One for each MoE layer that ran, in the order of [`Model::layers`].
    pub layers: Vec<LayerReport>,
}

impl RunReport {
    /// Bytes of expert weights, scales and zero points that the run read.
    pub fn weight_bytes_read(&self) -> u64 {
        self.layers.iter().map(|layer| layer.weight_bytes_read).sum()
    }
}

/// What one MoE layer did in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerReport {
    /// The layer, an index into [`Model::layers`].
    pub layer: usize,
    /// The k that was used.
    pub k: usize,
    /// Experts that ran, ascending, and for how many rows each.
    pub experts: Vec<(u32, u32)>,
    pub weight_bytes_read: u64,
}

/// What a MoE layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// The node's name in the graph.
    pub name: String,
    pub experts: usize,
    /// The k in the graph: the most that a run can ask for.
    pub k: usize,
    /// Weights, scales and zero points of one expert.
    pub expert_bytes: u64,
}

/// The inputs and outputs of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

impl Signature {
    /// Refuses inputs that are not what the model takes, in number, type or shape.
    pub fn check(&self, inputs: &[Tensor]) -> Result<(), RunError> {
        if inputs.len() != self.inputs.len() {
            let names: Vec<_> = self.inputs.iter().map(|port| port.name.as_str()).collect();
            let cause = format!("{} given; the model takes: {}", inputs.len(), names.join(", "));
            return Err(RunError::Input { input: "count".to_owned(), cause });
        }
        let mut bound: Vec<(&str, usize, &str)> = Vec::new();
        for (input, port) in inputs.iter().zip(&self.inputs) {
            let refused = |cause| Err(RunError::Input { input: port.name.clone(), cause });
            let dims = input.shape().dims();
            if input.dtype() != port.dtype || !port.fits(dims) {
                let takes: Vec<_> = port.dims.iter().map(ToString::to_string).collect();
                return refused(format!(
                    "{:?} {dims:?} given; the model takes {:?} [{}]",
                    input.dtype(),
                    port.dtype,
                    takes.join(", ")
                ));
            }
            for (&size, dim) in dims.iter().zip(&port.dims) {
                let Dim::Named(name) = dim else { continue };
                match bound.iter().find(|(bound, ..)| bound == name) {
                    None => bound.push((name, size, &port.name)),
                    Some((_, first, other)) if *first != size => {
                        return refused(format!(
                            "dimension `{name}` is {size} here and {first} in `{other}`"
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }
}

impl Port {
    fn fits(&self, dims: &[usize]) -> bool {
        let fits = |(size, dim): (&usize, &Dim)| match dim {
            Dim::Fixed(fixed) => fixed == size,
            Dim::Named(_) | Dim::Open => true,
        };
        dims.len() == self.dims.len() && dims.iter().zip(&self.dims).all(fits)
    }
}

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub dtype: DType,
    pub dims: Vec<Dim>,
}

/// One dimension of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    Fixed(usize),
    /// Open; the same for all ports of a run that name it so.
    Named(String),
    /// Computed from others.
    Open,
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Named(name) => f.write_str(name),
            Self::Open => f.write_str("?"),
        }
    }
}
