//! The thread that looks after the models: looks, loads, swaps, and does what the owner asks.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use super::load::{Loaded, RefusedError, load};
use super::plan::Plan;
use super::scan::{Candidate, Found, scan};
use super::slot::{Slot, Standing};
use super::version::Version;
use super::{Command, Event, Observer, RepositoryOptions, Slots};
use crate::bundle::remove_leftovers;
use crate::engine::Backend;
use crate::infer::{Code, Done, InferError, ModelState};
use crate::pipeline::intent::Home;

/// What the thread owns.
pub struct Watcher {
    backend: Box<dyn Backend>,
    options: RepositoryOptions,
    observer: Observer,
    slots: Arc<Slots>,
    plans: BTreeMap<String, Plan>,
    random: RandomState,
}

/// What a command does with the model that it names, and with its versions on disk.
type Act = fn(&mut Watcher, &Arc<Slot>, &[Candidate]) -> Result<(), InferError>;

impl Watcher {
    pub fn new(
        backend: Box<dyn Backend>,
        options: RepositoryOptions,
        observer: Observer,
        slots: Arc<Slots>,
    ) -> Self {
        let (plans, random) = (BTreeMap::new(), RandomState::new());
        Self { backend, options, observer, slots, plans, random }
    }

    /// Runs until it is told to stop.
    pub fn run(
        mut self,
        fixed: Vec<Version>,
        commands: &Receiver<Command>,
        settled: impl FnOnce(),
    ) {
        self.tidy();
        for version in fixed {
            let slot = self.slot(version.name());
            slot.serve(Some(Arc::new(version)));
            (self.observer)(Event::Serving(&slot));
        }
        self.look();
        settled();
        loop {
            match commands.recv_timeout(self.options.poll_interval) {
                Ok(Command::Load(name, done)) => self.command(&name, done, Self::load_newest),
                Ok(Command::Unload(name, done)) => self.command(&name, done, Self::unload),
                Ok(Command::Rollback(name, done)) => self.command(&name, done, Self::roll_back),
                Ok(Command::Renew(home)) => {
                    self.renew(home);
                    self.look();
                }
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.look(),
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
    }

    /// Looks at the directories and loads what is to be loaded.
    fn look(&mut self) {
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

    fn scan(&self) -> Found {
        scan(&self.options.directories, self.options.models_max)
    }

    fn next<'a>(&self, name: &str, found: &'a [Candidate]) -> Option<&'a Candidate> {
        self.plans.get(name).and_then(|plan| plan.next(Instant::now(), found))
    }

    fn slot(&self, name: &str) -> Arc<Slot> {
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

    fn forget(&mut self, name: &str) {
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
        let home = self.options.home.as_ref();
        let loaded = load(name, candidate, &*self.backend, &self.options.load, home);
        let now = Instant::now();
        let plan = self.plans.entry(name.to_string()).or_default();
        match loaded {
            Ok(loaded) => {
                plan.note_loaded(candidate);
                let Loaded { version, golden_cases, golden_error_max } = loaded;
                let number = version.version().to_string();
                log::info!(
                    MODEL = &**name;
                    "model {name}: version {number} serves: loaded in {} ms; {golden_cases} \
                     recorded answers reproduced, largest error {:.0}% of what is allowed",
                    (now - start).as_millis(),
                    golden_error_max * 100.0,
                );
                let (state, reason) = (ModelState::Ready, None);
                slot.stand(Standing { state, version: Some(number), reason });
                slot.serve(Some(Arc::new(version)));
                (self.observer)(Event::Serving(slot));
                Ok(())
            }
            Err(error) => {
                let jitter = self.random.hash_one(candidate.fingerprint) % 1000;
                plan.note_failed(candidate, now, jitter as f64 / 1000.0);
                let reason = self.note_refused(slot, candidate, &error);
                Err(InferError::new(Code::Unavailable, format!("model `{name}`: {reason}")))
            }
        }
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

    fn roll_back(&mut self, slot: &Arc<Slot>, found: &[Candidate]) -> Result<(), InferError> {
        let plan = self.plans.entry(slot.name().to_string()).or_default();
        let Some(candidate) = plan.rollback(found) else {
            let text = "no earlier version is here; keep versions beside each other, NAME/1.0.0";
            return Err(unavailable(slot, text));
        };
        let from = std::mem::take(plan);
        let loaded = self.load(slot, candidate);
        let plan = self.plans.entry(slot.name().to_string()).or_default();
        *plan = from;
        if loaded.is_ok() {
            plan.note_rolled_back(candidate);
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
