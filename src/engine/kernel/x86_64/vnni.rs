//! VNNI: `vpdpbusd` multiplies unsigned weight bytes with signed activation bytes, four products
//! to an exact 32-bit lane. The same instruction in two encodings: AVX-VNNI (client CPUs) and
//! AVX-512 VNNI with VL (servers).

use std::arch::x86_64::*;
use std::ops::Range;

use super::{lanes_sum, vnni_few, vnni_turned};
use crate::engine::kernel::Kernel;
use crate::engine::kernel::activations::{DIGIT_BASE, Layout};
use crate::engine::kernel::panel::{Dots, Isa, Panel, multiply, strip};

macro_rules! vnni_kernel {
    ($kernel:ident, $name:literal, $features:literal, $dot:ident, $first_rows:expr) => {
        #[derive(Debug)]
        pub struct $kernel;

        impl Kernel for $kernel {
            fn name(&self) -> &'static str {
                $name
            }

            fn layout(&self) -> Layout {
                Layout::Bytes
            }

            fn weight_offset(&self) -> u8 {
                0
            }

            fn multiply(&self, panel: &mut Panel<'_>) {
                panel.check(self.layout());
                // SAFETY: checked; `detected` lists this kernel only where its features are.
                unsafe {
                    if panel.x.chunk() == 32 {
                        let done = $first_rows(panel);
                        panel.skip(done);
                    }
                    multiply::<Self>(panel);
                }
            }
        }

        impl Isa for $kernel {
            const REGISTERS: usize = 16;

            unsafe fn strip<const M: usize, const CHUNK: usize, const BITS: usize>(
                panel: &mut Panel<'_>,
                rows: Range<usize>,
                m: usize,
            ) {
                #[target_feature(enable = $features)]
                #[inline(never)]
                unsafe fn shape<const M: usize, const CHUNK: usize, const BITS: usize>(
                    panel: &mut Panel<'_>,
                    rows: Range<usize>,
                    m: usize,
                ) {
                    // SAFETY: as for the caller.
                    unsafe { strip::<$kernel, M, CHUNK, BITS>(panel, rows, m) }
                }
                // SAFETY: the same conditions.
                unsafe { shape::<M, CHUNK, BITS>(panel, rows, m) }
            }

            #[inline(always)]
            unsafe fn dots<
                const N: usize,
                const M: usize,
                const CHUNK: usize,
                const BITS: usize,
            >(
                dots: &Dots<N, M>,
            ) -> [[f32; N]; M] {
                // SAFETY: the pointers are good for `chunks` chunks; the rest are intrinsics.
                unsafe {
                    let mut sums = [[_mm256_setzero_ps(); N]; M];
                    let base = _mm256_set1_epi32(DIGIT_BASE);
                    let (mut at, mut codes_at) = (0usize, 0usize);
                    for c in 0..dots.chunks {
                        for n in 0..N {
                            let weights = dots.weights.add(dots.rows[n]).add(at);
                            let weights = load_weights::<CHUNK, BITS>(weights);
                            for m in 0..M {
                                let codes = dots.codes[m].add(codes_at);
                                let mut sum = _mm256_setzero_si256();
                                sum = $dot(sum, weights, load::<CHUNK>(codes));
                                if dots.low_digits > 0 {
                                    let low = load::<CHUNK>(codes.add(dots.low_digits));
                                    sum = $dot(_mm256_mullo_epi32(sum, base), weights, low);
                                }
                                let factor = dots.factors[m].add(dots.factor_rows[n]).add(c);
                                let factor = _mm256_broadcast_ss(&*factor);
                                let sum = _mm256_cvtepi32_ps(sum);
                                sums[m][n] = _mm256_fmadd_ps(sum, factor, sums[m][n]);
                            }
                        }
                        at = at.wrapping_add(CHUNK * BITS / 8);
                        codes_at = codes_at.wrapping_add(CHUNK);
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
    };
}

vnni_kernel!(AvxVnni, "avxvnni", "avx2,fma,avxvnni", _mm256_dpbusd_avx_epi32, none);
vnni_kernel!(
    Avx512Vnni,
    "avx512vnni",
    "avx2,fma,avx512bw,avx512vl,avx512vnni",
    _mm256_dpbusd_epi32,
    first_rows
);

/// Multiplies the first rows of the panel in the way that suits it; returns how many.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni")]
unsafe fn first_rows(panel: &mut Panel<'_>) -> usize {
    // SAFETY: the same conditions.
    unsafe {
        let done = match panel.columns.len() {
            1..=vnni_few::COLUMNS_MAX => vnni_few::multiply(panel),
            _ => 0,
        };
        if done > 0 { done } else { vnni_turned::multiply(panel) }
    }
}

/// No rows have a better way.
unsafe fn none(_panel: &mut Panel<'_>) -> usize {
    0
}

/// A chunk of weights, a byte each.
#[inline(always)]
unsafe fn load_weights<const CHUNK: usize, const BITS: usize>(bytes: *const u8) -> __m256i {
    // SAFETY: the caller vouches for the chunk.
    unsafe {
        if BITS == 8 {
            return load::<CHUNK>(bytes);
        }
        // In each word, the low half of a byte goes to the low byte, the high half to the high one.
        let words = _mm256_cvtepu8_epi16(_mm_loadu_si128(bytes.cast()));
        let halves = _mm256_or_si256(words, _mm256_slli_epi16::<4>(words));
        _mm256_and_si256(halves, _mm256_set1_epi8(15))
    }
}

/// A chunk of 32 bytes, or of 16 with zeros above.
#[inline(always)]
unsafe fn load<const CHUNK: usize>(bytes: *const u8) -> __m256i {
    // SAFETY: the caller vouches for `CHUNK` bytes.
    unsafe {
        if CHUNK == 32 {
            _mm256_loadu_si256(bytes.cast())
        } else {
            _mm256_inserti128_si256::<0>(_mm256_setzero_si256(), _mm_loadu_si128(bytes.cast()))
        }
    }
}
