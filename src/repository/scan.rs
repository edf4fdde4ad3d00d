//! What lies in the models directories: names, versions, and whether anything has changed.
//!
//! A model is a bundle `NAME/`, versions of one beside each other `NAME/1.0.0/`, or a file
//! `NAME.moed`. Only names and the files' times and sizes are read here, so that looking every few
//! seconds costs nothing; of models that were installed over others, also the others' manifests.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash as _, Hasher as _};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::bundle::{MANIFEST, Manifest, Version};

const NAME_BYTES_MAX: usize = 64;
/// Files of one bundle that are looked at; a bundle has fewer.
const FILES_MAX: usize = 256;
/// Of a manifest that is read for its version.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
const EXTENSION: &str = "moed";

/// A bundle that could be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub path: PathBuf,
    /// It is one file, to be unpacked first.
    pub is_archive: bool,
    /// From the name of its folder, where versions lie beside each other.
    pub version: Option<Version>,
    /// Changes when one of its files does.
    pub fingerprint: u64,
}

/// Everything that was found: by name, newest version first.
pub type Found = BTreeMap<String, Vec<Candidate>>;

/// Looks into `directories`. Where two have the same name, the first one's is taken; beside it,
/// the versions of that name among those `installed`, of which newer ones come first. Beyond
/// `models_max` names, none is taken; what can't be read is as if it were not there.
pub fn scan(directories: &[PathBuf], installed: Option<&Path>, models_max: usize) -> Found {
    let mut found = Found::new();
    for directory in directories {
        let is_installed = Some(directory.as_path()) == installed;
        for (name, path) in entries(directory) {
            let (name, mut candidates) = match name.strip_suffix(".moed") {
                Some(stem) => (stem.to_owned(), archive(&path).into_iter().collect()),
                None => (name, bundles(&path)),
            };
            // Versions there come below; the rest was put there by a person.
            candidates.retain(|one: &Candidate| !is_installed || one.version.is_none());
            let is_taken = found.contains_key(&name) || found.len() >= models_max;
            if is_name(&name) && !candidates.is_empty() && !is_taken {
                found.insert(name, candidates);
            }
        }
    }
    for (name, path) in installed.map(entries).unwrap_or_default() {
        let versions = if is_bundle(&path) { Vec::new() } else { versions(&path) };
        let is_taken = found.contains_key(&name) || found.len() < models_max;
        if is_name(&name) && !versions.is_empty() && is_taken {
            add_installed(found.entry(name).or_default(), versions);
        }
    }
    found
}

/// Puts versions that were installed in their places among others. Of two of one number, the
/// installed one comes first.
fn add_installed(found: &mut Vec<Candidate>, installed: Vec<Candidate>) {
    let others = std::mem::replace(found, installed);
    let numbered = |one: Candidate| (one.version.or_else(|| manifest_version(&one)), one);
    let mut all: Vec<_> = found.drain(..).chain(others).map(numbered).collect();
    all.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.extend(all.into_iter().map(|(_, candidate)| candidate));
}

/// The version that a bundle without a number in its path says it is.
fn manifest_version(candidate: &Candidate) -> Option<Version> {
    let file = File::open(candidate.path.join(MANIFEST)).ok()?;
    let mut text = String::new();
    file.take(MANIFEST_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(Manifest::parse(&text).ok()?.version)
}

/// One bundle or archive that is named itself.
pub fn candidate(path: &Path) -> Option<Candidate> {
    if path.extension().is_some_and(|extension| extension == EXTENSION) {
        archive(path)
    } else {
        bundles(path).into_iter().next()
    }
}

/// Letters, digits, `-`, `_` and `.`, as manifests have it; no hidden ones.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.starts_with('.')
        && (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(is_plain)
}

/// Names and paths in a folder, by name.
fn entries(directory: &Path) -> Vec<(String, PathBuf)> {
    let Ok(listing) = fs::read_dir(directory) else { return Vec::new() };
    let entries = listing.filter_map(Result::ok);
    let named =
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    let mut entries: Vec<_> = named.collect();
    entries.sort();
    entries
}

fn archive(path: &Path) -> Option<Candidate> {
    let mut hasher = DefaultHasher::new();
    let is_file = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
    hash_file(path, &mut hasher);
    let fingerprint = hasher.finish();
    let path = path.to_owned();
    is_file.then_some(Candidate { path, is_archive: true, version: None, fingerprint })
}

/// The bundle that `path` is, or the versions in it.
fn bundles(path: &Path) -> Vec<Candidate> {
    if let Some(fingerprint) = fingerprint(path) {
        let path = path.to_owned();
        return vec![Candidate { path, is_archive: false, version: None, fingerprint }];
    }
    versions(path)
}

/// The versions in a folder, newest first.
fn versions(path: &Path) -> Vec<Candidate> {
    let versions = entries(path).into_iter().filter_map(|(name, path)| {
        let version = Some(Version::parse(&name)?);
        let fingerprint = fingerprint(&path)?;
        Some(Candidate { path, is_archive: false, version, fingerprint })
    });
    let mut versions: Vec<_> = versions.collect();
    versions.sort_by_key(|candidate| std::cmp::Reverse(candidate.version));
    versions
}

/// Whether a folder is a bundle itself, and not one of versions.
pub fn is_bundle(path: &Path) -> bool {
    fs::symlink_metadata(path.join(MANIFEST)).is_ok()
}

/// Of the files of a bundle; `None` if it is none.
fn fingerprint(bundle: &Path) -> Option<u64> {
    if !is_bundle(bundle) {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    for (name, path) in entries(bundle).iter().take(FILES_MAX) {
        name.hash(&mut hasher);
        hash_file(path, &mut hasher);
    }
    Some(hasher.finish())
}

fn hash_file(path: &Path, hasher: &mut DefaultHasher) {
    if let Ok(metadata) = fs::symlink_metadata(path) {
        (metadata.dev(), metadata.ino(), metadata.size()).hash(hasher);
        (metadata.mtime(), metadata.mtime_nsec()).hash(hasher);
    }
}
