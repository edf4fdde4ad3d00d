//! What the daemon tells the broker about itself: what it is, how it is, and how it stands with
//! each model. Each of them is a retained JSON object, made here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::counters::Counters;
use super::discovery;
use super::session::Session;
use super::settings::Settings;
use crate::infer::{Admin, ModelInfo, ModelRef, ModelState, ModelStatus};

/// Of what a client may rely on in topics and bodies.
const PROTOCOL: u32 = 1;

/// Models that are told of.
const MODELS_MAX: usize = 64;

/// How the board and the daemon are; `None` is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Health {
    /// Of the processor.
    pub temperature_celsius: Option<f64>,
    pub watts: Option<f64>,
    /// The largest k of a layer, on average over the last runs.
    pub k: Option<f64>,
    /// Requests that wait for a worker.
    pub queue: Option<f64>,
    /// From request to answer, of the last answers.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// Memory of the process.
    pub resident_bytes: Option<f64>,
    /// Of the last minute.
    pub load: Option<f64>,
}

/// Asks how it is. Must not block.
pub type Probe = Arc<dyn Fn() -> Health + Send + Sync>;

impl Health {
    /// By name, as in the document.
    pub(super) fn values(&self) -> [(&'static str, Option<f64>); 8] {
        [
            ("temperature_celsius", self.temperature_celsius),
            ("watts", self.watts),
            ("k", self.k),
            ("queue", self.queue),
            ("p50_ms", self.p50_ms),
            ("p99_ms", self.p99_ms),
            ("resident_bytes", self.resident_bytes),
            ("load", self.load),
        ]
    }
}

pub(super) struct State {
    settings: Arc<Settings>,
    service: Arc<dyn Admin>,
    probe: Probe,
    counters: Arc<Counters>,
    started: Instant,
    /// As they were told last.
    models: Vec<ModelStatus>,
}

impl State {
    pub(super) fn new(
        settings: Arc<Settings>,
        service: Arc<dyn Admin>,
        probe: Probe,
        counters: Arc<Counters>,
    ) -> Self {
        Self { settings, service, probe, counters, started: Instant::now(), models: Vec::new() }
    }

    pub(super) fn announce_all(&mut self, session: &mut Session) {
        self.announce_models(session);
        self.announce_health(session);
    }

    /// Tells of models that have changed.
    pub(super) fn announce_models(&mut self, session: &mut Session) {
        let models = self.known_models();
        if models == self.models {
            return;
        }
        let names: BTreeSet<&str> = models.iter().map(|model| model.name.as_str()).collect();
        for gone in self.models.iter().filter(|model| !names.contains(model.name.as_str())) {
            session.withdraw(&session.topics().model_state(&gone.name));
        }
        for model in &models {
            let topic = session.topics().model_state(&model.name);
            let info = self.info_of(&model.name);
            session.announce(topic, model_document(model, info.as_deref()).to_string());
        }
        self.models = models;
        self.announce_about(session);
    }

    pub(super) fn announce_health(&mut self, session: &mut Session) {
        let health = (self.probe)();
        let mut document: Map<String, Value> = health
            .values()
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), json!(value?))))
            .collect();
        let counters = &self.counters;
        for (name, value) in [
            ("live", json!(self.service.is_live())),
            ("ready", json!(self.service.is_ready())),
            ("uptime_s", json!(self.started.elapsed().as_secs())),
            ("requests", json!(counters.requests.get())),
            ("replies", json!(counters.replies.get())),
            ("replies_expired", json!(counters.replies_expired.get())),
            ("replies_refused", json!(counters.replies_refused.get())),
            ("replies_dropped", json!(counters.replies_dropped.get())),
            ("overloads", json!(counters.overloads.get())),
            ("settled", json!(counters.settled())),
            ("connects", json!(counters.connects.get())),
            ("waiting", json!(session.waiting())),
            ("unsent", json!(session.unsent())),
        ] {
            document.insert(name.to_owned(), value);
        }
        session.announce(session.topics().health(), Value::Object(document).to_string());
        // Some figures are there only after the first answer: Home Assistant is told of them then.
        self.announce_about(session);
    }

    /// Tells what the daemon is, and Home Assistant what to make of it.
    fn announce_about(&self, session: &mut Session) {
        let infos: Vec<Arc<ModelInfo>> =
            self.models.iter().filter_map(|model| self.info_of(&model.name)).collect();
        session.announce(session.topics().info(), self.about(&infos).to_string());
        if let Some(topic) = session.topics().discovery() {
            let has = (self.probe)();
            let document = discovery::document(&self.settings, session.topics(), &infos, &has);
            session.announce(topic, document.to_string());
        }
    }

    fn about(&self, infos: &[Arc<ModelInfo>]) -> Value {
        let model = |info: &Arc<ModelInfo>| {
            json!({
                "name": info.name, "version": info.version, "task": info.task,
                "k_max": info.k.map(|(_, max)| max),
            })
        };
        json!({
            "name": "moed",
            "version": env!("CARGO_PKG_VERSION"),
            "protocol": PROTOCOL,
            "node": self.settings.node,
            "packet_bytes_max": self.settings.packet_bytes_max,
            "requests_max": self.settings.requests_max,
            "deadline_default_ms": self.settings.deadline_default.as_millis() as u64,
            "deadline_max_ms": self.settings.deadline_max.as_millis() as u64,
            "admin": self.settings.is_admin_allowed,
            "pool": self.settings.pool,
            "models": infos.iter().map(model).collect::<Vec<_>>(),
        })
    }

    fn known_models(&self) -> Vec<ModelStatus> {
        // Others could not be asked for over MQTT.
        let can_be_told = |model: &ModelStatus| super::topics::is_level(&model.name);
        self.service.models().into_iter().filter(can_be_told).take(MODELS_MAX).collect()
    }

    fn info_of(&self, name: &str) -> Option<Arc<ModelInfo>> {
        self.service.model(&ModelRef { name: name.to_owned(), version: None }).ok()
    }
}

fn word(state: ModelState) -> &'static str {
    match state {
        ModelState::Loading => "loading",
        ModelState::Ready => "ready",
        ModelState::Unloaded => "unloaded",
        ModelState::Failed => "failed",
    }
}

fn model_document(model: &ModelStatus, info: Option<&ModelInfo>) -> Value {
    let serving = info.map(|info| &info.version);
    let latest = info.and_then(|info| info.versions.last());
    json!({
        "state": word(model.state),
        "ready": model.state == ModelState::Ready,
        "version": serving.or(model.version.as_ref()),
        "latest_version": model.version.as_ref().or(latest).or(serving),
        "reason": model.reason,
    })
}
