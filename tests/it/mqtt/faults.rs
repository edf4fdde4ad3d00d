//! Brokers that die, stall and come back, and networks between: nothing is lost without a word.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moed::transport::mqtt::{Protocol, Settings};

use super::has_mosquitto;
use crate::support::http::until;
use crate::support::mqtt::broker::Broker;
use crate::support::mqtt::client::Client;
use crate::support::mqtt::daemon::{Daemon, settings};
use crate::support::mqtt::packet::Message;
use crate::support::mqtt::proxy::{Fault, Proxy};
use crate::support::service::FakeService;

fn infer(model: &str, correlation: &str) -> Message {
    let topic = format!("moed/test/models/{model}/infer");
    Message::new(&topic, r#"{"text": "hello"}"#).reply_to("replies/me", correlation).qos(1)
}

fn slow(milliseconds: u64) -> FakeService {
    FakeService { delay: Duration::from_millis(milliseconds), ..FakeService::default() }
}

#[test]
fn waits_for_a_broker_that_is_not_there_yet() {
    if !has_mosquitto() {
        return;
    }
    let mut broker = Broker::start();
    broker.kill();
    let daemon = Daemon::unconnected(settings(broker.address), FakeService::default());
    std::thread::sleep(Duration::from_millis(500));
    assert!(!daemon.counters.is_connected());
    broker.restart();
    daemon.wait_until_connected();
    let mut client = Client::v5(broker.address, "client");
    client.subscribe("replies/#");
    assert_eq!(client.ask(infer("intent", "a")).user("status"), Some("200"));
}

#[test]
fn an_answer_that_meets_a_dead_broker_is_kept_for_the_next() {
    if !has_mosquitto() {
        return;
    }
    let mut broker = Broker::start();
    let daemon = Daemon::with(settings(broker.address), slow(500));
    let mut client = Client::v5(broker.address, "client");
    client.publish(infer("slow", "kept").expires(60));
    until("it runs", || daemon.service.running.load(Ordering::SeqCst) == 1);
    broker.kill();
    until("it has run", || daemon.service.running.load(Ordering::SeqCst) == 0);
    broker.restart();
    let mut client = Client::v5(broker.address, "client");
    client.subscribe("replies/#");
    let reply = client.receive();
    assert_eq!((reply.correlation(), reply.user("status")), ("kept", Some("200")));
    assert!(client.receive_within(Duration::from_millis(300)).is_none(), "once");
    assert_eq!(daemon.runs(), 1);
}

#[test]
fn an_answer_whose_time_passes_while_the_broker_is_dead_is_counted() {
    if !has_mosquitto() {
        return;
    }
    let mut broker = Broker::start();
    let daemon = Daemon::with(settings(broker.address), slow(300));
    let mut client = Client::v5(broker.address, "client");
    client.publish(infer("slow", "lost").expires(1));
    until("it runs", || daemon.service.running.load(Ordering::SeqCst) == 1);
    broker.kill();
    until("its loss is known", || daemon.counters.replies_expired.get() == 1);
    broker.restart();
    daemon.wait_until_connected();
}

#[test]
fn a_request_survives_the_death_of_the_daemon() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    let mut client = Client::v5(broker.address, "client");
    client.subscribe("replies/#");
    {
        // Behind a wall, the old daemon is as good as dead; it has not acknowledged the request.
        let proxy = Proxy::start(broker.address);
        let old = Daemon::with(settings(proxy.address), slow(400));
        client.publish(infer("slow", "again").expires(60));
        until("it runs", || old.service.running.load(Ordering::SeqCst) == 1);
        proxy.set(Fault::BlackHole);
        proxy.cut();
        std::thread::sleep(Duration::from_millis(100));
    }
    let daemon = Daemon::start(broker.address);
    let reply = client.receive();
    assert_eq!((reply.correlation(), daemon.runs()), ("again", 1));
}

#[test]
fn requests_that_come_while_the_daemon_is_away_are_answered_when_it_is_back() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    Daemon::start(broker.address).stop();
    let mut client = Client::v5(broker.address, "client");
    client.subscribe("replies/#");
    for n in 0..20 {
        client.publish(infer("intent", &n.to_string()).expires(60));
    }
    client.publish(infer("intent", "too late").expires(1));
    std::thread::sleep(Duration::from_millis(3200));
    let _daemon = Daemon::start(broker.address);
    let replies: Vec<String> = (0..20).map(|_| client.receive().correlation().to_owned()).collect();
    let mut numbers: Vec<usize> = replies.iter().map(|reply| reply.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    assert!(client.receive_within(Duration::from_millis(200)).is_none());
}

