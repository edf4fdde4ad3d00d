//! The bytes of requests and answers: Open Inference Protocol v2 with its binary tensor and
//! classification extensions, and a plain-object shorthand.
//!
//! Pure: bytes in, parts of a request out; an answer in, bytes out. Knows no transport, no queue
//! and no clock. docs/protocol.md is the reference.

mod answer;
mod binary;
mod classify;
mod data;
mod datatype;
mod documents;
mod error;
mod install;
mod parameters;
mod plain;
mod request;

use std::time::Duration;

pub use answer::{Encoded, encode};
pub use datatype::word as datatype_word;
pub use documents::{
    check_load, error_document, index, index_is_of_ready, live, model_metadata, model_ready,
    models, ready, server_metadata, statistics,
};
pub use error::{DecodeError, EncodeError, shortened};
pub use install::{PIECE_BYTES_MAX, decode_install, decode_remove, install_progress};
pub use request::decode;

use crate::infer::{NamedTensor, RequestOptions};

/// What a request may hold. Memory stays within a small multiple of the body's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Elements of one input of numbers, in JSON.
    pub elements_max: usize,
    /// Elements of one input of strings.
    pub strings_max: usize,
    /// Bytes of one string.
    pub string_bytes_max: usize,
    /// Bytes of a request's id.
    pub id_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            elements_max: 4 << 20,
            strings_max: 64 << 10,
            string_bytes_max: 1 << 20,
            id_bytes_max: 256,
        }
    }
}

/// Most entries of `inputs` and of `outputs`.
pub const TENSORS_MAX: usize = 64;

/// What a body asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub id: Option<String>,
    pub inputs: Vec<NamedTensor>,
    pub options: RequestOptions,
    /// How long the answer is of use; `None`: as long as the daemon says.
    pub timeout: Option<Duration>,
    pub form: Form,
}

/// How the sender wants its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    layout: Layout,
    /// The outputs that are wanted, in the order in which they are; all if empty.
    wanted: Vec<Wanted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// An object with the outputs by name.
    Plain,
    /// The protocol's; outputs that say nothing else come as binary data, or not.
    Protocol { is_binary: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    name: String,
    is_binary: bool,
    /// Of the classification extension: how many classes.
    classes: Option<usize>,
}
