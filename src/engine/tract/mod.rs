//! The backend that runs ONNX files: tract for the graph, our operators for what is sparse or
//! quantised.
//!
//! Loading goes: [`inspect`](super::inspect) bounds the file; [`hoist`] takes our operators'
//! weights out of the protobuf, into a mapping where they lie outside the file; tract parses,
//! types and optimises the rest. All of it on a thread of its own with a large stack, because
//! tract recurses over the graph, and panics on some of what it does not expect.

mod convert;
mod hoist;
mod operators;
mod session;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{DimLike as _, bail};

use super::inspect::{InspectError, Inspected, external, inspect};
use super::kernel::pool::Pool;
use super::kernel::{self, Kernel};
use super::{Backend, Dim, LayerInfo, LoadError, LoadOptions, Model, Port, Session, Signature};
use operators::Operator;

/// Stack of the loading thread: address space, of which only what is used becomes memory.
const LOAD_STACK_BYTES: usize =
    if cfg!(target_pointer_width = "32") { 32 << 20 } else { 256 << 20 };

/// Loads ONNX files.
#[derive(Debug, Default)]
pub struct Tract;

impl Backend for Tract {
    fn load(
        &self,
        bundle: &Path,
        file: &str,
        options: &LoadOptions,
    ) -> Result<Box<dyn Model>, LoadError> {
        Ok(Box::new(load(bundle, file, options)?))
    }
}

/// A loaded ONNX model.
pub struct TractModel {
    /// What errors call it.
    file: String,
    plan: Arc<TypedRunnableModel>,
    signature: Signature,
    layers: Vec<LayerInfo>,
    kernel: &'static dyn Kernel,
    pool: Arc<Pool>,
    /// Uses of each operator in the file, by (domain, operator).
    operators: BTreeMap<(String, String), u64>,
}

impl TractModel {
    /// Uses of each operator in the file, by (domain, operator); the default domain is "".
    pub fn operators(&self) -> &BTreeMap<(String, String), u64> {
        &self.operators
    }

    /// What tract has made of them: how often each of its own operators runs, by its name.
    pub fn plan_operators(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for node in &self.plan.model().nodes {
            *counts.entry(node.op.name().into_owned()).or_default() += 1;
        }
        counts
    }
}

impl Model for TractModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn layers(&self) -> &[LayerInfo] {
        &self.layers
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        let session = session::TractSession::new(
            Arc::clone(&self.plan),
            self.signature.clone(),
            self.layers.iter().map(|layer| layer.k).max().unwrap_or(0),
            self.kernel,
            Arc::clone(&self.pool),
        );
        session.map(|session| Box::new(session) as Box<dyn Session>).map_err(|cause| {
            LoadError::Graph { file: self.file.clone(), cause: format!("{cause:#}") }
        })
    }
}

/// Loads `file` of the bundle directory `bundle`.
pub fn load(bundle: &Path, file: &str, options: &LoadOptions) -> Result<TractModel, LoadError> {
    let bytes = read(bundle, file, options)?;
    let kernel = kernel::active()?;
    let pool = Arc::new(Pool::new(options.threads.max(1)).map_err(LoadError::Threads)?);
    std::thread::scope(|scope| {
        let loading = std::thread::Builder::new()
            .name("moed-load".to_owned())
            .stack_size(LOAD_STACK_BYTES)
            .spawn_scoped(scope, || build(bundle, file, bytes, options, kernel, pool))
            .map_err(LoadError::Threads)?;
        loading.join().unwrap_or_else(|panic| {
            let cause = panic_text(panic.as_ref()).to_owned();
            Err(LoadError::Panicked { file: file.to_owned(), cause })
        })
    })
}

/// What a panic said.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it said nothing")
}

fn read(bundle: &Path, file: &str, options: &LoadOptions) -> Result<Vec<u8>, LoadError> {
    let inspect_error = |cause| LoadError::Inspect { file: file.to_owned(), cause };
    let file_error = |cause| LoadError::File { file: file.to_owned(), cause };
    let opened = external::open(bundle, file, &options.limits).map_err(inspect_error)?;
    let mut bytes = Vec::new();
    let bytes_max = options.limits.model_bytes_max;
    // One more than allowed, so that `inspect` sees, and says, that it is too long.
    opened.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(file_error)?;
    Ok(bytes)
}

fn build(
    bundle: &Path,
    file: &str,
    bytes: Vec<u8>,
    options: &LoadOptions,
    kernel: &'static dyn Kernel,
    pool: Arc<Pool>,
) -> Result<TractModel, LoadError> {
    let inspected = inspect(&bytes, &options.limits)
        .map_err(|cause: InspectError| LoadError::Inspect { file: file.to_owned(), cause })?;
    drop(bytes);
    let Inspected { mut model, externals, summary } = inspected;
    let place = hoist::Place { bundle, file, limits: &options.limits };
    let operators = hoist::hoist(&mut model, &externals, place)?;
    let layers = operators.iter().filter_map(Operator::layer_info).collect();
    let graph_error =
        |cause: TractError| LoadError::Graph { file: file.to_owned(), cause: format!("{cause:#}") };
    let (plan, signature) = plan(&model, operators).map_err(graph_error)?;
    let operators = summary.operators;
    Ok(TractModel { file: file.to_owned(), plan, signature, layers, kernel, pool, operators })
}

fn plan(
    model: &tract_onnx::pb::ModelProto,
    operators: Vec<Operator>,
) -> TractResult<(Arc<TypedRunnableModel>, Signature)> {
    let mut onnx = onnx().with_ignore_output_shapes(true);
    operators::register(&mut onnx, operators);
    let parsed = onnx.parse(model, None)?;
    if let Some(unresolved) = parsed.unresolved_inputs.first() {
        bail!("value `{unresolved}`: no node makes it");
    }
    let typed = parsed.model.into_typed()?;
    let signature = Signature {
        inputs: ports(&typed, typed.input_outlets()?)?,
        outputs: ports(&typed, typed.output_outlets()?)?,
    };
    Ok((typed.into_optimized()?.into_runnable()?, signature))
}

fn ports(model: &TypedModel, outlets: &[OutletId]) -> TractResult<Vec<Port>> {
    outlets
        .iter()
        .map(|&outlet| {
            let fact = model.outlet_fact(outlet)?;
            let label = model.outlet_label(outlet);
            let name = label.unwrap_or_else(|| &model.node(outlet.node).name).to_owned();
            let dims = fact.shape.iter().map(dim).collect();
            Ok(Port { name, dtype: convert::dtype(fact.datum_type)?, dims })
        })
        .collect()
}

fn dim(dim: &TDim) -> Dim {
    match (dim.to_usize(), dim) {
        (Ok(size), _) => Dim::Fixed(size),
        (Err(_), TDim::Sym(symbol)) => Dim::Named(symbol.to_string()),
        (Err(_), _) => Dim::Open,
    }
}