#[test]
fn a_stalled_broker_is_noticed_within_one_and_a_half_keep_alives() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    let daemon = Daemon::start(broker.address);
    broker.signal("STOP");
    let start = Instant::now();
    until("it is noticed", || !daemon.counters.is_connected());
    let noticed = start.elapsed();
    broker.signal("CONT");
    let keep_alive = Duration::from_secs(5);
    assert!(noticed <= keep_alive * 3 / 2 + Duration::from_millis(500), "{noticed:?}");
    daemon.wait_until_connected();
}

#[test]
fn a_stalled_broker_is_noticed_while_much_is_sent_to_it() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    let proxy = Proxy::start(broker.address);
    let daemon = Daemon::start(proxy.address);
    let mut client = Client::v5(broker.address, "client");
    client.subscribe("replies/#");
    // More than the buffers of sockets hold.
    let text = "x".repeat(500_000);
    let body = format!(r#"{{"bytes": ["{text}"]}}"#);
    proxy.set(Fault::Throttle(2_000_000));
    for n in 0..30 {
        let request = Message::new("moed/test/models/echo/infer", &body);
        client.publish(request.reply_to("replies/me", &n.to_string()).expires(60));
    }
    client.receive();
    broker.signal("STOP");
    let start = Instant::now();
    until("it is noticed", || !daemon.counters.is_connected());
    let noticed = start.elapsed();
    broker.signal("CONT");
    // What is on its way still comes.
    assert!(noticed <= Duration::from_secs(12), "{noticed:?}");
    proxy.set(Fault::Pass);
    daemon.wait_until_connected();
}

type Happening = fn(&Proxy);

#[test]
fn a_partition_a_half_closed_and_a_reset_connection_lose_nothing() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    let proxy = Proxy::start(broker.address);
    let daemon = Daemon::with(settings(proxy.address), slow(20));
    let mut client = Client::v5(broker.address, "client");
    client.subscribe("replies/#");
    let faults: [(&str, Happening); 5] = [
        ("reset", Proxy::cut),
        ("half-closed", Proxy::half_close),
        ("delayed", |proxy| proxy.set(Fault::Delay(Duration::from_millis(30)))),
        ("throttled", |proxy| proxy.set(Fault::Throttle(20_000))),
        ("parted", |proxy| proxy.set(Fault::BlackHole)),
    ];
    for (name, fault) in faults {
        daemon.wait_until_connected();
        for n in 0..20 {
            client.publish(infer("slow", &format!("{name} {n}")).expires(60));
            if n == 10 {
                fault(&proxy);
            }
        }
        if name == "parted" {
            until("it is noticed", || !daemon.counters.is_connected());
            proxy.set(Fault::Pass);
            proxy.cut();
        }
        let mut seen: HashMap<String, usize> = HashMap::new();
        while seen.len() < 20 {
            let reply = client.receive();
            if reply.correlation().starts_with(name) {
                if name == "parted" {
                    assert_ne!(reply.user("status"), Some("504"));
                }
                *seen.entry(reply.correlation().to_owned()).or_default() += 1;
            }
            proxy.set(Fault::Pass);
        }
    }
}

#[test]
fn broker_deaths_under_load_lose_nothing_without_a_word() {
    if !has_mosquitto() {
        return;
    }
    let mut broker = Broker::start();
    let daemon = Daemon::with(settings(broker.address), slow(5));
    let address = broker.address;
    let is_over = Arc::new(AtomicBool::new(false));
    let load = {
        let is_over = Arc::clone(&is_over);
        // Asks as fast as it is answered, and connects again after each death.
        std::thread::spawn(move || {
            let mut answers = 0;
            let mut n = 0;
            while !is_over.load(Ordering::SeqCst) {
                let connect = crate::support::mqtt::packet::Connect {
                    level: 5,
                    clean: true,
                    client: "load".to_owned(),
                    keep_alive_s: 60,
                    ..Default::default()
                };
                let Ok(mut client) = Client::connect(address, &connect) else {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                };
                let subscribed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    client.subscribe("replies/#");
                }));
                if subscribed.is_err() {
                    continue;
                }
                while !is_over.load(Ordering::SeqCst) {
                    n += 1;
                    if client.try_publish(infer("slow", &n.to_string()).expires(30)).is_err() {
                        break;
                    }
                    match client.try_receive_within(Duration::from_millis(200)) {
                        Ok(Some(_)) => answers += 1,
                        Ok(None) => {}
                        Err(_) => break,
                    }
                }
            }
            answers
        })
    };
    let mut recoveries = Vec::new();
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(300));
        broker.kill();
        until("it is noticed", || !daemon.counters.is_connected());
        std::thread::sleep(Duration::from_millis(100));
        broker.restart();
        let start = Instant::now();
        daemon.wait_until_connected();
        recoveries.push(start.elapsed());
    }
    std::thread::sleep(Duration::from_millis(300));
    is_over.store(true, Ordering::SeqCst);
    assert!(load.join().unwrap() > 20);
    let counters = &daemon.counters;
    until("every request's fate is known", || counters.settled() == counters.requests.get());
    recoveries.sort();
    assert!(recoveries[5] <= Duration::from_secs(5), "{recoveries:?}");
    assert_eq!(counters.replies_dropped.get(), 0);
}

