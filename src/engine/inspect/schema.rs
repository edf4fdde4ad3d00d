//! The fields of `onnx.proto`, as far as decoding them allocates.
//!
//! The numbers and the sizes are those of `tract_onnx::pb` 0.23.9, which decodes the same bytes
//! later. A field that is not here is skipped by prost and costs nothing. It knows neither how
//! the bytes are read nor what the limits are.

use std::mem::size_of;

use tract_onnx::pb;

/// A message of `onnx.proto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    OperatorSet,
    Metadata,
    Graph,
    Node,
    Attribute,
    Tensor,
    Segment,
    External,
    Value,
    Type,
    TensorType,
    Shape,
    Dimension,
    Annotation,
}

/// Which limit a message counts towards. All count towards the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    No,
    Node,
    Initializer,
    Attribute,
}

/// Which limit the length of a text is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Name,
    DimParam,
    /// Only what the file has.
    Free,
}

/// How numbers are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Varint,
    Four,
    Eight,
}

/// What a field holds. `slot_bytes` is what one more of them costs its parent's vector at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Message { kind: Kind, counted: Counted, slot_bytes: u64 },
    Text { text: Text, slot_bytes: u64 },
    Numbers { width: Width, slot_bytes: u64 },
    Refused { what: &'static str, remedy: &'static str },
    Other,
}

/// Bytes for one more `T` in a vector. The first push makes room for four (one, if they are
/// large); later ones double the room, and hold the old and the new while they copy: three times.
#[allow(clippy::as_conversions, reason = "a size fits 64 bits, and `try_from` is not const")]
const fn slot<T>() -> u64 {
    let size = size_of::<T>() as u64;
    if size > 1024 { size.saturating_mul(3) } else { size.saturating_mul(4) }
}

const fn one(kind: Kind) -> Field {
    Field::Message { kind, counted: Counted::No, slot_bytes: 0 }
}

const fn many<T>(kind: Kind, counted: Counted) -> Field {
    Field::Message { kind, counted, slot_bytes: slot::<T>() }
}

const fn numbers<T>(width: Width) -> Field {
    Field::Numbers { width, slot_bytes: slot::<T>() }
}

const NAME: Field = Field::Text { text: Text::Name, slot_bytes: 0 };
const NAMES: Field = Field::Text { text: Text::Name, slot_bytes: slot::<String>() };
const TEXT: Field = Field::Text { text: Text::Free, slot_bytes: 0 };
const TEXTS: Field = Field::Text { text: Text::Free, slot_bytes: slot::<Vec<u8>>() };

const SPARSE: Field =
    Field::Refused { what: "a sparse tensor", remedy: "export the model again with dense tensors" };

/// What field `number` of a `kind` holds.
pub(super) fn field(kind: Kind, number: u32) -> Field {
    match kind {
        Kind::Model => model(number),
        Kind::Graph => graph(number),
        Kind::Node => node(number),
        Kind::Attribute => attribute(number),
        Kind::Tensor => tensor(number),
        Kind::OperatorSet if number == 1 => NAME,
        Kind::Metadata if number == 1 => NAME,
        Kind::Metadata if number == 2 => TEXT,
        Kind::External if number == 1 || number == 2 => NAME,
        Kind::Annotation if number == 1 => NAME,
        Kind::Annotation if number == 2 => {
            many::<pb::StringStringEntryProto>(Kind::External, Counted::No)
        }
        Kind::Value if number == 1 => NAME,
        Kind::Value if number == 2 => one(Kind::Type),
        Kind::Value if number == 3 => TEXT,
        Kind::Type if number == 1 => one(Kind::TensorType),
        Kind::Type if number == 6 => NAME,
        Kind::TensorType if number == 2 => one(Kind::Shape),
        Kind::Shape if number == 1 => {
            many::<pb::tensor_shape_proto::Dimension>(Kind::Dimension, Counted::No)
        }
        Kind::Dimension if number == 2 => Field::Text { text: Text::DimParam, slot_bytes: 0 },
        Kind::Dimension if number == 3 => NAME,
        _ => Field::Other,
    }
}

fn model(number: u32) -> Field {
    match number {
        2..=4 => NAME,
        6 => TEXT,
        7 => one(Kind::Graph),
        8 => many::<pb::OperatorSetIdProto>(Kind::OperatorSet, Counted::No),
        14 => many::<pb::StringStringEntryProto>(Kind::Metadata, Counted::No),
        20 => Field::Refused {
            what: "training information",
            remedy: "export the model for inference",
        },
        25 => Field::Refused {
            what: "functions inside the model",
            remedy: "inline them (`onnx.inliner.inline_local_functions`)",
        },
        _ => Field::Other,
    }
}

fn graph(number: u32) -> Field {
    match number {
        1 => many::<pb::NodeProto>(Kind::Node, Counted::Node),
        2 => NAME,
        5 => many::<pb::TensorProto>(Kind::Tensor, Counted::Initializer),
        10 => TEXT,
        11..=13 => many::<pb::ValueInfoProto>(Kind::Value, Counted::No),
        14 => many::<pb::TensorAnnotation>(Kind::Annotation, Counted::No),
        15 => SPARSE,
        _ => Field::Other,
    }
}

fn node(number: u32) -> Field {
    match number {
        1 | 2 => NAMES,
        3 | 4 | 7 => NAME,
        5 => many::<pb::AttributeProto>(Kind::Attribute, Counted::Attribute),
        6 => TEXT,
        _ => Field::Other,
    }
}

fn attribute(number: u32) -> Field {
    match number {
        1 | 21 => NAME,
        4 | 13 => TEXT,
        5 => one(Kind::Tensor),
        6 => one(Kind::Graph),
        7 => numbers::<f32>(Width::Four),
        8 => numbers::<i64>(Width::Varint),
        9 => TEXTS,
        10 => many::<pb::TensorProto>(Kind::Tensor, Counted::No),
        11 => many::<pb::GraphProto>(Kind::Graph, Counted::No),
        15 => Field::Refused {
            what: "an attribute of types",
            remedy: "export the model again without optional and sequence types",
        },
        22 | 23 => SPARSE,
        _ => Field::Other,
    }
}

fn tensor(number: u32) -> Field {
    match number {
        1 | 7 => numbers::<i64>(Width::Varint),
        3 => one(Kind::Segment),
        4 => numbers::<f32>(Width::Four),
        5 => numbers::<i32>(Width::Varint),
        6 => TEXTS,
        8 => NAME,
        9 | 12 => TEXT,
        10 => numbers::<f64>(Width::Eight),
        11 => numbers::<u64>(Width::Varint),
        13 => many::<pb::StringStringEntryProto>(Kind::External, Counted::No),
        _ => Field::Other,
    }
}
