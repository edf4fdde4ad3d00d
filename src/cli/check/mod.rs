//! `moed check`: whether the daemon would do well here, before it is started.

mod machine;
mod models;
mod service;

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, print};
use crate::config::{Config, DEFAULT_FILE};

/// Checks the configuration, this machine, that every model loads, the broker, and the service.
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
        machine::check(&mut report)?;
        models::check(&mut report, &config)?;
        service::check_broker(&mut report, &config)?;
        service::check_unit(&mut report)?;
        service::check_daemon(&mut report, &config)?;
        match report.failures {
            0 => Ok(()),
            1 => Err("1 check failed".to_owned()),
            n => Err(format!("{n} checks failed")),
        }
    }
}
