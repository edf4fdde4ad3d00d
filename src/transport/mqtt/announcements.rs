//! What the broker keeps of the daemon: one retained message a topic. The newest counts; each is
//! sent when it changes, and again on every connection, because a broker may have lost it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::message::{Outgoing, Properties, Qos};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Due,
    /// Handed to the connection.
    Sent,
    /// The broker has it.
    Taken,
}

#[derive(Debug)]
struct Announcement {
    payload: Bytes,
    state: State,
    /// Grows with each change, so that the broker's word on an old one is not taken for this.
    edition: u64,
}

#[derive(Debug, Default)]
pub struct Announcements {
    by_topic: BTreeMap<String, Announcement>,
}

impl Announcements {
    pub fn set(&mut self, topic: String, payload: Bytes) {
        match self.by_topic.get(&topic) {
            Some(known) if known.payload == payload => {}
            known => {
                let edition = known.map_or(0, |known| known.edition + 1);
                let announcement = Announcement { payload, state: State::Due, edition };
                self.by_topic.insert(topic, announcement);
            }
        }
    }

    /// Makes the broker forget what is retained on `topic`.
    pub fn withdraw(&mut self, topic: &str) {
        if self.by_topic.contains_key(topic) {
            self.set(topic.to_owned(), Bytes::new());
        }
    }

    /// All are sent again.
    pub fn renew(&mut self) {
        // What was withdrawn has been, or the broker has lost it.
        self.by_topic.retain(|_, known| !known.payload.is_empty() || known.state == State::Due);
        self.by_topic.values_mut().for_each(|known| known.state = State::Due);
    }

    /// The next to hand to the connection, and its edition.
    pub fn next(&mut self) -> Option<(Outgoing, u64)> {
        let (topic, due) = self.by_topic.iter_mut().find(|(_, known)| known.state == State::Due)?;
        due.state = State::Sent;
        let content_type = due.payload.starts_with(b"{").then(|| "application/json".to_owned());
        let message = Outgoing {
            topic: topic.clone(),
            payload: due.payload.clone(),
            qos: Qos::AtLeastOnce,
            is_retained: true,
            properties: Properties { content_type, ..Properties::default() },
        };
        Some((message, due.edition))
    }

    /// The broker has that edition.
    pub fn taken(&mut self, topic: &str, edition: u64) {
        if let Some(known) = self.by_topic.get_mut(topic)
            && known.state == State::Sent
            && known.edition == edition
        {
            known.state = State::Taken;
            if known.payload.is_empty() {
                // The broker has forgotten it, and so may we.
                self.by_topic.remove(topic);
            }
        }
    }

    /// Whether the broker has the newest message of `topic`.
    pub fn is_taken(&self, topic: &str) -> bool {
        self.by_topic.get(topic).is_some_and(|known| known.state == State::Taken)
    }
}
