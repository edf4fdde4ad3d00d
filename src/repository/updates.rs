//! What the repository's thread does with models that are installed: lets them serve once they
//! have given their recorded answers, watches their first requests, goes back if too many fail.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::install::store::{OnTrial, Store};
use super::install::trial::{Trial, Verdict};
use super::install::{InstallError, Next, Staged};
use super::load::{Loaded, RefusedError};
use super::scan::{Candidate, is_bundle};
use super::slot::{Slot, Standing};
use super::watcher::Watcher;
use crate::bundle::{MANIFEST, Version};
use crate::infer::{Code, InferError, InstallProgress, InstallStep, Installed, ModelState};

/// A version on trial that was started so often, and never ran for [`STEADY`], ends the process.
const STARTS_MAX: u32 = 3;
const STEADY: Duration = Duration::from_secs(60);

/// Versions on trial, by model.
#[derive(Default)]
pub struct Trials(BTreeMap<String, Running>);

struct Running {
    trial: Trial,
    version: Version,
    since: Instant,
    /// Whether it is noted on the disk that it was started.
    is_start_noted: bool,
}

impl Trials {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Watcher {
    pub(super) fn install(&mut self, step: InstallStep) -> Result<InstallProgress, InferError> {
        match self.installer.step(step, Instant::now())? {
            Next::Receive(upload, offset) => Ok(InstallProgress::Receiving { upload, offset }),
            Next::Aborted => Ok(InstallProgress::Aborted),
            Next::Load(staged) => {
                let installed = self.load_staged(&staged);
                self.installer.forget();
                Ok(InstallProgress::Installed(installed?))
            }
        }
    }

    /// Loads what was received, beside what serves; publishes it if it does as it should.
    fn load_staged(&mut self, staged: &Staged) -> Result<Installed, InferError> {
        let start = Instant::now();
        let store = self.installer.store().cloned().ok_or(InstallError::NoDirectory)?;
        let manifest = staged.bundle.manifest();
        let (name, version) = (manifest.name.as_str(), manifest.version);
        let found = self.scan();
        if !found.contains_key(name) && found.len() >= self.options.models_max {
            return Err(InstallError::Models(self.options.models_max).into());
        }
        if is_bundle(&store.dir().join(name)) {
            let error = InstallError::Version {
                name: name.to_owned(),
                version: version.to_string(),
                cause: format!(
                    "a bundle lies where its versions belong: move {name} to {name}/VERSION first"
                ),
            };
            return Err(error.into());
        }
        let serving = self.plans.get(name).and_then(|plan| plan.serving()).cloned();
        let current = found.get(name).map(|_| self.slot(name)).and_then(|slot| slot.current());
        let previous = current.map(|current| current.version().to_string());
        let mut installed = Installed {
            model: name.to_owned(),
            version: version.to_string(),
            previous,
            is_new: true,
            trial_requests: 0,
            written_bytes: staged.written_bytes,
        };
        if let Some(serving) = &serving
            && is_there(staged, serving, installed.previous.as_deref())?
        {
            return Ok(Installed { is_new: false, ..installed });
        }
        let candidate = Candidate {
            path: staged.bundle.dir().to_owned(),
            is_archive: false,
            version: Some(version),
            fingerprint: 0,
        };
        let loaded = self.load_only(name, &candidate).map_err(|error| refused(name, &error))?;
        let trial = Trial::begin(self.installer.settings().trial, (self.count)(name));
        let trial = trial.filter(|_| serving.is_some());
        publish(&store, staged, trial.is_some()).map_err(disk)?;
        let place = store.place(name, version);
        let found = self.scan().remove(name).unwrap_or_default();
        let candidate = found.into_iter().find(|one| one.path == place);
        let candidate = candidate.ok_or_else(|| disk(io::ErrorKind::NotFound.into()))?;
        self.accept(&candidate, loaded, start);
        if let Some(trial) = trial {
            installed.trial_requests = self.installer.settings().trial.requests;
            let (name, since) = (name.to_owned(), Instant::now());
            self.trials.0.insert(name, Running { trial, version, since, is_start_noted: false });
        }
        let kept: Vec<_> = [Some(candidate), serving].into_iter().flatten().collect();
        let kept: Vec<_> = kept.into_iter().map(|one| one.path).collect();
        let versions_max = self.installer.settings().versions_max;
        if let Err(error) = store.prune(name, &kept, versions_max) {
            log::warn!(MODEL = name; "model {name}: old versions can't be removed: {error}");
        }
        Ok(installed)
    }

