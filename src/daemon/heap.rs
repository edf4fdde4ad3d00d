//! The heap of a process that runs for years: what a model took is given back when it goes.
//!
//! glibc gives large pieces of memory a mapping of their own, which goes back to the kernel when
//! they are freed, and what is large it learns: each such piece raises the bound (mallopt(3),
//! `M_MMAP_THRESHOLD`). So after one model the weights of the next lie between small things, and
//! stay: two versions, swapped twenty times, left 33 MB of 9. A bound that is set is not raised.
//! Knows nothing of the daemon; other C libraries don't do this.

#![expect(unsafe_code, reason = "this setting of the C library has no safe form")]

/// From how many bytes on a piece of memory has its own mapping: less than weights, more than what
/// a request needs, which would be mapped anew each time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPING_BYTES_MIN: i32 = 1 << 20;

/// Heaps that threads share; more are more that is kept.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAPS_MAX: i32 = 2;

/// Call it before the first thread is started.
pub fn configure() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes two numbers and hands out no memory; it is called before there are threads.
    // That it may refuse them changes nothing but how much memory is kept.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPING_BYTES_MIN);
        libc::mallopt(libc::M_ARENA_MAX, HEAPS_MAX);
    }
}
