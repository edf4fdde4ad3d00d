//! The weights of a projection for all experts of a layer, read in place.

use std::ops::Range;

use super::tensors::{Floats, Halves};
use crate::engine::kernel::Kernel;
use crate::engine::kernel::activations::{Activations, ChunkShape, NotFinite, Precision};
use crate::engine::kernel::float::{self, FloatMatrix};
use crate::engine::kernel::matmul::{Matrix, blocks, matmul, row_bytes};
use crate::engine::mapping::Bytes;

/// `[experts, n, k]`, k contiguous, with an optional bias `[experts, n]`.
#[derive(Debug)]
pub struct Projection {
    pub n: usize,
    pub k: usize,
    pub weights: Weights,
    /// `None` where there is none, or all are 0.
    pub bias: Option<Vec<f32>>,
}

/// How the weights are stored.
#[derive(Debug)]
pub enum Weights {
    F32(Floats),
    F16(Halves),
    Quantised(Quantised),
}

/// Codes of 8, 4 or 2 bits, with scales and maybe zero points.
#[derive(Debug)]
pub struct Quantised {
    pub bits: u8,
    /// Elements of k that share a scale; `None`: a row.
    pub block: Option<usize>,
    pub codes: Bytes,
    /// Whether the last-level cache can hold the weights of all our operators in the model.
    pub cached: bool,
    /// `[experts, n]` or `[experts, n, blocks]`.
    pub scales: Floats,
    /// One byte for each scale.
    pub zero_points: Option<Bytes>,
}

/// Rows of x, in the form that the weights want them in.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    Float(&'a [f32]),
    Quantised(&'a Activations),
}

/// Buffers of [`Projection::multiply`].
#[derive(Debug, Default)]
pub struct Buffers {
    expanded: Vec<u8>,
    row: Vec<f32>,
}

impl Projection {
    /// Bytes of one expert: weights, scales and zero points.
    pub fn expert_bytes(&self) -> usize {
        let elements = self.n * self.k;
        match &self.weights {
            Weights::F32(_) => elements * 4,
            Weights::F16(_) => elements * 2,
            Weights::Quantised(weights) => {
                let scales = self.n * blocks(self.k, weights.block);
                let zeros = weights.zero_points.as_ref().map_or(0, |_| scales);
                self.n * row_bytes(weights.bits, self.k, weights.block) + scales * 4 + zeros
            }
        }
    }

    /// Rows of x in the form that the weights want them in: as they are, or quantised into
    /// `quantised`.
    pub fn rows<'a>(
        &self,
        x: &'a [f32],
        precision: Precision,
        kernel: &dyn Kernel,
        quantised: &'a mut Activations,
    ) -> Result<Rows<'a>, NotFinite> {
        let Weights::Quantised(weights) = &self.weights else { return Ok(Rows::Float(x)) };
        let shape = ChunkShape::of_weights(weights.block);
        quantised.quantise(x, self.k, shape, precision, kernel.layout())?;
        Ok(Rows::Quantised(quantised))
    }

    /// Features `features` of `x · Wᵀ + b` of one expert for the rows `columns` of x, into
    /// `out[columns.len()][features.len()]`.
    #[expect(clippy::too_many_arguments, reason = "one flat call on the hot path")]
    pub fn multiply(
        &self,
        kernel: &dyn Kernel,
        expert: usize,
        features: Range<usize>,
        x: Rows<'_>,
        columns: &[u32],
        out: &mut [f32],
        buffers: &mut Buffers,
    ) {
        let elements = self.n * self.k;
        let own = expert * elements..(expert + 1) * elements;
        let row = &mut buffers.row;
        match (&self.weights, x) {
            (Weights::F32(weights), Rows::Float(x)) => {
                let weights = &weights.as_slice()[own];
                let matrix = FloatMatrix::F32 { weights, k: self.k };
                float::matmul(matrix, features.clone(), x, columns, out, row);
            }
            (Weights::F16(weights), Rows::Float(x)) => {
                let weights = &weights.as_slice()[own];
                let matrix = FloatMatrix::F16 { weights, k: self.k };
                float::matmul(matrix, features.clone(), x, columns, out, row);
            }
            (Weights::Quantised(weights), Rows::Quantised(x)) => {
                let matrix = self.matrix(weights, expert);
                let expanded = &mut buffers.expanded;
                matmul(kernel, &matrix, features.clone(), x, columns, out, expanded);
            }
            // `Projection::rows` has prepared them.
            (Weights::F32(_) | Weights::F16(_), Rows::Quantised(_))
            | (Weights::Quantised(_), Rows::Float(_)) => {
                unreachable!("rows were prepared for the other kind of weights")
            }
        }
        if let Some(bias) = &self.bias {
            let bias = &bias[expert * self.n..][features.clone()];
            for out in out.chunks_exact_mut(features.len().max(1)) {
                for (out, bias) in out.iter_mut().zip(bias) {
                    *out += bias;
                }
            }
        }
    }

    fn matrix<'a>(&self, weights: &'a Quantised, expert: usize) -> Matrix<'a> {
        let Quantised { bits, block, codes, cached, scales, zero_points } = weights;
        let code_bytes = self.n * row_bytes(*bits, self.k, *block);
        let scale_count = self.n * blocks(self.k, *block);
        let codes = &codes.as_slice()[expert * code_bytes..][..code_bytes];
        let own = expert * scale_count..(expert + 1) * scale_count;
        let zeros = zero_points.as_ref().map(|zeros| &zeros.as_slice()[own.clone()]);
        let scales = &scales.as_slice()[own];
        Matrix::new(codes, *bits, self.n, self.k, *block, scales, zeros).cached(*cached)
    }
}
