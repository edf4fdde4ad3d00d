//! What stands between a client's inputs and a graph's, and back: a task is a value.
//!
//! A [`Pipeline`] is made from a bundle's [`Task`] and the graph's signature, and then only
//! computes: [`Pipeline::prepare`] makes the graph's inputs, [`Pipeline::finish`] the client's
//! outputs. Knows no engine, no bundle and no transport, and does no I/O.

pub mod intent;
mod tensor;

use std::sync::Arc;

use crate::fields::{FieldError, Fields};
use crate::infer::{InputSpec, NamedTensor, Output, OutputSpec, RunError};
use crate::tensor::{DType, Data, Tensor};

/// What a model is for.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Tensors in and out, as the graph has them.
    Tensor,
    /// A sentence in, what its speaker wants done out.
    Intent(Arc<intent::Config>),
}

impl Task {
    /// Reads the task `word` and its own tables from a manifest.
    pub fn read(word: &str, fields: &mut Fields) -> Result<Self, FieldError> {
        match word {
            "tensor" => Ok(Self::Tensor),
            "intent" => {
                let table = fields.table("intent")?;
                let table = table.ok_or_else(|| {
                    fields.error("intent", "missing; the task `intent` needs the table [intent]")
                })?;
                Ok(Self::Intent(Arc::new(intent::Config::read(table)?)))
            }
            _ => Err(fields.error("task", "not known; the tasks are `tensor` and `intent`")),
        }
    }

    /// As manifests and clients write it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Tensor => "tensor",
            Self::Intent(_) => "intent",
        }
    }
}

/// Inputs and outputs: a graph's, or those that clients see.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Signature {
    pub inputs: Vec<InputSpec>,
    pub outputs: Vec<OutputSpec>,
}

/// The input through which a graph is told what its answer may cost, 0 to 1: f32 `[1]`. It is
/// filled from the request's options where a client gives no such tensor.
pub const BUDGET: &str = "budget";
/// The budget of a request that names none: the best answer.
const BUDGET_DEFAULT: f32 = 1.0;

/// A task, joined to the graph that does it.
#[derive(Debug, Clone)]
pub struct Pipeline {
    signature: Signature,
    steps: Steps,
}

#[derive(Debug, Clone)]
enum Steps {
    Tensor(tensor::Steps),
    Intent(intent::Steps),
}

/// A request on its way through the graph.
#[derive(Debug)]
pub struct Prepared {
    /// In the order of the graph's signature.
    pub inputs: Vec<Tensor>,
    /// For [`Pipeline::finish`].
    pub kept: Kept,
}

/// What the outputs can't be made without, beside the graph's.
#[derive(Debug)]
pub struct Kept(KeptBy);

#[derive(Debug)]
enum KeptBy {
    Tensor,
    Intent(intent::Sentence),
}

impl Kept {
    /// The sentence of a request of task `intent`.
    pub fn sentence(&self) -> Option<&intent::Sentence> {
        match &self.0 {
            KeptBy::Intent(sentence) => Some(sentence),
            KeptBy::Tensor => None,
        }
    }
}

impl Pipeline {
    /// Joins `task` to a graph. `home` is whose rooms and devices an intent is about, if that is
    /// known; other tasks have no use for it.
    ///
    /// # Errors
    /// If the graph is not one that can do this task: which port, and what it should be.
    pub fn new(
        task: &Task,
        graph: &Signature,
        home: Option<Arc<intent::Home>>,
    ) -> Result<Self, String> {
        Ok(match task {
            Task::Tensor => {
                let steps = tensor::Steps::new(graph);
                Self { signature: steps.signature(), steps: Steps::Tensor(steps) }
            }
            Task::Intent(config) => {
                let steps = intent::Steps::new(Arc::clone(config), graph, home)?;
                Self { signature: intent::signature(), steps: Steps::Intent(steps) }
            }
        })
    }

    /// What clients give and get.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Makes the graph's inputs. `budget` is what the request's options say.
    ///
    /// # Errors
    /// [`RunError::Input`], if the request is wrong.
    pub fn prepare(
        &self,
        inputs: Vec<NamedTensor>,
        budget: Option<f32>,
    ) -> Result<Prepared, RunError> {
        match &self.steps {
            Steps::Tensor(steps) => {
                let inputs = steps.prepare(inputs, budget)?;
                Ok(Prepared { inputs, kept: Kept(KeptBy::Tensor) })
            }
            Steps::Intent(steps) => {
                let (inputs, sentence) = steps.prepare(inputs, budget)?;
                Ok(Prepared { inputs, kept: Kept(KeptBy::Intent(sentence)) })
            }
        }
    }

    /// Makes the client's outputs from the graph's, which are in the order of its signature.
    ///
    /// # Errors
    /// [`RunError::Model`], if the graph gave something else than its signature says.
    pub fn finish(&self, kept: &Kept, outputs: Vec<Tensor>) -> Result<Vec<Output>, RunError> {
        match (&self.steps, &kept.0) {
            (Steps::Tensor(steps), KeptBy::Tensor) => steps.finish(outputs),
            (Steps::Intent(steps), KeptBy::Intent(sentence)) => steps.finish(sentence, &outputs),
            _ => Err(RunError::Model {
                cause: "the request was prepared by another pipeline".to_owned(),
            }),
        }
    }

    /// The steps of task `intent`, for whoever compares what lies between text and answer.
    pub fn intent(&self) -> Option<&intent::Steps> {
        match &self.steps {
            Steps::Intent(steps) => Some(steps),
            Steps::Tensor(_) => None,
        }
    }
}

/// Whether a graph's input is the one that tells it its budget.
fn is_budget(input: &InputSpec) -> bool {
    input.name == BUDGET && input.dtype == DType::F32 && input.dims == [Some(1)]
}

/// The tensor for [`BUDGET`].
fn budget_tensor(budget: Option<f32>) -> Result<Tensor, RunError> {
    let budget = budget.unwrap_or(BUDGET_DEFAULT);
    if !(0.0..=1.0).contains(&budget) {
        return Err(input_error(BUDGET, format!("{budget}: choose 0 (cheapest) to 1 (best)")));
    }
    Tensor::new(&[1], Data::F32(vec![budget]))
        .map_err(|error| RunError::Model { cause: error.to_string() })
}

fn input_error(input: &str, cause: impl Into<String>) -> RunError {
    let input: String = input.chars().take(64).flat_map(char::escape_debug).collect();
    RunError::Input { input, cause: cause.into() }
}
