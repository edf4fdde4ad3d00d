//! More requests than can be answered: at a rate, whatever becomes of those before.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::client::{Client, head, request};

/// Of these, 64 wait in the queue's places; the others are what refusals are seen on. The daemon
/// lets one process have 128.
const CONNECTIONS: usize = 110;

/// Clients whose answers are the capacity.
const CLIENTS: usize = 8;

/// How much more than the capacity is asked.
const TIMES: f64 = 10.0;

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub capacity: f64,
    pub offered: f64,
    pub goodput: f64,
    /// How long each refusal took.
    pub refused: Vec<Duration>,
    pub unanswered: usize,
}

/// One request's end: when it was sent, when answered, and how.
struct Answered {
    stream: UnixStream,
    sent: Instant,
    took: Duration,
    status: u16,
}

pub fn run(socket: &Path, model: &str, body: &str, time: Duration) -> Seen {
    let capacity = capacity(socket, model, body, time / 2);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = request(&format!("/v2/models/{model}/infer"), body);
    let seen = runtime.block_on(offer(socket, request.into(), capacity * TIMES, time));
    Seen { capacity, ..seen }
}

/// Answers in a second to clients that wait for theirs.
pub fn capacity(socket: &Path, model: &str, body: &str, time: Duration) -> f64 {
    let start = Instant::now();
    let ask = || {
        let mut client = Client::connect(socket);
        let mut answers = 0;
        while start.elapsed() < time {
            answers += usize::from(client.infer(model, body).status == 200);
        }
        answers
    };
    let answers: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    answers as f64 / start.elapsed().as_secs_f64()
}

async fn offer(socket: &Path, request: std::sync::Arc<[u8]>, rate: f64, time: Duration) -> Seen {
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(UnixStream::connect(socket).await.expect("the daemon listens"));
    }
    let (send, mut answered) = mpsc::channel::<Answered>(CONNECTIONS);
    let mut seen = Seen::default();
    let mut good = 0usize;
    // Until the queue is full, everything is answered: that is not counted.
    let (start, warm_up) = (Instant::now(), time / 4);
    let (mut sent, mut counted, mut running) = (0usize, 0usize, 0usize);
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    while start.elapsed() < time {
        tokio::select! {
            _ = tick.tick() => {}
            Some(one) = answered.recv() => {
                running -= 1;
                let is_counted = one.sent + one.took >= start + warm_up;
                match one.status {
                    200 => good += usize::from(is_counted),
                    429 if is_counted => seen.refused.push(one.took),
                    429 => {}
                    status => panic!("status {status}"),
                }
                idle.push(one.stream);
            }
        }
        let due = (start.elapsed().as_secs_f64() * rate) as usize;
        // Who is late by more than a moment does not send it all at once.
        sent = sent.max(due.saturating_sub(CONNECTIONS));
        while sent < due {
            let Some(stream) = idle.pop() else { break };
            tokio::spawn(ask(stream, std::sync::Arc::clone(&request), send.clone()));
            (sent, running) = (sent + 1, running + 1);
            counted += usize::from(start.elapsed() >= warm_up);
        }
    }
    let counted_time = start.elapsed() - warm_up;
    seen.offered = counted as f64 / counted_time.as_secs_f64();
    seen.goodput = good as f64 / counted_time.as_secs_f64();
    let rest = async {
        while running > 0 && answered.recv().await.is_some() {
            running -= 1;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(20), rest).await;
    seen.unanswered = running;
    seen
}

async fn ask(mut stream: UnixStream, request: std::sync::Arc<[u8]>, done: mpsc::Sender<Answered>) {
    let sent = Instant::now();
    stream.write_all(&request).await.expect("the daemon reads");
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    let status = loop {
        match head(&bytes) {
            Some((status, _, end)) if bytes.len() >= end => break status,
            _ => {}
        }
        let count = stream.read(&mut part).await.expect("an answer");
        assert!(count > 0, "the daemon has closed");
        bytes.extend_from_slice(&part[..count]);
    };
    let answered = Answered { stream, sent, took: sent.elapsed(), status };
    // At the end, nobody waits for it.
    let _ = done.send(answered).await;
}
