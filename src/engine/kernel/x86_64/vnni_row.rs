//! AVX-512 VNNI for one row of x and weights of 8 bits with scales by block.
//!
//! With one row of x, turning the weights ([`super::vnni_turned`]) would take longer than their
//! products. Here the lanes are k: two chunks of a weight row meet those of x in one product, and
//! their factors, computed for sixteen chunks at a time, are permuted to their lanes.

use std::arch::x86_64::*;

use super::avx2::PREFETCH_BYTES;
use super::few::lanes_sums;
use crate::engine::kernel::panel::{Panel, Scales, Zeros};

/// Weight rows of a tile.
const ROWS: usize = 8;
/// Chunks whose factors are computed at a time.
const GROUP: usize = 16;
/// How far beyond the rows that come next those are that the second-level cache is asked for. The
/// first has too few slots for lines that are on their way from memory.
const FAR_BYTES: usize = 8192;

/// Multiplies the first rows of the panel, as many as make whole tiles; returns how many. None
/// unless weights have 8 bits and the same zero point, and codes of x one digit.
///
/// # Safety
/// The CPU has these instructions; `panel.check()` was called; chunks are of 32, and there is one
/// row of x.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
pub unsafe fn multiply(panel: &mut Panel<'_>) -> usize {
    let Scales::Block { scales, blocks, chunks } = panel.scales else { return 0 };
    let Zeros::Same(zero) = panel.zeros else { return 0 };
    if panel.bits != 8 || panel.x.low_digits() != 0 || !chunks.is_power_of_two() {
        return 0;
    }
    let mut scale_of = [0i32; GROUP];
    for (c, scale) in scale_of.iter_mut().enumerate() {
        *scale = (c / chunks) as i32;
    }
    let weights = Weights {
        codes: panel.weights.as_ptr(),
        end: panel.weights.as_ptr_range().end.wrapping_sub(FAR_BYTES),
        stride: panel.stride,
        scales: scales.as_ptr(),
        blocks,
        block_bits: chunks.trailing_zeros(),
        // SAFETY: a load from an array of the vector's size.
        scale_of: unsafe { _mm512_loadu_si512(scale_of.as_ptr().cast()) },
        zero: _mm512_set1_ps(zero),
    };
    // SAFETY: the caller's conditions.
    unsafe { tiles(panel, weights) };
    panel.rows / ROWS * ROWS
}

/// Where a tile's rows begin, and what is the same for all.
#[derive(Clone, Copy)]
struct Weights {
    codes: *const u8,
    /// Where lines that are `FAR_BYTES` further are none of this matrix.
    end: *const u8,
    stride: usize,
    scales: *const f32,
    blocks: usize,
    /// Chunks that share a scale: two to the power of this.
    block_bits: u32,
    /// Which of a group's scales each of its chunks has.
    scale_of: __m512i,
    zero: __m512,
}

/// Where the codes, the scales and the sums of the row of x begin.
struct Column {
    codes: *const u8,
    scales: *const f32,
    sums: *const f32,
    chunks: usize,
}

#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
unsafe fn tiles(panel: &mut Panel<'_>, mut weights: Weights) {
    let row = panel.columns[0] as usize;
    let column = Column {
        codes: panel.x.codes(row),
        scales: panel.x.scales(row).as_ptr(),
        sums: panel.x.sums(row).as_ptr(),
        chunks: panel.x.chunks(),
    };
    let mut out = panel.out.as_mut_ptr();
    for _ in 0..panel.rows / ROWS {
        // SAFETY: the rows are inside the panel, and so are their scales, sums and products.
        unsafe { _mm256_storeu_ps(out, tile(&weights, &column)) };
        out = out.wrapping_add(ROWS);
        weights.codes = weights.codes.wrapping_add(ROWS * panel.stride);
        weights.scales = weights.scales.wrapping_add(ROWS * weights.blocks);
    }
}

