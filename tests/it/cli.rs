//! The commands, as processes: the daemon and those that ask it, the demo, help and manual.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::http::until;

const COMMANDS: [&str; 11] = [
    "serve",
    "query",
    "models",
    "check",
    "inspect",
    "bundle",
    "bench",
    "demo",
    "resolve",
    "completions",
    "man",
];

fn moed() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moed"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("MOED_SOCKET").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = moed().args(arguments).output().expect("moed starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes UTF-8");
    (status.code().expect("no signal ends it"), text(stdout), text(stderr))
}

/// A process, which is killed when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon that serves `models`.
struct Daemon {
    process: Process,
    directory: tempfile::TempDir,
}

impl Daemon {
    fn start(models: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("moed.toml"), "").unwrap();
        let mut command = moed();
        command.arg("serve").arg("--config").arg(at("moed.toml")).arg("--models").arg(models);
        command.arg("--socket").arg(at("moed.sock")).arg("--admin-socket").arg(at("admin.sock"));
        let log = std::fs::File::create(at("log")).unwrap();
        let child = command.stderr(log).spawn().expect("moed starts");
        let daemon = Self { process: Process(child), directory };
        until("it is ready", || daemon.log().contains("ready after"));
        daemon
    }

    fn at(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("text").to_owned()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        let pid =
            i32::try_from(self.process.0.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("it is there");
    }
}

fn copy(from: &Path, to: &Path, version: &str) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let from = file.unwrap().path();
        std::fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
    }
    let manifest = to.join("manifest.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let text = text.replace("\nversion = \"1.0.0\"", &format!("\nversion = \"{version}\""));
    std::fs::write(manifest, text).unwrap();
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/intent")
}

#[test]
fn the_daemon_is_asked_managed_reloaded_and_stopped() {
    let models = tempfile::tempdir().unwrap();
    for version in ["1.0.0", "1.0.1"] {
        copy(&shipped(), &models.path().join("intent").join(version), version);
    }
    let mut daemon = Daemon::start(models.path());
    let (socket, admin) = (daemon.at("moed.sock"), daemon.at("admin.sock"));

    let (code, out, err) =
        run(&["query", "--socket", &socket, "intent", "turn on the kitchen light"]);
    assert!(code == 0 && out.starts_with("HassTurnOn  "), "{out}{err}");
    let (code, out, _) = run(&[
        "query",
        "--json",
        "--budget",
        "0",
        "--socket",
        &socket,
        "intent",
        "set a timer for 5 minutes",
    ]);
    let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, answer["slots"]["minutes"].as_u64()), (0, Some(5)), "{out}");
    let (code, _, err) = run(&["query", "--socket", &socket, "inten", "hello"]);
    assert_eq!(
        (code, err.as_str()),
        (1, "moed: model `inten`: not known; did you mean `intent`?\n")
    );

    let shown = |version: &str| {
        let (code, out, err) = run(&["models", "--socket", &socket]);
        assert!(code == 0 && out.contains(version) && out.contains("ready"), "{out}{err}");
    };
    shown("1.0.1");
    assert_eq!(run(&["models", "rollback", "intent", "--socket", &admin]).0, 0);
    shown("1.0.0");
    assert_eq!(run(&["models", "load", "intent", "--socket", &admin]).0, 0);
    shown("1.0.1");
    let (code, _, err) = run(&["models", "unload", "intent", "--socket", &socket]);
    assert!(code == 1 && err.contains("only served on the admin socket"), "{err}");

    // Several in a row are one; a bad file changes nothing, and says so.
    std::fs::write(daemon.at("moed.toml"), "[log]\nlevel = \"loud\"").unwrap();
    daemon.signal(Signal::HUP);
    until("it is refused", || daemon.log().contains("what was read before stays"));
    std::fs::write(daemon.at("moed.toml"), "[log]\nlevel = \"debug\"\n[models]\nthreads = 1")
        .unwrap();
    daemon.signal(Signal::HUP);
    until("it is read", || daemon.log().contains("restart moed for all of it"));

    daemon.signal(Signal::TERM);
    let status = daemon.process.0.wait().expect("it ends");
    assert_eq!((status.code(), status.signal()), (Some(0), None), "{}", daemon.log());
    assert!(!Path::new(&socket).exists() && !Path::new(&admin).exists(), "its sockets are gone");
    let (code, _, err) = run(&["query", "--socket", &socket, "intent", "hello"]);
    assert!(code == 1 && err.contains("is `moed serve` running there?"), "{err}");
}

/// Memory of a process that is its own, in KiB.
fn anonymous_kib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("it is there");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn what_versions_took_is_given_back_when_they_are_swapped() {
    let models = tempfile::tempdir().unwrap();
    for version in ["1.0.0", "1.0.1"] {
        copy(&shipped(), &models.path().join("intent").join(version), version);
    }
    let daemon = Daemon::start(models.path());
    let admin = daemon.at("admin.sock");
    let before = anonymous_kib(&daemon.process);
    for _ in 0..6 {
        for verb in ["rollback", "load"] {
            let (code, _, err) = run(&["models", verb, "intent", "--socket", &admin]);
            assert_eq!((code, err.as_str()), (0, ""), "{verb}");
        }
    }
    let after = anonymous_kib(&daemon.process);
    // Without `daemon::heap` it is 15 to 25 MiB more.
    assert!(after < before + (8 << 10), "{before} KiB before, {after} KiB after twelve swaps");
}

