//! Requests and answers through a real broker, by clients of both versions.

use std::time::{Duration, Instant};

use moed::transport::mqtt::Settings;
use serde_json::json;

use super::has_mosquitto;
use crate::support::http::until;
use crate::support::mqtt::broker::Broker;
use crate::support::mqtt::client::Client;
use crate::support::mqtt::daemon::{Daemon, settings};
use crate::support::mqtt::packet::Message;
use crate::support::service::FakeService;

const INTENT: &str = "moed/test/models/intent/infer";
const HELLO: &str = r#"{"text": "hello"}"#;

fn infer(model: &str, body: impl AsRef<[u8]>) -> Message {
    let topic = format!("moed/test/models/{model}/infer");
    Message::new(&topic, body).reply_to("replies/me", "c1")
}

/// A broker, the transport, and a client that listens to `replies/#`.
fn bench() -> (Broker, Daemon, Client) {
    let broker = Broker::start();
    let daemon = Daemon::start(broker.address);
    let mut client = Client::v5(broker.address, "client");
    client.subscribe("replies/#");
    (broker, daemon, client)
}

#[test]
fn answers_on_the_response_topic_with_the_correlation_data_at_each_qos() {
    if !has_mosquitto() {
        return;
    }
    let (_broker, _daemon, mut client) = bench();
    for qos in 0..=2 {
        let reply = client.ask(infer("intent", HELLO).qos(qos));
        assert_eq!(reply.json()["answer"], json!({"intent": "HassTurnOn", "text": "hello"}));
        assert_eq!(reply.correlation(), "c1");
        assert_eq!(reply.content_type.as_deref(), Some("application/json"));
        // QoS 2 is taken at QoS 1.
        assert_eq!(reply.qos, qos.min(1));
        assert!(!reply.retain);
        assert_eq!(reply.user("status"), Some("200"));
        assert_eq!(reply.user("model-version"), Some("1.0.0"));
        assert_eq!(reply.user("queue-us"), Some("12"));
        assert_eq!(reply.user("compute-us"), Some("340"));
        assert_eq!(reply.user("moed"), Some("1"));
        assert!(reply.expiry_s.is_some());
    }
}

#[test]
fn correlation_data_may_be_any_bytes() {
    if !has_mosquitto() {
        return;
    }
    let (_broker, _daemon, mut client) = bench();
    for correlation in [vec![0], vec![0xff; 256], (0..=255).collect()] {
        let request = infer("intent", HELLO);
        let reply = client.ask(Message { correlation: Some(correlation.clone()), ..request });
        assert_eq!(reply.correlation, Some(correlation));
    }
}

#[test]
fn answers_clients_of_v311_on_the_result_topic_with_the_id() {
    if !has_mosquitto() {
        return;
    }
    let (broker, _daemon, _) = bench();
    let mut client = Client::v311(broker.address, "old");
    client.subscribe("moed/test/models/intent/result/#");
    let body = r#"{"text": "hello", "id": "17"}"#;
    client.publish(Message::new(&format!("{INTENT}/lamp"), body));
    let reply = client.receive_on("moed/test/models/intent/result/lamp");
    assert_eq!(reply.json()["id"], "17");
    assert_eq!(reply.json()["answer"]["text"], "hello");
    client.publish(Message::new(&format!("{INTENT}/lamp"), r#"{"id": "18", "what": 1}"#).qos(1));
    let reply = client.receive_on("moed/test/models/intent/result/lamp");
    assert_eq!(
        (&reply.json()["id"], &reply.json()["code"]),
        (&"18".into(), &"invalid_request".into())
    );
    client.publish(Message::new(INTENT, body));
    let reply = client.receive_on("moed/test/models/intent/result");
    assert_eq!(reply.json()["id"], "17");
}

#[test]
fn speaks_the_open_inference_protocol_in_json_and_in_bytes() {
    if !has_mosquitto() {
        return;
    }
    let (_broker, _daemon, mut client) = bench();
    let body = json!({
        "id": "9",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}],
    });
    let reply = client.ask(infer("double", body.to_string()));
    assert_eq!(reply.json()["outputs"][0]["data"], json!([2.0, 4.0, 6.0, 8.0]));
    assert_eq!(reply.json()["id"], "9");

    let bytes: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let binary = |message: Message| Message {
        content_type: Some("application/octet-stream".to_owned()),
        ..message
    };
    let reply = client.ask(binary(infer("double", &bytes)));
    assert_eq!(reply.content_type.as_deref(), Some("application/octet-stream"));
    let json_bytes: usize = reply.user("inference-header-content-length").unwrap().parse().unwrap();
    let doubled: Vec<u8> = [2f32, 4.0, 6.0, 8.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(reply.payload[json_bytes..], doubled);

    let head = json!({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4],
                    "parameters": {"binary_data_size": 16}}],
    })
    .to_string();
    let body = [head.as_bytes(), &bytes].concat();
    let request = binary(infer("double", body))
        .with("inference-header-content-length", &head.len().to_string());
    assert_eq!(client.ask(request).json()["outputs"][0]["data"], json!([2.0, 4.0, 6.0, 8.0]));
}

