//! `[mqtt]`: the broker that requests come over. Without the table, there is none.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{HOUR_MS, PATH_BYTES, count, ms, path};
use crate::fields::{FieldError, Fields};
use crate::transport::mqtt::{Broker, Protocol, SettingsError, Tls};
use crate::transport::unix;

pub use crate::transport::mqtt::Settings;

/// Home Assistant's own choice.
const DISCOVERY_PREFIX: &str = "homeassistant";

/// Where the broker inside the daemon listens: on this host only.
const LISTEN: &str = "127.0.0.1:1883";

const NAME_BYTES: RangeInclusive<usize> = 1..=256;

/// Reads the table; deadlines are those of all requests.
pub(super) fn read(mut fields: Fields, requests: &unix::Settings) -> Result<Settings, FieldError> {
    let default = Settings::default();
    let embedded = embedded(&mut fields)?;
    let broker = match embedded {
        Some(address) => Broker::embedded(address),
        None => fields
            .text("broker", NAME_BYTES)?
            .parse()
            .map_err(|error: SettingsError| fields.error("broker", cause(&error)))?,
    };
    let protocol = protocol(&mut fields)?;
    let password_file = password_file(&mut fields)?;
    let prefix = fields.text_or_none("discovery_prefix", NAME_BYTES)?;
    let is_home_assistant = fields.boolean_or("home_assistant", prefix.is_some())?;
    let prefix = prefix.unwrap_or_else(|| DISCOVERY_PREFIX.to_owned());
    let packet_bytes = usize::try_from(default.packet_bytes_max).unwrap_or(usize::MAX);
    let packet_bytes = count(&mut fields, "packet_bytes_max", 4096..=16 << 20, packet_bytes)?;
    let requests_max =
        count(&mut fields, "requests_max", 1..=4096, usize::from(default.requests_max))?;
    let read = Settings {
        broker,
        embedded,
        protocol,
        node: fields.text_or_none("node", NAME_BYTES)?.unwrap_or(default.node),
        base: fields.text_or_none("base", NAME_BYTES)?.unwrap_or(default.base),
        username: fields.text_or_none("username", NAME_BYTES)?,
        password_file,
        tls: Tls {
            ca_file: path(&mut fields, "ca_file", PATH_BYTES)?,
            certificate_file: path(&mut fields, "certificate_file", PATH_BYTES)?,
            key_file: path(&mut fields, "key_file", PATH_BYTES)?,
        },
        keep_alive: seconds(&mut fields, "keep_alive_s", 5..=3600, default.keep_alive)?,
        session_expiry: seconds(
            &mut fields,
            "session_expiry_s",
            0..=86_400,
            default.session_expiry,
        )?,
        packet_bytes_max: u32::try_from(packet_bytes).unwrap_or(u32::MAX),
        requests_max: u16::try_from(requests_max).unwrap_or(u16::MAX),
        deadline_default: requests.deadline_default,
        deadline_max: requests.deadline_max,
        stop_time_max: requests.stop_time_max,
        reply_prefixes: fields.texts("reply_prefixes", 0..=64, NAME_BYTES)?,
        pool: fields.text_or_none("pool", NAME_BYTES)?,
        is_admin_allowed: fields.boolean_or("admin", default.is_admin_allowed)?,
        discovery_prefix: is_home_assistant.then_some(prefix),
        health_interval: ms(
            &mut fields,
            "health_interval_ms",
            1000..=HOUR_MS,
            default.health_interval,
        )?,
        codec: requests.codec.clone(),
        ..default
    };
    read.check().map_err(|error| match &error {
        SettingsError::Value { setting, .. } | SettingsError::Alone { setting, .. } => {
            fields.error(setting, cause(&error))
        }
    })?;
    fields.finish()?;
    Ok(read)
}

/// Settings for a broker inside the daemon that listens on `address`, and no other table.
pub fn embedded_at(address: SocketAddr, requests: &unix::Settings) -> Settings {
    Settings {
        broker: Broker::embedded(address),
        embedded: Some(address),
        deadline_default: requests.deadline_default,
        deadline_max: requests.deadline_max,
        stop_time_max: requests.stop_time_max,
        codec: requests.codec.clone(),
        ..Settings::default()
    }
}

/// Where the broker inside the daemon listens, if there should be one.
fn embedded(fields: &mut Fields) -> Result<Option<SocketAddr>, FieldError> {
    let is_embedded = fields.boolean_or("embedded", false)?;
    let listen = fields.text_or_none("listen", NAME_BYTES)?;
    if !is_embedded {
        return match listen {
            Some(_) => Err(fields.error("listen", "of no use without `embedded = true`")),
            None => Ok(None),
        };
    }
    if fields.text_or_none("broker", NAME_BYTES)?.is_some() {
        return Err(fields.error("broker", "given beside `embedded`: leave one of them out"));
    }
    let listen = listen.unwrap_or_else(|| LISTEN.to_owned());
    let wrong = || fields.error("listen", "no address and port; give one, as in 127.0.0.1:1883");
    listen.parse().map(Some).map_err(|_| wrong())
}

fn protocol(fields: &mut Fields) -> Result<Protocol, FieldError> {
    Ok(match fields.text_or_none("protocol", NAME_BYTES)?.as_deref() {
        None | Some("automatic") => Protocol::Automatic,
        Some("5") => Protocol::V5,
        Some("3.1.1") => Protocol::V311,
        Some(_) => {
            let cause = "not a version; use \"automatic\", \"5\" or \"3.1.1\"";
            return Err(fields.error("protocol", cause));
        }
    })
}

fn password_file(fields: &mut Fields) -> Result<Option<PathBuf>, FieldError> {
    let password_file = path(fields, "password_file", PATH_BYTES)?;
    let credential = fields.text_or_none("password_credential", NAME_BYTES)?;
    match (password_file, credential) {
        (file, None) => Ok(file),
        (None, Some(name)) => credential_file(fields, &name).map(Some),
        (Some(_), Some(_)) => {
            let cause = "given beside `password_file`: give one of them";
            Err(fields.error("password_credential", cause))
        }
    }
}

/// Without the setting's name, which the place says.
fn cause(error: &SettingsError) -> String {
    match error {
        SettingsError::Value { given, cause, .. } => format!("{given}: {cause}"),
        SettingsError::Alone { other, .. } => format!("needs {other} too; give both or neither"),
    }
}

fn seconds(
    fields: &mut Fields,
    key: &'static str,
    range: RangeInclusive<u64>,
    default: Duration,
) -> Result<Duration, FieldError> {
    Ok(Duration::from_secs(fields.integer_or(key, range, default.as_secs())?))
}

/// Where systemd before 247, which knows no credentials, finds none, and `moed check` looks.
const CREDENTIALS_FALLBACK: &str = "/etc/moed";

/// Where systemd puts a credential of the unit; the file that it is made of, where it does not.
#[expect(clippy::disallowed_methods, reason = "this is where the configuration is read")]
fn credential_file(fields: &Fields, name: &str) -> Result<PathBuf, FieldError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.chars().all(is_plain) || name.starts_with('.') {
        return Err(fields.error("password_credential", "not a credential's name"));
    }
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY");
    let directory = directory.map_or_else(|| PathBuf::from(CREDENTIALS_FALLBACK), PathBuf::from);
    Ok(directory.join(name))
}
