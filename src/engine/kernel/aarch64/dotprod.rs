//! The dot product extension (Cortex-A55, A76, A78AE): `sdot` adds four products of bytes to a
//! 32-bit lane.
//!
//! Its intrinsic is not stable yet, so it is inline assembly, which also spares the functions
//! around it a `target_feature`.

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use super::{Chunk, ChunkDot, WEIGHT_OFFSET, lane_dots};
use crate::engine::kernel::Kernel;
use crate::engine::kernel::activations::Layout;
use crate::engine::kernel::panel::{Dots, Isa, Panel, multiply, strip};

#[derive(Debug)]
pub struct DotProd;

impl Kernel for DotProd {
    fn name(&self) -> &'static str {
        "dotprod"
    }

    fn layout(&self) -> Layout {
        Layout::Bytes
    }

    fn weight_offset(&self) -> u8 {
        WEIGHT_OFFSET
    }

    fn multiply(&self, panel: &mut Panel<'_>) {
        panel.check(self.layout());
        // SAFETY: checked; `detected` lists this kernel only where `sdot` is.
        unsafe { multiply::<Self>(panel) }
    }
}

impl Isa for DotProd {
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
        unsafe { lane_dots::<Self, N, M, CHUNK, BITS>(dots) }
    }
}

impl ChunkDot for DotProd {
    #[inline(always)]
    unsafe fn dot<const CHUNK: usize>(sum: int32x4_t, weights: Chunk, x: Chunk) -> int32x4_t {
        // SAFETY: the caller has the instruction.
        unsafe {
            let mut sum = sdot(sum, weights[0], x[0]);
            if CHUNK == 32 {
                sum = sdot(sum, weights[1], x[1]);
            }
            sum
        }
    }
}

#[inline(always)]
unsafe fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the caller has the instruction; it touches these registers only.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
