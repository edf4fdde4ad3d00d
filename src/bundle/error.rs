//! Why a bundle was refused.

use crate::fields::FieldError;

/// Each text names the file inside the bundle, what is wrong with it, and what to do. None holds
/// a path outside the bundle: whoever knows it adds it.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file was not opened or read: a link, a pipe, missing, too large.
    #[error("{file}: {cause}")]
    File { file: String, cause: String },
    /// The manifest does not say what it must.
    #[error("manifest.toml: {0}")]
    Manifest(#[from] FieldError),
    /// The manifest names a file that has another size.
    #[error("{file}: {found} bytes where manifest.toml says {named}; copy the bundle again")]
    Size { file: String, named: u64, found: u64 },
    /// The manifest names a file that has other bytes.
    #[error("{file}: its SHA-256 is not that of manifest.toml; copy the bundle again")]
    Hash { file: String },
    /// There is more in the bundle than the manifest names.
    #[error("{file}: not named in manifest.toml; remove it, or name it under [[files]]")]
    Unnamed { file: String },
    /// The archive is not what a `.moed` file is.
    #[error("archive: {entry}: {cause}")]
    Archive { entry: String, cause: String },
    /// The recorded answers can't be read.
    #[error("golden.json: {0}")]
    Golden(String),
    /// The model is not what the manifest says, or what its task needs.
    #[error("{model}: {cause}")]
    Model { model: String, cause: String },
    /// A bundle can't be written.
    #[error("{what}: can't be written: {cause}")]
    Write { what: String, cause: String },
}

impl BundleError {
    pub(super) fn file(file: &str, cause: impl Into<String>) -> Self {
        Self::File { file: file.to_owned(), cause: cause.into() }
    }

    pub(super) fn archive(entry: &str, cause: impl Into<String>) -> Self {
        Self::Archive { entry: entry.to_owned(), cause: cause.into() }
    }

    pub(super) fn write(what: &str, cause: impl Into<String>) -> Self {
        Self::Write { what: what.to_owned(), cause: cause.into() }
    }
}
