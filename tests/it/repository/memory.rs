//! Memory needed against memory there is.

use moed::repository::load::check_memory;
use moed::repository::memory::{available_bytes, left, meminfo_available};

const MIB: u64 = 1 << 20;

#[test]
fn the_kernels_words_are_read() {
    let text = "MemTotal:         465024 kB\nMemFree: 1 kB\nMemAvailable:     262144 kB\n";
    assert_eq!(meminfo_available(text), Some(256 * MIB));
    for text in ["", "MemAvailable:", "MemAvailable: x kB", "MemAvailable: 99999999999999999999 kB"]
    {
        assert_eq!(meminfo_available(text), None, "{text}");
    }
    assert_eq!(left("1000\n", "700\n", "anon 1\ninactive_file 100\n"), Some(400));
    assert_eq!(left("1000", "1700", ""), Some(0));
    assert_eq!(left("max\n", "700\n", ""), None);
    assert!(available_bytes().expect("this kernel says") > 0);
}

#[test]
fn a_model_that_needs_more_than_there_is_is_refused_in_mib() {
    assert!(check_memory(100 * MIB, Some(100 * MIB)).is_ok());
    assert!(check_memory(u64::MAX, None).is_ok());
    let error = check_memory(100 * MIB + 1, Some(64 * MIB)).expect_err("too much");
    insta::assert_snapshot!(error, @"memory: 101 MiB needed, 64 MiB available: free some, or set `memory_check = false` in the configuration");
}
