//! Tensors as they travel between transports, scheduler and engine: plain owned data.
//!
//! A [`Shape`] can only be made with a checked element count, and a [`Tensor`] only with as many
//! elements as its shape says, so no later code has to ask again. Knows no format and no runtime.

use half::f16;

/// Most dimensions that a tensor may have.
pub const RANK_MAX: usize = 8;

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F16,
    F32,
    F64,
    /// Byte strings of any length; text is UTF-8.
    Bytes,
}

/// Dimensions whose product is known to fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    dims: Vec<usize>,
    elements: usize,
}

/// Why a tensor can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    #[error("shape {dims:?}: rank {}: at most {RANK_MAX} dimensions are supported", dims.len())]
    Rank { dims: Vec<usize> },
    #[error("shape {dims:?}: element count: does not fit in memory")]
    Elements { dims: Vec<usize> },
    #[error("shape {dims:?}: data: {given} elements given, {needed} needed")]
    Length { dims: Vec<usize>, given: usize, needed: usize },
}

impl Shape {
    /// Refuses ranks above [`RANK_MAX`] and element counts whose bytes could not be addressed.
    pub fn new(dims: &[usize]) -> Result<Self, TensorError> {
        if dims.len() > RANK_MAX {
            return Err(TensorError::Rank { dims: dims.to_vec() });
        }
        let elements = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        match elements.filter(|&elements| elements <= isize::MAX as usize / 8) {
            Some(elements) => Ok(Self { dims: dims.to_vec(), elements }),
            None => Err(TensorError::Elements { dims: dims.to_vec() }),
        }
    }

    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    pub fn elements(&self) -> usize {
        self.elements
    }
}

/// A tensor's elements, in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    Bool(Vec<bool>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    F16(Vec<f16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bytes(Vec<Vec<u8>>),
}

impl Data {
    pub fn dtype(&self) -> DType {
        match self {
            Self::Bool(_) => DType::Bool,
            Self::I8(_) => DType::I8,
            Self::I16(_) => DType::I16,
            Self::I32(_) => DType::I32,
            Self::I64(_) => DType::I64,
            Self::U8(_) => DType::U8,
            Self::U16(_) => DType::U16,
            Self::U32(_) => DType::U32,
            Self::U64(_) => DType::U64,
            Self::F16(_) => DType::F16,
            Self::F32(_) => DType::F32,
            Self::F64(_) => DType::F64,
            Self::Bytes(_) => DType::Bytes,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Bool(data) => data.len(),
            Self::I8(data) => data.len(),
            Self::I16(data) => data.len(),
            Self::I32(data) => data.len(),
            Self::I64(data) => data.len(),
            Self::U8(data) => data.len(),
            Self::U16(data) => data.len(),
            Self::U32(data) => data.len(),
            Self::U64(data) => data.len(),
            Self::F16(data) => data.len(),
            Self::F32(data) => data.len(),
            Self::F64(data) => data.len(),
            Self::Bytes(data) => data.len(),
        }
    }
}

/// A shape and as many elements as it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Shape,
    data: Data,
}

impl Tensor {
    pub fn new(dims: &[usize], data: Data) -> Result<Self, TensorError> {
        let shape = Shape::new(dims)?;
        let (given, needed) = (data.len(), shape.elements());
        if given != needed {
            return Err(TensorError::Length { dims: dims.to_vec(), given, needed });
        }
        Ok(Self { shape, data })
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    pub fn data(&self) -> &Data {
        &self.data
    }

    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }
}
