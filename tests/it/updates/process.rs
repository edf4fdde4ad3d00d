//! A daemon as a process of its own, with a packaged model, and a directory for installed ones.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::data;
use crate::support::http::PATIENCE;

pub const MODEL: &str = "intent-tiny";

/// An archive of `tests/data/updates`.
pub fn archive(name: &str) -> PathBuf {
    data("updates").join(name)
}

/// Its signature's text.
pub fn signature(name: &str) -> String {
    fs::read_to_string(archive(name)).expect("a signature")
}

pub struct Daemon {
    pub directory: tempfile::TempDir,
    config: String,
    child: Option<Child>,
}

impl Daemon {
    /// One that is ready. `config` is the text of its configuration.
    pub fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let packaged = directory.path().join("packaged").join(MODEL);
        fs::create_dir_all(&packaged).expect("a folder");
        for entry in fs::read_dir(data("bundles/intent")).expect("a fixture") {
            let path = entry.expect("a file").path();
            fs::copy(&path, packaged.join(path.file_name().unwrap())).expect("it is copied");
        }
        let mut daemon = Self { directory, config: config.to_owned(), child: None };
        daemon.restart();
        daemon
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts it again, and waits until it is ready.
    pub fn restart(&mut self) {
        self.kill();
        fs::write(self.path("moed.toml"), &self.config).expect("a configuration");
        let log = File::options().create(true).append(true).open(self.path("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_moed"))
            .args(["serve", "--threads", "1", "--config"])
            .arg(self.path("moed.toml"))
            .arg("--models")
            .arg(self.path("packaged"))
            .arg("--install-dir")
            .arg(self.path("installed"))
            .arg("--socket")
            .arg(self.path("moed.sock"))
            .arg("--admin-socket")
            .arg(self.path("admin.sock"))
            .env("XDG_STATE_HOME", self.path("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("moed starts"));
        let start = Instant::now();
        while self.try_get("/v2/health/ready").is_none_or(|(status, _)| status != 200) {
            assert!(start.elapsed() < PATIENCE, "it becomes ready: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// As a power cut would, as far as a process can tell.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            child.wait().expect("it ends");
        }
    }

    /// The same, without waiting for its end; [`restart`](Self::restart) does.
    pub fn signal_kill(&self) {
        let pid =
            rustix::process::Pid::from_raw(i32::try_from(self.id()).unwrap()).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is killed");
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn try_get(&self, target: &str) -> Option<(u16, Value)> {
        let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        self.ask("moed.sock", head.as_bytes())
    }

    /// Sends to the owner's socket; `None` if the daemon is gone.
    pub fn post(&self, target: &str, body: &[u8]) -> Option<(u16, Value)> {
        let length = body.len();
        let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        self.ask("admin.sock", &[head.as_bytes(), body].concat())
    }

    fn ask(&self, socket: &str, bytes: &[u8]) -> Option<(u16, Value)> {
        let mut stream = UnixStream::connect(self.path(socket)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(bytes).ok()?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        Some((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// Sends an archive in pieces; the last answer. `None` if the daemon died meanwhile.
    pub fn install(&self, archive: &Path, signature: Option<&str>) -> Option<(u16, Value)> {
        let bytes = fs::read(archive).expect("an archive");
        let begin = announcement(&bytes, signature);
        let (status, begun) = self.post("/v2/repository/install", begin.to_string().as_bytes())?;
        if status != 200 {
            return Some((status, begun));
        }
        let upload = begun["upload"].as_str().expect("an upload");
        let mut last = None;
        for (at, piece) in bytes.chunks(20_000).enumerate() {
            let target = format!("/v2/repository/install/{upload}/{}", at * 20_000);
            let answer = self.post(&target, piece)?;
            let is_refused = answer.0 != 200;
            last = Some(answer);
            if is_refused {
                break;
            }
        }
        last
    }

    /// The version that serves, after an answer that proves it.
    pub fn version(&self) -> String {
        let target = format!("/v2/models/{MODEL}/infer");
        let (status, answer) =
            self.post(&target, br#"{"text": "turn on the light"}"#).expect("an answer");
        assert_eq!(status, 200, "{answer}");
        let (_, listed) = self.try_get("/v2/models").expect("an answer");
        listed["models"][0]["version"].as_str().expect("a version").to_owned()
    }

    /// Runs `moed models` with the owner's socket.
    pub fn models(&self, arguments: &[&str]) -> Output {
        let output = Command::new(env!("CARGO_BIN_EXE_moed"))
            .arg("models")
            .args(arguments)
            .arg("--socket")
            .arg(self.path("admin.sock"))
            .output();
        output.expect("moed runs")
    }

    /// All files and folders among the installed models, by path.
    pub fn installed(&self) -> Vec<String> {
        let root = self.path("installed");
        let mut found = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.expect("an entry").path();
                found.push(path.strip_prefix(&root).unwrap().display().to_string());
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log: {}", self.log());
        }
        self.kill();
    }
}

/// What begins an upload.
pub fn announcement(bytes: &[u8], signature: Option<&str>) -> Value {
    let sum: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"bytes": bytes.len(), "sha256": sum, "signature": signature})
}

/// What a command said, on both outputs, without paths of this run.
pub fn said(output: &Output, daemon: &Daemon) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    text.replace(daemon.directory.path().to_str().expect("UTF-8"), "DIRECTORY")
}
