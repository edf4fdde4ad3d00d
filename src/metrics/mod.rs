//! What the daemon counts, and its text in the format of OpenMetrics 1.0.
//!
//! [`Metrics`] holds the series, [`ModelMetrics`] one model's handles into them: who counts does
//! not look anything up and allocates nothing. It knows neither queues nor transports; it is told.

mod experts;
mod model;
pub mod process;
mod recent;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::infer::Code;
pub use model::{ModelMetrics, Observation};
use recent::Recent;

/// Upper bounds of the latency buckets, in seconds: 50 us to 10 s.
const LATENCY_BUCKETS: [f64; 17] = [
    50e-6, 100e-6, 200e-6, 300e-6, 500e-6, 750e-6, 1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1,
    0.25, 1.0, 2.5, 10.0,
];

/// Upper bounds of the buckets of k.
const K_BUCKETS: [f64; 6] = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabel {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    model: String,
    code: CodeLabel,
}

/// `None`: answered with outputs, `ok`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CodeLabel(Option<Code>);

impl EncodeLabelValue for CodeLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.map_or("ok", Code::word).encode(encoder)
    }
}

/// A histogram of latencies, in seconds.
#[derive(Debug, Clone)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

type Histograms = Family<ModelLabel, Histogram, Buckets>;

/// The series that every model has one of.
#[derive(Debug, Clone)]
struct Families {
    requests: Family<CodeLabels, Counter>,
    total: Histograms,
    queue: Histograms,
    compute: Histograms,
    k: Histograms,
    queued: Family<ModelLabel, Gauge>,
    weight_bytes: Family<ModelLabel, Counter>,
    loads: Family<ModelLabel, Counter>,
    load_failures: Family<ModelLabel, Counter>,
    panics: Family<ModelLabel, Counter>,
    /// Of all models: microseconds from request to answer, and the largest k of a layer.
    recent_us: Arc<Recent>,
    recent_k: Arc<Recent>,
}

impl Families {
    fn new() -> Self {
        let histograms = |buckets| Family::new_with_constructor(Buckets(buckets));
        Self {
            requests: Family::default(),
            total: histograms(&LATENCY_BUCKETS),
            queue: histograms(&LATENCY_BUCKETS),
            compute: histograms(&LATENCY_BUCKETS),
            k: histograms(&K_BUCKETS),
            queued: Family::default(),
            weight_bytes: Family::default(),
            loads: Family::default(),
            load_failures: Family::default(),
            panics: Family::default(),
            recent_us: Arc::new(Recent::new()),
            recent_k: Arc::new(Recent::new()),
        }
    }

    fn register(&self, registry: &mut Registry) {
        let all = self.clone();
        registry.register("requests", "Requests answered, by code", all.requests);
        let seconds = [
            ("request", "From request to answer", all.total),
            ("queue", "From admission to a worker", all.queue),
            ("compute", "Pre-processing, the model, post-processing", all.compute),
        ];
        for (name, help, family) in seconds {
            registry.register_with_unit(name, help, Unit::Seconds, family);
        }
        registry.register("k", "The largest k of a layer in a run", all.k);
        registry.register("queue_requests", "Requests that wait", all.queued);
        let help = "Weights, scales and zero points of experts that were read";
        registry.register_with_unit("weights_read", help, Unit::Bytes, all.weight_bytes);
        registry.register("loads", "Versions loaded", all.loads);
        registry.register("load_failures", "Loads that failed", all.load_failures);
        registry.register("panics", "Runs that panicked and were caught", all.panics);
    }
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    models: Models,
}

/// The models that have been counted, by name.
type Models = Arc<Mutex<BTreeMap<String, Arc<ModelMetrics>>>>;

impl Metrics {
    /// Starts counting. `kernel` is the name of the kernel in use; `others` count for themselves.
    pub fn new(kernel: &str, others: Vec<Box<dyn Collector>>) -> Self {
        let mut registry = Registry::with_prefix("moed");
        let families = Families::new();
        families.register(&mut registry);
        let build =
            vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("kernel", kernel.to_owned())];
        registry.register("build", "What is running", Info::new(build));
        let models = Models::default();
        registry.register_collector(Box::new(experts::ExpertLoads(Arc::clone(&models))));
        registry.register_collector(Box::new(process::Process::started_now()));
        for other in others {
            registry.register_collector(other);
        }
        Self { registry, families, models }
    }

    /// The handles of one model, made when it is first asked for.
    pub fn model(&self, name: &str) -> Arc<ModelMetrics> {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(ModelMetrics::new(name, &self.families));
        Arc::clone(models.entry(name.to_owned()).or_insert_with(made))
    }

    /// From request to answer: the time that the share `quantile` of the last 256 answers, of all
    /// models, did not exceed.
    pub fn latency(&self, quantile: f64) -> Option<Duration> {
        let us = self.families.recent_us.quantile(quantile)?;
        Some(Duration::from_micros(us.into()))
    }

    /// The largest k of a layer, on average over the last 256 runs of models that have experts.
    pub fn k_mean(&self) -> Option<f64> {
        self.families.recent_k.mean()
    }

    /// Requests that wait, for all models.
    pub fn queued(&self) -> usize {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.values().map(|model| model.queued()).sum()
    }

    /// All of it, in the text format of OpenMetrics 1.0.
    pub fn exposition(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only if one of our own encoders does.
        if encode(&mut text, &self.registry).is_err() {
            log::error!("metrics: an encoder failed; the text ends where it did");
        }
        text
    }
}
