//! The way in over an MQTT broker: request and response with deadlines, errors on the reply topic,
//! presence, and Home Assistant's discovery. docs/mqtt.md is the reference.
//!
//! ```text
//! connection (polls the broker) --notices--> serve <--answers-- the daemon's workers
//!                    ^                         |
//!                    +-------actions-------- session (decides; does no I/O)
//! ```

mod acknowledgements;
mod admin;
mod announcements;
mod backoff;
mod connection;
mod counters;
mod discovery;
pub mod embedded;
mod exchange;
mod incoming;
mod message;
mod negotiation;
mod outbox;
pub mod parts;
mod reach;
mod remembered;
mod secrets;
mod session;
mod settings;
mod state;
mod topics;
mod waiting;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

use connection::{Down, Notice, Sender};
pub use counters::{Count, Counters};
pub use reach::{Reached, reach};
use session::{Event, Session};
pub use settings::{Broker, Protocol, Settings, SettingsError, Tls};
use state::State;
pub use state::{Health, Probe};

use crate::infer::Admin;

/// Notices that wait to be looked at. The connection waits while there are more.
const NOTICES: usize = 64;

/// The same reason is not logged again for so long.
const SAME_REASON_TIME: Duration = Duration::from_secs(600);

/// Serves over a broker until `stop` is true; then answers what it has taken, says `stopped`, and
/// returns. A broker that is missing is waited for.
///
/// # Errors
/// Settings that can't be.
pub async fn serve(
    settings: Arc<Settings>,
    service: Arc<dyn Admin>,
    probe: Probe,
    counters: Arc<Counters>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), SettingsError> {
    settings.check().inspect_err(|error| log::error!("broker: {error}"))?;
    let own_broker = start_own_broker(&settings);
    let (notices, mut noticed) = mpsc::channel(NOTICES);
    // As many as may wait, and those that came too late to be waited for.
    let (answers, mut answered) = mpsc::channel(2 * usize::from(settings.requests_max) + NOTICES);
    let connection = tokio::spawn(connection::run(Arc::clone(&settings), notices));
    let mut server = Server {
        session: Session::new(Arc::clone(&settings), Arc::clone(&counters)),
        state: State::new(Arc::clone(&settings), Arc::clone(&service), probe, counters),
        service,
        settings,
        answers,
        sender: None,
        reasons: Reasons::default(),
    };
    let mut models = ticks(server.settings.models_interval);
    let mut health = ticks(server.settings.health_interval);
    server.state.announce_all(&mut server.session);
    while !server.session.is_over() {
        let now = Instant::now();
        server.act(now);
        let wake_at = server.session.wake_at(now);
        tokio::select! {
            notice = noticed.recv() => match notice {
                Some(notice) => server.noticed(notice),
                None => break,
            },
            Some(answered) = answered.recv() => {
                exchange::finish(&mut server.session, answered, Instant::now());
            }
            _ = models.tick() => server.state.announce_models(&mut server.session),
            _ = health.tick() => server.state.announce_health(&mut server.session),
            () = sleep_until(wake_at.unwrap_or(now).into()), if wake_at.is_some() => {
                server.session.tick(Instant::now());
            }
            () = stopped(&mut stop), if server.session.is_serving() => {
                server.session.handle(Event::Stop, Instant::now());
            }
        }
    }
    connection.abort();
    let lost = server.session.unsent() + server.session.waiting();
    if lost > 0 {
        log::warn!("broker: {lost} replies had not reached it when the daemon stopped");
    }
    if let Some((stop, serving)) = own_broker {
        // Its receiver's end would be its own.
        let _ = stop.send(true);
        let _ = serving.await;
    }
    Ok(())
}

/// Starts the broker inside the daemon, if it should have one. It is stopped last, so that clients
/// hear that the daemon stops.
fn start_own_broker(settings: &Settings) -> Option<(watch::Sender<bool>, JoinHandle<()>)> {
    let address = settings.embedded?;
    let started = || -> Result<_, String> {
        let password = secrets::password(settings).map_err(|error| error.to_string())?;
        let login = settings.username.as_ref().map(|username| {
            let password = password.as_ref().map_or("", secrets::Password::reveal).to_owned();
            embedded::Login { username: username.clone(), password }
        });
        let listener = TcpListener::bind(address).map_err(|error| error.to_string())?;
        let (stop, stopped) = watch::channel(false);
        let bytes_max = settings.packet_bytes_max as usize;
        let serving = async move {
            if let Err(error) = embedded::serve(listener, login, bytes_max, stopped).await {
                log::error!("embedded broker: {address}: {error}");
            }
        };
        Ok((stop, tokio::spawn(serving)))
    };
    match started() {
        Ok(started) => {
            log::info!("embedded broker: listens on {address}");
            Some(started)
        }
        Err(error) => {
            log::error!("embedded broker: {address}: {error}; give another `listen`");
            None
        }
    }
}

/// Waits until `stop` is true; if its sender is gone, nobody can stop anything any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|is_stopped| *is_stopped).await;
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

struct Server {
    session: Session,
    state: State,
    service: Arc<dyn Admin>,
    settings: Arc<Settings>,
    answers: exchange::Answers,
    sender: Option<Sender>,
    reasons: Reasons,
}

impl Server {
    fn noticed(&mut self, notice: Notice) {
        let now = Instant::now();
        let event = match notice {
            Notice::Up { link, sender } => {
                self.sender = Some(sender);
                Event::Connected(link)
            }
            Notice::Event(event) => event,
            Notice::Down(down) => {
                self.sender = None;
                self.reasons.log(&self.settings, &down, now);
                Event::Disconnected
            }
        };
        self.session.handle(event, now);
    }

    /// Does what the session wants, as far as the connection takes it.
    fn act(&mut self, now: Instant) {
        while let Some(work) = self.session.next_work(now) {
            let (session, service) = (&mut self.session, &self.service);
            exchange::start(session, &work, service, &self.settings, &self.answers, now);
        }
        let Some(sender) = &self.sender else { return };
        while let Some(action) = self.session.next_action(now) {
            if let Err(error) = sender.send(action) {
                // The connection has ended; its notice is on its way, and all that it has not
                // confirmed is sent again.
                log::debug!("broker: not sent: {error}");
                self.sender = None;
                return;
            }
        }
    }
}

/// Why there is no connection, said once and not for each attempt.
#[derive(Debug, Default)]
struct Reasons(Option<(String, Instant)>);

impl Reasons {
    fn log(&mut self, settings: &Settings, down: &Down, now: Instant) {
        let is_known = self.0.as_ref().is_some_and(|(reason, logged)| {
            *reason == down.reason && now.duration_since(*logged) < SAME_REASON_TIME
        });
        if is_known {
            return;
        }
        let (broker, reason) = (&settings.broker, &down.reason);
        if down.is_refused {
            log::error!("broker: {broker}: {reason}; trying again from time to time");
        } else {
            log::warn!("broker: {broker}: {reason}; trying again");
        }
        self.0 = Some((down.reason.clone(), now));
    }
}
