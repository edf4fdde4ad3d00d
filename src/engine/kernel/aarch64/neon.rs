//! Baseline NEON (Cortex-A53, A57, A72): bytes are multiplied into 16-bit lanes.
//!
//! A 16-bit lane holds two products exactly, since weights are within -128..=127 and digits
//! within -127..=127: `2 * 128 * 127 = 32512`. After two, lanes are added in pairs to 32 bits.

use std::arch::aarch64::*;
use std::ops::Range;

use super::{Chunk, ChunkDot, WEIGHT_OFFSET, lane_dots};
use crate::engine::kernel::Kernel;
use crate::engine::kernel::activations::Layout;
use crate::engine::kernel::panel::{Dots, Isa, Panel, multiply, strip};

#[derive(Debug)]
pub struct Neon;

impl Kernel for Neon {
    fn name(&self) -> &'static str {
        "neon"
    }

    fn layout(&self) -> Layout {
        Layout::Bytes
    }

    fn weight_offset(&self) -> u8 {
        WEIGHT_OFFSET
    }

    fn multiply(&self, panel: &mut Panel<'_>) {
        panel.check(self.layout());
        // SAFETY: checked; NEON is part of the target.
        unsafe { multiply::<Self>(panel) }
    }
}

impl Isa for Neon {
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

impl ChunkDot for Neon {
    #[inline(always)]
    unsafe fn dot<const CHUNK: usize>(sum: int32x4_t, weights: Chunk, x: Chunk) -> int32x4_t {
        // SAFETY: NEON is part of the target.
        unsafe {
            let mut sum = vpadalq_s16(sum, pair_products(weights[0], x[0]));
            if CHUNK == 32 {
                sum = vpadalq_s16(sum, pair_products(weights[1], x[1]));
            }
            sum
        }
    }
}

/// Sixteen products in eight lanes.
#[inline(always)]
unsafe fn pair_products(weights: int8x16_t, x: int8x16_t) -> int16x8_t {
    // SAFETY: NEON is part of the target.
    unsafe {
        let low = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
        vmlal_high_s8(low, weights, x)
    }
}
