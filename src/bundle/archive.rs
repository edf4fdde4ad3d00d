//! `.moed` files: a bundle as one uncompressed tar.
//!
//! Of tar's many kinds of entries two are taken: regular files, named plainly, and the folder
//! `./` that they may be in. Links, devices, long names and extensions are refused, and with them
//! every way that one program can read an archive otherwise than another. An archive is unpacked
//! beside its place, verified there, and then renamed: nobody sees half a bundle.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256 as Hasher};
use tar::EntryType;

use super::files::{bytes_of, io_cause, open};
use super::manifest::{MANIFEST, Sha256, check_file_name};
use super::{Bundle, BundleError, Limits};

/// Entries of an archive, folders included.
const ENTRIES_MAX: usize = 128;
/// Tries to find a name for a folder that is not there yet.
const FOLDER_TRIES: u32 = 1000;
/// How the folders begin in which archives are unpacked.
const PARTIAL: &str = ".moed-unpacking-";
/// Of the manifest's SHA-256, in the name of an unpacked bundle: what tells two builds of one
/// version apart.
const HASH_CHARS: usize = 12;

/// Reads an archive, and gives each file to `each`, by name, with its size.
///
/// # Errors
/// At the first entry that a bundle may not hold, or what `each` says. What came before it has
/// been given to `each`.
pub fn entries(
    archive: impl Read,
    limits: &Limits,
    mut each: impl FnMut(&str, u64, &mut dyn Read) -> Result<(), BundleError>,
) -> Result<(), BundleError> {
    let read_error = |error: io::Error| {
        let cause = format!("not a tar archive: {}; make it with `moed bundle`", error.kind());
        BundleError::archive("header", cause)
    };
    let mut archive = tar::Archive::new(archive);
    let mut names = BTreeSet::new();
    let mut left = limits.bundle_bytes_max;
    // Raw: the library would read an extension of any size into memory.
    for (at, entry) in archive.entries().map_err(read_error)?.raw(true).enumerate() {
        let mut entry = entry.map_err(read_error)?;
        if at >= ENTRIES_MAX {
            let cause = format!("over the limit of {ENTRIES_MAX} entries; remove some");
            return Err(BundleError::archive("entries", cause));
        }
        let path = entry.header().path_bytes();
        let shown: String =
            String::from_utf8_lossy(&path).chars().take(128).flat_map(char::escape_debug).collect();
        let refused = |cause: &str| Err(BundleError::archive(&shown, cause));
        match entry.header().entry_type() {
            EntryType::Regular => {}
            EntryType::Directory if matches!(&*path, b"./" | b".") => continue,
            EntryType::Directory => return refused("a folder; bundles have none"),
            EntryType::Link | EntryType::Symlink => {
                return refused("a link; pack the file itself");
            }
            _ => {
                return refused(
                    "not a regular file; pack plain files, with `moed bundle` or `tar \
                     --format=ustar`",
                );
            }
        }
        let path = path.strip_prefix(b"./").unwrap_or(&path);
        let Some(name) = std::str::from_utf8(path).ok().map(str::to_owned) else {
            return refused("its name is not UTF-8; rename it");
        };
        if name != MANIFEST {
            check_file_name(&name).map_err(|cause| BundleError::archive(&shown, cause))?;
        }
        if !names.insert(name.clone()) {
            return refused("there twice; pack it once");
        }
        let bytes = entry.header().entry_size().map_err(read_error)?;
        let max = if name == MANIFEST { limits.manifest_bytes_max } else { left };
        if bytes > max {
            return refused(&format!("{bytes} bytes are over the limit of {max}"));
        }
        left = left.saturating_sub(bytes);
        each(&name, bytes, &mut entry)?;
    }
    Ok(())
}

/// Unpacks the archive into a new folder of the folder `into`, and verifies it. Where the same
/// bundle has been unpacked before, that one is verified and comes back.
pub fn unpack(archive: &Path, into: &Path, limits: &Limits) -> Result<Bundle, BundleError> {
    let archive = open_archive(archive, limits)?;
    let partial = Partial::new(into)?;
    entries(archive, limits, |name, bytes, data| write_file(&partial.dir, name, bytes, data))?;
    let bundle = Bundle::open(&partial.dir, limits)?;
    bundle.verify()?;
    sync_folder(&partial.dir)?;
    let whole = into.join(folder_name(&bundle)?);
    match fs::rename(&partial.dir, &whole) {
        Ok(()) => sync_folder(into)?,
        // There is one of this name, which may be ours, from before.
        Err(_) if whole.is_dir() => {}
        Err(error) => return Err(BundleError::write("bundle", error.kind().to_string())),
    }
    let bundle = Bundle::open(&whole, limits)?;
    bundle.verify()?;
    Ok(bundle)
}

