//! What the broker keeps of one client: its subscriptions, what is on its way to it, and, while it
//! is connected, how to reach it. Does no I/O.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::Notify;

use super::packet::{Connect, Message, Reply, Subscription, Version};

/// Messages that wait for one client.
const QUEUE_MAX: usize = 4096;
const QUEUE_BYTES_MAX: usize = 8 << 20;

/// Messages at QoS 1 that one client has not acknowledged.
const INFLIGHT_MAX: u16 = 256;

/// Replies to packets of one client that it does not read.
const REPLIES_MAX: usize = 4096;

/// So many bytes are written at a time, about.
const CHUNK_BYTES: usize = 64 << 10;

#[derive(Debug, Clone)]
struct Queued {
    message: Arc<Message>,
    qos: u8,
    is_retained: bool,
    /// Its number, once it has been sent; 0 before.
    packet: u16,
}

/// A client's connection, for as long as it lasts.
#[derive(Debug)]
pub struct Link {
    pub id: u64,
    version: Version,
    receive_max: u16,
    packet_bytes_max: usize,
    /// Wakes whoever writes to the client.
    wake: Arc<Notify>,
    pub will: Option<(Duration, Message)>,
    replies: VecDeque<Reply>,
}

impl Link {
    pub fn new(id: u64, connect: &mut Connect, wake: Arc<Notify>) -> Self {
        let delay = connect.will_delay;
        Self {
            id,
            version: connect.version,
            receive_max: connect.receive_max.min(INFLIGHT_MAX),
            packet_bytes_max: connect.packet_bytes_max,
            wake,
            will: connect.will.take().map(|will| (delay, will)),
            replies: VecDeque::new(),
        }
    }

    pub fn wake(&self) {
        self.wake.notify_one();
    }
}

/// Whether a message has been taken for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    Taken,
    /// The client is away, and it is not kept.
    NotKept,
    /// Too much waits for it.
    Full,
}

#[derive(Debug, Default)]
pub struct Session {
    pub subscriptions: Vec<Subscription>,
    pub link: Option<Link>,
    /// How long it is kept without a connection.
    pub expiry: Duration,
    /// Without a connection: its end.
    pub ends_at: Option<Instant>,
    /// Without a connection: what is still to be published, and when.
    pub will: Option<(Instant, Message)>,
    /// Messages at QoS 2 from the client that it has not released.
    pub received: BTreeSet<u16>,
    /// Those that have been sent before come first.
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    inflight: VecDeque<Queued>,
    last_packet: u16,
}

impl Session {
    /// The client is back, or has come.
    pub fn connected(&mut self, link: Link) {
        while let Some(queued) = self.inflight.pop_back() {
            self.queue_bytes += queued.message.bytes();
            self.queue.push_front(queued);
        }
        self.ends_at = None;
        self.will = None;
        self.link = Some(link);
    }

    /// The client has gone: nothing at QoS 0 waits for it. Gives its Will, and how long that waits.
    pub fn parted(&mut self, now: Instant) -> Option<(Duration, Message)> {
        self.queue.retain(|queued| queued.qos > 0);
        self.queue_bytes = self.queue.iter().map(|queued| queued.message.bytes()).sum();
        self.ends_at = Some(now + self.expiry);
        self.link.take().and_then(|link| link.will)
    }

    /// Puts a message in the queue.
    pub fn offer(&mut self, message: &Arc<Message>, qos: u8, is_retained: bool) -> Offered {
        let qos = message.qos.min(qos);
        if self.link.is_none() && qos == 0 {
            return Offered::NotKept;
        }
        let bytes = self.queue_bytes + message.bytes();
        if self.queue.len() >= QUEUE_MAX || bytes > QUEUE_BYTES_MAX.max(message.bytes()) {
            return Offered::Full;
        }
        self.queue_bytes = bytes;
        let message = Arc::clone(message);
        self.queue.push_back(Queued { message, qos, is_retained, packet: 0 });
        if let Some(link) = &self.link {
            link.wake();
        }
        Offered::Taken
    }

    /// Answers a packet of the client; `false` if it reads none of the answers.
    pub fn reply(&mut self, reply: Reply) -> bool {
        let Some(link) = &mut self.link else { return true };
        link.replies.push_back(reply);
        link.wake();
        link.replies.len() <= REPLIES_MAX
    }

    pub fn acknowledged(&mut self, packet: u16) {
        if let Some(at) = self.inflight.iter().position(|queued| queued.packet == packet) {
            self.inflight.remove(at);
            if let Some(link) = &self.link {
                link.wake();
            }
        }
    }

    /// Writes what the client may get now, up to a bound.
    pub fn write(&mut self, now: Instant, buffer: &mut BytesMut) {
        let Some(link) = &mut self.link else { return };
        while buffer.len() < CHUNK_BYTES
            && let Some(reply) = link.replies.pop_front()
        {
            reply.write(link.version, now, buffer);
        }
        let (version, receive_max) = (link.version, usize::from(link.receive_max));
        let packet_bytes_max = link.packet_bytes_max;
        while buffer.len() < CHUNK_BYTES
            && let Some(next) = self.queue.front()
        {
            if next.qos > 0 && self.inflight.len() >= receive_max {
                return;
            }
            let Some(mut queued) = self.queue.pop_front() else { return };
            self.queue_bytes -= queued.message.bytes();
            // What a client can't take is not for it.
            if queued.message.is_expired(now) || queued.message.bytes() > packet_bytes_max {
                continue;
            }
            let is_repeated = queued.packet > 0;
            if queued.qos > 0 && !is_repeated {
                queued.packet = self.next_packet();
            }
            let message = Arc::clone(&queued.message);
            let Queued { qos, is_retained, packet, .. } = queued;
            let reply = Reply::Publish { message, qos, packet, is_repeated, is_retained };
            reply.write(version, now, buffer);
            if qos > 0 {
                self.inflight.push_back(queued);
            }
        }
    }

    /// A number that is not in use: far fewer are than there are.
    fn next_packet(&mut self) -> u16 {
        loop {
            self.last_packet = self.last_packet.checked_add(1).unwrap_or(1);
            let is_used = |queued: &Queued| queued.packet == self.last_packet;
            let again = self.queue.iter().take_while(|queued| queued.packet > 0);
            if !self.inflight.iter().chain(again).any(is_used) {
                return self.last_packet;
            }
        }
    }
}
