//! What a method and a path ask for.

use percent_encoding::percent_decode_str;

use super::respond::{Refusal, invalid};
use crate::codec::shortened;
use crate::infer::{Code, InferError, ModelRef};

/// A request's target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Server,
    Live,
    Ready,
    Models,
    Model(ModelRef),
    ModelReady(ModelRef),
    Infer(ModelRef),
    Statistics(Option<ModelRef>),
    Metrics,
    Admin(AdminRoute),
}

/// What only the owner's socket takes. All of it is POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AdminRoute {
    Index,
    Load(String),
    Unload(String),
    Rollback(String),
    Remove(String),
    /// Begins an installation, or does all of it.
    Install,
    InstallPiece {
        upload: String,
        offset: u64,
    },
    InstallAbort(String),
}

/// Longest name of a model or a version, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// # Errors
/// 404 for a path that is not served, on this socket; 405 for a method that its path does not
/// take.
pub(super) fn route(method: &str, path: &str, is_admin: bool) -> Result<Route, Refusal> {
    let Some(route) = target(path) else {
        let text = format!(
            "path: `{}`: not served: see docs/protocol.md, or start with GET /v2/models",
            shortened(path)
        );
        return Err(InferError::new(Code::NotFound, text).into());
    };
    let is_for_owner = matches!(route, Route::Admin(_));
    if is_for_owner && !is_admin {
        let text = format!("path: `{}`: only served on the admin socket", shortened(path));
        return Err(InferError::new(Code::NotFound, text).into());
    }
    let is_post = is_for_owner || matches!(route, Route::Infer(_));
    let allow = if is_post { "POST" } else { "GET, HEAD" };
    if !allow.split(", ").any(|allowed| allowed == method) {
        let text = format!(
            "method: {}: `{}` does not take it: use {}",
            shortened(method),
            shortened(path),
            allow.split(", ").next().unwrap_or(allow)
        );
        return Err(invalid(405, text).with_allow(allow));
    }
    Ok(route)
}

fn target(path: &str) -> Option<Route> {
    let path = path.strip_prefix('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    // One more than the longest path has.
    let parts: Vec<&str> = path.split('/').take(7).collect();
    let model = |name, version| Some(ModelRef { name: decoded(name)?, version });
    Some(match *parts.as_slice() {
        ["metrics"] => Route::Metrics,
        ["v2"] => Route::Server,
        ["v2", "health", "live"] => Route::Live,
        ["v2", "health", "ready"] => Route::Ready,
        ["v2", "models"] => Route::Models,
        ["v2", "models", "stats"] => Route::Statistics(None),
        ["v2", "models", name] => Route::Model(model(name, None)?),
        ["v2", "models", name, verb] => of_model(verb, model(name, None)?)?,
        ["v2", "models", name, "versions", version] => {
            Route::Model(model(name, Some(decoded(version)?))?)
        }
        ["v2", "models", name, "versions", version, verb] => {
            of_model(verb, model(name, Some(decoded(version)?))?)?
        }
        ["v2", "repository", ref parts @ ..] => Route::Admin(of_repository(parts)?),
        _ => return None,
    })
}

fn of_repository(parts: &[&str]) -> Option<AdminRoute> {
    Some(match *parts {
        ["index"] => AdminRoute::Index,
        ["models", name, "load"] => AdminRoute::Load(decoded(name)?),
        ["models", name, "unload"] => AdminRoute::Unload(decoded(name)?),
        ["models", name, "rollback"] => AdminRoute::Rollback(decoded(name)?),
        ["models", name, "remove"] => AdminRoute::Remove(decoded(name)?),
        ["install"] => AdminRoute::Install,
        ["install", upload, "abort"] => AdminRoute::InstallAbort(decoded(upload)?),
        ["install", upload, offset] => {
            AdminRoute::InstallPiece { upload: decoded(upload)?, offset: offset.parse().ok()? }
        }
        _ => return None,
    })
}

fn of_model(verb: &str, model: ModelRef) -> Option<Route> {
    Some(match verb {
        "ready" => Route::ModelReady(model),
        "infer" => Route::Infer(model),
        "stats" => Route::Statistics(Some(model)),
        _ => return None,
    })
}

/// A part of a path, as it is meant.
fn decoded(part: &str) -> Option<String> {
    let name = percent_decode_str(part).decode_utf8().ok()?;
    (!name.is_empty() && name.len() <= NAME_BYTES_MAX).then(|| name.into_owned())
}
