//! Answers over HTTP, with their status and headers.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::codec::{self, Encoded};
use crate::infer::{Code, InferError};

pub(super) type HttpResponse = Response<Full<Bytes>>;

/// The header of the binary tensor extension.
pub(super) const JSON_BYTES: &str = "inference-header-content-length";

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// What is said to come back in, where nobody knows better.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// A request that is not answered with what it asked for.
#[derive(Debug)]
pub(super) struct Refusal {
    status: u16,
    error: InferError,
    id: Option<String>,
    /// Methods, for 405.
    allow: Option<&'static str>,
}

impl Refusal {
    /// With a status that says more than the error's code.
    pub fn new(status: u16, error: InferError) -> Self {
        Self { status, error, id: None, allow: None }
    }

    pub fn with_id(self, id: Option<String>) -> Self {
        Self { id, ..self }
    }

    pub fn with_allow(self, methods: &'static str) -> Self {
        Self { allow: Some(methods), ..self }
    }

    pub fn journal(&self) -> Option<&str> {
        self.error.journal.as_deref()
    }

    pub fn into_response(self) -> HttpResponse {
        let body = codec::error_document(&self.error, self.id.as_deref());
        let mut response = with_status(self.status, json(body));
        if let Some(methods) = self.allow {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        }
        match self.error.retry_after {
            Some(after) => retry_after(&mut response, after),
            None if matches!(self.status, 429 | 503) => {
                retry_after(&mut response, RETRY_AFTER_DEFAULT);
            }
            None => {}
        }
        response
    }

    /// All of a response that ends its connection, for where there is no request to answer.
    pub fn into_bytes(self) -> Vec<u8> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let retry = if matches!(self.status, 429 | 503) { "retry-after: 1\r\n" } else { "" };
        let body = codec::error_document(&self.error, None);
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{retry}\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    }

    pub fn status(&self) -> u16 {
        self.status
    }
}

impl From<InferError> for Refusal {
    fn from(error: InferError) -> Self {
        Self::new(error.code.status(), error)
    }
}

/// A request that is wrong.
pub(super) fn invalid(status: u16, text: impl Into<String>) -> Refusal {
    Refusal::new(status, InferError::new(Code::InvalidRequest, text))
}

pub(super) fn json(body: Vec<u8>) -> HttpResponse {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

pub(super) fn with_status(status: u16, mut response: HttpResponse) -> HttpResponse {
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response
}

/// 200 if it `is` so, else 503.
pub(super) fn health(is: bool, body: Vec<u8>) -> HttpResponse {
    let mut response = json(body);
    if !is {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        retry_after(&mut response, RETRY_AFTER_DEFAULT);
    }
    response
}

pub(super) fn metrics(text: String) -> HttpResponse {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
    response
}

pub(super) fn encoded(encoded: Encoded) -> HttpResponse {
    let mut response = json(encoded.bytes);
    if let Some(bytes) = encoded.json_bytes {
        response.headers_mut().insert(CONTENT_TYPE, BINARY);
        response.headers_mut().insert(JSON_BYTES, HeaderValue::from(bytes));
    }
    response
}

/// Whole seconds, rounded up.
fn retry_after(response: &mut HttpResponse, after: Duration) {
    let seconds = after.as_millis().div_ceil(1000).clamp(1, 86_400) as u64;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
}
