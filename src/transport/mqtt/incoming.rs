//! The session's half that deals with requests: refuses them, hands them out, and takes their
//! answers.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::acknowledgements::AckId;
use super::message::{Outgoing, Properties, Qos, Received};
use super::outbox::{Reply, Token};
use super::remembered::{Key, Memory};
use super::session::{Phase, Session, Ticket};
use super::topics::Route;
use super::waiting::{ReplyTo, Waiting};
use crate::codec;
use crate::infer::{ClientId, Code, InferError};

/// The user property that marks replies: what bears it is never taken for a request.
pub const REPLY_MARK: &str = "moed";

/// Beside `application/octet-stream`: how many bytes of the body are JSON. The header of the same
/// name over HTTP.
pub const JSON_BYTES: &str = "inference-header-content-length";

pub const JSON: &str = "application/json";
pub const BINARY: &str = "application/octet-stream";

/// Of what a client may have echoed, in bytes.
const CORRELATION_BYTES_MAX: usize = 256;

/// Whoever answers requests has this longer than they have.
const ANSWER_GRACE: Duration = Duration::from_secs(1);

/// For how long the news that a deadline has passed is of use.
const LATE_NEWS_TIME: Duration = Duration::from_secs(5);

/// For how long errors that come at once are of use.
const ERROR_TIME: Duration = Duration::from_secs(30);

/// How many times as many as may wait for their answers may wait for that.
const INBOX_FACTOR: usize = 16;

const OVERLOAD_RETRY: Duration = Duration::from_millis(100);

/// Between two tries of a request for which a queue had no room.
const DEFER_TIME_MIN: Duration = Duration::from_millis(5);
const DEFER_TIME_MAX: Duration = Duration::from_secs(1);

/// Something for the daemon to do. Each is answered with [`Session::answer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    pub ticket: Ticket,
    pub task: Task,
    pub body: Bytes,
    /// How many of the body's bytes are JSON, if it is a binary one.
    pub json_bytes: Option<usize>,
    pub client: ClientId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    Infer { model: String, version: Option<String> },
    Admin { verb: String },
}

/// An answer or an error, written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub payload: Vec<u8>,
    /// How many of its bytes are JSON, if it is a binary one.
    pub json_bytes: Option<usize>,
    /// As over HTTP.
    pub status: u16,
    /// More to say in user properties.
    pub facts: Vec<(&'static str, String)>,
}

impl Written {
    pub fn error(error: &InferError, id: Option<&str>) -> Self {
        let retry = error.retry_after.map(|time| ("retry-after-ms", time.as_millis().to_string()));
        Self {
            payload: codec::error_document(error, id),
            json_bytes: None,
            status: error.code.status(),
            facts: [("code", error.code.word().to_owned())].into_iter().chain(retry).collect(),
        }
    }
}

/// Puts a small error in the place of a reply that the broker would not take.
pub(super) fn replace_with_error(message: &mut Outgoing, id: Option<&str>, bytes: usize) {
    let text = format!("answer: {bytes} bytes: more than the broker takes: ask for less");
    let error = InferError::new(Code::TooLarge, text);
    let written = Written::error(&error, id);
    message.payload = written.payload.into();
    message.properties.content_type = Some(JSON.to_owned());
    message.properties.user = user_properties(None, written.status, written.facts);
}

