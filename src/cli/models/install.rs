//! `moed models install`: sends an archive to the daemon, a piece at a time.

use std::fs::{self, File};
use std::io::{IsTerminal as _, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::super::client::Client;
use super::super::process::new_directory;
use super::super::{Failure, failure, print};
use crate::bundle::{self, Bundle, Limits, pack};

const TARGET: &str = "/v2/repository/install";
/// Of a signature's file.
const SIGNATURE_BYTES_MAX: u64 = 4096;
const BUFFER_BYTES: usize = 64 << 10;
const BAR_CHARS: usize = 30;
const MIB: f64 = (1 << 20) as f64;

/// Installs a model, or a newer version of one, while the daemon goes on answering.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    moed models install intent-1.1.0.moed    a file; signed, if its .minisig is beside it\n  \
    moed models install models/mine          a bundle's directory\n  \
    sudo moed models install --socket /run/moed/admin.sock intent-1.1.0.moed\n\n\
    The daemon verifies the file, loads it beside the version that serves, and checks that it\n\
    gives its recorded answers; only then does it take over. If any of it fails, nothing changes.\n\
    If too many of its first requests fail, the daemon goes back to the version before by \
    itself.\n\n\
    To sign: minisign -S -m intent-1.1.0.moed. Whether a signature is needed, and whose, is in\n\
    the daemon's configuration: `public_keys` and `signature` under [install].")]
pub struct Install {
    /// A .moed file, or a bundle's directory.
    file: PathBuf,
    /// The file's signature; FILE.minisig if that is there and none is named.
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Lets the daemon read the file itself, by its absolute path.
    #[arg(long)]
    by_path: bool,
    /// Shows no progress.
    #[arg(long, short)]
    quiet: bool,
}

impl Install {
    pub fn run(self, client: &mut Client) -> Result<(), Failure> {
        let signature = self.read_signature()?;
        if self.by_path {
            let path = std::path::absolute(&self.file).map_err(failure)?;
            let body = json!({ "path": path, "signature": signature });
            let done = client.post(TARGET, body.to_string().into_bytes())?.json()?;
            return print(&summary(&done));
        }
        let packed = Packed::new(&self.file)?;
        let mut archive = open(packed.path())?;
        let bytes = archive.metadata().map_err(failure)?.len();
        let sha256 = sha256(&mut archive).map_err(|error| {
            format!("{}: can't be read: {error}; check its permissions", self.file.display())
        })?;
        let body = json!({ "bytes": bytes, "sha256": sha256, "signature": signature });
        let begun = client.post(TARGET, body.to_string().into_bytes())?.json()?;
        let bar = Bar { is_shown: !self.quiet && std::io::stderr().is_terminal(), bytes };
        let sent = send(client, &mut archive, &begun, &bar);
        bar.clear();
        print(&summary(&sent?))
    }

    fn read_signature(&self) -> Result<Option<String>, Failure> {
        let beside = {
            let mut name = self.file.as_os_str().to_owned();
            name.push(".minisig");
            Some(PathBuf::from(name)).filter(|path| path.exists())
        };
        let Some(path) = self.signature.clone().or(beside) else { return Ok(None) };
        let failed = |cause: String| {
            format!("signature: {}: {cause}; make it with `minisign -S`", path.display())
        };
        let file = File::open(&path).map_err(|error| failed(error.to_string()))?;
        let mut text = String::new();
        let read = file.take(SIGNATURE_BYTES_MAX).read_to_string(&mut text);
        read.map_err(|error| failed(error.to_string()))?;
        Ok(Some(text))
    }
}

/// Sends the archive; the answer to its last piece.
fn send(
    client: &mut Client,
    archive: &mut File,
    begun: &Value,
    bar: &Bar,
) -> Result<Value, Failure> {
    let number = |name: &str| begun.get(name).and_then(Value::as_u64);
    let upload = begun.get("upload").and_then(Value::as_str);
    let (Some(upload), Some(piece_bytes)) = (upload, number("piece_bytes_max")) else {
        return Err("daemon: its answer is not understood; is it the same version?".to_owned());
    };
    archive.rewind().map_err(failure)?;
    let mut offset = 0;
    loop {
        bar.show(offset);
        let mut piece = Vec::new();
        let read = Read::by_ref(archive).take(piece_bytes.max(1)).read_to_end(&mut piece);
        read.map_err(failure)?;
        let end = offset + u64::try_from(piece.len()).unwrap_or(u64::MAX);
        if end == bar.bytes {
            bar.show(end);
        }
        let answer = client.post_octets(&format!("{TARGET}/{upload}/{offset}"), piece)?.json()?;
        if answer.get("model").is_some() {
            return Ok(answer);
        }
        if end == offset {
            // The daemon forgets what nothing comes of any more, if it is not told.
            drop(client.post(&format!("{TARGET}/{upload}/abort"), Vec::new()));
            return Err("archive: it has become shorter; install it again".to_owned());
        }
        offset = end;
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    let failed = |cause: String| {
        format!("{}: can't be opened: {cause}; name a .moed file or a bundle", path.display())
    };
    let metadata = fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if !metadata.is_file() {
        return Err(failed("not a regular file".to_owned()));
    }
    File::open(path).map_err(|error| failed(error.to_string()))
}

fn sha256(archive: &mut File) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = archive.read(&mut buffer)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        hasher.update(read);
    }
    Ok(bundle::Sha256(hasher.finalize().into()).to_string())
}

