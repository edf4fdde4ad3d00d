//! Requests of late, so that one that comes twice is computed once: at QoS 1, brokers and clients
//! send again what they are not sure of.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Instant;

use bytes::Bytes;

use super::message::Outgoing;
use super::outbox::Token;

/// What a request is told from others by: topics, correlation or id, and its whole body. Two
/// different ones have the same key once in 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64);

/// What is known of a request that came before.
#[derive(Debug)]
pub enum Memory {
    /// It is being computed, under this number.
    Running(u64),
    Answered {
        message: Box<Outgoing>,
        /// Its place in the outbox, while it is there.
        token: Option<Token>,
        /// The broker has it.
        is_confirmed: bool,
    },
}

#[derive(Debug)]
struct Entry {
    memory: Memory,
    /// After this, the same request is a new one.
    until: Instant,
    bytes: usize,
}

#[derive(Debug)]
pub struct Remembered {
    entries: HashMap<Key, Entry>,
    /// Oldest first; a key may be gone from `entries`.
    order: VecDeque<Key>,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
    hasher: RandomState,
}

impl Remembered {
    pub fn new(entries_max: usize, bytes_max: usize) -> Self {
        let (entries, order, hasher) = (HashMap::new(), VecDeque::new(), RandomState::new());
        Self { entries, order, bytes: 0, entries_max, bytes_max, hasher }
    }

    pub fn key(&self, topic: &str, reply_to: &str, correlation: &[u8], body: &Bytes) -> Key {
        Key(self.hasher.hash_one((topic, reply_to, correlation, body)))
    }

    pub fn get(&mut self, key: Key, now: Instant) -> Option<&Memory> {
        if self.entries.get(&key)?.until <= now {
            self.forget(key);
        }
        self.entries.get(&key).map(|entry| &entry.memory)
    }

    pub fn running(&mut self, key: Key, ticket: u64, until: Instant) {
        self.forget(key);
        while self.entries.len() >= self.entries_max && self.forget_oldest() {}
        self.entries.insert(key, Entry { memory: Memory::Running(ticket), until, bytes: 0 });
        self.order.push_back(key);
    }

    /// Keeps the reply, if it is not larger than all of them may be.
    pub fn answered(&mut self, key: Key, reply: &Outgoing, token: Option<Token>) {
        let bytes = reply.wire_bytes();
        if bytes > self.bytes_max {
            return self.forget(key);
        }
        while self.bytes + bytes > self.bytes_max && self.forget_oldest() {}
        if let Some(entry) = self.entries.get_mut(&key) {
            self.bytes = self.bytes - entry.bytes + bytes;
            entry.bytes = bytes;
            let message = Box::new(reply.clone());
            entry.memory = Memory::Answered { message, token, is_confirmed: false };
        }
    }

    /// The broker has the reply.
    pub fn confirmed(&mut self, key: Key) {
        if let Some(Entry { memory: Memory::Answered { is_confirmed, .. }, .. }) =
            self.entries.get_mut(&key)
        {
            *is_confirmed = true;
        }
    }

    pub fn forget(&mut self, key: Key) {
        if let Some(entry) = self.entries.remove(&key) {
            self.bytes -= entry.bytes;
        }
        // Keys that were forgotten one by one are not looked for in the middle.
        if self.order.len() > 2 * self.entries_max {
            self.order.retain(|key| self.entries.contains_key(key));
        }
    }

    /// Forgets what may be asked again, as far as it came in order.
    pub fn expire(&mut self, now: Instant) {
        let is_over = |key: &Key| self.entries.get(key).is_none_or(|entry| entry.until <= now);
        let over = self.order.iter().take_while(|key| is_over(key)).count();
        for key in self.order.drain(..over).collect::<Vec<_>>() {
            self.forget(key);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn forget_oldest(&mut self) -> bool {
        let Some(key) = self.order.pop_front() else { return false };
        self.forget(key);
        true
    }
}
