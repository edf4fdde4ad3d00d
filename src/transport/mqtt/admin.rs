//! The owner's commands over the broker: a verb and a JSON object, to what the daemon does, to an
//! answer. In Zigbee2MQTT's form, which users of brokers know.
//!
//! Knows neither topics nor the broker.

use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::exchange::{Answered, Answers, Outcome};
use super::incoming::{Work, Written};
use super::session::{Session, Ticket};
use super::settings::Settings;
use crate::codec;
use crate::infer::{Admin, Code, Done, InferError};

/// What every request may hold.
#[derive(Debug, Default, Deserialize)]
struct Document {
    #[serde(default)]
    model: Option<String>,
    /// Echoed.
    #[serde(default)]
    transaction: Option<Value>,
}

const TRANSACTION_BYTES_MAX: usize = 256;

/// Of a piece's packet, what is not its data: topic, properties, the other fields.
const PIECE_OVERHEAD_BYTES: usize = 2048;

/// Sees to it that a command is answered.
pub(super) fn start(
    session: &mut Session,
    work: &Work,
    verb: &str,
    service: &Arc<dyn Admin>,
    settings: &Settings,
    answers: &Answers,
    now: Instant,
) {
    let ticket = work.ticket;
    let body = if work.body.trim_ascii().is_empty() { b"{}" } else { &*work.body };
    let read = serde_json::from_slice::<Document>(body);
    let cause = read.as_ref().err().map(ToString::to_string);
    let Document { model, transaction } = read.unwrap_or_default();
    let is_short = |value: &Value| value.to_string().len() <= TRANSACTION_BYTES_MAX;
    let transaction = transaction.filter(is_short);
    let id = transaction.as_ref().map(ToString::to_string);
    if session.identify(ticket, id, None, now).is_none() {
        return;
    }
    let reply = Reply { ticket, transaction, answers: answers.clone() };
    match (cause, verb) {
        (Some(cause), _) => {
            reply.wrong(format!("body: {cause}: send {{\"model\": \"...\"}}"));
        }
        (None, "models") => reply.send(Ok(models(&**service))),
        (None, "install") => install(reply, body, service, settings),
        (None, "load" | "unload" | "rollback" | "remove") => match model {
            Some(name) => act(reply, verb, &name, body, service),
            None => reply.wrong(format!("{verb}: which model: send {{\"model\": \"...\"}}")),
        },
        (None, _) => {
            let verb = codec::shortened(verb);
            let text = format!(
                "{verb}: unknown: there are models, install, load, unload, rollback and remove"
            );
            reply.send(Err(InferError::new(Code::NotFound, text)));
        }
    }
}

/// Where a command's answer goes.
struct Reply {
    ticket: Ticket,
    transaction: Option<Value>,
    answers: Answers,
}

impl Reply {
    fn send(self, result: Result<Value, InferError>) {
        let outcome = Outcome::Admin { result, transaction: self.transaction };
        // It has a place for each; without a receiver, the daemon has stopped.
        let _ = self.answers.try_send(Answered { ticket: self.ticket, outcome });
    }

    fn wrong(self, text: String) {
        self.send(Err(InferError::new(Code::InvalidRequest, text)));
    }
}

fn act(reply: Reply, verb: &str, name: &str, body: &[u8], service: &Arc<dyn Admin>) {
    let version = match codec::decode_remove(body) {
        Ok(version) => version,
        Err(error) => return reply.send(Err(error.into())),
    };
    log::info!("admin: {verb} {}: asked for over MQTT", codec::shortened(name));
    let done: Done = Box::new(move |result| reply.send(result.map(|()| json!({}))));
    match verb {
        "load" => service.load(name, done),
        "unload" => service.unload(name, done),
        "remove" => service.remove(name, version.as_deref(), done),
        _ => service.rollback(name, done),
    }
}

fn install(reply: Reply, body: &[u8], service: &Arc<dyn Admin>, settings: &Settings) {
    let step = match codec::decode_install(body) {
        Ok(step) => step,
        Err(error) => return reply.send(Err(error.into())),
    };
    let packet_bytes_max = usize::try_from(settings.packet_bytes_max).unwrap_or(usize::MAX);
    // Three bytes are four of base64.
    let piece_bytes_max = packet_bytes_max.saturating_sub(PIECE_OVERHEAD_BYTES) / 4 * 3;
    let done = move |result: Result<_, InferError>| {
        reply.send(result.map(|progress| codec::install_progress(&progress, piece_bytes_max)));
    };
    service.install(step, Box::new(done));
}

fn models(service: &dyn Admin) -> Value {
    serde_json::from_slice(&codec::models(&service.models())).unwrap_or_default()
}

/// A command's answer, written.
pub(super) fn written(result: Result<Value, InferError>, transaction: Option<&Value>) -> Written {
    match result {
        Ok(data) => Written {
            payload: document(json!({"status": "ok", "data": data}), transaction),
            json_bytes: None,
            status: 200,
            facts: Vec::new(),
        },
        Err(error) => {
            let fields = json!({
                "status": "error", "error": error.client, "code": error.code.word(), "data": {},
            });
            Written { payload: document(fields, transaction), ..Written::error(&error, None) }
        }
    }
}

fn document(mut document: Value, transaction: Option<&Value>) -> Vec<u8> {
    if let (Some(transaction), Value::Object(fields)) = (transaction, &mut document) {
        fields.insert("transaction".to_owned(), transaction.clone());
    }
    document.to_string().into_bytes()
}
