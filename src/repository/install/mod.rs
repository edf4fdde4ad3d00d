//! Models that come while the daemon runs: received, verified, unpacked; kept in a directory of
//! their own.
//!
//! One at a time, and a step at a time, on the repository's thread, which then loads what was
//! unpacked, and has it published only if it gives its recorded answers. docs/models.md says what
//! each step writes. Knows neither transports nor the engine.

pub mod settings;
pub mod signature;
pub mod store;
pub mod trial;

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bundle::{Bundle, BundleError, Limits, unpack};
use crate::infer::{Code, InferError, InstallStep};
use settings::Settings;
use signature::Signed;
use store::Store;

const ARCHIVE: &str = "archive.moed";
/// An upload of which nothing has come for so long gives way to another.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// When another installation may be over.
const BUSY_RETRY: Duration = Duration::from_secs(10);
const COPY_BYTES: usize = 256 << 10;
const MIB: u64 = 1 << 20;

/// Why a model is not installed, in words for whoever sent it.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(
        "install: no directory for it: set `directory` under [install] in the configuration, or \
         start `moed serve` with --install-dir"
    )]
    NoDirectory,
    #[error("install: another one is running: wait until it is done")]
    Busy,
    #[error("upload `{0}`: unknown: it has ended, or was silent for too long: begin again")]
    UnknownUpload(String),
    #[error("offset: {given}: {wanted} bytes have come: send from there")]
    Offset { given: u64, wanted: u64 },
    #[error("archive: more than the {0} bytes that were announced: begin again")]
    TooLong(u64),
    #[error(
        "archive: {bytes} bytes: over the limit of {max}: make it smaller, or raise \
         `archive_bytes_max`"
    )]
    TooLarge { bytes: u64, max: u64 },
    #[error(
        "disk: {need_mib} MiB needed, {have_mib} MiB free: remove old models with `moed models \
         remove`, or free some otherwise"
    )]
    Space { need_mib: u64, have_mib: u64 },
    #[error(
        "archive: not signed, and signatures are required: sign it with `minisign -S -m FILE`, and \
         send FILE.minisig with it"
    )]
    Unsigned,
    #[error("signature: {0}")]
    Signature(&'static str),
    #[error("signature: not of these bytes: they are damaged, or somebody has changed them")]
    Forged,
    #[error("sha256: not that of these bytes: send the archive again")]
    Hash,
    #[error("file: {path}: {cause}: name a .moed file that the daemon can read")]
    File { path: String, cause: String },
    #[error("archive: {0}")]
    Bundle(#[from] BundleError),
    #[error("{name} {version}: {cause}")]
    Version { name: String, version: String, cause: String },
    #[error("models: {0} are there, and no more are taken: remove one, or raise `models_max`")]
    Models(usize),
    #[error("disk: {what}: {cause}: see that the directory of [install] can be written")]
    Disk { what: &'static str, cause: io::Error },
}

impl InstallError {
    fn disk(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |cause| Self::Disk { what, cause }
    }
}

impl From<InstallError> for InferError {
    fn from(error: InstallError) -> Self {
        let code = match error {
            InstallError::TooLarge { .. } | InstallError::TooLong(_) => Code::TooLarge,
            InstallError::UnknownUpload(_) => Code::NotFound,
            InstallError::NoDirectory | InstallError::Busy | InstallError::Space { .. } => {
                Code::Unavailable
            }
            InstallError::Disk { .. } => Code::Internal,
            _ => Code::InvalidRequest,
        };
        let infer = Self::new(code, error.to_string());
        match error {
            InstallError::Busy => infer.with_retry_after(BUSY_RETRY),
            _ => infer,
        }
    }
}

/// An archive that comes in pieces.
struct Upload {
    id: String,
    file: File,
    bytes: u64,
    sha256: Option<[u8; 32]>,
    signed: Option<Signed>,
    received: u64,
    heard: Instant,
}

/// What is to be done after a step.
pub enum Next {
    /// Send more, of this upload from this byte on.
    Receive(String, u64),
    /// All is here and verified: load it, and publish it.
    Load(Box<Staged>),
    Aborted,
}

/// A bundle that was received, and is nowhere published.
pub struct Staged {
    pub bundle: Bundle,
    /// The archive's and the bundle's bytes, which are on the disk.
    pub written_bytes: u64,
}

/// Takes installations, a step at a time.
pub struct Installer {
    settings: Settings,
    store: Option<Store>,
    limits: Limits,
    upload: Option<Upload>,
    random: RandomState,
    count: u64,
}

impl Installer {
    pub fn new(settings: Settings, limits: Limits) -> Self {
        let store = settings.directory.clone().map(Store::new);
        Self { settings, store, limits, upload: None, random: RandomState::new(), count: 0 }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// # Errors
    /// Why it is refused; what has come of it is gone then.
    pub fn step(&mut self, step: InstallStep, now: Instant) -> Result<Next, InstallError> {
        match step {
            InstallStep::Begin { bytes, sha256, signature } => {
                let id = self.begin(bytes, Some(sha256), signature.as_deref(), now)?;
                Ok(Next::Receive(id, 0))
            }
            InstallStep::Piece { upload, offset, bytes } => {
                self.piece(&upload, offset, &bytes, now)
            }
            InstallStep::File { path, sha256, signature } => {
                self.copy(&path, sha256, signature.as_deref(), now)
            }
            InstallStep::Abort { upload } => {
                self.upload_of(&upload, now)?;
                self.forget();
                Ok(Next::Aborted)
            }
        }
    }

    /// Forgets an upload of which nothing comes any more.
    pub fn expire(&mut self, now: Instant) {
        let is_silent =
            |upload: &Upload| now.saturating_duration_since(upload.heard) >= SILENCE_MAX;
        if self.upload.as_ref().is_some_and(is_silent) {
            log::warn!("install: nothing has come for {} s: forgotten", SILENCE_MAX.as_secs());
            self.forget();
        }
    }

    /// Forgets what is on its way.
    pub fn forget(&mut self) {
        self.upload = None;
        if let Some(Err(error)) = self.store.as_ref().map(Store::empty_staging) {
            log::warn!("install: the staging folder can't be emptied: {error}");
        }
    }

    fn begin(
        &mut self,
        bytes: u64,
        sha256: Option<[u8; 32]>,
        signature: Option<&str>,
        now: Instant,
    ) -> Result<String, InstallError> {
        self.expire(now);
        let store = self.store.as_ref().ok_or(InstallError::NoDirectory)?;
        if self.upload.is_some() {
            return Err(InstallError::Busy);
        }
        let settings = &self.settings;
        let max = settings.archive_bytes_max;
        if bytes > max {
            return Err(InstallError::TooLarge { bytes, max });
        }
        let is_required = settings.is_signature_required;
        let signed = signature::find(&settings.public_keys, is_required, signature)?;
        let have = store.free_bytes().map_err(InstallError::disk("its free space"))?;
        // The archive, and then what is in it.
        let need = bytes.saturating_mul(2).saturating_add(settings.free_bytes_min);
        if need > have {
            let (need_mib, have_mib) = (need.div_ceil(MIB), have / MIB);
            return Err(InstallError::Space { need_mib, have_mib });
        }
        let failed = InstallError::disk("the staging folder");
        let file = store.staging().and_then(|dir| File::create(dir.join(ARCHIVE)));
        let file = file.map_err(failed)?;
        self.count += 1;
        let id = format!("{:016x}", self.random.hash_one(self.count));
        let upload = Upload { id, file, bytes, sha256, signed, received: 0, heard: now };
        Ok(self.upload.insert(upload).id.clone())
    }

    fn upload_of(&mut self, id: &str, now: Instant) -> Result<&mut Upload, InstallError> {
        let unknown = || InstallError::UnknownUpload(id.chars().take(32).collect());
        let upload = self.upload.as_mut().filter(|upload| upload.id == id).ok_or_else(unknown)?;
        upload.heard = now;
        Ok(upload)
    }

    fn piece(
        &mut self,
        id: &str,
        offset: u64,
        bytes: &[u8],
        now: Instant,
    ) -> Result<Next, InstallError> {
        let upload = self.upload_of(id, now)?;
        let end = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if end <= upload.received && upload.received < upload.bytes {
            // It came twice: its answer was lost.
            return Ok(Next::Receive(id.to_owned(), upload.received));
        }
        if offset != upload.received {
            return Err(InstallError::Offset { given: offset, wanted: upload.received });
        }
        if end > upload.bytes {
            let announced = upload.bytes;
            self.forget();
            return Err(InstallError::TooLong(announced));
        }
        if let Err(cause) = upload.file.write_all(bytes) {
            self.forget();
            return Err(InstallError::Disk { what: "the archive", cause });
        }
        upload.received = end;
        if end < upload.bytes { Ok(Next::Receive(id.to_owned(), end)) } else { self.complete() }
    }

    /// Copies a file first: nobody can change it between its verification and its use.
    fn copy(
        &mut self,
        path: &Path,
        sha256: Option<[u8; 32]>,
        signature: Option<&str>,
        now: Instant,
    ) -> Result<Next, InstallError> {
        let failed = |cause: String| InstallError::File {
            path: path.display().to_string().escape_debug().take(256).collect(),
            cause,
        };
        // Asked before it is opened: opening a pipe would wait.
        let metadata = std::fs::metadata(path).map_err(|error| failed(error.kind().to_string()))?;
        if !metadata.is_file() {
            return Err(failed("not a regular file".to_owned()));
        }
        let mut file = File::open(path).map_err(|error| failed(error.kind().to_string()))?;
        let id = self.begin(metadata.len(), sha256, signature, now)?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut offset = 0;
        loop {
            let count = file.read(&mut buffer).map_err(|error| {
                self.forget();
                failed(error.kind().to_string())
            })?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                self.forget();
                return Err(failed("it has become shorter".to_owned()));
            };
            match self.piece(&id, offset, bytes, now)? {
                Next::Receive(_, received) => offset = received,
                next => return Ok(next),
            }
        }
    }

    /// All bytes are here: verifies and unpacks them.
    fn complete(&mut self) -> Result<Next, InstallError> {
        let (Some(upload), Some(store)) = (self.upload.take(), &self.store) else {
            return Err(InstallError::NoDirectory);
        };
        let staged = unpack_verified(&upload, &store.staging_dir(), &self.limits);
        match staged {
            Ok(staged) => Ok(Next::Load(Box::new(staged))),
            Err(error) => {
                self.forget();
                Err(error)
            }
        }
    }
}

fn unpack_verified(
    upload: &Upload,
    staging: &Path,
    limits: &Limits,
) -> Result<Staged, InstallError> {
    let archive: PathBuf = staging.join(ARCHIVE);
    let failed = InstallError::disk("the archive");
    let read = File::open(&archive).and_then(|file| signature::read(file, upload.signed.as_ref()));
    let (sha256, is_genuine) = read.map_err(&failed)?;
    if upload.sha256.is_some_and(|announced| announced != sha256) {
        return Err(InstallError::Hash);
    }
    if !is_genuine {
        return Err(InstallError::Forged);
    }
    let bundle = unpack(&archive, staging, limits)?;
    // It has done its duty, and is half of what the disk needs.
    std::fs::remove_file(&archive).map_err(&failed)?;
    let written_bytes = upload.bytes.saturating_add(bundle.manifest().files_bytes());
    Ok(Staged { bundle, written_bytes })
}
