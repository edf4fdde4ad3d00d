//! Plain loops, compiled for the widest vectors that this CPU has.
//!
//! A target's baseline has 128-bit vectors on x86-64. What is passed to [`wide`] becomes part of
//! functions that may use AVX2 or AVX-512, and the compiler vectorises it once for each.

/// A computation with its operands.
pub trait Wide {
    type Output;

    /// Computes. `is_fused`: whether `mul_add` is one instruction; elsewhere it would be a call.
    ///
    /// It and all that it calls must be `inline(always)` functions: closures, and what is not
    /// inlined, are compiled for the baseline. So would be a function passed as a value.
    fn compute(self, is_fused: bool) -> Self::Output;
}

/// Computes with vectors as wide as this CPU's.
#[inline]
pub fn wide<W: Wide>(computation: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        if std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512dq")
        {
            // SAFETY: the features are there.
            return unsafe { avx512(computation) };
        }
        // SAFETY: the features are there.
        return unsafe { avx2(computation) };
    }
    computation.compute(cfg!(target_arch = "aarch64"))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<W: Wide>(computation: W) -> W::Output {
    computation.compute(true)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512vl,avx512bw,avx512dq")]
fn avx512<W: Wide>(computation: W) -> W::Output {
    computation.compute(true)
}

/// `a * b + c`, rounded once where that is one instruction.
#[inline(always)]
pub fn multiply_add(is_fused: bool, a: f32, b: f32, c: f32) -> f32 {
    if is_fused { a.mul_add(b, c) } else { a * b + c }
}
