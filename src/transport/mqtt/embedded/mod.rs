//! A broker inside the daemon, for who has none: MQTT 3.1.1 and 5 on one port, QoS 0 to 2 in and 0
//! and 1 out, retained messages, Wills, sessions, shared subscriptions, one username for all.
//!
//! It has no disk, no TLS, no rules of who may read and write what, and no bridges: for those there
//! is mosquitto. ARCHITECTURE.md says why it is our own.

mod connection;
mod filter;
mod hub;
mod packet;
mod session;
mod wire;

pub use hub::Login;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use hub::Hub;

use super::stopped;

/// How often it is looked for what has expired.
const TICK: Duration = Duration::from_millis(500);
/// After an error such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Of saying goodbye to all.
const STOP_TIME_MAX: Duration = Duration::from_secs(1);
/// With those that have not said who they are.
const STREAMS_MAX: usize = 128;

/// What others may want to look into without a network: for tests.
pub mod parts {
    pub use super::filter::{is_filter, is_topic, matches};
    pub use super::packet::{Packet, Reply, Version, Wrong, read};
}

/// Serves clients until `stop` is true.
///
/// # Errors
/// The listener can't be used.
pub async fn serve(
    listener: std::net::TcpListener,
    login: Option<Login>,
    packet_bytes_max: usize,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let hub = Arc::new(Mutex::new(Hub::new(login, packet_bytes_max)));
    let mut clients = JoinSet::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stopping = stop.clone();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < STREAMS_MAX => match accepted {
                Ok((stream, _)) => {
                    let (hub, stop) = (Arc::clone(&hub), stopping.clone());
                    clients.spawn(connection::serve(stream, hub, packet_bytes_max, stop));
                }
                Err(error) => {
                    log::warn!("embedded broker: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = clients.join_next() => {}
            _ = ticks.tick() => connection::lock(&hub).tick(Instant::now()),
            () = stopped(&mut stop) => break,
        }
    }
    let _ = timeout(STOP_TIME_MAX, async { while clients.join_next().await.is_some() {} }).await;
    Ok(())
}
