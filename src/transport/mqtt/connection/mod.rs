//! The connection to the broker: made, kept and made again, in a task of its own. The only folder
//! that names the client library.
//!
//! The task polls and never publishes: what is to be sent comes through a queue of bounded length,
//! and whoever fills it never waits for this task, so that neither can wait for the other. Each
//! attempt has a client of its own: nothing that the library keeps outlives its connection.

mod v311;
mod v5;

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{TlsConfiguration, Transport};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::client::ClientConfig;

use super::backoff::Backoff;
use super::negotiation::Negotiation;
use super::secrets;
use super::session::{Action, Event, Link, UNWRITTEN_MAX};
use super::settings::{Broker, Settings};
use super::topics::Topics;

/// Messages to the broker that it has not acknowledged, at most.
const INFLIGHT_MAX: u16 = 64;

/// What the connection says.
pub enum Notice {
    Up { link: Link, sender: Sender },
    Event(Event),
    Down(Down),
}

/// Why there is no connection.
#[derive(Debug)]
pub struct Down {
    pub reason: String,
    /// The broker was there and said no: somebody has to do something.
    pub is_refused: bool,
    /// How long the connection had held.
    held: Duration,
    /// It ended after it was made and before the broker's consent.
    is_aborted: bool,
}

impl Down {
    fn refused(reason: impl Into<String>) -> Self {
        Self::new(reason, true, false)
    }

    fn new(reason: impl Into<String>, is_refused: bool, is_aborted: bool) -> Self {
        Self { reason: reason.into(), is_refused, held: Duration::ZERO, is_aborted }
    }
}

/// Takes what is to be sent.
pub enum Sender {
    V5(v5::Sender),
    V311(v311::Sender),
}

impl Sender {
    /// Hands `action` to the connection. Never waits.
    ///
    /// # Errors
    /// What the library says. It does not happen with less than [`UNWRITTEN_MAX`] in its queue,
    /// while the connection lives.
    pub fn send(&self, action: Action) -> Result<(), String> {
        match self {
            Self::V5(sender) => sender.send(action),
            Self::V311(sender) => sender.send(action),
        }
    }
}

/// One thing that the library reports.
struct Polled {
    /// The broker is alive.
    is_incoming: bool,
    what: What,
}

enum What {
    Nothing,
    Consent(Link),
    Event(Event),
}

impl Polled {
    fn incoming(what: What) -> Self {
        Self { is_incoming: true, what }
    }

    fn outgoing(what: What) -> Self {
        Self { is_incoming: false, what }
    }
}

enum Poller {
    V5(Box<v5::Poller>),
    V311(Box<v311::Poller>),
}

impl Poller {
    async fn poll(&mut self) -> Result<Polled, Down> {
        match self {
            Self::V5(poller) => poller.poll().await,
            Self::V311(poller) => poller.poll().await,
        }
    }

    /// How often the library sends a ping: the broker may have changed it.
    fn keep_alive(&self) -> Duration {
        match self {
            Self::V5(poller) => poller.keep_alive(),
            Self::V311(poller) => poller.keep_alive(),
        }
    }
}

fn open(settings: &Settings, topics: &Topics, is_v5: bool) -> Result<(Sender, Poller), Down> {
    let password = secrets::password(settings).map_err(|error| Down::refused(error.to_string()))?;
    let tls = if settings.broker.is_tls() {
        Some(secrets::tls(&settings.tls).map_err(|error| Down::refused(error.to_string()))?)
    } else {
        None
    };
    Ok(if is_v5 {
        let (sender, poller) = v5::open(settings, topics, password.as_ref(), tls);
        (Sender::V5(sender), Poller::V5(Box::new(poller)))
    } else {
        let (sender, poller) = v311::open(settings, topics, password.as_ref(), tls);
        (Sender::V311(sender), Poller::V311(Box::new(poller)))
    })
}

