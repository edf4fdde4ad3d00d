//! External data: what a model may say about where its weights lie, and how that file is opened.
//!
//! Four rounds of advisories in ONNX itself were about this one string (CVE-2022-25882,
//! CVE-2024-27318, CVE-2026-27489, CVE-2026-34446 with -34447). So a location is checked as text
//! and then still not trusted: the kernel is asked to stay beneath the bundle and to follow no
//! link. It does not read or map the file, and it does not know what the weights mean.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    FileType, Mode, OFlags, ResolveFlags, fstat, open as open_at_cwd, openat, openat2,
};
use rustix::io::Errno;
use tract_onnx::pb::TensorProto;
use tract_onnx::pb::tensor_proto::DataType;

use super::error::{ExternalFault, FileFault, InspectError, shown};
use super::tensor::{Checked, Label};
use crate::engine::limits::Limits;

/// One initializer whose data lies outside the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// The initializer's name.
    pub initializer: String,
    /// Where its data lies: a plain path relative to the bundle.
    pub location: String,
    /// Where in that file it begins.
    pub offset: u64,
    /// How many bytes it has: elements times their size.
    pub bytes: u64,
    /// How many elements it has: the product of `dims`.
    pub elements: u64,
    /// Their type; never strings.
    pub data_type: DataType,
    /// The dimensions.
    pub dims: Vec<u64>,
}

impl External {
    /// Refuses a file of `present` bytes that ends before this data does.
    pub fn check_within(&self, present: u64) -> Result<(), InspectError> {
        // An end that cannot be counted, which only a hand-made value has, is never within.
        let end = self.offset.checked_add(self.bytes);
        if end.is_some_and(|end| end <= present) {
            return Ok(());
        }
        let needed = end.unwrap_or(u64::MAX);
        Err(InspectError::External {
            tensor: Label::Initializer(&self.initializer).to_string(),
            fault: ExternalFault::Short { needed, present },
        })
    }
}

/// Reads what `tensor` says about its external data.
pub(super) fn read(
    tensor: &TensorProto,
    checked: &Checked,
    limits: &Limits,
) -> Result<External, InspectError> {
    read_entries(tensor, checked, limits).map_err(|fault| InspectError::External {
        tensor: Label::Initializer(&tensor.name).to_string(),
        fault,
    })
}

fn read_entries(
    tensor: &TensorProto,
    checked: &Checked,
    limits: &Limits,
) -> Result<External, ExternalFault> {
    let mut location: Option<&str> = None;
    let mut offset: Option<u64> = None;
    let mut length: Option<u64> = None;
    let mut checksum: Option<&str> = None;
    for entry in &tensor.external_data {
        let value = entry.value.as_str();
        match entry.key.as_str() {
            "location" => once(&mut location, "location", value)?,
            "offset" => once(&mut offset, "offset", number("offset", value)?)?,
            "length" => once(&mut length, "length", number("length", value)?)?,
            // A SHA-1 that nobody checks: the bundle's manifest has a SHA-256 of the whole file.
            "checksum" => once(&mut checksum, "checksum", value)?,
            key => return Err(ExternalFault::Key { key: shown(key) }),
        }
    }
    let location = location.ok_or(ExternalFault::LocationMissing)?;
    check_location(location, limits).map_err(|cause| ExternalFault::Location { cause })?;
    let offset = offset.unwrap_or(0);
    let bytes = checked.bytes;
    if let Some(found) = length.filter(|length| *length != bytes) {
        return Err(ExternalFault::Length { found, declared: bytes });
    }
    let limit = limits.external_bytes_max;
    if offset.checked_add(bytes).is_none_or(|end| end > limit) {
        return Err(ExternalFault::End { offset, limit });
    }
    Ok(External {
        initializer: tensor.name.clone(),
        location: location.to_owned(),
        offset,
        bytes,
        elements: checked.elements,
        data_type: checked.data_type,
        dims: tensor.dims.iter().map(|dim| u64::try_from(*dim).unwrap_or(0)).collect(),
    })
}

fn once<T>(slot: &mut Option<T>, key: &'static str, value: T) -> Result<(), ExternalFault> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ExternalFault::KeyTwice { key }),
    }
}

fn number(key: &'static str, value: &str) -> Result<u64, ExternalFault> {
    // `parse` alone would take a plus sign.
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| digits).ok_or(ExternalFault::Number { key })
}

