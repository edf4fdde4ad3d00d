//! One connection, from its first request to its end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{self, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use super::admission::{Refused, Ticket};
use super::handlers::answer;
use super::peer::Peer;
use super::progress::{Phase, Progress};
use super::respond::{Refusal, invalid};
use super::wire::{Socket, Verdict, Wire};
use super::{Access, Shared, stopped};
use crate::infer::{Code, InferError};

/// How long what a peer still sends is read and dropped after the last answer, so that its kernel
/// does not throw that answer away.
const LINGER: Duration = Duration::from_secs(1);

/// hyper's least.
const BUFFER_BYTES_MIN: usize = 8192;

/// Serves `socket` until its peer, a limit, or `stop` ends it.
pub(super) async fn run<S: Socket>(
    socket: S,
    peer: Peer,
    access: Access,
    shared: Arc<Shared>,
    progress: Arc<Progress>,
    ticket: Ticket,
    mut stop: watch::Receiver<bool>,
) {
    let limits = &shared.settings.http;
    let wire = Wire::new(socket, Arc::clone(&progress), limits);
    let service = service_fn(|request: Request<Incoming>| {
        progress.has_head();
        let (shared, peer, progress) = (&shared, &peer, &progress);
        // Boxed, so that the connection can be taken apart when it ends.
        Box::pin(async move {
            let response = answer(shared, peer, access, request).await;
            progress.has_answer();
            Ok::<_, Infallible>(response)
        })
    });
    let mut connection = http1::Builder::new()
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_headers(limits.headers_max)
        .max_header_size(limits.header_bytes_max)
        .max_buf_size(limits.header_bytes_max.saturating_mul(2).max(BUFFER_BYTES_MIN))
        .serve_connection(TokioIo::new(wire), service);
    let mut is_stopping = false;
    let mut is_evicted = false;
    let result = {
        let mut evicted = pin!(progress.evicted());
        loop {
            tokio::select! {
                biased;
                result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break result,
                () = &mut evicted => {
                    is_evicted = true;
                    break Ok(());
                }
                () = stopped(&mut stop), if !is_stopping => {
                    is_stopping = true;
                    pin::Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
    };
    let is_parse = result.as_ref().is_err_and(hyper::Error::is_parse);
    let (socket, verdict) = connection.into_parts().io.into_inner().into_parts();
    let refusal = match verdict {
        None if is_evicted && matches!(progress.phase(), Phase::Head(_)) => Some(evicted(&shared)),
        None if is_parse => Some(unreadable(400)),
        None if result.is_err() => return,
        verdict => verdict.and_then(|verdict| refusal(verdict, &shared)),
    };
    drop(ticket);
    if let Some(refusal) = &refusal {
        shared.counters.answered(refusal.status());
    }
    close(socket, refusal).await;
}

/// Tells a peer that there is no place for its connection.
pub(super) async fn refuse<S: Socket>(socket: S, refused: Refused, shared: Arc<Shared>) {
    let refusal = Refusal::from(InferError::new(Code::Unavailable, refused.to_string()));
    shared.counters.answered(refusal.status());
    close(socket, Some(refusal)).await;
}

/// What a peer hears whose connection we end.
fn refusal(verdict: Verdict, shared: &Shared) -> Option<Refusal> {
    let (counters, limits) = (&shared.counters, &shared.settings.http);
    match verdict {
        Verdict::HeaderTime => {
            counters.header_timeouts.add();
            let time = limits.header_time_max.as_secs_f32();
            let text = format!("headers: not received within {time} s: send them faster");
            Some(Refusal::new(408, InferError::new(Code::DeadlineExceeded, text)))
        }
        Verdict::IdleTime => {
            counters.idle_timeouts.add();
            None
        }
        Verdict::WriteTime => {
            counters.write_timeouts.add();
            None
        }
        Verdict::Status(431) => {
            let (bytes, headers) = (limits.header_bytes_max, limits.headers_max);
            let text = format!(
                "headers: more than {bytes} bytes or {headers} fields: send fewer and shorter ones"
            );
            Some(Refusal::new(431, InferError::new(Code::TooLarge, text)))
        }
        Verdict::Status(414) => {
            let text = "path: too long: put what you send into the body";
            Some(Refusal::new(414, InferError::new(Code::TooLarge, text)))
        }
        Verdict::Status(status) => Some(unreadable(status)),
    }
}

fn unreadable(status: u16) -> Refusal {
    invalid(status, "request: not HTTP/1.1: check its request line and headers")
}

fn evicted(shared: &Shared) -> Refusal {
    let max = shared.settings.http.connections_max;
    let text = format!("connections: all {max} are in use, and yours sent no request: try again");
    InferError::new(Code::Unavailable, text).into()
}

/// Writes the last answer if there is one, and closes so that the peer can read it.
async fn close<S: Socket>(mut socket: S, refusal: Option<Refusal>) {
    let linger = async {
        if let Some(refusal) = refusal {
            socket.write_all(&refusal.into_bytes()).await?;
        }
        socket.shutdown().await?;
        let mut dropped = [0; 4096];
        while socket.read(&mut dropped).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    // Whatever goes wrong: the peer is gone, or too slow.
    let _ = tokio::time::timeout(LINGER, linger).await;
}
