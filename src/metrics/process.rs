//! What the process itself takes: resident memory, and how long it has run.

use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Reads the process's figures when they are asked for.
#[derive(Debug)]
pub struct Process {
    started: Instant,
}

impl Process {
    pub fn started_now() -> Self {
        Self { started: Instant::now() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(bytes) = resident_bytes() {
            let help = "Memory of the process that is resident, mapped weights included";
            let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            let bytes = Some(&Unit::Bytes);
            gauge.encode(encoder.encode_descriptor(
                "resident",
                help,
                bytes,
                MetricType::Gauge,
            )?)?;
        }
        let (help, seconds) = ("Since start", Some(&Unit::Seconds));
        let uptime = ConstGauge::new(self.started.elapsed().as_secs_f64());
        uptime.encode(encoder.encode_descriptor("uptime", help, seconds, MetricType::Gauge)?)
    }
}

/// Resident memory of this process in bytes; `None` where `/proc` doesn't say.
pub fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}
