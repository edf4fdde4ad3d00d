//! Packets as a broker reads and writes them, of MQTT 3.1.1 and of MQTT 5.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::filter;
use super::wire::{Malformed, Reader, put_data, put_variable, variable};

/// Messages at QoS 1 and 2 that a client may send before they are acknowledged.
pub const RECEIVED_MAX: u16 = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V311,
    V5,
}

/// Why a client can't be listened to any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    Malformed,
    TooLarge,
    /// It speaks another version of MQTT.
    Version,
}

impl From<Malformed> for Wrong {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// What somebody has published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Bytes,
    pub qos: u8,
    pub is_retained: bool,
    /// MQTT 5's properties, as they came, without its expiry.
    pub properties: Bytes,
    /// After this, nobody wants it.
    pub expires_at: Option<Instant>,
}

impl Message {
    /// About what it takes in memory and on the wire.
    pub fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len() + 32
    }

    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    pub version: Version,
    /// The client's name; may be empty.
    pub client: String,
    pub is_clean: bool,
    pub keep_alive: Duration,
    pub will: Option<Message>,
    pub will_delay: Duration,
    pub username: Option<String>,
    pub password: Option<Bytes>,
    /// `None`: as long as the broker likes.
    pub session_expiry: Option<Duration>,
    pub receive_max: u16,
    pub packet_bytes_max: usize,
    pub has_authentication: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub filter: String,
    pub qos: u8,
    pub is_local_left_out: bool,
    pub is_retain_kept: bool,
    /// 0: retained messages are sent; 1: if it is new; 2: never.
    pub retain_handling: u8,
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    Connect(Box<Connect>),
    Publish { message: Message, packet: u16 },
    Acknowledge(u16),
    Release(u16),
    Subscribe { packet: u16, subscriptions: Vec<Subscription>, has_id: bool },
    Unsubscribe { packet: u16, filters: Vec<String> },
    Ping,
    Disconnect { is_will_wanted: bool, session_expiry: Option<Duration> },
}

/// The length of the packet at the front of `bytes`; `None` if that is not there yet.
fn length(bytes: &[u8], max: usize) -> Result<Option<(usize, usize)>, Wrong> {
    let Some((body, digits)) = variable(bytes.get(1..).unwrap_or_default())? else {
        return Ok(None);
    };
    let head = 1 + digits;
    if head + body > max { Err(Wrong::TooLarge) } else { Ok(Some((head, body))) }
}

/// Takes the next packet from `buffer`, if it is there to its end. The first must be the one that
/// connects, for which `version` is `None`.
///
/// # Errors
/// The connection can't go on.
pub fn read(
    buffer: &mut BytesMut,
    version: Option<Version>,
    max: usize,
    now: Instant,
) -> Result<Option<Packet>, Wrong> {
    let Some((head, body)) = length(buffer, max)? else { return Ok(None) };
    if buffer.len() < head + body {
        return Ok(None);
    }
    let first = buffer.first().copied().unwrap_or(0);
    buffer.advance(head);
    let mut reader = Reader(buffer.split_to(body).freeze());
    let Some(version) = version else {
        return match first {
            0x10 => Ok(Some(Packet::Connect(Box::new(connect(reader, now)?)))),
            _ => Err(Wrong::Malformed),
        };
    };
    let is_v5 = version == Version::V5;
    Ok(Some(match (first >> 4, first & 0xf) {
        (3, flags) => publish(reader, flags, is_v5, now)?,
        (4, 0) => Packet::Acknowledge(reader.packet()?),
        (6, 2) => Packet::Release(reader.packet()?),
        (8, 2) => subscribe(reader, is_v5)?,
        (10, 2) => {
            let packet = reader.packet()?;
            if is_v5 {
                reader.properties()?;
            }
            let mut filters = Vec::new();
            while !reader.is_empty() {
                filters.push(reader.text()?);
            }
            Packet::Unsubscribe { packet, filters }
        }
        (12, 0) => Packet::Ping,
        (14, 0) => {
            let reason = if reader.is_empty() { 0 } else { reader.byte()? };
            let expiry = if reader.is_empty() { None } else { reader.properties()?.session_expiry };
            let session_expiry = expiry.map(|seconds| Duration::from_secs(seconds.into()));
            Packet::Disconnect { is_will_wanted: is_v5 && reason == 4, session_expiry }
        }
        _ => return Err(Wrong::Malformed),
    }))
}

