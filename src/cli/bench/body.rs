//! A question as the body of a request, in the Open Inference Protocol's JSON.

use serde_json::{Value, json};

use crate::cli::Failure;
use crate::infer::NamedTensor;
use crate::tensor::{DType, Data};

/// The body that asks it.
pub fn of(question: &[NamedTensor]) -> Result<Vec<u8>, Failure> {
    let inputs = question.iter().map(|NamedTensor { name, tensor }| {
        let data = values(tensor.data())
            .ok_or_else(|| format!("input `{name}`: {:?} has no form in JSON", tensor.dtype()))?;
        let (shape, datatype) = (tensor.shape().dims(), word(tensor.dtype()));
        Ok(json!({ "name": name, "shape": shape, "datatype": datatype, "data": data }))
    });
    let inputs = inputs.collect::<Result<Vec<_>, Failure>>()?;
    Ok(json!({ "inputs": inputs }).to_string().into_bytes())
}

fn word(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "BOOL",
        DType::I8 => "INT8",
        DType::I16 => "INT16",
        DType::I32 => "INT32",
        DType::I64 => "INT64",
        DType::U8 => "UINT8",
        DType::U16 => "UINT16",
        DType::U32 => "UINT32",
        DType::U64 => "UINT64",
        DType::F16 => "FP16",
        DType::F32 => "FP32",
        DType::F64 => "FP64",
        DType::Bytes => "BYTES",
    }
}

/// `None` for FP16 and for bytes that are no text.
fn values(data: &Data) -> Option<Vec<Value>> {
    macro_rules! plain {
        ($values:ident) => {
            Some($values.iter().map(|value| json!(value)).collect())
        };
    }
    match data {
        Data::Bool(values) => plain!(values),
        Data::I8(values) => plain!(values),
        Data::I16(values) => plain!(values),
        Data::I32(values) => plain!(values),
        Data::I64(values) => plain!(values),
        Data::U8(values) => plain!(values),
        Data::U16(values) => plain!(values),
        Data::U32(values) => plain!(values),
        Data::U64(values) => plain!(values),
        Data::F32(values) => plain!(values),
        Data::F64(values) => plain!(values),
        Data::F16(_) => None,
        Data::Bytes(texts) => {
            texts.iter().map(|text| Some(json!(std::str::from_utf8(text).ok()?))).collect()
        }
    }
}
