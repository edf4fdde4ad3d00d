//! AVX-512 VNNI for one to four rows of x and weights of 8 bits with scales by block.
//!
//! The turning of [`super::vnni_turned`], whose lanes are output features, outweighs the products
//! of so few rows; where lanes are k, as in [`super::vnni`], every product needs a conversion and a
//! factor of its own. Here weight rows are turned four at a time, within the quarters of vectors,
//! which takes a third of the shuffles: each lane of a quarter is another weight row, each quarter
//! another piece of k. Two chunks of four rows share a conversion and a factor. The codes of x are
//! laid out for that once.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::avx2::PREFETCH_BYTES;
use super::vnni_turned::fours;
use crate::engine::kernel::panel::{Panel, Scales, Zeros};

/// Rows of x.
pub const COLUMNS_MAX: usize = 4;
/// Chunks whose scales are loaded together: half a vector.
const GROUP: usize = 8;
/// Pairs of chunks of all rows of x. They take 18 KiB and must stay in the first-level cache,
/// beside weights that pass through it: with more, [`super::vnni_turned`] is faster.
const PAIRS_MAX: usize = 48;
/// How far beyond the rows that come next those are that the second-level cache is asked for. The
/// first has too few slots for lines that are on their way from memory.
const FAR_BYTES: usize = 8192;
/// Rows from those whose scales are read to those whose scales are asked for.
const SCALES_AHEAD_ROWS: usize = 16;

/// Two chunks of a row of x.
#[derive(Clone, Copy)]
struct Pair {
    /// In vector `i`, all lanes of quarter `q` are the four codes from `4 * (4 * q + i)` on.
    codes: [__m512i; 4],
    /// What the zero point of the weights adds to the integer sum of each lane.
    off: __m512i,
    /// The scale of each lane's chunk.
    scale: __m512,
}

/// Multiplies the first rows of the panel, as many as make whole fours; returns how many. None
/// unless [`Weights::of`] has them and x is not too long.
///
/// # Safety
/// The CPU has these instructions; `panel.check()` was called; chunks are of 32, and there are one
/// to `COLUMNS_MAX` rows of x.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
pub unsafe fn multiply(panel: &mut Panel<'_>) -> usize {
    let Some(weights) = Weights::of(panel) else { return 0 };
    let pairs = panel.x.chunks().div_ceil(2) * panel.columns.len();
    if panel.rows < 4 || pairs > PAIRS_MAX {
        return 0;
    }
    // Two fours of weight rows share what is read of x. But memory is read fastest in order, and
    // the fewer rows a tile has, the nearer to that it is; with four rows of x, it is no longer
    // what takes the time.
    // SAFETY: the caller's conditions.
    unsafe {
        match (panel.columns.len(), panel.cached) {
            (1, false) => tiles::<1, 1>(panel, weights),
            (1, true) => tiles::<1, 2>(panel, weights),
            (2, false) => tiles::<2, 1>(panel, weights),
            (2, true) => tiles::<2, 2>(panel, weights),
            (3, false) => tiles::<3, 1>(panel, weights),
            (3, true) => tiles::<3, 2>(panel, weights),
            _ => tiles::<COLUMNS_MAX, 2>(panel, weights),
        }
    }
}

/// Where a tile's rows begin, and what is the same for all.
struct Weights {
    codes: *const u8,
    /// Where lines that are `FAR_BYTES` further are none of this matrix; none are asked for where
    /// weights come from a cache.
    end: *const u8,
    stride: usize,
    scales: *const f32,
    blocks: usize,
    /// Chunks that share a scale: two to the power of this.
    block_bits: u32,
    /// For each pair of chunks of a group, where in [`scales`] those of its lanes are.
    scale_of: [__m512i; GROUP / 2],
    zero: u8,
}

impl Weights {
    /// Those of a panel whose weights have 8 bits, a byte as the zero point of all and scales by
    /// block, and whose codes of x have one digit.
    #[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
    fn of(panel: &Panel<'_>) -> Option<Self> {
        let Scales::Block { scales, blocks, chunks } = panel.scales else { return None };
        let Zeros::Same(any_zero) = panel.zeros else { return None };
        let zero = any_zero as u8;
        if f32::from(zero) != any_zero {
            return None;
        }
        if panel.bits != 8 || panel.x.low_digits() != 0 || !chunks.is_power_of_two() {
            return None;
        }
        let block_bits = chunks.trailing_zeros();
        let second = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
        let row = _mm512_setr_epi32(0, 8, 16, 24, 0, 8, 16, 24, 0, 8, 16, 24, 0, 8, 16, 24);
        let mut scale_of = [row; GROUP / 2];
        for p in 0..GROUP / 2 {
            let chunk = _mm512_add_epi32(second, _mm512_set1_epi32(2 * p as i32));
            let block = _mm512_srlv_epi32(chunk, _mm512_set1_epi32(block_bits as i32));
            scale_of[p] = _mm512_add_epi32(row, block);
        }
        Some(Self {
            codes: panel.weights.as_ptr(),
            end: if panel.cached {
                std::ptr::null()
            } else {
                panel.weights.as_ptr_range().end.wrapping_sub(FAR_BYTES)
            },
            stride: panel.stride,
            scales: scales.as_ptr(),
            blocks,
            block_bits,
            scale_of,
            zero,
        })
    }

