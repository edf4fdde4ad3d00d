//! The protocol's words for element types, and their sizes in bytes.

use crate::tensor::DType;

/// In the order of the protocol's table.
const ALL: [DType; 13] = [
    DType::Bool,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::F16,
    DType::F32,
    DType::F64,
    DType::Bytes,
];

/// Open Inference Protocol v2, "Tensor Data Types".
pub fn word(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "BOOL",
        DType::U8 => "UINT8",
        DType::U16 => "UINT16",
        DType::U32 => "UINT32",
        DType::U64 => "UINT64",
        DType::I8 => "INT8",
        DType::I16 => "INT16",
        DType::I32 => "INT32",
        DType::I64 => "INT64",
        DType::F16 => "FP16",
        DType::F32 => "FP32",
        DType::F64 => "FP64",
        DType::Bytes => "BYTES",
    }
}

/// The type of that word.
pub fn parse(word: &str) -> Option<DType> {
    ALL.into_iter().find(|dtype| self::word(*dtype) == word)
}

/// Every word, for the text of an error.
pub fn words() -> String {
    ALL.map(word).join(", ")
}

/// Bytes of an element; `None`: each says its own.
pub(super) fn element_bytes(dtype: DType) -> Option<usize> {
    match dtype {
        DType::Bool | DType::U8 | DType::I8 => Some(1),
        DType::U16 | DType::I16 | DType::F16 => Some(2),
        DType::U32 | DType::I32 | DType::F32 => Some(4),
        DType::U64 | DType::I64 | DType::F64 => Some(8),
        DType::Bytes => None,
    }
}
