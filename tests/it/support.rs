//! What several tests need: fixtures, and comparisons.

pub mod allocations;
pub mod http;
pub mod mqtt;
pub mod service;

use std::path::{Path, PathBuf};

use half::f16;
use moed::engine::tract::{TractModel, load};
use moed::engine::{LoadError, LoadOptions};
use moed::tensor::{Data, Tensor};
use prost::Message as _;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, TensorProto};

/// `tests/data/FOLDER`.
pub fn data(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder)
}

/// Loads a fixture.
pub fn load_fixture(folder: &str, file: &str, threads: usize) -> Result<TractModel, LoadError> {
    load(&data(folder), file, &LoadOptions { threads, ..LoadOptions::default() })
}

/// Writes an operator's fixture, changed by `edit`, as `model.onnx` into `dir`.
pub fn edited(name: &str, dir: &Path, edit: impl FnOnce(&mut GraphProto)) {
    let bytes = std::fs::read(data("operators").join(format!("{name}.onnx"))).expect("a fixture");
    let mut model = ModelProto::decode(bytes.as_slice()).expect("a fixture decodes");
    edit(model.graph.as_mut().expect("a graph"));
    std::fs::write(dir.join("model.onnx"), model.encode_to_vec()).expect("the model is written");
}

/// The tensors of an `.io.onnx` file, by name.
pub fn tensors(folder: &str, file: &str) -> Vec<(String, Tensor)> {
    let bytes = std::fs::read(data(folder).join(file)).expect("a fixture's file is there");
    let model = ModelProto::decode(bytes.as_slice()).expect("a fixture decodes");
    let graph = model.graph.expect("a fixture has a graph");
    graph.initializer.iter().map(|proto| (proto.name.clone(), tensor(proto))).collect()
}

fn tensor(proto: &TensorProto) -> Tensor {
    let dims: Vec<usize> = proto.dims.iter().map(|&dim| dim as usize).collect();
    let data = match DataType::try_from(proto.data_type).expect("a known type") {
        DataType::Float => {
            let chunks = proto.raw_data.as_chunks::<4>().0;
            Data::F32(chunks.iter().map(|x| f32::from_le_bytes(*x)).collect())
        }
        DataType::Float16 => {
            let chunks = proto.raw_data.as_chunks::<2>().0;
            Data::F16(chunks.iter().map(|x| f16::from_le_bytes(*x)).collect())
        }
        other => panic!("fixtures hold floats, not {other:?}"),
    };
    Tensor::new(&dims, data).expect("a fixture's shape fits its data")
}

/// The elements as f32.
pub fn floats(tensor: &Tensor) -> Vec<f32> {
    match tensor.data() {
        Data::F32(data) => data.clone(),
        Data::F16(data) => data.iter().map(|x| x.to_f32()).collect(),
        other => panic!("floats were expected, not {:?}", other.dtype()),
    }
}

/// The largest difference, as a part of the root mean square of `want`.
pub fn relative_error(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let rms = (want.iter().map(|x| x * x).sum::<f32>() / want.len().max(1) as f32).sqrt();
    let differences = got.iter().zip(want).map(|(got, want)| (got - want).abs());
    // A NaN is the largest difference of all.
    let max = differences.fold(0.0, |max: f32, x| if x > max || x.is_nan() { x } else { max });
    if max == 0.0 { 0.0 } else { max / rms }
}
