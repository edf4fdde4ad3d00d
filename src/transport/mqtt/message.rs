//! Messages as the session sees them. Knows no client library.

use std::time::Duration;

use bytes::Bytes;

/// How often a message may arrive. What is sent to the daemon at QoS 2 arrives at QoS 1: it
/// subscribes so, and tells duplicates apart itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    AtMostOnce,
    AtLeastOnce,
}

/// What MQTT 5 says beside a message; empty with 3.1.1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    pub response_topic: Option<String>,
    pub correlation: Option<Bytes>,
    pub content_type: Option<String>,
    /// For how long the message is of use.
    pub expiry: Option<Duration>,
    pub user: Vec<(String, String)>,
}

impl Properties {
    /// The first user property of that name.
    pub fn user(&self, name: &str) -> Option<&str> {
        self.user.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What they take on the wire, in bytes, at most.
    fn wire_bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() + 3);
        let user: usize = self.user.iter().map(|(name, value)| name.len() + value.len() + 5).sum();
        text(&self.response_topic)
            + text(&self.content_type)
            + self.correlation.as_ref().map_or(0, |data| data.len() + 3)
            + user
            // Expiry, and the length of them all.
            + 9
    }
}

/// A message from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub topic: String,
    pub payload: Bytes,
    pub qos: Qos,
    pub is_retained: bool,
    /// The broker may have sent it before.
    pub is_repeated: bool,
    /// Its number on this connection; 0 at QoS 0.
    pub packet: u16,
    pub properties: Properties,
}

/// A message to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub topic: String,
    pub payload: Bytes,
    pub qos: Qos,
    pub is_retained: bool,
    pub properties: Properties,
}

impl Outgoing {
    /// The size of its packet, in bytes, at most.
    pub fn wire_bytes(&self) -> usize {
        // Kind and length, the topic's length, the packet's number.
        5 + 2 + self.topic.len() + 2 + self.properties.wire_bytes() + self.payload.len()
    }
}
