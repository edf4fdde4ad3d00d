//! `com.microsoft.MatMulNBits`: a dense linear layer with quantised weights.

use super::parts;
use super::projection::{Buffers, Projection};
use crate::engine::kernel::Kernel;
use crate::engine::kernel::activations::{Activations, NotFinite, Precision};
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
    out: Vec<f32>,
    buffers: Buffers,
}

/// Rows that are computed at a time, so that buffers stay small.
const ROWS_MAX: usize = 512;

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
        let Projection { n, k, .. } = self.projection;
        for (pass, (x, out)) in x.chunks(ROWS_MAX * k).zip(out.chunks_mut(ROWS_MAX * n)).enumerate()
        {
            self.pass(kernel, pool, workspace, x, out)
                .map_err(|NotFinite { row }| NotFinite { row: pass * ROWS_MAX + row })?;
        }
        Ok(())
    }

    fn pass(
        &self,
        kernel: &dyn Kernel,
        pool: &Pool,
        workspace: &mut Workspace,
        x: &[f32],
        out: &mut [f32],
    ) -> Result<(), NotFinite> {
        let Projection { n, k, .. } = self.projection;
        let Workspace { x: quantised, columns, parts } = workspace;
        let rows = x.len() / k;
        let x = self.projection.rows(x, self.precision, kernel, quantised)?;
        columns.clear();
        columns.extend(0..rows as u32);
        let threads = parts::count(pool, n * k * rows.clamp(1, 8));
        parts.resize_with(parts.len().max(threads), Part::default);
        if threads == 1 {
            let buffers = &mut parts[0].buffers;
            self.projection.multiply(kernel, 0, 0..n, x, columns, out, buffers);
            return Ok(());
        }
        let parts = &mut parts[..threads];
        pool.each(parts, |i, Part { out, buffers }| {
            let features = parts::features_of(i, threads, n);
            out.resize(rows * features.len(), 0.0);
            self.projection.multiply(kernel, 0, features, x, columns, out, buffers);
        });
        for (i, part) in parts.iter().enumerate() {
            parts::put(&part.out, parts::features_of(i, threads, n), n, out);
        }
        Ok(())
    }
}
