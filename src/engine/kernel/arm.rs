//! The kernel for ARMv7 with NEON: a Raspberry Pi whose system has 32 bits.
//!
//! In assembly, because Rust's intrinsics for it are not stable, and the compiler makes little of
//! plain loops. Bytes are multiplied into 16-bit lanes as in `aarch64::neon`, which says why that
//! is exact. Two weight rows are computed together: these CPUs start instructions in order, so
//! each must have another one to wait beside.
//!
//! Compiled where `.cargo/config.toml` sets `arm_neon`.

use std::arch::asm;
use std::ops::Range;

use super::Kernel;
use super::activations::Layout;
use super::panel::{Dots, Isa, Panel, multiply, strip};

#[derive(Debug)]
pub struct Neon;

/// What this CPU says it can run.
pub fn detected() -> Vec<&'static dyn Kernel> {
    // HWCAP_NEON of Linux's arch/arm/include/uapi/asm/hwcap.h.
    const NEON: usize = 1 << 12;
    if rustix::param::linux_hwcap().0 & NEON != 0 { vec![&Neon] } else { Vec::new() }
}

impl Kernel for Neon {
    fn name(&self) -> &'static str {
        "neon"
    }

    fn layout(&self) -> Layout {
        Layout::Bytes
    }

    fn weight_offset(&self) -> u8 {
        128
    }

    fn multiply(&self, panel: &mut Panel<'_>) {
        panel.check(self.layout());
        // SAFETY: checked; `detected` lists this kernel only where NEON is.
        unsafe { multiply::<Self>(panel) }
    }
}

impl Isa for Neon {
    // What it decides is that four weight rows go with two rows of x: here, rows go in twos.
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
        let mut sums = [[0f32; N]; M];
        if dots.chunks == 0 {
            return sums;
        }
        for m in 0..M {
            for n in (0..N).step_by(2) {
                // The last of an odd number of rows is its own neighbour.
                let pair = [n, if n + 1 < N { n + 1 } else { n }];
                let rows = TwoRows {
                    weights: pair.map(|n| dots.weights.wrapping_add(dots.rows[n])),
                    codes: dots.codes[m],
                    low_digits: dots.low_digits,
                    factors: pair.map(|n| dots.factors[m].wrapping_add(dots.factor_rows[n])),
                    chunks: dots.chunks,
                };
                // SAFETY: the pointers are good for `chunks` chunks, as `Dots` says.
                let pair_sums = unsafe {
                    match (CHUNK, BITS, dots.low_digits) {
                        (16, _, 0) => rows.bytes16(),
                        (16, _, _) => rows.bytes16_digits(),
                        (_, 8, 0) => rows.bytes32(),
                        (_, 8, _) => rows.bytes32_digits(),
                        (_, _, 0) => rows.halves32(),
                        (_, _, _) => rows.halves32_digits(),
                    }
                };
                for (n, sum) in pair.into_iter().zip(pair_sums) {
                    sums[m][n] = sum;
                }
            }
        }
        sums
    }
}

/// Two weight rows and a row of x, as [`Dots`] has them.
struct TwoRows {
    weights: [*const u8; 2],
    codes: *const u8,
    low_digits: usize,
    factors: [*const f32; 2],
    chunks: usize,
}

