//! The protocol's other documents: metadata, readiness, statistics, the repository's index, and
//! errors.

use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::DecodeError;
use super::datatype::word;
use super::parameters::Parameters;
use crate::infer::{
    Content, InferError, ModelInfo, ModelState, ModelStatistics, ModelStatus, Tally,
};
use crate::tensor::DType;

/// Extensions of the protocol that are served.
const EXTENSIONS: [&str; 5] =
    ["binary_tensor_data", "classification", "model_repository", "schedule_policy", "statistics"];

/// Nothing here can fail to be written: maps have string keys, numbers are finite.
fn json<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

/// `GET /v2`
pub fn server_metadata(name: &str, version: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Document<'a> {
        name: &'a str,
        version: &'a str,
        extensions: [&'static str; 5],
    }
    json(&Document { name, version, extensions: EXTENSIONS })
}

/// `GET /v2/health/live`
pub fn live(is_live: bool) -> Vec<u8> {
    #[derive(Serialize)]
    struct Document {
        live: bool,
    }
    json(&Document { live: is_live })
}

/// `GET /v2/health/ready`
pub fn ready(is_ready: bool) -> Vec<u8> {
    #[derive(Serialize)]
    struct Document {
        ready: bool,
    }
    json(&Document { ready: is_ready })
}

/// `GET /v2/models/M/ready`
pub fn model_ready(name: &str, is_ready: bool) -> Vec<u8> {
    #[derive(Serialize)]
    struct Document<'a> {
        name: &'a str,
        ready: bool,
    }
    json(&Document { name, ready: is_ready })
}

#[derive(Serialize)]
struct Port<'a> {
    name: &'a str,
    datatype: &'static str,
    /// -1: any size.
    shape: Vec<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<PortParameters>,
}

#[derive(Serialize, Default)]
struct PortParameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    optional: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'static str>,
}

fn port<'a>(
    name: &'a str,
    dtype: DType,
    dims: &[Option<usize>],
    parameters: Option<PortParameters>,
) -> Port<'a> {
    let size = |dim: &Option<usize>| dim.and_then(|dim| i64::try_from(dim).ok()).unwrap_or(-1);
    Port { name, datatype: word(dtype), shape: dims.iter().map(size).collect(), parameters }
}

/// `GET /v2/models/M`
pub fn model_metadata(model: &ModelInfo) -> Vec<u8> {
    #[derive(Serialize)]
    struct Document<'a> {
        name: &'a str,
        versions: &'a [String],
        platform: &'static str,
        inputs: Vec<Port<'a>>,
        outputs: Vec<Port<'a>>,
        parameters: ModelParameters<'a>,
    }

    #[derive(Serialize)]
    struct ModelParameters<'a> {
        version: &'a str,
        task: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        k_min: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        k_max: Option<usize>,
        resident_bytes: u64,
    }

    let inputs = model.inputs.iter().map(|spec| {
        let optional = PortParameters { optional: Some(true), content_type: None };
        port(&spec.name, spec.dtype, &spec.dims, spec.is_optional.then_some(optional))
    });
    let outputs = model.outputs.iter().map(|spec| {
        let content_type = Some("application/json");
        let parameters = PortParameters { optional: None, content_type };
        let parameters = (spec.content == Content::Json).then_some(parameters);
        port(&spec.name, spec.dtype, &spec.dims, parameters)
    });
    json(&Document {
        name: &model.name,
        versions: &model.versions,
        platform: "onnx_tract",
        inputs: inputs.collect(),
        outputs: outputs.collect(),
        parameters: ModelParameters {
            version: &model.version,
            task: &model.task,
            k_min: model.k.map(|(min, _)| min),
            k_max: model.k.map(|(_, max)| max),
            resident_bytes: model.resident_bytes,
        },
    })
}

/// The words of Triton's repository extension; a failed model is not available, and its reason
/// says so.
fn state_word(state: ModelState) -> &'static str {
    match state {
        ModelState::Loading => "LOADING",
        ModelState::Ready => "READY",
        ModelState::Unloaded | ModelState::Failed => "UNAVAILABLE",
    }
}

#[derive(Serialize)]
struct Status<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    state: &'static str,
    reason: &'a str,
}

fn status(model: &ModelStatus) -> Status<'_> {
    Status {
        name: &model.name,
        version: model.version.as_deref(),
        state: state_word(model.state),
        reason: model.reason.as_deref().unwrap_or_default(),
    }
}

