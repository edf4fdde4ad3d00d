//! HTTP/1.1 on Unix sockets, and if it is asked for on loopback TCP: docs/protocol.md.
//!
//! [`Listener`]s are made first, without a runtime; [`serve`] then runs on a tokio runtime of one
//! thread, on which nothing is ever computed. Everything that a peer may use of the daemon is
//! bounded by [`Settings`].

mod accept;
mod admission;
mod body;
mod connection;
mod counters;
mod handlers;
mod infer;
mod listener;
mod peer;
mod progress;
mod respond;
mod router;
mod settings;
mod wire;

use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use counters::Counters;
pub use listener::{Access, ListenError, Listener};
pub use settings::{HttpLimits, Settings};

use crate::infer::Admin;

/// What all connections share.
struct Shared {
    service: Arc<dyn Admin>,
    settings: Arc<Settings>,
    counters: Arc<Counters>,
    table: admission::Table,
    bodies: body::Memory,
}

/// Serves until `stop` is true or its sender is gone: then it accepts nothing more, answers what
/// is running, and returns when that is done or after `settings.stop_time_max`.
///
/// Sockets that were bound by path are gone from the file system when this returns.
///
/// # Errors
/// A listener that the runtime does not take. Nothing that a peer does ends it.
pub async fn serve(
    listeners: Vec<Listener>,
    service: Arc<dyn Admin>,
    settings: Arc<Settings>,
    counters: Arc<Counters>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let table = admission::Table::new(&settings.http);
    let bodies = body::Memory::new(settings.http.bodies_bytes_max);
    let shared = Arc::new(Shared { service, settings, counters, table, bodies });
    let mut loops = JoinSet::new();
    for listener in listeners {
        loops.spawn(accept::run(listener.activate()?, Arc::clone(&shared), stop.clone()));
    }
    while loops.join_next().await.is_some() {}
    Ok(())
}

/// Waits until `stop` is true or its sender is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error is the sender's end.
    let _ = stop.wait_for(|stop| *stop).await;
}
