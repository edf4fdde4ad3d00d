//! The broker itself: who is there, who wants what, what is kept for whom. Does no I/O: packets
//! come in, and each client's are fetched by whoever writes to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::Notify;

use super::filter;
use super::packet::{Connect, Message, Packet, RECEIVED_MAX, Reply, Subscription, Version};
use super::session::{Link, Offered, Session};

const CONNECTIONS_MAX: usize = 64;
/// With those whose clients are away.
const SESSIONS_MAX: usize = 256;
const FILTERS_MAX: usize = 64;
const CLIENT_BYTES_MAX: usize = 256;
const RETAINED_MAX: usize = 4096;
const RETAINED_BYTES_MAX: usize = 8 << 20;
/// The longest that a session is kept for a client that is away.
const EXPIRY_MAX: Duration = Duration::from_secs(3600);

/// MQTT 5's reasons.
pub mod reason {
    pub const NO_SUBSCRIBERS: u8 = 0x10;
    pub const NO_SUBSCRIPTION: u8 = 0x11;
    pub const MALFORMED: u8 = 0x81;
    pub const PROTOCOL: u8 = 0x82;
    pub const VERSION: u8 = 0x84;
    pub const CLIENT: u8 = 0x85;
    pub const PASSWORD: u8 = 0x86;
    pub const BUSY: u8 = 0x89;
    pub const STOPPING: u8 = 0x8b;
    pub const METHOD: u8 = 0x8c;
    pub const KEEP_ALIVE: u8 = 0x8d;
    pub const TAKEN_OVER: u8 = 0x8e;
    pub const FILTER: u8 = 0x8f;
    pub const RECEIVE_MAX: u8 = 0x93;
    pub const TOO_LARGE: u8 = 0x95;
    pub const QUOTA: u8 = 0x97;
    pub const NO_SUBSCRIPTION_IDS: u8 = 0xa1;
}

/// What each client has to say; nothing if everybody may come.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub username: String,
    pub password: String,
}

impl Login {
    /// Takes as long for any password of the same length.
    fn is_said_by(&self, connect: &Connect) -> bool {
        let given = connect.password.as_deref().unwrap_or_default();
        let expected = self.password.as_bytes();
        let differing = given.iter().zip(expected).fold(0, |all, (a, b)| all | (a ^ b));
        connect.username.as_ref() == Some(&self.username)
            && given.len() == expected.len()
            && differing == 0
    }
}

/// One connection of one client.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub client: String,
    link: u64,
}

pub struct Hub {
    login: Option<Login>,
    packet_bytes_max: usize,
    sessions: HashMap<String, Session>,
    retained: BTreeMap<String, Arc<Message>>,
    retained_bytes: usize,
    next: u64,
}

