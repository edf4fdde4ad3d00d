//! AVX2 for one or two rows of x and weights with scales by block.
//!
//! What [`super::avx2`] does for any scales and zero points costs as much, here, as the products
//! themselves. So scales of eight chunks are multiplied with those of x at a time, what the zero
//! point takes off is summed in the lanes that the products are summed in, and four weight rows
//! are summed across lanes together.

use std::arch::x86_64::*;

use super::avx2::{PREFETCH_BYTES, even_odd};
use crate::engine::kernel::panel::{Panel, Scales, Zeros};

/// Weight rows of a tile.
const ROWS: usize = 4;
/// Chunks whose scales are multiplied at a time.
const GROUP: usize = 8;
/// Rows of x that a tile has registers for.
pub const COLUMNS_MAX: usize = 2;

/// Multiplies the first rows of the panel, as many as make whole tiles; returns how many. None
/// unless scales are by block and all weights have the same zero point.
///
/// # Safety
/// The CPU has AVX2 and FMA; `panel.check()` was called; chunks are of 32, and there are one or
/// two rows of x.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn multiply(panel: &mut Panel<'_>) -> usize {
    let Scales::Block { scales, blocks, chunks } = panel.scales else { return 0 };
    let Zeros::Same(zero) = panel.zeros else { return 0 };
    if !chunks.is_power_of_two() {
        return 0;
    }
    let scales = BlockScales { scales: scales.as_ptr(), blocks, chunks };
    // SAFETY: the caller's conditions.
    unsafe {
        match (panel.columns.len(), panel.bits, chunks) {
            (1, 8, 1) => tiles::<1, 8, false>(panel, scales, zero),
            (1, 8, _) => tiles::<1, 8, true>(panel, scales, zero),
            (1, _, 1) => tiles::<1, 4, false>(panel, scales, zero),
            (1, _, _) => tiles::<1, 4, true>(panel, scales, zero),
            (_, 8, 1) => tiles::<2, 8, false>(panel, scales, zero),
            (_, 8, _) => tiles::<2, 8, true>(panel, scales, zero),
            (_, _, 1) => tiles::<2, 4, false>(panel, scales, zero),
            _ => tiles::<2, 4, true>(panel, scales, zero),
        }
    }
    panel.rows / ROWS * ROWS
}

/// [`Scales::Block`].
#[derive(Clone, Copy)]
struct BlockScales {
    scales: *const f32,
    blocks: usize,
    chunks: usize,
}

/// Where the codes, the scales and the sums of `M` rows of x begin.
struct Columns<const M: usize> {
    codes: [*const i16; M],
    scales: [*const f32; M],
    sums: [*const f32; M],
    chunks: usize,
}

/// Where the codes and the scales of a tile's rows begin.
struct Rows {
    codes: [*const u8; ROWS],
    scales: [*const f32; ROWS],
    /// Chunks that share a scale: two to the power of this. A division would take longer than a
    /// chunk does.
    block_bits: u32,
    /// Which of a group's scales each of its chunks has.
    scale_of: __m256i,
}

#[target_feature(enable = "avx2,fma")]
unsafe fn tiles<const M: usize, const BITS: usize, const SHARED: bool>(
    panel: &mut Panel<'_>,
    scales: BlockScales,
    zero: f32,
) {
    let BlockScales { scales, blocks, chunks } = scales;
    let mut columns = Columns::<M> {
        codes: [std::ptr::null(); M],
        scales: [std::ptr::null(); M],
        sums: [std::ptr::null(); M],
        chunks: panel.x.chunks(),
    };
    for m in 0..M {
        let column = panel.columns[m] as usize;
        columns.codes[m] = panel.x.codes(column).cast();
        columns.scales[m] = panel.x.scales(column).as_ptr();
        columns.sums[m] = panel.x.sums(column).as_ptr();
    }
    let mut scale_of = [0i32; GROUP];
    for (c, scale) in scale_of.iter_mut().enumerate() {
        *scale = (c / chunks) as i32;
    }
    let mut rows = Rows {
        codes: [panel.weights.as_ptr(); ROWS],
        scales: [scales; ROWS],
        block_bits: chunks.trailing_zeros(),
        // SAFETY: a load from an array of the vector's size.
        scale_of: unsafe { _mm256_loadu_si256(scale_of.as_ptr().cast()) },
    };
    for j in 1..ROWS {
        rows.codes[j] = rows.codes[j - 1].wrapping_add(panel.stride);
        rows.scales[j] = rows.scales[j - 1].wrapping_add(blocks);
    }
    let zero = _mm256_set1_ps(zero);
    let mut out = panel.out.as_mut_ptr();
    for _ in 0..panel.rows / ROWS {
        // SAFETY: the rows are inside the panel, and so are their scales, sums and products.
        unsafe {
            let sums = tile::<M, BITS, SHARED>(&rows, &columns, zero);
            for m in 0..M {
                _mm_storeu_ps(out.wrapping_add(m * panel.out_stride), sums[m]);
            }
        }
        out = out.wrapping_add(ROWS);
        for j in 0..ROWS {
            rows.codes[j] = rows.codes[j].wrapping_add(ROWS * panel.stride);
            rows.scales[j] = rows.scales[j].wrapping_add(ROWS * blocks);
        }
    }
}