fn user_properties(
    json_bytes: Option<usize>,
    status: u16,
    facts: Vec<(&'static str, String)>,
) -> Vec<(String, String)> {
    let json_bytes = json_bytes.map(|bytes| (JSON_BYTES, bytes.to_string()));
    [(REPLY_MARK, "1".to_owned()), ("status", status.to_string())]
        .into_iter()
        .chain(json_bytes)
        .chain(facts)
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

impl Session {
    /// Reads a message; what has to be refused is answered at once.
    pub(super) fn received(&mut self, message: Received, now: Instant) {
        let ack =
            (message.qos == Qos::AtLeastOnce).then(|| self.acks.received(message.packet, now));
        let done = |session: &mut Self| ack.into_iter().for_each(|ack| session.acks.done(ack));
        let (task, client, reply_topic) = match self.topics.route(&message.topic) {
            Some(Route::Infer { model, version, client, reply }) => {
                (Task::Infer { model, version }, client, reply)
            }
            Some(Route::Admin { verb, reply }) => (Task::Admin { verb }, None, reply),
            Some(Route::HomeAssistant) => {
                if &*message.payload == b"online" {
                    self.announce_again();
                }
                done(self);
                return;
            }
            None => {
                done(self);
                return;
            }
        };
        self.counters.requests.add(1);
        if self.is_ignored(&message) {
            done(self);
            return;
        }
        let mut to = ReplyTo {
            topic: reply_topic,
            correlation: message.properties.correlation.clone(),
            qos: message.qos,
            id: None,
        };
        if let Err(error) = self.admit(&message, &mut to) {
            self.refuse(to, ack, &error, now);
            return;
        }
        let json_bytes = match json_bytes(&message.properties) {
            Ok(json_bytes) => json_bytes,
            Err(error) => {
                self.refuse(to, ack, &error, now);
                return;
            }
        };
        let time = match task {
            Task::Infer { .. } => self.settings.deadline_default,
            // Loading a model takes long on a small board.
            Task::Admin { .. } => self.settings.deadline_max,
        };
        let time = message.properties.expiry.unwrap_or(time);
        let client = format!("mqtt:{}", client.as_ref().unwrap_or(&to.topic));
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let body = message.payload;
        let work = Work { ticket, task, body, json_bytes, client: ClientId(client.into()) };
        self.inbox_bytes += work.body.len();
        self.inbox.push_back(Waiting {
            work,
            to,
            deadline: now + time.min(self.settings.deadline_max),
            acks: ack.into_iter().collect(),
            key: None,
            topic: message.topic,
            is_repeated: message.is_repeated,
        });
    }

    /// Whether it is answered to nobody: its sender does not wait, or would send it again.
    fn is_ignored(&self, message: &Received) -> bool {
        let topic = &message.topic;
        let is_v5 = self.link.as_ref().is_some_and(|link| link.is_v5);
        if message.properties.user(REPLY_MARK).is_some() {
            self.counters.loops_cut.add(1);
            log::warn!("request: {topic}: it is a reply: it would go round for ever");
            return true;
        }
        if message.is_retained && !is_v5 {
            // Kept by the broker, who knows since when.
            self.counters.retained_ignored.add(1);
            log::warn!("request: {topic}: retained: ignored; publish without");
            return true;
        }
        false
    }

    /// The next thing for the daemon to do, unless it has enough to do.
    pub fn next_work(&mut self, now: Instant) -> Option<Work> {
        while let Some(at) = self.deferred.iter().position(|(due, _)| *due <= now) {
            let (_, ticket) = self.deferred.remove(at)?;
            // It may have been given up meanwhile.
            if let Some(waiting) = self.waiting.get(&ticket) {
                return Some(waiting.work.clone());
            }
        }
        if self.waiting.len() >= usize::from(self.settings.requests_max) {
            return None;
        }
        let waiting = self.inbox.pop_front()?;
        let work = waiting.work.clone();
        self.inbox_bytes -= work.body.len();
        self.waiting.insert(work.ticket, waiting);
        Some(work)
    }

    /// A model's queue had no room for what was handed out: whether it will be handed out again.
    /// At QoS 1 it is, as long as it has time; until then it keeps its place among those that wait,
    /// and is not acknowledged, so that the broker sends no more.
    pub fn defer(&mut self, ticket: Ticket, retry_after: Option<Duration>, now: Instant) -> bool {
        let Some(waiting) = self.waiting.get(&ticket) else { return false };
        let wait = retry_after.unwrap_or(OVERLOAD_RETRY).clamp(DEFER_TIME_MIN, DEFER_TIME_MAX);
        if waiting.to.qos == Qos::AtMostOnce || now + wait >= waiting.deadline {
            return false;
        }
        self.counters.deferrals.add(1);
        self.deferred.push_back((now + wait, ticket));
        true
    }

    /// Whether one more has to be refused. At QoS 1 the broker holds back what is too much; some
    /// send a few more than they were told, and these wait here.
    fn is_overloaded(&self, message: &Received) -> bool {
        let max = usize::from(self.settings.requests_max);
        let places = if message.qos == Qos::AtMostOnce { 0 } else { max * INBOX_FACTOR };
        let bytes = self.inbox_bytes.saturating_add(message.payload.len());
        self.waiting.len() + self.inbox.len() >= max + places
            || bytes > self.settings.inbox_bytes_max.max(message.payload.len())
    }

    /// Takes over what the request says of its reply, and refuses what can't be answered so.
    fn admit(&self, message: &Received, to: &mut ReplyTo) -> Result<(), InferError> {
        let wrong = |text: String| Err(InferError::new(Code::InvalidRequest, text));
        if to.correlation.as_ref().is_some_and(|data| data.len() > CORRELATION_BYTES_MAX) {
            to.correlation = None;
            return wrong(format!(
                "correlation data: more than {CORRELATION_BYTES_MAX} bytes: give fewer"
            ));
        }
        if let Some(topic) = &message.properties.response_topic {
            if let Err(cause) = self.topics.check_reply(topic) {
                let topic = codec::shortened(topic);
                return wrong(format!("response topic: `{topic}`: {cause}"));
            }
            to.topic.clone_from(topic);
        }
        if message.payload.len() > self.settings.packet_bytes_max as usize {
            let max = self.settings.packet_bytes_max;
            let text = format!("body: more than {max} bytes: send less at a time");
            return Err(InferError::new(Code::TooLarge, text));
        }
        if message.is_retained {
            return wrong(
                "request: retained: the broker would keep it: publish without".to_owned(),
            );
        }
        if self.phase != Phase::Serving {
            let text = "daemon: stopping; try again later";
            return Err(InferError::new(Code::Unavailable, text));
        }
        if self.is_overloaded(message) {
            self.counters.overloads.add(1);
            let text = "requests: too many wait already; try again later, or publish at QoS 1";
            let error = InferError::new(Code::Overloaded, text);
            return Err(error.with_retry_after(OVERLOAD_RETRY));
        }
        Ok(())
    }

    fn refuse(&mut self, to: ReplyTo, ack: Option<AckId>, error: &InferError, now: Instant) {
        let written = Written::error(error, to.id.as_deref());
        self.reply(to, written, ack.into_iter().collect(), now + ERROR_TIME);
    }

    /// Told what the body says, answers until when the request is of use; `None` if it came
    /// before: then it needs no other answer.
    pub fn identify(
        &mut self,
        ticket: Ticket,
        id: Option<String>,
        time: Option<Duration>,
        now: Instant,
    ) -> Option<Instant> {
        let waiting = self.waiting.get_mut(&ticket)?;
        if let Some(time) = time {
            waiting.deadline = waiting.deadline.min(now + time);
        }
        waiting.to.id = id;
        let deadline = waiting.deadline;
        if waiting.key.is_some() {
            // It is handed out again.
            return Some(deadline);
        }
        let correlation = waiting.to.correlation.as_deref();
        let correlation = correlation.or(waiting.to.id.as_deref().map(str::as_bytes));
        // Without a name of its own, only what the broker itself calls repeated is.
        let is_named = correlation.is_some_and(|correlation| !correlation.is_empty());
        if waiting.to.qos == Qos::AtMostOnce {
            return Some(deadline);
        }
        let correlation = correlation.unwrap_or_default();
        let (topic, body) = (&waiting.topic, &waiting.work.body);
        let key = self.remembered.key(topic, &waiting.to.topic, correlation, body);
        if is_named || waiting.is_repeated {
            match self.remembered.get(key, now) {
                Some(&Memory::Running(first)) if self.waiting.contains_key(&first) => {
                    self.counters.duplicates_joined.add(1);
                    let again = self.waiting.remove(&ticket)?;
                    self.waiting.get_mut(&first)?.acks.extend(again.acks);
                    return None;
                }
                Some(Memory::Answered { message, token, is_confirmed }) => {
                    let again = self.waiting.remove(&ticket)?;
                    if let Some(reply) = token.and_then(|token| self.outbox.get_mut(token)) {
                        // The answer is on its way, for both.
                        self.counters.duplicates_joined.add(1);
                        reply.acks.extend(again.acks);
                    } else if *is_confirmed && again.is_repeated {
                        // The broker has the answer, and only missed that it was told so.
                        self.counters.duplicates_joined.add(1);
                        again.acks.iter().for_each(|&ack| self.acks.done(ack));
                    } else {
                        self.counters.duplicates_answered.add(1);
                        let message = (**message).clone();
                        self.put(message, again.to.id, again.acks, again.deadline, None);
                    }
                    return None;
                }
                _ => {}
            }
        }
        self.remembered.running(key, ticket, deadline);
        self.waiting.get_mut(&ticket)?.key = Some(key);
        Some(deadline)
    }

    /// Answers what was handed out. An answer that comes too late has been given already.
    pub fn answer(&mut self, ticket: Ticket, written: Written, now: Instant) {
        let Some(waiting) = self.waiting.remove(&ticket) else { return };
        let is_late = waiting.deadline <= now;
        let deadline = if is_late { now + LATE_NEWS_TIME } else { waiting.deadline };
        let is_final = written.status < 500 && written.status != Code::Overloaded.status();
        let message = message(waiting.to.clone(), written);
        // An error that may pass is no answer to the next try.
        let key = waiting.key.filter(|_| is_final);
        if let Some(key) = waiting.key
            && !is_final
        {
            self.remembered.forget(key);
        }
        let kept = key.map(|key| (key, message.clone()));
        let token = self.put(message, waiting.to.id, waiting.acks, deadline, key);
        if let Some((key, message)) = kept {
            self.remembered.answered(key, &message, token);
        }
        self.advance(now);
    }

    fn reply(&mut self, to: ReplyTo, written: Written, acks: Vec<AckId>, deadline: Instant) {
        let id = to.id.clone();
        self.put(message(to, written), id, acks, deadline, None);
    }

    fn put(
        &mut self,
        message: Outgoing,
        id: Option<String>,
        acks: Vec<AckId>,
        deadline: Instant,
        key: Option<Key>,
    ) -> Option<Token> {
        match self.outbox.push(Reply { message, deadline, id, acks, key }) {
            Ok(token) => Some(token),
            Err(reply) => {
                self.counters.replies_dropped.add(1);
                log::warn!("reply: {}: too many wait for the broker: dropped", reply.message.topic);
                reply.acks.iter().for_each(|&ack| self.acks.done(ack));
                None
            }
        }
    }

    /// Answers what should have been answered long ago.
    pub(super) fn give_up_waiting(&mut self, now: Instant) {
        let is_lost = |waiting: &Waiting| waiting.deadline + ANSWER_GRACE <= now;
        let lost: Vec<Ticket> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| is_lost(waiting))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in lost {
            let text = "request: its deadline passed before it was answered; allow more time";
            let error = InferError::new(Code::DeadlineExceeded, text);
            let id = self.waiting.get(&ticket).and_then(|waiting| waiting.to.id.clone());
            self.answer(ticket, Written::error(&error, id.as_deref()), now);
        }
    }
}

/// How many bytes of the body are JSON, from its content type; `None`: all.
fn json_bytes(properties: &Properties) -> Result<Option<usize>, InferError> {
    let wrong = |text: String| Err(InferError::new(Code::InvalidRequest, text));
    let content_type = properties.content_type.as_deref().unwrap_or(JSON);
    match content_type.split(';').next().map(str::trim) {
        Some(BINARY) => match properties.user(JSON_BYTES).map(str::parse) {
            None => Ok(Some(0)),
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(_)) => wrong(format!("{JSON_BYTES}: not a number of bytes: give one")),
        },
        Some(JSON | "" | "text/plain") => Ok(None),
        _ => {
            let given = codec::shortened(content_type);
            wrong(format!("content type: `{given}`: unknown: give {JSON} or {BINARY}"))
        }
    }
}

fn message(to: ReplyTo, written: Written) -> Outgoing {
    let content_type = if written.json_bytes.is_some() { BINARY } else { JSON };
    Outgoing {
        topic: to.topic,
        payload: written.payload.into(),
        qos: to.qos,
        is_retained: false,
        properties: Properties {
            response_topic: None,
            correlation: to.correlation,
            content_type: Some(content_type.to_owned()),
            expiry: None,
            user: user_properties(written.json_bytes, written.status, written.facts),
        },
    }
}
