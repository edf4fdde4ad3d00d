//! `[install]`: models that come while the daemon runs.

use super::{PATH_BYTES, count, path};
use crate::fields::{FieldError, Fields};
use crate::repository::install::settings::Settings;
use crate::repository::install::signature::check_key;
use crate::repository::install::trial::TrialOptions;

const MIB: u64 = 1 << 20;
const KEYS_MAX: usize = 16;

/// Reads the table.
pub(super) fn read(mut fields: Fields, default: &Settings) -> Result<Settings, FieldError> {
    let directory = path(&mut fields, "directory", PATH_BYTES)?;
    let public_keys = fields.texts("public_keys", 0..=KEYS_MAX, 1..=128)?;
    for (at, key) in public_keys.iter().enumerate() {
        let place = format!("public_keys[{at}]");
        check_key(key).map_err(|cause| fields.error(&place, cause))?;
    }
    let is_signature_required = match fields.text_or_none("signature", 1..=16)?.as_deref() {
        // Whoever names keys wants them used.
        None => !public_keys.is_empty(),
        Some("optional") => false,
        Some("required") if public_keys.is_empty() => {
            let cause = "needs `public_keys`: give the keys that archives are signed with";
            return Err(fields.error("signature", cause));
        }
        Some("required") => true,
        Some(_) => {
            let cause = "not known; use \"required\" or \"optional\"";
            return Err(fields.error("signature", cause));
        }
    };
    let archive_bytes = default.archive_bytes_max;
    let free_bytes = default.free_bytes_min;
    let TrialOptions { requests, failures } = default.trial;
    let read = Settings {
        directory,
        public_keys,
        is_signature_required,
        archive_bytes_max: fields.integer_or("archive_bytes_max", MIB..=1 << 40, archive_bytes)?,
        free_bytes_min: fields.integer_or("free_bytes_min", 0..=1 << 40, free_bytes)?,
        versions_max: count(&mut fields, "versions_max", 1..=64, default.versions_max)?,
        trial: TrialOptions {
            requests: small(&mut fields, "trial_requests", 0, requests)?,
            failures: small(&mut fields, "trial_failures", 1, failures)?,
        },
    };
    fields.finish()?;
    Ok(read)
}

fn small(
    fields: &mut Fields,
    key: &'static str,
    min: u64,
    default: u32,
) -> Result<u32, FieldError> {
    let number = fields.integer_or(key, min..=10_000, u64::from(default))?;
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}
