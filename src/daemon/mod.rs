//! The composition root: puts repository, scheduler, metrics and transports together, starts them
//! in order and stops them in the other.
//!
//! [`Daemon`] is what transports see; [`serve`] is the process around it: signals, listeners,
//! systemd. Here and nowhere else everything knows everything.

pub mod board;
mod counters;
pub mod log;
pub mod memory;
pub mod serve;
mod systemd;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use tokio::sync::Notify;

use crate::bundle::Limits;
use crate::config::environment::Environment;
use crate::config::{self, Config, ConfigError};
use crate::engine::kernel::{self, SelectError};
use crate::engine::{Backend, Model};
use crate::infer::{
    Admin, Code, Done, InferError, InferRequest, InstallDone, InstallStep, ModelInfo, ModelRef,
    ModelState, ModelStatistics, ModelStatus, Service,
};
use crate::metrics::Metrics;
use crate::pipeline::intent::Home;
use crate::repository::install::settings::Settings as InstallSettings;
use crate::repository::install::trial::Outcomes;
use crate::repository::load::LoadSettings;
use crate::repository::slot::Slot;
use crate::repository::version::Version;
use crate::repository::{Event, Repository, RepositoryOptions};
use crate::scheduler::probe::Passed;
use crate::scheduler::{Scheduler, not_found, shown};
use crate::transport::mqtt;

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Kernel(#[from] SelectError),
    #[error("threads: can't be started: {0}; free memory or raise the limit")]
    Threads(std::io::Error),
    #[error("model `{name}`: {cause}")]
    Pretended { name: String, cause: String },
}

/// When to come back, while models are being looked for.
const STARTING: Duration = Duration::from_secs(1);

/// Everything that answers.
pub struct Daemon {
    repository: Repository,
    scheduler: Arc<Scheduler>,
    metrics: Arc<Metrics>,
    is_stopping: AtomicBool,
    /// Woken when something has changed in the repository.
    changed: Arc<Notify>,
}

/// A model that is in no directory: pretended, for tests of what talks to the daemon.
pub type Pretended = (String, Box<dyn Model>);

impl Daemon {
    /// Starts loading the models that are there; `settled` is called when that is done. `counts`
    /// are exposed among the metrics.
    pub fn start(
        config: &Config,
        backend: Box<dyn Backend>,
        pretended: Vec<Pretended>,
        counts: Vec<Box<dyn Collector>>,
        settled: Box<dyn FnOnce() + Send>,
    ) -> Result<Self, StartError> {
        let kernel = kernel::active()?;
        let metrics = Arc::new(Metrics::new(kernel.name(), counts));
        let home = read_home(config)?;
        let scheduler = Scheduler::start(config.scheduler.clone()).map_err(StartError::Threads)?;
        let scheduler = Arc::new(scheduler);
        let mut fixed = Vec::new();
        for (name, model) in pretended {
            let version = Version::plain(&name, model);
            fixed.push(version.map_err(|cause| StartError::Pretended { name, cause })?);
        }
        let options = RepositoryOptions {
            directories: config.models.directories.clone(),
            models_max: config.models.models_max,
            poll_interval: config.models.poll_interval,
            load: load_settings(config),
            install: install_settings(config),
            home,
        };
        let changed = Arc::<Notify>::default();
        let observer = {
            let (scheduler, metrics) = (Arc::clone(&scheduler), Arc::clone(&metrics));
            let changed = Arc::clone(&changed);
            Box::new(move |event: Event<'_>| {
                note(&scheduler, &metrics, &event);
                changed.notify_one();
            })
        };
        let count = {
            let metrics = Arc::clone(&metrics);
            Box::new(move |name: &str| {
                let (answered, failed) = metrics.model(name).outcomes();
                Outcomes { answered, failed }
            })
        };
        let repository = Repository::start(backend, options, fixed, observer, count, settled);
        let repository = repository.map_err(StartError::Threads)?;
        let is_stopping = AtomicBool::new(false);
        Ok(Self { repository, scheduler, metrics, is_stopping, changed })
    }

    /// Takes over what may change while the daemon runs: the home, and what is in the models
    /// directories.
    pub fn reload(&self, config: &Config) -> Result<(), ConfigError> {
        self.repository.renew(read_home(config)?);
        Ok(())
    }

    /// Whether everything that was there at start has been loaded or has failed.
    pub fn is_settled(&self) -> bool {
        self.repository.is_settled()
    }

    /// Returns when something has changed in the repository since it returned last.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Calls `passed` when every worker has shown that it works: see [`Scheduler::probe`].
    pub fn probe(&self, passed: Passed) {
        self.scheduler.probe(passed);
    }

    /// From now on, it says that it is not ready.
    pub fn announce_stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// Answers what was admitted, at the latest at `deadline`; returns whether all was computed.
    pub fn stop(&self, deadline: Instant) -> bool {
        self.announce_stop();
        let is_complete = self.scheduler.close(deadline);
        self.repository.stop();
        is_complete
    }

    fn slot(&self, model: &ModelRef) -> Result<Arc<Slot>, InferError> {
        self.repository.slot(&model.name).ok_or_else(|| {
            if !self.is_settled() {
                let name = shown(&model.name);
                let text = format!("model `{name}`: moed is still starting; try again in a second");
                return InferError::new(Code::Unavailable, text).with_retry_after(STARTING);
            }
            let slots = self.repository.slots();
            not_found(&model.name, slots.iter().map(|slot| &**slot.name()))
        })
    }

    fn version(&self, model: &ModelRef) -> Result<Arc<Version>, InferError> {
        let slot = self.slot(model)?;
        let Some(version) = slot.current() else {
            let text = format!("model `{}`: not ready; try again later", slot.name());
            return Err(InferError::new(Code::Unavailable, text));
        };
        match &model.version {
            Some(wanted) if **wanted != **version.version() => {
                let (wanted, serving) = (shown(wanted), version.version());
                let text = format!(
                    "model `{}`: version {wanted}: not here; {serving} serves",
                    slot.name()
                );
                Err(InferError::new(Code::NotFound, text))
            }
            _ => Ok(version),
        }
    }

    fn statistics_of(&self, version: &Version) -> ModelStatistics {
        ModelStatistics {
            version: version.version().to_string(),
            resident_bytes: version.info().resident_bytes,
            ..self.metrics.model(version.name()).statistics()
        }
    }

    fn status(&self, slot: &Slot) -> ModelStatus {
        let status = slot.status();
        match self.scheduler.quarantine(slot.name()) {
            Some(reason) => {
                ModelStatus { state: ModelState::Failed, reason: Some(reason), ..status }
            }
            None => status,
        }
    }
}