#[test]
fn every_error_comes_on_the_reply_topic_with_its_code() {
    if !has_mosquitto() {
        return;
    }
    let (_broker, _daemon, mut client) = bench();
    for (model, body, code, status) in [
        ("intent", "", "invalid_request", "400"),
        ("intent", "{", "invalid_request", "400"),
        ("intent", r#"{"what": 1}"#, "invalid_request", "400"),
        ("nobody", HELLO, "not_found", "404"),
        ("intent/versions/9.9.9", HELLO, "not_found", "404"),
        ("loading", HELLO, "unavailable", "503"),
        ("full", HELLO, "overloaded", "429"),
        ("broken", HELLO, "model_failed", "500"),
        ("lost", HELLO, "unavailable", "503"),
    ] {
        for qos in [0, 1] {
            // At QoS 1 it would be tried again.
            let expiry_s = if code == "overloaded" { 3 } else { 20 };
            let reply = client.ask(infer(model, body).qos(qos).expires(expiry_s));
            assert_eq!(reply.json()["code"], code, "{model} {body}");
            assert_eq!(reply.user("status"), Some(status), "{model} {body}");
            assert_eq!(reply.user("code"), Some(code), "{model} {body}");
            assert!(reply.json()["error"].as_str().unwrap().len() > 10, "{model} {body}");
            assert_eq!(reply.correlation(), "c1");
        }
    }
    let reply = client.ask(infer("full", HELLO));
    assert_eq!(reply.user("retry-after-ms"), Some("1500"));
}

#[test]
fn message_expiry_is_the_deadline() {
    if !has_mosquitto() {
        return;
    }
    let (_broker, daemon, mut client) = bench();
    let start = Instant::now();
    let reply = client.ask(infer("stuck", HELLO).expires(1));
    assert_eq!(reply.json()["code"], "deadline_exceeded");
    assert!((1..4).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    let reply = client.ask(infer("intent", HELLO).expires(20));
    assert!((18..=20).contains(&reply.expiry_s.unwrap()), "{:?}", reply.expiry_s);
    assert_eq!(daemon.runs(), 2);
}

#[test]
fn a_retained_request_is_refused_and_never_runs_again() {
    if !has_mosquitto() {
        return;
    }
    let (broker, mut daemon, mut client) = bench();
    let reply = client.ask(infer("intent", HELLO).qos(1).retained());
    assert_eq!(reply.json()["code"], "invalid_request");
    for _ in 0..20 {
        daemon.stop();
        daemon = Daemon::start(broker.address);
        // Whatever the broker had kept would have come before this.
        assert_eq!(client.ask(infer("double", "{}")).json()["code"], "invalid_request");
        assert_eq!(daemon.runs(), 0);
    }
}

#[test]
fn a_reply_that_would_be_a_request_goes_nowhere() {
    if !has_mosquitto() {
        return;
    }
    let (broker, daemon, mut client) = bench();
    let other = Settings { node: "other".to_owned(), ..settings(broker.address) };
    let other = Daemon::with(other, FakeService::default());
    let mut watcher = Client::v5(broker.address, "watcher");
    watcher.subscribe("moed/+/models/#");
    while watcher.receive_within(Duration::from_millis(300)).is_some() {}
    let topic = "moed/other/models/intent/infer";
    client.publish(infer("intent", HELLO).reply_to(topic, "c"));
    assert_eq!(watcher.receive().topic, INTENT);
    let reply = watcher.receive();
    assert_eq!(reply.topic, "moed/test/models/intent/result");
    assert_eq!(reply.json()["code"], "invalid_request");
    assert!(watcher.receive_within(Duration::from_millis(300)).is_none());
    assert_eq!((daemon.runs(), other.runs()), (0, 0));
    // What came through another guard than ours is known by its mark.
    client.publish(infer("intent", HELLO).with("moed", "1"));
    until("it was cut", || daemon.counters.loops_cut.get() == 1);
    assert_eq!(daemon.runs(), 0);
}

#[test]
fn answers_overload_at_qos_0_and_lets_the_broker_wait_at_qos_1() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    let service = FakeService { delay: Duration::from_millis(100), ..FakeService::default() };
    let few = Settings { requests_max: 4, ..settings(broker.address) };
    let daemon = Daemon::with(few, service);
    let mut client = Client::v5(broker.address, "client");
    client.subscribe("replies/#");
    let ask = |client: &mut Client, qos| {
        for n in 0..24 {
            client.publish(infer("slow", HELLO).reply_to("replies/x", &n.to_string()).qos(qos));
        }
        let mut codes: Vec<String> = (0..24)
            .map(|_| client.receive_on("replies/x").user("status").unwrap().to_owned())
            .collect();
        codes.sort();
        codes
    };
    let codes = ask(&mut client, 0);
    assert!(codes.contains(&"200".to_owned()) && codes.contains(&"429".to_owned()), "{codes:?}");
    assert_eq!(
        daemon.counters.overloads.get() as usize,
        codes.iter().filter(|c| *c == "429").count()
    );
    let codes = ask(&mut client, 1);
    assert!(codes.iter().all(|code| code == "200"), "{codes:?}");
}

#[test]
fn a_request_sent_twice_at_qos_1_is_computed_once() {
    if !has_mosquitto() {
        return;
    }
    let (_broker, daemon, mut client) = bench();
    let request = || infer("intent", HELLO).qos(1);
    let first = client.ask(request());
    let second = client.ask(request());
    assert_eq!(first.payload, second.payload);
    assert_eq!(daemon.runs(), 1);
    client.ask(request().reply_to("replies/me", "c2"));
    assert_eq!(daemon.runs(), 2);
}

#[test]
fn everything_at_full_speed_is_answered() {
    if !has_mosquitto() {
        return;
    }
    let (broker, daemon, mut client) = bench();
    const ALL: usize = 2000;
    let address = broker.address;
    for qos in [0, 1] {
        let sender = std::thread::spawn(move || {
            let mut sender = Client::v5(address, &format!("sender{qos}"));
            for n in 0..ALL {
                let correlation = format!("{qos}-{n}");
                sender.publish(infer("double", X).reply_to("replies/all", &correlation).qos(qos));
            }
            sender.flush();
        });
        let mut seen = std::collections::HashSet::new();
        while seen.len() < ALL {
            let reply = client.receive_on("replies/all");
            assert!(seen.insert(reply.correlation().to_owned()), "answered once");
        }
        sender.join().unwrap();
    }
    until("all are settled", || daemon.counters.settled() == daemon.counters.requests.get());
    assert_eq!(daemon.counters.requests.get() as usize, 2 * ALL);
}

#[test]
fn waits_at_qos_1_while_others_fill_the_queue() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    let delay = Duration::from_millis(5);
    let service = FakeService { running_max: 2, delay, ..FakeService::default() };
    let daemon = Daemon::with(settings(broker.address), service);
    let mut client = Client::v5(broker.address, "client");
    client.subscribe("replies/#");
    for n in 0..200 {
        client.publish(infer("slow", HELLO).reply_to("replies/x", &n.to_string()).qos(1));
    }
    for _ in 0..200 {
        assert_eq!(client.receive_on("replies/x").user("status"), Some("200"));
    }
    assert!(daemon.counters.deferrals.get() > 0);
    until("all are settled", || daemon.counters.settled() == 200);
}

