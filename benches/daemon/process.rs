//! The daemon as a process: started as systemd would, looked at through `/proc`.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::client::Client;

/// Nothing in it takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it serves.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub models: PathBuf,
    /// Serves the pretended model `sim` too, which takes so long.
    pub sim_ms: Option<u64>,
    /// The configuration's text.
    pub config: &'static str,
}

impl Options {
    pub fn of_models(models: &Path) -> Self {
        Self { models: models.to_owned(), ..Self::default() }
    }
}

/// A running daemon; it is stopped when this is dropped.
pub struct Daemon {
    child: Child,
    directory: tempfile::TempDir,
    pub ready_after: Duration,
}

impl Daemon {
    /// Starts it and waits for its READY=1.
    pub fn start(moed: &Path, options: &Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let notify = UnixDatagram::bind(at("notify")).unwrap();
        notify.set_read_timeout(Some(PATIENCE)).unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let started = Instant::now();
        let mut command = Command::new(moed);
        fs::write(at("moed.toml"), options.config).unwrap();
        command.arg("serve").arg("--config").arg(at("moed.toml"));
        command.arg("--models").arg(&options.models);
        command.arg("--socket").arg(at("moed.sock"));
        command.arg("--admin-socket").arg(at("admin.sock"));
        command.args(options.sim_ms.map(|ms| format!("--sim={ms}")));
        command.env("NOTIFY_SOCKET", at("notify")).env_remove("MOED_SOCKET");
        let child = command.stdin(Stdio::null()).stderr(log).spawn().expect("moed starts");
        let mut message = [0; 4096];
        let ready_after = loop {
            let log = || fs::read_to_string(at("log")).unwrap_or_default();
            let count = notify.recv(&mut message).unwrap_or_else(|e| panic!("{e}: {}", log()));
            if message[..count].split(|&byte| byte == b'\n').any(|line| line == b"READY=1") {
                break started.elapsed();
            }
        };
        Self { child, directory, ready_after }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("moed.sock")
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }

    pub fn connect(&self) -> Client {
        Client::connect(&self.socket())
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(file)
    }

    /// A line of `/proc/PID/status` that is in kB.
    pub fn memory_bytes(&self, name: &str) -> u64 {
        let text = fs::read_to_string(self.proc("status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kb = line.expect("the kernel says so").trim().trim_end_matches(" kB");
        kb.parse::<u64>().unwrap() * 1024
    }

    pub fn threads(&self) -> usize {
        fs::read_dir(self.proc("task")).unwrap().count()
    }

    /// What its threads have computed.
    pub fn cpu_time(&self) -> Duration {
        let tasks = fs::read_dir(self.proc("task")).unwrap();
        let nanos = tasks.map(|task| {
            let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            text.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        });
        Duration::from_nanos(nanos.sum())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
