//! Everything that is asked for but inference, and the way from a request to its handler.

use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::Shared;
use super::infer::infer;
use super::peer::Peer;
use super::respond::{self, HttpResponse, Refusal};
use super::router::{AdminRoute, Route, route};
use super::{Access, body};
use crate::codec;
use crate::infer::{Code, Done, InferError, InstallStep};

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
        Route::Admin(route) => administer(shared, route, request).await?,
    })
}

/// What only the owner's socket takes. Every body is read: one that is left unread would cost the
/// connection.
async fn administer(
    shared: &Arc<Shared>,
    route: AdminRoute,
    request: Request<Incoming>,
) -> Result<HttpResponse, Refusal> {
    let service = &shared.service;
    let body = body::read(request.into_body(), shared).await?;
    Ok(match route {
        AdminRoute::Index => {
            let is_of_ready = codec::index_is_of_ready(&body.bytes).map_err(InferError::from)?;
            respond::json(codec::index(&service.models(), is_of_ready))
        }
        AdminRoute::Load(name) => {
            codec::check_load(&body.bytes).map_err(InferError::from)?;
            drop(body);
            done(shared, |done| service.load(&name, done)).await?
        }
        AdminRoute::Unload(name) => done(shared, |done| service.unload(&name, done)).await?,
        AdminRoute::Rollback(name) => done(shared, |done| service.rollback(&name, done)).await?,
        AdminRoute::Remove(name) => {
            let version = codec::decode_remove(&body.bytes).map_err(InferError::from)?;
            done(shared, |done| service.remove(&name, version.as_deref(), done)).await?
        }
        AdminRoute::Install => {
            let step = codec::decode_install(&body.bytes).map_err(InferError::from)?;
            drop(body);
            install(shared, step).await?
        }
        AdminRoute::InstallPiece { upload, offset } => {
            let bytes = body.bytes.to_vec();
            drop(body);
            install(shared, InstallStep::Piece { upload, offset, bytes }).await?
        }
        AdminRoute::InstallAbort(upload) => install(shared, InstallStep::Abort { upload }).await?,
    })
}

/// Does a step of an installation, and waits until it is done.
async fn install(shared: &Shared, step: InstallStep) -> Result<HttpResponse, Refusal> {
    let (send, receive) = oneshot::channel();
    shared.service.install(step, Box::new(move |result| drop(send.send(result))));
    let progress = wait(shared, receive).await?;
    let piece_bytes_max = shared.settings.http.body_bytes_max;
    let document = codec::install_progress(&progress, piece_bytes_max);
    Ok(respond::json(document.to_string().into_bytes()))
}

/// Starts something, and waits until it is done.
async fn done(shared: &Shared, start: impl FnOnce(Done)) -> Result<HttpResponse, Refusal> {
    let (send, receive) = oneshot::channel();
    start(Box::new(move |result| drop(send.send(result))));
    wait(shared, receive).await?;
    Ok(respond::json(b"{}".to_vec()))
}

async fn wait<T>(
    shared: &Shared,
    receive: oneshot::Receiver<Result<T, InferError>>,
) -> Result<T, Refusal> {
    let time = shared.settings.admin_time_max;
    match tokio::time::timeout(time, receive).await {
        Ok(Ok(result)) => Ok(result?),
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
