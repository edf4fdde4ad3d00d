//! What the broker keeps of the daemon, and what Home Assistant makes of it.

use std::time::Duration;

use moed::transport::mqtt::{Protocol, Settings};
use serde_json::{Value, json};

use super::has_mosquitto;
use crate::support::http::until;
use crate::support::mqtt::broker::Broker;
use crate::support::mqtt::client::Client;
use crate::support::mqtt::daemon::{Daemon, settings};
use crate::support::mqtt::packet::Message;
use crate::support::mqtt::proxy::{Fault, Proxy};
use crate::support::service::FakeService;

const STATUS: &str = "moed/test/status";

/// What a client finds that comes later.
fn retained(broker: &Broker, topic: &str) -> Option<Message> {
    let mut client = Client::v5(broker.address, "finder");
    client.subscribe(topic);
    client.receive_within(Duration::from_millis(500))
}

#[test]
fn status_is_online_then_stopped_or_offline() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    let mut watcher = Client::v5(broker.address, "watcher");
    watcher.subscribe(STATUS);
    let mut daemon = Daemon::start(broker.address);
    watcher.receive_text(STATUS, "online");
    daemon.stop();
    watcher.receive_text(STATUS, "stopped");
    assert_eq!(retained(&broker, STATUS).unwrap().text(), "stopped");
    assert!(watcher.receive_within(Duration::from_millis(200)).is_none(), "no Will");

    let proxy = Proxy::start(broker.address);
    let _daemon = Daemon::start(proxy.address);
    watcher.receive_text(STATUS, "online");
    proxy.set(Fault::BlackHole);
    proxy.cut();
    watcher.receive_text(STATUS, "offline");
    assert_eq!(retained(&broker, STATUS).unwrap().text(), "offline");
    proxy.set(Fault::Pass);
    watcher.receive_text(STATUS, "online");
}

#[test]
fn a_broker_on_a_unix_socket_is_asked_to_and_waited_for_like_any_other() {
    if !has_mosquitto() {
        return;
    }
    for protocol in [Protocol::V5, Protocol::V311] {
        let mut broker = Broker::with("allow_anonymous true\nlistener 0 DIRECTORY/broker.sock\n");
        let path = broker.directory.path().join("broker.sock");
        let at = moed::transport::mqtt::Broker::Unix(path.to_str().unwrap().to_owned());
        let settings = Settings { protocol, broker: at, ..settings(broker.address) };
        let mut daemon = Daemon::with(settings, FakeService::default());
        let ask = || {
            let mut client = Client::v5(broker.address, "client");
            client.subscribe("moed/test/models/intent/result/me");
            let topic = "moed/test/models/intent/infer/me";
            client.publish(Message::new(topic, r#"{"text": "hello"}"#).qos(1));
            assert_eq!(client.receive().json()["answer"]["text"], "hello");
        };
        ask();
        broker.kill();
        until("its end is noticed", || !daemon.counters.is_connected());
        broker.restart();
        daemon.wait_until_connected();
        let mut watcher = Client::v5(broker.address, "watcher");
        watcher.subscribe(STATUS);
        watcher.receive_text(STATUS, "online");
        daemon.stop();
        watcher.receive_text(STATUS, "stopped");
    }
}

#[test]
fn what_was_taken_is_answered_before_it_stops() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    let service = FakeService { delay: Duration::from_millis(500), ..FakeService::default() };
    let mut daemon = Daemon::with(settings(broker.address), service);
    let mut client = Client::v5(broker.address, "client");
    client.subscribe("replies/#");
    let ask = |model: &str| {
        let topic = format!("moed/test/models/{model}/infer");
        Message::new(&topic, r#"{"text": "hello"}"#).reply_to("replies/me", model).qos(1)
    };
    client.publish(ask("slow"));
    until("it runs", || daemon.runs() == 1);
    daemon.begin_stop();
    std::thread::sleep(Duration::from_millis(100));
    let reply = client.ask(ask("intent"));
    assert_eq!((reply.correlation(), reply.user("code")), ("intent", Some("unavailable")));
    let reply = client.receive();
    assert_eq!((reply.correlation(), reply.user("status")), ("slow", Some("200")));
    daemon.stop();
    assert_eq!(retained(&broker, STATUS).unwrap().text(), "stopped");
}

#[test]
fn info_health_and_models_are_retained() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    let _daemon = Daemon::start(broker.address);
    let json = |topic: &str| {
        until(topic, || retained(&broker, topic).is_some());
        let found = retained(&broker, topic).unwrap();
        assert!(found.retain);
        assert_eq!(found.content_type.as_deref(), Some("application/json"));
        found.json()
    };
    let info = json("moed/test/info");
    assert_eq!((&info["name"], &info["node"]), (&"moed".into(), &"test".into()));
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["models"].as_array().unwrap().len(), 10);
    let health = json("moed/test/health");
    assert_eq!((&health["live"], &health["ready"]), (&true.into(), &true.into()));
    assert_eq!(health["temperature_celsius"], 51.5);
    let state = json("moed/test/models/intent/state");
    let expected = json!({
        "state": "ready", "ready": true, "version": "1.0.0", "latest_version": "1.0.0",
        "reason": null,
    });
    assert_eq!(state, expected);
    let state = json("moed/test/models/loading/state");
    assert_eq!((&state["ready"], &state["state"]), (&false.into(), &"failed".into()));
    assert_eq!(state["reason"], "model: loading: no such file");
}

