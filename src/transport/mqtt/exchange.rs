//! From a session's work to the daemon's service, and back: bodies to requests, answers to bodies.
//!
//! Knows neither topics nor the broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::incoming::{Task, Work, Written};
use super::session::{Session, Ticket};
use super::settings::Settings;
use crate::codec;
use crate::infer::{Admin, Answer, Code, InferError, InferRequest, ModelRef, Reply};

/// What the daemon has answered.
#[derive(Debug)]
pub struct Answered {
    ticket: Ticket,
    result: Result<Answer, InferError>,
    id: Option<String>,
    form: Option<codec::Form>,
    /// Of an admin request: what it wants back.
    transaction: Option<Value>,
}

/// Where answers arrive. It has a place for every request that may wait.
pub type Answers = mpsc::Sender<Answered>;

/// Sees to it that `work` is answered.
pub fn start(
    session: &mut Session,
    work: &Work,
    service: &Arc<dyn Admin>,
    settings: &Settings,
    answers: &Answers,
    now: Instant,
) {
    match &work.task {
        Task::Infer { model, version } => {
            let model = ModelRef { name: model.clone(), version: version.clone() };
            infer(session, work, model, service, settings, answers, now);
        }
        Task::Admin { verb } => admin(session, work, verb, service, answers, now),
    }
}

fn infer(
    session: &mut Session,
    work: &Work,
    model: ModelRef,
    service: &Arc<dyn Admin>,
    settings: &Settings,
    answers: &Answers,
    now: Instant,
) {
    let ticket = work.ticket;
    let decoded = service
        .model(&model)
        .and_then(|info| Ok(codec::decode(&work.body, work.json_bytes, &info, &settings.codec)?));
    let codec::Decoded { id, inputs, options, timeout, form } = match decoded {
        Ok(decoded) => decoded,
        Err(error) => {
            let id = id_of(&work.body, work.json_bytes, settings);
            let written = Written::error(&error, id.as_deref());
            return session.answer(ticket, written, now);
        }
    };
    let Some(deadline) = session.identify(ticket, id.clone(), timeout, now) else { return };
    let name = id.clone().unwrap_or_else(|| format!("mqtt-{ticket}"));
    let answers = answers.clone();
    let reply = Reply::new(move |result| {
        let answered = Answered { ticket, result, id, form: Some(form), transaction: None };
        // It has a place for each; without a receiver, the daemon has stopped.
        let _ = answers.try_send(answered);
    });
    let client = work.client.clone();
    service.submit(InferRequest { id: name, model, inputs, options, deadline, client, reply });
}

/// The id of a request that is wrong otherwise, if it can be found.
fn id_of(body: &[u8], json_bytes: Option<usize>, settings: &Settings) -> Option<String> {
    #[derive(Deserialize)]
    struct Document {
        id: Option<String>,
    }
    let json = body.get(..json_bytes.unwrap_or(body.len()))?;
    let document: Document = serde_json::from_slice(json).ok()?;
    document.id.filter(|id| id.len() <= settings.codec.id_bytes_max)
}

/// What an admin request may hold.
#[derive(Debug, Deserialize)]
struct AdminDocument {
    #[serde(default)]
    model: Option<String>,
    /// Echoed.
    #[serde(default)]
    transaction: Option<Value>,
}

const TRANSACTION_BYTES_MAX: usize = 256;

