//! What can go wrong with a request, in the words that its sender gets.
//!
//! [`RunError`] is what an engine says; [`InferError`] is what leaves the daemon, whatever failed.
//! Knows neither who sent the request nor how it will be answered.

use std::time::Duration;

/// Why a run gave no outputs. Texts are for the sender: no path, no address, no type name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The inputs are not what the model's signature asks for.
    #[error("input `{input}`: {cause}")]
    Input { input: String, cause: String },
    /// More or fewer experts than the model can choose.
    #[error("k = {k}: out of range: choose {k_min} to {k_max} experts")]
    K { k: usize, k_min: usize, k_max: usize },
    /// The model itself failed on these inputs.
    #[error("model: {cause}")]
    Model { cause: String },
    /// A panic was caught; the session should be dropped.
    #[error("model: internal error: it was stopped; try again, and report it if it happens twice")]
    Panicked { journal: String },
}

/// The kinds of errors that clients can tell apart. Words and numbers are part of the protocol and
/// never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is wrong, and will be wrong again.
    InvalidRequest,
    /// No such model, version, or path.
    NotFound,
    /// Larger than a limit.
    TooLarge,
    /// The queue is full; the same request may do later.
    Overloaded,
    /// The model is not ready, or the daemon is stopping.
    Unavailable,
    /// The request's deadline passed before it was answered.
    DeadlineExceeded,
    /// The model failed on it.
    ModelFailed,
    /// A fault of ours.
    Internal,
}

impl Code {
    pub const ALL: [Self; 8] = [
        Self::InvalidRequest,
        Self::NotFound,
        Self::TooLarge,
        Self::Overloaded,
        Self::Unavailable,
        Self::DeadlineExceeded,
        Self::ModelFailed,
        Self::Internal,
    ];

    /// The stable word.
    pub fn word(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::NotFound => "not_found",
            Self::TooLarge => "too_large",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::ModelFailed => "model_failed",
            Self::Internal => "internal",
        }
    }

    /// The number of RFC 9110, section 15 (429: RFC 6585), which both transports use.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::NotFound => 404,
            Self::TooLarge => 413,
            Self::Overloaded => 429,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
            Self::ModelFailed | Self::Internal => 500,
        }
    }
}

/// Why a request was not answered with outputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{client}")]
pub struct InferError {
    pub code: Code,
    /// For the sender: `what: which: cause`, and what to do. No path, no address, no type name.
    pub client: String,
    /// For the journal, where it says more than the sender may know.
    pub journal: Option<String>,
    /// When to try again, where that is known.
    pub retry_after: Option<Duration>,
}

impl InferError {
    pub fn new(code: Code, client: impl Into<String>) -> Self {
        Self { code, client: client.into(), journal: None, retry_after: None }
    }

    #[must_use]
    pub fn with_journal(self, journal: impl Into<String>) -> Self {
        Self { journal: Some(journal.into()), ..self }
    }

    #[must_use]
    pub fn with_retry_after(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }
}

impl From<RunError> for InferError {
    fn from(error: RunError) -> Self {
        let client = error.to_string();
        match error {
            RunError::Input { .. } | RunError::K { .. } => Self::new(Code::InvalidRequest, client),
            RunError::Model { .. } => Self::new(Code::ModelFailed, client),
            RunError::Panicked { journal } => {
                Self::new(Code::Internal, client).with_journal(journal)
            }
        }
    }
}
