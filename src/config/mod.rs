//! `moed.toml`: what may be configured, with every default and every bound.
//!
//! Everything has a default, so no file is needed. An unknown key is refused, with the nearest one
//! that is known; every number has its unit last in its name. Knows no sockets and no models; what
//! a value does is said by who uses it.

pub mod environment;
pub mod home;
pub mod install;
pub mod mqtt;

use std::io::Read as _;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fields::{FieldError, Fields};
use crate::repository::install::settings::Settings as InstallSettings;
use crate::scheduler::SchedulerOptions;
use crate::scheduler::quarantine::QuarantineOptions;
use crate::transport::unix::Settings;

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
    /// `[install]`
    pub install: InstallSettings,
    pub scheduler: SchedulerOptions,
    /// How requests are served: `[requests]`, and the connections of `[socket]`.
    pub http: Settings,
    pub socket: Socket,
    /// `[mqtt]`; `None`: no broker.
    pub mqtt: Option<mqtt::Settings>,
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
    /// Where `.moed` files are unpacked; `None`: where this user's daemon keeps its state.
    pub unpack_dir: Option<PathBuf>,
    /// The file of the home whose devices answers name.
    pub home: Option<PathBuf>,
}

/// `[socket]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// `None`: where this user's daemon belongs, see [`environment`].
    pub path: Option<PathBuf>,
    /// `None`: no socket for the owner's commands.
    pub admin_path: Option<PathBuf>,
    /// For clients that can't do Unix sockets; `None`: no.
    pub tcp_address: Option<SocketAddr>,
    /// Whether that may be another address than a loopback one. There is no password.
    pub tcp_may_leave_host: bool,
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
    #[error("{file}: larger than {bytes_max} bytes: is it the right file?")]
    Size { file: String, bytes_max: u64 },
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
                unpack_dir: None,
                home: None,
            },
            install: InstallSettings::default(),
            scheduler: SchedulerOptions::default(),
            http: Settings::default(),
            socket: Socket {
                path: None,
                admin_path: None,
                tcp_address: None,
                tcp_may_leave_host: false,
            },
            mqtt: None,
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
        let text = read_text(path, FILE_BYTES_MAX)?;
        Self::parse(&text).map_err(|cause| ConfigError::Field { file: name(), cause })
    }

    /// Reads the text of a configuration.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::parse(text)?;
        let mut config = Self::default();
        if let Some(table) = fields.table("models")? {
            config.models = models(table, config.models)?;
        }
        if let Some(table) = fields.table("install")? {
            config.install = install::read(table, &config.install)?;
        }
        if let Some(table) = fields.table("scheduler")? {
            config.scheduler = scheduler(table, &config.scheduler)?;
        }
        if let Some(table) = fields.table("requests")? {
            requests(table, &mut config.http)?;
        }
        if let Some(table) = fields.table("socket")? {
            config.socket = socket(table, &mut config.http)?;
        }
        if let Some(table) = fields.table("mqtt")? {
            config.mqtt = Some(mqtt::read(table, &config.http)?);
        }
        if let Some(table) = fields.table("log")? {
            config.log = log(table, &config.log)?;
        }
        fields.finish()?;
        Ok(config)
    }
}

/// The text of a file of at most `bytes_max` bytes.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<String, ConfigError> {
    let file = || path.display().to_string();
    let file_error = |cause| ConfigError::File { file: file(), cause };
    let mut text = String::new();
    let opened = std::fs::File::open(path).map_err(file_error)?;
    // One more than allowed, to see whether there is more; a device may have no size of its own.
    opened.take(bytes_max.saturating_add(1)).read_to_string(&mut text).map_err(file_error)?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes <= bytes_max) {
        return Ok(text);
    }
    Err(ConfigError::Size { file: file(), bytes_max })
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
        unpack_dir: path(&mut fields, "unpack_dir", PATH_BYTES)?,
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

fn requests(mut fields: Fields, http: &mut Settings) -> Result<(), FieldError> {
    let hour = 1..=HOUR_MS;
    http.deadline_default =
        ms(&mut fields, "request_timeout_ms", hour.clone(), http.deadline_default)?;
    http.deadline_max = ms(&mut fields, "request_timeout_max_ms", hour, http.deadline_max)?;
    http.stop_time_max = ms(&mut fields, "drain_max_ms", 0..=HOUR_MS, http.stop_time_max)?;
    let bytes = http.http.body_bytes_max;
    http.http.body_bytes_max = count(&mut fields, "payload_bytes_max", 1024..=1 << 30, bytes)?;
    fields.finish()
}

fn socket(mut fields: Fields, http: &mut Settings) -> Result<Socket, FieldError> {
    let limits = &mut http.http;
    for (key, value) in [
        ("connections_max", &mut limits.connections_max),
        ("connections_per_user_max", &mut limits.connections_per_user_max),
        ("connections_per_process_max", &mut limits.connections_per_process_max),
    ] {
        *value = count(&mut fields, key, 1..=65_536, *value)?;
    }
    let read = Socket {
        path: path(&mut fields, "path", SOCKET_BYTES)?,
        admin_path: path(&mut fields, "admin_path", SOCKET_BYTES)?,
        tcp_address: match fields.text_or_none("tcp_address", 1..=64)? {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| {
                fields.error("tcp_address", "not an address; write it as \"127.0.0.1:8000\"")
            })?),
        },
        tcp_may_leave_host: fields.boolean_or("tcp_may_leave_host", false)?,
    };
    fields.finish()?;
    Ok(read)
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
