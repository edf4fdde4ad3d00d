//! `moed check`: whether the daemon would do well here, before it is started.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::{Failure, print};
use crate::config::{Config, DEFAULT_FILE};
use crate::daemon::{install_settings, load_settings, read_home};
use crate::engine::kernel;
use crate::engine::tract::Tract;
use crate::repository::load::load;
use crate::repository::memory;
use crate::repository::scan::scan;

/// Experts begin at multiples of this in a bundle; larger pages read more than the experts.
const ALIGNMENT_BYTES: usize = 16 << 10;

/// Checks the configuration, this machine, and that every model loads.
#[derive(Debug, Args)]
#[command(after_help = "Each line begins with ok, warn or fail, and says what to do.\n\
    The exit code is 1 if a line says fail.\n\n\
    MOED_KERNEL=NAME chooses another of the kernels listed.")]
pub struct Check {
    /// The configuration; /etc/moed/moed.toml if that is there and none is named.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A directory with models in it, instead of the configured ones; may be given several times.
    #[arg(long, value_name = "DIR")]
    models: Vec<PathBuf>,
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    Ok,
    Warn,
    Fail,
}

/// Lines as they come, and how many of them say fail.
#[derive(Default)]
struct Report {
    failures: usize,
}

impl Report {
    fn say(&mut self, grade: Grade, what: &str, text: &str) -> Result<(), Failure> {
        let word = match grade {
            Grade::Ok => "ok",
            Grade::Warn => "warn",
            Grade::Fail => "fail",
        };
        self.failures += usize::from(grade == Grade::Fail);
        print(&format!("{word:<5}{what:<12}{text}\n"))
    }

    fn say_result(&mut self, what: &str, result: Result<String, String>) -> Result<(), Failure> {
        match result {
            Ok(text) => self.say(Grade::Ok, what, &text),
            Err(text) => self.say(Grade::Fail, what, &text),
        }
    }
}

impl Check {
    pub fn run(self) -> Result<(), Failure> {
        let mut report = Report::default();
        let read = Config::read(self.config.as_deref());
        let named = self.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        report.say_result(
            "config",
            match &read {
                Ok(_) if named.exists() => Ok(named.display().to_string()),
                Ok(_) => Ok("no file: defaults".to_owned()),
                Err(error) => Err(error.to_string()),
            },
        )?;
        let mut config = read.unwrap_or_default();
        if !self.models.is_empty() {
            config.models.directories = self.models;
        }
        check_machine(&mut report)?;
        check_models(&mut report, &config)?;
        match report.failures {
            0 => Ok(()),
            1 => Err("1 check failed".to_owned()),
            n => Err(format!("{n} checks failed")),
        }
    }
}

fn check_machine(report: &mut Report) -> Result<(), Failure> {
    let names: Vec<_> = kernel::available().iter().map(|kernel| kernel.name()).collect();
    match kernel::active() {
        Ok(kernel) if kernel.name() == "scalar" => {
            let text = "scalar: this CPU has no instructions that moed knows: it will be slow";
            report.say(Grade::Warn, "kernel", text)?;
        }
        Ok(kernel) => {
            let text = format!("{} (of {})", kernel.name(), names.join(", "));
            report.say(Grade::Ok, "kernel", &text)?;
        }
        Err(error) => report.say(Grade::Fail, "kernel", &error.to_string())?,
    }
    let bytes = rustix::param::page_size();
    let grade = if bytes <= ALIGNMENT_BYTES { Grade::Ok } else { Grade::Warn };
    let rest =
        if grade == Grade::Ok { "" } else { ": experts share pages: more is read than needed" };
    report.say(grade, "page size", &format!("{bytes} bytes{rest}"))?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    report.say(Grade::Ok, "processors", &processors.to_string())?;
    match memory::available_bytes() {
        Some(bytes) => report.say(Grade::Ok, "memory", &format!("{} MiB available", bytes >> 20)),
        None => {
            let text = "the kernel doesn't say how much is available: models are not checked";
            report.say(Grade::Warn, "memory", text)
        }
    }
}

fn check_models(report: &mut Report, config: &Config) -> Result<(), Failure> {
    let home = match read_home(config) {
        Ok(home) => home,
        Err(error) => {
            report.say(Grade::Fail, "home", &error.to_string())?;
            None
        }
    };
    let directories = &config.models.directories;
    let installed = install_settings(config).directory;
    let found = scan(directories, installed.as_deref(), config.models.models_max);
    if found.is_empty() {
        let names: Vec<_> = directories.iter().map(|path| path.display().to_string()).collect();
        let text = format!("none found in {}: put bundles there", names.join(", "));
        return report.say(Grade::Warn, "models", &text);
    }
    let settings = load_settings(config);
    for (name, candidates) in found {
        let Some(newest) = candidates.first() else { continue };
        let start = Instant::now();
        let loaded = load(&name, newest, &Tract, &settings, home.as_ref());
        let ms = start.elapsed().as_millis();
        let loaded = loaded.map(|loaded| {
            let (version, need) = (loaded.version.version(), loaded.version.info().resident_bytes);
            format!(
                "{name} {version}: needs {} MiB; loads in {ms} ms; {} recorded answers reproduced",
                need.div_ceil(1 << 20),
                loaded.golden_cases,
            )
        });
        let path = newest.path.display();
        report.say_result("model", loaded.map_err(|error| format!("{name}: {path}: {error}")))?;
    }
    Ok(())
}
