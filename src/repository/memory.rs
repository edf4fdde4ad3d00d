//! How much memory a model could still get.
//!
//! What the kernel calls available, or what the process's control group still allows, whichever
//! is less. Knows no model.

use std::fs;
use std::path::Path;

/// Bytes that could be used without swapping or being killed; `None` where the kernel doesn't say.
pub fn available_bytes() -> Option<u64> {
    let of_machine = meminfo_available(&fs::read_to_string("/proc/meminfo").ok()?);
    let of_group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| group_left(&text));
    match (of_machine, of_group) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Bytes that `/proc/meminfo` calls available.
pub fn meminfo_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The group's own path, of version 2: the line `0::/PATH`.
fn group_left(cgroup: &str) -> Option<u64> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = Path::new("/sys/fs/cgroup").join(path);
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    left(&read("memory.max")?, &read("memory.current")?, &read("memory.stat")?)
}

/// What a control group still allows, from its files; `None` if it sets no limit. Cached files
/// count as used there, and are given back when needed.
pub fn left(max: &str, current: &str, stat: &str) -> Option<u64> {
    let max: u64 = max.trim().parse().ok()?;
    let current: u64 = current.trim().parse().ok()?;
    let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
    let cached = cached.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Some(max.saturating_sub(current.saturating_sub(cached)))
}
