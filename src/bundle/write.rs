//! Makes a bundle of an ONNX file: what `moed bundle` does.
//!
//! The signature is the graph's, the task is `tensor`, the golden answers are what the model
//! gives here for numbers from a seed. The new bundle is opened, verified and checked as any
//! other before it gets its name.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::golden::{GoldenInput, GoldenOutput, TensorCase, run};
use super::manifest::{GOLDEN, MANIFEST, check_name};
use super::{Bundle, BundleError, Limits, Version, files, generate};
use crate::engine::layout::lay_out;
use crate::engine::{Backend, Dim, LoadOptions, Model, Port, Session};
use crate::infer::NamedTensor;
use crate::pipeline::Pipeline;

const MODEL: &str = "model.onnx";
const WEIGHTS: &str = "experts.bin";

/// What the bundle's golden answers may differ by, as a part of an output's root mean square:
/// kernels of other CPUs add in other orders, and round an activation the other way now and then.
const TOLERANCE: f64 = 0.02;
/// For each of these, a case is tried in which every open dimension has this size.
const OPEN_DIMENSIONS: [usize; 3] = [1, 4, 7];
/// Elements that are recorded of an output, at most.
const RECORDED_MAX: usize = 256;
/// What a session takes beside the weights: a guess that is right for small models.
const WORKING_BYTES: u64 = 2 << 20;

/// What a bundle is to be made of, and how it is called.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The ONNX file; its external data lies beside it.
    pub model: PathBuf,
    pub name: String,
    pub version: Version,
    pub licence: String,
    pub provenance: String,
    /// Of the numbers that golden answers are for.
    pub seed: u64,
}

/// Writes the bundle as the new directory `to`.
pub fn write(
    recipe: &Recipe,
    to: &Path,
    backend: &dyn Backend,
    limits: &Limits,
) -> Result<Bundle, BundleError> {
    check_name(&recipe.name)
        .map_err(|cause| BundleError::write(MANIFEST, format!("name: {cause}")))?;
    if to.exists() {
        return Err(BundleError::write("bundle", "it is there already; name another directory"));
    }
    let name = to.file_name().ok_or_else(|| BundleError::write("bundle", "it has no name"))?;
    let partial = to.with_file_name(format!(".{}.partial", name.to_string_lossy()));
    let parent = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| {
        let cause = format!("{}: {}; name another place", parent.display(), error.kind());
        BundleError::write("bundle", cause)
    })?;
    fs::create_dir(&partial).map_err(|error| {
        let cause = format!("{}; remove `{}`", error.kind(), partial.display());
        BundleError::write("bundle", cause)
    })?;
    let written = fill(recipe, &partial, backend, limits).and_then(|()| {
        fs::rename(&partial, to)
            .map_err(|error| BundleError::write("bundle", error.kind().to_string()))
    });
    if written.is_err() {
        // The error that matters is the first one.
        drop(fs::remove_dir_all(&partial));
    }
    written?;
    Bundle::open(to, limits)
}

fn fill(
    recipe: &Recipe,
    dir: &Path,
    backend: &dyn Backend,
    limits: &Limits,
) -> Result<(), BundleError> {
    let wrong = |cause: String| BundleError::Model { model: MODEL.to_owned(), cause };
    let file = recipe.model.file_name().and_then(|name| name.to_str());
    let file =
        file.ok_or_else(|| wrong("not the name of a file; name an .onnx file".to_owned()))?;
    let from = recipe.model.parent().filter(|parent| !parent.as_os_str().is_empty());
    let from = from.unwrap_or(Path::new("."));
    let layout = lay_out(from, file, dir, (MODEL, WEIGHTS), &limits.model)
        .map_err(|error| wrong(error.to_string()))?;
    let options = LoadOptions { limits: limits.model.clone(), threads: 1 };
    let model = backend.load(dir, MODEL, &options).map_err(|error| wrong(error.to_string()))?;
    let cases = record(recipe.seed, model.as_ref()).map_err(wrong)?;
    let golden = serde_json::to_string_pretty(&cases)
        .map_err(|error| BundleError::Golden(error.to_string()))?;
    write_text(dir, GOLDEN, &golden)?;
    let resident = layout.model_bytes + layout.weights_bytes + WORKING_BYTES;
    let manifest = manifest(recipe, model.as_ref(), resident, dir, limits)?;
    write_text(dir, MANIFEST, &manifest)?;

    let bundle = Bundle::open(dir, limits)?;
    bundle.verify()?;
    let pipeline = bundle.pipeline(model.as_ref(), None)?;
    let mut session = model.session().map_err(|error| wrong(error.to_string()))?;
    bundle.golden()?.check(&pipeline, session.as_mut())?;
    Ok(())
}

