//! The size of the last-level cache, as the CPU tells it.

use std::arch::x86_64::{__cpuid_count, CpuidResult};
use std::sync::OnceLock;

/// Bytes of the largest data cache; 0 where the CPU does not tell.
///
/// Leaf 4 of CPUID (Intel SDM, volume 2A), or 0x8000_001d, which is AMD's and alike (AMD64
/// programmer's manual, volume 3, appendix E.4.15): a subleaf for each cache, until one of type 0.
pub fn last_level_bytes() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| [4, 0x8000_001d].map(largest).into_iter().max().unwrap_or(0))
}

/// The largest cache that a leaf tells of; 0 where the CPU does not have it.
fn largest(leaf: u32) -> u64 {
    if cpuid(leaf & 0x8000_0000, 0).eax < leaf {
        return 0;
    }
    let caches = (0..CACHES_MAX).map(|i| cpuid(leaf, i));
    let caches = caches.take_while(|cache| cache.eax & 31 != NO_CACHE);
    let data = caches.filter(|cache| cache.eax & 31 != INSTRUCTIONS);
    let bytes = data.map(|cache| {
        let field = |low: u32, bits: u32| u64::from(cache.ebx >> low & ((1 << bits) - 1)) + 1;
        // Line, partitions and ways, times sets.
        let set = field(0, 12) * field(12, 10) * field(22, 10);
        set.saturating_mul(u64::from(cache.ecx) + 1)
    });
    bytes.max().unwrap_or(0)
}

fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    // SAFETY: every x86-64 CPU has the instruction.
    #[allow(unused_unsafe, reason = "needed with the oldest Rust that is supported")]
    unsafe {
        __cpuid_count(leaf, subleaf)
    }
}

/// Subleaves that are looked at: a CPU that never says `NO_CACHE` must not keep us.
const CACHES_MAX: u32 = 16;

/// Types of caches.
const NO_CACHE: u32 = 0;
const INSTRUCTIONS: u32 = 2;
