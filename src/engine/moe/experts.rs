//! A layer of experts: the gate's choices, carried out.
//!
//! Rows are sorted by expert, so that each chosen expert's weights are read once for all of its
//! rows; experts that no row chose are not touched. Work is split over threads by output
//! features, so that no two threads read the same weights and results do not depend on how many
//! there are.

use std::ops::Range;

use super::activation::{Function, SwiGlu};
use super::gate::{self, Weighing};
use super::parts;
use super::projection::{Buffers, Projection, Rows};
use crate::engine::kernel::Kernel;
use crate::engine::kernel::activations::{Activations, NotFinite, Precision};
use crate::engine::kernel::pool::Pool;

/// A parsed layer: `y[t] = sum over chosen e of w[t][e] * (act(x[t] · W1[e]ᵀ + b1[e]) · W2[e]ᵀ +
/// b2[e])`.
#[derive(Debug)]
pub struct Experts {
    /// `MoE` or `QMoE`.
    pub operator: &'static str,
    pub name: String,
    pub experts: usize,
    /// Width of x and y.
    pub hidden: usize,
    /// Width inside an expert.
    pub inter: usize,
    /// Experts for each row, at most.
    pub k: usize,
    pub weighing: Weighing,
    pub gating: Gating,
    pub precision: Precision,
    pub fc1: Projection,
    pub fc2: Projection,
    pub fc3: Option<Projection>,
}

/// How the inner activations come from fc1 (and fc3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gating {
    /// A function of fc1 alone.
    Single(Function),
    /// fc1's row 2i is the gate, 2i + 1 the linear part (`swiglu_fusion` 1).
    Interleaved(SwiGlu),
    /// fc1's first half is the gate, its second the linear part (`swiglu_fusion` 2).
    Halves(SwiGlu),
    /// fc1 is the gate, fc3 the linear part (`swiglu_fusion` 0).
    Split(SwiGlu),
}

/// Buffers of [`Experts::run`], which may serve several layers one after the other.
#[derive(Debug, Default)]
pub struct Workspace {
    gate: gate::Scratch,
    x: Activations,
    hidden: Activations,
    hidden_floats: Vec<f32>,
    pairs: Vec<Pair>,
    /// The row of x of each pair.
    rows: Vec<u32>,
    /// 0, 1, 2 ...: the row of `hidden` of each pair.
    numbers: Vec<u32>,
    groups: Vec<Group>,
    /// Rows that each expert ran for.
    rows_of: Vec<u32>,
    parts: Vec<Part>,
}

/// A row and an expert that it chose.
#[derive(Debug, Clone, Copy)]
struct Pair {
    expert: u32,
    row: u32,
    weight: f32,
}

/// An expert and its pairs.
#[derive(Debug, Clone)]
struct Group {
    expert: usize,
    pairs: Range<usize>,
}

/// What one thread computes: a range of output features.
#[derive(Debug, Default)]
struct Part {
    features: Range<usize>,
    /// `[pairs][features]`: inner activations.
    inner: Vec<f32>,
    /// `[rows][features]`: the layer's output.
    out: Vec<f32>,
    gate: Vec<f32>,
    linear: Vec<f32>,
    buffers: Buffers,
}

/// Rows that are computed at a time; more are done in several passes, so that buffers stay small.
const ROWS_MAX: usize = 512;

/// Inner activations of one pass, of all its rows and their experts: 16 MiB, unless one row alone
/// has more.
const INNER_FLOATS_MAX: usize = 4 << 20;

impl Experts {
    /// Weights, scales and zero points of one expert, in bytes.
    pub fn expert_bytes(&self) -> usize {
        let fc3 = self.fc3.as_ref().map_or(0, Projection::expert_bytes);
        self.fc1.expert_bytes() + self.fc2.expert_bytes() + fc3
    }

