//! mosquitto on a free port of this host.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::packet::PATIENCE;

/// Whether there is one on this host. `tests/run` installs it.
pub fn mosquitto() -> Option<PathBuf> {
    ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

/// A broker; it is killed when this is dropped.
pub struct Broker {
    pub address: SocketAddr,
    pub directory: tempfile::TempDir,
    config: String,
    child: Option<Child>,
}

/// A port that nobody listens on now. Brokers can't be told to choose one.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Broker {
    /// One that lets in everybody.
    pub fn start() -> Self {
        Self::with("allow_anonymous true\n")
    }

    /// One with these lines in its configuration; `DIRECTORY` in them is its directory.
    pub fn with(lines: &str) -> Self {
        Self::with_files(lines, &[])
    }

    pub fn with_files(lines: &str, files: &[(&str, &[u8])]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (name, bytes) in files {
            fs::write(directory.path().join(name), bytes).expect("a file can be written");
        }
        let port = free_port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let lines = lines.replace("DIRECTORY", directory.path().to_str().unwrap());
        let config = format!("listener {port} 127.0.0.1\nmax_queued_messages 0\n{lines}");
        fs::write(directory.path().join("mosquitto.conf"), &config).expect("it can be written");
        let mut broker = Self { address, directory, config, child: None };
        broker.restart();
        broker
    }

    /// Starts it, and waits until it listens.
    pub fn restart(&mut self) {
        self.kill();
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.path().join("mosquitto.log"))
            .expect("a log can be opened");
        // It would become another user, who may not read the directory.
        let user = if is_root() { "user root\n" } else { "" };
        let config = self.directory.path().join("mosquitto.conf");
        fs::write(&config, format!("{}{user}", self.config)).expect("it can be written");
        let child = Command::new(mosquitto().expect("mosquitto is there"))
            .args(["-v", "-c"])
            .arg(config)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("mosquitto starts");
        self.child = Some(child);
        let start = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            assert!(start.elapsed() < PATIENCE, "mosquitto listens: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
        }
    }

    /// Sends it a signal by name, such as STOP.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it runs").id();
        let status = Command::new("kill").args([format!("-{name}"), id.to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("mosquitto.log")).unwrap_or_default()
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(3000);
            eprintln!("the broker's log ends so:\n{}", log.get(from..).unwrap_or(&log));
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