fn admin(
    session: &mut Session,
    work: &Work,
    verb: &str,
    service: &Arc<dyn Admin>,
    answers: &Answers,
    now: Instant,
) {
    let ticket = work.ticket;
    let wrong = |text: String| Err(InferError::new(Code::InvalidRequest, text));
    let body = if work.body.trim_ascii().is_empty() { b"{}" } else { &*work.body };
    let (document, error) = match serde_json::from_slice::<AdminDocument>(body) {
        Ok(document) => (document, None),
        Err(error) => {
            let document = AdminDocument { model: None, transaction: None };
            (document, Some(format!("body: {error}: send {{\"model\": \"...\"}}")))
        }
    };
    let is_short = |value: &Value| value.to_string().len() <= TRANSACTION_BYTES_MAX;
    let transaction = document.transaction.filter(is_short);
    let id = transaction.as_ref().map(ToString::to_string);
    if session.identify(ticket, id, None, now).is_none() {
        return;
    }
    let name = match (verb, document.model, error) {
        (_, _, Some(error)) => wrong(error),
        ("models", ..) => {
            let written = Written {
                payload: admin_document(Ok(models(&**service)), transaction.as_ref()),
                json_bytes: None,
                status: 200,
                facts: Vec::new(),
            };
            return session.answer(ticket, written, now);
        }
        ("load" | "unload" | "rollback", Some(name), None) => Ok(name),
        ("load" | "unload" | "rollback", None, None) => {
            wrong(format!("{verb}: which model: send {{\"model\": \"...\"}}"))
        }
        _ => {
            let verb = codec::shortened(verb);
            let text = format!("{verb}: unknown: there are models, load, unload and rollback");
            Err(InferError::new(Code::NotFound, text))
        }
    };
    let name = match name {
        Ok(name) => name,
        Err(error) => {
            return session.answer(ticket, admin_error(&error, transaction.as_ref()), now);
        }
    };
    log::info!("admin: {verb} {}: asked for over MQTT", codec::shortened(&name));
    let answers = answers.clone();
    let done = Box::new(move |result: Result<(), InferError>| {
        let result = result.map(|()| Answer {
            model: "".into(),
            version: "".into(),
            outputs: Vec::new(),
            cost: crate::infer::Cost::default(),
        });
        let answered = Answered { ticket, result, id: None, form: None, transaction };
        let _ = answers.try_send(answered);
    });
    match verb {
        "load" => service.load(&name, done),
        "unload" => service.unload(&name, done),
        _ => service.rollback(&name, done),
    }
}

fn models(service: &dyn Admin) -> Value {
    serde_json::from_slice(&codec::models(&service.models())).unwrap_or_default()
}

/// Zigbee2MQTT's form, which users of brokers know.
fn admin_document(result: Result<Value, &InferError>, transaction: Option<&Value>) -> Vec<u8> {
    let mut document = match result {
        Ok(data) => json!({"status": "ok", "data": data}),
        Err(error) => json!({
            "status": "error", "error": error.client, "code": error.code.word(), "data": {},
        }),
    };
    if let (Some(transaction), Value::Object(fields)) = (transaction, &mut document) {
        fields.insert("transaction".to_owned(), transaction.clone());
    }
    document.to_string().into_bytes()
}

fn admin_error(error: &InferError, transaction: Option<&Value>) -> Written {
    let payload = admin_document(Err(error), transaction);
    Written { payload, ..Written::error(error, None) }
}

/// Writes what the daemon has answered into the session.
pub fn finish(session: &mut Session, answered: Answered, now: Instant) {
    let Answered { ticket, result, id, form, transaction } = answered;
    if let Err(InferError { journal: Some(journal), .. }) = &result {
        log::warn!("request: {journal}");
    }
    let written = match (result, form) {
        (Ok(answer), Some(form)) => write(&answer, id.as_deref(), &form),
        (Ok(_), None) => Written {
            payload: admin_document(Ok(json!({})), transaction.as_ref()),
            json_bytes: None,
            status: 200,
            facts: Vec::new(),
        },
        (Err(error), Some(_)) => Written::error(&error, id.as_deref()),
        (Err(error), None) => admin_error(&error, transaction.as_ref()),
    };
    session.answer(ticket, written, now);
}

fn write(answer: &Answer, id: Option<&str>, form: &codec::Form) -> Written {
    let encoded = match codec::encode(answer, id, form) {
        Ok(encoded) => encoded,
        Err(error) => return Written::error(&error.into(), id),
    };
    let microseconds = |time: Duration| time.as_micros().to_string();
    Written {
        payload: encoded.bytes,
        json_bytes: encoded.json_bytes,
        status: 200,
        facts: vec![
            ("model-version", answer.version.to_string()),
            ("queue-us", microseconds(answer.cost.queue)),
            ("compute-us", microseconds(answer.cost.compute)),
        ],
    }
}
