//! An inference request, from its headers to its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use tokio::sync::oneshot;

use super::Shared;
use super::body;
use super::respond::{self, HttpResponse, JSON_BYTES, Refusal, invalid};
use crate::codec;
use crate::infer::{ClientId, Code, InferError, InferRequest, ModelRef, Reply};

/// The service answers at the deadline itself; if it does not, we do after this.
const GRACE: Duration = Duration::from_millis(100);

pub(super) async fn infer(
    shared: &Arc<Shared>,
    client: &ClientId,
    model: ModelRef,
    request: Request<Incoming>,
) -> Result<HttpResponse, Refusal> {
    let received = Instant::now();
    let (head, incoming) = request.into_parts();
    check_content(&head.headers)?;
    let json_bytes = json_bytes(&head.headers)?;
    let info = shared.service.model(&model)?;
    let body = body::read(incoming, shared).await?;
    let settings = &shared.settings;
    let decoded =
        codec::decode(&body.bytes, json_bytes, &info, &settings.codec).map_err(InferError::from)?;
    let timeout = decoded.timeout.unwrap_or(settings.deadline_default).min(settings.deadline_max);
    let deadline = received + timeout;
    let (send, receive) = oneshot::channel();
    let id = decoded.id;
    let request = InferRequest {
        id: id.clone().unwrap_or_else(next_id),
        model,
        inputs: decoded.inputs,
        options: decoded.options,
        deadline,
        client: client.clone(),
        // Who has left gets no answer: the guard counts it.
        reply: Reply::new(move |result| drop(send.send(result))),
    };
    let mut waiting = Waiting { shared, is_answered: false };
    shared.service.submit(request);
    let result = tokio::time::timeout_at((deadline + GRACE).into(), receive).await;
    waiting.is_answered = true;
    // Until here: the inputs take about as much.
    drop(body);
    let result = match result {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(InferError::new(Code::Unavailable, "request: not computed: try again")),
        Err(_) => {
            let text = "request: its time is over: give it a longer `timeout`, or less to do";
            Err(InferError::new(Code::DeadlineExceeded, text))
        }
    };
    let encoded = result.and_then(|answer| {
        codec::encode(&answer, id.as_deref(), &decoded.form).map_err(InferError::from)
    });
    match encoded {
        Ok(encoded) => Ok(respond::encoded(encoded)),
        Err(error) => Err(Refusal::from(error).with_id(id)),
    }
}

/// For the journal, where the client gives none.
fn next_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("http-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A client that waits. Its handler is dropped when it leaves.
struct Waiting<'a> {
    shared: &'a Shared,
    is_answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.shared.counters.clients_gone.add();
        }
    }
}

/// 415 for a body that is not JSON or binary data, or that is compressed. What `curl -d` says is
/// taken for JSON.
fn check_content(headers: &HeaderMap) -> Result<(), Refusal> {
    let given = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    if let Some(encoding) = given(CONTENT_ENCODING)
        && !encoding.eq_ignore_ascii_case("identity")
    {
        let text = format!(
            "content-encoding: `{}`: not taken: send the body as it is",
            codec::shortened(&encoding)
        );
        return Err(invalid(415, text));
    }
    let Some(content) = given(CONTENT_TYPE) else { return Ok(()) };
    let essence = content.split(';').next().unwrap_or_default().trim();
    let taken =
        ["application/json", "application/octet-stream", "application/x-www-form-urlencoded"];
    if essence.is_empty() || taken.iter().any(|taken| essence.eq_ignore_ascii_case(taken)) {
        return Ok(());
    }
    let text = format!(
        "content-type: `{}`: not taken: send application/json, or application/octet-stream with \
         binary data",
        codec::shortened(essence)
    );
    Err(invalid(415, text))
}

fn json_bytes(headers: &HeaderMap) -> Result<Option<usize>, Refusal> {
    let Some(value) = headers.get(JSON_BYTES) else { return Ok(None) };
    let bytes = value.to_str().ok().and_then(|value| value.trim().parse().ok());
    bytes.map(Some).ok_or_else(|| {
        let text = "Inference-Header-Content-Length: not a number: give the bytes of the JSON \
                    before the binary data";
        invalid(400, text)
    })
}
