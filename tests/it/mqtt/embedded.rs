//! The broker inside the daemon: what it does for clients of both versions, and what it does not
//! let them do to others.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use moed::transport::mqtt::embedded::parts::{Version, is_filter, matches, read};
use moed::transport::mqtt::embedded::{Login, serve};
use moed::transport::mqtt::{Broker, Settings};
use proptest::prelude::*;
use tokio::sync::watch;

use crate::support::mqtt::broker::free_port;
use crate::support::mqtt::client::Client;
use crate::support::mqtt::daemon::{Daemon, settings};
use crate::support::mqtt::packet::{Connect, Message};
use crate::support::service::FakeService;

const PACKET_BYTES_MAX: usize = 100_000;

/// The broker alone; it stops when this is dropped.
struct Own {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Own {
    fn start() -> Self {
        Self::with(None)
    }

    fn with(login: Option<Login>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let serving = serve(listener, login, PACKET_BYTES_MAX, stopped);
            runtime.unwrap().block_on(serving).expect("it listens");
        });
        Self { address, stop, thread: Some(thread) }
    }

    fn client(&self, level: u8, client: &str) -> Client {
        self.connect(level, client, true).expect("it is let in")
    }

    fn connect(&self, level: u8, client: &str, clean: bool) -> std::io::Result<Client> {
        let client = client.to_owned();
        Client::connect(self.address, &Connect { level, clean, client, ..Connect::default() })
    }

    /// Bytes of a client that keeps to no rule, and what it hears until the end.
    fn hears(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(bytes).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        heard
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        let result = self.thread.take().unwrap().join();
        assert!(result.is_ok() || std::thread::panicking(), "the broker did not panic");
    }
}

fn message(topic: &str, text: &str) -> Message {
    Message::new(topic, text).qos(1)
}

