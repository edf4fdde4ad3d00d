//! The weights of a node: initializers, taken out of the protobuf or mapped from the bundle.

use std::collections::HashMap;

use half::f16;
use tract_onnx::pb::{TensorProto, tensor_proto::DataType};

use crate::engine::mapping::Bytes;

/// A constant tensor: type, dimensions, and where its bytes are.
#[derive(Debug, Clone)]
pub struct TensorSource {
    pub data_type: DataType,
    pub dims: Vec<usize>,
    pub bytes: Bytes,
}

/// Constant tensors by name.
#[derive(Debug, Default)]
pub struct Tensors {
    by_name: HashMap<String, TensorSource>,
    bytes: u64,
}

impl Tensors {
    pub fn insert(&mut self, name: String, source: TensorSource) {
        self.bytes = self.bytes.saturating_add(source.bytes.as_slice().len() as u64);
        self.by_name.insert(name, source);
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn get(&self, name: &str) -> Option<&TensorSource> {
        self.by_name.get(name)
    }
}

impl TensorSource {
    /// Takes the data out of an initializer that lies inside the file. `None` for types that no
    /// operator here reads. `inspect` has seen that data and dimensions agree.
    pub fn take(proto: &mut TensorProto) -> Option<Self> {
        let data_type = DataType::try_from(proto.data_type).ok()?;
        let mut bytes = std::mem::take(&mut proto.raw_data);
        if bytes.is_empty() {
            let ints = std::mem::take(&mut proto.int32_data);
            bytes = match data_type {
                DataType::Float => {
                    let floats = std::mem::take(&mut proto.float_data);
                    floats.iter().flat_map(|x| x.to_le_bytes()).collect()
                }
                DataType::Uint8 => ints.iter().map(|&x| x as u8).collect(),
                DataType::Float16 => ints.iter().flat_map(|&x| (x as u16).to_le_bytes()).collect(),
                _ => return None,
            };
        }
        let dims =
            proto.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect::<Option<_>>()?;
        Some(Self { data_type, dims, bytes: Bytes::heap(bytes) })
    }

    /// As f32 numbers: in place where they are such and aligned, else converted from f16 or f32.
    pub fn floats(&self) -> Option<Floats> {
        let bytes = self.bytes.as_slice();
        match self.data_type {
            DataType::Float if bytemuck::try_cast_slice::<u8, f32>(bytes).is_ok() => {
                Some(Floats::InPlace(self.bytes.clone()))
            }
            DataType::Float => {
                let floats = bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x));
                Some(Floats::Heap(floats.collect()))
            }
            DataType::Float16 => {
                let halves = bytes.as_chunks::<2>().0.iter().map(|x| f16::from_le_bytes(*x));
                Some(Floats::Heap(halves.map(f16::to_f32).collect()))
            }
            _ => None,
        }
    }

    /// As f16 numbers, in place where they are aligned.
    pub fn halves(&self) -> Option<Halves> {
        let bytes = self.bytes.as_slice();
        match self.data_type {
            DataType::Float16 if bytemuck::try_cast_slice::<u8, f16>(bytes).is_ok() => {
                Some(Halves::InPlace(self.bytes.clone()))
            }
            DataType::Float16 => {
                let halves = bytes.as_chunks::<2>().0.iter().map(|x| f16::from_le_bytes(*x));
                Some(Halves::Heap(halves.collect()))
            }
            _ => None,
        }
    }
}

/// f32 numbers.
#[derive(Debug, Clone)]
pub enum Floats {
    /// Bytes that are known to be aligned.
    InPlace(Bytes),
    Heap(Vec<f32>),
}

impl Floats {
    pub fn as_slice(&self) -> &[f32] {
        match self {
            Self::InPlace(bytes) => bytemuck::cast_slice(bytes.as_slice()),
            Self::Heap(floats) => floats,
        }
    }
}

/// f16 numbers.
#[derive(Debug, Clone)]
pub enum Halves {
    /// Bytes that are known to be aligned.
    InPlace(Bytes),
    Heap(Vec<f16>),
}

impl Halves {
    pub fn as_slice(&self) -> &[f16] {
        match self {
            Self::InPlace(bytes) => bytemuck::cast_slice(bytes.as_slice()),
            Self::Heap(halves) => halves,
        }
    }
}

#[cfg(target_endian = "big")]
compile_error!("ONNX weights are little-endian and are read in place");
