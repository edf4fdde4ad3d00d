//! The processor's own energy meter (RAPL), where there is one.

use std::fs;
use std::path::PathBuf;

const FOLDER: &str = "/sys/class/powercap";

/// A package's counter, in microjoules, and where it starts again.
#[derive(Debug)]
struct Counter {
    path: PathBuf,
    microjoules: u64,
    range: u64,
}

/// The packages' counters at some time.
#[derive(Debug)]
pub struct Reading(Vec<Counter>);

/// The counters now; what to do about it if they can't be read.
pub fn read() -> Result<Reading, String> {
    let entries = fs::read_dir(FOLDER).map_err(|_| "no meter here".to_owned())?;
    let mut packages: Vec<PathBuf> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            // `intel-rapl:0` is a package, on AMD's processors too; `intel-rapl:0:0` a part of it.
            let number = name.strip_prefix("intel-rapl:")?;
            (!number.contains(':')).then(|| entry.path())
        })
        .collect();
    packages.sort();
    if packages.is_empty() {
        return Err("no meter here".to_owned());
    }
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse().ok();
    let counters = packages.into_iter().map(|path| {
        let microjoules = number(path.join("energy_uj"))?;
        let range = number(path.join("max_energy_range_uj"))?;
        Some(Counter { path, microjoules, range })
    });
    let counters: Option<Vec<_>> = counters.collect();
    counters.map(Reading).ok_or_else(|| "there is a meter; only root may read it".to_owned())
}

/// Joules since `before`.
pub fn since(before: Result<&Reading, &String>) -> Result<f64, String> {
    let before = before.map_err(String::clone)?;
    let now = read()?;
    let microjoules = before.0.iter().zip(&now.0).map(|(before, now)| {
        debug_assert_eq!(before.path, now.path, "packages stay");
        match now.microjoules.checked_sub(before.microjoules) {
            Some(microjoules) => microjoules,
            None => (before.range - before.microjoules.min(before.range)) + now.microjoules,
        }
    });
    Ok(microjoules.sum::<u64>() as f64 / 1e6)
}
