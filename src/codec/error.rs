//! Why bytes are not a request, or an answer can't be written as asked for: in words that tell
//! its sender what to change.

use crate::infer::{Code, InferError};

/// Why a body can't be read as a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error(
        "body: empty: send a JSON object with `inputs`, or with the model's inputs by name, \
         such as {example}"
    )]
    Empty { example: String },
    /// Not JSON, or not of the protocol's form.
    #[error("body: {cause}: docs/protocol.md shows the form of a request")]
    Json { cause: String },
    #[error("{field}: {cause}")]
    Field { field: &'static str, cause: String },
    #[error("input `{input}`: {cause}")]
    Input { input: String, cause: String },
    #[error("output `{output}`: {cause}")]
    Output { output: String, cause: String },
    #[error("parameter `{parameter}`: {cause}")]
    Parameter { parameter: String, cause: String },
    #[error("{what}: more than {max}: send less at a time")]
    TooLarge { what: String, max: usize },
}

impl DecodeError {
    pub(super) fn field(field: &'static str, cause: impl Into<String>) -> Self {
        Self::Field { field, cause: cause.into() }
    }

    pub(super) fn input(input: &str, cause: impl Into<String>) -> Self {
        Self::Input { input: shortened(input), cause: cause.into() }
    }

    pub(super) fn output(output: &str, cause: impl Into<String>) -> Self {
        Self::Output { output: shortened(output), cause: cause.into() }
    }

    pub(super) fn parameter(parameter: &str, cause: impl Into<String>) -> Self {
        Self::Parameter { parameter: shortened(parameter), cause: cause.into() }
    }
}

impl From<DecodeError> for InferError {
    fn from(error: DecodeError) -> Self {
        let code = match error {
            DecodeError::TooLarge { .. } => Code::TooLarge,
            _ => Code::InvalidRequest,
        };
        Self::new(code, error.to_string())
    }
}

/// Why an answer can't be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("output `{output}`: {cause}")]
    Output { output: String, cause: &'static str },
    /// A fault of ours.
    #[error("output `{output}`: {cause}")]
    Fault { output: String, cause: String },
}

impl From<EncodeError> for InferError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Output { .. } => Self::new(Code::InvalidRequest, error.to_string()),
            EncodeError::Fault { .. } => {
                let text = "answer: it can't be written: report this as a fault of moed";
                Self::new(Code::Internal, text).with_journal(error.to_string())
            }
        }
    }
}

const NAME_CHARS_MAX: usize = 64;

/// A sender's own word, no longer than fits into a sentence, without control characters.
pub fn shortened(word: &str) -> String {
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut short: String = word.chars().take(NAME_CHARS_MAX).map(printable).collect();
    if short.len() < word.len() && word.chars().nth(NAME_CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}
