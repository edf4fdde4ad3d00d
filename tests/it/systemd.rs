//! What systemd hears from the process itself, and what its exit code says. What a real systemd
//! makes of it: tests/systemd/run.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::http::PATIENCE;

/// A daemon with somebody in systemd's place; it ends when this is dropped.
struct Daemon {
    child: Child,
    notify: UnixDatagram,
    directory: tempfile::TempDir,
}

impl Daemon {
    fn start(watchdog: Option<Duration>, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("notify");
        let notify = UnixDatagram::bind(&place).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_moed"));
        command
            .args(["serve", "--config", "/dev/null", "--socket"])
            .arg(directory.path().join("moed.sock"))
            .args(arguments)
            .env("NOTIFY_SOCKET", place)
            .stderr(Stdio::null());
        if let Some(limit) = watchdog {
            command.env("WATCHDOG_USEC", limit.as_micros().to_string());
        }
        Self { child: command.spawn().expect("moed starts"), notify, directory }
    }

    /// The next message, if one comes within `time`.
    fn hear(&self, time: Duration) -> Option<String> {
        self.notify.set_read_timeout(Some(time)).unwrap();
        let mut bytes = [0; 4096];
        let count = self.notify.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..count].to_vec()).unwrap())
    }

    /// All messages up to the first that has `text`.
    fn hear_until(&self, text: &str) -> Vec<String> {
        let mut heard = Vec::new();
        while !heard.last().is_some_and(|last: &String| last.contains(text)) {
            let next = self.hear(PATIENCE);
            heard.push(next.unwrap_or_else(|| panic!("no {text} after {heard:?}")));
        }
        heard
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn moed(arguments: &[&str], socket: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moed"));
    command.args(arguments).arg("--socket").arg(socket);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("moed starts")
}

#[test]
fn systemd_hears_of_more_time_and_of_the_status_and_last_that_it_is_ready() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let daemon = Daemon::start(None, &["--models", models.to_str().unwrap()]);
    let heard = daemon.hear_until("READY=1");
    let said = |text: &str| heard.iter().any(|message| message.contains(text));
    assert!(said("EXTEND_TIMEOUT_USEC=60000000"), "{heard:?}");
    assert!(said("STATUS=intent 1."), "{heard:?}");
    assert!(heard.iter().all(|message| !message.contains("WATCHDOG")), "{heard:?}");
}

#[test]
fn the_watchdog_is_fed_until_a_worker_hangs_though_the_daemon_answers() {
    let limit = Duration::from_millis(1200);
    let empty = tempfile::tempdir().unwrap();
    let models = empty.path().to_str().unwrap();
    let daemon = Daemon::start(Some(limit), &["--models", models, "--sim=600000"]);
    daemon.hear_until("READY=1");
    for _ in 0..3 {
        daemon.hear_until("WATCHDOG=1");
    }
    let socket = daemon.directory.path().join("moed.sock");
    let mut query = moed(&["query", "sim", r#"{"x": [[1, 2]]}"#], &socket);
    // One that was on its way may come; then none for as long as systemd waits.
    let started = Instant::now();
    let mut last = started;
    while daemon.hear(limit).is_some() {
        last = Instant::now();
        assert!(started.elapsed() < PATIENCE, "it is still fed");
    }
    assert!(last - started < PATIENCE);
    let mut health = moed(&["models"], &socket);
    assert!(health.wait().unwrap().success(), "the daemon answers still");
    let _ = query.kill();
    let _ = query.wait();
}

#[test]
fn a_wrong_configuration_has_an_exit_code_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    std::fs::write(place.join("unknown.toml"), "nonsense = 1").unwrap();
    std::fs::write(place.join("home.toml"), "[models]\nhome = \"/none/such\"").unwrap();
    std::fs::write(place.join("file"), "").unwrap();
    for (arguments, code) in [
        ("--config unknown.toml --socket a", 78),
        ("--config home.toml --socket b", 78),
        ("--config /dev/null --socket file", 78),
        // Somebody may make the directory.
        ("--config /dev/null --socket none/such/moed.sock", 1),
        ("--nonsense", 2),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_moed"))
            .arg("serve")
            .args(arguments.split_whitespace())
            .current_dir(place)
            .output()
            .expect("moed starts");
        assert_eq!(output.status.code(), Some(code), "{arguments}: {output:?}");
    }
}
