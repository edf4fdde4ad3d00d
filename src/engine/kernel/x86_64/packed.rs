//! AVX2 for many rows of x: eight weight rows in the lanes of a vector.
//!
//! [`super::avx2`] sums along k and pays for a conversion and a scale for every row, column and
//! chunk. With three rows of x and more it is cheaper to turn each chunk of eight weight rows by 90
//! degrees once, so that the lanes are output features: then a vector of scales serves eight
//! features, and nothing has to be summed across lanes. The turned chunk stays in the first-level
//! cache while all rows of x pass over it.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use crate::engine::kernel::panel::{Panel, Scales, Zeros};

/// Features in a vector.
const LANES: usize = 8;
/// Columns that pass over a turned chunk at a time: their sums are 4 KiB.
const COLUMNS_MAX: usize = 64;
/// Columns of a tile, whose integer sums stay in registers.
const TILE: usize = 4;
/// Chunks whose scales are turned at a time.
const SCALED_CHUNKS: usize = 8;

/// Word pairs of `V` groups of eight weight rows: pairs of even elements, then of odd ones.
type Turned<const V: usize> = MaybeUninit<[[__m256i; V]; 16]>;

/// Scales of `V` groups of eight weight rows, for some chunks.
type TurnedScales<const V: usize> = [[__m256; V]; SCALED_CHUNKS];

/// Where the codes and the scales of some rows of x begin.
struct Columns {
    words: [*const i32; COLUMNS_MAX],
    scales: [*const f32; COLUMNS_MAX],
    count: usize,
}

/// Multiplies the first rows of the panel, as many as make whole vectors; returns how many.
///
/// # Safety
/// The CPU has AVX2 and FMA; `panel.check()` was called; chunks are of 32.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn multiply(panel: &mut Panel<'_>) -> usize {
    let whole = panel.rows / LANES * LANES;
    let mut columns = Columns {
        words: [std::ptr::null(); COLUMNS_MAX],
        scales: [std::ptr::null(); COLUMNS_MAX],
        count: 0,
    };
    for first in (0..panel.columns.len()).step_by(COLUMNS_MAX) {
        let rows = &panel.columns[first..panel.columns.len().min(first + COLUMNS_MAX)];
        columns.count = rows.len();
        for (i, &row) in rows.iter().enumerate() {
            columns.words[i] = panel.x.codes(row as usize).cast();
            columns.scales[i] = panel.x.scales(row as usize).as_ptr();
        }
        let mut n = 0;
        // SAFETY: rows n.. and columns are inside the panel.
        unsafe {
            while whole - n >= 2 * LANES {
                features::<2>(panel, n, first, &columns);
                n += 2 * LANES;
            }
            if whole > n {
                features::<1>(panel, n, first, &columns);
            }
        }
    }
    whole
}

/// `V` vectors of features from row `n` on, for `columns`, of which the first is `first` of the
/// panel's.
#[target_feature(enable = "avx2,fma")]
unsafe fn features<const V: usize>(
    panel: &mut Panel<'_>,
    n: usize,
    first: usize,
    columns: &Columns,
) {
    let mut sums = MaybeUninit::<[[__m256; V]; COLUMNS_MAX]>::uninit();
    let sums = sums.as_mut_ptr().cast::<[__m256; V]>();
    // SAFETY: rows and columns are inside the panel; `pass` fills the sums of all columns.
    unsafe {
        if panel.bits == 4 {
            pass::<V, 4>(panel, n, columns, sums);
        } else {
            pass::<V, 8>(panel, n, columns, sums);
        }
        for m in 0..columns.count {
            let out = panel.out.as_mut_ptr().add((first + m) * panel.out_stride + n);
            for v in 0..V {
                _mm256_storeu_ps(out.add(v * LANES), (*sums.add(m))[v]);
            }
        }
    }
}

