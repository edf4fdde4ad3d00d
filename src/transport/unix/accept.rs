//! Takes connections, and waits for those that are left when the daemon stops.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::listener::{Active, ActiveSocket};
use super::peer::Peer;
use super::progress::Progress;
use super::wire::Socket;
use super::{Access, Shared, admission, connection, stopped};

/// Connections at once that are told that there is no place for them; more are just closed.
const REFUSALS_MAX: usize = 32;

/// What is waited after accepting failed: most often for a file to be closed.
const PAUSE: Duration = Duration::from_millis(50);

/// Takes connections until `stop`; then waits for their running requests.
pub(super) async fn run(listener: Active, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let door = Door { access: listener.access, shared, refusals, stop: stop.clone() };
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener.socket) => match accepted {
                Ok(Accepted::Unix(socket, peer)) => door.enter(socket, peer, &mut connections),
                Ok(Accepted::Tcp(socket, peer)) => door.enter(socket, peer, &mut connections),
                Err(_) => {
                    door.shared.counters.accept_errors.add();
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
    // Nobody can connect from here on.
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(door.shared.settings.stop_time_max, rest).await;
    connections.shutdown().await;
}

enum Accepted {
    Unix(UnixStream, Peer),
    Tcp(TcpStream, Peer),
}

async fn accept(socket: &ActiveSocket) -> io::Result<Accepted> {
    match socket {
        ActiveSocket::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let peer = Peer::of_unix(&stream);
            Ok(Accepted::Unix(stream, peer))
        }
        ActiveSocket::Tcp(listener) => {
            let (stream, address) = listener.accept().await?;
            // An answer is one write: there is nothing to wait for.
            stream.set_nodelay(true)?;
            Ok(Accepted::Tcp(stream, Peer::of_tcp(address)))
        }
    }
}

/// What each connection of a listener gets.
struct Door {
    access: Access,
    shared: Arc<Shared>,
    refusals: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl Door {
    fn enter<S: Socket>(&self, socket: S, peer: Peer, connections: &mut JoinSet<()>) {
        let shared = Arc::clone(&self.shared);
        let progress = Arc::new(Progress::new(Instant::now()));
        match admission::admit(&shared, &peer, &progress) {
            Ok(ticket) => {
                let (access, stop) = (self.access, self.stop.clone());
                connections
                    .spawn(connection::run(socket, peer, access, shared, progress, ticket, stop));
            }
            Err(refused) => {
                if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
                    connections.spawn(async move {
                        connection::refuse(socket, refused, shared).await;
                        drop(permit);
                    });
                }
            }
        }
    }
}