impl Service for Daemon {
    fn submit(&self, request: InferRequest) {
        // A model that has never been loaded has no queue yet.
        match self.slot(&request.model) {
            Ok(_) if self.scheduler.serves(&request.model.name) => self.scheduler.submit(request),
            Ok(slot) => {
                let text = format!("model `{}`: not ready; try again later", slot.name());
                request.reply.send(Err(InferError::new(Code::Unavailable, text)));
            }
            Err(error) => request.reply.send(Err(error)),
        }
    }

    fn models(&self) -> Vec<ModelStatus> {
        self.repository.slots().iter().map(|slot| self.status(slot)).collect()
    }

    fn model(&self, model: &ModelRef) -> Result<Arc<ModelInfo>, InferError> {
        self.version(model).map(|version| Arc::clone(version.info()))
    }

    fn statistics(&self, model: Option<&ModelRef>) -> Result<Vec<ModelStatistics>, InferError> {
        match model {
            Some(model) => Ok(vec![self.statistics_of(&*self.version(model)?)]),
            None => {
                let slots = self.repository.slots();
                let versions = slots.iter().filter_map(|slot| slot.current());
                Ok(versions.map(|version| self.statistics_of(&version)).collect())
            }
        }
    }

    fn is_live(&self) -> bool {
        self.scheduler.is_live() && (self.repository.is_live() || self.is_stopping())
    }

    fn is_ready(&self) -> bool {
        let should_serve = |slot: &Arc<Slot>| self.status(slot).state != ModelState::Unloaded;
        let serves = |slot: &Arc<Slot>| self.status(slot).state == ModelState::Ready;
        let slots = self.repository.slots();
        self.is_settled()
            && !self.is_stopping()
            && slots.iter().filter(|slot| should_serve(slot)).all(serves)
    }

    fn exposition(&self) -> String {
        self.metrics.exposition()
    }
}

impl Admin for Daemon {
    fn load(&self, name: &str, done: Done) {
        self.repository.load(name, done);
    }

    fn unload(&self, name: &str, done: Done) {
        self.repository.unload(name, done);
    }

    fn rollback(&self, name: &str, done: Done) {
        self.repository.rollback(name, done);
    }

    fn install(&self, step: InstallStep, done: InstallDone) {
        self.repository.install(step, done);
    }

    fn remove(&self, name: &str, version: Option<&str>, done: Done) {
        self.repository.remove(name, version, done);
    }
}

impl Daemon {
    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }
}

/// How the configuration wants bundles to be loaded.
pub fn load_settings(config: &Config) -> LoadSettings {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    LoadSettings {
        threads: if config.models.threads == 0 { processors } else { config.models.threads },
        limits: Limits::default(),
        is_memory_checked: config.models.memory_check,
        unpack_dir: config
            .models
            .unpack_dir
            .clone()
            .unwrap_or_else(|| Environment::read().unpack_dir()),
    }
}

/// What may be installed, and where. Without a directory of its own, and with models directories
/// that were chosen, nowhere: what is served is then what lies in those.
pub fn install_settings(config: &Config) -> InstallSettings {
    let is_default = config.models.directories == config::MODEL_DIRECTORIES.map(PathBuf::from);
    let default = || is_default.then(|| Environment::read().install_dir());
    let directory = config.install.directory.clone().or_else(default);
    InstallSettings { directory, ..config.install.clone() }
}

/// The home that the configuration names.
pub fn read_home(config: &Config) -> Result<Option<Arc<Home>>, ConfigError> {
    config.models.home.as_deref().map(|path| config::home::read(path).map(Arc::new)).transpose()
}

/// Asks the broker whether it would take this daemon; takes some seconds if it is not there.
///
/// # Errors
/// Why not, in words.
pub fn reach_broker(settings: &mqtt::Settings) -> Result<mqtt::Reached, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(mqtt::reach(settings))
}

/// Tells everybody what has changed in the repository.
fn note(scheduler: &Scheduler, metrics: &Metrics, event: &Event<'_>) {
    match event {
        Event::Serving(slot) => {
            if let Some(version) = slot.current() {
                metrics.model(slot.name()).note_load(version.layers());
            }
            if let Err(error) = scheduler.serve(slot, metrics) {
                let name = &**slot.name();
                ::log::error!(MODEL = name; "model {name}: its workers can't be started: {error}");
            }
        }
        Event::Unloaded(slot) => scheduler.renew(slot.name()),
        Event::Failed(slot) => metrics.model(slot.name()).note_load_failure(),
        Event::Gone(slot) => scheduler.forget(slot.name()),
    }
}
