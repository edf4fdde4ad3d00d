//! The process around the daemon: starts it, tells systemd, obeys signals, stops it.
//!
//! On sockets that systemd holds, connections are accepted when all models are loaded: until then
//! clients wait, which a restart does not lose. On its own sockets, the daemon answers at once.
//! One thread does all input and output. SIGTERM and SIGINT stop: nothing new is accepted, what
//! was admitted is answered, within a bound. SIGHUP reads the configuration again; several of them
//! while that goes on are one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::board::Board;
use super::counters::{BrokerCounts, Connections};
use super::memory::give_back;
use super::systemd::{Extension, Status, Watchdog, tell, tell_reloading};
use super::{Daemon, Pretended, StartError};
use crate::config::{Config, ConfigError};
use crate::engine::Backend;
use crate::infer::{Admin, ModelState, Service as _};
use crate::metrics::process::resident_bytes;
use crate::transport::mqtt;
use crate::transport::unix::{Access, Counters, ListenError, Listener, serve};

impl ServeError {
    /// Whether only its owner can make it start: trying again will not.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Config(_) | Self::Start(StartError::Config(_) | StartError::Kernel(_)) => true,
            Self::Listen(error) => error.is_configuration(),
            Self::Start(_) | Self::Process(_) | Self::Drain(_) => false,
        }
    }
}

/// Why the process ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("process: {0}; free memory or raise its limits")]
    Process(#[from] std::io::Error),
    #[error("stop: requests were left after {} ms; raise `drain_max_ms`", .0.as_millis())]
    Drain(Duration),
}

/// What a process serves.
pub struct Plan {
    pub config: Config,
    pub backend: Box<dyn Backend>,
    pub pretended: Vec<Pretended>,
    pub listeners: Vec<Listener>,
}

/// Reads the configuration again, as it was read at start.
pub type Reread = Box<dyn Fn() -> Result<Config, ConfigError>>;

/// Serves until a signal says to stop.
pub fn run(plan: Plan, reread: &Reread) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run_on_runtime(plan, reread))
}

async fn run_on_runtime(plan: Plan, reread: &Reread) -> Result<(), ServeError> {
    let started = Instant::now();
    let Plan { config, backend, pretended, listeners } = plan;
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hang_up: signal(SignalKind::hangup())?,
    };
    let (settled, mut is_settled) = oneshot::channel();
    let settled = Box::new(move || {
        // Without a receiver, the process is stopping.
        let _ = settled.send(());
    });
    let counters = Arc::<Counters>::default();
    let broker_counters = Arc::<mqtt::Counters>::default();
    let mut counts: Vec<Box<dyn Collector>> = vec![Box::new(Connections(Arc::clone(&counters)))];
    if config.mqtt.is_some() {
        counts.push(Box::new(BrokerCounts(Arc::clone(&broker_counters))));
    }
    let daemon = Daemon::start(&config, backend, pretended, counts, settled)?;
    let daemon = Arc::new(daemon);
    let admin: Arc<dyn Admin> = Arc::<Daemon>::clone(&daemon);
    let (stop, stopped) = watch::channel(false);
    let settings = Arc::new(config.http.clone());
    let broker = mqtt_settings(&config).map(|settings| {
        let (admin, stopped) = (Arc::clone(&admin), stopped.clone());
        tokio::spawn(mqtt::serve(settings, admin, probe(&daemon), broker_counters, stopped))
    });
    let is_held = listeners.iter().any(Listener::is_inherited);
    let mut held = Some(serve(listeners, admin, Arc::clone(&settings), counters, stopped));
    let mut serving = if is_held { None } else { held.take().map(tokio::spawn) };
    let mut extension = Extension::new(started);
    let (mut watchdog, mut status) = (Watchdog::new(), Status::default());
    let mut is_ready_said = false;
    loop {
        tokio::select! {
            _ = &mut is_settled, if !is_ready_said => {
                is_ready_said = true;
                serving = serving.or_else(|| held.take().map(tokio::spawn));
                give_back();
                status.tell(&summary(&daemon));
                tell(&[NotifyState::Ready]);
                let ms = started.elapsed().as_millis();
                log::info!("ready after {ms} ms: {}", summary(&daemon));
            }
            Some(()) = signals.hang_up.recv() => reload(&daemon, reread, &config),
            Some(()) = signals.terminate.recv() => break,
            Some(()) = signals.interrupt.recv() => break,
            () = extension.tick(), if !is_ready_said => status.tell(&summary(&daemon)),
            () = daemon.changed() => {
                give_back();
                status.tell(&summary(&daemon));
            }
            () = watchdog.passed(|passed| daemon.probe(passed)) => {
                if daemon.is_live() {
                    tell(&[NotifyState::Watchdog]);
                }
            }
        }
    }
    log::info!("stopping: what was admitted is answered first");
    tell(&[NotifyState::Stopping]);
    daemon.announce_stop();
    // The sender's error is the receiver's end.
    let _ = stop.send(true);
    let transports = Transports { serving, broker };
    drain(daemon, transports, &mut signals, settings.stop_time_max).await
}