const X: &str = r#"{"x": [[1, 2, 3, 4]]}"#;

#[test]
fn a_pool_shares_the_load() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    let member = |node: &str| {
        let pool = Some("moed".to_owned());
        let settings = Settings { node: node.to_owned(), pool, ..settings(broker.address) };
        Daemon::with(settings, FakeService::default())
    };
    let (a, b) = (member("a"), member("b"));
    let mut client = Client::v5(broker.address, "client");
    client.subscribe("replies/#");
    until("both listen", || {
        broker.log().matches("$share/moed/moed/pool/models/+/infer/+").count() >= 2
    });
    for n in 0..40 {
        let request = Message::new("moed/pool/models/intent/infer", HELLO);
        let reply = client.ask(request.reply_to("replies/x", &n.to_string()).qos(1));
        assert_eq!(reply.user("status"), Some("200"));
    }
    assert_eq!(a.runs() + b.runs(), 40);
    assert!(a.runs() >= 10 && b.runs() >= 10, "{} and {}", a.runs(), b.runs());
    // v3.1.1 clients, too.
    let mut old = Client::v311(broker.address, "old");
    old.subscribe("moed/pool/models/intent/result/old");
    old.publish(Message::new("moed/pool/models/intent/infer/old", HELLO));
    assert_eq!(old.receive().json()["answer"]["text"], "hello");
}

