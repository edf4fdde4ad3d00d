//! AVX-512 VNNI: sixteen weight rows in the lanes of a vector.
//!
//! What [`super::vnni`] does for any CPU with these products pays for a conversion and a factor for
//! every row, column and chunk, with a third of its vectors' lanes summed at the end. Here each
//! chunk of sixteen weight rows is turned by 90 degrees first, so that the lanes are output
//! features: a vector of scales serves sixteen of them, four codes of x are broadcast by the
//! product itself, and nothing is summed across lanes. Turning takes about as long as one column's
//! products, so it is worth it for one column, too.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use crate::engine::kernel::panel::{Panel, Scales, Zeros};

/// Features in a vector.
const LANES: usize = 16;
/// Columns that pass over a turned chunk: their sums are 4 KiB.
const COLUMNS_MAX: usize = 64;
/// Columns whose integer sums are computed together, so that none waits for the one before.
const TILE: usize = 4;
/// Fours of codes in a chunk, and chunks whose scales are turned at a time.
const FOURS: usize = 8;
/// Scales in a line of a cache.
const FLOATS_IN_LINE: usize = 16;

/// Where the codes, the scales and the sums of some rows of x begin.
struct Columns {
    codes: [*const i32; COLUMNS_MAX],
    scales: [*const f32; COLUMNS_MAX],
    sums: [*const f32; COLUMNS_MAX],
    /// Codes from the high digits to the low ones, in fours.
    low_digits: usize,
    count: usize,
}

/// Multiplies the first rows of the panel, as many as make whole vectors; returns how many.
///
/// # Safety
/// The CPU has these instructions; `panel.check()` was called; chunks are of 32.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
pub unsafe fn multiply(panel: &mut Panel<'_>) -> usize {
    let whole = panel.rows / LANES * LANES;
    let mut columns = Columns {
        codes: [std::ptr::null(); COLUMNS_MAX],
        scales: [std::ptr::null(); COLUMNS_MAX],
        sums: [std::ptr::null(); COLUMNS_MAX],
        low_digits: panel.x.low_digits() / 4,
        count: 0,
    };
    for first in (0..panel.columns.len()).step_by(COLUMNS_MAX) {
        let rows = &panel.columns[first..panel.columns.len().min(first + COLUMNS_MAX)];
        columns.count = rows.len();
        for (i, &row) in rows.iter().enumerate() {
            columns.codes[i] = panel.x.codes(row as usize).cast();
            columns.scales[i] = panel.x.scales(row as usize).as_ptr();
            columns.sums[i] = panel.x.sums(row as usize).as_ptr();
        }
        for n in (0..whole).step_by(LANES) {
            let mut sums = MaybeUninit::<[__m512; COLUMNS_MAX]>::uninit();
            let sums = sums.as_mut_ptr().cast::<__m512>();
            // SAFETY: rows n.. and columns are inside the panel; `pass` fills the sums of all
            // columns.
            unsafe {
                match (panel.bits, columns.low_digits) {
                    (4, 0) => pass::<4, 1>(panel, n, &columns, sums),
                    (4, _) => pass::<4, 2>(panel, n, &columns, sums),
                    (_, 0) => pass::<8, 1>(panel, n, &columns, sums),
                    (_, _) => pass::<8, 2>(panel, n, &columns, sums),
                }
                for m in 0..columns.count {
                    let out = panel.out.as_mut_ptr().add((first + m) * panel.out_stride + n);
                    _mm512_storeu_ps(out, *sums.add(m));
                }
            }
        }
    }
    whole
}