impl Hub {
    pub fn new(login: Option<Login>, packet_bytes_max: usize) -> Self {
        Self {
            login,
            packet_bytes_max,
            sessions: HashMap::new(),
            retained: BTreeMap::new(),
            retained_bytes: 0,
            next: 1,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Lets a client in.
    ///
    /// # Errors
    /// Why not.
    pub fn connect(
        &mut self,
        mut connect: Connect,
        wake: Arc<Notify>,
        now: Instant,
    ) -> Result<Ticket, u8> {
        if connect.has_authentication {
            return Err(reason::METHOD);
        }
        if self.login.as_ref().is_some_and(|login| !login.is_said_by(&connect)) {
            return Err(reason::PASSWORD);
        }
        let is_nameless = connect.client.is_empty();
        let is_lasting = connect.version == Version::V311 && !connect.is_clean;
        if connect.client.len() > CLIENT_BYTES_MAX || is_nameless && is_lasting {
            return Err(reason::CLIENT);
        }
        let mut client = std::mem::take(&mut connect.client);
        while client.is_empty() || is_nameless && self.sessions.contains_key(&client) {
            client = format!("client-{}", self.number());
        }
        if let Some(old) = self.sessions.get(&client).and_then(|session| session.link.as_ref()) {
            old.wake();
            let ticket = Ticket { client: client.clone(), link: old.id };
            // Its Will is due unless it may wait, and who it is about is here again.
            self.parted(&ticket, now);
        } else if self.sessions.values().filter(|known| known.link.is_some()).count()
            >= CONNECTIONS_MAX
        {
            return Err(reason::BUSY);
        }
        if connect.is_clean {
            self.sessions.remove(&client);
        }
        self.make_room(&client)?;
        let link = Link::new(self.number(), &mut connect, wake);
        let ticket = Ticket { client: client.clone(), link: link.id };
        let is_known = self.sessions.contains_key(&client);
        let session = self.sessions.entry(client.clone()).or_default();
        session.expiry = connect.session_expiry.unwrap_or(EXPIRY_MAX).min(EXPIRY_MAX);
        session.connected(link);
        let expiry = session.expiry;
        session.reply(Reply::Connected {
            is_known,
            expiry,
            packet_bytes_max: self.packet_bytes_max,
            client: is_nameless.then_some(client),
        });
        Ok(ticket)
    }

    /// Forgets the client that would be forgotten next, if there are too many.
    fn make_room(&mut self, client: &str) -> Result<(), u8> {
        if self.sessions.len() < SESSIONS_MAX || self.sessions.contains_key(client) {
            return Ok(());
        }
        let away = self.sessions.iter().filter(|(_, session)| session.link.is_none());
        let next = away.min_by_key(|(_, session)| session.ends_at).map(|(name, _)| name.clone());
        self.sessions.remove(&next.ok_or(reason::BUSY)?);
        Ok(())
    }

    /// The session of a connection that is the client's newest.
    fn session(&mut self, ticket: &Ticket) -> Option<&mut Session> {
        let session = self.sessions.get_mut(&ticket.client)?;
        session.link.as_ref().is_some_and(|link| link.id == ticket.link).then_some(session)
    }

    /// Writes what the client may get now.
    ///
    /// # Errors
    /// Why its connection is over.
    pub fn write(&mut self, ticket: &Ticket, now: Instant, to: &mut BytesMut) -> Result<(), u8> {
        self.session(ticket).ok_or(reason::TAKEN_OVER)?.write(now, to);
        Ok(())
    }

    /// Does what the client says; `false` if that is the end.
    ///
    /// # Errors
    /// Why its connection is over.
    pub fn handle(&mut self, ticket: &Ticket, packet: Packet, now: Instant) -> Result<bool, u8> {
        let session = self.session(ticket).ok_or(reason::TAKEN_OVER)?;
        let reply = match packet {
            Packet::Connect(_) => return Err(reason::PROTOCOL),
            Packet::Publish { message, packet } => {
                return self.published(ticket, message, packet, now).map(|()| true);
            }
            Packet::Acknowledge(packet) => {
                session.acknowledged(packet);
                return Ok(true);
            }
            Packet::Release(packet) => {
                session.received.remove(&packet);
                Reply::Completed(packet)
            }
            Packet::Subscribe { packet, subscriptions, has_id } => {
                return self.subscribed(ticket, packet, subscriptions, has_id).map(|()| true);
            }
            Packet::Unsubscribe { packet, filters } => {
                let unsubscribe = |filter: &String| {
                    let before = session.subscriptions.len();
                    session.subscriptions.retain(|known| known.filter != *filter);
                    let is_gone = session.subscriptions.len() < before;
                    if is_gone { 0 } else { reason::NO_SUBSCRIPTION }
                };
                let reasons = filters.iter().map(unsubscribe).collect();
                Reply::Unsubscribed { packet, reasons }
            }
            Packet::Ping => Reply::Pong,
            Packet::Disconnect { is_will_wanted, session_expiry } => {
                if let Some(link) = &mut session.link
                    && !is_will_wanted
                {
                    link.will = None;
                }
                session.expiry = session_expiry.unwrap_or(session.expiry).min(EXPIRY_MAX);
                return Ok(false);
            }
        };
        if session.reply(reply) { Ok(true) } else { Err(reason::QUOTA) }
    }

    /// The connection has ended: its Will is published, or will be.
    pub fn parted(&mut self, ticket: &Ticket, now: Instant) {
        let Some(session) = self.session(ticket) else { return };
        let will = session.parted(now);
        let is_over = session.expiry.is_zero();
        match will {
            Some((delay, will)) if delay.is_zero() || is_over => {
                self.publish(&ticket.client, will, now);
            }
            will => session.will = will.map(|(delay, will)| (now + delay, will)),
        }
        if is_over {
            self.sessions.remove(&ticket.client);
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        let mut wills = Vec::new();
        self.sessions.retain(|client, session| {
            let is_over = session.ends_at.is_some_and(|at| at <= now);
            if let Some((_, will)) = session.will.take_if(|(at, _)| *at <= now || is_over) {
                wills.push((client.clone(), will));
            }
            !is_over
        });
        for (client, will) in wills {
            self.publish(&client, will, now);
        }
        self.retained.retain(|_, message| {
            let is_over = message.is_expired(now);
            if is_over {
                self.retained_bytes -= message.bytes();
            }
            !is_over
        });
    }

    fn published(
        &mut self,
        ticket: &Ticket,
        message: Message,
        packet: u16,
        now: Instant,
    ) -> Result<(), u8> {
        let qos = message.qos;
        let session = self.session(ticket).ok_or(reason::TAKEN_OVER)?;
        let is_repeated = qos == 2 && session.received.contains(&packet);
        if qos == 2 && session.received.len() >= usize::from(RECEIVED_MAX) {
            return Err(reason::RECEIVE_MAX);
        }
        let reason = if is_repeated { 0 } else { self.publish(&ticket.client, message, now) };
        let Some(session) = self.session(ticket) else { return Ok(()) };
        let is_read = match qos {
            0 => true,
            1 => session.reply(Reply::Acknowledged { packet, reason }),
            _ => {
                if reason < 0x80 {
                    session.received.insert(packet);
                }
                session.reply(Reply::Received { packet, reason })
            }
        };
        if is_read { Ok(()) } else { Err(reason::QUOTA) }
    }

    /// Hands a message to all who want it, and keeps it if it is to be kept; gives the reason that
    /// its publisher is told.
    fn publish(&mut self, from: &str, message: Message, now: Instant) -> u8 {
        if message.is_expired(now) {
            return 0;
        }
        let is_kept = !message.is_retained || self.retain(&message);
        let message = Arc::new(message);
        let mut offers = Vec::new();
        // By shared filter: who is in the group.
        let mut groups: BTreeMap<&str, Vec<(&str, &Subscription)>> = BTreeMap::new();
        for (client, session) in &self.sessions {
            let mut best: Option<(u8, bool)> = None;
            for subscription in &session.subscriptions {
                let known = &subscription.filter;
                match filter::shared(known) {
                    Some((_, plain)) if filter::matches(plain, &message.topic) => {
                        groups.entry(known).or_default().push((client, subscription));
                    }
                    None if filter::matches(known, &message.topic)
                        && !(subscription.is_local_left_out && client == from) =>
                    {
                        best = best.max(Some((subscription.qos, subscription.is_retain_kept)));
                    }
                    _ => {}
                }
            }
            offers.extend(best.map(|(qos, is_kept)| (client.clone(), qos, is_kept)));
        }
        for members in groups.values() {
            let is_there = |client: &&str| {
                self.sessions.get(*client).is_some_and(|session| session.link.is_some())
            };
            let there: Vec<_> = members.iter().filter(|(client, _)| is_there(client)).collect();
            let candidates = if there.is_empty() { members.iter().collect() } else { there };
            let turn = self.next as usize % candidates.len().max(1);
            if let Some((client, known)) = candidates.get(turn) {
                offers.push(((*client).to_owned(), known.qos, known.is_retain_kept));
            }
        }
        self.next += 1;
        if offers.is_empty() {
            return if is_kept { reason::NO_SUBSCRIBERS } else { reason::QUOTA };
        }
        let mut is_full = !is_kept;
        for (client, qos, is_retain_kept) in offers {
            if let Some(session) = self.sessions.get_mut(&client) {
                let is_retained = message.is_retained && is_retain_kept;
                is_full |= session.offer(&message, qos, is_retained) == Offered::Full;
            }
        }
        if is_full {
            log::warn!("embedded broker: a client reads too slowly: a message to it is dropped");
            return reason::QUOTA;
        }
        0
    }

    /// Keeps the newest message of its topic; `false` if there is no room.
    fn retain(&mut self, message: &Message) -> bool {
        let old = self.retained.remove(&message.topic);
        self.retained_bytes -= old.map_or(0, |old| old.bytes());
        if message.payload.is_empty() {
            return true;
        }
        let bytes = self.retained_bytes + message.bytes();
        if self.retained.len() >= RETAINED_MAX || bytes > RETAINED_BYTES_MAX {
            return false;
        }
        self.retained_bytes = bytes;
        self.retained.insert(message.topic.clone(), Arc::new(message.clone()));
        true
    }

    fn subscribed(
        &mut self,
        ticket: &Ticket,
        packet: u16,
        subscriptions: Vec<Subscription>,
        has_id: bool,
    ) -> Result<(), u8> {
        let session = self.session(ticket).ok_or(reason::TAKEN_OVER)?;
        let (mut reasons, mut wanted) = (Vec::new(), Vec::new());
        for subscription in subscriptions {
            let is_shared = filter::shared(&subscription.filter).is_some();
            if is_shared && subscription.is_local_left_out {
                return Err(reason::PROTOCOL);
            }
            let known = &mut session.subscriptions;
            let at = known.iter().position(|known| known.filter == subscription.filter);
            reasons.push(match at {
                _ if has_id => reason::NO_SUBSCRIPTION_IDS,
                _ if !filter::is_filter(&subscription.filter) => reason::FILTER,
                None if known.len() >= FILTERS_MAX => reason::QUOTA,
                at => {
                    let handling = subscription.retain_handling;
                    if !is_shared && (handling == 0 || handling == 1 && at.is_none()) {
                        wanted.push((subscription.filter.clone(), subscription.qos));
                    }
                    let qos = subscription.qos;
                    match at.and_then(|at| known.get_mut(at)) {
                        Some(known) => *known = subscription,
                        None => known.push(subscription),
                    }
                    qos
                }
            });
        }
        let is_read = session.reply(Reply::Subscribed { packet, reasons });
        for (filter, qos) in wanted {
            let kept = self.retained.values().filter(|kept| filter::matches(&filter, &kept.topic));
            let kept: Vec<Arc<Message>> = kept.cloned().collect();
            let Some(session) = self.session(ticket) else { return Ok(()) };
            for message in kept {
                session.offer(&message, qos, true);
            }
        }
        if is_read { Ok(()) } else { Err(reason::QUOTA) }
    }
}
