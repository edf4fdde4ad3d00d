//! Kernels for x86-64: AVX2, and the two VNNI extensions.

mod avx2;
mod packed;
mod vnni;

use super::Kernel;

/// Those that this CPU says it can run, best first.
pub fn detected() -> Vec<&'static dyn Kernel> {
    let mut kernels: Vec<&'static dyn Kernel> = Vec::new();
    if std::arch::is_x86_feature_detected!("avx512vnni")
        && std::arch::is_x86_feature_detected!("avx512vl")
    {
        kernels.push(&vnni::Avx512Vnni);
    }
    if std::arch::is_x86_feature_detected!("avxvnni") {
        kernels.push(&vnni::AvxVnni);
    }
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        kernels.push(&avx2::Avx2);
    }
    kernels
}
