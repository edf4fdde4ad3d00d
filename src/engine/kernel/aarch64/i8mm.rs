//! The matrix extension (Cortex-A510, A710, Neoverse N2 and V1): `smmla` multiplies eight bytes
//! of two weight rows with eight bytes of two rows of x, four dot products at once.
//!
//! One row of x gains nothing from it, and three lose; they take [`DotProd`], which these CPUs have
//! too.

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use super::dotprod::DotProd;
use super::{Chunk, WEIGHT_OFFSET, after, load, load_weights, x_pointers};
use crate::engine::kernel::Kernel;
use crate::engine::kernel::activations::{DIGIT_BASE, Layout};
use crate::engine::kernel::panel::{Dots, Isa, Panel, multiply, strip};

#[derive(Debug)]
pub struct I8mm;

impl Kernel for I8mm {
    fn name(&self) -> &'static str {
        "i8mm"
    }

    fn layout(&self) -> Layout {
        Layout::Bytes
    }

    fn weight_offset(&self) -> u8 {
        WEIGHT_OFFSET
    }

    fn multiply(&self, panel: &mut Panel<'_>) {
        panel.check(self.layout());
        // SAFETY: checked; `detected` lists this kernel only where `smmla` and `sdot` are.
        unsafe { multiply::<Self>(panel) }
    }
}

impl Isa for I8mm {
    const REGISTERS: usize = 32;

    #[inline(never)]
    unsafe fn strip<const M: usize, const CHUNK: usize, const BITS: usize>(
        panel: &mut Panel<'_>,
        rows: Range<usize>,
        m: usize,
    ) {
        // SAFETY: the same conditions.
        unsafe { strip::<Self, M, CHUNK, BITS>(panel, rows, m) }
    }

    #[inline(always)]
    unsafe fn dots<const N: usize, const M: usize, const CHUNK: usize, const BITS: usize>(
        dots: &Dots<N, M>,
    ) -> [[f32; N]; M] {
        // SAFETY: the same conditions.
        unsafe {
            if M == 1 || M == 3 || N % 2 == 1 {
                DotProd::dots::<N, M, CHUNK, BITS>(dots)
            } else if dots.low_digits > 0 {
                pair_dots::<N, M, CHUNK, BITS, 2>(dots)
            } else {
                pair_dots::<N, M, CHUNK, BITS, 1>(dots)
            }
        }
    }
}

/// [`Isa::dots`] for an even `N` and `M >= 2`.
///
/// Arrays below have room for `N` or `M` items where half are needed, because a constant can't
/// be computed from another one in a type; the rest is never touched.
#[inline(always)]
unsafe fn pair_dots<
    const N: usize,
    const M: usize,
    const CHUNK: usize,
    const BITS: usize,
    const PLANES: usize,
>(
    dots: &Dots<N, M>,
) -> [[f32; N]; M] {
    // SAFETY: the pointers are good for `chunks` chunks (`Dots`); the rest are intrinsics.
    unsafe {
        let mut x = x_pointers::<N, M, PLANES>(dots);
        let mut weights = [std::ptr::null::<u8>(); N];
        for n in 0..N {
            weights[n] = dots.weights.add(dots.rows[n]);
        }
        let mut factors = [[std::ptr::null::<f32>(); N]; M];
        for m in 0..M {
            for n in 0..N {
                factors[m][n] = dots.factors[m].wrapping_add(dots.factor_rows[n]);
            }
        }
        // Of a pair of rows of x and a pair of weight rows: x0 w0, x0 w1, x1 w0, x1 w1.
        let mut sums = [[vdupq_n_f32(0.0); N]; M];
        for c in 0..dots.chunks {
            let mut codes = [[[vdupq_n_s8(0); 4]; PLANES]; M];
            for i in 0..M.div_ceil(2) {
                let (even, odd) = (2 * i, second::<M>(i));
                for plane in 0..PLANES {
                    let first = load::<CHUNK>(x[even][plane]);
                    codes[i][plane] = paired(first, load::<CHUNK>(x[odd][plane]));
                }
            }
            for m in 0..M {
                for plane in 0..PLANES {
                    x[m][plane] = x[m][plane].wrapping_add(CHUNK);
                }
            }
            for j in 0..N / 2 {
                if j > 0 {
                    weights[2 * j] = after(weights[2 * j], sums[M.div_ceil(2) - 1][j - 1]);
                }
                let first = load_weights::<CHUNK, BITS>(weights[2 * j]);
                let rows = paired(first, load_weights::<CHUNK, BITS>(weights[2 * j + 1]));
                for i in 0..M.div_ceil(2) {
                    let (even, odd) = (2 * i, second::<M>(i));
                    let mut dot = smmla_chunk::<CHUNK>(vdupq_n_s32(0), codes[i][0], rows);
                    if PLANES == 2 {
                        dot = vmulq_n_s32(dot, DIGIT_BASE);
                        dot = smmla_chunk::<CHUNK>(dot, codes[i][PLANES - 1], rows);
                    }
                    let mut factor = vld1q_dup_f32(factors[even][2 * j].add(c));
                    factor = vld1q_lane_f32::<1>(factors[even][2 * j + 1].add(c), factor);
                    factor = vld1q_lane_f32::<2>(factors[odd][2 * j].add(c), factor);
                    factor = vld1q_lane_f32::<3>(factors[odd][2 * j + 1].add(c), factor);
                    sums[i][j] = vfmaq_f32(sums[i][j], vcvtq_f32_s32(dot), factor);
                }
            }
            for n in 0..N {
                weights[n] = weights[n].wrapping_add(CHUNK * BITS / 8);
            }
        }
        let mut out = [[0f32; N]; M];
        for i in 0..M.div_ceil(2) {
            for j in 0..N / 2 {
                let mut lanes = [0f32; 4];
                vst1q_f32(lanes.as_mut_ptr(), sums[i][j]);
                let (even, odd) = (2 * i, second::<M>(i));
                out[odd][2 * j] = lanes[2];
                out[odd][2 * j + 1] = lanes[3];
                out[even][2 * j] = lanes[0];
                out[even][2 * j + 1] = lanes[1];
            }
        }
        out
    }
}

/// The second row of x of pair `i`: the first one again at an odd end.
#[inline(always)]
const fn second<const M: usize>(i: usize) -> usize {
    if 2 * i + 1 < M { 2 * i + 1 } else { 2 * i }
}

/// Eights of bytes of two rows, side by side.
#[inline(always)]
unsafe fn paired(first: Chunk, second: Chunk) -> [int8x16_t; 4] {
    // SAFETY: NEON is part of the target.
    unsafe {
        let mut pairs = [first[0]; 4];
        for half in 0..2 {
            let a = vreinterpretq_s64_s8(first[half]);
            let b = vreinterpretq_s64_s8(second[half]);
            pairs[2 * half] = vreinterpretq_s8_s64(vzip1q_s64(a, b));
            pairs[2 * half + 1] = vreinterpretq_s8_s64(vzip2q_s64(a, b));
        }
        pairs
    }
}

#[inline(always)]
unsafe fn smmla_chunk<const CHUNK: usize>(
    mut sum: int32x4_t,
    x: [int8x16_t; 4],
    weights: [int8x16_t; 4],
) -> int32x4_t {
    for eight in 0..CHUNK / 8 {
        // SAFETY: the caller has the instruction.
        sum = unsafe { smmla(sum, x[eight], weights[eight]) };
    }
    sum
}

#[inline(always)]
unsafe fn smmla(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the caller has the instruction; it touches these registers only.
    unsafe {
        asm!(
            ".arch_extension i8mm",
            "smmla {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
