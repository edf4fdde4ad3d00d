//! Any bytes are read as an archive or refused; only plain names and bounded sizes come out.

#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use moed::bundle::{Limits, entries};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { bundle_bytes_max: 4096, ..Limits::default() };
    let (mut names, mut total) = (BTreeSet::new(), 0);
    let read = entries(bytes, &limits, |name, size, data| {
        assert!(!name.contains('/') && !name.starts_with('.'), "{name}");
        assert!(names.insert(name.to_owned()), "{name} twice");
        total += size;
        let copied = std::io::copy(data, &mut std::io::sink()).expect("a slice can be read");
        assert!(copied <= size);
        Ok(())
    });
    assert!(total <= limits.bundle_bytes_max + limits.manifest_bytes_max);
    drop(read);
});