#[test]
fn falls_back_to_v311_where_the_broker_knows_no_v5() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    let old = Proxy::refusing_v5(broker.address);
    let mut client = Client::v311(broker.address, "client");
    client.subscribe("moed/test/models/intent/result/me");
    for (before, protocol) in [Protocol::Automatic, Protocol::V311].into_iter().enumerate() {
        let daemon =
            Daemon::with(Settings { protocol, ..settings(old.address) }, FakeService::default());
        // What is published before it has subscribed is for nobody.
        let subscribed = || broker.log().matches("Sending SUBACK to moed-test").count();
        until("it listens", || subscribed() > before);
        let request = Message::new("moed/test/models/intent/infer/me", r#"{"text": "hello"}"#);
        client.publish(request.qos(1));
        assert_eq!(client.receive().json()["answer"]["text"], "hello");
        drop(daemon);
    }
    let pinned = Settings { protocol: Protocol::V5, ..settings(old.address) };
    let daemon = Daemon::unconnected(pinned, FakeService::default());
    let before = old.connections();
    until("it has tried again", || old.connections() > before + 4);
    assert!(!daemon.counters.is_connected());
}

#[test]
fn a_large_retained_message_does_not_disturb() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    let mut client = Client::v5(broker.address, "client");
    client.subscribe("replies/#");
    for topic in ["moed/test/models/intent/infer", "moed/test/models/intent/infer/me"] {
        client.publish(Message::new(topic, vec![b' '; 1 << 20]).qos(1).retained());
    }
    let daemon = Daemon::start(broker.address);
    assert_eq!(client.ask(infer("intent", "a")).user("status"), Some("200"));
    // Not retained, and larger than the daemon takes: the broker keeps it to itself.
    client.publish(Message::new("moed/test/models/intent/infer", vec![b' '; 2 << 20]).qos(1));
    assert_eq!(client.ask(infer("intent", "b")).user("status"), Some("200"));
    assert_eq!((daemon.counters.connects.get(), daemon.counters.connection_errors.get()), (1, 0));

    // A broker of old can't be told; it is refused.
    let old = Proxy::refusing_v5(broker.address);
    let v311 =
        Settings { protocol: Protocol::V311, node: "old".to_owned(), ..settings(old.address) };
    let daemon = Daemon::with(v311, FakeService::default());
    client.subscribe("moed/old/models/intent/result/me");
    client.publish(Message::new("moed/old/models/intent/infer/me", vec![b' '; 2 << 20]).qos(1));
    assert_eq!(client.receive().json()["code"], "too_large");
    assert_eq!(daemon.counters.connects.get(), 1);
}

#[test]
fn an_answer_larger_than_the_broker_takes_becomes_an_error() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::with("allow_anonymous true\nmax_packet_size 4000\n");
    let daemon = Daemon::start(broker.address);
    let mut client = Client::v5(broker.address, "client");
    client.subscribe("replies/#");
    // The answer holds the text, and more beside it than the request.
    let body = format!(r#"{{"text": "{}"}}"#, "\\u0001".repeat(640));
    let topic = "moed/test/models/intent/infer";
    let reply = client.ask(Message::new(topic, body).reply_to("replies/me", "a").qos(1));
    assert_eq!(reply.json()["code"], "too_large", "{reply:?}");
    assert_eq!(client.ask(infer("intent", "b")).user("status"), Some("200"));
    assert_eq!(daemon.counters.connects.get(), 1);
}

#[test]
fn a_connection_that_a_broker_refuses_is_not_tried_in_a_hurry() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::with("allow_anonymous false\n");
    let proxy = Proxy::start(broker.address);
    let daemon = Daemon::unconnected(settings(proxy.address), FakeService::default());
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(proxy.connections(), 1);
    assert!(!daemon.counters.is_connected());
}