/// Says what is wrong with `location`, if it is no plain path relative to the bundle.
fn check_location(location: &str, limits: &Limits) -> Result<(), &'static str> {
    let too_long = u64::try_from(location.len()).is_ok_and(|len| len > limits.name_bytes_max);
    if location.is_empty() {
        Err("empty")
    } else if too_long {
        Err("too long")
    } else if location.starts_with('/') {
        Err("an absolute path")
    } else if location.contains('\\') {
        Err("a backslash")
    } else if location.chars().any(char::is_control) {
        Err("a control character")
    } else if location.split('/').any(|part| matches!(part, "" | "." | "..")) {
        Err("a part that is empty, `.` or `..`")
    } else {
        Ok(())
    }
}

/// A pipe must not block, and a terminal must not become ours: what it is is asked afterwards.
const FILE_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);
const DIRECTORY_FLAGS: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::DIRECTORY);

/// How often `openat2` is asked again when something was renamed under it.
const OPEN_TRIES: u32 = 8;

/// Opens the file at `location` for reading: beneath `dir`, through no link, a regular file with
/// one name, of at most `external_bytes_max` bytes.
pub fn open(dir: &Path, location: &str, limits: &Limits) -> Result<File, InspectError> {
    opened(dir, location, limits, open_at_once).map_err(|fault| InspectError::File { fault })
}

/// What [`open`] does where the kernel (before 5.6), a sandbox or an emulator has no `openat2`.
/// Public so that tests hold it to the same promises.
pub fn open_in_steps(dir: &Path, location: &str, limits: &Limits) -> Result<File, InspectError> {
    opened(dir, location, limits, in_steps).map_err(|fault| InspectError::File { fault })
}

fn opened(
    dir: &Path,
    location: &str,
    limits: &Limits,
    way: fn(&OwnedFd, &str) -> Result<OwnedFd, Errno>,
) -> Result<File, FileFault> {
    check_location(location, limits).map_err(|cause| FileFault::Location { cause })?;
    // The bundle's own path is the operator's, and may lead through links.
    let dir = open_at_cwd(dir, DIRECTORY_FLAGS, Mode::empty()).map_err(fault_of)?;
    let file = way(&dir, location).map_err(fault_of)?;
    check_file(&file, limits)?;
    Ok(File::from(file))
}

fn open_at_once(dir: &OwnedFd, location: &str) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..OPEN_TRIES {
        match openat2(dir, location, FILE_FLAGS, Mode::empty(), resolve) {
            // `EAGAIN`: a rename raced with the look-up.
            Err(Errno::AGAIN | Errno::INTR) => {}
            // A seccomp filter answers `EPERM` where an old kernel answers `ENOSYS`.
            Err(Errno::NOSYS | Errno::PERM) => return in_steps(dir, location),
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

fn in_steps(dir: &OwnedFd, location: &str) -> Result<OwnedFd, Errno> {
    let Some((parents, name)) = location.rsplit_once('/') else {
        return openat(dir, location, FILE_FLAGS, Mode::empty());
    };
    let mut at: Option<OwnedFd> = None;
    for part in parents.split('/') {
        let from = at.as_ref().unwrap_or(dir);
        // With `O_DIRECTORY` a link is `ENOTDIR`: it is opened itself, and is no directory.
        let flags = DIRECTORY_FLAGS.union(OFlags::NOFOLLOW);
        at = Some(openat(from.as_fd(), part, flags, Mode::empty())?);
    }
    openat(at.as_ref().unwrap_or(dir), name, FILE_FLAGS, Mode::empty())
}

/// Asks the open file, not its name, what it is.
#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_fallible_conversions,
    reason = "the fields of `stat` have other widths on other targets"
)]
fn check_file(file: &OwnedFd, limits: &Limits) -> Result<(), FileFault> {
    let stat = fstat(file).map_err(fault_of)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FileFault::NotRegular);
    }
    let links = u64::from(stat.st_nlink);
    if links > 1 {
        return Err(FileFault::HardLinks { links });
    }
    let bytes = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    let limit = limits.external_bytes_max;
    if bytes > limit { Err(FileFault::Size { bytes, limit }) } else { Ok(()) }
}

fn fault_of(errno: Errno) -> FileFault {
    match errno {
        Errno::LOOP | Errno::XDEV | Errno::NOTDIR => FileFault::Link,
        Errno::NXIO | Errno::ISDIR => FileFault::NotRegular,
        other => FileFault::Io { cause: std::io::Error::from(other).kind().to_string() },
    }
}
