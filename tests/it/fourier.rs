//! `patches/rustfft`, through the operator of tract that uses it: against the definition.

use std::f64::consts::TAU;

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::tract_core::ops::fft::Fft;

/// `[re, im]` pairs, transformed by tract.
fn transformed(pairs: &[[f32; 2]], inverse: bool) -> Vec<[f32; 2]> {
    let shape = [1, pairs.len(), 2];
    let run = || -> TractResult<Vec<f32>> {
        let mut model = TypedModel::default();
        let x = model.add_source("x", f32::fact(shape))?;
        let out = model.wire_node("fft", Fft { axis: 1, inverse }, &[x])?;
        model.select_output_outlets(&out)?;
        let x = Tensor::from_shape(&shape, pairs.as_flattened())?;
        let out = model.into_runnable()?.run(tvec!(x.into_tvalue()))?;
        Ok(out[0].to_plain_array_view::<f32>()?.iter().copied().collect())
    };
    run().expect("an answer").as_chunks::<2>().0.to_vec()
}

/// The sums themselves.
fn defined(pairs: &[[f32; 2]], inverse: bool) -> Vec<[f32; 2]> {
    let sign = if inverse { TAU } else { -TAU };
    let len = pairs.len();
    let sum = |k: usize| {
        pairs.iter().enumerate().fold([0f64; 2], |[re, im], (n, &[a, b])| {
            let (sin, cos) = (sign * ((k * n) % len) as f64 / len as f64).sin_cos();
            let (a, b) = (f64::from(a), f64::from(b));
            [re + a * cos - b * sin, im + a * sin + b * cos]
        })
    };
    (0..len).map(sum).map(|[re, im]| [re as f32, im as f32]).collect()
}

#[test]
fn a_transform_of_any_length_is_the_sum_that_defines_it() {
    for len in (1..=40).chain([64, 97, 100, 360]) {
        let value = |i: usize| ((i * 37 + len) % 19) as f32 / 9.0 - 1.0;
        let pairs: Vec<[f32; 2]> = (0..len).map(|i| [value(2 * i), value(2 * i + 1)]).collect();
        for inverse in [false, true] {
            let (got, want) = (transformed(&pairs, inverse), defined(&pairs, inverse));
            for (got, want) in got.as_flattened().iter().zip(want.as_flattened()) {
                let error = (got - want).abs();
                assert!(error < 1e-4 * len as f32, "length {len}: {got} is not {want}");
            }
        }
    }
}
