//! Reads a request's body: not longer than a limit, not for longer than a limit, and no more of
//! all requests together than a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use super::Shared;
use super::respond::Refusal;
use crate::infer::{Code, InferError};

/// Bytes that all bodies together may take.
pub(super) struct Memory {
    max: usize,
    taken: AtomicUsize,
}

impl Memory {
    pub fn new(max: usize) -> Self {
        Self { max, taken: AtomicUsize::new(0) }
    }

    fn take(&self, bytes: usize) -> bool {
        let more = |taken: usize| taken.checked_add(bytes).filter(|&taken| taken <= self.max);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// A body, which counts for as long as it is kept: its inputs take about as much.
pub(super) struct Body {
    pub bytes: Bytes,
    _taken: Taken,
}

struct Taken {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Taken {
    fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        if !self.shared.bodies.take(bytes) {
            let text = "body: the bodies of other requests take all the memory that there is for \
                        them: try again";
            return Err(InferError::new(Code::Unavailable, text).into());
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.shared.bodies.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads all of `incoming`.
pub(super) async fn read(incoming: Incoming, shared: &Arc<Shared>) -> Result<Body, Refusal> {
    let limits = &shared.settings.http;
    let max = limits.body_bytes_max;
    // Refused before a byte of it is read: who waits for `100 Continue` has sent none.
    if incoming.size_hint().lower() > max as u64 {
        return Err(too_large(max));
    }
    let time = limits.body_time_max;
    tokio::time::timeout(time, read_all(incoming, shared, max)).await.unwrap_or_else(|_| {
        shared.counters.body_timeouts.add();
        let text = format!("body: not received within {} s: send it faster", time.as_secs_f32());
        Err(Refusal::new(408, InferError::new(Code::DeadlineExceeded, text)))
    })
}

async fn read_all(
    mut incoming: Incoming,
    shared: &Arc<Shared>,
    max: usize,
) -> Result<Body, Refusal> {
    let mut taken = Taken { shared: Arc::clone(shared), bytes: 0 };
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| {
            let text = "body: it could not be read to its end: send as many bytes as the headers \
                        say";
            InferError::new(Code::InvalidRequest, text).with_journal(error.to_string())
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if taken.bytes + data.len() > max {
            return Err(too_large(max));
        }
        taken.grow(data.len())?;
        // A body in one piece, which most are, is not copied.
        if taken.bytes == data.len() {
            first = data;
        } else {
            if !first.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
    }
    let bytes = if all.is_empty() { first } else { all.freeze() };
    Ok(Body { bytes, _taken: taken })
}

fn too_large(max: usize) -> Refusal {
    let text = format!(
        "body: larger than the {max} bytes that are taken: send less, or numbers as binary data"
    );
    InferError::new(Code::TooLarge, text).into()
}
