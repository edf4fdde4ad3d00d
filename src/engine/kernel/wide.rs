//! Plain loops, compiled for the widest vectors that this CPU has.
//!
//! A target's baseline has 128-bit vectors on x86-64. A function that is passed to [`wide`] becomes
//! part of one that may use AVX2, and the compiler vectorises it once more.

/// Calls `f` with `args`, compiled for vectors as wide as this CPU's. `f` is also told whether
/// `mul_add` is one instruction: elsewhere it would be a call.
///
/// `f` and all that it calls must be `inline(always)` functions: closures, and what is not inlined,
/// are compiled for the baseline.
#[inline]
pub fn wide<A, R>(f: impl FnOnce(bool, A) -> R, args: A) -> R {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the features are there.
        return unsafe { avx2(f, args) };
    }
    f(cfg!(target_arch = "aarch64"), args)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<A, R>(f: impl FnOnce(bool, A) -> R, args: A) -> R {
    f(true, args)
}
