//! What systemd is told while the daemon starts, works and stops. Without systemd, nothing is.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::scheduler::probe::Passed;

/// How often systemd is asked for more time while models are loaded.
const EXTENSION_INTERVAL: Duration = Duration::from_secs(10);

/// What it is asked for each time.
const EXTENSION: Duration = Duration::from_secs(60);

/// The longest that loading may take: from then on, the unit's `TimeoutStartSec=` counts.
const START_TIME_MAX: Duration = Duration::from_secs(1800);

/// Tells systemd, if it listens.
pub fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("systemd: can't be told: {error}");
    }
}

/// A configuration is read again. [`NotifyState::Ready`] ends it.
pub fn tell_reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// The line of `systemctl status`, told when it has changed.
#[derive(Debug, Default)]
pub struct Status(String);

impl Status {
    pub fn tell(&mut self, text: &str) {
        if self.0 != text {
            self.0 = text.to_owned();
            tell(&[NotifyState::Status(text)]);
        }
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Asks for more time while models are loaded: a small board may need minutes for a large one.
pub struct Extension {
    ticks: Interval,
    since: Instant,
}

impl Extension {
    pub fn new(since: Instant) -> Self {
        Self { ticks: ticks(EXTENSION_INTERVAL), since }
    }

    /// Returns each time that more has been asked for.
    pub async fn tick(&mut self) {
        self.ticks.tick().await;
        if self.since.elapsed() < START_TIME_MAX {
            let us = u32::try_from(EXTENSION.as_micros()).unwrap_or(u32::MAX);
            tell(&[NotifyState::ExtendTimeoutUsec(us)]);
        }
    }
}

/// Systemd wants to hear from time to time that the daemon works. It hears it when a probe has
/// passed by every worker, so that a worker that hangs is one that systemd restarts.
pub struct Watchdog {
    ticks: Option<Interval>,
    /// What was asked last, and not answered yet.
    asked: Option<oneshot::Receiver<()>>,
}

impl Watchdog {
    pub fn new() -> Self {
        let limit = sd_notify::watchdog_enabled();
        Self { ticks: limit.map(|limit| ticks(limit / 4)), asked: None }
    }

    /// Asks again and again, with `ask`; returns when all have passed.
    pub async fn passed(&mut self, ask: impl Fn(Passed)) {
        let Some(ticks) = &mut self.ticks else { return std::future::pending().await };
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let (passed, asked) = oneshot::channel();
                    self.asked = Some(asked);
                    ask(Box::new(move || {
                        // Without a receiver, it has been asked again since.
                        let _ = passed.send(());
                    }));
                }
                () = answered(&mut self.asked) => return,
            }
        }
    }
}

async fn answered(asked: &mut Option<oneshot::Receiver<()>>) {
    if let Some(receiver) = asked {
        let answer = receiver.await;
        *asked = None;
        if answer.is_ok() {
            return;
        }
    }
    std::future::pending::<()>().await;
}