    /// Computes `out[rows, hidden]` from `x[rows, hidden]`, `logits[rows, experts]` and, where
    /// the node has them, router weights of the same shape, with at most `k` experts a row. `ran`
    /// becomes the experts that ran, ascending, with the number of rows each ran for.
    ///
    /// Allocates nothing once its buffers have grown to what the model and its inputs need.
    #[expect(clippy::too_many_arguments, reason = "the operator's inputs, one each")]
    pub fn run(
        &self,
        kernel: &dyn Kernel,
        pool: &Pool,
        workspace: &mut Workspace,
        x: &[f32],
        logits: &[f32],
        router_weights: Option<&[f32]>,
        k: usize,
        out: &mut [f32],
        ran: &mut Vec<(u32, u32)>,
    ) -> Result<(), NotFinite> {
        workspace.rows_of.clear();
        workspace.rows_of.resize(self.experts, 0);
        let rows_max = (INNER_FLOATS_MAX / (k.max(1) * self.inter)).clamp(1, ROWS_MAX);
        let passes = x.chunks(rows_max * self.hidden).zip(out.chunks_mut(rows_max * self.hidden));
        for (pass, (x, out)) in passes.enumerate() {
            let own = pass * rows_max * self.experts;
            let logits = &logits[own..];
            let router_weights = router_weights.map(|weights| &weights[own..]);
            let in_all = |NotFinite { row }| NotFinite { row: pass * rows_max + row };
            self.choose(workspace, x.len() / self.hidden, logits, router_weights, k)
                .map_err(in_all)?;
            for group in &workspace.groups {
                workspace.rows_of[group.expert] += group.pairs.len() as u32;
            }
            self.pass(kernel, pool, workspace, x, out).map_err(in_all)?;
        }
        let rows_of = (0..).zip(&workspace.rows_of).map(|(expert, rows)| (expert, *rows));
        ran.clear();
        ran.extend(rows_of.filter(|(_, rows)| *rows > 0));
        Ok(())
    }

