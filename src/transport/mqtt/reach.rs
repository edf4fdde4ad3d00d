//! Whether the broker takes this daemon: for `moed check`, before it is started, or beside it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::connection::{self, Notice};
use super::session::Action;
use super::settings::{Broker, Settings};

/// From the first try to the last.
const TIME_MAX: Duration = Duration::from_secs(8);

/// Until the broker has heard the goodbye.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(2);

/// A broker that has consented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Of MQTT: `5` or `3.1.1`.
    pub version: &'static str,
    /// It is on this machine, or in the networks that moed.service may go to.
    pub is_in_local_network: bool,
}

/// Connects and says goodbye, under a name of its own: a daemon that runs keeps its session.
///
/// # Errors
/// Why the broker can't be had, in words.
pub async fn reach(settings: &Settings) -> Result<Reached, String> {
    settings.check().map_err(|error| error.to_string())?;
    let is_in_local_network = is_in_local_network(&settings.broker).await?;
    let node = format!("check-{}", std::process::id());
    let settings = Settings { node, session_expiry: Duration::ZERO, ..settings.clone() };
    let (notices, mut noticed) = mpsc::channel(8);
    let running = tokio::spawn(connection::run(Arc::new(settings), notices));
    let deadline = Instant::now() + TIME_MAX;
    let mut reason = "it does not answer".to_owned();
    let reached = loop {
        match timeout_at(deadline, noticed.recv()).await {
            Ok(Some(Notice::Up { link, sender })) => {
                let said = sender.send(Action::Disconnect);
                let goodbye = Instant::now() + GOODBYE_TIME_MAX;
                while said.is_ok() {
                    let noticed = timeout_at(goodbye, noticed.recv()).await;
                    if matches!(noticed, Ok(Some(Notice::Down(_)) | None) | Err(_)) {
                        break;
                    }
                }
                let version = if link.is_v5 { "5" } else { "3.1.1" };
                break Ok(Reached { version, is_in_local_network });
            }
            Ok(Some(Notice::Down(down))) => {
                reason = down.reason;
                if down.is_refused {
                    break Err(reason);
                }
            }
            Ok(Some(Notice::Event(_))) => {}
            Ok(None) | Err(_) => break Err(reason),
        }
    };
    running.abort();
    reached
}

async fn is_in_local_network(broker: &Broker) -> Result<bool, String> {
    let Broker::Network { host, port, .. } = broker else { return Ok(true) };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::net::lookup_host((host, *port)).await;
    let found = found.map_err(|error| format!("its name is not known: {error}"))?;
    Ok(found.map(|address| address.ip()).all(is_local))
}

/// Whether `IPAddressAllow=` of moed.service has it.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}