/// Sums all chunks of `columns` with the rows from `n` on into `sums`.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
unsafe fn pass<const BITS: usize, const DIGITS: usize>(
    panel: &Panel<'_>,
    n: usize,
    columns: &Columns,
    sums: *mut __m512,
) {
    let mut scales = [_mm512_setzero_ps(); FOURS];
    // SAFETY: rows, columns and chunks are inside the panel.
    unsafe {
        let mut rows = panel.weights.as_ptr().add(n * panel.stride);
        // The rows that will be turned next, and those after them, are asked for in the order in
        // which they lie, as much in each turn as it uses. The first-level cache has too few slots
        // for lines that are on their way from memory: the second gets those that are far.
        let distance = LANES * panel.stride;
        let mut next = rows.wrapping_add(distance);
        let end = panel.weights.as_ptr_range().end;
        let far_end = if panel.cached { std::ptr::null() } else { end.wrapping_sub(distance) };
        let (mut next_scales, scale_lines) = match panel.scales {
            Scales::Row(scales) => (scales.as_ptr(), 0),
            Scales::Block { scales, blocks, chunks } => {
                let next = scales.as_ptr().wrapping_add((n + 2 * LANES) * blocks);
                (next, (LANES * FOURS / FLOATS_IN_LINE / chunks).max(1))
            }
        };
        for c in 0..panel.x.chunks() {
            if next < end {
                for line in 0..LANES * BITS / 16 {
                    _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(line * 64).cast());
                }
            }
            if next < far_end {
                let far = next.wrapping_add(distance);
                for line in 0..LANES * BITS / 16 {
                    _mm_prefetch::<_MM_HINT_T1>(far.wrapping_add(line * 64).cast());
                }
            }
            next = next.wrapping_add(LANES * BITS * 4);
            if c % FOURS == 0 {
                scales_of(panel, n, c, &mut scales);
                for line in 0..scale_lines {
                    let line = next_scales.wrapping_add(line.wrapping_mul(FLOATS_IN_LINE));
                    _mm_prefetch::<_MM_HINT_T0>(line.cast());
                }
                next_scales = next_scales.wrapping_add(scale_lines.wrapping_mul(FLOATS_IN_LINE));
            }
            let scales = scales[c % FOURS];
            let zeros = match panel.zeros {
                Zeros::Same(zero) => _mm512_set1_ps(zero),
                Zeros::Each { .. } => zeros_of(panel, n, c),
            };
            let off = _mm512_mul_ps(scales, zeros);
            let weights = if BITS == 4 {
                turned_halves(rows, panel.stride)
            } else {
                turned(rows, panel.stride)
            };
            let mut m = 0;
            while m < columns.count {
                match columns.count - m {
                    1 => add::<1, DIGITS>(columns, m, c, &weights, scales, off, sums),
                    2 => add::<2, DIGITS>(columns, m, c, &weights, scales, off, sums),
                    3 => add::<3, DIGITS>(columns, m, c, &weights, scales, off, sums),
                    _ => add::<TILE, DIGITS>(columns, m, c, &weights, scales, off, sums),
                }
                m += TILE;
            }
            rows = rows.add(32 * BITS / 8);
        }
    }
}

/// Adds chunk `c` of `M` columns from `m` on to their sums; chunk 0 begins them.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn add<const M: usize, const DIGITS: usize>(
    columns: &Columns,
    m: usize,
    c: usize,
    weights: &[__m512i; FOURS],
    scales: __m512,
    off: __m512,
    sums: *mut __m512,
) {
    // SAFETY: columns m..m + M are among `columns`, and `sums` has room for them; a chunk is eight
    // fours. Wrapping arithmetic: an overflow check here would cost as much as the address.
    unsafe {
        let mut codes = [std::ptr::null::<i32>(); M];
        for i in 0..M {
            let column = *columns.codes.get_unchecked(m.wrapping_add(i));
            codes[i] = column.wrapping_add(c.wrapping_mul(FOURS));
        }
        let mut dots = [_mm512_setzero_si512(); M];
        for digit in 0..DIGITS {
            if digit == 1 {
                for i in 0..M {
                    // Times 255, the base of the digits.
                    dots[i] = _mm512_sub_epi32(_mm512_slli_epi32::<8>(dots[i]), dots[i]);
                    codes[i] = codes[i].wrapping_add(columns.low_digits);
                }
            }
            for four in 0..FOURS {
                for i in 0..M {
                    let x = _mm512_set1_epi32(codes[i].wrapping_add(four).read_unaligned());
                    dots[i] = _mm512_dpbusd_epi32(dots[i], weights[four], x);
                }
            }
        }
        for i in 0..M {
            let x_scale = *(*columns.scales.get_unchecked(m.wrapping_add(i))).wrapping_add(c);
            let x_sum = *(*columns.sums.get_unchecked(m.wrapping_add(i))).wrapping_add(c);
            let sum = sums.wrapping_add(m.wrapping_add(i));
            // The first chunk finds whatever was there before.
            let before = if c == 0 { _mm512_setzero_ps() } else { sum.read() };
            let before = _mm512_fnmadd_ps(off, _mm512_set1_ps(x_sum), before);
            let factor = _mm512_mul_ps(scales, _mm512_set1_ps(x_scale));
            sum.write(_mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[i]), factor, before));
        }
    }
}

