//! Figures of the way over a broker: `mqtt figures MOED [--quick] [--python PYTHON]` starts
//! mosquitto and MOED, and prints a `name = value unit` line for each. PYTHON is one that has what
//! the do-it-yourself peer needs. `benches/figures mqtt` builds and runs it.
//!
//! The client is the tests' own: blocking, TCP_NODELAY set. The model is the pretended `sim`, which
//! takes no time, so that what is measured is the way.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it has no command line to speak of, and a failure is the end of it"
)]
#![allow(dead_code, reason = "tests use more of these")]

#[path = "../tests/it/support/mqtt/broker.rs"]
mod broker;
#[path = "../tests/it/support/mqtt/client.rs"]
mod client;
#[path = "../tests/it/support/mqtt/packet.rs"]
mod packet;
#[path = "../tests/it/support/mqtt/proxy.rs"]
mod proxy;

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use broker::Broker;
use client::Client;
use moed::transport::mqtt::parts::Backoff;
use packet::{Connect, Message};
use proxy::{Fault, Proxy};

const INFER: &str = "moed/bench/models/sim/infer";
const BODY: &str = r#"{"x": [[1, 2]]}"#;
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// What moed may add to the broker's own time and to computing.
const OWN_PART_MAX_US: f64 = 150.0;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` passes `--bench`: alone, this program has nothing to measure.
    let [command, moed, more @ ..] = arguments.as_slice() else { return };
    if command != "figures" {
        return;
    }
    if broker::mosquitto().is_none() {
        println!("# mqtt: left out: there is no mosquitto");
        return;
    }
    let is_quick = more.iter().any(|argument| argument == "--quick");
    let moed = Path::new(moed);
    let python = more.iter().position(|argument| argument == "--python");
    let python = python.and_then(|at| more.get(at + 1)).map(Path::new);
    backoff();
    memory(moed);
    round_trips(moed, if is_quick { 200 } else { 5000 });
    embedded(moed, if is_quick { 200 } else { 5000 });
    match python {
        Some(python) => do_it_yourself(python, if is_quick { 40 } else { 500 }),
        None => println!("# mqtt_diy_*: left out: no Python was given for paho and onnxruntime"),
    }
    full_speed(moed, if is_quick { 2000 } else { 20_000 });
    deaths(moed, if is_quick { 3 } else { 50 });
    stalls(moed, if is_quick { 1 } else { 5 });
    large_message(moed);
    storm(moed, Duration::from_secs(if is_quick { 10 } else { 60 }));
}

fn figure(name: &str, value: f64, unit: &str) {
    println!("mqtt_{name} = {value:.3} {unit}");
}

/// The daemon as a process; it is killed when this is dropped.
struct Daemon {
    child: Child,
    directory: tempfile::TempDir,
}

impl Daemon {
    fn start(moed: &Path, broker: Option<SocketAddr>) -> Self {
        let line = broker.map(|broker| format!("broker = \"mqtt://{broker}\""));
        Self::with(moed, line)
    }

    /// One whose configuration says so where its broker is.
    fn with(moed: &Path, broker: Option<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let mut text = format!("[models]\ndirectories = [\"{}\"]\n", directory.path().display());
        if let Some(broker) = broker {
            text += &format!(
                "[mqtt]\n{broker}\nnode = \"bench\"\nkeep_alive_s = {}\n\
                 health_interval_ms = 1000\n",
                KEEP_ALIVE.as_secs()
            );
        }
        fs::write(at("moed.toml"), text).unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let child = Command::new(moed)
            .args(["serve", "--sim", "--config"])
            .arg(at("moed.toml"))
            .arg("--socket")
            .arg(at("moed.sock"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("moed starts");
        let socket: PathBuf = at("moed.sock");
        wait("moed listens", || socket.exists());
        Self { child, directory }
    }

    /// A thousand requests over its socket.
    fn warm_up(&self) {
        use std::io::{Read as _, Write as _};
        for _ in 0..1000 {
            let path = self.directory.path().join("moed.sock");
            let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
            let head = "POST /v2/models/sim/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
            write!(stream, "{head}Content-Length: {}\r\n\r\n{BODY}", BODY.len()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }

    /// Memory that is its own, in bytes.
    fn anonymous_bytes(&self) -> f64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        let kilobytes: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kilobytes * 1024.0
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}: still not so");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn status_is(broker: SocketAddr, expected: &str) -> bool {
    let connect =
        Connect { level: 5, clean: true, client: "status".to_owned(), ..Connect::default() };
    let Ok(mut client) = Client::connect(broker, &connect) else { return false };
    client.subscribe("moed/bench/status");
    client.receive_within(Duration::from_millis(50)).is_some_and(|m| m.text() == expected)
}

fn connected(moed: &Path, broker: &Broker) -> Daemon {
    let daemon = Daemon::start(moed, Some(broker.address));
    wait("moed is online", || status_is(broker.address, "online"));
    daemon
}

/// A client that listens to its replies.
fn asking(address: SocketAddr, name: &str) -> Client {
    let mut client = Client::v5(address, name);
    client.subscribe(&format!("replies/{name}"));
    client
}

fn request(name: &str, correlation: &str, qos: u8) -> Message {
    Message::new(INFER, BODY).reply_to(&format!("replies/{name}"), correlation).qos(qos)
}

fn percentile(times: &mut [f64], part: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    let at = ((times.len() - 1) as f64 * part).round() as usize;
    times[at]
}

/// What a broker costs in memory, after a thousand requests.
fn memory(moed: &Path) {
    let broker = Broker::start();
    let without = Daemon::start(moed, None);
    std::thread::sleep(Duration::from_secs(1));
    let with = connected(moed, &broker);
    std::thread::sleep(Duration::from_secs(1));
    let idle = with.anonymous_bytes() - without.anonymous_bytes();
    without.warm_up();
    let mut client = asking(broker.address, "memory");
    for n in 0..1000 {
        client.ask(request("memory", &n.to_string(), 1));
    }
    let used = with.anonymous_bytes() - without.anonymous_bytes();
    println!("# memory: of moed with a broker, less that of moed without; the second after 1000");
    println!("# requests to both, one over the broker, the other over its socket");
    figure("rss_idle", idle / 1e6, "MB");
    figure("rss_after_requests", used / 1e6, "MB");
}

/// p50 and p99 in microseconds of messages that go to somebody and come back.
fn times(client: &mut Client, count: usize, message: impl Fn(usize) -> Message) -> (f64, f64) {
    for n in 0..count / 10 {
        client.ask(message(usize::MAX - n));
    }
    let mut times: Vec<f64> = (0..count)
        .map(|n| {
            let start = Instant::now();
            client.ask(message(n));
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    (percentile(&mut times, 0.5), percentile(&mut times, 0.99))
}

fn round_trips(moed: &Path, count: usize) {
    println!("# mosquitto as it comes: Nagle's algorithm in it meets the client's delayed ACKs");
    round_trips_with(moed, count / 20, "allow_anonymous true\n", "default_broker_");
    println!("# mosquitto with `set_tcp_nodelay true`");
    round_trips_with(moed, count, "allow_anonymous true\nset_tcp_nodelay true\n", "");
}

fn round_trips_with(moed: &Path, count: usize, lines: &str, name: &str) {
    let broker = Broker::with(lines);
    let _daemon = connected(moed, &broker);
    round_trips_through(broker.address, count, name);
}

/// The broker inside the daemon: its memory, and the same round trips through it.
fn embedded(moed: &Path, count: usize) {
    println!("# the broker inside the daemon");
    let address = SocketAddr::from(([127, 0, 0, 1], broker::free_port()));
    let without = Daemon::start(moed, Some(address));
    std::thread::sleep(Duration::from_secs(1));
    let without_bytes = without.anonymous_bytes();
    drop(without);
    let lines = format!("embedded = true\nlisten = \"{address}\"");
    let daemon = Daemon::with(moed, Some(lines));
    wait("moed is online", || status_is(address, "online"));
    std::thread::sleep(Duration::from_secs(1));
    let rss = daemon.anonymous_bytes() - without_bytes;
    figure("embedded_broker_rss_idle", rss / 1e6, "MB");
    round_trips_through(address, count, "embedded_broker_");
}

fn round_trips_through(address: SocketAddr, count: usize, name: &str) {
    // Gives back what it gets, at once: what the broker itself takes.
    std::thread::spawn(move || {
        let mut echo = Client::v5(address, "echo");
        echo.subscribe("echo");
        while let Ok(message) = echo.try_receive_within(Duration::from_secs(60)) {
            let Some(Message { payload, qos, response_topic: Some(topic), .. }) = message else {
                continue;
            };
            if echo.try_publish(Message::new(&topic, payload).qos(qos)).is_err() {
                return;
            }
        }
    });
    std::thread::sleep(Duration::from_millis(200));
    let mut client = asking(address, "a");
    let answer = client.ask(request("a", "0", 0));
    println!("# round trips: one at a time; an answer is {} bytes", answer.payload.len());
    let mut p50s = Vec::new();
    for qos in [0, 1] {
        let echoed = |n: usize| {
            Message::new("echo", &answer.payload).reply_to("replies/a", &n.to_string()).qos(qos)
        };
        let (echo, _) = times(&mut client, count, echoed);
        let mut computing = Vec::new();
        let (p50, p99) = times(&mut client, count, |n| request("a", &n.to_string(), qos));
        for n in 0..count.min(500) {
            let reply = client.ask(request("a", &format!("c{n}"), qos));
            let part = |name| reply.user(name).unwrap().parse::<f64>().unwrap();
            computing.push(part("queue-us") + part("compute-us"));
        }
        let inference = percentile(&mut computing, 0.5);
        figure(&format!("{name}echo_p50_qos{qos}"), echo, "us");
        figure(&format!("{name}round_trip_p50_qos{qos}"), p50, "us");
        figure(&format!("{name}round_trip_p99_qos{qos}"), p99, "us");
        figure(&format!("{name}inference_p50_qos{qos}"), inference, "us");
        figure(&format!("{name}own_part_p50_qos{qos}"), p50 - echo - inference, "us");
        let bar = echo + inference + OWN_PART_MAX_US;
        figure(&format!("{name}round_trip_p50_bar_qos{qos}"), bar, "us");
        p50s.push(p50);
    }
    figure(&format!("{name}qos1_over_qos0"), p50s[1] / p50s[0], "times");
}

/// paho and onnxruntime in a script, as people do it, through mosquitto as it comes.
fn do_it_yourself(python: &Path, count: usize) {
    use std::io::{BufRead as _, BufReader};
    let broker = Broker::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/mqtt_paho.py");
    let mut peer = Command::new(python)
        .arg(script)
        .arg(broker.address.port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the peer starts");
    let mut line = String::new();
    let mut output = BufReader::new(peer.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "the peer subscribes");
    let mut client = asking(broker.address, "diy");
    let row = vec!["0.5"; 64].join(", ");
    let body = format!(r#"{{"x": [[{row}]]}}"#);
    println!(
        "# paho-mqtt and onnxruntime in a script, through mosquitto as it comes; a client with"
    );
    println!("# TCP_NODELAY; the same of moed: mqtt_default_broker_round_trip_p50_qos*");
    for qos in [0, 1] {
        for (what, topic) in [("echo", "diy/echo"), ("round_trip", "diy/infer")] {
            let message = |n: usize| {
                Message::new(topic, &body).reply_to("replies/diy", &n.to_string()).qos(qos)
            };
            let (p50, _) = times(&mut client, count, message);
            figure(&format!("diy_{what}_p50_qos{qos}"), p50, "us");
        }
    }
    let _ = peer.kill();
    let _ = peer.wait();
}

/// How long moed waits before it knocks again, from 1000 series of attempts.
fn backoff() {
    for attempt in [1, 2, 4, 8] {
        let wait = |is_refused| {
            let mut backoff = Backoff::default();
            let waits = (0..attempt).map(|_| backoff.wait(Duration::ZERO, is_refused));
            waits.last().unwrap().as_secs_f64()
        };
        let mut waits: Vec<f64> = (0..1000).map(|_| wait(false)).collect();
        for (name, part) in [("min", 0.0), ("max", 1.0)] {
            let name = format!("backoff_attempt_{attempt}_{name}");
            figure(&name, percentile(&mut waits, part), "s");
        }
        if attempt == 1 {
            let mut waits: Vec<f64> = (0..1000).map(|_| wait(true)).collect();
            figure("backoff_refused_min", percentile(&mut waits, 0.0), "s");
            figure("backoff_refused_max", percentile(&mut waits, 1.0), "s");
        }
    }
}

fn full_speed(moed: &Path, count: usize) {
    for qos in [0, 1] {
        let broker = Broker::start();
        let _daemon = connected(moed, &broker);
        let mut client = asking(broker.address, "all");
        let start = Instant::now();
        let address = broker.address;
        let sender = std::thread::spawn(move || {
            let mut sender = Client::v5(address, "sender");
            for n in 0..count {
                sender.publish(request("all", &n.to_string(), qos));
            }
            sender.flush();
        });
        let mut seen = HashSet::new();
        let mut refused = 0;
        let mut last = Instant::now();
        while seen.len() < count {
            let Some(reply) = client.receive_within(Duration::from_secs(5)) else { break };
            last = Instant::now();
            refused += usize::from(reply.user("status") != Some("200"));
            seen.insert(reply.correlation().to_owned());
        }
        sender.join().unwrap();
        figure(&format!("full_speed_requests_qos{qos}"), count as f64, "requests");
        figure(&format!("full_speed_answers_qos{qos}"), seen.len() as f64, "answers");
        figure(&format!("full_speed_overloaded_qos{qos}"), refused as f64, "answers");
        let rate = seen.len() as f64 / last.duration_since(start).as_secs_f64();
        figure(&format!("full_speed_rate_qos{qos}"), rate, "answers/s");
    }
}

/// What the daemon says of its requests: taken, and of known fate.
fn accounts(broker: SocketAddr) -> Option<(u64, u64)> {
    let mut client = Client::v5(broker, "accounts");
    client.subscribe("moed/bench/health");
    let health = client.receive_within(Duration::from_secs(2))?.json();
    Some((health["requests"].as_u64()?, health["settled"].as_u64()?))
}

fn deaths(moed: &Path, count: usize) {
    let mut broker = Broker::start();
    let _daemon = connected(moed, &broker);
    let address = broker.address;
    let mut recoveries = Vec::new();
    for round in 0..count {
        let load = std::thread::spawn(move || {
            let mut client = asking(address, "load");
            for n in 0.. {
                if client.try_publish(request("load", &format!("{round}-{n}"), 1)).is_err() {
                    return;
                }
                if client.try_receive_within(Duration::from_millis(100)).is_err() {
                    return;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(300));
        broker.kill();
        load.join().unwrap();
        std::thread::sleep(Duration::from_millis(200 + 40 * (round as u64 % 20)));
        broker.restart();
        let start = Instant::now();
        wait("moed is back", || status_is(address, "online"));
        recoveries.push(start.elapsed().as_secs_f64());
    }
    wait("every fate is known", || {
        accounts(address).is_some_and(|(taken, settled)| taken == settled)
    });
    let (taken, settled) = accounts(address).unwrap();
    figure("broker_deaths", count as f64, "times");
    figure("broker_deaths_requests", taken as f64, "requests");
    figure("broker_deaths_silent_losses", taken.abs_diff(settled) as f64, "requests");
    figure("broker_back_to_online_p50", percentile(&mut recoveries, 0.5), "s");
    figure("broker_back_to_online_max", percentile(&mut recoveries, 1.0), "s");
}

fn stalls(moed: &Path, count: usize) {
    let broker = Broker::start();
    let proxy = Proxy::start(broker.address);
    let _daemon = Daemon::start(moed, Some(proxy.address));
    wait("moed is online", || status_is(broker.address, "online"));
    let mut noticed = Vec::new();
    for _ in 0..count {
        let before = proxy.connections();
        proxy.set(Fault::BlackHole);
        let start = Instant::now();
        wait("it is noticed", || proxy.connections() > before);
        noticed.push(start.elapsed().as_secs_f64());
        proxy.set(Fault::Pass);
        proxy.cut();
        wait("moed is back", || status_is(broker.address, "online"));
        std::thread::sleep(Duration::from_millis(500));
    }
    let worst = percentile(&mut noticed, 1.0);
    figure("stall_noticed_max", worst, "s");
    figure("stall_noticed_max_keep_alives", worst / KEEP_ALIVE.as_secs_f64(), "keep-alives");
}

fn large_message(moed: &Path) {
    let broker = Broker::start();
    let mut client = asking(broker.address, "large");
    client.publish(Message::new(INFER, vec![b' '; 1 << 20]).qos(1).retained());
    let _daemon = connected(moed, &broker);
    let start = Instant::now();
    client.ask(request("large", "a", 1));
    let connects = broker.log().matches("New client connected from").count();
    figure("beside_1_mib_retained_answer", start.elapsed().as_secs_f64() * 1e3, "ms");
    println!("# {connects} connections of all clients: moed made one");
}

/// How often it knocks at a broker that is not there, and at one that throws it out.
fn storm(moed: &Path, time: Duration) {
    for (name, is_there) in [("that_hangs_up", false), ("that_ends_each_connection", true)] {
        let port = broker::free_port();
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        let _daemon = Daemon::start(moed, Some(listener.local_addr().unwrap()));
        listener.set_nonblocking(true).unwrap();
        let (start, mut visits) = (Instant::now(), 0);
        while start.elapsed() < time {
            match listener.accept() {
                Ok((mut stream, _)) => {
                    visits += 1;
                    if is_there {
                        use std::io::Write as _;
                        let _ = stream.write_all(&[0x20, 3, 0, 0, 0]);
                    }
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        let rate = visits as f64 * 60.0 / time.as_secs_f64();
        figure(&format!("attempts_at_a_broker_{name}"), rate, "attempts/min");
    }
}
