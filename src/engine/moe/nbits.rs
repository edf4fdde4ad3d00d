//! `com.microsoft.MatMulNBits`: a dense linear layer with quantised weights.

use super::projection::{Buffers, Projection, Rows, Weights};
use crate::engine::kernel::Kernel;
use crate::engine::kernel::activations::{Activations, ChunkShape, NotFinite, Precision};
use crate::engine::kernel::pool::Pool;

/// A parsed layer: `y = x · Wᵀ + b`.
#[derive(Debug)]
pub struct MatMulNBits {
    pub name: String,
    pub precision: Precision,
    /// One expert.
    pub projection: Projection,
}

/// Buffers of [`MatMulNBits::run`].
#[derive(Debug, Default)]
pub struct Workspace {
    x: Activations,
    columns: Vec<u32>,
    parts: Vec<Part>,
}

#[derive(Debug, Default)]
struct Part {
    first: usize,
    out: Vec<f32>,
    buffers: Buffers,
}

impl MatMulNBits {
    /// `out[rows, n]` of `x[rows, k]`.
    pub fn run(
        &self,
        kernel: &dyn Kernel,
        pool: &Pool,
        workspace: &mut Workspace,
        x: &[f32],
        out: &mut [f32],
    ) -> Result<(), NotFinite> {
        let Projection { n, k, ref weights, .. } = self.projection;
        let Workspace { x: quantised, columns, parts } = workspace;
        let block = match weights {
            Weights::Quantised(weights) => weights.block,
            Weights::F32(_) | Weights::F16(_) => None,
        };
        quantised.quantise(x, k, ChunkShape::of_weights(block), self.precision, kernel.layout())?;
        let rows = x.len() / k;
        columns.clear();
        columns.extend(0..rows as u32);
        let threads = super::experts::parts(pool, n * k * rows.clamp(1, 8));
        if threads == 1 {
            parts.resize_with(parts.len().max(1), Part::default);
            let buffers = &mut parts[0].buffers;
            let x = Rows::Quantised(quantised);
            self.projection.multiply(kernel, 0, 0..n, x, columns, out, buffers);
            return Ok(());
        }
        let width = super::experts::part_width(n, threads);
        parts.resize_with(threads, Part::default);
        for (i, part) in parts.iter_mut().enumerate() {
            part.first = (i * width).min(n);
        }
        pool.each(parts, |_, part| {
            let features = part.first..(part.first + width).min(n);
            part.out.resize(rows * features.len(), 0.0);
            let x = Rows::Quantised(quantised);
            let (out, buffers) = (&mut part.out, &mut part.buffers);
            self.projection.multiply(kernel, 0, features, x, columns, out, buffers);
        });
        for part in parts {
            let width = ((part.first + width).min(n)) - part.first;
            for (out, sums) in out.chunks_exact_mut(n).zip(part.out.chunks_exact(width.max(1))) {
                out[part.first..part.first + width].copy_from_slice(sums);
            }
        }
        Ok(())
    }
}
