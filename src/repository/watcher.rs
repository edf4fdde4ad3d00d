//! The thread that looks after the models: looks, loads, swaps, and does what the owner asks.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::install::Installer;
use super::install::store::Store;
use super::load::{Loaded, RefusedError, load};
use super::plan::Plan;
use super::scan::{Candidate, Found, scan};
use super::slot::{Slot, Standing};
use super::updates::Trials;
use super::version::Version;
use super::{Command, Count, Event, Observer, RepositoryOptions, Slots};
use crate::bundle::remove_leftovers;
use crate::engine::Backend;
use crate::infer::{Code, Done, InferError, ModelState};
use crate::pipeline::intent::Home;

/// How often the counts of a version on trial are looked at.
const TRIAL_INTERVAL: Duration = Duration::from_millis(200);

/// What the thread owns.
pub struct Watcher {
    pub(super) backend: Box<dyn Backend>,
    pub(super) options: RepositoryOptions,
    pub(super) observer: Observer,
    pub(super) count: Count,
    slots: Arc<Slots>,
    pub(super) plans: BTreeMap<String, Plan>,
    random: RandomState,
    pub(super) installer: Installer,
    pub(super) trials: Trials,
}

/// What a command does with the model that it names, and with its versions on disk.
type Act = fn(&mut Watcher, &Arc<Slot>, &[Candidate]) -> Result<(), InferError>;

impl Watcher {
    pub fn new(
        backend: Box<dyn Backend>,
        options: RepositoryOptions,
        observer: Observer,
        count: Count,
        slots: Arc<Slots>,
    ) -> Self {
        let (plans, random, trials) = (BTreeMap::new(), RandomState::new(), Trials::default());
        let limits = options.load.limits.clone();
        let installer = Installer::new(options.install.clone(), limits);
        Self { backend, options, observer, count, slots, plans, random, installer, trials }
    }

