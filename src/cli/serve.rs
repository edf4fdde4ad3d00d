//! `moed serve`: the daemon.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Failure, failure};
use crate::config::environment::Environment;
use crate::config::{self, Config, ConfigError};
use crate::daemon::serve::{Plan, Reread, ServeError, listeners, run};
use crate::daemon::{Pretended, log, memory};
use crate::engine::Backend as _;
use crate::engine::LoadOptions;
use crate::engine::sim::{Behaviour, Sim};
use crate::engine::tract::Tract;

/// Answers requests on a Unix socket until it is told to stop.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    moed serve --models models --socket /tmp/moed.sock\n  \
    curl --unix-socket /tmp/moed.sock -d '{\"text\": \"turn on the light\"}' \\\n       \
    http://moed/v2/models/intent/infer\n\n\
    Without --socket it listens where MOED_SOCKET or the configuration says, or at\n\
    /run/moed/moed.sock for root, or at $XDG_RUNTIME_DIR/moed/moed.sock.\n\n\
    SIGTERM and SIGINT stop it: what was admitted is answered first. SIGHUP reads the\n\
    configuration again.\n\
    Exit codes: 0 stopped as asked; 1 it could not start, or requests were left when it had to\n\
    stop; 78 the configuration is wrong, and only you can mend it.")]
pub struct Serve {
    /// The configuration; else /etc/moed/moed.toml, if that is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A directory with models, for the configured; more may be given.
    #[arg(long, value_name = "DIR")]
    models: Vec<PathBuf>,
    /// Where to listen.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Where models go that are installed while it runs.
    #[arg(long, value_name = "DIR")]
    install_dir: Option<PathBuf>,
    /// Where the owner's commands are taken: see `moed models`.
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// A loopback address too, for clients without Unix sockets.
    #[arg(long, value_name = "ADDR")]
    tcp: Option<SocketAddr>,
    /// Starts a broker inside the daemon; it listens there.
    #[arg(long, value_name = "ADDR")]
    embedded_broker: Option<SocketAddr>,
    /// The file of the home whose devices answers name.
    #[arg(long, value_name = "FILE")]
    home: Option<PathBuf>,
    /// Threads that compute one request; 0: one per processor.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Serves a pretended model `sim` too, which takes so long.
    #[arg(long, value_name = "MS", num_args = 0..=1, default_missing_value = "0",
        require_equals = true)]
    sim: Option<u64>,
}

/// Why the daemon has ended.
#[derive(Debug)]
pub struct Ended {
    pub reason: Failure,
    /// Starting it again would not help.
    pub is_configuration: bool,
}

impl From<ServeError> for Ended {
    fn from(error: ServeError) -> Self {
        Self { is_configuration: error.is_configuration(), reason: failure(error) }
    }
}

impl Serve {
    pub fn run(self) -> Result<(), Ended> {
        let config = self.read().map_err(ServeError::from)?;
        let environment = Environment::read();
        let path = self.socket.clone().or_else(|| environment.socket.clone());
        let path = path.or_else(|| config.socket.path.clone());
        let path = path.or_else(|| environment.listen_path());
        memory::configure_heap();
        // Before the first thread: see `listeners`.
        let listeners = listeners(&config, path).map_err(ServeError::from)?;
        if listeners.is_empty() {
            let reason = "socket: nowhere to listen: name a path with --socket".to_owned();
            return Err(Ended { reason, is_configuration: true });
        }
        log::start(config.log.level);
        let pretended = self
            .pretended()
            .map_err(|error| Ended { reason: failure(error), is_configuration: false })?;
        let plan = Plan { config, backend: Box::new(Tract), pretended, listeners };
        let reread: Reread = Box::new(move || self.read());
        Ok(run(plan, &reread)?)
    }

    /// The configuration, with what the command line says instead.
    fn read(&self) -> Result<Config, ConfigError> {
        let mut config = Config::read(self.config.as_deref())?;
        if !self.models.is_empty() {
            config.models.directories.clone_from(&self.models);
        }
        if let Some(dir) = &self.install_dir {
            config.install.directory = Some(dir.clone());
        }
        if let Some(path) = &self.admin_socket {
            config.socket.admin_path = Some(path.clone());
        }
        config.socket.tcp_address = self.tcp.or(config.socket.tcp_address);
        if let Some(home) = &self.home {
            config.models.home = Some(home.clone());
        }
        if let Some(address) = self.embedded_broker {
            config.mqtt = Some(config::mqtt::embedded_at(address, &config.http));
        }
        config.models.threads = self.threads.unwrap_or(config.models.threads);
        Ok(config)
    }

    fn pretended(&self) -> Result<Vec<Pretended>, crate::engine::LoadError> {
        let Some(ms) = self.sim else { return Ok(Vec::new()) };
        let delay = Duration::from_millis(ms);
        let sim = Sim::new(Behaviour { delay, ..Behaviour::default() });
        let model = sim.load(std::path::Path::new("."), "sim", &LoadOptions::default())?;
        Ok(vec![("sim".to_owned(), model)])
    }
}
