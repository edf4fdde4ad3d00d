//! The kernel in plain Rust: what the others must equal, and what runs where none of them can.

use std::ops::Range;

use super::Kernel;
use super::activations::Layout;
use super::panel::{Dots, Isa, Panel, multiply, strip};

#[derive(Debug)]
pub struct Scalar;

impl Kernel for Scalar {
    fn name(&self) -> &'static str {
        "scalar"
    }

    fn layout(&self) -> Layout {
        Layout::Words
    }

    fn weight_offset(&self) -> u8 {
        128
    }

    fn multiply(&self, panel: &mut Panel<'_>) {
        panel.check(self.layout());
        // SAFETY: checked; it needs no instructions of its own.
        unsafe { multiply::<Self>(panel) }
    }
}

impl Isa for Scalar {
    const REGISTERS: usize = 32;

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
        for (m, sums) in sums.iter_mut().enumerate() {
            let codes = dots.codes[m].cast::<i16>();
            for (n, sum) in sums.iter_mut().enumerate() {
                for c in 0..dots.chunks {
                    // SAFETY: the caller vouches for N rows of `chunks` chunks, as many codes,
                    // which are words, and their factors.
                    let (weights, codes, factor) = unsafe {
                        let bytes = CHUNK * BITS / 8;
                        let row = dots.weights.add(dots.rows[n] + c * bytes);
                        let factor = *dots.factors[m].add(dots.factor_rows[n] + c);
                        let codes = std::slice::from_raw_parts(codes.add(c * CHUNK), CHUNK);
                        (std::slice::from_raw_parts(row, bytes), codes, factor)
                    };
                    let dot = if BITS == 8 { dot(weights, codes) } else { dot4(weights, codes) };
                    *sum += dot as f32 * factor;
                }
            }
        }
        sums
    }
}

// A chunk's sum is far from overflowing. Wrapping sums vectorise, checked ones do not.

#[inline(always)]
fn dot(weights: &[u8], codes: &[i16]) -> i32 {
    let mut sum = 0i32;
    for (&weight, &code) in weights.iter().zip(codes) {
        let weight = i16::from(weight).wrapping_sub(128);
        sum = sum.wrapping_add(i32::from(weight).wrapping_mul(i32::from(code)));
    }
    sum
}

/// Of codes of 4 bits.
#[inline(always)]
fn dot4(weights: &[u8], codes: &[i16]) -> i32 {
    let mut sum = 0i32;
    for (&byte, &[even, odd]) in weights.iter().zip(codes.as_chunks::<2>().0) {
        let (low, high) = (i16::from(byte & 15), i16::from(byte >> 4));
        sum = sum.wrapping_add(i32::from(low).wrapping_mul(i32::from(even)));
        sum = sum.wrapping_add(i32::from(high).wrapping_mul(i32::from(odd)));
    }
    sum
}
