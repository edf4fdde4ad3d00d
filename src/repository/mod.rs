//! The models that are there: found, verified, loaded beside what serves, swapped, kept.
//!
//! One thread looks into the models directories every few seconds and does what [`plan`] says; it
//! sleeps in between. A load that fails leaves what serves in its place and is tried again later.
//! Readers see [`slot`]s, without waiting. Knows neither queues nor transports: whoever started it
//! is told what has changed.

pub mod install;
pub mod load;
pub mod memory;
pub mod plan;
pub mod scan;
pub mod slot;
mod updates;
pub mod version;
mod watcher;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::engine::Backend;
use crate::infer::{Code, Done, InferError, InstallDone, InstallStep, ModelState, ModelStatus};
use crate::pipeline::intent::Home;
use install::trial::Outcomes;
use load::LoadSettings;
use slot::Slot;

/// Commands of the owner that wait while a model is loaded.
const COMMANDS_MAX: usize = 32;

/// Where models are and how they are loaded.
#[derive(Debug, Clone)]
pub struct RepositoryOptions {
    pub directories: Vec<PathBuf>,
    pub models_max: usize,
    /// Between two looks into the directories.
    pub poll_interval: Duration,
    pub load: LoadSettings,
    pub install: install::settings::Settings,
    /// Whose rooms and devices intents are about.
    pub home: Option<Arc<Home>>,
}

/// What has changed.
pub enum Event<'a> {
    /// A version serves that did not before.
    Serving(&'a Arc<Slot>),
    /// None serves any more, at its owner's wish.
    Unloaded(&'a Arc<Slot>),
    /// A load failed; what served before still does.
    Failed(&'a Arc<Slot>),
    /// The model is no longer there.
    Gone(&'a Arc<Slot>),
}

/// Is told what has changed, on the repository's thread.
pub type Observer = Box<dyn Fn(Event<'_>) + Send>;

/// What became of a model's requests since start.
pub type Count = Box<dyn Fn(&str) -> Outcomes + Send>;

/// Slots by name, as readers see them.
type Slots = ArcSwap<BTreeMap<Arc<str>, Arc<Slot>>>;

/// What the owner may ask for.
enum Command {
    Load(String, Done),
    Unload(String, Done),
    Rollback(String, Done),
    Install(InstallStep, InstallDone),
    Remove(String, Option<String>, Done),
    /// Look now, with this home.
    Renew(Option<Arc<Home>>),
    Stop,
}

/// A handle to all models.
pub struct Repository {
    slots: Arc<Slots>,
    commands: SyncSender<Command>,
    is_settled: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Repository {
    /// Starts the thread that looks after the models. `settled` is called once, when everything
    /// that was there at start has been loaded or has failed. Those that are `fixed` are in no
    /// directory, and serve from the start.
    pub fn start(
        backend: Box<dyn Backend>,
        options: RepositoryOptions,
        fixed: Vec<version::Version>,
        observer: Observer,
        count: Count,
        settled: Box<dyn FnOnce() + Send>,
    ) -> std::io::Result<Self> {
        let (commands, receiver) = sync_channel(COMMANDS_MAX);
        let slots = Arc::new(Slots::default());
        let is_settled = Arc::new(AtomicBool::new(false));
        let watcher = watcher::Watcher::new(backend, options, observer, count, Arc::clone(&slots));
        let flag = Arc::clone(&is_settled);
        let settled = move || {
            flag.store(true, Ordering::Release);
            settled();
        };
        let thread = std::thread::Builder::new()
            .name("moed-repository".to_owned())
            .spawn(move || watcher.run(fixed, &receiver, settled))?;
        Ok(Self { slots, commands, is_settled, thread: Mutex::new(Some(thread)) })
    }

    pub fn slot(&self, name: &str) -> Option<Arc<Slot>> {
        self.slots.load().get(name).map(Arc::clone)
    }

    /// All models, by name.
    pub fn slots(&self) -> Vec<Arc<Slot>> {
        self.slots.load().values().map(Arc::clone).collect()
    }

    /// Whether everything that was there at start has been loaded or has failed.
    pub fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Acquire)
    }

    /// Whether its thread is still there.
    pub fn is_live(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Loads the newest version, also one that was refused before.
    pub fn load(&self, name: &str, done: Done) {
        self.command(Command::Load(name.to_owned(), done));
    }

    /// Stops serving a model until it is loaded again.
    pub fn unload(&self, name: &str, done: Done) {
        self.command(Command::Unload(name.to_owned(), done));
    }

    /// Goes back to the version that served before, and stays there until files change.
    pub fn rollback(&self, name: &str, done: Done) {
        self.command(Command::Rollback(name.to_owned(), done));
    }

    /// Does one step of an installation.
    pub fn install(&self, step: InstallStep, done: InstallDone) {
        self.command(Command::Install(step, done));
    }

    /// Removes a version that was installed, or all of them.
    pub fn remove(&self, name: &str, version: Option<&str>, done: Done) {
        self.command(Command::Remove(name.to_owned(), version.map(str::to_owned), done));
    }

    /// Looks now, and loads what depends on the home again if that has changed.
    pub fn renew(&self, home: Option<Arc<Home>>) {
        self.command(Command::Renew(home));
    }

    fn command(&self, command: Command) {
        let refused = match self.commands.try_send(command) {
            Ok(()) => return,
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => command,
        };
        let text = "models: others are being loaded; try again in a few seconds";
        let error =
            InferError::new(Code::Unavailable, text).with_retry_after(Duration::from_secs(5));
        match refused {
            Command::Load(_, done)
            | Command::Unload(_, done)
            | Command::Rollback(_, done)
            | Command::Remove(_, _, done) => done(Err(error)),
            Command::Install(_, done) => done(Err(error)),
            // Both come again: the next look is seconds away, and `Drop` waits for the thread.
            Command::Renew(_) | Command::Stop => {}
        }
    }

    /// Stops looking. What serves goes on.
    pub fn stop(&self) {
        // Waits for room, unlike the others.
        if self.commands.send(Command::Stop).is_ok() {
            let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(thread) = thread {
                // Its panics are caught where they matter; here there is nobody to tell.
                drop(thread.join());
            }
        }
    }
}

impl Slot {
    /// How it stands with the model.
    pub fn status(&self) -> ModelStatus {
        let standing = self.standing();
        let current = self.current();
        let state = if current.is_some() { ModelState::Ready } else { standing.state };
        ModelStatus {
            name: self.name().to_string(),
            version: current.map(|one| one.version().to_string()).or(standing.version.clone()),
            state,
            reason: standing.reason.clone(),
        }
    }
}
