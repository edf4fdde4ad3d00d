//! `y = x · Wᵀ` for weights in f32 or f16, read in place.

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use std::ops::Range;

use super::wide::wide;

/// A matrix `[n, k]` of floats.
#[derive(Debug, Clone, Copy)]
pub enum FloatMatrix<'a> {
    F32 { weights: &'a [f32], k: usize },
    F16 { weights: &'a [f16], k: usize },
}

/// Computes columns `features` of `x · Wᵀ` for the rows `columns` of `x` (`[rows, k]`), into
/// `out[columns.len()][features.len()]`. `row` is a buffer for one row of weights.
pub fn matmul(
    matrix: FloatMatrix<'_>,
    features: Range<usize>,
    x: &[f32],
    columns: &[u32],
    out: &mut [f32],
    row: &mut Vec<f32>,
) {
    let width = features.len();
    for (n, feature) in features.enumerate() {
        let (weights, k) = match matrix {
            FloatMatrix::F32 { weights, k } => (&weights[feature * k..][..k], k),
            FloatMatrix::F16 { weights, k } => {
                row.resize(k, 0.0);
                weights[feature * k..][..k].convert_to_f32_slice(row);
                (row.as_slice(), k)
            }
        };
        for (m, &column) in columns.iter().enumerate() {
            out[m * width + n] = wide(dot, (weights, &x[column as usize * k..][..k]));
        }
    }
}

/// A dot product in 32 lanes, which the compiler puts into vectors.
#[inline(always)]
fn dot(is_fused: bool, (a, b): (&[f32], &[f32])) -> f32 {
    let mut lanes = [0f32; 32];
    let (a_lanes, a_rest) = a.as_chunks::<32>();
    let (b_lanes, b_rest) = b.as_chunks::<32>();
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane = if is_fused { a.mul_add(*b, *lane) } else { a * b + *lane };
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}
