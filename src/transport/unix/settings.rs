//! What peers may use of the daemon, with the limits' defaults.

use std::time::Duration;

use crate::codec;

/// How requests over HTTP are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub http: HttpLimits,
    pub codec: codec::Limits,
    /// For how long an answer is of use, where its request does not say.
    pub deadline_default: Duration,
    /// The longest that a request may ask for.
    pub deadline_max: Duration,
    /// The longest that loading, unloading or rolling back is waited for.
    pub admin_time_max: Duration,
    /// How long running requests have when the daemon stops.
    pub stop_time_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            http: HttpLimits::default(),
            codec: codec::Limits::default(),
            deadline_default: Duration::from_secs(30),
            deadline_max: Duration::from_secs(600),
            admin_time_max: Duration::from_secs(600),
            stop_time_max: Duration::from_secs(10),
        }
    }
}

/// What connections may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections of all peers together, on all sockets.
    pub connections_max: usize,
    /// Connections of one user; over TCP, of one address.
    pub connections_per_user_max: usize,
    /// Connections of one process.
    pub connections_per_process_max: usize,
    /// Request line and headers, in bytes.
    pub header_bytes_max: usize,
    pub headers_max: usize,
    /// From a request's first byte to the end of its headers.
    pub header_time_max: Duration,
    /// The body of one request, in bytes.
    pub body_bytes_max: usize,
    /// The bodies of all requests that are being read or computed, in bytes.
    pub bodies_bytes_max: usize,
    /// From the end of the headers to the end of the body.
    pub body_time_max: Duration,
    /// From an answer's first byte to its last.
    pub write_time_max: Duration,
    /// Between two requests.
    pub idle_time_max: Duration,
    /// A connection that has waited this long for its request gives way to a new one, where there
    /// are too many; one that was answered before, after ten times as long.
    pub idle_time_min: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 256,
            connections_per_user_max: 192,
            connections_per_process_max: 128,
            header_bytes_max: 16 << 10,
            headers_max: 64,
            header_time_max: Duration::from_secs(10),
            body_bytes_max: 8 << 20,
            bodies_bytes_max: 64 << 20,
            body_time_max: Duration::from_secs(30),
            write_time_max: Duration::from_secs(30),
            idle_time_max: Duration::from_secs(120),
            idle_time_min: Duration::from_secs(1),
        }
    }
}