#[test]
fn a_socket_that_systemd_passes_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("held.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("it can be bound");
    // What systemd does: the socket is descriptor 3, and the process knows that it is meant.
    let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$ \
                  LISTEN_FDNAMES=moed.socket; exec \"$@\"";
    let daemon = Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_moed"), "serve", "--sim"])
        .args(["--config", "/dev/null", "--models"])
        .arg(directory.path())
        .stdin(std::os::fd::OwnedFd::from(listener))
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let _daemon = Process(daemon);
    let place = socket.to_str().expect("text");
    // Who asks too early waits, or hears that the daemon is still starting.
    let ask = || run(&["query", "--socket", place, "sim", "{\"x\": [[1, 2]]}"]);
    until("it is answered", || {
        let (code, out, err) = ask();
        assert!(code == 0 || err.contains("moed is still starting"), "{err}");
        code == 0 && out.starts_with("y=")
    });
    assert!(socket.exists(), "it is systemd's, and stays");
}

#[test]
fn the_demo_understands_fits_and_leaves_nothing() {
    let (code, out, err) = run(&["demo"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let right = out.lines().filter(|line| line.starts_with("ok  ")).count();
    let wrong = out.lines().filter(|line| line.starts_with("--  ")).count();
    assert!(right + wrong == 40 && right >= 36, "{out}");
    assert!(out.contains("name=\"Garage door\"  -> cover.garage"), "{out}");
    let wide: Vec<_> = out.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty(), "{wide:?}");
    assert!(!out.contains('\x1b'), "no colours where there is no terminal");
    let socket = out.split_whitespace().find(|word| word.ends_with("moed.sock,")).expect("named");
    assert!(!Path::new(socket.trim_end_matches(',')).exists(), "it has stopped");
    assert_eq!(without_times(&run(&["demo"]).1), without_times(&out), "its seed decides");
}

/// What does not differ from run to run: marks, sentences, what they mean.
fn without_times(out: &str) -> Vec<String> {
    let lines = out
        .lines()
        .filter(|line| ["ok  ", "--  ", "    "].iter().any(|mark| line.starts_with(mark)));
    lines.map(|line| line.chars().take(70).collect()).collect()
}

#[test]
fn a_demo_that_is_kept_can_be_asked_and_stopped_as_it_says() {
    let mut child = moed()
        .args(["demo", "--keep", "--seed", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("moed starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let lines: Vec<String> = lines.map(|line| line.expect("text")).collect();
    assert!(child.wait().expect("it ends").success());
    let after = |what: &str| {
        let at = lines.iter().position(|line| line.ends_with(what)).expect(what);
        lines[at + 1].trim().to_owned()
    };
    let (ask, stop) = (after("Ask it:"), after("Stop it:"));
    let socket = ask.split_whitespace().last().expect("a path").to_owned();
    let (code, out, err) = run(&["query", "intent", "turn on the light", "--socket", &socket]);
    let stopped = Command::new("sh").args(["-c", &stop]).status().expect("a shell");
    assert!(code == 0 && out.contains("HassTurnOn"), "{out}{err}");
    assert!(ask.starts_with("moed query intent 'turn on the light' --socket "), "{ask}");
    assert!(stopped.success() && !Path::new(&socket).exists(), "{stop}");
}

#[test]
fn every_command_s_help_shows_how_it_is_used() {
    for command in COMMANDS {
        let (code, out, _) = run(&[command, "--help"]);
        assert!(code == 0 && out.contains(&format!("moed {command}")), "{command}: {out}");
        // What `moed check` says explains itself.
        assert!(command == "check" || out.contains("Example"), "{command}: {out}");
        let wide: Vec<_> = out.lines().filter(|line| line.chars().count() > 100).collect();
        assert!(command == "check" || wide.is_empty(), "{command}: {wide:?}");
    }
    assert_eq!(run(&["--help"]).0, 0);
    assert_eq!(run(&[]).0, 2);
    assert_eq!(run(&["query"]).0, 2);
    let (code, _, err) = run(&["sevre"]);
    assert!(code == 2 && err.contains("serve"), "{err}");
}

#[test]
fn the_manual_and_completions_name_every_command() {
    let (code, page, _) = run(&["man"]);
    assert_eq!(code, 0);
    for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "ENVIRONMENT", "FILES"] {
        let count = page.matches(&format!(".SH {section}\n")).count();
        assert_eq!(count, 1, "{section}: {page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = run(&["completions", shell]);
        assert!(code == 0 && COMMANDS.iter().all(|command| out.contains(command)), "{shell}");
    }
    for command in COMMANDS {
        assert!(page.contains(&format!(".SH {}\n", command.to_uppercase())), "{command}: {page}");
    }
}

#[test]
fn what_can_not_be_done_is_said_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none").to_str().unwrap().to_owned();
    for (arguments, want) in [
        (vec!["serve", "--config", &missing], "can't be read"),
        (vec!["demo", "--models", &missing], "intent"),
        (vec!["bench", &missing], "no bundle, and no model of that name"),
        (vec!["inspect", &missing], "none"),
        (vec!["bundle", &missing, "--to", &missing], "model"),
        (vec!["models", "--socket", &missing], "is `moed serve` running there?"),
        (vec!["resolve", &missing], &missing),
    ] {
        let (code, out, err) = run(&arguments);
        // 78: a service whose configuration is wrong is not worth starting again.
        assert!([1, 78].contains(&code) && out.is_empty(), "{arguments:?}: {code}: {out}");
        assert!(err.starts_with("moed: ") && err.contains(want), "{arguments:?}: {err}");
    }
}
