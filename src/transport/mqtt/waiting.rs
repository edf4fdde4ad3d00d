//! A request that has been handed out, until it is answered.

use std::time::Instant;

use bytes::Bytes;

use super::acknowledgements::AckId;
use super::incoming::Work;
use super::message::Qos;
use super::remembered::Key;

/// Where an answer goes, and what of the request it takes along.
#[derive(Debug, Clone)]
pub struct ReplyTo {
    pub topic: String,
    pub correlation: Option<Bytes>,
    pub qos: Qos,
    /// In the body: echoed.
    pub id: Option<String>,
}

#[derive(Debug)]
pub struct Waiting {
    /// Kept, in case that it has to be handed out again.
    pub work: Work,
    pub to: ReplyTo,
    pub deadline: Instant,
    /// The request, and those that came again meanwhile.
    pub acks: Vec<AckId>,
    /// What it is remembered by.
    pub key: Option<Key>,
    /// For the key: the request's topic, and whether the broker marked it as repeated.
    pub topic: String,
    pub is_repeated: bool,
}