/// Connects again and again, and tells `notices`, until nobody listens.
pub async fn run(settings: Arc<Settings>, notices: mpsc::Sender<Notice>) {
    let mut backoff = Backoff::default();
    let mut negotiation = Negotiation::new(settings.protocol);
    while !notices.is_closed() {
        let is_v5 = negotiation.is_v5();
        // A task of its own: if the library panics on what it was sent, only that task ends.
        let attempt = tokio::spawn(attempt(Arc::clone(&settings), is_v5, notices.clone()));
        let mut attempt = AbortOnDrop(attempt);
        let down = match (&mut attempt.0).await {
            Ok(down) => down,
            Err(error) => Down::new(format!("the client library failed: {error}"), false, false),
        };
        if down.held > Duration::ZERO {
            negotiation.connected();
        } else if down.is_aborted {
            negotiation.aborted();
            if is_v5 && !negotiation.is_v5() {
                log::warn!("broker: it seems to know no MQTT 5: trying 3.1.1");
            }
        }
        let wait = backoff.wait(down.held, down.is_refused);
        log::debug!("broker: {}: trying again in {} ms", down.reason, wait.as_millis());
        if notices.send(Notice::Down(down)).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = notices.closed() => return,
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<Down>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One connection, from its first packet to its end.
async fn attempt(settings: Arc<Settings>, is_v5: bool, notices: mpsc::Sender<Notice>) -> Down {
    let topics = Topics::new(&settings);
    let (sender, mut poller) = match open(&settings, &topics, is_v5) {
        Ok(opened) => opened,
        Err(down) => return down,
    };
    let started = Instant::now();
    let mut sender = Some(sender);
    let mut connected = None;
    // The library's own limit on connecting comes first.
    let mut deadline = started + settings.connect_time_max + Duration::from_secs(1);
    loop {
        // Nothing else ends a poll: one that is dropped while connecting starts from the beginning.
        let polled = match timeout_at(deadline, poller.poll()).await {
            Ok(polled) => polled,
            Err(_) => Err(Down::new("it has gone silent", false, false)),
        };
        let polled = match polled {
            Ok(polled) => polled,
            Err(down) => {
                let held = connected.map_or(Duration::ZERO, |since: Instant| since.elapsed());
                return Down { held, is_aborted: down.is_aborted && connected.is_none(), ..down };
            }
        };
        if polled.is_incoming {
            // The library waits for two of its pings; this is a little less than one and a half.
            deadline = Instant::now() + poller.keep_alive() * 29 / 20;
        }
        let notice = match polled.what {
            What::Nothing => continue,
            What::Consent(link) => {
                connected = Some(Instant::now());
                let Some(sender) = sender.take() else { continue };
                let version = if link.is_v5 { "5" } else { "3.1.1" };
                log::info!("broker: connected: MQTT {version}");
                Notice::Up { link, sender }
            }
            What::Event(event) => Notice::Event(event),
        };
        if notices.send(notice).await.is_err() {
            return Down::new("nobody listens", false, false);
        }
    }
}

/// Places in the library's queue: more than are ever used.
const QUEUE: usize = UNWRITTEN_MAX + 8;

/// Host and port, or a path and nothing, as the library wants them.
fn address(broker: &Broker) -> (&str, u16) {
    match broker {
        Broker::Network { host, port, .. } => (host, *port),
        Broker::Unix(path) => (path, 0),
    }
}

/// How the broker is reached there.
fn transport(broker: &Broker, tls: Option<Arc<ClientConfig>>) -> Transport {
    match (broker, tls) {
        (Broker::Unix(_), _) => Transport::unix(),
        (Broker::Network { .. }, Some(tls)) => {
            Transport::tls_with_config(TlsConfiguration::Rustls(tls))
        }
        (Broker::Network { .. }, None) => Transport::tcp(),
    }
}

/// What is told in the same words whatever the version.
fn client_id(settings: &Settings) -> String {
    format!("moed-{}", settings.node)
}

/// It may let this client in a little later: brokers say so while they start.
fn busy(reason: &dyn std::fmt::Debug) -> Down {
    Down::new(format!("it can't take this client now: {reason:?}"), false, false)
}

/// The advice for each refusal.
fn refusal(reason: &dyn std::fmt::Debug) -> Down {
    Down::refused(format!(
        "it refuses this client: {reason:?}: look at `username`, `password_file` and the \
         broker's own log"
    ))
}