/// The tasks that let requests in, while they run.
struct Transports {
    serving: Option<JoinHandle<std::io::Result<()>>>,
    broker: Option<JoinHandle<Result<(), mqtt::SettingsError>>>,
}

/// Waits until what was admitted is answered, for `time_max`; another signal ends it at once.
async fn drain(
    daemon: Arc<Daemon>,
    transports: Transports,
    signals: &mut Signals,
    time_max: Duration,
) -> Result<(), ServeError> {
    let deadline = Instant::now() + time_max;
    let draining = tokio::task::spawn_blocking(move || daemon.stop(deadline));
    tokio::select! {
        drained = draining => {
            // The answers are on their way: connections end when they are written.
            if let Some(serving) = transports.serving {
                let _ = serving.await;
            }
            if let Some(broker) = transports.broker {
                let _ = broker.await;
            }
            match drained {
                Ok(true) => Ok(()),
                _ => Err(ServeError::Drain(time_max)),
            }
        }
        Some(()) = signals.terminate.recv() => Err(ServeError::Drain(Duration::ZERO)),
        Some(()) = signals.interrupt.recv() => Err(ServeError::Drain(Duration::ZERO)),
    }
}

/// The broker may not send more at a time than a model's queue takes: at QoS 1 it keeps the rest.
fn mqtt_settings(config: &Config) -> Option<Arc<mqtt::Settings>> {
    let mut settings = config.mqtt.clone()?;
    let queue_max = u16::try_from(config.scheduler.queue_requests_max).unwrap_or(u16::MAX);
    settings.requests_max = settings.requests_max.min(queue_max);
    Some(Arc::new(settings))
}

/// What is known of the board, and of the last answers.
fn probe(daemon: &Arc<Daemon>) -> mqtt::Probe {
    let (metrics, board) = (Arc::clone(&daemon.metrics), Board::new("/"));
    Arc::new(move || {
        let latency_ms = |quantile| metrics.latency(quantile).map(|took| took.as_secs_f64() * 1e3);
        mqtt::Health {
            temperature_celsius: board.temperature_celsius(),
            watts: board.watts(),
            k: metrics.k_mean(),
            queue: Some(metrics.queued() as f64),
            p50_ms: latency_ms(0.5),
            p99_ms: latency_ms(0.99),
            resident_bytes: resident_bytes().map(|bytes| bytes as f64),
            load: board.load(),
        }
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// Takes over what may change while the daemon runs. A bad configuration changes nothing.
fn reload(daemon: &Daemon, reread: &Reread, running: &Config) {
    tell_reloading();
    let reloaded = reread().and_then(|config| daemon.reload(&config).map(|()| config));
    match reloaded {
        Ok(config) => {
            log::set_max_level(config.log.level);
            log::info!("configuration: read again");
            if needs_restart(running, &config) {
                log::warn!(
                    "configuration: restart moed for all of it: only the home, its file and the \
                     log level change while it runs"
                );
            }
        }
        Err(error) => log::error!("configuration: {error}; what was read before stays"),
    }
    tell(&[NotifyState::Ready]);
}

fn needs_restart(running: &Config, read: &Config) -> bool {
    let fixed = |config: &Config| {
        let mut config = config.clone();
        config.models.home = None;
        config.log = running.log.clone();
        config
    };
    fixed(running) != fixed(read)
}

/// `intent 1.0.0, other: failed`
fn summary(daemon: &Daemon) -> String {
    let models = daemon.models();
    let texts: Vec<_> = models
        .iter()
        .map(|model| match (model.state, &model.version) {
            (ModelState::Ready, Some(version)) => format!("{} {version}", model.name),
            (state, _) => format!("{}: {state:?}", model.name).to_ascii_lowercase(),
        })
        .collect();
    if texts.is_empty() { "no models yet".to_owned() } else { texts.join(", ") }
}

/// The sockets that a configuration asks for, or those that systemd has passed.
///
/// Call it before the first thread is started: it takes variables out of the environment.
pub fn listeners(config: &Config, path: Option<PathBuf>) -> Result<Vec<Listener>, ListenError> {
    let mut listeners = Listener::from_systemd()?;
    if let Some(path) = path.filter(|_| listeners.is_empty()) {
        listeners.push(Listener::bind_unix(&path, Access::Everybody)?);
    }
    if let Some(path) = &config.socket.admin_path {
        listeners.push(Listener::bind_unix(path, Access::Owner)?);
    }
    if let Some(address) = config.socket.tcp_address {
        let listener = Listener::bind_tcp(address, config.socket.tcp_may_leave_host)?;
        listeners.push(listener);
    }
    Ok(listeners)
}
