//! Any bytes are read as a step of an installation or refused, and any text as a signature; what
//! comes out is no longer than what went in.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moed::codec::decode_install;
use moed::infer::InstallStep;
use moed::repository::install::signature::{check_key, find};

/// Of tests/data/updates.
const KEY: &str = include_str!("../../data/updates/trusted.pub");

fuzz_target!(|body: &[u8]| {
    match decode_install(body) {
        Ok(InstallStep::Piece { bytes, .. }) => assert!(bytes.len() <= body.len()),
        Ok(InstallStep::File { path, .. }) => assert!(path.is_absolute()),
        Ok(InstallStep::Begin { .. } | InstallStep::Abort { .. }) | Err(_) => {}
    }
    if let Ok(text) = std::str::from_utf8(body) {
        let keys = [KEY.trim().to_owned()];
        // Unsigned is never taken for signed.
        assert!(find(&keys, true, None).is_err());
        drop((check_key(text), find(&keys, true, Some(text))));
    }
});
