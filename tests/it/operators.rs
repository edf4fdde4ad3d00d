//! The operators against the NumPy oracle's vectors (`tests/vectors/generate.py`).

use moed::engine::tract::TractModel;
use moed::engine::{Model as _, RunOptions};
use moed::tensor::Tensor;
use serde::Deserialize;

use crate::support::{data, floats, load_fixture, relative_error, tensors};

#[derive(Deserialize)]
struct Case {
    name: String,
    tolerance: f32,
}

#[derive(Deserialize)]
struct Refused {
    name: String,
    contains: Vec<String>,
}

fn index<T: serde::de::DeserializeOwned>(folder: &str) -> Vec<T> {
    let json = std::fs::read(data(folder).join("index.json")).expect("the index is there");
    serde_json::from_slice(&json).expect("the index is well-formed")
}

/// Inputs in the model's order, and expected outputs in the model's order.
fn inputs_and_outputs(model: &TractModel, name: &str) -> (Vec<Tensor>, Vec<Tensor>) {
    let tensors = tensors("operators", &format!("{name}.io.onnx"));
    let find = |port: &str| {
        let found = tensors.iter().find(|(name, _)| name == port);
        found.unwrap_or_else(|| panic!("{name}: no tensor {port}")).1.clone()
    };
    let signature = model.signature();
    let inputs = signature.inputs.iter().map(|port| find(&port.name)).collect();
    let outputs = signature.outputs.iter().map(|port| find(&port.name)).collect();
    (inputs, outputs)
}

/// How far the model's answer is from the oracle's, as a share of the case's tolerance.
fn share_of_tolerance(case: &Case, threads: usize) -> Result<f32, String> {
    let model = load_fixture("operators", &format!("{}.onnx", case.name), threads)
        .map_err(|error| format!("{}: {error}", case.name))?;
    let (inputs, outputs) = inputs_and_outputs(&model, &case.name);
    let mut session = model.session().map_err(|error| error.to_string())?;
    let run = session
        .run(&inputs, RunOptions::default())
        .map_err(|error| format!("{}: {error}", case.name))?;
    let mut worst = 0f32;
    for (got, want) in run.outputs.iter().zip(&outputs) {
        if got.shape() != want.shape() || got.dtype() != want.dtype() {
            return Err(format!("{}: {:?}, not {:?}", case.name, got.shape(), want.shape()));
        }
        worst = worst.max(relative_error(&floats(got), &floats(want)) / case.tolerance);
    }
    Ok(worst)
}

#[test]
fn every_case_of_the_oracle_is_within_its_tolerance() {
    let cases: Vec<Case> = index("operators");
    assert!(cases.len() > 400, "the vectors are there");
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| match share_of_tolerance(case, 1) {
            Ok(share) if share <= 1.0 => None,
            Ok(share) => Some(format!("{}: {share} times its tolerance", case.name)),
            Err(error) => Some(error),
        })
        .collect();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn what_is_not_supported_is_refused_at_load_and_named() {
    let refused: Vec<Refused> = index("refused");
    assert!(refused.len() > 50, "the fixtures are there");
    let failures: Vec<String> = refused
        .iter()
        .filter_map(|case| match load_fixture("refused", &format!("{}.onnx", case.name), 1) {
            Ok(_) => Some(format!("{}: loaded", case.name)),
            Err(error) => {
                let error = error.to_string();
                let missing: Vec<_> =
                    case.contains.iter().filter(|part| !error.contains(*part)).collect();
                (!missing.is_empty()).then(|| format!("{}: no {missing:?} in: {error}", case.name))
            }
        })
        .collect();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
