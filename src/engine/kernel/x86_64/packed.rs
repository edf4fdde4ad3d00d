//! AVX2 for many rows of x: eight weight rows in the lanes of a vector.
//!
//! [`super::avx2`] sums along k and pays for a conversion and a scale for every row, column and
//! chunk. With four rows of x or more it is cheaper to turn each chunk of eight weight rows by 90
//! degrees once, so that the lanes are output features: then a vector of scales serves eight
//! features, and nothing has to be summed across lanes. The turned chunk stays in the first-level
//! cache while all rows of x pass over it.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::engine::kernel::panel::{Panel, Scales, Zeros};

/// Features in a vector.
const LANES: usize = 8;
/// Rows of x from which turning the weights pays. Measured on Zen 3: even at 3, ahead from 4 on;
/// far behind at 2 where the weights come from memory.
pub const COLUMNS_MIN: usize = 3;

/// Words of `V` turned groups of eight weight rows: pairs of even elements, then of odd ones.
struct Turned<const V: usize>([[__m256i; V]; 16]);

/// Multiplies the first rows of the panel, as many as make whole vectors; returns how many.
///
/// # Safety
/// The CPU has AVX2 and FMA; `panel.check()` was called; chunks are of 32.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn multiply(panel: &mut Panel<'_>) -> usize {
    let mut n = 0;
    // SAFETY: rows n.. are inside the panel.
    unsafe {
        while panel.rows - n >= 2 * LANES {
            features::<2>(panel, n);
            n += 2 * LANES;
        }
        if panel.rows - n >= LANES {
            features::<1>(panel, n);
            n += LANES;
        }
    }
    n
}

/// Columns whose sums can stay in `out`: as many as the ways of the first-level cache. Rows of
/// `out` whose distance is a power of two share its sets; more of them would push each other out.
const COLUMNS_IN_PLACE: usize = 8;

/// Columns whose sums are kept in a buffer otherwise: 4 KiB of them.
const COLUMNS_MAX: usize = 64;

/// `V` vectors of features from row `n` on, for all columns.
#[target_feature(enable = "avx2,fma")]
unsafe fn features<const V: usize>(panel: &mut Panel<'_>, n: usize) {
    if panel.columns.len() <= COLUMNS_IN_PLACE {
        let (stride, count) = (panel.out_stride, panel.columns.len());
        let out = panel.out.as_mut_ptr().wrapping_add(n);
        // SAFETY: features and columns are inside the panel, and so in `out`.
        return unsafe { pass::<V>(panel, n, 0..count, out, stride) };
    }
    let mut buffer = [0f32; COLUMNS_MAX * 2 * LANES];
    for first in (0..panel.columns.len()).step_by(COLUMNS_MAX) {
        let columns = first..panel.columns.len().min(first + COLUMNS_MAX);
        let sums = &mut buffer[..columns.len() * V * LANES];
        // SAFETY: features and columns are inside the panel; `sums` has room for them.
        unsafe { pass::<V>(panel, n, columns.clone(), sums.as_mut_ptr(), V * LANES) };
        for (m, sums) in columns.zip(sums.chunks_exact(V * LANES)) {
            panel.out[m * panel.out_stride + n..][..V * LANES].copy_from_slice(sums);
        }
    }
}

/// Sums all chunks of `columns` into `sums`, where each column's are `stride` after the last's.
#[target_feature(enable = "avx2,fma")]
unsafe fn pass<const V: usize>(
    panel: &Panel<'_>,
    n: usize,
    columns: Range<usize>,
    sums: *mut f32,
    stride: usize,
) {
    let same_zeros = match panel.zeros {
        Zeros::Same(zero) => Some(_mm256_set1_epi16(zero as i16)),
        Zeros::Each { .. } => None,
    };
    let group = LANES * panel.stride;
    for c in 0..panel.x.chunks() {
        // SAFETY: rows and chunk are inside the panel.
        unsafe {
            let mut turned = Turned([[_mm256_setzero_si256(); V]; 16]);
            let mut scales = [_mm256_setzero_ps(); V];
            let mut rows = panel.weights.as_ptr().add(n * panel.stride + c * 32);
            for v in 0..V {
                let lanes = Lanes::of(panel, n + v * LANES, c);
                scales[v] = lanes.scales(panel);
                let zeros = match same_zeros {
                    Some(zeros) => zeros,
                    None => lanes.zeros(panel),
                };
                let words = turn(rows, panel.stride, V * group, zeros);
                for i in 0..16 {
                    turned.0[i][v] = words[i];
                }
                rows = rows.add(group);
            }
            let mut sums = sums;
            let mut m = columns.start;
            while m < columns.end {
                let weights = (&turned, scales);
                match columns.end - m {
                    1 => add::<1, V>(panel, m, c, weights, sums, stride),
                    2 => add::<2, V>(panel, m, c, weights, sums, stride),
                    3 => add::<3, V>(panel, m, c, weights, sums, stride),
                    _ => add::<4, V>(panel, m, c, weights, sums, stride),
                }
                m += 4;
                sums = sums.wrapping_add(stride << 2);
            }
        }
    }
}

/// Where the scales and zero points of eight rows are: the first, and the way to the next.
#[derive(Clone, Copy)]
struct Lanes {
    first: usize,
    step: usize,
}