/// `ROWS` weight rows times the row of x.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn tile(weights: &Weights, column: &Column) -> __m256 {
    let mut sums = [_mm512_setzero_ps(); ROWS];
    let mut first = 0;
    // SAFETY: rows and column are as long as `check` has found them. Wrapping arithmetic: an
    // overflow check in the inner loop costs as much as its work.
    unsafe {
        while first < column.chunks {
            let count = GROUP.min(column.chunks.wrapping_sub(first));
            let own = lanes(count);
            let x_scales = _mm512_maskz_loadu_ps(own, column.scales.wrapping_add(first));
            let x_sums = _mm512_maskz_loadu_ps(own, column.sums.wrapping_add(first));
            let off = _mm512_mul_ps(x_sums, weights.zero);
            let block = first >> weights.block_bits;
            let last = first.wrapping_add(count).wrapping_sub(1) >> weights.block_bits;
            let blocks = lanes(last.wrapping_sub(block).wrapping_add(1));
            let mut factors = [_mm512_setzero_ps(); ROWS];
            for j in 0..ROWS {
                let at = weights.scales.wrapping_add(j.wrapping_mul(weights.blocks));
                let mut scales = _mm512_maskz_loadu_ps(blocks, at.wrapping_add(block));
                if weights.block_bits > 0 {
                    scales = _mm512_permutexvar_ps(weights.scale_of, scales);
                }
                factors[j] = _mm512_mul_ps(scales, x_scales);
                sums[j] = _mm512_fnmadd_ps(scales, off, sums[j]);
            }
            let mut of_lanes = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
            let mut codes = weights.codes.wrapping_add(first.wrapping_mul(32));
            let mut x = column.codes.wrapping_add(first.wrapping_mul(32));
            // Rows lie one behind the other: to ask for as many bytes as are read, one distance
            // ahead, covers the rows that follow.
            let mut ahead = codes.wrapping_add(first.wrapping_mul(32 * (ROWS - 1)));
            ahead = ahead.wrapping_add(weights.stride.wrapping_mul(ROWS).max(PREFETCH_BYTES));
            for _ in 0..count / 2 {
                for line in 0..ROWS {
                    let line = ahead.wrapping_add(line * 64);
                    _mm_prefetch::<_MM_HINT_T0>(line.cast());
                    if line < weights.end {
                        _mm_prefetch::<_MM_HINT_T1>(line.wrapping_add(FAR_BYTES).cast());
                    }
                }
                pair::<true>(weights, codes, x, of_lanes, &factors, &mut sums);
                ahead = ahead.wrapping_add(ROWS * 64);
                codes = codes.wrapping_add(64);
                x = x.wrapping_add(64);
                of_lanes = _mm512_add_epi32(of_lanes, _mm512_set1_epi32(2));
            }
            if count % 2 == 1 {
                pair::<false>(weights, codes, x, of_lanes, &factors, &mut sums);
            }
            first = first.wrapping_add(GROUP);
        }
    }
    let mut halves = [_mm256_setzero_ps(); ROWS];
    for j in 0..ROWS {
        let low = _mm512_castps512_ps256(sums[j]);
        let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(sums[j]));
        halves[j] = _mm256_add_ps(low, _mm256_castpd_ps(high));
    }
    let [a, b, c, d, e, f, g, h] = halves;
    _mm256_set_m128(lanes_sums([e, f, g, h]), lanes_sums([a, b, c, d]))
}

/// Adds two chunks of the rows, or one, to their sums. `of_lanes`: which factor each lane has.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn pair<const BOTH: bool>(
    weights: &Weights,
    codes: *const u8,
    x: *const u8,
    of_lanes: __m512i,
    factors: &[__m512; ROWS],
    sums: &mut [__m512; ROWS],
) {
    // SAFETY: the caller vouches for the chunks.
    unsafe {
        let x = load::<BOTH>(x);
        for j in 0..ROWS {
            let row = load::<BOTH>(codes.wrapping_add(j.wrapping_mul(weights.stride)));
            let dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), row, x);
            let factor = _mm512_permutexvar_ps(of_lanes, factors[j]);
            sums[j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), factor, sums[j]);
        }
    }
}

/// Two chunks, or one with zeros above.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn load<const BOTH: bool>(codes: *const u8) -> __m512i {
    // SAFETY: the caller vouches for the chunks.
    unsafe {
        if BOTH {
            _mm512_loadu_si512(codes.cast())
        } else {
            _mm512_zextsi256_si512(_mm256_loadu_si256(codes.cast()))
        }
    }
}

/// The first `count` of sixteen lanes.
#[inline(always)]
fn lanes(count: usize) -> __mmask16 {
    ((1u32 << count.min(GROUP)).wrapping_sub(1)) as __mmask16
}
