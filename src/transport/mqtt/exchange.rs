//! From a session's work to the daemon's service, and back: bodies to requests, answers to bodies.
//!
//! Knows neither topics nor the broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::admin;
use super::incoming::{Task, Work, Written};
use super::session::{Session, Ticket};
use super::settings::Settings;
use crate::codec;
use crate::infer::{Admin, Answer, Code, InferError, InferRequest, ModelRef, Reply};

/// What the daemon has answered.
#[derive(Debug)]
pub struct Answered {
    pub(super) ticket: Ticket,
    pub(super) outcome: Outcome,
}

/// The same, without whom it is for.
#[derive(Debug)]
pub(super) enum Outcome {
    Infer {
        result: Result<Answer, InferError>,
        id: Option<String>,
        form: codec::Form,
    },
    Admin {
        result: Result<Value, InferError>,
        /// What the request wants back.
        transaction: Option<Value>,
    },
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
        Task::Admin { verb } => {
            admin::start(session, work, verb, service, settings, answers, now);
        }
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
        let outcome = Outcome::Infer { result, id, form };
        // It has a place for each; without a receiver, the daemon has stopped.
        let _ = answers.try_send(Answered { ticket, outcome });
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

/// Writes what the daemon has answered into the session.
pub fn finish(session: &mut Session, answered: Answered, now: Instant) {
    let Answered { ticket, outcome } = answered;
    if let Outcome::Infer { result: Err(error), .. } = &outcome
        && error.code == Code::Overloaded
        && session.defer(ticket, error.retry_after, now)
    {
        return;
    }
    if let Outcome::Infer { result: Err(error), .. } | Outcome::Admin { result: Err(error), .. } =
        &outcome
        && let Some(journal) = &error.journal
    {
        log::warn!("request: {journal}");
    }
    let written = match outcome {
        Outcome::Infer { result: Ok(answer), id, form } => write(&answer, id.as_deref(), &form),
        Outcome::Infer { result: Err(error), id, .. } => Written::error(&error, id.as_deref()),
        Outcome::Admin { result, transaction } => admin::written(result, transaction.as_ref()),
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