/// `GET /v2/models`: each with its state.
pub fn models(models: &[ModelStatus]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Document<'a> {
        models: Vec<Status<'a>>,
    }
    json(&Document { models: models.iter().map(status).collect() })
}

/// `POST /v2/repository/index`
pub fn index(models: &[ModelStatus], is_of_ready: bool) -> Vec<u8> {
    let is_listed = |model: &&ModelStatus| !is_of_ready || model.state == ModelState::Ready;
    let index: Vec<Status<'_>> = models.iter().filter(is_listed).map(status).collect();
    json(&index)
}

/// Reads the body of an index request: whether only ready models are asked for.
///
/// # Errors
/// A body that is not `{"ready": bool}`.
pub fn index_is_of_ready(body: &[u8]) -> Result<bool, DecodeError> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(default)]
        ready: bool,
    }
    if body.trim_ascii().is_empty() {
        return Ok(false);
    }
    let document: Document = serde_json::from_slice(body).map_err(|_| {
        DecodeError::field("body", "not understood: send nothing, or {\"ready\": true}")
    })?;
    Ok(document.ready)
}

/// Reads the body of a load request, which may not bring a configuration or files.
///
/// # Errors
/// One that does, or that is not JSON.
pub fn check_load(body: &[u8]) -> Result<(), DecodeError> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(default)]
        parameters: Parameters,
    }
    if body.trim_ascii().is_empty() {
        return Ok(());
    }
    let document: Document = serde_json::from_slice(body)
        .map_err(|_| DecodeError::field("body", "not understood: send nothing, or {}"))?;
    match document.parameters.names().find(|name| *name == "config" || name.starts_with("file:")) {
        None => Ok(()),
        Some(name) => {
            let cause = "not taken: models come from the repository's directory: put it there";
            Err(DecodeError::parameter(name, cause))
        }
    }
}

#[derive(Serialize)]
struct Duration {
    count: u64,
    ns: u64,
}

impl From<Tally> for Duration {
    fn from(tally: Tally) -> Self {
        Self { count: tally.count, ns: nanoseconds(tally.total) }
    }
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    version: &'a str,
    /// Milliseconds since 1970; 0: never.
    last_inference: u64,
    inference_count: u64,
    execution_count: u64,
    inference_stats: Stats,
    batch_stats: Vec<Batch>,
    memory_usage: [Memory; 1],
}

#[derive(Serialize)]
struct Stats {
    success: Duration,
    fail: Duration,
    queue: Duration,
    compute_input: Duration,
    compute_infer: Duration,
    compute_output: Duration,
    /// There is no cache: both stay at 0.
    cache_hit: Duration,
    cache_miss: Duration,
}

#[derive(Serialize)]
struct Batch {
    batch_size: usize,
    compute_infer: Duration,
}

#[derive(Serialize)]
struct Memory {
    r#type: &'static str,
    id: u64,
    byte_size: u64,
}

fn model_statistics(model: &ModelStatistics) -> Model<'_> {
    let since = model.last_inference.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let never = || Tally::default().into();
    let batch =
        |&(batch_size, tally): &(usize, Tally)| Batch { batch_size, compute_infer: tally.into() };
    Model {
        name: &model.name,
        version: &model.version,
        last_inference: since.map_or(0, |since| since.as_millis() as u64),
        inference_count: model.success.count,
        execution_count: model.batches.iter().map(|(_, tally)| tally.count).sum(),
        inference_stats: Stats {
            success: model.success.into(),
            fail: model.fail.into(),
            queue: model.queue.into(),
            compute_input: model.compute_input.into(),
            compute_infer: model.compute_infer.into(),
            compute_output: model.compute_output.into(),
            cache_hit: never(),
            cache_miss: never(),
        },
        batch_stats: model.batches.iter().map(batch).collect(),
        memory_usage: [Memory { r#type: "CPU", id: 0, byte_size: model.resident_bytes }],
    }
}

/// `GET /v2/models/stats` and `/v2/models/M/stats`
pub fn statistics(models: &[ModelStatistics]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Document<'a> {
        model_stats: Vec<Model<'a>>,
    }
    json(&Document { model_stats: models.iter().map(model_statistics).collect() })
}

/// The body of an error, on each transport.
pub fn error_document(error: &InferError, id: Option<&str>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Document<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        error: &'a str,
        code: &'static str,
    }
    json(&Document { id, error: &error.client, code: error.code.word() })
}
