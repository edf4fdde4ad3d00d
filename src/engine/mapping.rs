//! Read-only file mappings: expert weights that are read where they lie.
//!
//! The one file of the engine outside `kernel/` with `unsafe`.

#![expect(unsafe_code, reason = "a mapping has no safe constructor: `map` says why it is sound")]

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

/// Bytes of a tensor: a part of a mapped file, or the heap.
#[derive(Debug, Clone)]
pub enum Bytes {
    Mapped { file: Arc<Mmap>, range: Range<usize> },
    Heap { bytes: Arc<Vec<u8>>, range: Range<usize> },
}

/// A line of any cache. A vector that straddles two takes as long to load as two.
const LINE_BYTES: usize = 64;

/// Tensors that are shorter stay where they are.
const MOVED_BYTES_MIN: usize = 4096;

impl Bytes {
    /// Bytes on the heap; of larger tensors, moved to where a line begins, as those in files do.
    pub fn heap(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        let to_line = |bytes: &Vec<u8>| bytes.as_ptr().addr().wrapping_neg() % LINE_BYTES;
        if to_line(&bytes) == 0 || len < MOVED_BYTES_MIN {
            return Self::Heap { bytes: Arc::new(bytes), range: 0..len };
        }
        let mut moved = Vec::with_capacity(len + LINE_BYTES);
        let start = to_line(&moved);
        moved.resize(start, 0);
        moved.extend_from_slice(&bytes);
        Self::Heap { bytes: Arc::new(moved), range: start..start + len }
    }

    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped { file, range } => &file[range.clone()],
            Self::Heap { bytes, range } => &bytes[range.clone()],
        }
    }
}

/// Maps `file`, which nobody may shorten while it is mapped.
pub fn map(file: &File) -> std::io::Result<Arc<Mmap>> {
    // SAFETY: what is borrowed from the mapping must not change. It can't be written through; but
    // pages that were not read yet would show what somebody else writes to the file, and a file
    // that is cut short raises SIGBUS. That nobody does so is the rule of bundles: published by
    // rename, never written in place (ARCHITECTURE.md, "Bundles").
    Ok(Arc::new(unsafe { MmapOptions::new().map_copy_read_only(file)? }))
}
