//! Matrix kernels for quantised weights: the arithmetic of an expert, and nothing else.
//!
//! Weights are read where they lie, in the file's layout: `[n, k]`, k contiguous, 8, 4 or 2 bits
//! wide, with a scale (and maybe a zero point) for each row or for each block of k. Activations
//! are quantised first ([`activations`]); [`matmul`] hands rows of weights as [`panel`]s to a
//! [`Kernel`], which multiplies them with the instructions of this CPU. Every kernel gives the
//! integers of the scalar one.
//!
//! This folder and `engine/mapping.rs` are the only places with `unsafe`. It knows neither
//! experts nor gates, neither ONNX nor tract.

#![expect(unsafe_code, reason = "instructions are chosen at run time, and read through pointers")]
#![expect(clippy::needless_range_loop, reason = "one index walks several slices of a panel")]

pub mod activations;
pub mod float;
pub mod matmul;
pub mod panel;
pub mod pool;
mod scalar;
mod select;
pub mod wide;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(all(target_arch = "arm", arm_neon))]
mod arm;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use select::{KERNEL_VARIABLE, SelectError, active, available, by_name};

use activations::Layout;
use panel::Panel;

/// Matrix multiplication with one instruction set.
pub trait Kernel: Send + Sync {
    /// Its name, as `MOED_KERNEL` and the logs spell it.
    fn name(&self) -> &'static str;

    /// The order in which it wants the quantised activations.
    fn layout(&self) -> Layout;

    /// What it takes off each weight of 8 bits: 0 if it multiplies unsigned bytes, 128 if signed
    /// ones. Weights of 4 bits it takes as they are.
    fn weight_offset(&self) -> u8;

    /// Multiplies a panel: see [`Panel`].
    fn multiply(&self, panel: &mut Panel<'_>);
}

/// Whether weights of so many bytes stay in the last-level cache from one run to the next: they
/// take at most half of it. Never where its size is not known.
pub fn cache_holds(bytes: u64) -> bool {
    #[cfg(target_arch = "x86_64")]
    return bytes <= x86_64::last_level_bytes() / 2;
    #[cfg(not(target_arch = "x86_64"))]
    return bytes == 0;
}

impl std::fmt::Debug for dyn Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
