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

#[inline(always)]
fn dot(weights: &[u8], codes: &[i16]) -> i32 {
    let products = weights.iter().zip(codes);
    products.map(|(&weight, &code)| (i32::from(weight) - 128) * i32::from(code)).sum()
}

/// Of codes of 4 bits.
#[inline(always)]
fn dot4(weights: &[u8], codes: &[i16]) -> i32 {
    let products = weights.iter().zip(codes.as_chunks::<2>().0).map(|(&byte, &[even, odd])| {
        i32::from(byte & 15) * i32::from(even) + i32::from(byte >> 4) * i32::from(odd)
    });
    products.sum()
}
