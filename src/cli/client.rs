//! A client of the daemon: HTTP over its Unix socket, one request at a time.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use super::Failure;
use crate::config::environment::Environment;

const JSON: &str = "application/json";

/// A connection, kept from one request to the next.
pub struct Client {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

/// What came back.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub body: Bytes,
}

impl Client {
    /// Connects to the daemon at `socket`, which answers everybody in its group.
    pub fn connect(socket: &Path) -> Result<Self, Failure> {
        Self::connect_or(socket, "ask as root, or `adduser USER moed-clients` and log in again")
    }

    /// Connects to the socket for the owner's commands.
    pub fn connect_as_owner(socket: &Path) -> Result<Self, Failure> {
        Self::connect_or(socket, "ask as root, or as the user that runs the daemon")
    }

    /// `advice` is for who may not connect.
    fn connect_or(socket: &Path, advice: &str) -> Result<Self, Failure> {
        let failed = |cause: String| {
            format!("{}: can't connect: {cause}; is `moed serve` running there?", socket.display())
        };
        let refused = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                format!("{}: can't connect: {error}; {advice}", socket.display())
            }
            _ => failed(error.to_string()),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(error.to_string()))?;
        let sender: Result<_, Failure> = runtime.block_on(async {
            let stream = UnixStream::connect(socket).await.map_err(refused)?;
            let connected = handshake(TokioIo::new(stream)).await;
            let (sender, connection) = connected.map_err(|error| failed(error.to_string()))?;
            // Its end is seen by the request that it cuts off.
            tokio::spawn(connection);
            Ok(sender)
        });
        Ok(Self { runtime, sender: sender? })
    }

    pub fn get(&mut self, target: &str) -> Result<Response, Failure> {
        self.send(Method::GET, target, JSON, Vec::new())
    }

    /// Sends JSON.
    pub fn post(&mut self, target: &str, body: Vec<u8>) -> Result<Response, Failure> {
        self.send(Method::POST, target, JSON, body)
    }

    /// Sends bytes.
    pub fn post_octets(&mut self, target: &str, body: Vec<u8>) -> Result<Response, Failure> {
        self.send(Method::POST, target, "application/octet-stream", body)
    }

    fn send(
        &mut self,
        method: Method,
        target: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Response, Failure> {
        let failed = |cause: String| format!("daemon: {target}: {cause}; is it still running?");
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "moed")
            .header("content-type", content_type)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| failed(error.to_string()))?;
        let sender = &mut self.sender;
        self.runtime.block_on(async {
            sender.ready().await.map_err(|error| failed(error.to_string()))?;
            let response =
                sender.send_request(request).await.map_err(|error| failed(error.to_string()))?;
            let status = response.status().as_u16();
            let body =
                response.into_body().collect().await.map_err(|error| failed(error.to_string()))?;
            Ok(Response { status, body: body.to_bytes() })
        })
    }
}

impl Response {
    /// The body as JSON; an answer that says what is wrong is a failure.
    pub fn json(&self) -> Result<Value, Failure> {
        let value: Value = serde_json::from_slice(&self.body).map_err(|error| {
            format!("daemon: its answer is no JSON: {error}; does the socket belong to moed?")
        })?;
        if self.status < 400 {
            return Ok(value);
        }
        match value.get("error").and_then(Value::as_str) {
            Some(error) => Err(error.to_owned()),
            None => Err(format!("daemon: status {}", self.status)),
        }
    }
}

/// The socket that was named, or the first place where a daemon listens.
pub fn socket_path(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let is_there = |place: &Path| place.exists();
    named.or_else(|| Environment::read().connect_path(is_there)).ok_or_else(|| {
        "socket: no daemon found: start one with `moed serve`, or name its socket with --socket"
            .to_owned()
    })
}

/// The socket for the owner's commands that was named, or the first place where there is one.
pub fn admin_socket_path(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let is_there = |place: &Path| place.exists();
    named.or_else(|| Environment::read().admin_path(is_there)).ok_or_else(|| {
        "admin socket: none found: start `moed serve` with --admin-socket PATH, or set \
         `admin_path` under [socket], and name it with --socket; root may see one that you can't"
            .to_owned()
    })
}

/// A model's name as a part of a path.
pub fn path_part(name: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(escape).collect()
}
