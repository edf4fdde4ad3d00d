//! Which kernels this CPU can run, and the one that is used.
//!
//! A kernel is taken only after it has reproduced the scalar kernel's answer on a small fixed
//! problem: a CPU or an emulator that claims an instruction and computes something else costs
//! speed here, not correctness.

use std::sync::OnceLock;

use super::activations::{Activations, ChunkShape, Precision};
use super::matmul::{Matrix, matmul};
use super::{Kernel, scalar};

/// The environment variable that names the kernel to use, for tests and for finding faults.
pub const KERNEL_VARIABLE: &str = "MOED_KERNEL";

/// Why the kernel that was asked for can't be used.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum SelectError {
    #[error(
        "kernel `{name}`: this CPU can't run it, or there is no such kernel: \
         unset {KERNEL_VARIABLE} or choose one of: {known}"
    )]
    Unknown { name: String, known: String },
}

/// The kernels that this CPU can run, best first. The last is always `scalar`.
pub fn available() -> &'static [&'static dyn Kernel] {
    static AVAILABLE: OnceLock<Vec<&'static dyn Kernel>> = OnceLock::new();
    AVAILABLE.get_or_init(|| {
        let mut kernels = detected();
        kernels.retain(|kernel| {
            let right = reproduces_scalar(*kernel);
            if !right {
                log::error!("kernel {}: wrong answer on this CPU: not used", kernel.name());
            }
            right
        });
        kernels.push(&scalar::Scalar);
        kernels
    })
}

fn detected() -> Vec<&'static dyn Kernel> {
    #[cfg(target_arch = "x86_64")]
    return super::x86_64::detected();
    #[cfg(target_arch = "aarch64")]
    return super::aarch64::detected();
    #[cfg(all(target_arch = "arm", arm_neon))]
    return super::arm::detected();
    #[cfg(not(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        all(target_arch = "arm", arm_neon)
    )))]
    return Vec::new();
}

/// The kernel called `name`, if this CPU can run it.
pub fn by_name(name: &str) -> Result<&'static dyn Kernel, SelectError> {
    let found = available().iter().find(|kernel| kernel.name() == name);
    found.copied().ok_or_else(|| {
        let known: Vec<_> = available().iter().map(|kernel| kernel.name()).collect();
        SelectError::Unknown { name: name.to_owned(), known: known.join(", ") }
    })
}

/// The kernel in use: the best one, or the one that `MOED_KERNEL` names. Chosen once.
#[expect(clippy::disallowed_methods, reason = "until src/config reads MOED_KERNEL and hands it in")]
pub fn active() -> Result<&'static dyn Kernel, SelectError> {
    static ACTIVE: OnceLock<Result<&'static dyn Kernel, SelectError>> = OnceLock::new();
    let chosen = ACTIVE.get_or_init(|| {
        let kernel = match std::env::var_os(KERNEL_VARIABLE) {
            Some(name) if !name.is_empty() => by_name(&name.to_string_lossy())?,
            _ => available()[0],
        };
        log::info!("kernel {}: chosen for this CPU", kernel.name());
        Ok(kernel)
    });
    chosen.clone()
}

/// Runs a small problem with both precisions, all kinds of scales and every tile size.
fn reproduces_scalar(kernel: &dyn Kernel) -> bool {
    const ROWS: usize = 7;
    // Five fours of rows, of which some kernels take two at a time, and three left over.
    const N: usize = 23;
    // Nine chunks: more than any kernel takes together, and an odd number.
    const K: usize = 288;
    // With one chunk more, they are whole blocks of 64.
    const K_OF_64: usize = 320;
    let weights: Vec<u8> = (0..N * K_OF_64).map(|i| (i * 89 + i / 7) as u8).collect();
    // Integers whose largest in each block is 127: with 8 bits they are their own codes, and all
    // sums are integers that f32 holds.
    let value = |i: usize| if i % 16 == 5 { -127.0 } else { ((i * 57) % 251) as f32 - 125.0 };
    let x: Vec<f32> = (0..ROWS * K_OF_64).map(value).collect();
    let kinds = [(8, Some(16)), (8, Some(32)), (8, Some(64)), (8, None), (4, Some(32)), (4, None)];
    let with_zeros = kinds.into_iter().flat_map(|kind| [(kind, false), (kind, true)]);
    with_zeros.into_iter().all(|((bits, block), has_zeros)| {
        let k = if block == Some(64) { K_OF_64 } else { K };
        // Powers of two: products with them are exact, and one in another's place shows.
        let scales: Vec<f32> =
            (0..N * block.map_or(1, |block| k / block)).map(|i| [1.0, 2.0, 4.0][i % 3]).collect();
        let zeros: Vec<u8> = (0..scales.len()).map(|i| (i % (1 << bits)) as u8).collect();
        let zeros = has_zeros.then_some(zeros.as_slice());
        let weights = &weights[..N * k * usize::from(bits) / 8];
        let matrix = Matrix::new(weights, bits, N, k, block, &scales, zeros);
        [(Precision::Int8, 0.0), (Precision::Int16, 8.0)].into_iter().all(
            |(precision, error_max)| {
                (1..=ROWS).all(|rows| {
                    let x = &x[..rows * k];
                    let want = product(&scalar::Scalar, &matrix, x, k, block, precision);
                    [false, true].into_iter().all(|cached| {
                        let matrix = matrix.cached(cached);
                        let got = product(kernel, &matrix, x, k, block, precision);
                        got.iter().zip(&want).all(|(got, want)| (got - want).abs() <= error_max)
                    })
                })
            },
        )
    })
}

fn product(
    kernel: &dyn Kernel,
    matrix: &Matrix<'_>,
    x: &[f32],
    k: usize,
    block: Option<usize>,
    precision: Precision,
) -> Vec<f32> {
    let mut activations = Activations::default();
    let shape = ChunkShape::of_weights(block);
    let quantised = activations.quantise(x, k, shape, precision, kernel.layout());
    debug_assert!(quantised.is_ok());
    let rows: Vec<u32> = (0..(x.len() / k) as u32).collect();
    let mut out = vec![0f32; rows.len() * matrix.n()];
    let (all, mut expanded) = (0..matrix.n(), Vec::new());
    matmul(kernel, matrix, all, &activations, &rows, &mut out, &mut expanded);
    out
}
