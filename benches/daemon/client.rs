//! A client that waits for each answer, and one that never ends its request.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection, kept from one request to the next.
pub struct Client {
    stream: UnixStream,
    /// What has been read, of which `reply` is the answer's body.
    bytes: Vec<u8>,
}

/// What came back.
pub struct Reply<'a> {
    pub status: u16,
    body: &'a [u8],
}

impl Reply<'_> {
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.body).unwrap()
    }

    /// The number behind a name, wherever it is; 0 if it is nowhere.
    pub fn number(&self, name: &str) -> u64 {
        let name = format!("\"{name}\":");
        let Some((_, rest)) = self.text().split_once(&name) else { return 0 };
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    }
}

/// A request as bytes.
pub fn request(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The status, where the body begins, and where it ends, once all of an answer's head is there.
pub fn head(bytes: &[u8]) -> Option<(u16, usize, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..end]).unwrap();
    let status = text.get(9..12).unwrap().parse().unwrap();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    Some((status, end, end + length.expect("every answer says its length")))
}

impl Client {
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("the daemon listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream, bytes: Vec::new() }
    }

    pub fn infer(&mut self, model: &str, body: &str) -> Reply<'_> {
        self.post(&format!("/v2/models/{model}/infer"), body)
    }

    /// Whether there is a place for this connection.
    pub fn is_served(&mut self) -> bool {
        let request = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut status = [0; 12];
        // One that is refused may be closed already.
        let answer = self.stream.write_all(request);
        answer.and_then(|()| self.stream.read_exact(&mut status)).is_ok()
            && status.ends_with(b"200")
    }

    pub fn post(&mut self, path: &str, body: &str) -> Reply<'_> {
        self.stream.write_all(&request(path, body)).unwrap();
        self.bytes.clear();
        let mut part = [0; 16 << 10];
        loop {
            if let Some((status, start, end)) = head(&self.bytes)
                && self.bytes.len() >= end
            {
                return Reply { status, body: &self.bytes[start..end] };
            }
            let count = self.stream.read(&mut part).expect("an answer");
            assert!(count > 0, "the daemon has closed");
            self.bytes.extend_from_slice(&part[..count]);
        }
    }
}

/// Keeps `count` connections that send a request's head byte by byte, for ever.
pub fn stall(socket: &Path, count: usize) {
    let mut streams: Vec<Option<UnixStream>> = (0..count).map(|_| None).collect();
    loop {
        for slot in &mut streams {
            if slot.as_mut().is_some_and(is_open) {
                continue;
            }
            *slot = UnixStream::connect(socket).ok();
            if let Some(stream) = slot {
                stream.set_nonblocking(true).unwrap();
                // One that is refused may be closed already.
                let _ = stream.write_all(b"POST /v2/models/intent/infer HTTP/1.1\r\nX-Slow: ");
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Sends one more byte.
fn is_open(stream: &mut UnixStream) -> bool {
    let would_block = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
    let is_written = stream.write_all(b"a").as_ref().map_or_else(would_block, |()| true);
    // An answer, or the end, is the end of it.
    is_written && stream.read(&mut [0; 1024]).as_ref().is_err_and(would_block)
}
