//! What the environment says: where this user's daemon is.
//!
//! The one place, beside the command line, that reads variables.

use std::path::{Path, PathBuf};

/// Names the daemon's socket, for daemon and clients alike.
pub const SOCKET_VARIABLE: &str = "MOED_SOCKET";

/// Names the socket for the owner's commands, for clients.
pub const ADMIN_SOCKET_VARIABLE: &str = "MOED_ADMIN_SOCKET";

/// Where the daemon of the system listens.
pub const SYSTEM_SOCKET: &str = "/run/moed/moed.sock";

/// The same, for its owner's commands.
pub const SYSTEM_ADMIN_SOCKET: &str = "/run/moed/admin.sock";

/// Where the daemon of the system keeps what must last.
const SYSTEM_STATE: &str = "/var/lib/moed";

/// What was found in the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    pub socket: Option<PathBuf>,
    pub admin_socket: Option<PathBuf>,
    pub runtime_dir: Option<PathBuf>,
    /// Given by systemd, or where this user's programs keep what must last.
    pub state_dir: Option<PathBuf>,
    pub is_root: bool,
    /// Whether output shall have no colours: <https://no-color.org>.
    pub is_plain: bool,
}

impl Environment {
    #[expect(clippy::disallowed_methods, reason = "this is where variables are read")]
    pub fn read() -> Self {
        let path = |name: &str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        let of_user =
            || path("XDG_STATE_HOME").or_else(|| Some(path("HOME")?.join(".local/state")));
        let is_root = rustix::process::geteuid().is_root();
        let state_dir = path("STATE_DIRECTORY");
        let of_user = || of_user().map(|dir| dir.join("moed"));
        Self {
            socket: path(SOCKET_VARIABLE),
            admin_socket: path(ADMIN_SOCKET_VARIABLE),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            state_dir: state_dir.or_else(|| if is_root { None } else { of_user() }),
            is_root,
            is_plain: path("NO_COLOR").is_some(),
        }
    }

    /// Where `.moed` files are unpacked.
    pub fn unpack_dir(&self) -> PathBuf {
        self.state_dir().join("unpacked")
    }

    /// Where models are that were installed while the daemon runs.
    pub fn install_dir(&self) -> PathBuf {
        self.state_dir().join("models")
    }

    fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| PathBuf::from(SYSTEM_STATE))
    }

    /// Where a daemon that is told nothing else listens. `None`: nowhere that this user could
    /// write.
    pub fn listen_path(&self) -> Option<PathBuf> {
        let system = self.is_root.then(|| PathBuf::from(SYSTEM_SOCKET));
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

    /// Where a client finds the socket for the owner's commands: the first place that is there.
    pub fn admin_path(&self, is_there: impl Fn(&Path) -> bool) -> Option<PathBuf> {
        if let Some(socket) = &self.admin_socket {
            return Some(socket.clone());
        }
        let of_user = self.runtime_dir.as_ref().map(|dir| dir.join("moed/admin.sock"));
        let places = [Some(PathBuf::from(SYSTEM_ADMIN_SOCKET)), of_user];
        places.into_iter().flatten().find(|place| is_there(place))
    }

    fn user_socket(&self) -> Option<PathBuf> {
        self.runtime_dir.as_ref().map(|dir| dir.join("moed/moed.sock"))
    }
}