/// Removes what [`unpack`] left in `into` if it was stopped by a power cut. Not while it runs.
pub fn remove_leftovers(into: &Path) -> Result<(), BundleError> {
    let failed = |error: io::Error| BundleError::write("bundles", error.kind().to_string());
    for entry in fs::read_dir(into).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            fs::remove_dir_all(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Packs a bundle into the archive `archive`, which is new or replaced as a whole. The same
/// bundle gives the same bytes.
pub fn pack(bundle: &Bundle, archive: &Path) -> Result<(), BundleError> {
    let failed = |error: io::Error| BundleError::write("archive", error.kind().to_string());
    let file_name = archive.file_name().map(|name| name.to_string_lossy().into_owned());
    let file_name = file_name.ok_or_else(|| BundleError::write("archive", "it has no name"))?;
    let partial = archive.with_file_name(format!(".{file_name}.partial"));
    let mut builder = tar::Builder::new(File::create(&partial).map_err(failed)?);
    let files = bundle.manifest().files.iter().map(|file| file.name.as_str());
    // The manifest first, so that a reader of a stream knows early what comes.
    for name in std::iter::once(MANIFEST).chain(files) {
        let file = open(bundle.dir(), name, &bundle.limits)?;
        let mut header = tar::Header::new_ustar();
        header.set_size(file.metadata().map_err(failed)?.len());
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_entry_type(EntryType::Regular);
        builder.append_data(&mut header, name, file).map_err(failed)?;
    }
    let file = builder.into_inner().map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&partial, archive).map_err(failed)
}

fn open_archive(path: &Path, limits: &Limits) -> Result<File, BundleError> {
    let failed = |error: io::Error| BundleError::file("archive", io_cause(&error));
    // Asked before it is opened: opening a pipe would wait for somebody to write to it.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(BundleError::file("archive", "not a regular file; name a .moed file"));
    }
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    // Headers and padding: two blocks of 512 bytes for each entry, and the end.
    let overhead = 1024 * bytes_of(ENTRIES_MAX) + 10240;
    if bytes > limits.bundle_bytes_max.saturating_add(overhead) {
        let cause = format!("{bytes} bytes are over the limit of {}", limits.bundle_bytes_max);
        return Err(BundleError::file("archive", cause));
    }
    Ok(file)
}

fn write_file(dir: &Path, name: &str, bytes: u64, data: &mut dyn Read) -> Result<(), BundleError> {
    let failed = |error: io::Error| BundleError::write(name, error.kind().to_string());
    let mut file =
        OpenOptions::new().write(true).create_new(true).open(dir.join(name)).map_err(failed)?;
    let copied = io::copy(data, &mut file).map_err(failed)?;
    if copied != bytes {
        let cause = format!("cut short: {copied} of {bytes} bytes; copy the archive again");
        return Err(BundleError::archive(name, cause));
    }
    file.flush().map_err(failed)?;
    file.sync_all().map_err(failed)
}

fn sync_folder(dir: &Path) -> Result<(), BundleError> {
    let synced = File::open(dir).and_then(|folder| folder.sync_all());
    synced.map_err(|error| BundleError::write("bundle", error.kind().to_string()))
}

/// NAME-VERSION-HASH: the manifest holds the hashes of all files, so its own is the bundle's.
fn folder_name(bundle: &Bundle) -> Result<String, BundleError> {
    let mut hasher = Hasher::new();
    let manifest = open(bundle.dir(), MANIFEST, &bundle.limits)?;
    let mut bytes = Vec::new();
    let read = manifest.take(bundle.limits.manifest_bytes_max).read_to_end(&mut bytes);
    read.map_err(|error| BundleError::file(MANIFEST, io_cause(&error)))?;
    hasher.update(&bytes);
    let hash = Sha256(hasher.finalize().into()).to_string();
    let hash = hash.get(..HASH_CHARS).unwrap_or_default();
    Ok(format!("{}-{}-{hash}", bundle.manifest().name, bundle.manifest().version))
}

/// A folder that goes away with all that is in it, unless it was renamed.
struct Partial {
    dir: PathBuf,
}

impl Partial {
    fn new(into: &Path) -> Result<Self, BundleError> {
        for number in 0..FOLDER_TRIES {
            let dir = into.join(format!("{PARTIAL}{}-{number}", std::process::id()));
            match fs::create_dir(&dir) {
                Ok(()) => return Ok(Self { dir }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(BundleError::write("bundle", error.kind().to_string())),
            }
        }
        let cause =
            "there is no free name for a folder; remove old ones, named `.moed-unpacking-*`";
        Err(BundleError::write("bundle", cause))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // If it can't be removed it is a leftover, as after a power cut: see `remove_leftovers`.
        drop(fs::remove_dir_all(&self.dir));
    }
}