#[test]
fn admin_verbs_are_off_unless_they_are_asked_for() {
    if !has_mosquitto() {
        return;
    }
    let (broker, daemon, mut client) = bench();
    client.publish(Message::new("moed/test/request/load", r#"{"model": "intent"}"#).qos(1));
    client.ask(infer("intent", HELLO));
    assert!(daemon.service.admin.lock().unwrap().is_empty());
    drop(daemon);

    let allowed = Settings { is_admin_allowed: true, ..settings(broker.address) };
    let daemon = Daemon::with(allowed, FakeService::default());
    client.subscribe("moed/test/response/#");
    let mut ask = |verb: &str, body: &str| {
        client.publish(Message::new(&format!("moed/test/request/{verb}"), body));
        client.receive_on(&format!("moed/test/response/{verb}")).json()
    };
    let reply = ask("models", r#"{"transaction": 5}"#);
    assert_eq!((&reply["status"], &reply["transaction"]), (&"ok".into(), &5.into()));
    assert_eq!(reply["data"]["models"].as_array().unwrap().len(), 11);
    let loaded = ask("load", r#"{"model": "intent", "transaction": "t"}"#);
    assert_eq!(loaded, json!({"status": "ok", "data": {}, "transaction": "t"}));
    assert_eq!(ask("rollback", r#"{"model": "intent"}"#)["status"], "ok");
    assert_eq!(ask("unload", r#"{"model": "intent"}"#)["status"], "ok");
    for (verb, body, code) in [
        ("load", r#"{"model": "nobody"}"#, "not_found"),
        ("load", "", "invalid_request"),
        ("load", "[", "invalid_request"),
        ("destroy", "{}", "not_found"),
    ] {
        let reply = ask(verb, body);
        assert_eq!((&reply["status"], &reply["code"]), (&"error".into(), &code.into()), "{verb}");
    }
    let seen = daemon.service.admin.lock().unwrap().clone();
    assert_eq!(seen, ["load intent", "rollback intent", "unload intent", "load nobody"]);
}