#[test]
fn the_daemon_brings_its_own_broker_for_clients_of_both_versions() {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let settings = Settings {
        embedded: Some(address),
        broker: Broker::embedded(address),
        pool: Some("moed".to_owned()),
        ..settings(address)
    };
    let mut daemon = Daemon::with(settings, FakeService::default());
    let mut v5 = Client::v5(address, "new");
    v5.subscribe("replies/#");
    v5.subscribe("moed/test/status");
    v5.receive_text("moed/test/status", "online");
    for topic in ["moed/test/models/intent/infer", "moed/pool/models/intent/infer"] {
        for qos in 0..=2 {
            let request = Message::new(topic, r#"{"text": "hello"}"#).qos(qos).expires(20);
            let reply = v5.ask(request.reply_to("replies/new", "c"));
            assert_eq!(reply.json()["answer"]["text"], "hello");
            assert_eq!((reply.correlation(), reply.user("status")), ("c", Some("200")));
            assert_eq!(reply.qos, qos.min(1));
            assert!(reply.expiry_s.is_some_and(|left| (1..=20).contains(&left)));
        }
    }
    let mut v311 = Client::v311(address, "old");
    v311.subscribe("moed/test/models/intent/result/old");
    v311.publish(message("moed/test/models/intent/infer/old", r#"{"text": "hello"}"#));
    assert_eq!(v311.receive().json()["answer"]["text"], "hello");
    daemon.stop();
    v5.receive_text("moed/test/status", "stopped");
    assert!(TcpStream::connect(address).is_err(), "it goes with the daemon");
}

#[test]
fn everything_at_full_speed_is_answered_through_it() {
    const ALL: usize = 2000;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let own = Settings { embedded: Some(address), ..settings(address) };
    let _daemon = Daemon::with(own, FakeService::default());
    let mut client = Client::v5(address, "client");
    client.subscribe("replies/all");
    let sender = std::thread::spawn(move || {
        let mut sender = Client::v5(address, "sender");
        for n in 0..ALL {
            let request = message("moed/test/models/double/infer", r#"{"x": [[1, 2, 3, 4]]}"#);
            sender.publish(request.reply_to("replies/all", &n.to_string()));
        }
        sender.flush();
    });
    let mut seen = std::collections::HashSet::new();
    while seen.len() < ALL {
        assert!(seen.insert(client.receive().correlation().to_owned()), "answered once");
    }
    sender.join().unwrap();
}

#[test]
fn keeps_the_newest_message_of_a_topic_until_it_is_emptied_or_expires() {
    let own = Own::start();
    for (level, other) in [(4, 5), (5, 4)] {
        let mut publisher = own.client(level, "publisher");
        publisher.publish(message("kept/a", "1").retained());
        publisher.publish(message("kept/a", "2").retained());
        publisher.publish(message("kept/b", "3").retained());
        publisher.publish(message("kept/b", "").retained());
        publisher.publish(message("flag", "up"));
        let mut late = own.client(other, "late");
        late.subscribe("flag");
        publisher.publish(message("flag", "up"));
        late.receive_text("flag", "up");
        late.subscribe("kept/+");
        let kept = late.receive();
        assert_eq!((kept.topic.as_str(), kept.text(), kept.retain), ("kept/a", "2", true));
        assert!(late.receive_within(Duration::from_millis(100)).is_none());
    }
    let mut publisher = own.client(5, "publisher");
    publisher.publish(message("kept/a", "soon gone").retained().expires(1));
    std::thread::sleep(Duration::from_millis(1100));
    let mut late = own.client(5, "late");
    late.subscribe("kept/a");
    assert!(late.receive_within(Duration::from_millis(100)).is_none());
}

#[test]
fn a_session_keeps_what_comes_while_its_client_is_away() {
    let own = Own::start();
    let mut client = own.connect(4, "lasting", false).unwrap();
    client.subscribe("away/#");
    drop(client);
    let mut publisher = own.client(5, "publisher");
    for n in 0..3 {
        publisher.publish(message("away/x", &n.to_string()));
    }
    publisher.publish(Message::new("away/x", "not kept at QoS 0"));
    // All have been taken when the last is acknowledged.
    publisher.publish(message("away/x", "3"));
    until_acknowledged(&mut publisher, 4);
    let mut client = own.connect(4, "lasting", false).unwrap();
    for n in 0..4 {
        assert_eq!(client.receive().text(), n.to_string());
    }
    drop(client);
    drop(own.client(4, "lasting"));
    publisher.publish(message("away/x", "nobody's"));
    let mut client = own.connect(4, "lasting", false).unwrap();
    assert!(client.receive_within(Duration::from_millis(100)).is_none(), "a clean start forgets");
}

fn until_acknowledged(client: &mut Client, count: usize) {
    let start = Instant::now();
    while client.acknowledged.len() < count {
        assert!(start.elapsed() < Duration::from_secs(20), "acknowledged");
        client.receive_within(Duration::from_millis(10));
    }
}

#[test]
fn a_publisher_hears_when_nobody_listens_and_when_a_listener_is_too_slow() {
    let own = Own::start();
    let mut publisher = own.client(5, "publisher");
    publisher.publish(message("nobody", "x"));
    until_acknowledged(&mut publisher, 1);
    assert_eq!(publisher.acknowledged[0].1, 0x10);
    let mut slow = own.connect(4, "slow", false).unwrap();
    slow.subscribe("flood");
    drop(slow);
    for _ in 0..100 {
        publisher.publish(message("flood", &"x".repeat(90_000)));
    }
    until_acknowledged(&mut publisher, 101);
    assert!(publisher.acknowledged.iter().any(|(_, reason)| *reason == 0x97));
}

#[test]
fn a_will_is_published_unless_its_client_parts_in_peace() {
    let own = Own::start();
    let mut watcher = own.client(5, "watcher");
    watcher.subscribe("wills");
    // CONNECT with a Will at QoS 1, MQTT 3.1.1.
    let connect = b"\x10\x18\x00\x04MQTT\x04\x0e\x00\x3c\x00\x01w\x00\x05wills\x00\x02up";
    let mut stream = TcpStream::connect(own.address).unwrap();
    stream.write_all(connect).unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    stream.write_all(&[0xe0, 0]).unwrap();
    assert!(watcher.receive_within(Duration::from_millis(200)).is_none());
    let mut stream = TcpStream::connect(own.address).unwrap();
    stream.write_all(connect).unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    drop(stream);
    assert_eq!(watcher.receive().text(), "up");
}

#[test]
fn a_second_client_of_one_name_takes_the_firsts_place() {
    let own = Own::start();
    let mut first = own.client(5, "one");
    first.subscribe("x");
    let mut second = own.client(5, "one");
    second.subscribe("x");
    own.client(5, "publisher").publish(message("x", "hello"));
    assert_eq!(second.receive().text(), "hello");
    assert!(first.try_receive_within(Duration::from_secs(5)).is_err());
}

#[test]
fn members_of_a_group_share_its_messages() {
    let own = Own::start();
    let (mut a, mut b) = (own.client(5, "a"), own.client(4, "b"));
    for member in [&mut a, &mut b] {
        member.subscribe("$share/group/work/+");
    }
    let mut publisher = own.client(5, "publisher");
    for n in 0..10 {
        publisher.publish(message("work/x", &n.to_string()));
    }
    let count = |member: &mut Client| {
        let mut count = 0;
        while member.receive_within(Duration::from_millis(200)).is_some() {
            count += 1;
        }
        count
    };
    assert_eq!((count(&mut a), count(&mut b)), (5, 5));
}

#[test]
fn lets_in_only_who_knows_the_password() {
    let login = Login { username: "hub".to_owned(), password: "secret".to_owned() };
    let own = Own::with(Some(login));
    for level in [4, 5] {
        let connect = |username: Option<&str>, password: Option<&str>| {
            let connect = Connect {
                level,
                clean: true,
                client: "c".to_owned(),
                username: username.map(str::to_owned),
                password: password.map(str::to_owned),
                ..Connect::default()
            };
            Client::connect(own.address, &connect).is_ok()
        };
        assert!(connect(Some("hub"), Some("secret")));
        for (username, password) in [
            (None, None),
            (Some("hub"), None),
            (Some("hub"), Some("secre")),
            (Some("hub"), Some("secrets")),
            (Some("other"), Some("secret")),
        ] {
            assert!(!connect(username, password), "{username:?} {password:?}");
        }
    }
}

#[test]
fn who_breaks_the_rules_is_thrown_out_and_nobody_else() {
    let own = Own::start();
    let mut good = own.client(5, "good");
    good.subscribe("x");
    let connect = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01b".as_slice();
    let bad = |bytes: &[u8]| own.hears(&[connect, bytes].concat());
    for (bytes, reason) in [
        // A topic with a wildcard, QoS 3, a packet of number 0, an alias, a second CONNECT.
        (b"\x30\x04\x00\x01+\x00".as_slice(), 0x81),
        (b"\x36\x06\x00\x01x\x00\x01\x00", 0x81),
        (b"\x32\x06\x00\x01x\x00\x00\x00", 0x81),
        (b"\x30\x07\x00\x01x\x03\x23\x00\x01", 0x81),
        (connect, 0x81),
        // Larger than is allowed, a length without end, a kind that there is not.
        (b"\x30\xff\xff\x7f", 0x95),
        (b"\x30\xff\xff\xff\xff\x01", 0x81),
        (b"\x00\x00", 0x81),
    ] {
        let heard = bad(bytes);
        assert_eq!(heard.get(heard.len() - 3..), Some(&[0xe0, 1, reason][..]), "{bytes:x?}");
    }
    // Another protocol, and a version of old.
    assert!(own.hears(b"GET / HTTP/1.1\r\n\r\n").is_empty());
    assert_eq!(own.hears(b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01b"), [0x20, 2, 0, 1]);
    own.client(5, "publisher").publish(message("x", "still here"));
    assert_eq!(good.receive().text(), "still here");
}

#[test]
fn a_silent_client_is_left_after_one_and_a_half_keep_alives() {
    let own = Own::start();
    let start = Instant::now();
    // Keep-alive: 1 s.
    let heard = own.hears(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x01\x00\x00\x01s");
    assert!(heard.ends_with(&[0xe0, 1, 0x8d]), "{heard:x?}");
    let silent = start.elapsed();
    assert!((1400..5000).contains(&silent.as_millis()), "{silent:?}");
}

#[test]
fn filters_match_as_mqtt_says() {
    for (filter, topic, expected) in [
        ("a/b", "a/b", true),
        ("a/b", "a/b/c", false),
        ("a/+", "a/b", true),
        ("a/+", "a", false),
        ("a/+/c", "a//c", true),
        ("a/#", "a", true),
        ("a/#", "a/b/c", true),
        ("a/#", "ab", false),
        ("#", "a/b", true),
        ("+/+", "/a", true),
    ] {
        assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
    }
    for filter in ["a", "#", "+", "a/+/#", "/", "$share/g/a/#", "$SYS/#"] {
        assert!(is_filter(filter), "{filter}");
    }
    for filter in ["", "a#", "a/#/b", "a+", "$share/g", "$share//a", "$share/+/a", "$share/g/a#"] {
        assert!(!is_filter(filter), "{filter}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_take_more_than_is_there(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        first in prop::sample::select(vec![0x10_u8, 0x30, 0x32, 0x3d, 0x40, 0x62, 0x82, 0xa2, 0xe0]),
        is_first in any::<bool>(),
        is_v5 in any::<bool>(),
    ) {
        let version = if is_v5 { Version::V5 } else { Version::V311 };
        let mut buffer = BytesMut::from(&[first][..]);
        let length = u8::try_from(bytes.len().min(127)).unwrap();
        buffer.extend_from_slice(&[length]);
        buffer.extend_from_slice(&bytes);
        let before = buffer.len();
        let version = (!is_first).then_some(version);
        let _ = read(&mut buffer, version, 1000, Instant::now());
        prop_assert!(before - buffer.len() <= 2 + usize::from(length));
    }
}