#[test]
fn a_broker_that_has_forgotten_everything_is_told_again() {
    if !has_mosquitto() {
        return;
    }
    let mut broker = Broker::start();
    let daemon = Daemon::start(broker.address);
    until("it is told", || retained(&broker, "moed/test/info").is_some());
    broker.restart();
    until("it is back", || daemon.counters.connects.get() == 2);
    for topic in [STATUS, "moed/test/info", "moed/test/health", "moed/test/models/intent/state"] {
        until(topic, || retained(&broker, topic).is_some());
    }
}

fn discovery(broker: &Broker, is_admin_allowed: bool) -> Value {
    let discovery_prefix = Some("homeassistant".to_owned());
    let settings = Settings { discovery_prefix, is_admin_allowed, ..settings(broker.address) };
    let _daemon = Daemon::with(settings, FakeService::default());
    let topic = "homeassistant/device/moed_test/config";
    let mut client = Client::v5(broker.address, "home-assistant");
    client.subscribe(topic);
    let found = client.receive();
    // Home Assistant has started.
    client.publish(Message::new("homeassistant/status", "online"));
    let again = client.receive();
    assert_eq!(again.payload, found.payload);
    found.json()
}

#[test]
fn home_assistant_finds_one_device_with_all_that_it_can_do() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    let document = discovery(&broker, true);
    let text = serde_json::to_string_pretty(&document).unwrap();
    let version = format!("\"sw_version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    insta::assert_snapshot!(text.replace(&version, "\"sw_version\": \"[version]\""));
    let update = &discovery(&broker, false)["components"]["intent_update"];
    assert!(update.get("command_topic").is_none(), "nothing to install with");
}

#[test]
fn the_text_entity_asks_and_the_sensor_gets_the_answer() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    let document = discovery(&broker, false);
    let _daemon = Daemon::start(broker.address);
    let components = &document["components"];
    let topic = |component: &str, key: &str| components[component][key].as_str().unwrap();
    let mut home_assistant = Client::v311(broker.address, "home-assistant");
    home_assistant.subscribe(topic("intent_answer", "state_topic"));
    // What its template makes of a sentence.
    let body = r#"{"text": "turn on the \"big\" light"}"#;
    home_assistant.publish(Message::new(topic("intent_sentence", "command_topic"), body));
    assert_eq!(home_assistant.receive().json()["answer"]["text"], "turn on the \"big\" light");
}
