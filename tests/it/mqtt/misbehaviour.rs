//! Brokers that do what mosquitto does not, byte by byte.

use std::time::{Duration, Instant};

use moed::transport::mqtt::Settings;

use crate::support::http::until;
use crate::support::mqtt::daemon::{Daemon, settings};
use crate::support::mqtt::fake::{FakeBroker, Peer, filters};
use crate::support::mqtt::packet::{Message, PUBACK, PUBLISH, Packet, SUBACK, SUBSCRIBE};
use crate::support::service::FakeService;

const INFER: &str = "moed/test/models/intent/infer";

fn start(broker: &FakeBroker) -> Daemon {
    Daemon::unconnected(settings(broker.address), FakeService::default())
}

fn request(packet: u16) -> Message {
    let message = Message::new(INFER, r#"{"text": "hello"}"#).qos(1);
    Message { packet, ..message.reply_to("replies/me", &packet.to_string()) }
}

/// Ends as a broker does that is done with this test.
fn done(daemon: Daemon, peer: Peer, broker: FakeBroker) {
    drop((peer, broker));
    drop(daemon);
}

#[test]
fn says_at_the_beginning_what_it_can_take() {
    let broker = FakeBroker::start();
    let daemon = start(&broker);
    let mut peer = broker.accept();
    let connect = peer.connect.clone();
    assert_eq!((connect.level, connect.clean, connect.keep_alive_s), (5, false, 5));
    assert_eq!(connect.client, "moed-test");
    assert_eq!(connect.receive_max, Some(128));
    assert_eq!(connect.packet_bytes_max, Some(1 << 20));
    assert_eq!(connect.session_expiry_s, Some(300));
    assert_eq!(connect.will, Some(("moed/test/status".to_owned(), b"offline".to_vec())));
    peer.consent(&[]);
    let subscribe = peer.read_kind(SUBSCRIBE);
    let filters = filters(&subscribe, true);
    assert_eq!(filters.len(), 4);
    // QoS 1, no local, retain as published, retained messages never.
    assert!(filters.iter().all(|(_, options)| *options == 0b10_1101), "{filters:?}");
    done(daemon, peer, broker);
}

#[test]
fn a_shared_subscription_does_not_ask_for_no_local() {
    let broker = FakeBroker::start();
    let settings = Settings { pool: Some("g".to_owned()), ..settings(broker.address) };
    let daemon = Daemon::unconnected(settings, FakeService::default());
    let mut peer = broker.welcome();
    let subscribe = peer.read_kind(SUBSCRIBE);
    for (filter, options) in filters(&subscribe, true) {
        assert_eq!(options & 0b100 == 0, filter.starts_with("$share/"), "{filter}");
    }
    done(daemon, peer, broker);
}

#[test]
fn subscribes_again_even_if_the_broker_says_that_it_remembers() {
    let broker = FakeBroker::start();
    let daemon = start(&broker);
    let mut peer = broker.welcome();
    peer.read_kind(SUBSCRIBE);
    drop(peer);
    let mut peer = broker.accept();
    // Session present.
    peer.send(&Packet::new(0x20, vec![1, 0, 0]));
    peer.read_kind(SUBSCRIBE);
    done(daemon, peer, broker);
}

#[test]
fn a_refused_subscription_is_counted() {
    let broker = FakeBroker::start();
    let daemon = start(&broker);
    let mut peer = broker.welcome();
    let subscribe = loop {
        let packet = peer.read().unwrap();
        if packet.kind() == SUBSCRIBE & 0xf0 {
            break packet;
        }
    };
    // Not authorised, twice.
    let body = [&subscribe.body[..2], &[0, 1, 0x87, 0x87, 1]].concat();
    peer.send(&Packet::new(SUBACK, body));
    until("it is counted", || daemon.counters.subscriptions_refused.get() == 2);
    done(daemon, peer, broker);
}

#[test]
fn a_refused_reply_is_counted_and_its_request_acknowledged() {
    let broker = FakeBroker::start();
    let daemon = start(&broker);
    let mut peer = broker.welcome();
    peer.read_message("moed/test/status");
    peer.publish(&request(9));
    loop {
        let packet = peer.read().unwrap();
        if packet.kind() == PUBLISH {
            let message = Message::of(&packet, true);
            let reason = if message.topic == "replies/me" { 0x87 } else { 0 };
            let body = [&message.packet.to_be_bytes()[..], &[reason, 0]].concat();
            peer.send(&Packet::new(PUBACK, body));
        }
        if packet.kind() == PUBACK && packet.id() == 9 {
            break;
        }
    }
    assert_eq!(daemon.counters.replies_refused.get(), 1);
    done(daemon, peer, broker);
}

#[test]
fn a_request_is_acknowledged_after_its_reply() {
    let broker = FakeBroker::start();
    let daemon = start(&broker);
    let mut peer = broker.welcome();
    peer.read_message("moed/test/status");
    peer.publish(&request(1));
    peer.publish(&request(2));
    let mut order = Vec::new();
    while order.len() < 4 {
        let packet = peer.read().unwrap();
        match packet.kind() {
            PUBACK => order.push(format!("acknowledged {}", packet.id())),
            PUBLISH => {
                let message = Message::of(&packet, true);
                if message.topic == "replies/me" {
                    order.push(format!("replied {}", message.correlation()));
                }
                let body = message.packet.to_be_bytes().to_vec();
                peer.send(&Packet::new(PUBACK, body));
            }
            _ => {}
        }
    }
    let at = |what: &str| order.iter().position(|event| event == what).unwrap();
    assert!(at("replied 1") < at("acknowledged 1"), "{order:?}");
    assert!(at("acknowledged 1") < at("acknowledged 2"), "{order:?}");
    done(daemon, peer, broker);
}

#[test]
fn no_more_than_64_messages_wait_for_a_broker_that_acknowledges_none() {
    let broker = FakeBroker::start();
    let daemon = start(&broker);
    let mut peer = broker.welcome();
    peer.read_kind(SUBSCRIBE);
    for packet in 1..=100 {
        peer.publish(&request(packet));
    }
    let (mut messages, start) = (0, Instant::now());
    while start.elapsed() < Duration::from_secs(2) {
        // Pings come each 5 s, so that this ends.
        let Some(packet) = peer.read() else { break };
        messages += usize::from(packet.kind() == PUBLISH);
        if packet.kind() == 0xc0 {
            break;
        }
    }
    assert_eq!(messages, 64);
    done(daemon, peer, broker);
}

#[test]
fn a_silent_broker_is_left_within_one_and_a_half_keep_alives() {
    let broker = FakeBroker::start();
    let daemon = start(&broker);
    let mut peer = broker.welcome();
    let start = Instant::now();
    // It reads, and says nothing: not even to pings.
    while peer.read().is_some() {}
    let left = start.elapsed();
    assert!((7..=8).contains(&left.as_secs()), "{left:?}");
    done(daemon, peer, broker);
}

#[test]
fn the_broker_decides_how_often_it_is_pinged() {
    let broker = FakeBroker::start();
    let daemon = start(&broker);
    let mut peer = broker.accept();
    // Server Keep Alive: 1 s.
    peer.consent(&[19, 0, 1]);
    let start = Instant::now();
    while peer.read().expect("it pings").kind() != 0xc0 {}
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    done(daemon, peer, broker);
}

#[test]
fn nonsense_ends_the_connection_and_not_the_daemon() {
    let broker = FakeBroker::start();
    let daemon = start(&broker);
    for (name, bytes) in [
        ("no packet", vec![0xff; 64]),
        ("a length without end", vec![0x30, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("a packet that is too large", vec![0x30, 0xff, 0xff, 0xff, 0x7f]),
        ("an empty message", vec![0x30, 0]),
        ("a topic that is cut short", vec![0x30, 3, 0, 9, b'a']),
        ("a topic that is no text", vec![0x30, 5, 0, 2, 0xff, 0xfe, 0]),
        ("an unknown property", vec![0x30, 6, 0, 1, b'a', 2, 0x7f, 0]),
        ("an alias nobody gave", vec![0x30, 6, 0, 0, 3, 35, 0, 9]),
        ("QoS 3", vec![0x36, 6, 0, 1, b'a', 0, 1, 0]),
        ("an acknowledgement of nothing", vec![0x40, 2, 0, 60]),
        ("an acknowledgement of packet 0", vec![0x40, 2, 0, 0]),
        ("an acknowledgement of packet 65535", vec![0x40, 2, 0xff, 0xff]),
        ("a second consent", vec![0x20, 3, 0, 0, 0]),
        ("a request", vec![0xc0, 0]),
        ("AUTH", vec![0xf0, 2, 0x18, 0]),
        ("a disconnection", vec![0xe0, 2, 0x8b, 0]),
        ("an end", vec![]),
    ] {
        let mut peer = broker.welcome();
        peer.read_kind(SUBSCRIBE);
        peer.send_bytes(&bytes);
        drop(peer);
        assert!(daemon.service.seen.lock().unwrap().is_empty(), "{name}");
    }
    let mut peer = broker.welcome();
    peer.read_kind(SUBSCRIBE);
    peer.publish(&request(1));
    assert_eq!(peer.read_message("replies/me").correlation(), "1");
    done(daemon, peer, broker);
}

#[test]
fn a_name_that_another_has_taken_is_not_fought_for() {
    let broker = FakeBroker::start();
    let daemon = start(&broker);
    let mut peer = broker.welcome();
    peer.read_kind(SUBSCRIBE);
    peer.send_bytes(&[0xe0, 2, 0x8e, 0]);
    while peer.read().is_some() {}
    assert!(!broker.is_visited_within(Duration::from_secs(3)));
    drop(broker);
    drop(daemon);
}

#[test]
fn a_storm_of_reconnections_is_bounded() {
    let broker = FakeBroker::start();
    let daemon = start(&broker);
    // Lets in and throws out, for ten seconds.
    let (start, mut visits) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(10) {
        if broker.is_visited_within(Duration::from_secs(10).saturating_sub(start.elapsed())) {
            visits += 1;
        }
    }
    assert!((4..=12).contains(&visits), "{visits} connections in 10 s");
    drop(broker);
    drop(daemon);
}
