//! What the MQTT transport may be told, its defaults, and what of it can't be.
//!
//! Knows no file format: whoever reads a configuration fills in the fields.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::topics;
use crate::codec;

/// How the daemon is reached over a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub broker: Broker,
    /// Where a broker inside the daemon listens, if there is one; `broker` is then that one. What
    /// its clients have to say are `username` and the password.
    pub embedded: Option<SocketAddr>,
    pub protocol: Protocol,
    /// This daemon's name among those of its broker: one topic level, and its client id is
    /// `moed-<node>`. Two daemons with one name throw each other out.
    pub node: String,
    /// The first levels of all topics.
    pub base: String,
    pub username: Option<String>,
    /// The password's file: its first line. A password is never a setting itself.
    pub password_file: Option<PathBuf>,
    pub tls: Tls,
    /// A broker that says nothing for one and a half times as long is left. 5 s at least.
    pub keep_alive: Duration,
    /// From the first packet to the broker's consent.
    pub connect_time_max: Duration,
    /// For how long the broker keeps requests while the daemon is away. MQTT 5 only.
    pub session_expiry: Duration,
    /// A whole packet, in bytes. Brokers that speak MQTT 5 are told, and send nothing larger.
    pub packet_bytes_max: u32,
    /// Requests that wait for their answers. It is also MQTT 5's Receive Maximum: the broker
    /// keeps what is more at QoS 1; at QoS 0 it is answered with `overloaded`.
    pub requests_max: u16,
    /// Bodies of requests that nobody has begun with, in bytes.
    pub inbox_bytes_max: usize,
    /// Replies that wait for the broker.
    pub replies_max: usize,
    /// The same, in bytes of memory.
    pub replies_bytes_max: usize,
    /// Requests that are remembered, so that one that comes twice is not computed twice.
    pub remembered_max: usize,
    /// Their replies, in bytes.
    pub remembered_bytes_max: usize,
    /// For how long an answer is of use, where its request does not say.
    pub deadline_default: Duration,
    /// The longest that a request may ask for.
    pub deadline_max: Duration,
    /// A request is acknowledged when its reply is; at the latest after this. If the daemon is
    /// killed before, the broker sends it again.
    pub acknowledge_time_max: Duration,
    /// Topics that replies may go to begin with one of these; if empty, with anything.
    pub reply_prefixes: Vec<String>,
    /// The group that shares the load of `<base>/pool/`.
    pub pool: Option<String>,
    /// Whether models may be loaded and rolled back over the broker.
    pub is_admin_allowed: bool,
    /// Home Assistant's discovery prefix, if it should be told.
    pub discovery_prefix: Option<String>,
    pub health_interval: Duration,
    /// How often models are looked at.
    pub models_interval: Duration,
    /// How long running requests, and then the last message, have when the daemon stops.
    pub stop_time_max: Duration,
    pub codec: codec::Limits,
}

/// Where the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broker {
    Network {
        host: String,
        port: u16,
        is_tls: bool,
    },
    /// The path of a socket of this host: the daemon needs no network then.
    Unix(String),
}

/// Which version of MQTT is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// MQTT 5, or 3.1.1 with a broker that can't.
    #[default]
    Automatic,
    V5,
    V311,
}

/// Files in PEM, for `mqtts://`. They are read again for each connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Whom to trust; without it, whom the system trusts.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, with those that it rests on.
    pub certificate_file: Option<PathBuf>,
    /// The certificate's key.
    pub key_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            broker: Broker::Network { host: "localhost".to_owned(), port: 1883, is_tls: false },
            embedded: None,
            protocol: Protocol::default(),
            node: "hub".to_owned(),
            base: "moed".to_owned(),
            username: None,
            password_file: None,
            tls: Tls::default(),
            keep_alive: Duration::from_secs(30),
            connect_time_max: Duration::from_secs(15),
            session_expiry: Duration::from_secs(300),
            packet_bytes_max: 1 << 20,
            requests_max: 128,
            inbox_bytes_max: 4 << 20,
            replies_max: 4096,
            replies_bytes_max: 8 << 20,
            remembered_max: 512,
            remembered_bytes_max: 1 << 20,
            deadline_default: Duration::from_secs(30),
            deadline_max: Duration::from_secs(600),
            acknowledge_time_max: Duration::from_secs(5),
            reply_prefixes: Vec::new(),
            pool: None,
            is_admin_allowed: false,
            discovery_prefix: None,
            health_interval: Duration::from_secs(60),
            models_interval: Duration::from_secs(1),
            stop_time_max: Duration::from_secs(10),
            codec: codec::Limits::default(),
        }
    }
}

/// A setting that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("{setting}: {given}: {cause}")]
    Value { setting: &'static str, given: String, cause: &'static str },
    #[error("{setting}: needs {other} too: give both or neither")]
    Alone { setting: &'static str, other: &'static str },
}

