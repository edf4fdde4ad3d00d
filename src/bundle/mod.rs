//! Model bundles: a directory, or one `.moed` file, that holds a model and all that is known of it.
//!
//! [`Bundle::open`] reads the manifest and checks that exactly the files are there that it names;
//! [`Bundle::verify`] reads them all; [`unpack`] makes a directory of a `.moed` file. Nothing in a
//! bundle is trusted before: whoever supplies one may be hostile. What is not promised: a bundle
//! that its owner changes after it was checked. Knows no repository, no queue and no network.

mod archive;
mod error;
mod files;
mod generate;
mod golden;
mod manifest;
mod pipeline;
mod write;

use std::path::{Path, PathBuf};

pub use archive::{entries, pack, remove_leftovers, unpack};
pub use error::BundleError;
pub use golden::{Golden, GoldenInput, GoldenOutput, IntentCase, Reproduced, TensorCase};
pub use manifest::{FORMAT, FileEntry, GOLDEN, KRange, MANIFEST, Manifest, Sha256, Version};
pub use pipeline::graph;
pub use write::{Recipe, write};

use crate::engine::limits::Limits as ModelLimits;

/// How much of a bundle is read before it is refused. A value equal to a limit passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub manifest_bytes_max: u64,
    pub golden_bytes_max: u64,
    /// All files together, the manifest included.
    pub bundle_bytes_max: u64,
    /// Of the model and its external data.
    pub model: ModelLimits,
}

impl Default for Limits {
    fn default() -> Self {
        let model = ModelLimits::default();
        Self {
            manifest_bytes_max: 1 << 20,
            golden_bytes_max: 16 << 20,
            bundle_bytes_max: model.external_bytes_max.saturating_add(model.model_bytes_max),
            model,
        }
    }
}

/// A bundle directory whose manifest has been read.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
    manifest: Manifest,
    limits: Limits,
}

impl Bundle {
    /// Reads the manifest of the directory `dir`, and checks that every file that it names is a
    /// regular one of the size it says, and that there is no other. Takes time in the number of
    /// files, not in their sizes.
    pub fn open(dir: &Path, limits: &Limits) -> Result<Self, BundleError> {
        let text = files::read_text(dir, MANIFEST, limits.manifest_bytes_max, limits)?;
        let manifest = Manifest::parse(&text)?;
        files::check_listing(dir, &manifest, limits)?;
        Ok(Self { dir: dir.to_owned(), manifest, limits: limits.clone() })
    }

    /// Reads every file and compares its SHA-256.
    pub fn verify(&self) -> Result<(), BundleError> {
        for entry in &self.manifest.files {
            let found = files::hash(&self.dir, entry, &self.limits)?;
            if found != entry.sha256 {
                return Err(BundleError::Hash { file: entry.name.clone() });
            }
        }
        Ok(())
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The recorded answers.
    pub fn golden(&self) -> Result<Golden, BundleError> {
        let max = self.limits.golden_bytes_max;
        let text = files::read_text(&self.dir, GOLDEN, max, &self.limits)?;
        Golden::parse(&text, &self.manifest.task)
    }
}
