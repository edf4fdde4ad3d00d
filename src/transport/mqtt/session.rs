//! The daemon's side of its talk with a broker, as a state machine: takes what happened and when,
//! says what is to be done. Does no I/O, knows no client library, no model and no queue.
//!
//! ```text
//!             connected              received: a request        answered
//!   (offline) ---------> subscribe,  ---------------> [waiting] -------> [outbox] -> published
//!       ^                announce                        |                  ^  |        |
//!       |  disconnected                                  | duplicate,       |  | broker | acknow-
//!       +------------- (everything unacknowledged        | refused          |  | is back| ledged
//!                       is sent again)                   +------------------+  +--- request
//!                                                                                acknowledged
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::acknowledgements::Acknowledgements;
use super::announcements::Announcements;
use super::counters::Counters;
use super::incoming::replace_with_error;
use super::message::{Outgoing, Received};
use super::outbox::{Outbox, Token};
use super::remembered::Remembered;
use super::settings::Settings;
use super::topics::{Filter, Topics};
use super::waiting::Waiting;

/// A request that has been handed out and not been answered.
pub type Ticket = u64;

/// What is handed to the connection and not written yet, at most. Its queue has as many places, so
/// handing over never fails.
pub const UNWRITTEN_MAX: usize = 32;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);

/// The same, if nothing but memories of requests can pass.
const IDLE_TICK: Duration = Duration::from_secs(10);

/// From the last request to the end: for `stopped` to reach the broker.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);

/// The payload of the status topic, and of the Will.
pub const ONLINE: &str = "online";
pub const OFFLINE: &str = "offline";
pub const STOPPED: &str = "stopped";

/// What the broker has consented to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// MQTT 5, or 3.1.1.
    pub is_v5: bool,
    /// The largest packet that the broker takes, in bytes.
    pub packet_bytes_max: usize,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Connected(Link),
    Disconnected,
    Received(Received),
    /// One of the things handed over is on the wire; a message, if it says which packet: 0 at
    /// QoS 0. They come in the order of the actions.
    Written {
        message: Option<u16>,
    },
    /// The broker has that packet, or did not want it.
    Acknowledged {
        packet: u16,
        is_taken: bool,
    },
    /// Which of the filters, in order, the broker granted.
    Subscribed(Vec<bool>),
    /// The daemon stops.
    Stop,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Subscribe(Vec<Filter>),
    Publish(Outgoing),
    Acknowledge(u16),
    /// Part from the broker in peace: it will not publish the Will.
    Disconnect,
}

/// What a message that was handed to the connection is.
#[derive(Debug)]
pub(super) enum Sent {
    Reply(Token),
    Announcement { topic: String, edition: u64 },
}

/// How far stopping has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// Requests that wait are still answered, until then.
    Draining {
        until: Instant,
    },
    /// `stopped` is on its way.
    Parting {
        until: Instant,
    },
    Disconnecting {
        until: Instant,
    },
    Over,
}

#[derive(Debug)]
pub struct Session {
    pub(super) settings: Arc<Settings>,
    pub(super) topics: Topics,
    pub(super) counters: Arc<Counters>,
    pub(super) link: Option<Link>,
    is_subscribe_due: bool,
    /// Requests that nobody has begun with.
    pub(super) inbox: VecDeque<Waiting>,
    pub(super) inbox_bytes: usize,
    pub(super) waiting: HashMap<Ticket, Waiting>,
    /// Which of those are handed out again, and when: a queue had no room for them.
    pub(super) deferred: VecDeque<(Instant, Ticket)>,
    pub(super) next_ticket: Ticket,
    pub(super) acks: Acknowledgements,
    pub(super) outbox: Outbox,
    pub(super) remembered: Remembered,
    announcements: Announcements,
    /// Handed over, in order, until it is written.
    unwritten: usize,
    handed_over: VecDeque<Sent>,
    /// Written at QoS 1, by packet.
    unacknowledged: HashMap<u16, Sent>,
    pub(super) phase: Phase,
    tick_at: Option<Instant>,
}