    /// The tile after this one.
    fn advance(&mut self, rows: usize) {
        self.codes = self.codes.wrapping_add(rows * self.stride);
        self.scales = self.scales.wrapping_add(rows * self.blocks);
    }

    /// What a tile asks for: rows lie one behind the other, so as many bytes as are read, one
    /// distance ahead, cover the rows that follow.
    fn ahead(&self, rows: usize) -> Ahead {
        let distance = self.stride.wrapping_mul(rows).max(PREFETCH_BYTES);
        let scales = self.blocks.wrapping_mul(SCALES_AHEAD_ROWS);
        Ahead {
            codes: self.codes.wrapping_add(distance),
            scales: self.scales.wrapping_add(scales).cast(),
        }
    }

    /// Asks for as many bytes as two chunks of a tile's rows have, and moves on.
    #[inline(always)]
    fn ask<const FOURS: usize>(&self, ahead: &mut Ahead) {
        let rows = 4 * FOURS;
        // SAFETY: any address may be asked for.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.scales.cast()) };
        for line in 0..rows {
            // SAFETY: the same.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.codes.wrapping_add(line * 64).cast()) };
        }
        if ahead.codes < self.end {
            let far = ahead.codes.wrapping_add(FAR_BYTES);
            for line in 0..rows {
                // SAFETY: the same.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(far.wrapping_add(line * 64).cast()) };
            }
        }
        ahead.codes = ahead.codes.wrapping_add(rows * 64);
        ahead.scales = ahead.scales.wrapping_add((rows * 8) >> self.block_bits);
    }
}

/// What will be asked for next.
struct Ahead {
    codes: *const u8,
    scales: *const u8,
}

/// As many weight rows as make whole fours, `FOURS` fours at a time; returns how many rows.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
unsafe fn tiles<const M: usize, const FOURS: usize>(
    panel: &mut Panel<'_>,
    mut weights: Weights,
) -> usize {
    let chunks = panel.x.chunks();
    // `[pairs of chunks][M]`
    let mut x = [const { MaybeUninit::<Pair>::uninit() }; PAIRS_MAX];
    for (m, &row) in panel.columns.iter().enumerate() {
        let (codes, scales) = (panel.x.codes(row as usize), panel.x.scales(row as usize));
        for (c, scales) in (0..chunks).step_by(2).zip(scales.chunks(2)) {
            // SAFETY: chunk c is one of x's, and if there are two scales, the next one is, too.
            x[c / 2 * M + m].write(unsafe { laid_out(codes.add(32 * c), scales, weights.zero) });
        }
    }
    let x = x.as_ptr().cast::<[Pair; M]>();
    let whole = panel.rows / 4 * 4;
    let mut out = panel.out.as_mut_ptr();
    for _ in 0..whole / (4 * FOURS) {
        // SAFETY: the rows are inside the panel, and so are their scales and products; x has been
        // written.
        unsafe { tile::<M, FOURS>(&weights, x, chunks, out, panel.out_stride) };
        out = out.wrapping_add(4 * FOURS);
        weights.advance(4 * FOURS);
    }
    if !whole.is_multiple_of(4 * FOURS) {
        // SAFETY: the same. `FOURS` is two at most.
        unsafe { tile::<M, 1>(&weights, x, chunks, out, panel.out_stride) };
    }
    whole
}

/// Multiplies `4 * FOURS` weight rows with `M` rows of x.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn tile<const M: usize, const FOURS: usize>(
    weights: &Weights,
    x: *const [Pair; M],
    chunks: usize,
    out: *mut f32,
    out_stride: usize,
) {
    // SAFETY: the caller's conditions.
    unsafe {
        let sums = tile_sums::<M, FOURS>(weights, x, chunks);
        for m in 0..M {
            let out = out.wrapping_add(m.wrapping_mul(out_stride));
            for (four, &sums) in sums[m].iter().enumerate() {
                _mm_storeu_ps(out.wrapping_add(4 * four), quarters_sum(sums));
            }
        }
    }
}

