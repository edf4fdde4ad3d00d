//! A job cut into parts for threads: each computes a range of output features for all rows.

use std::ops::Range;

use crate::engine::kernel::pool::Pool;

/// Multiply-adds below which a thread is not worth waking (about 10 us of one).
const PART_WORK_MIN: usize = 1 << 18;

/// In how many parts to cut a job of `work` multiply-adds.
pub fn count(pool: &Pool, work: usize) -> usize {
    pool.threads().min(work / PART_WORK_MIN).max(1)
}

/// The features of part `part` of `parts`: whole vectors of the widest kernel; maybe none.
pub fn features_of(part: usize, parts: usize, features: usize) -> Range<usize> {
    let width = features.div_ceil(parts).next_multiple_of(16);
    (part * width).min(features)..((part + 1) * width).min(features)
}

/// Puts a part's columns, `[rows, own.len()]`, into `out`, `[rows, features]`.
pub fn put(columns: &[f32], own: Range<usize>, features: usize, out: &mut [f32]) {
    if own.is_empty() {
        return;
    }
    for (out, columns) in out.chunks_exact_mut(features).zip(columns.chunks_exact(own.len())) {
        out[own.clone()].copy_from_slice(columns);
    }
}