fn connect(mut reader: Reader, now: Instant) -> Result<Connect, Wrong> {
    let name = reader.text()?;
    let version = match (name.as_str(), reader.byte()?) {
        ("MQTT", 4) => Version::V311,
        ("MQTT", 5) => Version::V5,
        ("MQTT" | "MQIsdp", _) => return Err(Wrong::Version),
        _ => return Err(Wrong::Malformed),
    };
    let is_v5 = version == Version::V5;
    let flags = reader.byte()?;
    let keep_alive = Duration::from_secs(reader.number()?.into());
    let told = if is_v5 { reader.properties()? } else { Default::default() };
    let client = reader.text()?;
    let has = |flag: u8| flags & flag != 0;
    let (mut will, mut will_delay) = (None, Duration::ZERO);
    if has(0x04) {
        let properties = if is_v5 { reader.properties()? } else { Default::default() };
        let topic = reader.text()?;
        if !filter::is_topic(&topic) {
            return Err(Wrong::Malformed);
        }
        will_delay = Duration::from_secs(properties.will_delay.unwrap_or(0).into());
        will = Some(Message {
            topic,
            payload: reader.data()?,
            qos: flags >> 3 & 3,
            is_retained: has(0x20),
            properties: properties.passed_on.freeze(),
            expires_at: expires_at(properties.message_expiry, now),
        });
    }
    let username = if has(0x80) { Some(reader.text()?) } else { None };
    let password = if has(0x40) { Some(reader.data()?) } else { None };
    let is_clean = has(0x02);
    let session_expiry = match version {
        Version::V5 => Some(Duration::from_secs(told.session_expiry.unwrap_or(0).into())),
        Version::V311 => is_clean.then_some(Duration::ZERO),
    };
    Ok(Connect {
        version,
        client,
        is_clean,
        keep_alive,
        will,
        will_delay,
        username,
        password,
        session_expiry,
        receive_max: told.receive_max.unwrap_or(u16::MAX),
        packet_bytes_max: told.packet_bytes_max.map_or(usize::MAX, |max| max as usize),
        has_authentication: told.has_authentication,
    })
}

fn expires_at(seconds: Option<u32>, now: Instant) -> Option<Instant> {
    seconds.map(|seconds| now + Duration::from_secs(seconds.into()))
}

fn publish(mut reader: Reader, flags: u8, is_v5: bool, now: Instant) -> Result<Packet, Wrong> {
    let qos = flags >> 1 & 3;
    let topic = reader.text()?;
    if qos == 3 || !filter::is_topic(&topic) {
        return Err(Wrong::Malformed);
    }
    let packet = if qos > 0 { reader.packet()? } else { 0 };
    let told = if is_v5 { reader.properties()? } else { Default::default() };
    // The broker has said that it knows none.
    if told.has_topic_alias {
        return Err(Wrong::Malformed);
    }
    let message = Message {
        topic,
        payload: reader.rest(),
        qos,
        is_retained: flags & 1 != 0,
        properties: told.passed_on.freeze(),
        expires_at: expires_at(told.message_expiry, now),
    };
    Ok(Packet::Publish { message, packet })
}

fn subscribe(mut reader: Reader, is_v5: bool) -> Result<Packet, Wrong> {
    let packet = reader.packet()?;
    let has_id = is_v5 && reader.properties()?.has_subscription_id;
    let mut subscriptions = Vec::new();
    while !reader.is_empty() {
        let (filter, options) = (reader.text()?, reader.byte()?);
        subscriptions.push(Subscription {
            filter,
            qos: (options & 3).min(1),
            is_local_left_out: options & 4 != 0,
            is_retain_kept: options & 8 != 0,
            retain_handling: options >> 4 & 3,
        });
    }
    if subscriptions.is_empty() {
        return Err(Wrong::Malformed);
    }
    Ok(Packet::Subscribe { packet, subscriptions, has_id })
}

/// What the broker says. Reasons are MQTT 5's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Connected {
        is_known: bool,
        expiry: Duration,
        packet_bytes_max: usize,
        /// The name of a client that has given none.
        client: Option<String>,
    },
    Refused(u8),
    Publish {
        message: Arc<Message>,
        qos: u8,
        packet: u16,
        is_repeated: bool,
        is_retained: bool,
    },
    Acknowledged {
        packet: u16,
        reason: u8,
    },
    /// The first half of an acknowledgement at QoS 2.
    Received {
        packet: u16,
        reason: u8,
    },
    /// The second.
    Completed(u16),
    Subscribed {
        packet: u16,
        reasons: Vec<u8>,
    },
    Unsubscribed {
        packet: u16,
        reasons: Vec<u8>,
    },
    Pong,
    Disconnect(u8),
}