/// Sums all chunks of `columns` into `sums`.
#[target_feature(enable = "avx2,fma")]
unsafe fn pass<const V: usize, const BITS: usize>(
    panel: &Panel<'_>,
    n: usize,
    columns: &Columns,
    sums: *mut [__m256; V],
) {
    let same_zeros = match panel.zeros {
        Zeros::Same(zero) => Some(_mm256_set1_epi16(zero as i16)),
        Zeros::Each { .. } => None,
    };
    let mut turned = Turned::<V>::uninit();
    let mut scales = [[_mm256_setzero_ps(); V]; SCALED_CHUNKS];
    // SAFETY: rows, columns and chunks are inside the panel.
    unsafe {
        let mut rows = panel.weights.as_ptr().add(n * panel.stride);
        // The rows that will be turned next lie behind these: they are asked for in the order in
        // which they lie, as much in each turn as it uses.
        let mut ahead = rows.wrapping_add(V * LANES * panel.stride);
        for c in 0..panel.x.chunks() {
            for line in 0..V * LANES * BITS / 16 {
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line * 64).cast());
            }
            ahead = ahead.wrapping_add(V * LANES * BITS * 4);
            if c % SCALED_CHUNKS == 0 {
                turn_scales::<V>(panel, n, c, &mut scales);
            }
            for v in 0..V {
                let zeros = match same_zeros {
                    Some(zeros) => zeros,
                    None => zeros_of(panel, n + v * LANES, c),
                };
                let out = turned.as_mut_ptr().cast::<__m256i>().add(v);
                turn::<V, BITS>(rows.add(v * LANES * panel.stride), panel.stride, zeros, out);
            }
            let turned = turned.as_ptr().cast::<[__m256i; V]>();
            let scales = &scales[c % SCALED_CHUNKS];
            let mut m = 0;
            while m < columns.count {
                match columns.count - m {
                    1 => add::<1, V>(columns, m, c, turned, scales, sums),
                    2 => add::<2, V>(columns, m, c, turned, scales, sums),
                    3 => add::<3, V>(columns, m, c, turned, scales, sums),
                    _ => add::<TILE, V>(columns, m, c, turned, scales, sums),
                }
                m += TILE;
            }
            rows = rows.add(32 * BITS / 8);
        }
    }
}

/// Scales of the rows from `n` on and the chunks from `c` on.
#[target_feature(enable = "avx2,fma")]
unsafe fn turn_scales<const V: usize>(
    panel: &Panel<'_>,
    n: usize,
    c: usize,
    out: &mut TurnedScales<V>,
) {
    // SAFETY: the rows are inside the panel, and `check` has seen their scales; each branch reads
    // those of chunks that x has.
    unsafe {
        for v in 0..V {
            let n = n + v * LANES;
            match panel.scales {
                Scales::Row(scales) => {
                    let scales = _mm256_loadu_ps(scales.as_ptr().add(n));
                    for out in &mut *out {
                        out[v] = scales;
                    }
                }
                Scales::Block { scales, blocks, chunks: 1 } if c + LANES <= blocks => {
                    let at = scales.as_ptr().add(n * blocks + c);
                    let mut rows = [_mm256_setzero_ps(); LANES];
                    for (j, row) in rows.iter_mut().enumerate() {
                        *row = _mm256_loadu_ps(at.add(j * blocks));
                    }
                    let turned = transposed(rows);
                    for j in 0..SCALED_CHUNKS {
                        out[j][v] = turned[j];
                    }
                }
                Scales::Block { scales, blocks, chunks } => {
                    for (i, out) in out.iter_mut().enumerate() {
                        let block = ((c + i) / chunks).min(blocks - 1);
                        let at = scales.as_ptr().add(n * blocks + block);
                        let mut lanes = [0f32; LANES];
                        for (j, lane) in lanes.iter_mut().enumerate() {
                            *lane = *at.add(j * blocks);
                        }
                        out[v] = _mm256_loadu_ps(lanes.as_ptr());
                    }
                }
            }
        }
    }
}

/// Eight rows of eight, as eight columns.
#[inline(always)]
unsafe fn transposed(rows: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: the caller has AVX2; these are intrinsics on registers.
    unsafe {
        let mut pairs = [_mm256_setzero_ps(); 8];
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
        }
        let mut fours = [_mm256_setzero_ps(); 8];
        for half in 0..2 {
            for i in 0..2 {
                let (a, b) = (pairs[4 * half + i], pairs[4 * half + 2 + i]);
                fours[4 * half + 2 * i] = _mm256_shuffle_ps::<0x44>(a, b);
                fours[4 * half + 2 * i + 1] = _mm256_shuffle_ps::<0xee>(a, b);
            }
        }
        let mut columns = [_mm256_setzero_ps(); 8];
        for i in 0..4 {
            columns[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[4 + i]);
            columns[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[4 + i]);
        }
        columns
    }
}