/// `ROWS` weight rows times `M` rows of x. `SHARED`: a block is more than one chunk.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn tile<const M: usize, const BITS: usize, const SHARED: bool>(
    rows: &Rows,
    columns: &Columns<M>,
    zero: __m256,
) -> [__m128; M] {
    let mut sums = [[_mm256_setzero_ps(); ROWS]; M];
    let mut factors = [[_mm256_setzero_ps(); ROWS]; M];
    let mut first = 0;
    // SAFETY: rows and columns are as long as `check` has found them; the pointers run with them.
    // Wrapping arithmetic: an overflow check in the inner loop costs as much as its work.
    unsafe {
        while first < columns.chunks {
            let count = GROUP.min(columns.chunks.wrapping_sub(first));
            let mut scales = [_mm256_setzero_ps(); ROWS];
            let whole = lanes(count);
            if SHARED {
                let block = first >> rows.block_bits;
                let last = first.wrapping_add(count).wrapping_sub(1) >> rows.block_bits;
                let own = lanes(last.wrapping_sub(block).wrapping_add(1));
                for j in 0..ROWS {
                    let by_block = _mm256_maskload_ps(rows.scales[j].wrapping_add(block), own);
                    scales[j] = _mm256_permutevar8x32_ps(by_block, rows.scale_of);
                }
            } else {
                for j in 0..ROWS {
                    scales[j] = _mm256_maskload_ps(rows.scales[j].wrapping_add(first), whole);
                }
            }
            for m in 0..M {
                let x_scales = _mm256_maskload_ps(columns.scales[m].wrapping_add(first), whole);
                let x_sums = _mm256_maskload_ps(columns.sums[m].wrapping_add(first), whole);
                let off = _mm256_mul_ps(x_sums, zero);
                for j in 0..ROWS {
                    factors[m][j] = _mm256_mul_ps(scales[j], x_scales);
                    sums[m][j] = _mm256_fnmadd_ps(scales[j], off, sums[m][j]);
                }
            }
            let factors = factors.as_ptr().cast::<[[f32; GROUP]; ROWS]>();
            for c in 0..count {
                let chunk = first.wrapping_add(c);
                let at = chunk.wrapping_mul(4 * BITS);
                // Rows lie one behind the other: to ask for as many bytes as are read, one
                // distance ahead, covers the rows that follow.
                let ahead = at.wrapping_mul(ROWS).wrapping_add(PREFETCH_BYTES);
                let ahead = rows.codes[0].wrapping_add(ahead);
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                if BITS == 8 {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64).cast());
                }
                let mut x = [[_mm256_setzero_si256(); 2]; M];
                for m in 0..M {
                    let codes = columns.codes[m].wrapping_add(chunk.wrapping_mul(32));
                    x[m][0] = _mm256_loadu_si256(codes.cast());
                    x[m][1] = _mm256_loadu_si256(codes.wrapping_add(16).cast());
                }
                for j in 0..ROWS {
                    let [even, odd] = even_odd::<BITS>(rows.codes[j].wrapping_add(at));
                    for m in 0..M {
                        let even = _mm256_madd_epi16(even, x[m][0]);
                        let dot = _mm256_add_epi32(even, _mm256_madd_epi16(odd, x[m][1]));
                        let factor = (*factors.wrapping_add(m))[j].as_ptr().wrapping_add(c);
                        let factor = _mm256_broadcast_ss(&*factor);
                        sums[m][j] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), factor, sums[m][j]);
                    }
                }
            }
            first = first.wrapping_add(GROUP);
        }
    }
    let mut out = [_mm_setzero_ps(); M];
    for m in 0..M {
        out[m] = lanes_sums(sums[m]);
    }
    out
}

/// The first `count` lanes.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn lanes(count: usize) -> __m256i {
    let numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), numbers)
}

/// The sums of the lanes of four vectors.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn lanes_sums(rows: [__m256; ROWS]) -> __m128 {
    let pairs = _mm256_hadd_ps(_mm256_hadd_ps(rows[0], rows[1]), _mm256_hadd_ps(rows[2], rows[3]));
    _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps::<1>(pairs))
}
