//! The gate: which experts a row goes to, and with what weight.

/// How the weights of the chosen experts come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weighing {
    /// `MoE`: softmax over all experts, then the k most probable; made to sum to 1 if `normalise`.
    SoftmaxOfAll { normalise: bool },
    /// `QMoE`: the k highest logits, then softmax over those k.
    SoftmaxOfChosen,
    /// `QMoE` with `router_weights`: the k highest logits, weighed by other numbers. That is how
    /// DeepSeek's gate is exported: chosen by the biased score, weighed by the unbiased one
    /// (DeepSeek-V3, arXiv 2412.19437, equations 14 to 16).
    Given { normalise: bool },
}

/// A weight at or below which a chosen expert is not run: how a graph asks for fewer than k.
const QMOE_WEIGHT_MIN: f32 = 1e-8;

/// Buffers of [`choose`].
#[derive(Debug, Default)]
pub struct Scratch {
    scores: Vec<f32>,
    chosen: Vec<(u32, f32)>,
}

/// Chooses at most `k` experts for a row by its router `logits` (`[experts]`). `given` are its
/// router weights where [`Weighing::Given`] says so.
///
/// A tie goes to the higher index. Experts whose weight is 0, or too small to matter, are left out:
/// fewer than k, maybe none, come back. Numbers are finite, or minus infinity.
pub fn choose<'a>(
    weighing: Weighing,
    k: usize,
    logits: &[f32],
    given: Option<&[f32]>,
    scratch: &'a mut Scratch,
) -> &'a [(u32, f32)] {
    let Scratch { scores, chosen } = scratch;
    scores.clear();
    scores.extend_from_slice(logits);
    if let Weighing::SoftmaxOfAll { .. } = weighing {
        softmax(scores);
    }
    top_k(scores, k, chosen);
    let weight_min = match weighing {
        Weighing::SoftmaxOfAll { normalise } => {
            if normalise {
                divide_by_sum(chosen);
            }
            0.0
        }
        Weighing::SoftmaxOfChosen => {
            let max = chosen.first().map_or(0.0, |&(_, score)| score);
            for (_, weight) in chosen.iter_mut() {
                *weight = (*weight - max).exp();
            }
            divide_by_sum(chosen);
            QMOE_WEIGHT_MIN
        }
        Weighing::Given { normalise } => {
            for (expert, weight) in chosen.iter_mut() {
                *weight = given.and_then(|given| given.get(*expert as usize)).map_or(0.0, |w| *w);
            }
            if normalise {
                divide_by_sum(chosen);
            }
            QMOE_WEIGHT_MIN
        }
    };
    chosen.retain(|&(_, weight)| weight > weight_min);
    chosen
}

fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - max).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}

/// The k highest scores, highest first, ties to the higher index.
fn top_k(scores: &[f32], k: usize, chosen: &mut Vec<(u32, f32)>) {
    chosen.clear();
    for (expert, &score) in scores.iter().enumerate() {
        // Those already chosen have lower indices, so an equal one goes before them.
        let at = chosen.partition_point(|&(_, other)| other > score);
        if at < k {
            chosen.truncate(k - 1);
            chosen.insert(at, (expert as u32, score));
        }
    }
}

fn divide_by_sum(chosen: &mut [(u32, f32)]) {
    let sum: f32 = chosen.iter().map(|&(_, weight)| weight).sum();
    let inverse = if sum == 0.0 { 0.0 } else { 1.0 / sum };
    for (_, weight) in chosen {
        *weight *= inverse;
    }
}
