//! Bundles on disk, a thread that looks after them, and who is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use moed::bundle::Limits;
use moed::engine::Backend;
use moed::engine::sim::{Behaviour, Sim};
use moed::infer::{InferError, ModelState};
use moed::repository::install::settings::Settings;
use moed::repository::install::trial::Outcomes;
use moed::repository::load::LoadSettings;
use moed::repository::{Event, Repository, RepositoryOptions};
use sha2::{Digest as _, Sha256};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Writes a bundle of a pretended model.
pub fn write_bundle(dir: &Path, name: &str, version: &str) {
    let golden = r#"[{"seed":1,"inputs":{"x":{"dtype":"F32","dims":[1,2]}},
        "outputs":{"y":{"dims":[1,3],"every":1,"values":[0,0,0]}},"tolerance":0.01}]"#;
    write_files(dir, name, version, &[("model.onnx", b"none"), ("golden.json", golden.as_bytes())]);
}

fn write_files(dir: &Path, name: &str, version: &str, files: &[(&str, &[u8])]) {
    fs::create_dir_all(dir).expect("a folder");
    let mut manifest = format!(
        "format = 1\nname = \"{name}\"\nversion = \"{version}\"\ntask = \"tensor\"\n\
         model = \"model.onnx\"\nlicence = \"MIT\"\nprovenance = \"made up\"\n\
         [memory]\nresident_bytes = 1000\n"
    );
    for (file, bytes) in files {
        fs::write(dir.join(file), bytes).expect("a file");
        let sum: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let size = bytes.len();
        manifest += &format!("[[files]]\nname = \"{file}\"\nbytes = {size}\nsha256 = \"{sum}\"\n");
    }
    fs::write(dir.join("manifest.toml"), manifest).expect("a manifest");
}

struct Setup {
    models: tempfile::TempDir,
    repository: Repository,
    /// `serving x 1.0.0`, ...
    events: Receiver<String>,
}

impl Setup {
    fn new(prepare: impl FnOnce(&Path), backend: Box<dyn Backend>) -> Self {
        let models = tempfile::tempdir().expect("a folder");
        prepare(models.path());
        let options = RepositoryOptions {
            directories: vec![PathBuf::from("/nonexistent"), models.path().to_owned()],
            models_max: 8,
            poll_interval: Duration::from_millis(20),
            load: LoadSettings {
                threads: 1,
                limits: Limits::default(),
                is_memory_checked: true,
                unpack_dir: models.path().join(".unpacked"),
            },
            install: Settings::default(),
            home: None,
        };
        let (sender, events) = channel();
        let observer = move |event: Event<'_>| {
            let (word, slot) = match event {
                Event::Serving(slot) => ("serving", slot),
                Event::Unloaded(slot) => ("unloaded", slot),
                Event::Failed(slot) => ("failed", slot),
                Event::Gone(slot) => ("gone", slot),
            };
            let version = slot.status().version.unwrap_or_default();
            drop(sender.send(format!("{word} {} {version}", slot.name())));
        };
        let (settled_sender, settled) = channel();
        let settled_sender = Box::new(move || settled_sender.send(()).expect("somebody waits"));
        let repository = Repository::start(
            backend,
            options,
            Vec::new(),
            Box::new(observer),
            Box::new(|_| Outcomes::default()),
            settled_sender,
        );
        let repository = repository.expect("it starts");
        settled.recv_timeout(PATIENCE).expect("it settles");
        Self { models, repository, events }
    }

    fn event(&self) -> String {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    fn command(&self, act: fn(&Repository, &str, moed::infer::Done)) -> Result<(), InferError> {
        let (sender, result) = channel();
        act(&self.repository, "x", Box::new(move |done| drop(sender.send(done))));
        result.recv_timeout(PATIENCE).expect("a result")
    }

    fn version(&self) -> Option<String> {
        let slot = self.repository.slot("x")?;
        slot.current().map(|version| version.version().to_string())
    }

    fn reason(&self) -> String {
        self.repository.slot("x").expect("it is known").status().reason.unwrap_or_default()
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.repository.stop();
    }
}

pub fn pretended() -> Box<dyn Backend> {
    Box::new(Sim::new(Behaviour::default()))
}

