//! `moed.toml`: what may be configured, with every default and every bound.
//!
//! Everything has a default, so no file is needed. An unknown key is refused, with the nearest one
//! that is known; every number has its unit last in its name. Knows no sockets and no models; what
//! a value does is said by who uses it.

pub mod environment;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fields::{FieldError, Fields};
use crate::scheduler::SchedulerOptions;
use crate::scheduler::quarantine::QuarantineOptions;

/// Read if it is there and no other is named.
pub const DEFAULT_FILE: &str = "/etc/moed/moed.toml";

/// Where models are looked for; the first of two with the same name is taken.
pub const MODEL_DIRECTORIES: [&str; 3] =
    ["./models", "/var/lib/moed/models", "/usr/share/moed/models"];

const FILE_BYTES_MAX: u64 = 1 << 20;
const PATH_BYTES: RangeInclusive<usize> = 1..=4096;
/// Where the daemon may be reached; on Linux, a socket's path has 107 bytes at most.
const SOCKET_BYTES: RangeInclusive<usize> = 1..=107;
const HOUR_MS: u64 = 3_600_000;

/// Everything that may be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub models: Models,
    pub scheduler: SchedulerOptions,
    pub requests: Requests,
    pub socket: Socket,
    pub log: Log,
}

/// `[models]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Models {
    pub directories: Vec<PathBuf>,
    pub models_max: usize,
    pub poll_interval: Duration,
    /// Threads that compute one run; 0: as many as there are processors.
    pub threads: usize,
    pub memory_check: bool,
    /// Where `.moed` files are unpacked.
    pub unpack_dir: PathBuf,
    /// The file of the home whose devices answers name.
    pub home: Option<PathBuf>,
}

/// `[requests]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    /// The time that a request has that names none.
    pub timeout: Duration,
    /// How long a stop waits for those that were admitted.
    pub drain_max: Duration,
    pub payload_bytes_max: usize,
}

/// `[socket]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// `None`: where this user's daemon belongs, see [`environment`].
    pub path: Option<PathBuf>,
    /// `None`: no socket for the owner's commands.
    pub admin_path: Option<PathBuf>,
    /// The file's permissions.
    pub mode: u32,
    /// A port of the loopback interface, for clients that can't do Unix sockets; `None`: no.
    pub tcp_port: Option<u16>,
    pub connections_max: usize,
    pub connections_per_peer_max: usize,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub level: log::LevelFilter,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{file}: can't be read: {cause}")]
    File { file: String, cause: std::io::Error },
    #[error("{file}: larger than {FILE_BYTES_MAX} bytes: is it the right file?")]
    Size { file: String },
    #[error("{file}: {cause}")]
    Field { file: String, cause: FieldError },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            models: Models {
                directories: MODEL_DIRECTORIES.map(PathBuf::from).to_vec(),
                models_max: 64,
                poll_interval: Duration::from_secs(2),
                threads: 0,
                memory_check: true,
                unpack_dir: PathBuf::from("/var/lib/moed/unpacked"),
                home: None,
            },
            scheduler: SchedulerOptions::default(),
            requests: Requests {
                timeout: Duration::from_secs(10),
                drain_max: Duration::from_secs(10),
                payload_bytes_max: 16 << 20,
            },
            socket: Socket {
                path: None,
                admin_path: None,
                mode: 0o660,
                tcp_port: None,
                connections_max: 256,
                connections_per_peer_max: 64,
            },
            log: Log { level: log::LevelFilter::Info },
        }
    }
}

impl Config {
    /// Reads `file`; without one, [`DEFAULT_FILE`] if it is there, else the defaults.
    pub fn read(file: Option<&Path>) -> Result<Self, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let path = match file {
            Some(path) => path,
            None if default.exists() => default,
            None => return Ok(Self::default()),
        };
        let name = || path.display().to_string();
        let text = read_text(path)?;
        Self::parse(&text).map_err(|cause| ConfigError::Field { file: name(), cause })
    }

    /// Reads the text of a configuration.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::parse(text)?;
        let mut config = Self::default();
        if let Some(table) = fields.table("models")? {
            config.models = models(table, config.models)?;
        }
        if let Some(table) = fields.table("scheduler")? {
            config.scheduler = scheduler(table, &config.scheduler)?;
        }
        if let Some(table) = fields.table("requests")? {
            config.requests = requests(table, &config.requests)?;
        }
        if let Some(table) = fields.table("socket")? {
            config.socket = socket(table, &config.socket)?;
        }
        if let Some(table) = fields.table("log")? {
            config.log = log(table, &config.log)?;
        }
        fields.finish()?;
        Ok(config)
    }
}

/// The text of a file of a size that a configuration may have.
pub fn read_text(path: &Path) -> Result<String, ConfigError> {
    let file = || path.display().to_string();
    let file_error = |cause| ConfigError::File { file: file(), cause };
    if std::fs::metadata(path).map_err(file_error)?.len() > FILE_BYTES_MAX {
        return Err(ConfigError::Size { file: file() });
    }
    std::fs::read_to_string(path).map_err(file_error)
}

