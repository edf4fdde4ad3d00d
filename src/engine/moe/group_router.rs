//! `com.microsoft.MoEGroupRouter`: DeepSeek-V3's gate as one operator.
//!
//! Scores are sigmoids of the logits. Groups of experts are ranked by the sum of their best
//! `group_topk` biased scores, `topk_group` of them kept, and of their experts the `top_k` with
//! the highest biased scores chosen (arXiv 2412.19437, section 2.1.2). The output is
//! `log(max(score, 1e-20))` for those and a sentinel for the others: what `QMoE`'s softmax over
//! the chosen turns into `score / sum of scores`. Ties go to the lower index, unlike `QMoE`'s.

use super::activation::sigmoid;
use super::projection::{Buffers, Projection, Rows};
use crate::engine::kernel::Kernel;
use crate::engine::kernel::activations::NotFinite;

/// A parsed router.
#[derive(Debug)]
pub struct GroupRouter {
    pub name: String,
    pub bias: Vec<f32>,
    /// From activations to logits, where the operator does that too.
    pub projection: Option<Projection>,
    pub top_k: usize,
    pub groups: usize,
    pub top_groups: usize,
    /// Experts of a group whose scores are summed.
    pub group_top_k: usize,
    pub sentinel: f32,
}

/// Buffers of [`GroupRouter`].
#[derive(Debug, Default)]
pub struct Workspace {
    rows: Vec<u32>,
    projection: Buffers,
    logits: Vec<f32>,
    scores: Vec<f32>,
    biased: Vec<f32>,
    /// The score of each group.
    rank: Vec<f32>,
    best: Vec<f32>,
    kept: Vec<usize>,
    order: Vec<usize>,
}

impl GroupRouter {
    /// Width of the operator's first input.
    pub fn width(&self) -> usize {
        self.projection.as_ref().map_or(self.bias.len(), |projection| projection.k)
    }

    /// Logits `[rows, experts]` of the operator's first input.
    fn logits<'a>(
        &self,
        kernel: &dyn Kernel,
        rows: &mut Vec<u32>,
        buffers: &mut Buffers,
        logits: &'a mut Vec<f32>,
        x: &'a [f32],
    ) -> &'a [f32] {
        let Some(projection) = &self.projection else { return x };
        rows.clear();
        rows.extend(0..(x.len() / projection.k) as u32);
        logits.resize(rows.len() * projection.n, 0.0);
        let (features, x) = (0..projection.n, Rows::Float(x));
        projection.multiply(kernel, 0, features, x, rows, logits, buffers);
        logits
    }

    /// `out[rows, experts]` of `x`: log scores of the chosen, the sentinel elsewhere. Fails on a
    /// logit that is a NaN.
    pub fn route(
        &self,
        kernel: &dyn Kernel,
        workspace: &mut Workspace,
        x: &[f32],
        out: &mut [f32],
    ) -> Result<(), NotFinite> {
        let experts = self.bias.len();
        let size = experts / self.groups;
        let Workspace { rows, projection, logits, scores, biased, rank, best, kept, order } =
            workspace;
        let logits = self.logits(kernel, rows, projection, logits, x);
        scores.resize(experts, 0.0);
        biased.resize(experts, 0.0);
        let rows = logits.chunks_exact(experts).zip(out.chunks_exact_mut(experts));
        for (row, (logits, out)) in rows.enumerate() {
            if logits.iter().any(|logit| logit.is_nan()) {
                return Err(NotFinite { row });
            }
            self.score(logits, scores, biased);
            kept.clear();
            kept.extend(0..self.groups);
            if self.groups > 1 {
                rank.clear();
                rank.extend(biased.chunks_exact(size).map(|group| self.group_score(best, group)));
                kept.sort_unstable_by(|&a, &b| rank[b].total_cmp(&rank[a]).then(a.cmp(&b)));
                kept.truncate(self.top_groups);
                kept.sort_unstable();
            }
            order.clear();
            order.extend(kept.iter().flat_map(|group| group * size..(group + 1) * size));
            // The lower index goes first among equals.
            order.sort_unstable_by(|&a, &b| biased[b].total_cmp(&biased[a]).then(a.cmp(&b)));
            out.fill(self.sentinel);
            for &expert in order.iter().take(self.top_k) {
                out[expert] = scores[expert].max(1e-20).ln();
            }
        }
        Ok(())
    }

    /// Of `x`, `selection[rows, experts]`: biased scores; `weights[rows, experts]`: scores.
    pub fn full_scores(
        &self,
        kernel: &dyn Kernel,
        workspace: &mut Workspace,
        x: &[f32],
        selection: &mut [f32],
        weights: &mut [f32],
    ) {
        let experts = self.bias.len();
        let Workspace { rows, projection, logits, .. } = workspace;
        let logits = self.logits(kernel, rows, projection, logits, x);
        let rows = logits.chunks_exact(experts);
        let out = selection.chunks_exact_mut(experts).zip(weights.chunks_exact_mut(experts));
        for (logits, (selection, weights)) in rows.zip(out) {
            self.score(logits, weights, selection);
        }
    }

    fn score(&self, logits: &[f32], scores: &mut [f32], biased: &mut [f32]) {
        for (((score, biased), &logit), bias) in
            scores.iter_mut().zip(biased).zip(logits).zip(&self.bias)
        {
            *score = sigmoid(false, logit);
            *biased = *score + bias;
        }
    }

    fn group_score(&self, best: &mut Vec<f32>, group: &[f32]) -> f32 {
        best.clear();
        best.extend_from_slice(group);
        best.sort_unstable_by(|a, b| b.total_cmp(a));
        best.iter().take(self.group_top_k).sum()
    }
}