    /// Runs until it is told to stop.
    pub fn run(
        mut self,
        fixed: Vec<Version>,
        commands: &Receiver<Command>,
        settled: impl FnOnce(),
    ) {
        self.tidy();
        self.resume_trials();
        for version in fixed {
            let slot = self.slot(version.name());
            slot.serve(Some(Arc::new(version)));
            (self.observer)(Event::Serving(&slot));
        }
        self.look();
        settled();
        let mut looked = Instant::now();
        loop {
            let poll = self.options.poll_interval;
            let wait = if self.trials.is_empty() { poll } else { poll.min(TRIAL_INTERVAL) };
            match commands.recv_timeout(wait) {
                Ok(Command::Load(name, done)) => {
                    self.restore(&name);
                    self.command(&name, done, Self::load_newest);
                }
                Ok(Command::Unload(name, done)) => self.command(&name, done, Self::unload),
                Ok(Command::Rollback(name, done)) => self.command(&name, done, Self::roll_back),
                Ok(Command::Install(step, done)) => done(self.install(step)),
                Ok(Command::Remove(name, version, done)) => {
                    done(self.remove(&name, version.as_deref()));
                }
                Ok(Command::Renew(home)) => {
                    self.renew(home);
                    self.look();
                }
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.suspend_trials();
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.judge_trials();
            if looked.elapsed() >= poll {
                looked = Instant::now();
                self.installer.expire(looked);
                self.look();
            }
        }
    }

    /// Removes what a power cut has left of an unpacking.
    fn tidy(&self) {
        let folder = &self.options.load.unpack_dir;
        if let Err(error) = remove_leftovers(folder)
            && folder.exists()
        {
            log::warn!("{}: can't be tidied: {error}", folder.display());
        }
        if let Some(store) = self.installer.store()
            && let Err(error) = store.tidy()
        {
            log::warn!("{}: can't be tidied: {error}", store.dir().display());
        }
    }

    /// Looks at the directories and loads what is to be loaded.
    pub(super) fn look(&mut self) {
        let found = self.scan();
        for (name, candidates) in &found {
            let plan = self.plans.entry(name.clone()).or_default();
            plan.note_found(candidates);
            let slot = self.slot(name);
            // Each time round loads one version or notes that it failed, so this ends.
            while let Some(candidate) = self.next(name, candidates) {
                if self.load(&slot, candidate).is_ok() {
                    break;
                }
            }
        }
        let missing: Vec<_> =
            self.plans.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        for name in missing {
            if self.plans.get_mut(&name).is_some_and(|plan| plan.note_found(&[])) {
                self.forget(&name);
            }
        }
    }

    pub(super) fn scan(&self) -> Found {
        let installed = self.installer.store().map(Store::dir);
        scan(&self.options.directories, installed, self.options.models_max)
    }

    pub(super) fn next<'a>(&self, name: &str, found: &'a [Candidate]) -> Option<&'a Candidate> {
        self.plans.get(name).and_then(|plan| plan.next(Instant::now(), found))
    }

    pub(super) fn slot(&self, name: &str) -> Arc<Slot> {
        let slots = self.slots.load_full();
        if let Some(slot) = slots.get(name) {
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot::new(name));
        let mut slots = (*slots).clone();
        slots.insert(Arc::clone(slot.name()), Arc::clone(&slot));
        self.slots.store(Arc::new(slots));
        slot
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.plans.remove(name);
        let mut slots = (*self.slots.load_full()).clone();
        let slot = slots.remove(name);
        self.slots.store(Arc::new(slots));
        if let Some(slot) = slot {
            slot.serve(None);
            log::info!(MODEL = name; "model {name}: gone from the models directories");
            (self.observer)(Event::Gone(&slot));
        }
    }

    /// Loads a candidate and lets it serve; if that fails, what serves goes on.
    fn load(&mut self, slot: &Arc<Slot>, candidate: &Candidate) -> Result<(), InferError> {
        let start = Instant::now();
        let name = slot.name();
        match self.load_only(name, candidate) {
            Ok(loaded) => {
                self.serve(slot, candidate, loaded, start);
                Ok(())
            }
            Err(error) => {
                let now = Instant::now();
                let plan = self.plans.entry(name.to_string()).or_default();
                let jitter = self.random.hash_one(candidate.fingerprint) % 1000;
                plan.note_failed(candidate, now, jitter as f64 / 1000.0);
                let reason = self.note_refused(slot, candidate, &error);
                Err(InferError::new(Code::Unavailable, format!("model `{name}`: {reason}")))
            }
        }
    }

    pub(super) fn load_only(
        &self,
        name: &str,
        candidate: &Candidate,
    ) -> Result<Loaded, RefusedError> {
        let home = self.options.home.as_ref();
        load(name, candidate, &*self.backend, &self.options.load, home)
    }

    /// Lets what was loaded since `start` serve.
    pub(super) fn serve(
        &mut self,
        slot: &Arc<Slot>,
        candidate: &Candidate,
        loaded: Loaded,
        start: Instant,
    ) {
        let name = slot.name();
        self.plans.entry(name.to_string()).or_default().note_loaded(candidate);
        let Loaded { version, golden_cases, golden_error_max } = loaded;
        let number = version.version().to_string();
        log::info!(
            MODEL = &**name;
            "model {name}: version {number} serves: loaded in {} ms; {golden_cases} recorded \
             answers reproduced, largest error {:.0}% of what is allowed",
            start.elapsed().as_millis(),
            golden_error_max * 100.0,
        );
        slot.stand(Standing { state: ModelState::Ready, version: Some(number), reason: None });
        slot.serve(Some(Arc::new(version)));
        (self.observer)(Event::Serving(slot));
    }

    fn note_refused(
        &self,
        slot: &Arc<Slot>,
        candidate: &Candidate,
        error: &RefusedError,
    ) -> String {
        let name = slot.name();
        let version = candidate.version.map(|version| version.to_string());
        let reason = match &version {
            Some(version) => format!("version {version}: {error}"),
            None => error.to_string(),
        };
        // Said once, not at each try.
        if slot.standing().reason.as_ref() != Some(&reason) {
            let path = candidate.path.display();
            log::error!(MODEL = &**name; "model {name}: {path}: can't be loaded: {error}");
        }
        let state = if slot.current().is_some() { ModelState::Ready } else { ModelState::Failed };
        slot.stand(Standing { state, version, reason: Some(reason.clone()) });
        (self.observer)(Event::Failed(slot));
        reason
    }

    /// Does what the owner asks with one model, and says how it went.
    fn command(&mut self, name: &str, done: Done, act: Act) {
        let found = self.scan().remove(name).unwrap_or_default();
        let slot = self.slots.load().get(name).map(Arc::clone);
        let slot = slot.or_else(|| (!found.is_empty()).then(|| self.slot(name)));
        done(match slot {
            Some(slot) => act(self, &slot, &found),
            None => {
                let name = name.escape_debug().take(64).collect::<String>();
                let text = format!("model `{name}`: not found in the models directories");
                Err(InferError::new(Code::NotFound, text))
            }
        });
    }

    fn load_newest(&mut self, slot: &Arc<Slot>, found: &[Candidate]) -> Result<(), InferError> {
        self.plans.entry(slot.name().to_string()).or_default().load();
        match self.next(slot.name(), found) {
            Some(candidate) => self.load(slot, candidate),
            None => Err(unavailable(slot, "its files are gone; put them back")),
        }
    }

    fn unload(&mut self, slot: &Arc<Slot>, _found: &[Candidate]) -> Result<(), InferError> {
        self.plans.entry(slot.name().to_string()).or_default().unload();
        let (state, reason) =
            (ModelState::Unloaded, Some("unloaded; load it to use it".to_owned()));
        slot.stand(Standing { state, version: None, reason });
        slot.serve(None);
        log::info!(MODEL = &**slot.name(); "model {}: unloaded", slot.name());
        (self.observer)(Event::Unloaded(slot));
        Ok(())
    }

    pub(super) fn roll_back(
        &mut self,
        slot: &Arc<Slot>,
        found: &[Candidate],
    ) -> Result<(), InferError> {
        let plan = self.plans.entry(slot.name().to_string()).or_default();
        let Some(candidate) = plan.rollback(found) else {
            let text = "no earlier version is here; install one, or keep versions beside each \
                        other, NAME/1.0.0";
            return Err(unavailable(slot, text));
        };
        let from = std::mem::take(plan);
        let loaded = self.load(slot, candidate);
        let left = from.serving().cloned();
        let plan = self.plans.entry(slot.name().to_string()).or_default();
        *plan = from;
        if loaded.is_ok() {
            plan.note_rolled_back(candidate);
            if let Some(left) = left {
                self.withdraw(slot.name(), &left);
            }
        }
        loaded
    }

    /// With another home, what serves is loaded again, so that its answers name what is there.
    fn renew(&mut self, home: Option<Arc<Home>>) {
        if self.options.home != home {
            self.options.home = home;
            self.plans.values_mut().for_each(Plan::renew);
        }
    }
}

fn unavailable(slot: &Slot, cause: &str) -> InferError {
    InferError::new(Code::Unavailable, format!("model `{}`: {cause}", slot.name()))
}
