//! A server on sockets in a temporary directory, and a client that sends bytes and reads answers.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use moed::transport::unix::{Access, Counters, Listener, Settings, serve};
use tokio::sync::watch;

use super::service::FakeService;

/// Nothing in these tests takes as long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server; it stops when this is dropped.
pub struct Server {
    pub service: Arc<FakeService>,
    pub counters: Arc<Counters>,
    pub directory: tempfile::TempDir,
    pub tcp: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start() -> Self {
        Self::with(FakeService::default(), Settings::default())
    }

    pub fn with(service: FakeService, settings: Settings) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        let tcp = Listener::bind_tcp("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let address = tcp.tcp_address().unwrap();
        let listeners = vec![
            Listener::bind_unix(&path("moed.sock"), Access::Everybody).unwrap(),
            Listener::bind_unix(&path("moed-admin.sock"), Access::Owner).unwrap(),
            tcp,
        ];
        let (stop, stopped) = watch::channel(false);
        let (service, counters) = (Arc::new(service), Arc::new(Counters::default()));
        let serving = serve(
            listeners,
            Arc::clone(&service) as _,
            Arc::new(settings),
            Arc::clone(&counters),
            stopped,
        );
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(serving).expect("it serves");
        });
        Self { service, counters, directory, tcp: address, stop, thread: Some(thread) }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("moed.sock")
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.directory.path().join("moed-admin.sock")
    }

    pub fn connect(&self) -> Client {
        Client::new(UnixStream::connect(self.socket()).expect("the server listens"))
    }

    pub fn connect_admin(&self) -> Client {
        Client::new(UnixStream::connect(self.admin_socket()).expect("the server listens"))
    }

    /// Tells it to stop, and does not wait.
    pub fn begin_stop(&self) {
        self.stop.send(true).expect("it listens for that");
    }

    /// Waits until it has stopped.
    pub fn stop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server did not panic");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(result.is_ok() || std::thread::panicking(), "the server did not panic");
        }
    }
}

/// A connection.
pub struct Client {
    pub stream: UnixStream,
    reader: BufReader<UnixStream>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let reader = BufReader::new(stream.try_clone().expect("a stream can be cloned"));
        Self { stream, reader }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes it");
    }

    pub fn get(&mut self, path: &str) -> Reply {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        self.read()
    }

    pub fn post(&mut self, path: &str, body: &[u8]) -> Reply {
        self.post_with(path, "", body)
    }

    /// `headers` are whole lines.
    pub fn post_with(&mut self, path: &str, headers: &str, body: &[u8]) -> Reply {
        self.send(&post(path, headers, body));
        self.read()
    }

    /// The next answer.
    pub fn read(&mut self) -> Reply {
        self.try_read(true).expect("an answer")
    }

    /// The next answer, to HEAD.
    pub fn read_head(&mut self) -> Reply {
        self.try_read(false).expect("an answer")
    }

    /// The next answer; `None` at the end of the connection.
    pub fn try_read(&mut self, has_body: bool) -> Option<Reply> {
        let mut line = || {
            let mut line = String::new();
            self.reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
            Some(line.trim_end().to_owned())
        };
        let status = line()?.split(' ').nth(1)?.parse().expect("a status");
        let mut headers = Vec::new();
        while let Some(line) = line().filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').expect("a header");
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Reply { status, headers, body: Vec::new() };
        if status >= 200 && has_body {
            let bytes = reply.header("content-length").expect("a length").parse().unwrap();
            reply.body = vec![0; bytes];
            self.reader.read_exact(&mut reply.body).expect("the whole body");
        }
        Some(reply)
    }

    /// Sends, and says the status of what comes back, if anything does.
    pub fn try_read_after(&mut self, bytes: &[u8]) -> Option<u16> {
        let _ = self.stream.write_all(bytes);
        self.try_read(true).map(|reply| reply.status)
    }

    /// Whether the server has closed the connection, which it should do soon.
    pub fn is_closed(&mut self) -> bool {
        match self.reader.read(&mut [0]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// The bytes of a POST.
pub fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Waits for something that has to come soon.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}: still not so");
        std::thread::sleep(Duration::from_millis(2));
    }
}
