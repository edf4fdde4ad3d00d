//! `y = x · Wᵀ` for weights in f32 or f16, read in place.

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use std::ops::Range;

use super::wide::{Wide, multiply_add, wide};

/// A matrix `[n, k]` of floats.
#[derive(Debug, Clone, Copy)]
pub enum FloatMatrix<'a> {
    F32 { weights: &'a [f32], k: usize },
    F16 { weights: &'a [f16], k: usize },
}

/// Rows of weights that are multiplied with two rows of x together: eight vectors of sums.
const FEATURES: usize = 4;

/// Computes columns `features` of `x · Wᵀ` for the rows `columns` of `x` (`[rows, k]`), into
/// `out[columns.len()][features.len()]`. `expanded` is a buffer for some rows of weights.
pub fn matmul(
    matrix: FloatMatrix<'_>,
    features: Range<usize>,
    x: &[f32],
    columns: &[u32],
    out: &mut [f32],
    expanded: &mut Vec<f32>,
) {
    let (width, end) = (features.len(), features.end);
    for feature in features.clone().step_by(FEATURES) {
        let count = FEATURES.min(end - feature);
        let (weights, k) = match matrix {
            FloatMatrix::F32 { weights, k } => (&weights[feature * k..][..count * k], k),
            FloatMatrix::F16 { weights, k } => {
                expanded.resize(count * k, 0.0);
                weights[feature * k..][..count * k].convert_to_f32_slice(expanded);
                (expanded.as_slice(), k)
            }
        };
        let out = &mut out[feature - features.start..];
        wide(FewFeatures { weights, k, x, columns, out, width });
    }
}

/// Up to [`FEATURES`] rows of weights against all rows of x.
struct FewFeatures<'a> {
    weights: &'a [f32],
    k: usize,
    x: &'a [f32],
    columns: &'a [u32],
    out: &'a mut [f32],
    /// From one row of `out` to the next.
    width: usize,
}

impl Wide for FewFeatures<'_> {
    type Output = ();

    #[inline(always)]
    fn compute(self, is_fused: bool) {
        let Self { weights, k, x, columns, out, width } = self;
        let at = |column: u32| &x[column as usize * k..][..k];
        let (pairs, last) = columns.as_chunks::<2>();
        let mut alone = last;
        if weights.len() == FEATURES * k {
            let mut rows = [weights; FEATURES];
            for n in 0..FEATURES {
                rows[n] = &weights[n * k..][..k];
            }
            for (m, &[a, b]) in pairs.iter().enumerate() {
                let [a, b] = dots::<8, _, _>(is_fused, rows, [at(a), at(b)]);
                out[2 * m * width..][..FEATURES].copy_from_slice(&a);
                out[(2 * m + 1) * width..][..FEATURES].copy_from_slice(&b);
            }
        } else {
            alone = columns;
        }
        let done = columns.len() - alone.len();
        for (m, &column) in (done..).zip(alone) {
            for (n, weights) in weights.chunks_exact(k).enumerate() {
                [[out[m * width + n]]] = dots::<32, _, _>(is_fused, [weights], [at(column)]);
            }
        }
    }
}

/// The dot products of `M` rows of x with `N` of weights, each in so many lanes, which the compiler
/// puts into vectors.
#[inline(always)]
fn dots<const LANES: usize, const N: usize, const M: usize>(
    is_fused: bool,
    weights: [&[f32]; N],
    x: [&[f32]; M],
) -> [[f32; N]; M] {
    let mut lanes = [[[0f32; LANES]; N]; M];
    let chunks = x[0].len() / LANES;
    // Bounds are checked here and not below, where a check would keep the lanes out of vectors.
    let x_chunks = x.map(|row| &row.as_chunks::<LANES>().0[..chunks]);
    let weight_chunks = weights.map(|row| &row.as_chunks::<LANES>().0[..chunks]);
    for chunk in 0..chunks {
        for m in 0..M {
            // SAFETY: there are so many chunks.
            let a = unsafe { x_chunks[m].get_unchecked(chunk) };
            for n in 0..N {
                // SAFETY: the same.
                let b = unsafe { weight_chunks[n].get_unchecked(chunk) };
                lanes[m][n] = multiply_add_lanes(is_fused, a, b, lanes[m][n]);
            }
        }
    }
    let mut sums = [[0.0; N]; M];
    for m in 0..M {
        for n in 0..N {
            let mut rest = 0.0;
            for (a, b) in x[m][chunks * LANES..].iter().zip(&weights[n][chunks * LANES..]) {
                rest += a * b;
            }
            sums[m][n] = lanes[m][n].iter().sum::<f32>() + rest;
        }
    }
    sums
}

/// By value: what is added to in place, the compiler keeps in memory and not in vectors.
#[inline(always)]
fn multiply_add_lanes<const LANES: usize>(
    is_fused: bool,
    a: &[f32; LANES],
    b: &[f32; LANES],
    mut sums: [f32; LANES],
) -> [f32; LANES] {
    for lane in 0..LANES {
        sums[lane] = multiply_add(is_fused, a[lane], b[lane], sums[lane]);
    }
    sums
}
