//! Kernels for AArch64: plain NEON, the dot product extension, and the matrix one.
//!
//! All take activations as signed bytes and turn weight bytes into signed ones by flipping the
//! top bit. Two-digit activations cost one more round of products for each chunk.

mod dotprod;
mod i8mm;
mod neon;

use std::arch::aarch64::*;
use std::arch::asm;

use super::Kernel;
use super::activations::DIGIT_BASE;
use super::panel::Dots;

/// Those that this CPU says it can run, best first.
pub fn detected() -> Vec<&'static dyn Kernel> {
    let mut kernels: Vec<&'static dyn Kernel> = Vec::new();
    let dotprod = std::arch::is_aarch64_feature_detected!("dotprod");
    if dotprod && std::arch::is_aarch64_feature_detected!("i8mm") {
        kernels.push(&i8mm::I8mm);
    }
    if dotprod {
        kernels.push(&dotprod::DotProd);
    }
    if std::arch::is_aarch64_feature_detected!("neon") {
        kernels.push(&neon::Neon);
    }
    kernels
}

/// What a kernel subtracts from weight bytes: flipping the top bit makes them signed.
const WEIGHT_OFFSET: u8 = 128;

/// Bytes of a chunk in vectors; the second is not used where chunks are of 16.
type Chunk = [int8x16_t; 2];

/// An instruction set's product of one chunk of weights and one of x.
trait ChunkDot {
    /// Adds products to `sum`, in lanes whose total is the dot product.
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn dot<const CHUNK: usize>(sum: int32x4_t, weights: Chunk, x: Chunk) -> int32x4_t;
}

/// [`super::panel::Isa::dots`] for products of one weight row and one row of x.
///
/// # Safety
/// The CPU has the instructions of `D`, and the pointers of `dots` are good as its fields say.
#[inline(always)]
unsafe fn lane_dots<
    D: ChunkDot,
    const N: usize,
    const M: usize,
    const CHUNK: usize,
    const BITS: usize,
>(
    dots: &Dots<N, M>,
) -> [[f32; N]; M] {
    // SAFETY: the same conditions.
    unsafe {
        if dots.low_digits > 0 {
            lane_dots_of::<D, N, M, CHUNK, BITS, 2>(dots)
        } else {
            lane_dots_of::<D, N, M, CHUNK, BITS, 1>(dots)
        }
    }
}

#[inline(always)]
unsafe fn lane_dots_of<
    D: ChunkDot,
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
        let mut sums = [[vdupq_n_f32(0.0); N]; M];
        for c in 0..dots.chunks {
            // What there is less of stays in registers; the other passes by.
            if M > N {
                let mut rows = [[vdupq_n_s8(0); 2]; N];
                for n in 0..N {
                    rows[n] = load_weights::<CHUNK, BITS>(weights[n]);
                    weights[n] = weights[n].wrapping_add(CHUNK * BITS / 8);
                }
                for m in 0..M {
                    if N > 1 && m > 0 {
                        for plane in 0..PLANES {
                            x[m][plane] = after(x[m][plane], sums[m - 1][N - 1]);
                        }
                    }
                    let codes = next_codes::<CHUNK, PLANES>(&mut x[m]);
                    for n in 0..N {
                        let dot = digits_dot::<D, CHUNK, PLANES>(rows[n], codes);
                        sums[m][n] = vfmaq_n_f32(sums[m][n], dot, *factors[m][n].add(c));
                    }
                }
            } else {
                let mut codes = [[[vdupq_n_s8(0); 2]; PLANES]; M];
                for m in 0..M {
                    codes[m] = next_codes::<CHUNK, PLANES>(&mut x[m]);
                }
                for n in 0..N {
                    if M > 1 && n > 0 {
                        weights[n] = after(weights[n], sums[M - 1][n - 1]);
                    }
                    let row = load_weights::<CHUNK, BITS>(weights[n]);
                    weights[n] = weights[n].wrapping_add(CHUNK * BITS / 8);
                    for m in 0..M {
                        let dot = digits_dot::<D, CHUNK, PLANES>(row, codes[m]);
                        sums[m][n] = vfmaq_n_f32(sums[m][n], dot, *factors[m][n].add(c));
                    }
                }
            }
        }
        let mut out = [[0f32; N]; M];
        for m in 0..M {
            for n in 0..N {
                out[m][n] = vaddvq_f32(sums[m][n]);
            }
        }
        out
    }
}