impl Settings {
    /// # Errors
    /// The first setting that can't be, and what to do.
    pub fn check(&self) -> Result<(), SettingsError> {
        let wrong = |setting, given: &dyn ToString, cause| {
            Err(SettingsError::Value { setting, given: given.to_string(), cause })
        };
        if !topics::is_level(&self.node) || topics::RESERVED.contains(&self.node.as_str()) {
            return wrong(
                "node",
                &self.node,
                "give 1 to 64 letters, digits, `-`, `_`, and not `pool`",
            );
        }
        if !self.base.split('/').all(topics::is_level) {
            return wrong("base", &self.base, "give levels of letters, digits, `-` and `_`");
        }
        if let Some(group) = self.pool.as_ref().filter(|group| !topics::is_level(group)) {
            return wrong("pool", group, "give 1 to 64 letters, digits, `-` and `_`");
        }
        if let Some(prefix) = &self.discovery_prefix
            && !prefix.split('/').all(topics::is_level)
        {
            return wrong("discovery_prefix", prefix, "give levels such as `homeassistant`");
        }
        if let Some(prefix) = self.reply_prefixes.iter().find(|prefix| !topics::is_topic(prefix)) {
            return wrong("reply_prefixes", prefix, "give topics without `+`, `#` and `$`");
        }
        if !(5..=3600).contains(&self.keep_alive.as_secs()) {
            let given = format!("{} s", self.keep_alive.as_secs_f64());
            return wrong("keep_alive", &given, "give 5 s to an hour");
        }
        if !(1..=300).contains(&self.connect_time_max.as_secs()) {
            let given = format!("{} s", self.connect_time_max.as_secs_f64());
            return wrong("connect_time_max", &given, "give 1 s to 300 s");
        }
        if !(4096..=16 << 20).contains(&self.packet_bytes_max) {
            return wrong("packet_bytes_max", &self.packet_bytes_max, "give 4096 to 16 MiB");
        }
        if self.requests_max == 0 || usize::from(self.requests_max) > self.replies_max {
            return wrong("requests_max", &self.requests_max, "give 1 to `replies_max`");
        }
        if let Some(address) = self.embedded
            && !address.ip().is_loopback()
            && self.password_file.is_none()
        {
            let cause = "open to the network: give `username` and `password_file`, or 127.0.0.1";
            return wrong("listen", &address, cause);
        }
        if self.username.is_none() && self.password_file.is_some() {
            return Err(SettingsError::Alone { setting: "password_file", other: "username" });
        }
        match (&self.tls.certificate_file, &self.tls.key_file) {
            (Some(_), None) => {
                Err(SettingsError::Alone { setting: "certificate_file", other: "key_file" })
            }
            (None, Some(_)) => {
                Err(SettingsError::Alone { setting: "key_file", other: "certificate_file" })
            }
            // Whoever names a certificate means to be safe.
            _ if !self.broker.is_tls() && self.tls != Tls::default() => {
                let cause = "no TLS: give mqtts://host, or no `ca_file` and `certificate_file`";
                wrong("broker", &self.broker, cause)
            }
            _ => Ok(()),
        }
    }
}

/// Of a Unix socket's path: the kernel's own limit, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

impl Broker {
    /// The one inside the daemon, which listens on `address`.
    pub fn embedded(address: SocketAddr) -> Self {
        let ip = address.ip();
        let ip = if ip.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { ip };
        let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        Self::Network { host, port: address.port(), is_tls: false }
    }

    /// Whether what is said to it is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Network { is_tls: true, .. })
    }
}

impl fmt::Display for Broker {
    /// For who reads a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => f.write_str(path),
        }
    }
}

impl std::str::FromStr for Broker {
    type Err = SettingsError;

    /// Reads `mqtt://host`, `mqtts://host` and `host`, each with a port or without, and
    /// `unix:///path`.
    fn from_str(text: &str) -> Result<Self, SettingsError> {
        let wrong = |cause| {
            // Not the text itself: it may hold a password.
            let given = if text.contains('@') { "..." } else { text };
            Err(SettingsError::Value { setting: "broker", given: given.to_owned(), cause })
        };
        let (is_tls, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            Some(("unix", path)) => {
                let is_path = path.starts_with('/') && !path.contains(char::is_control);
                return if is_path && path.len() <= SOCKET_PATH_BYTES_MAX {
                    Ok(Self::Unix(path.to_owned()))
                } else {
                    wrong("give a path of at most 107 bytes, as in unix:///run/mosquitto.sock")
                };
            }
            Some(_) => {
                return wrong("give mqtt://host:1883, mqtts://host:8883 or unix:///path");
            }
        };
        if rest.contains('@') {
            return wrong("names no user and no password: give `username` and `password_file`");
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // The colons of an IPv6 address are inside brackets.
        let is_port = |port: &&str| !port.contains(']');
        let (host, port) = match rest.rsplit_once(':').filter(|(_, port)| is_port(port)) {
            None => (rest, if is_tls { 8883 } else { 1883 }),
            Some((host, port)) => match port.parse() {
                Ok(port) => (host, port),
                Err(_) => return wrong("its port is no number from 1 to 65535"),
            },
        };
        let is_known = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
        if host.is_empty() || host.len() > 253 || !host.chars().all(is_known) || port == 0 {
            return wrong("give a host's name or address, as in mqtt://host:1883");
        }
        Ok(Self::Network { host: host.to_owned(), port, is_tls })
    }
}