impl Lanes {
    #[inline(always)]
    fn of(panel: &Panel<'_>, n: usize, c: usize) -> Self {
        match panel.scales {
            Scales::Row(_) => Self { first: n, step: 1 },
            Scales::Block { blocks, chunks: 1, .. } => Self { first: n * blocks + c, step: blocks },
            Scales::Block { blocks, chunks, .. } => {
                Self { first: n * blocks + c / chunks, step: blocks }
            }
        }
    }

    /// Through registers: a vector load of what was just stored piecewise would stall.
    #[inline(always)]
    unsafe fn scales(self, panel: &Panel<'_>) -> __m256 {
        let (Scales::Row(scales) | Scales::Block { scales, .. }) = panel.scales;
        // SAFETY: eight rows of the panel, and so their scales, are there.
        unsafe {
            let at = scales.as_ptr().add(self.first);
            let step = self.step;
            let (two, four) = (at.wrapping_add(step).wrapping_add(step), step << 2);
            let three = two.wrapping_add(step);
            let (a, b) = (at, at.wrapping_add(step));
            _mm256_set_ps(
                *three.wrapping_add(four),
                *two.wrapping_add(four),
                *b.wrapping_add(four),
                *a.wrapping_add(four),
                *three,
                *two,
                *b,
                *a,
            )
        }
    }

    /// As words, each twice: a lane holds two.
    #[inline(always)]
    unsafe fn zeros(self, panel: &Panel<'_>) -> __m256i {
        let mut zeros = [0i32; LANES];
        let mut at = self.first;
        for zero in &mut zeros {
            let word = panel.zeros.at(at) as i32;
            *zero = (word & 0xffff) | (word << 16);
            at += self.step;
        }
        // SAFETY: a load from an array of the vector's size.
        unsafe { _mm256_loadu_si256(zeros.as_ptr().cast()) }
    }
}

/// Turns 32 bytes of eight rows: word pair `i` of each row becomes vector `i`, less the zeros.
#[inline(always)]
unsafe fn turn(rows: *const u8, stride: usize, ahead: usize, zeros: __m256i) -> [__m256i; 16] {
    // SAFETY: the caller vouches for the rows; the rest are intrinsics.
    unsafe {
        let mut row = [_mm256_setzero_si256(); 8];
        let mut at = rows;
        for row in &mut row {
            *row = _mm256_loadu_si256(at.cast());
            // The rows that will be turned next come from memory; ask for them now.
            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(ahead).cast());
            at = at.wrapping_add(stride);
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
        let low_byte = _mm256_set1_epi16(0xff);
        let mut words = [_mm256_setzero_si256(); 16];
        for i in 0..4 {
            let low = _mm256_permute2x128_si256::<0x20>(fours[i], fours[4 + i]);
            let high = _mm256_permute2x128_si256::<0x31>(fours[i], fours[4 + i]);
            words[i] = _mm256_sub_epi16(_mm256_and_si256(low, low_byte), zeros);
            words[i + 4] = _mm256_sub_epi16(_mm256_and_si256(high, low_byte), zeros);
            words[i + 8] = _mm256_sub_epi16(_mm256_srli_epi16::<8>(low), zeros);
            words[i + 12] = _mm256_sub_epi16(_mm256_srli_epi16::<8>(high), zeros);
        }
        words
    }
}

/// Adds chunk `c` of `M` columns from `m` on to their sums.
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn add<const M: usize, const V: usize>(
    panel: &Panel<'_>,
    m: usize,
    c: usize,
    (turned, scales): (&Turned<V>, [__m256; V]),
    sums: *mut f32,
    stride: usize,
) {
    // SAFETY: columns m..m + M are inside the panel and the caller's sums; a chunk of words is 16
    // pairs.
    unsafe {
        // Wrapping arithmetic: an overflow check here would cost as much as the address.
        let chunks = panel.x.chunks();
        let all_words = panel.x.all_words().as_ptr().wrapping_add(c << 5);
        let all_scales = panel.x.all_scales().as_ptr().wrapping_add(c);
        let mut scale_of = [std::ptr::null::<f32>(); M];
        let mut words = [std::ptr::null::<i32>(); M];
        for i in 0..M {
            let row = *panel.columns.get_unchecked(m + i) as usize;
            scale_of[i] = all_scales.wrapping_add(row.wrapping_mul(chunks));
            words[i] = all_words.wrapping_add(row.wrapping_mul(panel.x.stride())).cast();
        }
        let mut dots = [[_mm256_setzero_si256(); V]; M];
        for (pair, weights) in turned.0.iter().enumerate() {
            for i in 0..M {
                let x = _mm256_set1_epi32(words[i].add(pair).read_unaligned());
                for v in 0..V {
                    dots[i][v] = _mm256_add_epi32(dots[i][v], _mm256_madd_epi16(weights[v], x));
                }
            }
        }
        let mut sums = sums;
        for i in 0..M {
            let x_scale = _mm256_broadcast_ss(&*scale_of[i]);
            // The first chunk finds whatever was there before.
            for v in 0..V {
                let factor = _mm256_mul_ps(scales[v], x_scale);
                let sum = sums.wrapping_add(v * LANES);
                let dot = _mm256_cvtepi32_ps(dots[i][v]);
                let before = if c == 0 { _mm256_setzero_ps() } else { _mm256_loadu_ps(sum) };
                _mm256_storeu_ps(sum, _mm256_fmadd_ps(dot, factor, before));
            }
            sums = sums.wrapping_add(stride);
        }
    }
}
