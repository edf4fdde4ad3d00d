//! Requests and their answers.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Code, InferError};
use crate::tensor::Tensor;

/// A model, and perhaps one version of it; without one, the version that is serving.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelRef {
    pub name: String,
    pub version: Option<String>,
}

/// Whom a request is from, for fair shares and for the journal: a user id, an MQTT client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientId(pub Arc<str>);

/// An input as its sender named it.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    pub name: String,
    pub tensor: Tensor,
}

/// Which requests go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
}

/// What a sender may choose.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestOptions {
    /// Experts for each row in each MoE layer, at most.
    pub k: Option<usize>,
    /// How much the answer may cost, 0 (cheapest) to 1 (best), for models that choose k themselves.
    pub budget: Option<f32>,
    pub priority: Priority,
    /// The outputs that are wanted; all if empty.
    pub outputs: Vec<String>,
}

/// Something to be computed, and where the answer goes.
#[derive(Debug)]
pub struct InferRequest {
    /// Echoed in the answer.
    pub id: String,
    pub model: ModelRef,
    pub inputs: Vec<NamedTensor>,
    pub options: RequestOptions,
    /// After this it is of no use: it is answered with [`Code::DeadlineExceeded`].
    pub deadline: Instant,
    pub client: ClientId,
    pub reply: Reply,
}

/// What an output's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Content {
    /// Numbers, or text in UTF-8.
    #[default]
    Plain,
    /// Each element is a JSON value.
    Json,
}

/// One output of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    pub name: Arc<str>,
    pub content: Content,
    pub tensor: Tensor,
}

/// What an answer took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cost {
    /// The largest k of a layer; 0 for a model without experts.
    pub k: usize,
    /// For each MoE layer, the experts that ran, ascending.
    pub experts: Vec<Vec<u32>>,
    /// Weights, scales and zero points of experts that were read, in bytes.
    pub weight_bytes_read: u64,
    /// From admission to a worker.
    pub queue: Duration,
    /// Pre-processing, the model, post-processing.
    pub compute: Duration,
}

/// A request's outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub model: Arc<str>,
    pub version: Arc<str>,
    pub outputs: Vec<Output>,
    pub cost: Cost,
}

type SendAnswer = Box<dyn FnOnce(Result<Answer, InferError>) + Send>;

/// Sends one answer to whoever asked. If it is dropped unsent, it sends
/// [`Code::Unavailable`], so that every request is answered once whatever happens on its way.
pub struct Reply {
    send: Option<SendAnswer>,
}

impl Reply {
    /// `send` must not block: workers call it.
    pub fn new(send: impl FnOnce(Result<Answer, InferError>) + Send + 'static) -> Self {
        Self { send: Some(Box::new(send)) }
    }

    pub fn send(mut self, result: Result<Answer, InferError>) {
        if let Some(send) = self.send.take() {
            send(result);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(send) = self.send.take() {
            let text = "request: it was dropped before it was computed; try again";
            send(Err(InferError::new(Code::Unavailable, text)));
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("is_sent", &self.send.is_none()).finish()
    }
}
