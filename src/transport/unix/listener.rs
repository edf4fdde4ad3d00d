//! Sockets to listen on: bound by path with the right mode, by address, or taken from systemd.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Who may use a socket, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Inference, metadata, health, metrics: mode 0660.
    Everybody,
    /// The repository as well: mode 0600.
    Owner,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Everybody => 0o660,
            Self::Owner => 0o600,
        }
    }
}

/// Why a socket can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("socket: {path}: another process listens on it: stop it, or choose another path")]
    InUse { path: String },
    #[error("socket: {path}: there is a file that is no socket: choose another path")]
    NotASocket { path: String },
    #[error("socket: {path}: {cause}: see that its directory exists and may be written to")]
    Path { path: String, cause: String },
    #[error("tcp: {address}: {cause}: choose another address")]
    Address { address: SocketAddr, cause: String },
    #[error(
        "tcp: {address}: not a loopback address, and there is no password: anybody could use it: \
         use 127.0.0.1, or allow it in the configuration"
    )]
    LeavesHost { address: SocketAddr },
    #[error("socket activation: {cause}: check the socket units")]
    Activation { cause: String },
}

impl ListenError {
    /// Whether only its owner can make it listen: what is in the way will not go by itself.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::NotASocket { .. } | Self::LeavesHost { .. } | Self::Activation { .. })
    }
}

/// A socket that somebody listens on, and who may use it.
#[derive(Debug)]
pub struct Listener {
    socket: BoundSocket,
    access: Access,
    file: Option<SocketFile>,
    is_inherited: bool,
}

#[derive(Debug)]
enum BoundSocket {
    Unix(UnixListener),
    Tcp(std::net::TcpListener),
}

/// A listener on the runtime.
pub(super) struct Active {
    pub socket: ActiveSocket,
    pub access: Access,
    _file: Option<SocketFile>,
}

pub(super) enum ActiveSocket {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener),
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// What systemd calls the sockets: `FileDescriptorName=`, by default the unit's name.
const SOCKET_NAMES: [(&str, Access); 3] = [
    ("moed.socket", Access::Everybody),
    ("moed-tcp.socket", Access::Everybody),
    ("moed-admin.socket", Access::Owner),
];

impl Listener {
    /// Takes the sockets that systemd passes (`LISTEN_FDS`), by name; none without it.
    ///
    /// Changes the environment: call it once, before the first thread is started.
    ///
    /// # Errors
    /// A name that is none of [`SOCKET_NAMES`], or something that is no stream socket.
    pub fn from_systemd() -> Result<Vec<Self>, ListenError> {
        let failed = |error: io::Error| ListenError::Activation { cause: error.to_string() };
        let names: Vec<String> =
            sd_notify::listen_fds_with_names().map_err(failed)?.map(|(_, name)| name).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut fds = listenfd::ListenFd::from_env();
        names.iter().enumerate().map(|(at, name)| Self::of_systemd(&mut fds, at, name)).collect()
    }

    fn of_systemd(
        fds: &mut listenfd::ListenFd,
        at: usize,
        name: &str,
    ) -> Result<Self, ListenError> {
        let failed = |cause: String| ListenError::Activation { cause: format!("{name}: {cause}") };
        let known = SOCKET_NAMES.iter().find(|(known, _)| *known == name);
        let Some(&(_, access)) = known else {
            return Err(failed(format!(
                "unknown: use {}",
                SOCKET_NAMES.map(|(n, _)| n).join(", ")
            )));
        };
        let socket = match fds.take_unix_listener(at) {
            Ok(Some(socket)) => BoundSocket::Unix(socket),
            Ok(None) => return Err(failed("not passed".to_owned())),
            Err(_) if access == Access::Owner => {
                return Err(failed("not a Unix stream socket".to_owned()));
            }
            Err(_) => match fds.take_tcp_listener(at) {
                Ok(Some(socket)) => BoundSocket::Tcp(socket),
                _ => return Err(failed("neither a Unix nor a TCP stream socket".to_owned())),
            },
        };
        Ok(Self { socket, access, file: None, is_inherited: true })
    }

    /// Binds `path`, whose directory is made if only that is missing. What a daemon that died has
    /// left there is replaced; the socket is removed when the listener is dropped.
    ///
    /// # Errors
    /// Somebody listens there, there is some other file, or the directory does not let us.
    pub fn bind_unix(path: &Path, access: Access) -> Result<Self, ListenError> {
        let shown = || path.display().to_string();
        let failed =
            |error: io::Error| ListenError::Path { path: shown(), cause: error.to_string() };
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed(io::ErrorKind::InvalidFilename.into()));
        };
        if !directory.as_os_str().is_empty() && !directory.exists() {
            DirBuilder::new().mode(0o755).create(directory).map_err(failed)?;
        }
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(file) if !file.file_type().is_socket() => {
                return Err(ListenError::NotASocket { path: shown() });
            }
            Ok(_) => match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Ok(_) => return Err(ListenError::InUse { path: shown() }),
                Err(error) => return Err(failed(error)),
            },
        }
        // Renamed when it has its mode: nobody finds it with another, or not yet listening.
        let mut new = name.to_owned();
        new.push(format!(".{}", std::process::id()));
        let new = directory.join(new);
        let bound = bind(&new, access.mode()).and_then(|socket| {
            fs::rename(&new, path)?;
            Ok((socket, SocketFile::new(path)?))
        });
        let (socket, file) = bound.map_err(|error| {
            let _ = fs::remove_file(&new);
            failed(error)
        })?;
        let socket = BoundSocket::Unix(socket);
        Ok(Self { socket, access, file: Some(file), is_inherited: false })
    }

    /// Binds a TCP address, for clients that know no Unix sockets. There is no password: `address`
    /// must be loopback unless it `may_leave_host`.
    ///
    /// # Errors
    /// Another address, or one that can't be bound.
    pub fn bind_tcp(address: SocketAddr, may_leave_host: bool) -> Result<Self, ListenError> {
        if !address.ip().is_loopback() && !may_leave_host {
            return Err(ListenError::LeavesHost { address });
        }
        let socket = std::net::TcpListener::bind(address)
            .map_err(|error| ListenError::Address { address, cause: error.to_string() })?;
        let socket = BoundSocket::Tcp(socket);
        Ok(Self { socket, access: Access::Everybody, file: None, is_inherited: false })
    }

    /// Whether it was there before this process, and will be after it: clients may wait.
    pub fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// The address of a TCP listener: with port 0, the one that it got.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            BoundSocket::Unix(_) => None,
            BoundSocket::Tcp(socket) => socket.local_addr().ok(),
        }
    }

    /// Hands it to the runtime that this is called on.
    pub(super) fn activate(self) -> io::Result<Active> {
        let socket = match self.socket {
            BoundSocket::Unix(socket) => {
                socket.set_nonblocking(true)?;
                ActiveSocket::Unix(tokio::net::UnixListener::from_std(socket)?)
            }
            BoundSocket::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                ActiveSocket::Tcp(tokio::net::TcpListener::from_std(socket)?)
            }
        };
        Ok(Active { socket, access: self.access, _file: self.file })
    }
}

/// A socket at `path` with `mode`, which listens only when it has it.
fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let _ = fs::remove_file(path);
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Removes a socket's file, if it is still the same.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let file = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: file.dev(), inode: file.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let file = fs::symlink_metadata(&self.path);
        if file.is_ok_and(|file| file.dev() == self.device && file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
