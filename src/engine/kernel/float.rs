//! `y = x · Wᵀ` for weights in f32 or f16, read in place.

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use std::ops::Range;

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
            out[m * width + n] = dot(weights, &x[column as usize * k..][..k]);
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the features are there.
        return unsafe { dot_avx2(a, b) };
    }
    dot_lanes::<{ cfg!(target_arch = "aarch64") }>(a, b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn dot_avx2(a: &[f32], b: &[f32]) -> f32 {
    dot_lanes::<true>(a, b)
}

/// A dot product in 32 lanes, which the compiler puts into vectors. `FUSED` where the target has
/// a fused multiply-add: elsewhere `mul_add` would be a call.
#[inline(always)]
fn dot_lanes<const FUSED: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 32];
    let (a_lanes, a_rest) = a.as_chunks::<32>();
    let (b_lanes, b_rest) = b.as_chunks::<32>();
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane = if FUSED { a.mul_add(*b, *lane) } else { a * b + *lane };
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}
