//! Read-only file mappings: expert weights that are read where they lie.
//!
//! The one file outside `kernel/` with `unsafe`.

#![expect(unsafe_code, reason = "a mapping has no safe constructor: `map` says why it is sound")]

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use memmap2::Mmap;

/// Bytes of a tensor: a part of a mapped file, or the heap.
#[derive(Debug, Clone)]
pub enum Bytes {
    Mapped { file: Arc<Mmap>, range: Range<usize> },
    Heap(Arc<Vec<u8>>),
}

impl Bytes {
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped { file, range } => &file[range.clone()],
            Self::Heap(bytes) => bytes,
        }
    }
}

/// Maps `file`, which nobody may shorten while it is mapped.
pub fn map(file: &File) -> std::io::Result<Arc<Mmap>> {
    // SAFETY: the mapping is private and read-only, so it can't be written through. Bytes that
    // change under it would be wrong weights, not undefined values of a Rust type that has
    // invalid ones. A file that is cut short raises SIGBUS: bundles are published by rename and
    // never written in place (ARCHITECTURE.md, "Bundles").
    Ok(Arc::new(unsafe { Mmap::map(file)? }))
}