    fn accept(&mut self, candidate: &Candidate, loaded: Loaded, start: Instant) {
        let slot = self.slot(loaded.version.name());
        self.serve(&slot, candidate, loaded, start);
    }

    /// Removes what was installed of a model.
    pub(super) fn remove(&mut self, name: &str, version: Option<&str>) -> Result<(), InferError> {
        let store = self.installer.store().cloned().ok_or(InstallError::NoDirectory)?;
        let shown: String = name.escape_debug().take(64).collect();
        let not_found = |text: String| InferError::new(Code::NotFound, text);
        let number = match version.map(|text| (text, Version::parse(text))) {
            None => None,
            Some((_, Some(number))) => Some(number),
            Some((text, None)) => {
                let text: String = text.escape_debug().take(64).collect();
                let text = format!("version `{text}`: not three numbers: write it as 1.0.0");
                return Err(InferError::new(Code::InvalidRequest, text));
            }
        };
        let is_installed = store.models().map_err(disk)?.iter().any(|(one, _)| one == name);
        if !is_installed {
            return Err(not_found(format!(
                "model `{shown}`: nothing of it was installed: what a package or a person put \
                 into a models directory is removed there"
            )));
        }
        if !store.remove(name, number).map_err(disk)? {
            let version = number.map(|number| number.to_string()).unwrap_or_default();
            return Err(not_found(format!("model `{shown}`: version {version}: not installed")));
        }
        log::info!(MODEL = name; "model {name}: removed from {}", store.dir().display());
        let plan = self.plans.entry(name.to_owned()).or_default();
        if plan.serving().is_some_and(|serving| !serving.path.exists()) {
            plan.note_removed();
            self.end_trial(name);
            if !self.scan().contains_key(name) {
                self.forget(name);
            }
        }
        self.look();
        Ok(())
    }

    /// What was withdrawn may be loaded again.
    pub(super) fn restore(&self, name: &str) {
        let is_model = |store: &&Store| {
            store.models().is_ok_and(|models| models.iter().any(|(one, _)| one == name))
        };
        if let Some(store) = self.installer.store().filter(is_model)
            && let Err(error) = store.restore(name)
        {
            log::warn!(MODEL = name; "model {name}: what was withdrawn stays so: {error}");
        }
    }

    /// Sees to it that a version that was rolled back from is not loaded at the next start.
    pub(super) fn withdraw(&mut self, name: &str, candidate: &Candidate) {
        self.end_trial(name);
        let store = self.installer.store().filter(|store| store.holds(&candidate.path));
        if let Some(store) = store
            && candidate.path.exists()
            && let Err(error) = store.withdraw(&candidate.path)
        {
            log::error!(MODEL = name; "model {name}: it comes back at the next start: {error}");
        }
    }

    /// Goes on with what was on trial when the daemon ended; what has ended it too often is
    /// withdrawn, if there is something else.
    pub(super) fn resume_trials(&mut self) {
        let Some(store) = self.installer.store().cloned() else { return };
        let found = self.scan();
        for (name, _) in store.models().unwrap_or_default() {
            let Some(OnTrial { version, starts }) = store.on_trial(&name) else { continue };
            let has_other = found.get(&name).is_some_and(|found| found.len() > 1);
            let done = if starts >= STARTS_MAX && has_other {
                log::error!(
                    MODEL = name.as_str();
                    "model {name}: version {version}: withdrawn: the daemon has ended {starts} \
                     times while it was on trial; `moed models load {name}` tries it again"
                );
                let withdrawn = store.withdraw(&store.place(&name, version));
                withdrawn.and_then(|()| store.set_trial(&name, None))
            } else {
                let before = (self.count)(&name);
                let trial = Trial::begin(self.installer.settings().trial, before);
                let noted = OnTrial { version, starts: starts.saturating_add(1) };
                let noted = trial.is_some().then_some(noted);
                if let Some(trial) = trial {
                    let since = Instant::now();
                    let running = Running { trial, version, since, is_start_noted: true };
                    self.trials.0.insert(name.clone(), running);
                }
                store.set_trial(&name, noted)
            };
            if let Err(error) = done {
                log::warn!(MODEL = name.as_str(); "model {name}: its trial: {error}");
            }
        }
    }

    /// The daemon stops because it is told to: that is no version's fault.
    pub(super) fn suspend_trials(&self) {
        let Some(store) = self.installer.store() else { return };
        for (name, running) in self.trials.0.iter().filter(|(_, one)| one.is_start_noted) {
            note_trial(store, name, Some(OnTrial { version: running.version, starts: 0 }));
        }
    }