/// Scales of the rows from `n` on and the chunks from `c` on.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
unsafe fn scales_of(panel: &Panel<'_>, n: usize, c: usize, out: &mut [__m512; FOURS]) {
    // SAFETY: the rows are inside the panel, and `check` has seen their scales; each branch reads
    // those of chunks that x has.
    unsafe {
        match panel.scales {
            Scales::Row(scales) => *out = [_mm512_loadu_ps(scales.as_ptr().add(n)); FOURS],
            Scales::Block { scales, blocks, chunks: 1 } if c + FOURS <= blocks => {
                let at = scales.as_ptr().add(n * blocks + c);
                let turned = turned(at.cast(), blocks * 4);
                for (out, turned) in out.iter_mut().zip(turned) {
                    *out = _mm512_castsi512_ps(turned);
                }
            }
            Scales::Block { scales, blocks, chunks } => {
                let mut last = None;
                for i in 0..FOURS {
                    let block = ((c + i) / chunks).min(blocks - 1);
                    if last != Some(block) {
                        last = Some(block);
                        let at = scales.as_ptr().add(n * blocks + block);
                        let mut lanes = [0f32; LANES];
                        for (j, lane) in lanes.iter_mut().enumerate() {
                            *lane = *at.add(j * blocks);
                        }
                        out[i] = _mm512_loadu_ps(lanes.as_ptr());
                    } else {
                        out[i] = out[i - 1];
                    }
                }
            }
        }
    }
}

/// Zero points of the rows from `n` on in chunk `c`.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
unsafe fn zeros_of(panel: &Panel<'_>, n: usize, c: usize) -> __m512 {
    let (first, step) = match panel.scales {
        Scales::Row(_) => (n, 1),
        Scales::Block { blocks, chunks, .. } => (n * blocks + c / chunks, blocks),
    };
    let mut zeros = [0f32; LANES];
    for (j, zero) in zeros.iter_mut().enumerate() {
        *zero = panel.zeros.at(first + j * step);
    }
    // SAFETY: a load from an array of the vector's size.
    unsafe { _mm512_loadu_ps(zeros.as_ptr()) }
}

/// Turns 32 bytes of sixteen rows: four `i` of row `j` becomes lane `j` of vector `i`.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn turned(rows: *const u8, stride: usize) -> [__m512i; FOURS] {
    let row = |j: usize| rows.wrapping_add(stride.wrapping_mul(j));
    let mut by_four = [[_mm512_setzero_si512(); 4]; 2];
    for half in 0..2 {
        let mut pair = [_mm512_setzero_si512(); 4];
        for j in 0..4 {
            let at = 8 * half + j;
            // SAFETY: the caller vouches for the rows; the rest are intrinsics.
            pair[j] = unsafe {
                let low = _mm256_loadu_si256(row(at).cast());
                let high = _mm256_loadu_si256(row(at + 4).cast());
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
            };
        }
        by_four[half] = fours(pair);
    }
    let [a, b] = by_four;
    let mut out = [_mm512_setzero_si512(); FOURS];
    for i in 0..4 {
        out[i] = _mm512_shuffle_i64x2::<0x88>(a[i], b[i]);
        out[i + 4] = _mm512_shuffle_i64x2::<0xdd>(a[i], b[i]);
    }
    out
}

/// Turns 16 bytes, which are 32 codes of 4 bits, of sixteen rows.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn turned_halves(rows: *const u8, stride: usize) -> [__m512i; FOURS] {
    let row = |j: usize| rows.wrapping_add(stride.wrapping_mul(j));
    let mut quads = [_mm512_setzero_si512(); 4];
    for j in 0..4 {
        // SAFETY: the caller vouches for the rows; the rest are intrinsics.
        quads[j] = unsafe {
            let a = _mm512_castsi128_si512(_mm_loadu_si128(row(j).cast()));
            let b = _mm512_inserti32x4::<1>(a, _mm_loadu_si128(row(j + 4).cast()));
            let c = _mm512_inserti32x4::<2>(b, _mm_loadu_si128(row(j + 8).cast()));
            _mm512_inserti32x4::<3>(c, _mm_loadu_si128(row(j + 12).cast()))
        };
    }
    let quads = fours(quads);
    let low_half = _mm512_set1_epi8(15);
    let mut out = [_mm512_setzero_si512(); FOURS];
    for i in 0..4 {
        let low = _mm512_and_si512(quads[i], low_half);
        let high = _mm512_and_si512(_mm512_srli_epi16::<4>(quads[i]), low_half);
        // Two fours of each of two rows; then the first fours of four rows, and the second ones.
        let a = _mm512_castsi512_ps(_mm512_unpacklo_epi8(low, high));
        let b = _mm512_castsi512_ps(_mm512_unpackhi_epi8(low, high));
        out[2 * i] = _mm512_castps_si512(_mm512_shuffle_ps::<0x88>(a, b));
        out[2 * i + 1] = _mm512_castps_si512(_mm512_shuffle_ps::<0xdd>(a, b));
    }
    out
}

/// Turns four rows of four in each quarter of the vectors.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
#[inline]
pub fn fours([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab_low, cd_low),
        _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}
