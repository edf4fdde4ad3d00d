//! An installation over a real broker, in pieces and by path.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::process::{Daemon, announcement, archive, signature};
use crate::support::mqtt::broker::{Broker, mosquitto};
use crate::support::mqtt::client::Client;
use crate::support::mqtt::packet::Message;

pub fn base64(bytes: &[u8]) -> String {
    const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let sextet = (bits >> (18 - 6 * at)) & 63;
            text.push(if at > chunk.len() { '=' } else { SYMBOLS[sextet as usize].into() });
        }
    }
    text
}

#[test]
fn a_model_is_installed_over_a_broker_in_pieces() {
    if mosquitto().is_none() {
        return;
    }
    let broker = Broker::start();
    let key = fs::read_to_string(archive("trusted.pub")).unwrap();
    let daemon = Daemon::start(&format!(
        "[mqtt]\nbroker = \"mqtt://{}\"\nnode = \"test\"\nadmin = true\n\
         [install]\npublic_keys = [\"{}\"]\n",
        broker.address,
        key.trim()
    ));
    let mut client = Client::v311(broker.address, "owner");
    client.subscribe("moed/test/response/#");
    client.subscribe("moed/test/status");
    client.receive_text("moed/test/status", "online");
    let mut ask = |verb: &str, body: &Value| {
        let message = Message::new(&format!("moed/test/request/{verb}"), body.to_string());
        client.publish(message.qos(1));
        client.receive_on(&format!("moed/test/response/{verb}")).json()
    };
    let bytes = fs::read(archive("good-0.2.0.moed")).unwrap();
    let refused = ask("install", &announcement(&bytes, None));
    assert_eq!(refused["code"], "invalid_request");
    assert!(refused["error"].as_str().unwrap().starts_with("archive: not signed"), "{refused}");

    let signature = signature("good-0.2.0.moed.minisig");
    let mut begin = announcement(&bytes, Some(&signature));
    begin["transaction"] = json!("t1");
    let begun = ask("install", &begin);
    assert_eq!((&begun["status"], &begun["transaction"]), (&json!("ok"), &json!("t1")));
    assert!(begun["data"]["piece_bytes_max"].as_u64().unwrap() > 500_000, "{begun}");
    let upload = &begun["data"]["upload"];
    begin["transaction"] = json!("t2");
    let busy = ask("install", &begin);
    assert_eq!(busy["code"], "unavailable", "{busy}");
    let mut last = Value::Null;
    for (at, piece) in bytes.chunks(30_001).enumerate() {
        let data = base64(piece);
        let step = json!({"upload": upload, "offset": at * 30_001, "data": data});
        last = ask("install", &step);
        assert_eq!(last["status"], "ok", "{last}");
    }
    assert_eq!(last["data"]["version"], "0.2.0", "{last}");
    assert_eq!(last["data"]["previous"], "0.1.0", "{last}");
    assert_eq!(daemon.version(), "0.2.0");

    let rolled_back = ask("rollback", &json!({"model": "intent-tiny"}));
    assert_eq!(rolled_back["status"], "ok", "{rolled_back}");
    assert_eq!(daemon.version(), "0.1.0");
    let removed = ask("remove", &json!({"model": "intent-tiny", "version": "0.2.0"}));
    assert_eq!(removed["status"], "ok", "{removed}");

    let by_path = |path: &Path| json!({"path": path, "signature": signature});
    let installed = ask("install", &by_path(&archive("good-0.2.0.moed")));
    assert_eq!(installed["data"]["is_new"], true, "{installed}");
    assert_eq!(daemon.version(), "0.2.0");
    let missing = ask("install", &by_path(Path::new("/nonexistent/x.moed")));
    let text = missing["error"].as_str().unwrap();
    assert!(text.starts_with("file: /nonexistent/x.moed: entity not found"), "{text}");
}