/// The digits of a chunk of one row of x; moves on to the next chunk.
///
/// # Safety
/// The pointers are good for `CHUNK` bytes.
#[inline(always)]
unsafe fn next_codes<const CHUNK: usize, const PLANES: usize>(
    x: &mut [*const i8; PLANES],
) -> [Chunk; PLANES] {
    // SAFETY: the caller vouches for the bytes.
    unsafe {
        let mut codes = [[vdupq_n_s8(0); 2]; PLANES];
        for plane in 0..PLANES {
            codes[plane] = load::<CHUNK>(x[plane]);
            x[plane] = x[plane].wrapping_add(CHUNK);
        }
        codes
    }
}

/// The dot product of one chunk, in lanes, from one digit or two.
///
/// # Safety
/// The CPU has the instructions of `D`.
#[inline(always)]
unsafe fn digits_dot<D: ChunkDot, const CHUNK: usize, const PLANES: usize>(
    weights: Chunk,
    codes: [Chunk; PLANES],
) -> float32x4_t {
    // SAFETY: the same conditions.
    unsafe {
        let mut dot = D::dot::<CHUNK>(vdupq_n_s32(0), weights, codes[0]);
        if PLANES == 2 {
            dot = vmulq_n_s32(dot, DIGIT_BASE);
            dot = D::dot::<CHUNK>(dot, weights, codes[PLANES - 1]);
        }
        vcvtq_f32_s32(dot)
    }
}

/// Where the digits of each row of x start, for each plane.
#[inline(always)]
fn x_pointers<const N: usize, const M: usize, const PLANES: usize>(
    dots: &Dots<N, M>,
) -> [[*const i8; PLANES]; M] {
    let mut x = [[std::ptr::null::<i8>(); PLANES]; M];
    for m in 0..M {
        for plane in 0..PLANES {
            let digits = if plane == 0 { 0 } else { dots.low_digits };
            x[m][plane] = dots.codes[m].wrapping_add(digits).cast();
        }
    }
    x
}

/// `pointer`, which the compiler believes to depend on `sum`. Otherwise it would start on all
/// rows of a tile at once, run out of registers and spill. Costs no instruction.
#[expect(clippy::pointers_in_nomem_asm_block, reason = "nothing is read through it")]
#[inline(always)]
fn after<T>(mut pointer: *const T, sum: float32x4_t) -> *const T {
    // SAFETY: there is no code in it.
    unsafe {
        asm!(
            "/* {pointer} {sum:v} */",
            pointer = inout(reg) pointer,
            sum = in(vreg) sum,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    pointer
}

/// # Safety
/// `bytes` is good for `CHUNK` bytes.
#[inline(always)]
unsafe fn load<const CHUNK: usize>(bytes: *const i8) -> Chunk {
    // SAFETY: the caller vouches for the bytes.
    unsafe {
        let low = vld1q_s8(bytes);
        if CHUNK == 32 { [low, vld1q_s8(bytes.add(16))] } else { [low, vdupq_n_s8(0)] }
    }
}

/// A chunk of weights, a byte each: those of 8 bits less [`WEIGHT_OFFSET`].
///
/// # Safety
/// `bytes` is good for `CHUNK` codes of `BITS` bits.
#[inline(always)]
unsafe fn load_weights<const CHUNK: usize, const BITS: usize>(bytes: *const u8) -> Chunk {
    // SAFETY: the caller vouches for the bytes.
    unsafe {
        if BITS == 4 {
            let bytes = vld1q_u8(bytes);
            let even = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15)));
            let odd = vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes));
            return [vzip1q_s8(even, odd), vzip2q_s8(even, odd)];
        }
        let [low, high] = load::<CHUNK>(bytes.cast());
        let top_bit = vdupq_n_s8(i8::MIN);
        [veorq_s8(low, top_bit), veorq_s8(high, top_bit)]
    }
}
