//! A second oracle for `com.microsoft.MoE` in f32: tract's own operator, `MoeFfn` of
//! tract-transformers, on the weights of the first oracle's fixtures. It was written by others,
//! from other models, and has its router inside.

use moed::engine::{Model as _, RunOptions};
use moed::tensor::{Data, Tensor};
use tract_onnx::prelude::{Tensor as TractTensor, *};
use tract_transformers::ops::moe_ffn::{ExpertLayout, GateMode, MoeFfn};

use crate::support::{floats, load_fixture, relative_error, tensors};

const ROWS: usize = 5;
/// Both compute in f32, in different orders.
const TOLERANCE: f32 = 2e-5;

/// Numbers in -1..1 that look random.
fn noise(count: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

struct Weights {
    all: Vec<(String, Tensor)>,
}

impl Weights {
    fn find(&self, name: &str) -> Option<TractTensor> {
        let (_, tensor) = self.all.iter().find(|(found, _)| found == name)?;
        Some(constant(tensor.shape().dims(), &floats(tensor)))
    }

    fn dims(&self, name: &str) -> &[usize] {
        let (_, tensor) = self.all.iter().find(|(found, _)| found == name).expect("a weight");
        tensor.shape().dims()
    }
}

fn constant(dims: &[usize], floats: &[f32]) -> TractTensor {
    TractTensor::from_shape(dims, floats).expect("dims fit")
}

/// What `MoeFfn` gives for `x`, with the router `wg` of `[experts, hidden]`.
fn second_opinion(
    weights: &Weights,
    activation: &str,
    k: usize,
    normalised: bool,
    x: &[f32],
    wg: &[f32],
) -> TractResult<Vec<f32>> {
    let [experts, _, hidden] = *weights.dims("fc1_experts_weights") else { panic!("rank 3") };
    let mut model = TypedModel::default();
    let mut inputs = vec![
        model.add_source("x", f32::fact([ROWS, hidden]))?,
        model.add_const("wg", constant(&[experts, hidden], wg))?,
    ];
    let mut add = |name: &str| -> TractResult<bool> {
        let Some(tensor) = weights.find(name) else { return Ok(false) };
        inputs.push(model.add_const(name, tensor)?);
        Ok(true)
    };
    add("fc1_experts_weights")?;
    add("fc2_experts_weights")?;
    let has_w1_bias = add("fc1_experts_bias")?;
    let has_w2_bias = add("fc2_experts_bias")?;
    let op = MoeFfn {
        k,
        activation: activation.to_owned(),
        // Softmax over the chosen is softmax over all, made to sum to 1 again.
        gate: if normalised { GateMode::SoftmaxTopk } else { GateMode::SoftmaxAll },
        has_w3: false,
        has_wg_bias: false,
        has_w1_bias,
        has_w3_bias: false,
        has_w2_bias,
        act_alpha_bits: None,
        act_limit_bits: None,
        expert_layout: ExpertLayout::Linear,
    };
    let out = model.wire_node("moe", op, &inputs)?;
    model.select_output_outlets(&out)?;
    let plan = model.into_runnable()?;
    let out = plan.run(tvec!(constant(&[ROWS, hidden], x).into_tvalue()))?;
    Ok(out[0].to_plain_array_view::<f32>()?.iter().copied().collect())
}

#[test]
fn tracts_own_operator_agrees_on_experts_in_f32() {
    let mut compared = 0;
    for activation in ["silu", "gelu", "relu"] {
        for k in [1, 2, 4] {
            for (bias, normalised) in [("", false), ("", true), ("-bias", false), ("-bias", true)] {
                let suffix = if normalised { "-normalized" } else { "" };
                let name = format!("moe-{activation}-k{k}{bias}{suffix}");
                let weights = Weights { all: tensors("operators", &format!("{name}.onnx")) };
                let [experts, _, hidden] = *weights.dims("fc1_experts_weights") else {
                    panic!("{name}: fc1 has rank 3")
                };
                let (x, wg) = (noise(ROWS * hidden), noise(experts * hidden));
                let want = second_opinion(&weights, activation, k, normalised, &x, &wg)
                    .unwrap_or_else(|error| panic!("{name}: {error:#}"));
                let logits = x.chunks_exact(hidden).flat_map(|x| {
                    let dot = |w: &[f32]| w.iter().zip(x).map(|(w, x)| w * x).sum();
                    wg.chunks_exact(hidden).map(dot).collect::<Vec<f32>>()
                });
                let model = load_fixture("operators", &format!("{name}.onnx"), 1).expect("loads");
                let inputs = [
                    Tensor::new(&[ROWS, hidden], Data::F32(x.clone())).expect("fits"),
                    Tensor::new(&[ROWS, experts], Data::F32(logits.collect())).expect("fits"),
                ];
                let mut session = model.session().expect("a session opens");
                let run = session.run(&inputs, RunOptions::default()).expect("it runs");
                let error = relative_error(&floats(&run.outputs[0]), &want);
                assert!(error < TOLERANCE, "{name}: off by {error}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 36);
}
