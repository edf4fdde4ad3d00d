//! The files of a bundle directory: opened without following anything, read within bounds.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest as _, Sha256 as Hasher};

use super::manifest::{FileEntry, MANIFEST, Manifest, Sha256};
use super::{BundleError, Limits};
use crate::engine::inspect::{InspectError, external};

const BUFFER_BYTES: usize = 64 << 10;

/// Opens a file of the bundle: a regular one, with one name, reached through no link.
pub fn open(dir: &Path, name: &str, limits: &Limits) -> Result<File, BundleError> {
    external::open(dir, name, &limits.model).map_err(|error| match error {
        InspectError::File { fault } => BundleError::file(name, fault.to_string()),
        other => BundleError::file(name, other.to_string()),
    })
}

/// Reads a text of at most `bytes_max` bytes.
pub fn read_text(
    dir: &Path,
    name: &str,
    bytes_max: u64,
    limits: &Limits,
) -> Result<String, BundleError> {
    let file = open(dir, name, limits)?;
    let mut bytes = Vec::new();
    let read = file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| BundleError::file(name, io_cause(&error)))?;
    if bytes_of(bytes.len()) > bytes_max {
        let cause = format!("over the limit of {bytes_max} bytes; make it smaller");
        return Err(BundleError::file(name, cause));
    }
    String::from_utf8(bytes).map_err(|_| BundleError::file(name, "not UTF-8; save it as UTF-8"))
}

/// Compares what is there with what the manifest names.
pub fn check_listing(dir: &Path, manifest: &Manifest, limits: &Limits) -> Result<(), BundleError> {
    for entry in &manifest.files {
        let metadata = open(dir, &entry.name, limits)?.metadata();
        let metadata =
            metadata.map_err(|error| BundleError::file(&entry.name, io_cause(&error)))?;
        if metadata.len() != entry.bytes {
            let file = entry.name.clone();
            return Err(BundleError::Size { file, named: entry.bytes, found: metadata.len() });
        }
    }
    let max = limits.bundle_bytes_max;
    if manifest.files_bytes() > max {
        let cause = format!("{} bytes are over the limit of {max}", manifest.files_bytes());
        return Err(BundleError::file("files", cause));
    }
    let listing_error = |error: std::io::Error| BundleError::file("bundle", io_cause(&error));
    for found in std::fs::read_dir(dir).map_err(listing_error)? {
        let name = found.map_err(listing_error)?.file_name();
        let is_named = |name: &str| name == MANIFEST || manifest.file(name).is_some();
        if !name.to_str().is_some_and(is_named) {
            let name = name.to_string_lossy();
            let file = name.chars().take(128).flat_map(char::escape_debug).collect();
            return Err(BundleError::Unnamed { file });
        }
    }
    Ok(())
}

/// The SHA-256 of a file, of which no more is read than the manifest says.
pub fn hash(dir: &Path, entry: &FileEntry, limits: &Limits) -> Result<Sha256, BundleError> {
    let file = open(dir, &entry.name, limits)?.take(entry.bytes.saturating_add(1));
    read_hash(file, &entry.name).map(|(_, hash)| hash)
}

/// The size and the SHA-256 of a file.
pub fn measure(dir: &Path, name: &str, limits: &Limits) -> Result<(u64, Sha256), BundleError> {
    read_hash(open(dir, name, limits)?, name)
}

fn read_hash(mut file: impl Read, name: &str) -> Result<(u64, Sha256), BundleError> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut bytes: u64 = 0;
    loop {
        let read = file.read(&mut buffer);
        let count = read.map_err(|error| BundleError::file(name, io_cause(&error)))?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        hasher.update(read);
        bytes = bytes.saturating_add(bytes_of(count));
    }
    Ok((bytes, Sha256(hasher.finalize().into())))
}

/// What the operating system said, without the path that some of its texts hold.
pub fn io_cause(error: &std::io::Error) -> String {
    format!("{}; check that it is there and can be read", error.kind())
}

pub fn bytes_of(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
