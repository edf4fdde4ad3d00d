//! Between our tensors and tract's.

use std::borrow::Cow;

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use crate::tensor::{DType, Data, Tensor as OurTensor};

/// Our name of a tract type.
pub fn dtype(datum_type: DatumType) -> TractResult<DType> {
    Ok(match datum_type {
        DatumType::Bool => DType::Bool,
        DatumType::I8 => DType::I8,
        DatumType::I16 => DType::I16,
        DatumType::I32 => DType::I32,
        DatumType::I64 | DatumType::TDim => DType::I64,
        DatumType::U8 => DType::U8,
        DatumType::U16 => DType::U16,
        DatumType::U32 => DType::U32,
        DatumType::U64 => DType::U64,
        DatumType::F16 => DType::F16,
        DatumType::F32 => DType::F32,
        DatumType::F64 => DType::F64,
        other => bail!("type {other:?}: not supported for inputs and outputs"),
    })
}

macro_rules! each_type {
    ($data:expr, $elements:ident => $body:expr) => {
        match $data {
            Data::Bool($elements) => $body,
            Data::I8($elements) => $body,
            Data::I16($elements) => $body,
            Data::I32($elements) => $body,
            Data::I64($elements) => $body,
            Data::U8($elements) => $body,
            Data::U16($elements) => $body,
            Data::U32($elements) => $body,
            Data::U64($elements) => $body,
            Data::F16($elements) => $body,
            Data::F32($elements) => $body,
            Data::F64($elements) => $body,
            Data::Bytes(_) => bail!("type Bytes: a model takes numbers"),
        }
    };
}

/// A copy for tract.
pub fn to_tract(tensor: &OurTensor) -> TractResult<Tensor> {
    each_type!(tensor.data(), elements => Tensor::from_shape(tensor.shape().dims(), elements))
}

/// A copy of what tract computed.
pub fn from_tract(tensor: &Tensor) -> TractResult<OurTensor> {
    let tensor = if tensor.datum_type() == DatumType::TDim {
        tensor.cast_to::<i64>()?
    } else {
        Cow::Borrowed(tensor)
    };
    let plain = tensor.try_as_plain_ram()?;
    macro_rules! data {
        ($($dtype:ident: $element:ty),+) => {
            match dtype(tensor.datum_type())? {
                $(DType::$dtype => Data::$dtype(plain.as_slice::<$element>()?.to_vec()),)+
                DType::Bytes => bail!("type Bytes: a model gives numbers"),
            }
        };
    }
    let data = data!(
        Bool: bool, I8: i8, I16: i16, I32: i32, I64: i64, U8: u8, U16: u16, U32: u32, U64: u64,
        F16: f16, F32: f32, F64: f64
    );
    Ok(OurTensor::new(tensor.shape(), data)?)
}
