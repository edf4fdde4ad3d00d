//! The engine alone, in the smallest program that uses it: runs a model once, on zeros.
//!
//!     cargo run --release --example engine -- models/intent model.onnx
//!
//! `benches/figures engine` says how large it is.

#![expect(clippy::disallowed_methods, reason = "it has no command line to speak of, and no clap")]

use moed::engine::tract::Tract;
use moed::engine::{Backend as _, Dim, LoadOptions, RunOptions};
use moed::tensor::{DType, Data, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(bundle), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: engine BUNDLE FILE, a directory and the ONNX file in it".into());
    };
    let model = Tract.load(bundle.as_ref(), &file, &LoadOptions::default())?;
    let mut inputs = Vec::new();
    for port in &model.signature().inputs {
        // One row of one, where the model takes any number.
        let dims: Vec<usize> = port
            .dims
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(size) => *size,
                _ => 1,
            })
            .collect();
        let elements = dims.iter().product();
        let zeros = match port.dtype {
            DType::F32 => Data::F32(vec![0.0; elements]),
            DType::I64 => Data::I64(vec![0; elements]),
            other => return Err(format!("input `{}`: {other:?}: not here", port.name).into()),
        };
        inputs.push(Tensor::new(&dims, zeros)?);
    }
    let run = model.session()?.run(&inputs, RunOptions::default())?;
    for (port, output) in model.signature().outputs.iter().zip(&run.outputs) {
        println!("{} {:?}", port.name, output.shape().dims());
    }
    println!("{} bytes of experts read", run.report.weight_bytes_read());
    Ok(())
}
