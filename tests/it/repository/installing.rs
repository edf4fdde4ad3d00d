//! Installations with a model that pretends: what a real one does not do when it is asked to.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use moed::bundle::{Bundle, Limits, pack};
use moed::engine::Backend;
use moed::infer::{InferError, InstallProgress, InstallStep, Installed, ModelState};
use moed::repository::install::settings::Settings;
use moed::repository::install::trial::{Outcomes, TrialOptions};
use moed::repository::load::LoadSettings;
use moed::repository::{Repository, RepositoryOptions};

use super::serving::{PATIENCE, pretended, write_bundle};
use crate::support::http::until;

/// A repository with `x` 1.0.0 packaged, and counts that a test chooses.
struct Setup {
    dir: tempfile::TempDir,
    repository: Repository,
    answered: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl Setup {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        write_bundle(&dir.path().join("packaged/x"), "x", "1.0.0");
        Self::over(dir, pretended())
    }

    fn over(dir: tempfile::TempDir, backend: Box<dyn Backend>) -> Self {
        let options = RepositoryOptions {
            // As in the default ones: that for installed models is one of them.
            directories: vec![dir.path().join("packaged"), dir.path().join("installed")],
            models_max: 2,
            poll_interval: Duration::from_millis(20),
            load: LoadSettings {
                threads: 1,
                limits: Limits::default(),
                is_memory_checked: true,
                unpack_dir: dir.path().join("unpacked"),
            },
            install: Settings {
                directory: Some(dir.path().join("installed")),
                free_bytes_min: 0,
                trial: TrialOptions { requests: 10, failures: 2 },
                ..Settings::default()
            },
            home: None,
        };
        let (answered, failed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let count = {
            let (answered, failed) = (Arc::clone(&answered), Arc::clone(&failed));
            move |_: &str| Outcomes {
                answered: answered.load(Ordering::SeqCst),
                failed: failed.load(Ordering::SeqCst),
            }
        };
        let (sender, settled) = channel();
        let repository = Repository::start(
            backend,
            options,
            Vec::new(),
            Box::new(|_| {}),
            Box::new(count),
            Box::new(move || sender.send(()).expect("somebody waits")),
        );
        settled.recv_timeout(PATIENCE).expect("it settles");
        Self { dir, repository: repository.expect("it starts"), answered, failed }
    }

    /// Ends it, and starts it again.
    fn restart(self) -> Self {
        self.repository.stop();
        Self::over(self.dir, pretended())
    }

    fn archive(&self, name: &str, version: &str) -> PathBuf {
        let bundle = self.dir.path().join(format!("made-{name}-{version}"));
        write_bundle(&bundle, name, version);
        let path = self.dir.path().join(format!("{name}-{version}.moed"));
        pack(&Bundle::open(&bundle, &Limits::default()).expect("a bundle"), &path).expect("packed");
        path
    }

    fn install(&self, path: &Path) -> Result<Installed, InferError> {
        let step = InstallStep::File { path: path.to_owned(), sha256: None, signature: None };
        let (sender, result) = channel();
        self.repository.install(step, Box::new(move |done| drop(sender.send(done))));
        match result.recv_timeout(PATIENCE).expect("a result")? {
            InstallProgress::Installed(installed) => Ok(installed),
            other => panic!("{other:?}"),
        }
    }

    fn installed(&self, name: &str, version: &str) -> Installed {
        self.install(&self.archive(name, version)).expect("it is installed")
    }

    fn rollback(&self) -> Result<(), InferError> {
        let (sender, result) = channel();
        self.repository.rollback("x", Box::new(move |done| drop(sender.send(done))));
        result.recv_timeout(PATIENCE).expect("a result")
    }

    fn version(&self) -> String {
        let slot = self.repository.slot("x").expect("it is known");
        slot.current().expect("it serves").version().to_string()
    }

    fn has(&self, path: &str) -> bool {
        self.dir.path().join("installed").join(path).exists()
    }
}

#[test]
fn a_version_whose_first_requests_fail_is_rolled_back_for_good() {
    let setup = Setup::new();
    let installed = setup.installed("x", "1.1.0");
    assert_eq!((installed.trial_requests, installed.previous), (10, Some("1.0.0".to_owned())));
    assert_eq!(setup.version(), "1.1.0");
    assert!(setup.has("x/trial"));
    setup.failed.fetch_add(2, Ordering::SeqCst);
    until("it is rolled back", || setup.version() == "1.0.0");
    until("it is withdrawn", || setup.has("x/1.1.0.withdrawn") && !setup.has("x/trial"));
    let status = || setup.repository.slot("x").expect("it is known").status();
    until("it says why", || status().reason.is_some());
    assert_eq!(status().state, ModelState::Ready);
    assert_eq!(
        status().reason.expect("a reason"),
        "version 1.1.0: rolled back: 2 of its first 2 requests failed; install a better one"
    );
    let setup = setup.restart();
    assert_eq!(setup.version(), "1.0.0");
    // A better one.
    setup.installed("x", "1.2.0");
    setup.answered.fetch_add(10, Ordering::SeqCst);
    until("its trial is over", || !setup.has("x/trial"));
    setup.failed.fetch_add(10, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(setup.version(), "1.2.0");
    assert_eq!(setup.restart().version(), "1.2.0");
}

#[test]
fn a_trial_goes_on_after_a_restart() {
    let setup = Setup::new();
    setup.installed("x", "1.1.0");
    let setup = setup.restart();
    assert_eq!(setup.version(), "1.1.0");
    setup.failed.fetch_add(2, Ordering::SeqCst);
    until("it is rolled back", || setup.version() == "1.0.0");
}

#[test]
fn a_new_model_is_on_no_trial_and_one_too_many_is_refused() {
    let setup = Setup::new();
    let installed = setup.installed("y", "1.0.0");
    assert_eq!((installed.trial_requests, installed.previous), (0, None));
    let error = setup.install(&setup.archive("z", "1.0.0")).expect_err("there are two");
    assert!(error.client.starts_with("models: 2 are there"), "{error}");
    // There is nothing to go back to.
    setup.failed.fetch_add(10, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(300));
    assert!(setup.repository.slot("y").is_some_and(|slot| slot.current().is_some()));
}

#[test]
fn a_newer_packaged_version_wins_and_an_older_one_does_not() {
    let setup = Setup::new();
    setup.installed("x", "1.1.0");
    let package = |version: &str| {
        let packaged = setup.dir.path().join("packaged/x");
        fs::remove_dir_all(&packaged).unwrap();
        write_bundle(&packaged, "x", version);
    };
    package("1.0.5");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(setup.version(), "1.1.0");
    package("1.2.0");
    until("the package's serves", || setup.version() == "1.2.0");
    setup.rollback().expect("there is the installed one");
    assert_eq!(setup.version(), "1.1.0");
}

#[test]
fn a_bundle_that_a_person_put_among_the_installed_is_served_and_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    write_bundle(&dir.path().join("installed/x"), "x", "1.0.0");
    let mut setup = Setup::over(dir, pretended());
    assert_eq!(setup.version(), "1.0.0");
    let error = setup.install(&setup.archive("x", "1.1.0")).expect_err("there is no place");
    assert!(error.client.contains("a bundle lies where its versions belong"), "{error}");
    setup = setup.restart();
    assert_eq!(setup.version(), "1.0.0");
    assert!(setup.has("x/manifest.toml"));
}

#[test]
fn another_build_of_the_version_that_serves_is_refused_and_the_same_is_not_written() {
    let setup = Setup::new();
    let same = setup.installed("x", "1.0.0");
    assert!(!same.is_new);
    assert!(!setup.has("x"));
    let bundle = setup.dir.path().join("made-x-1.0.0");
    let manifest = fs::read_to_string(bundle.join("manifest.toml")).unwrap();
    fs::write(bundle.join("manifest.toml"), manifest.replace("made up", "made otherwise")).unwrap();
    let path = setup.dir.path().join("other.moed");
    pack(&Bundle::open(&bundle, &Limits::default()).unwrap(), &path).unwrap();
    let error = setup.install(&path).expect_err("it is another");
    assert_eq!(
        error.client,
        "x 1.0.0: another build of this version serves: give it a higher version"
    );
    assert!(!setup.has(".staging"));
}