/// A function of [`TwoRows`] for a kind of weights, and x of one digit or two.
///
/// | registers | what they hold |
/// |---|---|
/// | q2, q3 | a chunk of x |
/// | q4 and q5, q6 and q7 | a chunk of each weight row |
/// | q8, q10 | each row's products, summed in 32 bits |
/// | q12, q13 | each row's sums |
/// | q14 | what weights are masked with |
macro_rules! two_rows {
    ($name:ident, $mask:literal, $load_x:expr, [$($load_weights:literal),*]
     $(, low: $load_low_digits:expr)?) => {
        /// # Safety
        /// The CPU has NEON, and the pointers are good for `chunks` chunks, one at least.
        unsafe fn $name(self) -> [f32; 2] {
            let mut sums = [0f32; 2];
            // SAFETY: it reads what the caller vouches for, and writes `sums`.
            unsafe {
                asm!(
                    "vmov.i32 q12, #0",
                    "vmov.i32 q13, #0",
                    // The halves that chunks of 16 do not have.
                    "vmov.i32 q3, #0",
                    "vmov.i32 q5, #0",
                    "vmov.i32 q7, #0",
                    concat!("vmov.i8 q14, #", $mask),
                    "2:",
                    $load_x,
                    $($load_weights,)*
                    "vmull.s8 q8, d8, d4",
                    "vmull.s8 q9, d10, d6",
                    "vmull.s8 q10, d12, d4",
                    "vmull.s8 q11, d14, d6",
                    "vmlal.s8 q8, d9, d5",
                    "vmlal.s8 q9, d11, d7",
                    "vmlal.s8 q10, d13, d5",
                    "vmlal.s8 q11, d15, d7",
                    "vpaddl.s16 q8, q8",
                    "vpaddl.s16 q10, q10",
                    "vpadal.s16 q8, q9",
                    "vpadal.s16 q10, q11",
                    $(
                        $load_low_digits,
                        // Times 255, the base of the digits.
                        "vshl.i32 q9, q8, #8",
                        "vshl.i32 q11, q10, #8",
                        "vsub.i32 q8, q9, q8",
                        "vsub.i32 q10, q11, q10",
                        "vmull.s8 q9, d8, d4",
                        "vmull.s8 q0, d10, d6",
                        "vmull.s8 q11, d12, d4",
                        "vmull.s8 q1, d14, d6",
                        "vmlal.s8 q9, d9, d5",
                        "vmlal.s8 q0, d11, d7",
                        "vmlal.s8 q11, d13, d5",
                        "vmlal.s8 q1, d15, d7",
                        "vpadal.s16 q8, q9",
                        "vpadal.s16 q10, q11",
                        "vpadal.s16 q8, q0",
                        "vpadal.s16 q10, q1",
                    )?
                    "vld1.32 {{d18[], d19[]}}, [{f0}]!",
                    "vld1.32 {{d22[], d23[]}}, [{f1}]!",
                    "vcvt.f32.s32 q8, q8",
                    "vcvt.f32.s32 q10, q10",
                    "subs {chunks}, {chunks}, #1",
                    "vmla.f32 q12, q8, q9",
                    "vmla.f32 q13, q10, q11",
                    "bne 2b",
                    "vadd.f32 d24, d24, d25",
                    "vadd.f32 d26, d26, d27",
                    "vpadd.f32 d24, d24, d26",
                    "vst1.32 {{d24}}, [{sums}] /* {low} */",
                    w0 = inout(reg) self.weights[0] => _,
                    w1 = inout(reg) self.weights[1] => _,
                    x = inout(reg) self.codes => _,
                    low = inout(reg) self.codes.wrapping_add(self.low_digits) => _,
                    f0 = inout(reg) self.factors[0] => _,
                    f1 = inout(reg) self.factors[1] => _,
                    chunks = inout(reg) self.chunks => _,
                    sums = in(reg) sums.as_mut_ptr(),
                    out("q0") _, out("q1") _, out("q2") _, out("q3") _, out("q4") _,
                    out("q5") _, out("q6") _, out("q7") _, out("q8") _, out("q9") _,
                    out("q10") _, out("q11") _, out("q12") _, out("q13") _, out("q14") _,
                    options(nostack),
                );
            }
            sums
        }
    };
}

/// The functions for one kind of weights, with one digit and with two.
macro_rules! weights {
    ($name:ident, $with_digits:ident, $mask:literal, $load_x:literal, $load_weights:tt) => {
        two_rows!($name, $mask, concat!($load_x, ", [{x}]!"), $load_weights);
        two_rows!($with_digits, $mask, concat!($load_x, ", [{x}]!"), $load_weights,
                  low: concat!($load_x, ", [{low}]!"));
    };
}

impl TwoRows {
    weights!(
        bytes16,
        bytes16_digits,
        "0x80",
        "vld1.8 {{d4-d5}}",
        [
            "vld1.8 {{d8-d9}}, [{w0}]!",
            "vld1.8 {{d12-d13}}, [{w1}]!",
            "veor q4, q4, q14",
            "veor q6, q6, q14"
        ]
    );
    weights!(
        bytes32,
        bytes32_digits,
        "0x80",
        "vld1.8 {{d4-d7}}",
        [
            "vld1.8 {{d8-d11}}, [{w0}]!",
            "vld1.8 {{d12-d15}}, [{w1}]!",
            "veor q4, q4, q14",
            "veor q5, q5, q14",
            "veor q6, q6, q14",
            "veor q7, q7, q14"
        ]
    );
    // Low halves of bytes are even elements: of x, even ones go to q2, odd ones to q3.
    weights!(
        halves32,
        halves32_digits,
        "15",
        "vld2.8 {{d4-d7}}",
        [
            "vld1.8 {{d8-d9}}, [{w0}]!",
            "vld1.8 {{d12-d13}}, [{w1}]!",
            "vshr.u8 q5, q4, #4",
            "vshr.u8 q7, q6, #4",
            "vand q4, q4, q14",
            "vand q6, q6, q14"
        ]
    );
}
