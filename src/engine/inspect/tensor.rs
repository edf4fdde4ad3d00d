//! Checks that a tensor's declaration is sound and that its data is what it declares.
//!
//! One function, [`check`], is the only way to an element count here: the product is checked, and
//! the bytes present equal the bytes declared. It is stricter than ONNX where tract 0.23.9 reads
//! something else than the specification says, or panics. It knows neither graphs nor files.

use std::fmt;

use tract_onnx::pb::TensorProto;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};

use super::error::{InspectError, TensorFault, shown};
use super::wire::count;
use crate::engine::limits::Limits;

/// Which tensor is meant, for sentences.
#[derive(Clone, Copy)]
pub(super) enum Label<'a> {
    Initializer(&'a str),
    Attribute { node: &'a str, attribute: &'a str },
}

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Label::Initializer(name) => write!(f, "initializer `{}`", shown(name)),
            Label::Attribute { node, attribute } => {
                write!(f, "node `{}`: attribute `{}`", shown(node), shown(attribute))
            }
        }
    }
}

/// A tensor that passed.
pub(super) struct Checked {
    pub data_type: DataType,
    pub elements: u64,
    /// Bytes of its data: in the model, or, if `external`, to be found elsewhere.
    pub bytes: u64,
    pub external: bool,
}

/// Checks `tensor` alone. Where its external data lies is left to
/// [`external`](super::external).
pub(super) fn check(
    tensor: &TensorProto,
    label: Label<'_>,
    limits: &Limits,
) -> Result<Checked, InspectError> {
    checked(tensor, limits)
        .map_err(|fault| InspectError::Tensor { tensor: label.to_string(), fault })
}

fn checked(tensor: &TensorProto, limits: &Limits) -> Result<Checked, TensorFault> {
    let data_type = known_type(tensor.data_type)?;
    let elements = elements(&tensor.dims, limits)?;
    if tensor.segment.is_some() {
        return Err(TensorFault::Segment);
    }
    let external = match tensor.data_location {
        None => false,
        Some(location) => match DataLocation::try_from(location) {
            Ok(DataLocation::Default) => false,
            Ok(DataLocation::External) => true,
            Err(_) => return Err(TensorFault::Location { location }),
        },
    };
    let bytes = if external {
        external_bytes(tensor, data_type, elements)?
    } else {
        if !tensor.external_data.is_empty() {
            let cause = "there, but the data location is not EXTERNAL";
            return Err(TensorFault::Field { field: "external_data", cause });
        }
        inline_bytes(tensor, data_type, elements)?
    };
    Ok(Checked { data_type, elements, bytes, external })
}

/// The element types that tract 0.23.9 can hold.
pub(super) fn known_type(number: i32) -> Result<DataType, TensorFault> {
    let Ok(data_type) = DataType::try_from(number) else {
        return Err(TensorFault::DataType { name: number.to_string() });
    };
    match data_type {
        DataType::Float
        | DataType::Float16
        | DataType::Double
        | DataType::Int8
        | DataType::Uint8
        | DataType::Int16
        | DataType::Uint16
        | DataType::Int32
        | DataType::Uint32
        | DataType::Int64
        | DataType::Uint64
        | DataType::Bool
        | DataType::String => Ok(data_type),
        _ => Err(TensorFault::DataType { name: data_type.as_str_name().to_ascii_lowercase() }),
    }
}

/// Bytes of one element; none for strings, which have no fixed size.
fn element_bytes(data_type: DataType) -> Option<u64> {
    match data_type {
        DataType::Double | DataType::Int64 | DataType::Uint64 => Some(8),
        DataType::Float | DataType::Int32 | DataType::Uint32 => Some(4),
        DataType::Float16 | DataType::Int16 | DataType::Uint16 => Some(2),
        DataType::Int8 | DataType::Uint8 | DataType::Bool => Some(1),
        _ => None,
    }
}

/// The product of `dims`, checked, each at least 0.
pub(super) fn elements(dims: &[i64], limits: &Limits) -> Result<u64, TensorFault> {
    let rank = count(dims.len());
    if rank > limits.rank_max {
        return Err(TensorFault::Rank { rank, limit: limits.rank_max });
    }
    let mut product: u64 = 1;
    let mut empty = false;
    for dim in dims {
        let Ok(dim) = u64::try_from(*dim) else {
            return Err(TensorFault::NegativeDimension { dims: dims.to_vec() });
        };
        empty |= dim == 0;
        // A 0 does not excuse the other dimensions: strides are products of some of them.
        product = product
            .checked_mul(dim.max(1))
            .filter(|product| *product <= limits.elements_max)
            .ok_or_else(|| TensorFault::Elements {
                dims: dims.to_vec(),
                limit: limits.elements_max,
            })?;
    }
    Ok(if empty { 0 } else { product })
}