    pub(super) fn judge_trials(&mut self) {
        let names: Vec<_> = self.trials.0.keys().cloned().collect();
        for name in names {
            let counted = (self.count)(&name);
            let Some(running) = self.trials.0.get_mut(&name) else { continue };
            let version = running.version;
            match running.trial.judge(counted) {
                Verdict::Pending if running.is_start_noted && running.since.elapsed() >= STEADY => {
                    running.is_start_noted = false;
                    if let Some(store) = self.installer.store() {
                        note_trial(store, &name, Some(OnTrial { version, starts: 0 }));
                    }
                }
                Verdict::Pending => {}
                Verdict::Passed => {
                    log::info!(MODEL = name.as_str(); "model {name}: version {version} stays");
                    self.end_trial(&name);
                }
                Verdict::Failed { failed, requests } => {
                    self.end_trial(&name);
                    let cause = format!("{failed} of its first {requests} requests failed");
                    self.roll_back_failed(&name, version, &cause);
                }
            }
        }
    }

    fn roll_back_failed(&mut self, name: &str, version: Version, cause: &str) {
        let slot = self.slot(name);
        let is_serving = slot.current().is_some_and(|one| **one.version() == *version.to_string());
        if !is_serving {
            return;
        }
        let found = self.scan().remove(name).unwrap_or_default();
        match self.roll_back(&slot, &found) {
            Ok(()) => {
                let reason =
                    format!("version {version}: rolled back: {cause}; install a better one");
                log::error!(MODEL = name; "model {name}: {reason}");
                stand(&slot, reason);
            }
            Err(error) => {
                log::error!(MODEL = name; "model {name}: {cause}, but it stays: {error}");
                stand(&slot, format!("version {version}: {cause}; install a better one"));
            }
        }
    }

    fn end_trial(&mut self, name: &str) {
        let was_running = self.trials.0.remove(name).is_some();
        if let Some(store) = self.installer.store().filter(|_| was_running) {
            note_trial(store, name, None);
        }
    }
}

/// Whether it is what serves already.
///
/// # Errors
/// It is older than that, or another build of the same version.
fn is_there(
    staged: &Staged,
    serving: &Candidate,
    serving_version: Option<&str>,
) -> Result<bool, InstallError> {
    let manifest = staged.bundle.manifest();
    let wrong = |cause: String| InstallError::Version {
        name: manifest.name.clone(),
        version: manifest.version.to_string(),
        cause,
    };
    let Some(number) = serving_version.and_then(Version::parse) else { return Ok(false) };
    if manifest.version > number {
        return Ok(false);
    }
    if manifest.version < number {
        return Err(wrong(format!(
            "older than {number}, which serves: give it a higher version, or go back with \
             `moed models rollback {}`",
            manifest.name
        )));
    }
    let read = |dir: &std::path::Path| fs::read(dir.join(MANIFEST)).ok();
    // It names the hashes of all files.
    if read(&serving.path).is_some_and(|text| Some(text) == read(staged.bundle.dir())) {
        return Ok(true);
    }
    Err(wrong("another build of this version serves: give it a higher version".to_owned()))
}

fn note_trial(store: &Store, name: &str, trial: Option<OnTrial>) {
    if let Err(error) = store.set_trial(name, trial) {
        log::warn!(MODEL = name; "model {name}: its trial can't be noted: {error}");
    }
}

/// On the disk, a version is on trial before it is there.
fn publish(store: &Store, staged: &Staged, is_on_trial: bool) -> io::Result<()> {
    let manifest = staged.bundle.manifest();
    let trial = is_on_trial.then_some(OnTrial { version: manifest.version, starts: 0 });
    store.set_trial(&manifest.name, trial)?;
    store.publish(staged.bundle.dir(), &manifest.name, manifest.version).map(drop)
}

fn stand(slot: &Arc<Slot>, reason: String) {
    let version = slot.current().map(|one| one.version().to_string());
    slot.stand(Standing { state: ModelState::Ready, version, reason: Some(reason) });
}

fn refused(name: &str, error: &RefusedError) -> InferError {
    let text = format!("model `{name}`: not installed, what served before still does: {error}");
    InferError::new(Code::InvalidRequest, text)
}

fn disk(cause: io::Error) -> InferError {
    InstallError::Disk { what: "the models", cause }.into()
}
