//! `manifest.toml`: what a bundle says about itself, as types that hold nothing impossible.
//!
//! Every bound is a constant here; docs/bundle.md is the reference for who writes one. Knows no
//! file system.

use std::collections::BTreeSet;
use std::fmt;

use crate::fields::{FieldError, Fields};
use crate::pipeline::Task;

/// The version of the format that this program reads.
pub const FORMAT: u64 = 1;
/// The manifest's own name: the one file that it does not name.
pub const MANIFEST: &str = "manifest.toml";
/// The recorded answers' file, which every bundle has.
pub const GOLDEN: &str = "golden.json";

const NAME_BYTES_MAX: usize = 64;
const FILE_NAME_BYTES_MAX: usize = 128;
const TEXT_BYTES_MAX: usize = 4096;
const FILES_MAX: usize = 64;
/// Of one file: the largest that this format counts, 2^40 bytes; what a machine can map is less.
const FILE_BYTES_MAX: u64 = 1 << 40;
const K_MAX: usize = 1024;

/// A bundle's description of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Letters, digits, `-`, `_` and `.`: it stands in topics and in paths of URLs as it is.
    pub name: String,
    pub version: Version,
    pub task: Task,
    /// The ONNX file, one of `files`.
    pub model: String,
    pub licence: String,
    /// How the model came about.
    pub provenance: String,
    /// A tag of BCP 47, where the model knows one language.
    pub language: Option<String>,
    /// `None` for a model without MoE layers.
    pub k: Option<KRange>,
    /// What it should take in memory once it has been used: an estimate.
    pub resident_bytes: u64,
    /// Every file of the bundle but the manifest, names ascending, each once.
    pub files: Vec<FileEntry>,
}

/// A version: three numbers, the first being the most significant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl Version {
    /// Reads `1.0.0`.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |part: &str| {
            let plain = part.bytes().all(|byte| byte.is_ascii_digit());
            let padded = part.len() > 1 && part.starts_with('0');
            if plain && !padded { part.parse::<u32>().ok() } else { None }
        };
        let mut parts = text.split('.');
        let mut next = || parts.next().and_then(number);
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        parts.next().is_none().then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// How many experts a request may ask for, for each row in each layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KRange {
    min: usize,
    max: usize,
    default: usize,
}

impl KRange {
    /// `None` unless 1 <= min <= default <= max.
    pub fn new(min: usize, default: usize, max: usize) -> Option<Self> {
        let is_ordered = 1 <= min && min <= default && default <= max;
        is_ordered.then_some(Self { min, max, default })
    }

    pub fn min(self) -> usize {
        self.min
    }

    pub fn max(self) -> usize {
        self.max
    }

    /// Used where a request fixes none and the model chooses none itself.
    pub fn default_k(self) -> usize {
        self.default
    }
}

/// A file of the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// A plain name, without folders.
    pub name: String,
    pub bytes: u64,
    pub sha256: Sha256,
}

/// A SHA-256, shown in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let mut sum = [0; 32];
        for (byte, pair) in sum.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(sum))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// Names the first field that is missing, wrong, out of its bounds, or not known.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::parse(text)?;
        // Before anything else: a later format may have other fields.
        let format = fields.integer("format", 1..=u64::MAX)?;
        if format != FORMAT {
            let cause = format!("{format} is newer than this program ({FORMAT}); update moed");
            return Err(fields.error("format", cause));
        }
        let name = fields.text("name", 1..=NAME_BYTES_MAX)?;
        check_name(&name).map_err(|cause| fields.error("name", cause))?;
        let version = fields.text("version", 1..=NAME_BYTES_MAX)?;
        let version = Version::parse(&version)
            .ok_or_else(|| fields.error("version", "three numbers are needed, as in `1.0.0`"))?;
        let task = fields.text("task", 1..=NAME_BYTES_MAX)?;
        let task = Task::read(&task, &mut fields)?;
        let model = fields.text("model", 1..=FILE_NAME_BYTES_MAX)?;
        let licence = fields.text("licence", 1..=TEXT_BYTES_MAX)?;
        let provenance = fields.text("provenance", 1..=TEXT_BYTES_MAX)?;
        let language = fields.text_or_none("language", 2..=NAME_BYTES_MAX)?;
        let k = fields.table("k")?.map(read_k).transpose()?;
        let mut memory = fields
            .table("memory")?
            .ok_or_else(|| fields.error("memory", "missing; add [memory] with resident_bytes"))?;
        let resident_bytes = memory.integer("resident_bytes", 0..=FILE_BYTES_MAX)?;
        memory.finish()?;
        let files = read_files(&mut fields)?;
        for needed in [model.as_str(), GOLDEN] {
            if !files.iter().any(|file| file.name == needed) {
                let cause = format!("`{needed}` is not among them; name it, with size and sha256");
                return Err(fields.error("files", cause));
            }
        }
        fields.finish()?;
        Ok(Self {
            name,
            version,
            task,
            model,
            licence,
            provenance,
            language,
            k,
            resident_bytes,
            files,
        })
    }

    /// Bytes of all files but the manifest.
    pub fn files_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.bytes))
    }

    /// The file of that name.
    pub fn file(&self, name: &str) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.name == name)
    }
}

fn read_k(mut fields: Fields) -> Result<KRange, FieldError> {
    let min = fields.count("min", 1..=K_MAX)?;
    let max = fields.count("max", 1..=K_MAX)?;
    let default = fields.count("default", 1..=K_MAX)?;
    let range = KRange::new(min, default, max).ok_or_else(|| {
        let cause = format!("{default} is not from min to max, {min} to {max}");
        fields.error("default", cause)
    })?;
    fields.finish()?;
    Ok(range)
}

fn read_files(fields: &mut Fields) -> Result<Vec<FileEntry>, FieldError> {
    let mut files = Vec::new();
    let mut names = BTreeSet::new();
    for mut entry in fields.tables("files", 1..=FILES_MAX)? {
        let name = entry.text("name", 1..=FILE_NAME_BYTES_MAX)?;
        check_file_name(&name).map_err(|cause| entry.error("name", cause))?;
        if !names.insert(name.clone()) {
            return Err(entry.error("name", format!("`{name}` is named twice; keep one")));
        }
        let bytes = entry.integer("bytes", 0..=FILE_BYTES_MAX)?;
        let sha256 = entry.text("sha256", 64..=64)?;
        let sha256 = Sha256::parse(&sha256)
            .ok_or_else(|| entry.error("sha256", "not 64 hexadecimal digits"))?;
        entry.finish()?;
        files.push(FileEntry { name, bytes, sha256 });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// What is wrong with `name` as the name of a model.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        Err("1 to 64 bytes are allowed")
    } else if !name.bytes().all(is_plain) {
        Err("only letters, digits, `-`, `_` and `.` are allowed; rename it")
    } else if name.starts_with('.') {
        Err("a dot comes first; rename it")
    } else {
        Ok(())
    }
}

/// What is wrong with `name` as the name of a file of a bundle.
pub fn check_file_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > FILE_NAME_BYTES_MAX {
        Err("1 to 128 bytes are allowed")
    } else if name == MANIFEST {
        Err("the manifest does not name itself; remove it")
    } else if !name.bytes().all(is_plain) {
        Err("only letters, digits, `-`, `_` and `.` are allowed: no folders; rename it")
    } else if name.starts_with('.') {
        Err("a dot comes first; rename it")
    } else {
        Ok(())
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}
