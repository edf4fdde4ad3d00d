//! Clients that people have: each asks, and understands the answer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use moed::transport::mqtt::Settings;

use super::has_mosquitto;
use crate::support::mqtt::broker::{Broker, free_port};
use crate::support::mqtt::daemon::{Daemon, settings};
use crate::support::service::FakeService;

fn bench() -> (Broker, Daemon) {
    let broker = Broker::start();
    let discovery_prefix = Some("homeassistant".to_owned());
    let settings = Settings { discovery_prefix, ..settings(broker.address) };
    let daemon = Daemon::with(settings, FakeService::default());
    (broker, daemon)
}

/// The daemon with the broker inside it.
fn own_broker() -> (SocketAddr, Daemon) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let settings = Settings {
        embedded: Some(address),
        discovery_prefix: Some("homeassistant".to_owned()),
        ..settings(address)
    };
    (address, Daemon::with(settings, FakeService::default()))
}

/// Whether a program is there.
fn has(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--help")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    found.is_ok()
}

fn run(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(status.success(), "{status}: {}{}", text(&stdout), text(&stderr));
    text(&stdout)
}

fn to(program: &str, broker: SocketAddr) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &broker.port().to_string()]);
    command
}

#[test]
fn mosquitto_rr_asks_in_v5() {
    if !has_mosquitto() || !has("mosquitto_rr") {
        return;
    }
    let (broker, _daemon) = bench();
    let (own, _other) = own_broker();
    for (broker, qos) in [broker.address, own].into_iter().flat_map(|b| [(b, 0), (b, 1), (b, 2)]) {
        let mut command = to("mosquitto_rr", broker);
        command.args(["-V", "5", "-q", &qos.to_string(), "-t", "moed/test/models/intent/infer"]);
        command.args(["-e", "me/answers", "-W", "10", "-m", r#"{"text": "hello"}"#]);
        let answer = run(command);
        assert!(answer.contains(r#""answer":{"intent":"HassTurnOn","text":"hello"}"#), "{answer}");
    }
}

#[test]
fn mosquitto_pub_and_sub_ask_in_v311() {
    if !has_mosquitto() || !has("mosquitto_sub") {
        return;
    }
    let (broker, _daemon) = bench();
    let mut listen = to("mosquitto_sub", broker.address);
    listen.args(["-V", "311", "-t", "moed/test/models/intent/result/shell", "-C", "1", "-W", "10"]);
    let listening = listen.stdout(Stdio::piped()).spawn().expect("it runs");
    crate::support::http::until("it listens", || broker.log().contains("result/shell"));
    let mut command = to("mosquitto_pub", broker.address);
    command.args(["-V", "311", "-q", "1", "-t", "moed/test/models/intent/infer/shell"]);
    command.args(["-m", r#"{"text": "hello", "id": "1"}"#]);
    run(command);
    let answer = listening.wait_with_output().expect("it ends").stdout;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains(r#""id":"1""#) && answer.contains("HassTurnOn"), "{answer}");
}

#[test]
fn the_daemon_as_a_process_is_asked_over_the_broker_and_stops_in_peace() {
    if !has_mosquitto() || !has("mosquitto_rr") {
        return;
    }
    let broker = Broker::start();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("moed.toml");
    let text = format!(
        "[mqtt]\nbroker = \"mqtt://{}\"\nnode = \"test\"\n[models]\ndirectories = [\"{}\"]\n",
        broker.address,
        directory.path().display()
    );
    std::fs::write(&config, text).unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_moed"))
        .args(["serve", "--sim", "--config"])
        .arg(&config)
        .arg("--socket")
        .arg(directory.path().join("moed.sock"))
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let status = || {
        let mut command = to("mosquitto_sub", broker.address);
        command.args(["-t", "moed/test/status", "-C", "1", "-W", "1"]);
        String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_owned()
    };
    crate::support::http::until("it is online", || status() == "online");
    let mut command = to("mosquitto_rr", broker.address);
    command.args(["-V", "5", "-t", "moed/test/models/sim/infer", "-e", "me/x", "-W", "10"]);
    command.args(["-m", "{}"]);
    let answer = run(command);
    assert!(answer.contains("invalid_request"), "{answer}");
    let id = daemon.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(daemon.wait().unwrap().success());
    assert_eq!(status(), "stopped");
}

/// Where `tests/run` puts clients in other languages; without, `left_out` names them.
pub fn clients() -> Option<PathBuf> {
    std::env::var_os("MOED_TEST_CLIENTS").map(PathBuf::from)
}

/// Runs a script against the daemon with mosquitto, and with its own broker.
fn script(program: &Path, name: &str) {
    let (broker, _daemon) = bench();
    let (own, _other) = own_broker();
    for address in [broker.address, own] {
        let project = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(program);
        command.arg(project.join("tests/clients").join(name));
        command.arg(address.port().to_string());
        if let Some(clients) = clients() {
            command.env("NODE_PATH", clients.join("node_modules"));
        }
        let output = run(command);
        assert!(output.contains("ok"), "{name}: {output}");
    }
}

#[test]
fn paho_asks_in_v5_and_v311() {
    let Some(clients) = clients() else { return };
    script(&clients.join("venv/bin/python"), "paho_client.py");
}

#[test]
fn mqtt_js_asks_in_v5_and_v311() {
    if clients().is_none() {
        return;
    }
    script(Path::new("node"), "mqtt_js_client.js");
}

#[test]
fn the_node_red_flow_of_the_examples_asks() {
    if clients().is_none() {
        return;
    }
    script(Path::new("node"), "node_red_flow.js");
}
