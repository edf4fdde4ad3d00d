//! Signatures of archives: minisign's, in its prehashed form, which needs no archive in memory.
//!
//! The one file that names the library. Knows no archive and no model.

use std::io::{self, Read};

use minisign_verify::{Error, PublicKey, Signature};
use sha2::{Digest as _, Sha256};

use super::InstallError;

/// The two comments and two lines of base64 that a signature is, in bytes.
pub const SIGNATURE_BYTES_MAX: usize = 1024;

const BUFFER_BYTES: usize = 64 << 10;

/// What is wrong with the text of a public key, if anything.
///
/// # Errors
/// A cause, for the owner.
pub fn check_key(text: &str) -> Result<(), &'static str> {
    let key = PublicKey::from_base64(text);
    key.map(drop).map_err(|_| "not a key of minisign; give the second line of its .pub file")
}

/// A signature, and the key that it says it was made with.
pub struct Signed {
    key: PublicKey,
    signature: Signature,
}

/// Finds the key of a signature among those that are trusted, as texts. Without a signature, or
/// without keys where none is needed, there is nothing to verify: `None`.
pub fn find(
    keys: &[String],
    is_required: bool,
    signature: Option<&str>,
) -> Result<Option<Signed>, InstallError> {
    let Some(text) = signature else {
        return if is_required { Err(InstallError::Unsigned) } else { Ok(None) };
    };
    if text.len() > SIGNATURE_BYTES_MAX {
        return Err(InstallError::Signature("it is too long: send minisign's .minisig file"));
    }
    let signature = Signature::decode(text)
        .map_err(|_| InstallError::Signature("not one of minisign: send its .minisig file"))?;
    if keys.is_empty() {
        return Ok(None);
    }
    for key in keys.iter().filter_map(|key| PublicKey::from_base64(key).ok()) {
        match key.verify_stream(&signature).map(drop) {
            Ok(()) => return Ok(Some(Signed { key, signature })),
            Err(Error::UnsupportedLegacyMode | Error::UnsupportedAlgorithm) => {
                let cause = "made in the old form: sign again with `minisign -S`";
                return Err(InstallError::Signature(cause));
            }
            Err(_) => {}
        }
    }
    let cause = "made with a key that is not among `public_keys`: add it, or sign with another";
    Err(InstallError::Signature(cause))
}

/// Reads an archive to its end: its SHA-256, and whether it is what was signed.
pub fn read(mut archive: impl Read, signed: Option<&Signed>) -> io::Result<([u8; 32], bool)> {
    let mut hasher = Sha256::new();
    // It was found by this very call.
    let mut verifier = signed.and_then(|signed| signed.key.verify_stream(&signed.signature).ok());
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = archive.read(&mut buffer)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        hasher.update(read);
        if let Some(verifier) = &mut verifier {
            verifier.update(read);
        }
    }
    let is_genuine = match (signed, &mut verifier) {
        (None, _) => true,
        (Some(_), Some(verifier)) => verifier.finalize().is_ok(),
        (Some(_), None) => false,
    };
    Ok((hasher.finalize().into(), is_genuine))
}
