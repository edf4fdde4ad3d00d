//! The daemon as a process with a broker: what is only there when everything is put together.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::has_mosquitto;
use crate::support::http::until;
use crate::support::mqtt::broker::Broker;
use crate::support::mqtt::client::Client;
use crate::support::mqtt::packet::Message;

const ALL: usize = 2000;
const QUEUE_MAX: usize = 8;

/// A daemon with the model `sim`; killed when this is dropped.
struct Process {
    child: Child,
    directory: tempfile::TempDir,
}

impl Process {
    fn start(broker: &Broker) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (config, models) = (directory.path().join("moed.toml"), directory.path().display());
        let text = format!(
            "[mqtt]\nbroker = \"mqtt://{}\"\nnode = \"test\"\nhome_assistant = true\n\
             health_interval_ms = 1000\n[models]\ndirectories = [\"{models}\"]\n\
             [scheduler]\nqueue_requests_max = {QUEUE_MAX}\n",
            broker.address,
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_moed"))
            .args(["serve", "--sim", "--config"])
            .arg(&config)
            .arg("--socket")
            .arg(directory.path().join("moed.sock"))
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        Self { child, directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("moed.sock")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn metrics(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn no_request_at_qos_1_is_refused_at_full_speed_and_all_is_measured() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    let daemon = Process::start(&broker);
    let mut client = Client::v5(broker.address, "client");
    client.subscribe("replies/#");
    until("it listens", || broker.log().contains("moed/test/models/+/infer"));
    let address = broker.address;
    let sender = std::thread::spawn(move || {
        let mut sender = Client::v5(address, "sender");
        for n in 0..ALL {
            let request = Message::new("moed/test/models/sim/infer", r#"{"x": [[1, 2]]}"#);
            sender.publish(request.reply_to("replies/all", &n.to_string()).qos(1));
        }
        sender.flush();
    });
    let mut seen = HashSet::new();
    while seen.len() < ALL {
        let reply = client.receive_on("replies/all");
        assert_eq!(
            reply.user("status"),
            Some("200"),
            "{}",
            String::from_utf8_lossy(&reply.payload)
        );
        assert!(seen.insert(reply.correlation().to_owned()), "answered once");
    }
    sender.join().unwrap();

    let settled = format!("moed_mqtt_outcomes_total{{outcome=\"replied\"}} {ALL}");
    until("it is counted", || metrics(&daemon.socket()).contains(&settled));
    let text = metrics(&daemon.socket());
    for line in [format!("moed_mqtt_requests_total {ALL}"), "moed_mqtt_connected 1".to_owned()] {
        assert!(text.contains(&line), "{line}: {text}");
    }

    client.subscribe("homeassistant/device/moed_test/config");
    let has_latency = |message: &Message| message.json()["components"].get("p99_ms").is_some();
    let mut found = client.receive();
    while !has_latency(&found) {
        found = client.receive();
    }
    let components = &found.json()["components"];
    assert!(components.get("queue").is_some());
    client.subscribe("moed/test/health");
    let health = client.receive_on("moed/test/health").json();
    for value in ["queue", "p50_ms", "p99_ms", "resident_bytes", "load"] {
        assert!(health[value].is_number(), "{value}: {health}");
    }
    assert!(health["p50_ms"].as_f64() <= health["p99_ms"].as_f64(), "{health}");
}