fn write_text(dir: &Path, name: &str, text: &str) -> Result<(), BundleError> {
    fs::write(dir.join(name), text)
        .map_err(|error| BundleError::write(name, error.kind().to_string()))
}

fn manifest(
    recipe: &Recipe,
    model: &dyn Model,
    resident_bytes: u64,
    dir: &Path,
    limits: &Limits,
) -> Result<String, BundleError> {
    // A text of JSON is one of TOML, but for a character that the manifest refuses anyway.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = format!(
        "format = {}\nname = {}\nversion = {}\ntask = \"tensor\"\nmodel = {}\nlicence = {}\n\
         provenance = {}\n",
        super::FORMAT,
        quoted(&recipe.name),
        quoted(&recipe.version.to_string()),
        quoted(MODEL),
        quoted(&recipe.licence),
        quoted(&recipe.provenance),
    );
    if let Some(k) = model.layers().iter().map(|layer| layer.k).max() {
        text += &format!("\n[k]\nmin = 1\nmax = {k}\ndefault = {k}\n");
    }
    text += &format!("\n[memory]\nresident_bytes = {resident_bytes}\n");
    for name in [GOLDEN, MODEL, WEIGHTS] {
        if name == WEIGHTS && !dir.join(name).exists() {
            continue;
        }
        let (bytes, sha256) = files::measure(dir, name, limits)?;
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "\n[[files]]\nname = {}\nbytes = {bytes}\nsha256 = \"{sha256}\"\n",
            quoted(name)
        );
    }
    Ok(text)
}

/// What the model gives for each size of its open dimensions that it runs with.
fn record(seed: u64, model: &dyn Model) -> Result<Vec<TensorCase>, String> {
    let graph = super::pipeline::graph(model.signature());
    let pipeline = Pipeline::new(&crate::pipeline::Task::Tensor, &graph, None)?;
    let mut session = model.session().map_err(|error| error.to_string())?;
    let is_open = |dim: &Dim| !matches!(dim, Dim::Fixed(_));
    let inputs = &model.signature().inputs;
    let has_open = inputs.iter().any(|port| port.dims.iter().any(is_open));
    let sizes = if has_open { &OPEN_DIMENSIONS[..] } else { &OPEN_DIMENSIONS[..1] };
    let mut cases = Vec::new();
    let mut cause = String::new();
    for (&size, seed) in sizes.iter().zip(seed..) {
        match case(seed, size, inputs, &pipeline, session.as_mut()) {
            Ok(case) => cases.push(case),
            // Not every model runs with every size.
            Err(error) => cause = error,
        }
    }
    if cases.is_empty() {
        return Err(format!("no golden answer can be recorded: {cause}"));
    }
    Ok(cases)
}

fn case(
    seed: u64,
    size: usize,
    ports: &[Port],
    pipeline: &Pipeline,
    session: &mut dyn Session,
) -> Result<TensorCase, String> {
    let mut inputs = BTreeMap::new();
    let mut tensors = Vec::new();
    for port in ports {
        let dims = port.dims.iter().map(|dim| if let Dim::Fixed(n) = dim { *n } else { size });
        let dims: Vec<usize> = dims.collect();
        let tensor = generate::tensor(seed, &port.name, port.dtype, &dims)?;
        let dtype = generate::dtype_name(port.dtype).unwrap_or_default().to_owned();
        inputs.insert(port.name.clone(), GoldenInput { dtype, dims });
        tensors.push(NamedTensor { name: port.name.clone(), tensor });
    }
    let mut outputs = BTreeMap::new();
    for output in run(pipeline, session, tensors, None)? {
        let numbers = generate::numbers(&output.tensor)?;
        if numbers.iter().any(|number| !number.is_finite()) {
            return Err(format!("output `{}`: an infinity or a NaN", output.name));
        }
        let every = numbers.len().div_ceil(RECORDED_MAX).max(1);
        let values = numbers.into_iter().step_by(every).collect();
        let dims = output.tensor.shape().dims().to_vec();
        outputs.insert(output.name.to_string(), GoldenOutput { dims, every, values });
    }
    Ok(TensorCase { seed, inputs, outputs, tolerance: TOLERANCE })
}