#[test]
fn a_newer_version_takes_over_and_can_be_rolled_back() {
    let setup = Setup::new(|dir| write_bundle(&dir.join("x/1.0.0"), "x", "1.0.0"), pretended());
    assert_eq!(setup.event(), "serving x 1.0.0");
    // Published by rename, as it should be.
    write_bundle(&setup.models.path().join(".new"), "x", "1.1.0");
    fs::rename(setup.models.path().join(".new"), setup.models.path().join("x/1.1.0"))
        .expect("it is published");
    assert_eq!(setup.event(), "serving x 1.1.0");
    setup.command(Repository::rollback).expect("there is an earlier one");
    assert_eq!(setup.event(), "serving x 1.0.0");
    let error = setup.command(Repository::rollback).expect_err("there is none");
    assert!(error.client.contains("no earlier version is here"), "{error}");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(setup.version().as_deref(), Some("1.0.0"), "it stays there");
    setup.command(Repository::load).expect("the newest one");
    assert_eq!(setup.event(), "serving x 1.1.0");
    setup.command(Repository::unload).expect("it is unloaded");
    assert_eq!(setup.event(), "unloaded x ");
    assert_eq!(setup.version(), None);
}

#[test]
fn a_bad_version_leaves_the_good_one_serving_and_says_what_is_wrong() {
    let setup = Setup::new(|dir| write_bundle(&dir.join("x/1.0.0"), "x", "1.0.0"), pretended());
    assert_eq!(setup.event(), "serving x 1.0.0");
    let bad = setup.models.path().join("x/2.0.0");
    write_bundle(&bad, "x", "2.0.0");
    fs::write(bad.join("model.onnx"), b"nine").expect("it is spoilt");
    assert_eq!(setup.event(), "failed x 1.0.0");
    assert_eq!(setup.version().as_deref(), Some("1.0.0"));
    assert!(
        setup.reason().contains("version 2.0.0: model.onnx: its SHA-256"),
        "{}",
        setup.reason()
    );
    // Repaired, it is taken at the next look, not after the back-off.
    let start = Instant::now();
    fs::write(bad.join("model.onnx"), b"none").expect("it is repaired");
    loop {
        // It may be seen while it is being written.
        if setup.event() == "serving x 2.0.0" {
            break;
        }
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(setup.reason(), "");
}

#[test]
fn what_can_not_be_loaded_is_named_and_stops_nobody_else() {
    let setup = Setup::new(
        |dir| {
            write_bundle(&dir.join("good"), "good", "1.0.0");
            write_bundle(&dir.join("x"), "other", "1.0.0");
            fs::create_dir(dir.join("no bundle")).expect("a folder");
        },
        pretended(),
    );
    let mut events = [setup.event(), setup.event()];
    events.sort();
    assert_eq!(events, ["failed x ", "serving good 1.0.0"]);
    let status = setup.repository.slot("x").expect("it is known").status();
    assert_eq!(status.state, ModelState::Failed);
    assert_eq!(
        setup.reason(),
        "manifest.toml: name: `other` where its folder says `x`; rename one of them"
    );
    let error = setup.command(Repository::load).expect_err("it is still wrong");
    assert!(error.client.contains("rename one of them"), "{error}");
    assert!(setup.repository.is_live());
}

#[test]
fn a_model_that_panics_or_differs_from_its_record_is_refused() {
    for (behaviour, expected) in [
        (Behaviour { panic_every: 1, ..Behaviour::default() }, "loading panicked: simulated panic"),
        (Behaviour { error_every: 1, ..Behaviour::default() }, "case 0: model: simulated error"),
    ] {
        let prepare = |dir: &Path| write_bundle(&dir.join("x"), "x", "1.0.0");
        let setup = Setup::new(prepare, Box::new(Sim::new(behaviour)));
        assert_eq!(setup.event(), "failed x ");
        assert!(setup.reason().contains(expected), "{}", setup.reason());
        assert!(setup.repository.is_live());
    }
}

#[test]
fn archives_are_unpacked_and_removed_models_go() {
    let setup = Setup::new(
        |dir| {
            write_bundle(&dir.join(".x"), "x", "1.0.0");
            let bundle = moed::bundle::Bundle::open(&dir.join(".x"), &Limits::default());
            moed::bundle::pack(&bundle.expect("a bundle"), &dir.join("x.moed")).expect("a file");
        },
        pretended(),
    );
    assert_eq!(setup.event(), "serving x 1.0.0");
    fs::remove_file(setup.models.path().join("x.moed")).expect("it is removed");
    assert_eq!(setup.event(), "gone x 1.0.0");
    assert!(setup.repository.slot("x").is_none());
}

#[test]
fn swaps_let_go_of_what_they_replace() {
    let setup = Setup::new(|dir| write_bundle(&dir.join("x"), "x", "1.0.0"), pretended());
    assert_eq!(setup.event(), "serving x 1.0.0");
    let slot = setup.repository.slot("x").expect("it is known");
    let first = Arc::downgrade(&slot.current().expect("it serves"));
    setup.command(Repository::load).expect("it loads again");
    assert_eq!(first.strong_count(), 0);
}
