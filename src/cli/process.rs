//! A daemon of our own for `moed demo` and `moed bench`: this program, in a process of its own,
//! with its socket in a new directory.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

use super::Failure;
use super::client::Client;

/// How long it may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(2);

/// A running daemon, which is stopped when this is dropped.
pub struct Process {
    child: Child,
    dir: PathBuf,
    is_kept: bool,
    /// From its start until it was ready.
    pub start: Duration,
}

impl Process {
    /// Starts a daemon that serves the models in `models`, for a home if one is given, and waits
    /// until it is ready.
    pub fn start(models: &Path, arguments: &[&str], home: Option<&str>) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| format!("daemon: can't be started: {error}");
        let dir = new_directory().map_err(failed)?;
        let log = File::create(dir.join("log")).map_err(failed)?;
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(["serve", "--config", "/dev/null", "--socket"]).arg(dir.join("moed.sock"));
        command.arg("--models").arg(models).args(arguments);
        if let Some(home) = home {
            let file = dir.join("home.toml");
            fs::write(&file, home).map_err(failed)?;
            command.arg("--home").arg(file);
        }
        let started = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let mut process = Self { child, dir, is_kept: false, start: Duration::ZERO };
        process.wait_until_ready(started)?;
        process.start = started.elapsed();
        Ok(process)
    }

    fn wait_until_ready(&mut self, started: Instant) -> Result<(), Failure> {
        while started.elapsed() < PATIENCE {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                break;
            }
            let is_ready = self.socket().exists()
                && self
                    .client()
                    .and_then(|mut client| client.get("/v2/health/ready"))
                    .is_ok_and(|response| response.status < 300);
            if is_ready {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let errors: Vec<_> = log.lines().filter(|line| line.contains("error")).take(3).collect();
        let cause = if errors.is_empty() { log.trim() } else { &errors.join("; ") };
        Err(format!("daemon: it did not become ready: {cause}"))
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("moed.sock")
    }

    pub fn client(&self) -> Result<Client, Failure> {
        Client::connect(&self.socket())
    }

    /// Its resident memory, in bytes, where `/proc` says.
    pub fn resident_bytes(&self) -> Option<u64> {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id())).ok()?;
        let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
        pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
    }

    /// Leaves it running; returns its process id.
    pub fn keep(mut self) -> u32 {
        self.is_kept = true;
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A new directory that only this user can use.
pub fn new_directory() -> std::io::Result<PathBuf> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    let name = format!("moed-{}-{nanos}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    DirBuilder::new().mode(0o700).create(&dir)?;
    Ok(dir)
}