/// Two chunks of a row of x, or one if there is one scale.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
unsafe fn laid_out(codes: *const u8, scales: &[f32], zero: u8) -> Pair {
    // SAFETY: the caller vouches for the chunks.
    let (x, second) = unsafe {
        match *scales {
            [_, second] => (load::<true>(codes), second),
            _ => (load::<false>(codes), 0.0),
        }
    };
    let codes = [
        _mm512_shuffle_epi32::<0x00>(x),
        _mm512_shuffle_epi32::<0x55>(x),
        _mm512_shuffle_epi32::<0xaa>(x),
        _mm512_shuffle_epi32::<0xff>(x),
    ];
    let mut zeros = _mm512_setzero_si512();
    for codes in codes {
        zeros = _mm512_dpbusd_epi32(zeros, _mm512_set1_epi8(zero as i8), codes);
    }
    let off = _mm512_sub_epi32(_mm512_setzero_si512(), zeros);
    let (first, second) = (_mm512_set1_ps(scales[0]), _mm512_set1_ps(second));
    Pair { codes, off, scale: _mm512_mask_blend_ps(0xff00, first, second) }
}

/// In each lane the sum of a quarter for a row.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn tile_sums<const M: usize, const FOURS: usize>(
    weights: &Weights,
    mut x: *const [Pair; M],
    chunks: usize,
) -> [[__m512; FOURS]; M] {
    let mut sums = [[_mm512_setzero_ps(); FOURS]; M];
    let mut codes = weights.codes;
    let mut ahead = weights.ahead(4 * FOURS);
    let mut first = 0;
    // SAFETY: rows and x are as long as `check` has found them. Wrapping arithmetic: an overflow
    // check in the inner loop costs as much as its work.
    unsafe {
        while first < chunks {
            let count = GROUP.min(chunks.wrapping_sub(first));
            let scales = scales::<FOURS>(weights, first, count);
            let of =
                |p: usize| scales.map(|[a, b]| _mm512_permutex2var_ps(a, weights.scale_of[p], b));
            for p in 0..count / 2 {
                weights.ask::<FOURS>(&mut ahead);
                pair::<M, FOURS, true>(weights, codes, &*x, of(p), &mut sums);
                codes = codes.wrapping_add(64);
                x = x.wrapping_add(1);
            }
            if count % 2 == 1 {
                pair::<M, FOURS, false>(weights, codes, &*x, of(count / 2), &mut sums);
            }
            first = first.wrapping_add(GROUP);
        }
    }
    sums
}

/// Adds two chunks of the rows, or one, to their sums.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn pair<const M: usize, const FOURS: usize, const BOTH: bool>(
    weights: &Weights,
    codes: *const u8,
    x: &[Pair; M],
    scales: [__m512; FOURS],
    sums: &mut [[__m512; FOURS]; M],
) {
    let mut turned = [[_mm512_setzero_si512(); 4]; FOURS];
    for four in 0..FOURS {
        for j in 0..4 {
            let row = weights.stride.wrapping_mul(4 * four + j);
            // SAFETY: the caller vouches for the chunks.
            turned[four][j] = unsafe { load::<BOTH>(codes.wrapping_add(row)) };
        }
        turned[four] = fours(turned[four]);
    }
    for m in 0..M {
        let mut dots = [x[m].off; FOURS];
        for i in 0..4 {
            for four in 0..FOURS {
                dots[four] = _mm512_dpbusd_epi32(dots[four], turned[four][i], x[m].codes[i]);
            }
        }
        for four in 0..FOURS {
            let factor = _mm512_mul_ps(scales[four], x[m].scale);
            let dot = _mm512_cvtepi32_ps(dots[four]);
            sums[m][four] = _mm512_fmadd_ps(dot, factor, sums[m][four]);
        }
    }
}

/// The scales of `count` chunks from `first` on: a four's two vectors have those of its rows, one
/// row behind the other.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn scales<const FOURS: usize>(
    weights: &Weights,
    first: usize,
    count: usize,
) -> [[__m512; 2]; FOURS] {
    let block = first >> weights.block_bits;
    let last = first.wrapping_add(count).wrapping_sub(1) >> weights.block_bits;
    let own = (1u32 << last.wrapping_sub(block).wrapping_add(1)).wrapping_sub(1) as __mmask8;
    let row = |j: usize| {
        let at = weights.blocks.wrapping_mul(j).wrapping_add(block);
        // SAFETY: the row has these blocks, as `check` has found.
        unsafe { _mm256_castps_pd(_mm256_maskz_loadu_ps(own, weights.scales.wrapping_add(at))) }
    };
    let mut rows = [[_mm512_setzero_ps(); 2]; FOURS];
    for four in 0..FOURS {
        for h in 0..2 {
            let j = 4 * four + 2 * h;
            let both = _mm512_insertf64x4::<1>(_mm512_castpd256_pd512(row(j)), row(j + 1));
            rows[four][h] = _mm512_castpd_ps(both);
        }
    }
    rows
}

/// The sum of a vector's quarters.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
#[inline]
fn quarters_sum(v: __m512) -> __m128 {
    let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(v)));
    let halves = _mm256_add_ps(_mm512_castps512_ps256(v), high);
    _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves))
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
