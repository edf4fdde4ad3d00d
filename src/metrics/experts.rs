//! How much each expert is used, and how unevenly.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{ModelMetrics, Models};
use crate::engine::LayerInfo;

/// Experts of one model that get a series of their own: all of them, or, above this, none. The
/// imbalance is there in any case.
const EXPERT_SERIES_MAX: usize = 512;

/// Rows that each expert of a layer has computed.
#[derive(Debug)]
pub struct LayerLoad {
    name: String,
    rows: Vec<AtomicU64>,
}

impl LayerLoad {
    pub fn new(layer: &LayerInfo) -> Self {
        let rows = (0..layer.experts).map(|_| AtomicU64::new(0)).collect();
        Self { name: layer.name.clone(), rows }
    }

    /// Notes a run: experts, and for how many rows each.
    pub fn note(&self, experts: &[(u32, u32)]) {
        for &(expert, rows) in experts {
            if let Some(load) = self.rows.get(expert as usize) {
                load.fetch_add(u64::from(rows), Ordering::Relaxed);
            }
        }
    }

    fn loads(&self) -> impl Iterator<Item = u64> {
        self.rows.iter().map(|rows| rows.load(Ordering::Relaxed))
    }

    /// The busiest expert's rows over the mean: 1 is even, the number of experts is the worst.
    fn imbalance(&self) -> f64 {
        let total: u64 = self.loads().sum();
        let most = self.loads().max().unwrap_or(0);
        if total == 0 { 1.0 } else { most as f64 * self.rows.len() as f64 / total as f64 }
    }
}

/// Writes the series of all models.
#[derive(Debug)]
pub struct ExpertLoads(pub Models);

impl Collector for ExpertLoads {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = encoder.encode_descriptor(
            "expert_rows",
            "Rows computed by each expert of the version that is serving",
            None,
            MetricType::Counter,
        )?;
        for model in models.values() {
            let layers = model.layers.load();
            if layers.iter().map(|layer| layer.rows.len()).sum::<usize>() > EXPERT_SERIES_MAX {
                continue;
            }
            for layer in layers.iter() {
                for (expert, count) in layer.loads().enumerate() {
                    let expert = expert.to_string();
                    let labels = [
                        ("model", model.name.as_str()),
                        ("layer", layer.name.as_str()),
                        ("expert", expert.as_str()),
                    ];
                    ConstCounter::new(count).encode(rows.encode_family(&labels)?)?;
                }
            }
        }
        let mut imbalance = encoder.encode_descriptor(
            "expert_imbalance",
            "Rows of the busiest expert over the mean: 1 is even",
            None,
            MetricType::Gauge,
        )?;
        let each = |model: &ModelMetrics| model.layers.load_full();
        for model in models.values() {
            for layer in each(model).iter() {
                let labels = [("model", model.name.as_str()), ("layer", layer.name.as_str())];
                ConstGauge::new(layer.imbalance()).encode(imbalance.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
