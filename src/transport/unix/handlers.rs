//! Everything that is asked for but inference, and the way from a request to its handler.

use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::Shared;
use super::infer::infer;
use super::peer::Peer;
use super::respond::{self, HttpResponse, Refusal};
use super::router::{Route, route};
use super::{Access, body};
use crate::codec;
use crate::infer::{Code, Done, InferError};

/// Answers a request, whatever it is.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    peer: &Peer,
    access: Access,
    request: Request<Incoming>,
) -> HttpResponse {
    let response = handle(shared, peer, access, request).await.unwrap_or_else(|refusal| {
        if let Some(cause) = refusal.journal() {
            log::warn!(PEER = &*peer.client.0; "request: {cause}");
        }
        refusal.into_response()
    });
    shared.counters.answered(response.status().as_u16());
    response
}

async fn handle(
    shared: &Arc<Shared>,
    peer: &Peer,
    access: Access,
    request: Request<Incoming>,
) -> Result<HttpResponse, Refusal> {
    let (method, path) = (request.method().as_str(), request.uri().path());
    let route = route(method, path, access == Access::Owner)?;
    let service = &shared.service;
    Ok(match route {
        Route::Infer(model) => infer(shared, &peer.client, model, request).await?,
        Route::Server => respond::json(codec::server_metadata("moed", env!("CARGO_PKG_VERSION"))),
        Route::Live => {
            let is_live = service.is_live();
            respond::health(is_live, codec::live(is_live))
        }
        Route::Ready => {
            let is_ready = service.is_ready();
            respond::health(is_ready, codec::ready(is_ready))
        }
        Route::Models => respond::json(codec::models(&service.models())),
        Route::Model(model) => {
            let info = service.model(&model)?;
            respond::json(codec::model_metadata(&info))
        }
        Route::ModelReady(model) => match service.model(&model) {
            Ok(info) => respond::health(true, codec::model_ready(&info.name, true)),
            Err(error) if error.code == Code::Unavailable => {
                respond::health(false, codec::model_ready(&model.name, false))
            }
            Err(error) => return Err(error.into()),
        },
        Route::Statistics(model) => {
            respond::json(codec::statistics(&service.statistics(model.as_ref())?))
        }
        Route::Metrics => respond::metrics(service.exposition()),
        Route::Index => {
            let body = body::read(request.into_body(), shared).await?;
            let is_of_ready = codec::index_is_of_ready(&body.bytes).map_err(InferError::from)?;
            respond::json(codec::index(&service.models(), is_of_ready))
        }
        Route::Load(name) => {
            let body = body::read(request.into_body(), shared).await?;
            codec::check_load(&body.bytes).map_err(InferError::from)?;
            drop(body);
            done(shared, |done| service.load(&name, done)).await?
        }
        // Their bodies say nothing, but one that is left unread would cost the connection.
        Route::Unload(name) => {
            drop(body::read(request.into_body(), shared).await?);
            done(shared, |done| service.unload(&name, done)).await?
        }
        Route::Rollback(name) => {
            drop(body::read(request.into_body(), shared).await?);
            done(shared, |done| service.rollback(&name, done)).await?
        }
    })
}

/// Starts something, and waits until it is done.
async fn done(shared: &Shared, start: impl FnOnce(Done)) -> Result<HttpResponse, Refusal> {
    let (send, receive) = oneshot::channel();
    start(Box::new(move |result| drop(send.send(result))));
    let time = shared.settings.admin_time_max;
    match tokio::time::timeout(time, receive).await {
        Ok(Ok(Ok(()))) => Ok(respond::json(b"{}".to_vec())),
        Ok(Ok(Err(error))) => Err(error.into()),
        Ok(Err(_)) => {
            let text = "repository: not done: the daemon is stopping";
            Err(InferError::new(Code::Unavailable, text).into())
        }
        Err(_) => {
            let text = format!(
                "repository: not done within {} s: it goes on: ask POST /v2/repository/index",
                time.as_secs()
            );
            Err(InferError::new(Code::DeadlineExceeded, text).into())
        }
    }
}
