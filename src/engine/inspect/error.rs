//! Why a model was refused: enums to branch on, and sentences for people.
//!
//! A sentence has the form `what: which: cause` and ends with what to do where something can be
//! done. It may quote names from the model, escaped and cut short, never a file system path: it
//! may end up in an answer to a client.

use thiserror::Error;

/// Why [`inspect`](super::inspect()) or [`open`](super::external::open) refused.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum InspectError {
    /// Something is larger or more numerous than [`Limits`](crate::engine::limits::Limits) allow.
    #[error("model: {what}: {found} is over the limit of {limit}; use a smaller model")]
    OverLimit { what: &'static str, found: u64, limit: u64 },
    /// The bytes are not protobuf.
    #[error("model: byte {at}: {cause}; the file is damaged, copy it again")]
    Malformed { at: u64, cause: &'static str },
    /// The bytes are protobuf, but no ONNX model.
    #[error("model: not an ONNX model: {cause}; export the model again")]
    Undecodable { cause: String },
    /// A part of ONNX that moed does not run.
    #[error("model: {what}: not supported; {remedy}")]
    Unsupported { what: &'static str, remedy: &'static str },
    /// A part is missing without which there is nothing to run.
    #[error("model: {what}: missing; export the model again")]
    Missing { what: &'static str },
    /// An operator set or its version is not known here.
    #[error("operator set `{domain}`: version {version}: {cause}; export the model again with one")]
    OperatorSet { domain: String, version: i64, cause: String },
    /// A node's operator is not known here, or not under that domain.
    #[error("node `{node}`: operator `{operator}` of domain `{domain}`: {cause}")]
    Operator { node: String, domain: String, operator: String, cause: &'static str },
    /// An attribute has a value that no operator allows.
    #[error("node `{node}`: attribute `{attribute}`: {cause}; export the model again")]
    Attribute { node: String, attribute: String, cause: &'static str },
    /// A name that could not be shown, or that means nothing.
    #[error("{what}: name `{name}`: {cause}; rename it")]
    Name { what: &'static str, name: String, cause: &'static str },
    /// Two things of one graph share a name.
    #[error("{what}: `{name}`: named twice; export the model again")]
    Duplicate { what: &'static str, name: String },
    /// A name is read that nothing makes.
    #[error("{what}: `{name}`: nothing in the model makes it; export the model again")]
    Unresolved { what: &'static str, name: String },
    /// The declared type of an input, output or inner value is wrong.
    #[error("value `{value}`: {cause}; export the model again")]
    Value { value: String, cause: &'static str },
    /// A tensor's declaration is wrong, or does not agree with its data.
    #[error("{tensor}: {fault}")]
    Tensor { tensor: String, fault: TensorFault },
    /// A tensor's reference to external data is wrong.
    #[error("{tensor}: external data: {fault}")]
    External { tensor: String, fault: ExternalFault },
    /// A file of external data was not opened.
    #[error("external data: file: {fault}")]
    File { fault: FileFault },
}

/// What is wrong with a tensor.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorFault {
    /// More dimensions than the limit.
    #[error("rank {rank}: over the limit of {limit}; use a smaller model")]
    Rank { rank: u64, limit: u64 },
    /// A dimension below 0.
    #[error("dims {dims:?}: a dimension is negative; export the model again")]
    NegativeDimension { dims: Vec<i64> },
    /// More elements than the limit, or than can be counted.
    #[error("dims {dims:?}: more than {limit} elements; use a smaller model")]
    Elements { dims: Vec<i64>, limit: u64 },
    /// An element type that is not known here.
    #[error("data type {name}: not supported; convert it to float, float16 or an integer type")]
    DataType { name: String },
    /// Fewer or more bytes than declared.
    #[error("data: {present} bytes where {declared} are declared; export the model again")]
    Bytes { declared: u64, present: u64 },
    /// Fewer or more elements than declared, in a field of numbers or strings.
    #[error("data: {present} elements where {declared} are declared; export the model again")]
    Count { declared: u64, present: u64 },
    /// Data in a field that does not go with the element type or with the rest of the tensor.
    #[error("data: in `{field}`: {cause}; export the model again with raw data")]
    Field { field: &'static str, cause: &'static str },
    /// A tensor in several segments.
    #[error("segment: not supported; export the model again without segments")]
    Segment,
    /// A `data_location` that is not known here.
    #[error("data location {location}: not known; export the model again")]
    Location { location: i32 },
}

/// What is wrong with a tensor's reference to external data.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExternalFault {
    /// External data where only inline data may be.
    #[error("only initializers of the main graph may have it; export with the data inside")]
    NotAllowed,
    /// A key that is not known here. Keys are an allow list: CVE-2026-34445.
    #[error("key `{key}`: not known; export the model again")]
    Key { key: String },
    /// A key given twice.
    #[error("key `{key}`: given twice; export the model again")]
    KeyTwice { key: &'static str },
    /// No location.
    #[error("location: missing; export the model again")]
    LocationMissing,
    /// A location that is no plain relative path.
    #[error("location: {cause}; put the file beside the model and name it plainly")]
    Location { cause: &'static str },
    /// A number that is none.
    #[error("{key}: no whole number of 64 bits; export the model again")]
    Number { key: &'static str },
    /// A length that is not the tensor's.
    #[error("length: {found} where the dims need {declared}; export the model again")]
    Length { found: u64, declared: u64 },
    /// An end that cannot be counted or is over the limit.
    #[error("offset {offset}: the data would end past {limit} bytes; use a smaller model")]
    End { offset: u64, limit: u64 },
    /// The file ends before the data does.
    #[error("the file has {present} bytes where {needed} are needed; copy it again")]
    Short { needed: u64, present: u64 },
}

/// Why a file of external data was not opened.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFault {
    /// A location that is no plain relative path.
    #[error("location: {cause}; put the file beside the model and name it plainly")]
    Location { cause: &'static str },
    /// A link on the way, or a way out of the bundle.
    #[error("a link or a mount leads elsewhere; copy the file itself into the bundle")]
    Link,
    /// A directory, a pipe, a device, a socket.
    #[error("not a regular file; copy the file itself into the bundle")]
    NotRegular,
    /// A second name of the file may be outside the bundle: CVE-2026-34446.
    #[error("{links} names for one file (hard links); copy the file itself into the bundle")]
    HardLinks { links: u64 },
    /// Larger than the limit.
    #[error("{bytes} bytes are over the limit of {limit}; use a smaller model")]
    Size { bytes: u64, limit: u64 },
    /// Whatever else the operating system said.
    #[error("{cause}; check that it is there and can be read")]
    Io { cause: String },
}

/// At most this many characters of a name from the model go into a sentence.
const SHOWN_CHARS: usize = 64;

/// `name` as it may be shown: escaped and cut short.
pub(super) fn shown(name: &str) -> String {
    let mut text = String::new();
    for (i, c) in name.chars().enumerate() {
        if i == SHOWN_CHARS {
            text.push_str("...");
            break;
        }
        text.extend(c.escape_debug());
    }
    text
}
