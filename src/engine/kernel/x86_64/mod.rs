//! Kernels for x86-64: AVX2, and the two VNNI extensions.

mod avx2;
mod cache;
mod few;
mod packed;
mod vnni;
mod vnni_few;
mod vnni_turned;

use std::arch::x86_64::*;

pub use cache::last_level_bytes;

use super::Kernel;

/// Those that this CPU says it can run, best first.
pub fn detected() -> Vec<&'static dyn Kernel> {
    let mut kernels: Vec<&'static dyn Kernel> = Vec::new();
    // All are compiled with these two; a hypervisor may hide them and leave the others.
    if !(std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"))
    {
        return kernels;
    }
    if std::arch::is_x86_feature_detected!("avx512vnni")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vl")
    {
        kernels.push(&vnni::Avx512Vnni);
    }
    if std::arch::is_x86_feature_detected!("avxvnni") {
        kernels.push(&vnni::AvxVnni);
    }
    kernels.push(&avx2::Avx2);
    kernels
}

/// The sum of eight lanes.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn lanes_sum(v: __m256) -> f32 {
    // SAFETY: the caller has AVX2.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}