/// `elements` of `data_type` in bytes, as the dims declare them.
fn declared_bytes(
    tensor: &TensorProto,
    element_bytes: u64,
    elements: u64,
) -> Result<u64, TensorFault> {
    // What no allocation and no mapping can hold, whatever the limits say.
    let addressable = u64::try_from(isize::MAX).unwrap_or(u64::MAX);
    elements.checked_mul(element_bytes).filter(|bytes| *bytes <= addressable).ok_or_else(|| {
        let limit = addressable.checked_div(element_bytes).unwrap_or(addressable);
        TensorFault::Elements { dims: tensor.dims.clone(), limit }
    })
}

/// The bytes that must be found outside; nothing may be inside.
fn external_bytes(
    tensor: &TensorProto,
    data_type: DataType,
    elements: u64,
) -> Result<u64, TensorFault> {
    if let Some((field, _)) = filled(tensor).next() {
        return Err(TensorFault::Field { field, cause: "there beside external data" });
    }
    let Some(element_bytes) = element_bytes(data_type) else {
        let cause = "strings cannot lie outside the model";
        return Err(TensorFault::Field { field: "external_data", cause });
    };
    declared_bytes(tensor, element_bytes, elements)
}

/// The bytes that are inside, which must be exactly those declared.
fn inline_bytes(
    tensor: &TensorProto,
    data_type: DataType,
    elements: u64,
) -> Result<u64, TensorFault> {
    let mut fields = filled(tensor);
    let first = fields.next();
    if let Some((field, _)) = fields.next() {
        return Err(TensorFault::Field { field, cause: "a second field with data" });
    }
    let Some(element_bytes) = element_bytes(data_type) else {
        return strings(tensor, first, elements);
    };
    let declared = declared_bytes(tensor, element_bytes, elements)?;
    match first {
        Some(("raw_data", present)) => {
            if present == declared {
                Ok(declared)
            } else {
                Err(TensorFault::Bytes { declared, present })
            }
        }
        Some((field, present)) => {
            if Some(field) != typed_field(data_type) {
                let cause = "not where elements of this type belong";
                return Err(TensorFault::Field { field, cause });
            }
            if present == elements {
                Ok(declared)
            } else {
                Err(TensorFault::Count { declared: elements, present })
            }
        }
        None if elements == 0 => Ok(0),
        None => Err(TensorFault::Bytes { declared, present: 0 }),
    }
}

fn strings(
    tensor: &TensorProto,
    first: Option<(&'static str, u64)>,
    elements: u64,
) -> Result<u64, TensorFault> {
    match first {
        // tract panics on raw strings, and ONNX does not allow them.
        Some((field, _)) if field != "string_data" => {
            Err(TensorFault::Field { field, cause: "not where strings belong" })
        }
        _ => {
            let present = count(tensor.string_data.len());
            if present != elements {
                return Err(TensorFault::Count { declared: elements, present });
            }
            if tensor.string_data.iter().any(|text| std::str::from_utf8(text).is_err()) {
                let cause = "a string is not UTF-8";
                return Err(TensorFault::Field { field: "string_data", cause });
            }
            Ok(tensor.string_data.iter().map(|text| count(text.len())).sum())
        }
    }
}

/// The field of numbers in which elements of `data_type` may lie. ONNX also has `uint64_data` for
/// the unsigned types of 32 and 64 bits, but tract looks for them elsewhere and finds none.
fn typed_field(data_type: DataType) -> Option<&'static str> {
    match data_type {
        DataType::Float => Some("float_data"),
        DataType::Double => Some("double_data"),
        DataType::Int64 => Some("int64_data"),
        DataType::Int8
        | DataType::Uint8
        | DataType::Int16
        | DataType::Uint16
        | DataType::Int32
        | DataType::Bool
        | DataType::Float16 => Some("int32_data"),
        _ => None,
    }
}

/// The fields of `tensor` that hold data: bytes of `raw_data`, elements of the others.
fn filled(tensor: &TensorProto) -> impl Iterator<Item = (&'static str, u64)> + use<> {
    [
        ("raw_data", tensor.raw_data.len()),
        ("float_data", tensor.float_data.len()),
        ("int32_data", tensor.int32_data.len()),
        ("string_data", tensor.string_data.len()),
        ("int64_data", tensor.int64_data.len()),
        ("double_data", tensor.double_data.len()),
        ("uint64_data", tensor.uint64_data.len()),
    ]
    .into_iter()
    .map(|(field, length)| (field, count(length)))
    .filter(|(_, length)| *length > 0)
}