fn summary(done: &Value) -> String {
    let text = |name: &str| done.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| done.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (model, version) = (text("model"), text("version"));
    if done.get("is_new").and_then(Value::as_bool) == Some(false) {
        return format!("{model} {version}: serves already; nothing has changed\n");
    }
    let previous = match text("previous") {
        "" => String::new(),
        previous => format!(" instead of {previous}"),
    };
    let written = mib(number("written_bytes"));
    let trial = match number("trial_requests") {
        0 => String::new(),
        n => format!("; on trial for its next {n} requests"),
    };
    format!("{model} {version}: serves{previous}; {written} MiB written{trial}\n")
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MIB)
}

/// How much has been sent, on a terminal.
struct Bar {
    is_shown: bool,
    bytes: u64,
}

impl Bar {
    fn show(&self, sent: u64) {
        if !self.is_shown {
            return;
        }
        let percent = sent.saturating_mul(100).checked_div(self.bytes).unwrap_or(100);
        let full = usize::try_from(percent).unwrap_or_default() * BAR_CHARS / 100;
        let bar = format!("{:.<BAR_CHARS$}", "#".repeat(full));
        let what = if sent == self.bytes { "verified, loaded, tested" } else { "sent" };
        let line = format!(
            "\r\x1b[K[{bar}] {percent:>3}%  {} of {} MiB  {what}",
            mib(sent),
            mib(self.bytes)
        );
        write(&line);
    }

    fn clear(&self) {
        if self.is_shown {
            write("\r\x1b[K");
        }
    }
}

fn write(text: &str) {
    // A bar that can't be shown is no failure.
    let mut err = std::io::stderr().lock();
    drop(err.write_all(text.as_bytes()).and_then(|()| err.flush()));
}

/// An archive: the one that was named, or one made of the directory that was.
struct Packed {
    path: PathBuf,
    made_in: Option<PathBuf>,
}

impl Packed {
    fn new(file: &Path) -> Result<Self, Failure> {
        if !file.is_dir() {
            return Ok(Self { path: file.to_owned(), made_in: None });
        }
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let bundle = Bundle::open(file, &Limits::default()).map_err(|error| failed(&error))?;
        let dir = new_directory().map_err(|error| failed(&error))?;
        let packed = Self { path: dir.join("packed.moed"), made_in: Some(dir) };
        pack(&bundle, &packed.path).map_err(|error| failed(&error))?;
        Ok(packed)
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        if let Some(dir) = &self.made_in {
            // In a temporary directory, it goes some time.
            drop(fs::remove_dir_all(dir));
        }
    }
}
