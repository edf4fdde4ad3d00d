//! What the environment says: where this user's daemon is.
//!
//! The one place, beside the command line, that reads variables.

use std::path::{Path, PathBuf};

/// Names the daemon's socket, for daemon and clients alike.
pub const SOCKET_VARIABLE: &str = "MOED_SOCKET";

/// Where the daemon of the system listens.
pub const SYSTEM_SOCKET: &str = "/run/moed/moed.sock";

/// What was found in the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    pub socket: Option<PathBuf>,
    pub runtime_dir: Option<PathBuf>,
}

impl Environment {
    #[expect(clippy::disallowed_methods, reason = "this is where variables are read")]
    pub fn read() -> Self {
        let path = |name: &str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        Self { socket: path(SOCKET_VARIABLE), runtime_dir: path("XDG_RUNTIME_DIR") }
    }

    /// Where a daemon that is told nothing else listens; `is_root` is whether it may use the
    /// system's place. `None`: nowhere that this user could write.
    pub fn listen_path(&self, is_root: bool) -> Option<PathBuf> {
        let system = is_root.then(|| PathBuf::from(SYSTEM_SOCKET));
        self.socket.clone().or(system).or_else(|| self.user_socket())
    }

    /// Where a client that is told nothing else finds the daemon: the first place that is there.
    pub fn connect_path(&self, is_there: impl Fn(&Path) -> bool) -> Option<PathBuf> {
        if let Some(socket) = &self.socket {
            return Some(socket.clone());
        }
        let places = [Some(PathBuf::from(SYSTEM_SOCKET)), self.user_socket()];
        places.into_iter().flatten().find(|place| is_there(place))
    }

    fn user_socket(&self) -> Option<PathBuf> {
        self.runtime_dir.as_ref().map(|dir| dir.join("moed/moed.sock"))
    }
}
