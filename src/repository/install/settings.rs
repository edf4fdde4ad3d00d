//! What may be installed, and where it is kept. Knows no file format: whoever reads a
//! configuration fills in the fields.

use std::path::PathBuf;

use super::trial::TrialOptions;

/// How models are installed while the daemon runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where installed models are kept; `None`: none can be installed.
    pub directory: Option<PathBuf>,
    /// minisign's public keys, each a line in base64: see
    /// [`check_key`](super::signature::check_key).
    pub public_keys: Vec<String>,
    /// Whether an archive without the signature of one of them is refused.
    pub is_signature_required: bool,
    /// Of one archive, in bytes.
    pub archive_bytes_max: u64,
    /// What stays free on the disk, in bytes.
    pub free_bytes_min: u64,
    /// Installed versions of one model, the one that serves included.
    pub versions_max: usize,
    pub trial: TrialOptions,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            directory: None,
            public_keys: Vec::new(),
            is_signature_required: false,
            archive_bytes_max: 512 << 20,
            free_bytes_min: 64 << 20,
            versions_max: 2,
            trial: TrialOptions::default(),
        }
    }
}
