//! Every limit, at its boundary: what is within it is served, what is beyond it gets an error.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use moed::transport::unix::{HttpLimits, Settings};

use crate::support::http::{Client, PATIENCE, Server, post, until};
use crate::support::service::FakeService;

const SHORT: Duration = Duration::from_millis(100);
const INFER: &str = "/v2/models/intent/infer";
const TEXT: &[u8] = br#"{"text": "turn it on"}"#;

fn server(http: HttpLimits) -> Server {
    Server::with(FakeService::default(), Settings { http, ..Settings::default() })
}

fn error(reply: &crate::support::http::Reply) -> String {
    let json = reply.json();
    format!("{} {}", reply.status, json["error"].as_str().unwrap_or_default())
}

fn infer(client: &mut Client) {
    let reply = client.post(INFER, TEXT);
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[test]
fn headers_that_do_not_come_end_the_connection_with_408() {
    let server = server(HttpLimits { header_time_max: SHORT, ..HttpLimits::default() });
    let mut client = server.connect();
    client.send(b"GET /v2 HTTP/1.1\r\nHost:");
    assert_eq!(error(&client.read()), "408 headers: not received within 0.1 s: send them faster");
    assert!(client.is_closed());
    assert_eq!(server.counters.header_timeouts.get(), 1);
}

#[test]
fn headers_that_trickle_do_not_win_time() {
    let server = server(HttpLimits { header_time_max: 2 * SHORT, ..HttpLimits::default() });
    let mut client = server.connect();
    infer(&mut client);
    let start = Instant::now();
    for byte in b"GET /v2 HTTP/1.1\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
        if client.stream.write_all(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(client.read().status, 408);
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn a_body_that_does_not_come_ends_with_408() {
    let server = server(HttpLimits { body_time_max: SHORT, ..HttpLimits::default() });
    let mut client = server.connect();
    client.send(b"POST /v2/models/intent/infer HTTP/1.1\r\nContent-Length: 30\r\n\r\n{\"text\"");
    assert_eq!(error(&client.read()), "408 body: not received within 0.1 s: send it faster");
    assert!(client.is_closed());
    assert_eq!(server.counters.body_timeouts.get(), 1);
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = server(HttpLimits { idle_time_max: SHORT, ..HttpLimits::default() });
    let mut client = server.connect();
    infer(&mut client);
    assert!(client.is_closed());
    assert!(server.connect().is_closed(), "one that never asked as well");
    assert_eq!(server.counters.idle_timeouts.get(), 2);
}

#[test]
fn a_reader_that_does_not_read_loses_its_connection() {
    let server = server(HttpLimits { write_time_max: SHORT, ..HttpLimits::default() });
    let mut client = server.connect();
    let text = "a".repeat(60_000);
    let data = vec![text; 50];
    let body = serde_json::json!({"bytes": data}).to_string();
    client.send(&post("/v2/models/echo/infer", "", body.as_bytes()));
    until("the write times out", || server.counters.write_timeouts.get() == 1);
    infer(&mut server.connect());
}

#[test]
fn a_body_is_taken_up_to_its_limit_and_refused_beyond() {
    let limit = TEXT.len();
    let server = server(HttpLimits { body_bytes_max: limit, ..HttpLimits::default() });
    infer(&mut server.connect());
    let longer = [TEXT, b" "].concat();
    let want = format!(
        "413 body: larger than the {limit} bytes that are taken: send less, or numbers as binary \
         data"
    );
    assert_eq!(error(&server.connect().post(INFER, &longer)), want);
    // Without a length beforehand.
    let mut client = server.connect();
    client.send(b"POST /v2/models/intent/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("{:x}\r\n{}\r\n", 16, "a".repeat(16)).as_bytes());
    client.send(format!("{:x}\r\n{}\r\n", 16, "a".repeat(16)).as_bytes());
    assert_eq!(error(&client.read()), want);
    // Told before the body is sent.
    let mut client = server.connect();
    client.send(
        b"POST /v2/models/intent/infer HTTP/1.1\r\nExpect: 100-continue\r\n\
          Content-Length: 5000\r\n\r\n",
    );
    assert_eq!(error(&client.read()), want);
}

#[test]
fn a_body_in_chunks_is_put_together() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(
        b"POST /v2/models/intent/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\
          Expect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.read_head().status, 100);
    for part in TEXT.chunks(5) {
        client.send(format!("{:x}\r\n", part.len()).as_bytes());
        client.send(part);
        client.send(b"\r\n");
        std::thread::sleep(Duration::from_millis(2));
    }
    client.send(b"0\r\n\r\n");
    let reply = client.read();
    assert_eq!(reply.json()["answer"]["text"], "turn it on");
}

#[test]
fn all_bodies_together_are_bounded() {
    let limits = HttpLimits { bodies_bytes_max: 1000, ..HttpLimits::default() };
    let server = server(limits);
    let mut holder = server.connect();
    holder.send(b"POST /v2/models/intent/infer HTTP/1.1\r\nContent-Length: 991\r\n\r\n");
    holder.send(&[b' '; 990]);
    let refused = || server.connect().post(INFER, TEXT).status == 503;
    until("the memory is taken", refused);
    drop(holder);
    until("it is given back", || !refused());
}

#[test]
fn headers_are_taken_up_to_their_limit_and_refused_beyond() {
    let server = server(HttpLimits { header_bytes_max: 1024, ..HttpLimits::default() });
    let request = |bytes: usize| {
        let rest = "GET /v2 HTTP/1.1\r\nX: \r\n\r\n".len();
        format!("GET /v2 HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(bytes - rest))
    };
    let mut client = server.connect();
    client.send(request(1024).as_bytes());
    assert_eq!(client.read().status, 200);
    client.send(request(1025).as_bytes());
    let want = "431 headers: more than 1024 bytes or 64 fields: send fewer and shorter ones";
    assert_eq!(error(&client.read()), want);
    assert!(client.is_closed());
}

#[test]
fn connections_are_bounded_for_a_process_a_user_and_all() {
    let wide = HttpLimits { idle_time_min: PATIENCE, ..HttpLimits::default() };
    for (limits, name) in [
        (HttpLimits { connections_per_process_max: 3, ..wide.clone() }, "your process has 3"),
        (HttpLimits { connections_per_user_max: 3, ..wide.clone() }, "your user has 3"),
        (HttpLimits { connections_max: 3, ..wide.clone() }, "all 3 are in use"),
    ] {
        let server = server(limits);
        let mut held: Vec<Client> = (0..3).map(|_| server.connect()).collect();
        held.iter_mut().for_each(infer);
        let refused = server.connect().read();
        assert!(error(&refused).starts_with(&format!("503 connections: {name}")), "{refused:?}");
        assert_eq!(refused.header("retry-after"), Some("1"));
        held.pop();
        until("a place is free", || server.connect().get("/v2").status == 200);
    }
}

#[test]
fn a_connection_that_asks_nothing_gives_way_to_one_that_does() {
    let limits = HttpLimits {
        connections_per_process_max: 4,
        idle_time_min: SHORT,
        ..HttpLimits::default()
    };
    let server = server(limits);
    let mut known = server.connect();
    infer(&mut known);
    let mut silent = server.connect();
    let mut stalled = server.connect();
    stalled.send(b"GET /v2 HT");
    let mut busy = server.connect();
    busy.send(&post("/v2/models/stuck/infer", "", TEXT));
    std::thread::sleep(2 * SHORT);
    let mut first = server.connect();
    infer(&mut first);
    assert_eq!(stalled.read().status, 503, "the one that stalls goes first");
    let mut second = server.connect();
    infer(&mut second);
    assert!(silent.is_closed());
    infer(&mut known);
    assert!(server.counters.connections_evicted.get() >= 2);
}

#[test]
fn two_hundred_connections_that_stall_leave_a_good_client_served() {
    let server = Server::start();
    let mut good = server.connect();
    infer(&mut good);
    let stalled: Vec<UnixStream> = (0..200)
        .map(|_| {
            let mut stream = UnixStream::connect(server.socket()).expect("it listens");
            // Refused ones may be closed already.
            let _ = stream.write_all(b"POST /v2/models/intent/infer HTTP/1.1\r\nX-Slow: a");
            stream
        })
        .collect();
    let start = Instant::now();
    for _ in 0..100 {
        infer(&mut good);
    }
    assert!(start.elapsed() < PATIENCE);
    until("a new client gets a place", || {
        server.connect().try_read_after(b"GET /v2 HTTP/1.1\r\n\r\n") == Some(200)
    });
    drop(stalled);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut client = server.connect();
    let requests: Vec<u8> = (0..20)
        .flat_map(|at| post(INFER, "", format!(r#"{{"text": "{at}"}}"#).as_bytes()))
        .collect();
    client.send(&requests);
    for at in 0..20 {
        assert_eq!(client.read().json()["answer"]["text"], at.to_string());
    }
}

#[test]
fn a_client_that_leaves_is_counted_and_its_answer_dropped() {
    let server = Server::start();
    for address in ["unix", "tcp"] {
        let request = post("/v2/models/slow/infer", "", TEXT);
        let before = server.counters.clients_gone.get();
        if address == "unix" {
            let mut client = server.connect();
            client.send(&request);
            until("it runs", || server.service.running.load(Ordering::SeqCst) > 0);
        } else {
            let mut stream = TcpStream::connect(server.tcp).expect("it listens");
            stream.write_all(&request).expect("it takes it");
            until("it runs", || server.service.running.load(Ordering::SeqCst) > 0);
        }
        until("it is noticed", || server.counters.clients_gone.get() == before + 1);
        until("it ends", || server.service.running.load(Ordering::SeqCst) == 0);
    }
    infer(&mut server.connect());
}

#[test]
fn a_client_that_only_ends_its_writing_gets_its_answer() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(&post("/v2/models/slow/infer", "", TEXT));
    client.stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    assert_eq!(client.read().status, 200);
    assert!(client.is_closed());
    assert_eq!(server.counters.clients_gone.get(), 0);
}

#[test]
fn tcp_serves_the_same_but_not_the_repository() {
    let server = Server::start();
    let ask = |request: &[u8]| {
        let mut stream = TcpStream::connect(server.tcp).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it closes");
        answer
    };
    let answer = ask(&post(INFER, "Connection: close\r\n", TEXT));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.service.last_seen().client, "tcp:127.0.0.1");
    let answer = ask(&post("/v2/repository/index", "Connection: close\r\n", b""));
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[test]
fn a_stop_answers_what_runs_and_takes_nothing_more() {
    let mut server = Server::start();
    let mut idle = server.connect();
    infer(&mut idle);
    let mut client = server.connect();
    client.send(&post("/v2/models/slow/infer", "", TEXT));
    until("it runs", || server.service.running.load(Ordering::SeqCst) > 0);
    server.begin_stop();
    assert!(idle.is_closed());
    assert_eq!(client.read().status, 200);
    server.stop();
    assert!(UnixStream::connect(server.socket()).is_err());
    assert!(!server.socket().exists() && !server.admin_socket().exists());
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let settings = Settings { stop_time_max: SHORT, ..Settings::default() };
    let mut server = Server::with(FakeService::default(), settings);
    let mut client = server.connect();
    client.send(&post("/v2/models/stuck/infer", "", TEXT));
    until("it is there", || !server.service.seen.lock().unwrap().is_empty());
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < PATIENCE);
    assert!(client.is_closed());
}
