//! One model's counts: handles that are looked up once, and totals for the statistics extension
//! of the Open Inference Protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::experts::LayerLoad;
use super::recent::Recent;
use super::{CodeLabel, CodeLabels, Families, ModelLabel};
use crate::engine::{LayerInfo, RunReport};
use crate::infer::{Code, ModelStatistics, Tally};

/// Batch sizes that are counted apart; larger ones are counted with the largest.
const BATCH_SIZES: usize = 32;

/// What one answered request took.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    pub queue: Duration,
    pub compute_input: Duration,
    pub compute_infer: Duration,
    pub compute_output: Duration,
    pub report: &'a RunReport,
}

impl Observation<'_> {
    pub fn compute(&self) -> Duration {
        self.compute_input + self.compute_infer + self.compute_output
    }
}

/// How often and how long.
#[derive(Debug, Default)]
struct Total {
    count: AtomicU64,
    nanos: AtomicU64,
}

impl Total {
    fn note(&self, took: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn tally(&self) -> Tally {
        Tally {
            count: self.count.load(Ordering::Relaxed),
            total: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
        }
    }
}

/// One model's handles. Counting allocates nothing.
#[derive(Debug)]
pub struct ModelMetrics {
    pub(super) name: String,
    ok: Counter,
    /// In the order of [`Code::ALL`].
    errors: [Counter; Code::ALL.len()],
    total: Histogram,
    queue: Histogram,
    compute: Histogram,
    k: Histogram,
    queued: Gauge,
    weight_bytes: Counter,
    loads: Counter,
    load_failures: Counter,
    panics: Counter,
    recent_us: Arc<Recent>,
    recent_k: Arc<Recent>,
    pub(super) layers: ArcSwap<Vec<LayerLoad>>,
    success_total: Total,
    fail_total: Total,
    queue_total: Total,
    input_total: Total,
    infer_total: Total,
    output_total: Total,
    batches: [Total; BATCH_SIZES],
    last_inference_ms: AtomicU64,
}

impl ModelMetrics {
    pub(super) fn new(name: &str, families: &Families) -> Self {
        let label = ModelLabel { model: name.to_owned() };
        let requests = |code| {
            let labels = CodeLabels { model: name.to_owned(), code: CodeLabel(code) };
            families.requests.get_or_create_owned(&labels)
        };
        Self {
            name: name.to_owned(),
            ok: requests(None),
            errors: Code::ALL.map(|code| requests(Some(code))),
            total: families.total.get_or_create_owned(&label),
            queue: families.queue.get_or_create_owned(&label),
            compute: families.compute.get_or_create_owned(&label),
            k: families.k.get_or_create_owned(&label),
            queued: families.queued.get_or_create_owned(&label),
            weight_bytes: families.weight_bytes.get_or_create_owned(&label),
            loads: families.loads.get_or_create_owned(&label),
            load_failures: families.load_failures.get_or_create_owned(&label),
            panics: families.panics.get_or_create_owned(&label),
            recent_us: Arc::clone(&families.recent_us),
            recent_k: Arc::clone(&families.recent_k),
            layers: ArcSwap::default(),
            success_total: Total::default(),
            fail_total: Total::default(),
            queue_total: Total::default(),
            input_total: Total::default(),
            infer_total: Total::default(),
            output_total: Total::default(),
            batches: Default::default(),
            last_inference_ms: AtomicU64::new(0),
        }
    }

    /// Notes an answer with outputs.
    pub fn note_answer(&self, observation: Observation<'_>) {
        let (queue, compute) = (observation.queue, observation.compute());
        self.ok.inc();
        self.total.observe((queue + compute).as_secs_f64());
        self.queue.observe(queue.as_secs_f64());
        self.compute.observe(compute.as_secs_f64());
        self.success_total.note(queue + compute);
        let us = u32::try_from((queue + compute).as_micros());
        self.recent_us.note(us.unwrap_or(u32::MAX));
        self.queue_total.note(queue);
        self.input_total.note(observation.compute_input);
        self.infer_total.note(observation.compute_infer);
        self.output_total.note(observation.compute_output);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.last_inference_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Notes one run of the model, for `batch` requests.
    pub fn note_run(&self, batch: usize, took: Duration, report: &RunReport) {
        if let Some(total) = self.batches.get(batch.clamp(1, BATCH_SIZES) - 1) {
            total.note(took);
        }
        let layers = self.layers.load();
        for layer in &report.layers {
            if let Some(load) = layers.get(layer.layer) {
                load.note(&layer.experts);
            }
        }
        if let Some(k) = report.layers.iter().map(|layer| layer.k).max() {
            self.k.observe(k as f64);
            self.recent_k.note(u32::try_from(k).unwrap_or(u32::MAX));
            self.weight_bytes.inc_by(report.weight_bytes_read());
        }
    }

    /// Notes an answer with an error, `took` after its request.
    pub fn note_error(&self, code: Code, took: Duration) {
        if let Some(counter) = self.errors.get(code as usize) {
            counter.inc();
        }
        self.fail_total.note(took);
    }

    pub fn note_queued(&self, requests: usize) {
        self.queued.set(i64::try_from(requests).unwrap_or(i64::MAX));
    }

    pub(super) fn queued(&self) -> usize {
        usize::try_from(self.queued.get()).unwrap_or_default()
    }

    pub fn note_panic(&self) {
        self.panics.inc();
    }

    /// Notes a load that went well; experts are counted anew.
    pub fn note_load(&self, layers: &[LayerInfo]) {
        self.loads.inc();
        self.layers.store(Arc::new(layers.iter().map(LayerLoad::new).collect()));
    }

    pub fn note_load_failure(&self) {
        self.load_failures.inc();
    }

    /// Requests since start that the model answered, and those that it failed on; others are
    /// nobody's fault but their sender's.
    pub fn outcomes(&self) -> (u64, u64) {
        let is_fault = |code: Code| matches!(code, Code::ModelFailed | Code::Internal);
        let errors = Code::ALL.into_iter().zip(&self.errors);
        let failed = errors.filter(|(code, _)| is_fault(*code)).map(|(_, count)| count.get());
        (self.ok.get(), failed.sum())
    }

    /// The counts since start, in the protocol's terms.
    pub fn statistics(&self) -> ModelStatistics {
        let last_ms = self.last_inference_ms.load(Ordering::Relaxed);
        let batches = self.batches.iter().map(Total::tally).enumerate();
        ModelStatistics {
            name: self.name.clone(),
            last_inference: (last_ms > 0).then(|| UNIX_EPOCH + Duration::from_millis(last_ms)),
            success: self.success_total.tally(),
            fail: self.fail_total.tally(),
            queue: self.queue_total.tally(),
            compute_input: self.input_total.tally(),
            compute_infer: self.infer_total.tally(),
            compute_output: self.output_total.tally(),
            batches: batches
                .map(|(i, tally)| (i + 1, tally))
                .filter(|(_, tally)| tally.count > 0)
                .collect(),
            ..ModelStatistics::default()
        }
    }
}
