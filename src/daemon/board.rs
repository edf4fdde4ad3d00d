//! What the board measures of itself, from the kernel's files. Knows nothing of the daemon.

use std::fs;
use std::path::{Path, PathBuf};

/// Sensors of one kind that are looked at.
const SENSORS_MAX: usize = 64;

/// What a thermal zone may say; some say nonsense while what they measure is off.
const MILLIDEGREES: std::ops::RangeInclusive<i64> = -50_000..=150_000;

/// Channels of an INA3221.
const INA3221_CHANNELS: std::ops::RangeInclusive<u32> = 1..=3;

/// The board whose files lie below a root.
#[derive(Debug, Clone)]
pub struct Board {
    root: PathBuf,
}

impl Board {
    /// `root` is `/`, but in tests.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Of its hottest thermal zone.
    pub fn temperature_celsius(&self) -> Option<f64> {
        let zones = self.directories("sys/class/thermal", "thermal_zone");
        let degrees = zones.iter().filter_map(|zone| number(&zone.join("temp")));
        let hottest = degrees.filter(|degrees| MILLIDEGREES.contains(degrees)).max()?;
        Some(hottest as f64 / 1e3)
    }

    /// Of its largest power sensor, which is the one of the whole board if it has one.
    pub fn watts(&self) -> Option<f64> {
        let sensors = self.directories("sys/class/hwmon", "hwmon");
        let microwatts = sensors.iter().filter_map(|sensor| microwatts(sensor)).max()?;
        Some(microwatts as f64 / 1e6)
    }

    /// Of the last minute.
    pub fn load(&self) -> Option<f64> {
        let text = fs::read_to_string(self.root.join("proc/loadavg")).ok()?;
        text.split_ascii_whitespace().next()?.parse().ok()
    }

    fn directories(&self, class: &str, prefix: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.root.join(class)) else { return Vec::new() };
        entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .take(SENSORS_MAX)
            .map(|entry| entry.path())
            .collect()
    }
}

/// `power1_input`, or what an INA3221 says in millivolts and milliamperes.
fn microwatts(sensor: &Path) -> Option<i64> {
    if let Some(microwatts) = number(&sensor.join("power1_input")) {
        return Some(microwatts);
    }
    if fs::read_to_string(sensor.join("name")).ok()?.trim() != "ina3221" {
        return None;
    }
    let channel = |channel: u32| {
        let millivolts = number(&sensor.join(format!("in{channel}_input")))?;
        let milliamperes = number(&sensor.join(format!("curr{channel}_input")))?;
        millivolts.checked_mul(milliamperes)
    };
    INA3221_CHANNELS.filter_map(channel).max()
}

fn number(path: &Path) -> Option<i64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