    /// Fills the workspace's pairs and groups. Fails on a router's number that no choice can be
    /// made by; minus infinity is how a graph forbids an expert.
    fn choose(
        &self,
        workspace: &mut Workspace,
        rows: usize,
        logits: &[f32],
        router_weights: Option<&[f32]>,
        k: usize,
    ) -> Result<(), NotFinite> {
        let Workspace { gate, pairs, rows: row_of, numbers, groups, .. } = workspace;
        pairs.clear();
        for row in 0..rows {
            let own = row * self.experts..(row + 1) * self.experts;
            let given = router_weights.map(|weights| &weights[own.clone()]);
            let is_bad = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
            let is_wrong = |weight: &f32| !weight.is_finite();
            if logits[own.clone()].iter().any(is_bad)
                || given.iter().copied().flatten().any(is_wrong)
            {
                return Err(NotFinite { row });
            }
            let chosen = gate::choose(self.weighing, k, &logits[own], given, gate);
            let row = row as u32;
            pairs.extend(chosen.iter().map(|&(expert, weight)| Pair { expert, row, weight }));
        }
        // Unstable, but no two pairs are equal: it allocates nothing.
        pairs.sort_unstable_by_key(|pair| (pair.expert, pair.row));
        row_of.clear();
        row_of.extend(pairs.iter().map(|pair| pair.row));
        numbers.clear();
        numbers.extend(0..pairs.len() as u32);
        groups.clear();
        for (i, pair) in pairs.iter().enumerate() {
            match groups.last_mut() {
                Some(group) if group.expert == pair.expert as usize => group.pairs.end = i + 1,
                _ => groups.push(Group { expert: pair.expert as usize, pairs: i..i + 1 }),
            }
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
        let Workspace {
            x: quantised,
            hidden,
            hidden_floats,
            pairs,
            rows,
            numbers,
            groups,
            parts: all,
            ..
        } = workspace;
        let threads = parts::count(pool, groups.len() * self.inter * self.hidden * 2);
        all.resize_with(all.len().max(threads), Part::default);
        let all = &mut all[..threads];

        let x = self.fc1.rows(x, self.precision, kernel, quantised)?;
        split(all, self.inter);
        pool.each(all, |_, part| self.inner(kernel, part, groups, rows, x, pairs.len()));

        gather(all, pairs.len(), self.inter, hidden_floats);
        let inner = self.fc2.rows(hidden_floats, self.precision, kernel, hidden);
        let inner = inner.map_err(|NotFinite { row }| NotFinite {
            row: pairs.get(row).map_or(0, |pair| pair.row as usize),
        })?;
        split(all, self.hidden);
        let row_count = out.len() / self.hidden;
        pool.each(all, |_, part| {
            self.outer(kernel, part, groups, pairs, numbers, inner, row_count);
        });
        for part in all {
            parts::put(&part.out, part.features.clone(), self.hidden, out);
        }
        Ok(())
    }

    /// Inner activations of the part's features, for all pairs.
    fn inner(
        &self,
        kernel: &dyn Kernel,
        part: &mut Part,
        groups: &[Group],
        rows: &[u32],
        x: Rows<'_>,
        pairs: usize,
    ) {
        let Part { features, inner: out, gate, linear, buffers, .. } = part;
        let (features, width) = (features.clone(), features.len());
        out.resize(pairs * width, 0.0);
        if width == 0 {
            return;
        }
        for Group { expert, pairs } in groups {
            let rows = &rows[pairs.clone()];
            let out = &mut out[pairs.start * width..pairs.end * width];
            let mut project = |projection: &Projection, features: Range<usize>, out: &mut [f32]| {
                projection.multiply(kernel, *expert, features, x, rows, out, buffers);
            };
            match self.gating {
                Gating::Single(function) => {
                    project(&self.fc1, features.clone(), out);
                    function.apply(out);
                }
                Gating::Interleaved(swiglu) => {
                    let gate = grow(gate, rows.len() * width * 2);
                    project(&self.fc1, features.start * 2..features.end * 2, gate);
                    swiglu.interleaved(gate, out);
                }
                Gating::Halves(swiglu) => {
                    let gate = grow(gate, rows.len() * width);
                    let linear = grow(linear, rows.len() * width);
                    project(&self.fc1, features.clone(), gate);
                    let half = self.inter;
                    project(&self.fc1, features.start + half..features.end + half, linear);
                    swiglu.split(gate, linear, out);
                }
                Gating::Split(swiglu) => {
                    let gate = grow(gate, rows.len() * width);
                    let linear = grow(linear, rows.len() * width);
                    project(&self.fc1, features.clone(), gate);
                    if let Some(fc3) = &self.fc3 {
                        project(fc3, features.clone(), linear);
                    }
                    swiglu.split(gate, linear, out);
                }
            }
        }
    }

    /// The part's output features, weighed and summed, for all rows.
    #[expect(clippy::too_many_arguments, reason = "one flat call on the hot path")]
    fn outer(
        &self,
        kernel: &dyn Kernel,
        part: &mut Part,
        groups: &[Group],
        pairs: &[Pair],
        numbers: &[u32],
        inner: Rows<'_>,
        rows: usize,
    ) {
        let Part { features, out, gate: sums, buffers, .. } = part;
        let width = features.len();
        out.clear();
        out.resize(rows * width, 0.0);
        if width == 0 {
            return;
        }
        for Group { expert, pairs: own } in groups {
            let numbers = &numbers[own.clone()];
            let sums = grow(sums, numbers.len() * width);
            self.fc2.multiply(kernel, *expert, features.clone(), inner, numbers, sums, buffers);
            for (pair, sums) in pairs[own.clone()].iter().zip(sums.chunks_exact(width)) {
                let out = &mut out[pair.row as usize * width..][..width];
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out += pair.weight * sum;
                }
            }
        }
    }
}

/// The first `len` of a buffer that only grows, so that it is filled with zeros once and not
/// whenever a longer use follows a shorter one.
fn grow(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// Gives each part its share of `features`.
fn split(parts: &mut [Part], features: usize) {
    let count = parts.len();
    for (i, part) in parts.iter_mut().enumerate() {
        part.features = parts::features_of(i, count, features);
    }
}

/// Puts the parts' inner activations side by side: `[rows, features]`.
fn gather(parts: &mut [Part], rows: usize, features: usize, out: &mut Vec<f32>) {
    if let [part] = parts {
        std::mem::swap(&mut part.inner, out);
        return;
    }
    out.resize(rows * features, 0.0);
    for part in parts {
        parts::put(&part.inner, part.features.clone(), features, out);
    }
}
