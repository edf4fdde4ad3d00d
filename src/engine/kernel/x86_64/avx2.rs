//! AVX2 and FMA: weights as unsigned bytes, activations as 16-bit words.
//!
//! `vpmaddubsw` would multiply bytes, but saturates; `vpmaddwd` on words is exact, as fast, and
//! takes 8-bit and 16-bit activations alike. Bytes become words by a mask and a shift (even and
//! odd elements), because `vpmovzxbw` has a third of their throughput on Zen 3.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{few, lanes_sum, packed};
use crate::engine::kernel::Kernel;
use crate::engine::kernel::activations::Layout;
use crate::engine::kernel::panel::{Dots, Isa, Panel, multiply, strip};

#[derive(Debug)]
pub struct Avx2;

/// How far ahead of the weights being read the next are asked for. Measured: 4 KiB lifts one core
/// from 7 to 9 GB/s where experts come from memory, and costs nothing where they are cached.
pub const PREFETCH_BYTES: usize = 4096;

impl Kernel for Avx2 {
    fn name(&self) -> &'static str {
        "avx2"
    }

    fn layout(&self) -> Layout {
        Layout::WordsEvenOdd
    }

    fn weight_offset(&self) -> u8 {
        0
    }

    fn multiply(&self, panel: &mut Panel<'_>) {
        panel.check(self.layout());
        // SAFETY: checked; `detected` lists this kernel only where AVX2 and FMA are.
        unsafe {
            if panel.x.chunk() == 32 {
                let done = match panel.columns.len() {
                    1..=few::COLUMNS_MAX => few::multiply(panel),
                    _ => packed::multiply(panel),
                };
                panel.skip(done);
            }
            multiply::<Self>(panel);
        }
    }
}

impl Isa for Avx2 {
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn block_factors(
        weights: &[f32],
        x_scales: &[f32],
        x_sums: &[f32],
        out: *mut f32,
    ) -> f32 {
        let len = weights.len();
        let (weights, x_scales, x_sums) = (weights.as_ptr(), x_scales.as_ptr(), x_sums.as_ptr());
        let mut c = 0usize;
        // SAFETY: the slices and `out` hold `len` floats; the CPU has AVX2 and FMA.
        unsafe {
            let mut off = _mm256_setzero_ps();
            while c.wrapping_add(8) <= len {
                let scales = _mm256_loadu_ps(weights.add(c));
                let product = _mm256_mul_ps(scales, _mm256_loadu_ps(x_scales.add(c)));
                _mm256_storeu_ps(out.add(c), product);
                off = _mm256_fmadd_ps(scales, _mm256_loadu_ps(x_sums.add(c)), off);
                c = c.wrapping_add(8);
            }
            let mut off = lanes_sum(off);
            while c < len {
                let scale = *weights.add(c);
                out.add(c).write(scale * *x_scales.add(c));
                off += scale * *x_sums.add(c);
                c = c.wrapping_add(1);
            }
            off
        }
    }

    unsafe fn strip<const M: usize, const CHUNK: usize, const BITS: usize>(
        panel: &mut Panel<'_>,
        rows: Range<usize>,
        m: usize,
    ) {
        #[target_feature(enable = "avx2,fma")]
        #[inline(never)]
        unsafe fn shape<const M: usize, const CHUNK: usize, const BITS: usize>(
            panel: &mut Panel<'_>,
            rows: Range<usize>,
            m: usize,
        ) {
            // SAFETY: as for the caller.
            unsafe { strip::<Avx2, M, CHUNK, BITS>(panel, rows, m) }
        }
        // SAFETY: the same conditions.
        unsafe { shape::<M, CHUNK, BITS>(panel, rows, m) }
    }

    #[inline(always)]
    unsafe fn dots<const N: usize, const M: usize, const CHUNK: usize, const BITS: usize>(
        dots: &Dots<N, M>,
    ) -> [[f32; N]; M] {
        // SAFETY: the pointers are good for `chunks` chunks (`Dots`); the rest are intrinsics.
        unsafe {
            // Loops, here and below: closures (`array::from_fn`) would not be inlined, because
            // they lack the target's features.
            let mut words = [std::ptr::null::<i16>(); M];
            for m in 0..M {
                words[m] = dots.codes[m].cast();
            }
            let mut sums = [[_mm256_setzero_ps(); N]; M];
            // Rows lie one behind the other: asking for as many bytes as are read, one distance
            // ahead, covers the rows that follow.
            let mut ahead = dots.weights.wrapping_add(PREFETCH_BYTES);
            let mut weights = dots.weights;
            let mut factors = dots.factors;
            for _ in 0..dots.chunks {
                if M <= 2 {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                    if N * CHUNK * BITS / 8 > 64 {
                        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64).cast());
                    }
                    ahead = ahead.wrapping_add(N * CHUNK * BITS / 8);
                }
                let mut x = [[_mm256_setzero_si256(); 2]; M];
                for m in 0..M {
                    x[m][0] = _mm256_loadu_si256(words[m].cast());
                    if CHUNK == 32 {
                        x[m][1] = _mm256_loadu_si256(words[m].add(16).cast());
                    }
                    words[m] = words[m].add(CHUNK);
                }
                for n in 0..N {
                    let row = weights.add(dots.rows[n]);
                    let [even, odd] = if CHUNK == 32 {
                        even_odd::<BITS>(row)
                    } else {
                        let bytes = _mm_loadu_si128(row.cast());
                        [_mm256_cvtepu8_epi16(bytes), _mm256_setzero_si256()]
                    };
                    for m in 0..M {
                        let mut dot = _mm256_madd_epi16(even, x[m][0]);
                        if CHUNK == 32 {
                            dot = _mm256_add_epi32(dot, _mm256_madd_epi16(odd, x[m][1]));
                        }
                        let factor = _mm256_broadcast_ss(&*factors[m].add(dots.factor_rows[n]));
                        sums[m][n] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), factor, sums[m][n]);
                    }
                }
                weights = weights.add(CHUNK * BITS / 8);
                for factors in &mut factors {
                    *factors = factors.wrapping_add(1);
                }
            }
            let mut out = [[0f32; N]; M];
            for m in 0..M {
                for n in 0..N {
                    out[m][n] = lanes_sum(sums[m][n]);
                }
            }
            out
        }
    }
}

/// 32 codes as words: the even ones, then the odd ones.
///
/// # Safety
/// The CPU has AVX2, and `codes` is good for 32 codes.
#[inline(always)]
pub unsafe fn even_odd<const BITS: usize>(codes: *const u8) -> [__m256i; 2] {
    // SAFETY: the same conditions.
    unsafe {
        if BITS == 4 {
            let bytes = _mm256_cvtepu8_epi16(_mm_loadu_si128(codes.cast()));
            [_mm256_and_si256(bytes, _mm256_set1_epi16(15)), _mm256_srli_epi16::<4>(bytes)]
        } else {
            let bytes = _mm256_loadu_si256(codes.cast());
            [_mm256_and_si256(bytes, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(bytes)]
        }
    }
}
