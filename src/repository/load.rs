//! From a bundle on disk to a version that may serve: checked, loaded, warmed up, tested.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use super::memory;
use super::scan::Candidate;
use super::version::Version;
use crate::bundle::{Bundle, BundleError, Limits, Manifest, unpack};
use crate::engine::{Backend, LoadError, LoadOptions};
use crate::infer::ModelInfo;
use crate::pipeline::intent::Home;

const MIB: u64 = 1 << 20;

/// How bundles are loaded.
#[derive(Debug, Clone)]
pub struct LoadSettings {
    /// Threads that compute one run.
    pub threads: usize,
    pub limits: Limits,
    /// Whether a model that seems to need more memory than there is, is refused.
    pub is_memory_checked: bool,
    /// Where `.moed` files are unpacked.
    pub unpack_dir: PathBuf,
}

/// Why a version was not loaded. For the owner: paths are named by who knows them.
#[derive(Debug, thiserror::Error)]
pub enum RefusedError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("manifest.toml: {what}: `{found}` where its folder says `{named}`; rename one of them")]
    Named { what: &'static str, found: String, named: String },
    #[error(
        "memory: {need_mib} MiB needed, {have_mib} MiB available: free some, or set \
         `memory_check = false` in the configuration"
    )]
    Memory { need_mib: u64, have_mib: u64 },
    #[error("{folder}: can't be made for unpacking: {cause}; set `unpack_dir`")]
    Unpack { folder: String, cause: std::io::Error },
    #[error("loading panicked: {0}; report it")]
    Panicked(String),
}

/// A version that was loaded, and what its recorded answers said.
pub struct Loaded {
    pub version: Version,
    pub golden_cases: usize,
    /// The largest error against the recorded answers, as a part of the tolerance.
    pub golden_error_max: f64,
}

/// Loads a candidate for `name`. Panics are caught.
pub fn load(
    name: &str,
    candidate: &Candidate,
    backend: &dyn Backend,
    settings: &LoadSettings,
    home: Option<&Arc<Home>>,
) -> Result<Loaded, RefusedError> {
    let load = || load_checked(name, candidate, backend, settings, home);
    catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(RefusedError::Panicked(text.unwrap_or("it said nothing").to_owned()))
    })
}

fn load_checked(
    name: &str,
    candidate: &Candidate,
    backend: &dyn Backend,
    settings: &LoadSettings,
    home: Option<&Arc<Home>>,
) -> Result<Loaded, RefusedError> {
    let bundle = open(candidate, settings)?;
    let manifest = bundle.manifest();
    check_names(name, candidate, manifest)?;
    if settings.is_memory_checked {
        check_memory(manifest.resident_bytes, memory::available_bytes())?;
    }
    let options = LoadOptions { limits: settings.limits.model.clone(), threads: settings.threads };
    let model = backend.load(bundle.dir(), &manifest.model, &options)?;
    let pipeline = bundle.pipeline(&*model, home.cloned())?;
    let mut session = model.session()?;
    let reproduced = bundle.golden()?.check(&pipeline, &mut *session)?;
    let info = ModelInfo {
        name: manifest.name.clone(),
        version: manifest.version.to_string(),
        versions: vec![manifest.version.to_string()],
        task: manifest.task.word().to_owned(),
        inputs: pipeline.signature().inputs.clone(),
        outputs: pipeline.signature().outputs.clone(),
        k: manifest.k.map(|k| (k.min(), k.max())),
        resident_bytes: manifest.resident_bytes,
    };
    let version = Version::new(info, model, pipeline, manifest.k);
    // It has run the recorded cases: its buffers are there.
    version.keep_warm(session);
    Ok(Loaded { version, golden_cases: reproduced.cases, golden_error_max: reproduced.error_max })
}

/// The bundle with everything verified.
fn open(candidate: &Candidate, settings: &LoadSettings) -> Result<Bundle, RefusedError> {
    if candidate.is_archive {
        let folder = &settings.unpack_dir;
        fs::create_dir_all(folder).map_err(|cause| RefusedError::Unpack {
            folder: folder.display().to_string(),
            cause,
        })?;
        return Ok(unpack(&candidate.path, folder, &settings.limits)?);
    }
    let bundle = Bundle::open(&candidate.path, &settings.limits)?;
    bundle.verify()?;
    Ok(bundle)
}

fn check_names(name: &str, candidate: &Candidate, manifest: &Manifest) -> Result<(), RefusedError> {
    let named = |what, found: &str, named: String| {
        Err(RefusedError::Named { what, found: found.to_owned(), named })
    };
    if manifest.name != name {
        return named("name", &manifest.name, name.to_owned());
    }
    match candidate.version {
        Some(version) if version != manifest.version => {
            named("version", &manifest.version.to_string(), version.to_string())
        }
        _ => Ok(()),
    }
}

/// Refuses a model that needs more than there is.
pub fn check_memory(need: u64, have: Option<u64>) -> Result<(), RefusedError> {
    match have {
        Some(have) if need > have => {
            Err(RefusedError::Memory { need_mib: need.div_ceil(MIB), have_mib: have / MIB })
        }
        _ => Ok(()),
    }
}
