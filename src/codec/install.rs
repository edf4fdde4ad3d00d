//! The documents of installations: the same over HTTP and over MQTT. docs/models.md is the
//! reference.

use std::borrow::Cow;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::DecodeError;
use crate::infer::{InstallProgress, InstallStep};

/// The most that is asked for at a time, in bytes; larger pieces are taken where their transport
/// takes them.
pub const PIECE_BYTES_MAX: usize = 1 << 20;

const FORM: &str = "send {\"bytes\", \"sha256\", \"signature\"}, {\"path\"}, {\"upload\", \
                    \"offset\", \"data\"} or {\"upload\", \"abort\": true}";

/// Everything that one of them may hold.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Document<'a> {
    bytes: Option<u64>,
    sha256: Option<String>,
    signature: Option<String>,
    path: Option<PathBuf>,
    upload: Option<String>,
    offset: Option<u64>,
    /// Base64: RFC 4648, section 4.
    #[serde(borrow)]
    data: Option<Cow<'a, str>>,
    #[serde(default)]
    abort: bool,
    /// Of MQTT's verbs.
    #[serde(rename = "transaction")]
    _transaction: Option<IgnoredAny>,
}

/// Reads a step of an installation.
///
/// # Errors
/// What of it is wrong, and how it should be.
pub fn decode_install(body: &[u8]) -> Result<InstallStep, DecodeError> {
    let wrong = |field, cause: &str| Err(DecodeError::field(field, cause));
    let document: Document<'_> = serde_json::from_slice(body)
        .map_err(|error| DecodeError::field("body", format!("{error}: {FORM}")))?;
    let sha256 = match document.sha256.as_deref().map(hexadecimal) {
        None => None,
        Some(Some(sum)) => Some(sum),
        Some(None) => {
            return wrong("sha256", "not 64 hexadecimal digits: send what sha256sum says");
        }
    };
    let signature = document.signature;
    let is_alone = document.offset.is_none() && document.data.is_none() && !document.abort;
    match (document.upload, document.path, document.bytes) {
        (None, None, Some(bytes)) if is_alone => {
            let Some(sha256) = sha256 else {
                return wrong("sha256", "missing: send what sha256sum says of the archive");
            };
            Ok(InstallStep::Begin { bytes, sha256, signature })
        }
        (None, Some(path), None) if is_alone => {
            if !path.is_absolute() {
                return wrong("path", "not from the root on: begin it with `/`");
            }
            Ok(InstallStep::File { path, sha256, signature })
        }
        (Some(upload), None, None) if document.abort => Ok(InstallStep::Abort { upload }),
        (Some(upload), None, None) => match (document.offset, document.data) {
            (Some(offset), Some(data)) => match base64(data.as_bytes()) {
                Some(bytes) => Ok(InstallStep::Piece { upload, offset, bytes }),
                None => wrong("data", "not base64: encode it with `base64 -w0`"),
            },
            _ => wrong("upload", "`offset` and `data` are needed too"),
        },
        _ => wrong("body", &format!("not one step: {FORM}")),
    }
}

/// Reads which version is to be removed: nothing, `{}` or `{"version": "1.0.0"}`.
///
/// # Errors
/// Anything else.
pub fn decode_remove(body: &[u8]) -> Result<Option<String>, DecodeError> {
    #[derive(Deserialize)]
    struct Document {
        version: Option<String>,
    }
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let document: Document = serde_json::from_slice(body).map_err(|_| {
        DecodeError::field("body", "not understood: send nothing, or {\"version\": \"1.0.0\"}")
    })?;
    Ok(document.version)
}

/// How far an installation is. `piece_bytes_max` is what the transport takes.
pub fn install_progress(progress: &InstallProgress, piece_bytes_max: usize) -> Value {
    match progress {
        InstallProgress::Receiving { upload, offset } => json!({
            "upload": upload,
            "offset": offset,
            "piece_bytes_max": piece_bytes_max.min(PIECE_BYTES_MAX),
        }),
        InstallProgress::Aborted => json!({}),
        InstallProgress::Installed(installed) => json!({
            "model": installed.model,
            "version": installed.version,
            "previous": installed.previous,
            "is_new": installed.is_new,
            "trial_requests": installed.trial_requests,
            "written_bytes": installed.written_bytes,
        }),
    }
}

fn hexadecimal(text: &str) -> Option<[u8; 32]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

/// Strict: padded, and nothing between.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let (quads, []) = text.as_chunks::<4>() else { return None };
    let mut bytes = Vec::with_capacity(quads.len() * 3);
    for (at, quad) in quads.iter().enumerate() {
        let is_last = at + 1 == quads.len();
        let count = match quad {
            [_, _, b'=', b'='] if is_last => 1,
            [_, _, _, b'='] if is_last => 2,
            _ => 3,
        };
        let mut bits = 0_u32;
        for (place, &symbol) in quad.iter().enumerate() {
            let value = if place > count { 0 } else { sextet(symbol)? };
            bits = bits << 6 | u32::from(value);
        }
        let [_, three @ ..] = bits.to_be_bytes();
        let (taken, rest) = three.split_at_checked(count)?;
        // Bits that mean nothing are 0, so that nothing can be written in two ways.
        if rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(taken);
    }
    Some(bytes)
}

fn sextet(symbol: u8) -> Option<u8> {
    Some(match symbol {
        b'A'..=b'Z' => symbol - b'A',
        b'a'..=b'z' => symbol - b'a' + 26,
        b'0'..=b'9' => symbol - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}