fn models(mut fields: Fields, default: Models) -> Result<Models, FieldError> {
    let directories = fields.texts("directories", 0..=16, PATH_BYTES)?;
    let read = Models {
        directories: if directories.is_empty() {
            default.directories
        } else {
            directories.into_iter().map(PathBuf::from).collect()
        },
        models_max: count(&mut fields, "models_max", 1..=1024, default.models_max)?,
        poll_interval: ms(&mut fields, "poll_interval_ms", 50..=HOUR_MS, default.poll_interval)?,
        threads: count(&mut fields, "threads", 0..=64, default.threads)?,
        memory_check: fields.boolean_or("memory_check", default.memory_check)?,
        unpack_dir: path(&mut fields, "unpack_dir", PATH_BYTES)?.unwrap_or(default.unpack_dir),
        home: path(&mut fields, "home", PATH_BYTES)?,
    };
    fields.finish()?;
    Ok(read)
}

fn scheduler(
    mut fields: Fields,
    default: &SchedulerOptions,
) -> Result<SchedulerOptions, FieldError> {
    let quarantine = &default.quarantine;
    let requests = default.queue_requests_max;
    let read = SchedulerOptions {
        queue_requests_max: count(&mut fields, "queue_requests_max", 1..=65_536, requests)?,
        workers: count(&mut fields, "workers_per_model", 1..=64, default.workers)?,
        batch_rows_max: count(&mut fields, "batch_rows_max", 1..=1024, default.batch_rows_max)?,
        stuck_after: ms(&mut fields, "stuck_after_ms", 1000..=HOUR_MS, default.stuck_after)?,
        quarantine: QuarantineOptions {
            panics_max: count(&mut fields, "panics_max", 1..=100, quarantine.panics_max)?,
            window: ms(&mut fields, "panics_window_ms", 1000..=HOUR_MS, quarantine.window)?,
            pause_min: ms(&mut fields, "pause_min_ms", 100..=HOUR_MS, quarantine.pause_min)?,
            pause_max: ms(&mut fields, "pause_max_ms", 100..=HOUR_MS, quarantine.pause_max)?,
        },
    };
    fields.finish()?;
    Ok(read)
}

fn requests(mut fields: Fields, default: &Requests) -> Result<Requests, FieldError> {
    let bytes = default.payload_bytes_max;
    let read = Requests {
        timeout: ms(&mut fields, "request_timeout_ms", 1..=HOUR_MS, default.timeout)?,
        drain_max: ms(&mut fields, "drain_max_ms", 0..=HOUR_MS, default.drain_max)?,
        payload_bytes_max: count(&mut fields, "payload_bytes_max", 1024..=1 << 30, bytes)?,
    };
    fields.finish()?;
    Ok(read)
}

fn socket(mut fields: Fields, default: &Socket) -> Result<Socket, FieldError> {
    let (all, each) = (default.connections_max, default.connections_per_peer_max);
    let read = Socket {
        path: path(&mut fields, "path", SOCKET_BYTES)?,
        admin_path: path(&mut fields, "admin_path", SOCKET_BYTES)?,
        mode: mode(&mut fields)?.unwrap_or(default.mode),
        tcp_port: match fields.integer_or("tcp_port", 0..=65_535, 0)? {
            0 => None,
            port => u16::try_from(port).ok(),
        },
        connections_max: count(&mut fields, "connections_max", 1..=65_536, all)?,
        connections_per_peer_max: count(&mut fields, "connections_per_peer_max", 1..=65_536, each)?,
    };
    fields.finish()?;
    Ok(read)
}

/// Permissions as `chmod` has them: `mode = "0660"`.
fn mode(fields: &mut Fields) -> Result<Option<u32>, FieldError> {
    let Some(text) = fields.text_or_none("mode", 3..=4)? else { return Ok(None) };
    match u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777) {
        Some(mode) => Ok(Some(mode)),
        None => Err(fields.error("mode", "not octal permissions; write it as \"0660\"")),
    }
}

fn log(mut fields: Fields, default: &Log) -> Result<Log, FieldError> {
    let level = match fields.text_or_none("level", 1..=16)? {
        None => default.level,
        Some(text) => text.parse().map_err(|_| {
            fields.error("level", "not a level; use off, error, warn, info, debug or trace")
        })?,
    };
    fields.finish()?;
    Ok(Log { level })
}

fn count(
    fields: &mut Fields,
    key: &'static str,
    range: RangeInclusive<u64>,
    default: usize,
) -> Result<usize, FieldError> {
    let default = u64::try_from(default).unwrap_or(u64::MAX);
    let number = fields.integer_or(key, range, default)?;
    usize::try_from(number).map_err(|_| fields.error(key, "does not fit in memory"))
}

fn ms(
    fields: &mut Fields,
    key: &'static str,
    range: RangeInclusive<u64>,
    default: Duration,
) -> Result<Duration, FieldError> {
    let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
    Ok(Duration::from_millis(fields.integer_or(key, range, default)?))
}

fn path(
    fields: &mut Fields,
    key: &'static str,
    bytes: RangeInclusive<usize>,
) -> Result<Option<PathBuf>, FieldError> {
    Ok(fields.text_or_none(key, bytes)?.map(PathBuf::from))
}
