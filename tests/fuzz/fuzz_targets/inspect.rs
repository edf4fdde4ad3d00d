//! Any bytes are inspected without a panic, and what passes keeps to the limits.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moed::engine::inspect::inspect;
use moed::engine::limits::Limits;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    if let Ok(inspected) = inspect(bytes, &limits) {
        assert!(inspected.summary.nodes <= limits.nodes_max);
        assert!(inspected.summary.initializers <= limits.initializers_max);
        assert!(inspected.summary.external_bytes <= limits.external_bytes_max);
        assert!(inspected.summary.inline_bytes <= bytes.len() as u64);
    }
});
