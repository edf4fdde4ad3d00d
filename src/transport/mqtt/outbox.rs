//! Replies on their way to the broker: kept until it has them or their time has passed, and sent
//! again after each reconnection.
//!
//! The client library forgets what it was given when a broker comes back without a session; this
//! does not.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::acknowledgements::AckId;
use super::message::Outgoing;
use super::remembered::Key;

/// A message in the outbox.
pub type Token = u64;

/// What a message takes in memory beside its own bytes, about.
const OVERHEAD_BYTES: usize = 512;

/// A reply, and what depends on it.
#[derive(Debug, Clone)]
pub struct Reply {
    pub message: Outgoing,
    /// After this it is of no use.
    pub deadline: Instant,
    /// The request's id, for the error that goes instead if this is too large.
    pub id: Option<String>,
    /// Requests that are dealt with once the broker has it, or it is lost.
    pub acks: Vec<AckId>,
    /// What its request is remembered by.
    pub key: Option<Key>,
}

#[derive(Debug, Default)]
pub struct Outbox {
    /// With the bytes that each was counted with.
    replies: BTreeMap<Token, (Reply, usize)>,
    /// Not handed to the connection yet; a token may be gone from `replies`.
    queued: VecDeque<Token>,
    next: Token,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
}

impl Outbox {
    pub fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self { messages_max, bytes_max, ..Self::default() }
    }

    /// # Errors
    /// Gives the reply back if there is no room for it.
    pub fn push(&mut self, reply: Reply) -> Result<Token, Box<Reply>> {
        let bytes = reply.message.wire_bytes() + OVERHEAD_BYTES;
        let is_full = self.replies.len() >= self.messages_max
            || self.bytes.saturating_add(bytes) > self.bytes_max;
        if is_full {
            return Err(Box::new(reply));
        }
        let token = self.next;
        self.bytes += bytes;
        self.queued.push_back(token);
        self.replies.insert(token, (reply, bytes));
        self.next += 1;
        Ok(token)
    }

    /// The next reply to hand to the connection; it stays here until it is removed.
    pub fn next(&mut self) -> Option<(Token, &mut Reply)> {
        while let Some(token) = self.queued.pop_front() {
            if self.replies.contains_key(&token) {
                return self.replies.get_mut(&token).map(|(reply, _)| (token, reply));
            }
        }
        None
    }

    /// A reply that the broker does not have yet.
    pub fn get_mut(&mut self, token: Token) -> Option<&mut Reply> {
        self.replies.get_mut(&token).map(|(reply, _)| reply)
    }

    /// The broker has it, or never will.
    pub fn remove(&mut self, token: Token) -> Option<Reply> {
        let (reply, bytes) = self.replies.remove(&token)?;
        self.bytes -= bytes;
        Some(reply)
    }

    /// Whatever was handed to a connection that has ended goes again, in order.
    pub fn requeue(&mut self) {
        self.queued = self.replies.keys().copied().collect();
    }

    /// Removes replies whose time has passed.
    pub fn expire(&mut self, now: Instant) -> Vec<Reply> {
        let is_late = |(_, (reply, _)): &(&Token, &(Reply, usize))| reply.deadline <= now;
        let late = self.replies.iter().filter(is_late).map(|(token, _)| *token);
        let late: Vec<Token> = late.collect();
        late.into_iter().filter_map(|token| self.remove(token)).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    pub fn len(&self) -> usize {
        self.replies.len()
    }
}