/// Zero points of the eight rows from `n` on, as words, each twice: a lane holds two.
#[target_feature(enable = "avx2,fma")]
unsafe fn zeros_of(panel: &Panel<'_>, n: usize, c: usize) -> __m256i {
    let (first, step) = match panel.scales {
        Scales::Row(_) => (n, 1),
        Scales::Block { blocks, chunks, .. } => (n * blocks + c / chunks, blocks),
    };
    let mut zeros = [0i32; LANES];
    for (j, zero) in zeros.iter_mut().enumerate() {
        let word = panel.zeros.at(first + j * step) as i32;
        *zero = (word & 0xffff) | (word << 16);
    }
    // SAFETY: a load from an array of the vector's size.
    unsafe { _mm256_loadu_si256(zeros.as_ptr().cast()) }
}

/// Turns 32 codes of eight rows: word pair `i` of each row becomes `out[i * V]`, less the zeros.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn turn<const V: usize, const BITS: usize>(
    rows: *const u8,
    stride: usize,
    zeros: __m256i,
    out: *mut __m256i,
) {
    // SAFETY: the caller vouches for the rows and the room; the rest are intrinsics.
    unsafe {
        let mut row = [_mm256_setzero_si256(); 8];
        for j in 0..8 {
            let at = rows.wrapping_add(stride.wrapping_mul(j));
            // Two codes to a word, either way.
            row[j] = if BITS == 4 {
                _mm256_cvtepu8_epi16(_mm_loadu_si128(at.cast()))
            } else {
                _mm256_loadu_si256(at.cast())
            };
        }
        let mut pairs = [_mm256_setzero_si256(); 8];
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_epi32(row[2 * i], row[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_epi32(row[2 * i], row[2 * i + 1]);
        }
        let mut fours = [_mm256_setzero_si256(); 8];
        for half in 0..2 {
            for i in 0..2 {
                let (a, b) = (pairs[4 * half + i], pairs[4 * half + 2 + i]);
                fours[4 * half + 2 * i] = _mm256_unpacklo_epi64(a, b);
                fours[4 * half + 2 * i + 1] = _mm256_unpackhi_epi64(a, b);
            }
        }
        let even = _mm256_set1_epi16(if BITS == 4 { 15 } else { 255 });
        let odd = _mm_cvtsi32_si128(BITS as i32);
        for i in 0..4 {
            let low = _mm256_permute2x128_si256::<0x20>(fours[i], fours[4 + i]);
            let high = _mm256_permute2x128_si256::<0x31>(fours[i], fours[4 + i]);
            let out = out.add(i * V);
            out.write(_mm256_sub_epi16(_mm256_and_si256(low, even), zeros));
            out.add(4 * V).write(_mm256_sub_epi16(_mm256_and_si256(high, even), zeros));
            out.add(8 * V).write(_mm256_sub_epi16(_mm256_srl_epi16(low, odd), zeros));
            out.add(12 * V).write(_mm256_sub_epi16(_mm256_srl_epi16(high, odd), zeros));
        }
    }
}

/// Adds chunk `c` of `M` columns from `m` on to their sums; chunk 0 begins them.
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn add<const M: usize, const V: usize>(
    columns: &Columns,
    m: usize,
    c: usize,
    turned: *const [__m256i; V],
    scales: &[__m256; V],
    sums: *mut [__m256; V],
) {
    // SAFETY: columns m..m + M are among `columns`, and `sums` has room for them; a chunk of words
    // is 16 pairs. Wrapping arithmetic: an overflow check here would cost as much as the address.
    unsafe {
        let mut words = [std::ptr::null::<i32>(); M];
        for i in 0..M {
            words[i] = (*columns.words.get_unchecked(m.wrapping_add(i))).wrapping_add(c << 4);
        }
        let mut dots = [[_mm256_setzero_si256(); V]; M];
        for pair in 0..16 {
            let weights = &*turned.wrapping_add(pair);
            for i in 0..M {
                let x = _mm256_set1_epi32(words[i].wrapping_add(pair).read_unaligned());
                for v in 0..V {
                    dots[i][v] = _mm256_add_epi32(dots[i][v], _mm256_madd_epi16(weights[v], x));
                }
            }
        }
        for i in 0..M {
            let scale = *columns.scales.get_unchecked(m.wrapping_add(i));
            let x_scale = _mm256_broadcast_ss(&*scale.wrapping_add(c));
            let sums = sums.wrapping_add(m.wrapping_add(i)).cast::<__m256>();
            for v in 0..V {
                let factor = _mm256_mul_ps(scales[v], x_scale);
                let dot = _mm256_cvtepi32_ps(dots[i][v]);
                let sum = sums.wrapping_add(v);
                // The first chunk finds whatever was there before.
                let before = if c == 0 { _mm256_setzero_ps() } else { sum.read() };
                sum.write(_mm256_fmadd_ps(dot, factor, before));
            }
        }
    }
}
