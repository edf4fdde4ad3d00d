//! The binary tensor extension: elements as little-endian bytes, in row-major order; a byte
//! string is its length in four bytes, and then itself.

use half::f16;

use super::Limits;
use super::data::DataError;
use super::datatype::{element_bytes, word};
use crate::tensor::{DType, Data};

/// Reads all of `bytes` as exactly `elements` elements.
pub(super) fn parse(
    bytes: &[u8],
    dtype: DType,
    elements: usize,
    limits: &Limits,
) -> Result<Data, DataError> {
    let Some(size) = element_bytes(dtype) else {
        return strings(bytes, elements, limits).map(Data::Bytes);
    };
    if elements.checked_mul(size) != Some(bytes.len()) {
        let (given, dtype) = (bytes.len(), word(dtype));
        return Err(DataError::Wrong(format!(
            "{given} bytes of binary data: give {elements} elements of {dtype}, {size} bytes each"
        )));
    }
    macro_rules! numbers {
        ($variant:ident, $type:ty) => {{
            let chunks = bytes.as_chunks::<{ size_of::<$type>() }>().0;
            Data::$variant(chunks.iter().map(|chunk| <$type>::from_le_bytes(*chunk)).collect())
        }};
    }
    Ok(match dtype {
        DType::Bool => {
            if let Some(at) = bytes.iter().position(|&byte| byte > 1) {
                let cause = format!("element {at}: a BOOL is one byte, 0 or 1");
                return Err(DataError::Wrong(cause));
            }
            Data::Bool(bytes.iter().map(|&byte| byte == 1).collect())
        }
        DType::I8 => numbers!(I8, i8),
        DType::I16 => numbers!(I16, i16),
        DType::I32 => numbers!(I32, i32),
        DType::I64 => numbers!(I64, i64),
        DType::U8 => Data::U8(bytes.to_vec()),
        DType::U16 => numbers!(U16, u16),
        DType::U32 => numbers!(U32, u32),
        DType::U64 => numbers!(U64, u64),
        DType::F16 => numbers!(F16, f16),
        DType::F32 => numbers!(F32, f32),
        DType::F64 => numbers!(F64, f64),
        DType::Bytes => unreachable!("byte strings have no element size"),
    })
}

fn strings(mut bytes: &[u8], elements: usize, limits: &Limits) -> Result<Vec<Vec<u8>>, DataError> {
    if elements > limits.strings_max {
        return Err(DataError::TooLarge { what: "elements", max: limits.strings_max });
    }
    // Each takes four bytes at least: a shape alone allocates nothing.
    let mut out = Vec::with_capacity(elements.min(bytes.len() / 4));
    while out.len() < elements {
        let string = bytes.split_first_chunk().and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            rest.split_at_checked(length)
        });
        let Some((string, rest)) = string else {
            let at = out.len();
            return Err(DataError::Wrong(format!(
                "element {at} of {elements}: the binary data ends inside it: a BYTES element is \
                 its length in 4 bytes, little-endian, and as many bytes"
            )));
        };
        if string.len() > limits.string_bytes_max {
            let max = limits.string_bytes_max;
            return Err(DataError::TooLarge { what: "bytes of a string", max });
        }
        out.push(string.to_vec());
        bytes = rest;
    }
    if !bytes.is_empty() {
        let left = bytes.len();
        let cause = format!("{left} bytes of binary data are left after {elements} elements");
        return Err(DataError::Wrong(cause));
    }
    Ok(out)
}

/// Appends the elements' bytes.
pub(super) fn write(out: &mut Vec<u8>, data: &Data) {
    macro_rules! numbers {
        ($values:ident) => {
            $values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()))
        };
    }
    match data {
        Data::Bool(values) => out.extend(values.iter().map(|&value| u8::from(value))),
        Data::I8(values) => numbers!(values),
        Data::I16(values) => numbers!(values),
        Data::I32(values) => numbers!(values),
        Data::I64(values) => numbers!(values),
        Data::U8(values) => out.extend_from_slice(values),
        Data::U16(values) => numbers!(values),
        Data::U32(values) => numbers!(values),
        Data::U64(values) => numbers!(values),
        Data::F16(values) => numbers!(values),
        Data::F32(values) => numbers!(values),
        Data::F64(values) => numbers!(values),
        Data::Bytes(values) => {
            for value in values {
                // No answer is as long as 4 GiB: models are bounded far below.
                let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(value);
            }
        }
    }
}

/// How many bytes [`write`] appends.
pub(super) fn written_bytes(data: &Data, elements: usize) -> usize {
    match data {
        Data::Bytes(values) => values.iter().map(|value| 4 + value.len()).sum(),
        data => elements * element_bytes(data.dtype()).unwrap_or(0),
    }
}