impl Reply {
    /// Writes it behind what is in `buffer`.
    pub fn write(&self, version: Version, now: Instant, buffer: &mut BytesMut) {
        let is_v5 = version == Version::V5;
        if matches!(self, Self::Disconnect(_)) && !is_v5 {
            return;
        }
        let mut body = BytesMut::new();
        self.write_body(is_v5, now, &mut body);
        buffer.put_u8(self.kind());
        put_variable(buffer, body.len());
        buffer.put_slice(&body);
    }

    /// The first byte.
    fn kind(&self) -> u8 {
        match self {
            Self::Connected { .. } | Self::Refused(_) => 0x20,
            Self::Publish { qos, is_repeated, is_retained, .. } => {
                0x30 | u8::from(*is_repeated) << 3 | qos << 1 | u8::from(*is_retained)
            }
            Self::Acknowledged { .. } => 0x40,
            Self::Received { .. } => 0x50,
            Self::Completed(_) => 0x70,
            Self::Subscribed { .. } => 0x90,
            Self::Unsubscribed { .. } => 0xb0,
            Self::Pong => 0xd0,
            Self::Disconnect(_) => 0xe0,
        }
    }

    fn write_body(&self, is_v5: bool, now: Instant, body: &mut BytesMut) {
        match self {
            Self::Connected { is_known, expiry, packet_bytes_max, client } => {
                body.put_slice(&[u8::from(*is_known), 0]);
                if is_v5 {
                    let told = connected(*expiry, *packet_bytes_max, client.as_deref());
                    put_variable(body, told.len());
                    body.put_slice(&told);
                }
            }
            Self::Refused(reason) if is_v5 => body.put_slice(&[0, *reason, 0]),
            Self::Refused(reason) => body.put_slice(&[0, refusal_of_old(*reason)]),
            Self::Publish { message, qos, packet, .. } => {
                put_data(body, message.topic.as_bytes());
                if *qos > 0 {
                    body.put_u16(*packet);
                }
                if is_v5 {
                    put_properties(body, message, now);
                }
                body.put_slice(&message.payload);
            }
            Self::Acknowledged { packet, reason } | Self::Received { packet, reason } => {
                put_acknowledgement(body, *packet, *reason, is_v5);
            }
            Self::Completed(packet) => body.put_u16(*packet),
            Self::Subscribed { packet, reasons } => {
                body.put_u16(*packet);
                if is_v5 {
                    body.put_u8(0);
                    body.put_slice(reasons);
                } else {
                    body.extend(reasons.iter().map(|&reason| reason.min(0x80)));
                }
            }
            Self::Unsubscribed { packet, reasons } => {
                body.put_u16(*packet);
                if is_v5 {
                    body.put_u8(0);
                    body.put_slice(reasons);
                }
            }
            Self::Pong => {}
            Self::Disconnect(reason) => body.put_u8(*reason),
        }
    }
}

/// What MQTT 5's clients are told when they are let in.
fn connected(expiry: Duration, packet_bytes_max: usize, client: Option<&str>) -> BytesMut {
    let mut told = BytesMut::new();
    told.put_u8(0x11);
    told.put_u32(seconds(expiry));
    told.put_u8(0x21);
    told.put_u16(RECEIVED_MAX);
    told.put_u8(0x27);
    told.put_u32(u32::try_from(packet_bytes_max).unwrap_or(u32::MAX));
    // No subscription identifiers.
    told.put_slice(&[0x29, 0]);
    if let Some(client) = client {
        told.put_u8(0x12);
        put_data(&mut told, client.as_bytes());
    }
    told
}

/// MQTT 3.1.1's word for a refusal.
fn refusal_of_old(reason: u8) -> u8 {
    match reason {
        0x84 => 1,
        0x85 => 2,
        0x86 => 4,
        0x87 => 5,
        _ => 3,
    }
}

fn put_properties(body: &mut BytesMut, message: &Message, now: Instant) {
    let left = message.expires_at.map(|at| at.saturating_duration_since(now));
    put_variable(body, message.properties.len() + if left.is_some() { 5 } else { 0 });
    if let Some(left) = left {
        body.put_u8(0x02);
        body.put_u32(seconds(left).max(1));
    }
    body.put_slice(&message.properties);
}

fn put_acknowledgement(body: &mut BytesMut, packet: u16, reason: u8, is_v5: bool) {
    body.put_u16(packet);
    if is_v5 && reason != 0 {
        body.put_u8(reason);
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