impl Session {
    pub fn new(settings: Arc<Settings>, counters: Arc<Counters>) -> Self {
        let topics = Topics::new(&settings);
        let mut announcements = Announcements::default();
        announcements.set(topics.status(), Bytes::from_static(ONLINE.as_bytes()));
        Self {
            acks: Acknowledgements::new(
                settings.acknowledge_time_max,
                settings.requests_max.into(),
            ),
            outbox: Outbox::new(settings.replies_max, settings.replies_bytes_max),
            remembered: Remembered::new(settings.remembered_max, settings.remembered_bytes_max),
            settings,
            topics,
            counters,
            link: None,
            is_subscribe_due: false,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            waiting: HashMap::new(),
            deferred: VecDeque::new(),
            next_ticket: 0,
            announcements,
            unwritten: 0,
            handed_over: VecDeque::new(),
            unacknowledged: HashMap::new(),
            phase: Phase::Serving,
            tick_at: None,
        }
    }

    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Connected(link) => self.connected(link),
            Event::Disconnected => self.disconnected(now),
            Event::Received(message) => self.received(message, now),
            Event::Written { message } => self.written(message),
            Event::Acknowledged { packet, is_taken } => self.acknowledged(packet, is_taken),
            Event::Subscribed(granted) => self.subscribed(&granted),
            Event::Stop => {
                if self.phase == Phase::Serving {
                    self.phase = Phase::Draining { until: now + self.settings.stop_time_max };
                }
            }
        }
        self.advance(now);
    }

    fn connected(&mut self, link: Link) {
        self.link = Some(link);
        self.is_subscribe_due = true;
        self.announcements.renew();
        self.counters.connects.add(1);
        self.counters.set_connected(true);
    }

    fn disconnected(&mut self, now: Instant) {
        self.counters.connection_errors.add(1);
        self.counters.set_connected(false);
        self.link = None;
        self.unwritten = 0;
        self.handed_over.clear();
        self.unacknowledged.clear();
        self.acks.clear();
        self.outbox.requeue();
        if matches!(self.phase, Phase::Parting { .. } | Phase::Disconnecting { .. }) {
            self.phase = Phase::Over;
        }
        self.tick(now);
    }

    fn written(&mut self, message: Option<u16>) {
        self.unwritten = self.unwritten.saturating_sub(1);
        let Some(packet) = message else { return };
        let Some(sent) = self.handed_over.pop_front() else { return };
        match (packet, sent) {
            (0, sent) => self.settle(sent, true),
            (packet, sent) => {
                self.unacknowledged.insert(packet, sent);
            }
        }
    }

    fn acknowledged(&mut self, packet: u16, is_taken: bool) {
        if let Some(sent) = self.unacknowledged.remove(&packet) {
            self.settle(sent, is_taken);
        }
    }

    fn settle(&mut self, sent: Sent, is_taken: bool) {
        match sent {
            Sent::Reply(token) => {
                // It may have expired meanwhile.
                let Some(reply) = self.outbox.remove(token) else { return };
                let count =
                    if is_taken { &self.counters.replies } else { &self.counters.replies_refused };
                count.add(1);
                if let Some(key) = reply.key.filter(|_| is_taken) {
                    self.remembered.confirmed(key);
                }
                if !is_taken {
                    let topic = reply.message.topic;
                    log::warn!(
                        "reply: {topic}: refused by the broker: let this client write there"
                    );
                }
                reply.acks.iter().for_each(|&ack| self.acks.done(ack));
            }
            Sent::Announcement { topic, edition } => {
                if !is_taken {
                    log::error!("{topic}: refused by the broker: let this client write there");
                }
                self.announcements.taken(&topic, edition);
            }
        }
    }

    fn subscribed(&mut self, granted: &[bool]) {
        let filters = self.topics.filters();
        for (filter, _) in filters.iter().zip(granted).filter(|(_, is_granted)| !**is_granted) {
            self.counters.subscriptions_refused.add(1);
            log::error!(
                "subscription: {}: refused by the broker: let this client read there",
                filter.path
            );
        }
    }

    /// Tells the broker, which keeps it.
    pub fn announce(&mut self, topic: String, payload: impl Into<Bytes>) {
        self.announcements.set(topic, payload.into());
    }

    /// Makes the broker forget what it keeps on `topic`.
    pub fn withdraw(&mut self, topic: &str) {
        self.announcements.withdraw(topic);
    }

    /// Tells the broker everything again.
    pub(super) fn announce_again(&mut self) {
        self.announcements.renew();
    }

    /// The next thing to do, if the connection can take one.
    pub fn next_action(&mut self, now: Instant) -> Option<Action> {
        let packet_bytes_max = self.link.as_ref()?.packet_bytes_max;
        if self.unwritten >= UNWRITTEN_MAX || self.phase == Phase::Over {
            return None;
        }
        let action = self.choose(packet_bytes_max, now)?;
        self.unwritten += 1;
        Some(action)
    }

    fn choose(&mut self, packet_bytes_max: usize, now: Instant) -> Option<Action> {
        if std::mem::take(&mut self.is_subscribe_due) {
            return Some(Action::Subscribe(self.topics.filters()));
        }
        while let Some((message, edition)) = self.announcements.next() {
            let (topic, bytes) = (message.topic.clone(), message.wire_bytes());
            if bytes > packet_bytes_max {
                log::error!(
                    "{topic}: {bytes} bytes: the broker takes {packet_bytes_max}: left out"
                );
                self.announcements.taken(&topic, edition);
                continue;
            }
            self.handed_over.push_back(Sent::Announcement { topic, edition });
            return Some(Action::Publish(message));
        }
        if let Some(message) = self.next_reply(packet_bytes_max, now) {
            return Some(Action::Publish(message));
        }
        // Each of them lets the broker send more.
        let is_paced = self.phase == Phase::Serving;
        if self.inbox.is_empty()
            && let Some(packet) = self.acks.next(now, is_paced)
        {
            return Some(Action::Acknowledge(packet));
        }
        if let Phase::Parting { until } = self.phase
            && self.is_farewell_over(until, now)
        {
            self.phase = Phase::Disconnecting { until: now + FAREWELL_TIME_MAX };
            return Some(Action::Disconnect);
        }
        None
    }

    fn next_reply(&mut self, packet_bytes_max: usize, now: Instant) -> Option<Outgoing> {
        let (token, reply) = self.outbox.next()?;
        let bytes = reply.message.wire_bytes();
        if bytes > packet_bytes_max {
            self.counters.replies_too_large.add(1);
            replace_with_error(&mut reply.message, reply.id.as_deref(), bytes);
            if reply.message.wire_bytes() > packet_bytes_max {
                let reply = self.outbox.remove(token)?;
                self.counters.replies_dropped.add(1);
                reply.acks.iter().for_each(|&ack| self.acks.done(ack));
                return self.next_reply(packet_bytes_max, now);
            }
        }
        // What is left of its time; never 0, which some take for none.
        let left = reply.deadline.saturating_duration_since(now);
        reply.message.properties.expiry = Some(left.max(Duration::from_secs(1)));
        let message = reply.message.clone();
        self.handed_over.push_back(Sent::Reply(token));
        Some(message)
    }

    /// Whether the broker has `stopped` and everything before it, or it has taken too long.
    fn is_farewell_over(&self, until: Instant, now: Instant) -> bool {
        let is_told = self.announcements.is_taken(&self.topics.status());
        now >= until || (is_told && self.outbox.is_empty() && self.unwritten == 0)
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        self.tick_at = None;
        self.give_up_waiting(now);
        self.remembered.expire(now);
        for reply in self.outbox.expire(now) {
            self.counters.replies_expired.add(1);
            log::warn!(
                "reply: {}: its time has passed before it could be sent",
                reply.message.topic
            );
            reply.acks.iter().for_each(|&ack| self.acks.done(ack));
        }
        self.advance(now);
    }

    /// Goes on with stopping, if that is under way.
    pub(super) fn advance(&mut self, now: Instant) {
        match self.phase {
            Phase::Draining { until } if self.waiting() == 0 || now >= until => {
                let is_connected = self.link.is_some();
                let until = now + FAREWELL_TIME_MAX;
                self.phase = if is_connected { Phase::Parting { until } } else { Phase::Over };
                self.announce(self.topics.status(), STOPPED);
            }
            Phase::Disconnecting { until } if now >= until || self.unwritten == 0 => {
                self.phase = Phase::Over;
            }
            _ => {}
        }
    }

    /// When [`tick`](Self::tick) should be called.
    pub fn wake_at(&mut self, now: Instant) -> Option<Instant> {
        let is_busy = self.waiting() > 0
            || !self.outbox.is_empty()
            || !self.acks.is_empty()
            || self.phase != Phase::Serving;
        let time = match (is_busy, self.remembered.is_empty()) {
            (true, _) => TICK,
            (false, false) => IDLE_TICK,
            (false, true) => {
                self.tick_at = None;
                return None;
            }
        };
        // Not later because other things happen meanwhile.
        let at = self.tick_at.map_or(now + time, |at| at.min(now + time));
        self.tick_at = Some(at);
        let burst_at = self.acks.wake_at(now).filter(|_| self.inbox.is_empty());
        self.deferred.iter().map(|(due, _)| *due).chain(burst_at).chain([at]).min()
    }

    /// Whether it has stopped and parted from the broker.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether it has not been told to stop.
    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// Requests that wait for their answers.
    pub fn waiting(&self) -> usize {
        self.inbox.len() + self.waiting.len()
    }

    /// Replies that wait for the broker.
    pub fn unsent(&self) -> usize {
        self.outbox.len()
    }
}
