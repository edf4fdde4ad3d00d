//! What transports may ask of the daemon: [`Service`] for everybody, [`Admin`] for its owner.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Content, InferError, InferRequest, ModelRef};
use crate::tensor::DType;

/// The daemon, as transports see it. No method blocks.
pub trait Service: Send + Sync {
    /// Takes a request, and answers it through its reply: at once, if it is refused.
    fn submit(&self, request: InferRequest);

    /// Every model that is known, loaded or not, by name.
    fn models(&self) -> Vec<ModelStatus>;

    /// What a model takes and gives.
    ///
    /// # Errors
    /// [`Code::NotFound`](super::Code::NotFound), or
    /// [`Code::Unavailable`](super::Code::Unavailable) if it is not loaded.
    fn model(&self, model: &ModelRef) -> Result<Arc<ModelInfo>, InferError>;

    /// Counts since start, of one model or of all.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    fn statistics(&self, model: Option<&ModelRef>) -> Result<Vec<ModelStatistics>, InferError>;

    /// Whether the process does its work: false asks to be restarted.
    fn is_live(&self) -> bool;

    /// Whether every model that should serve does, and the daemon is not stopping.
    fn is_ready(&self) -> bool;

    /// All metrics, in the text format of OpenMetrics 1.0.
    fn exposition(&self) -> String;
}

/// Called once, when something asked for is done or has failed. Must not block.
pub type Done = Box<dyn FnOnce(Result<(), InferError>) + Send>;

/// What only the daemon's owner may ask.
pub trait Admin: Service {
    /// Loads the newest version of a model, beside the one that is serving, and swaps them.
    fn load(&self, name: &str, done: Done);

    /// Stops serving a model, once its running requests are answered.
    fn unload(&self, name: &str, done: Done);

    /// Goes back to the version that served before.
    fn rollback(&self, name: &str, done: Done);

    /// Does one step of an installation.
    fn install(&self, step: InstallStep, done: InstallDone);

    /// Removes a version of a model that was installed; without one, all of them.
    fn remove(&self, name: &str, version: Option<&str>, done: Done);
}

/// Called once, when a step of an installation is done or has failed. Must not block.
pub type InstallDone = Box<dyn FnOnce(Result<InstallProgress, InferError>) + Send>;

/// One step of the installation of a model. One installation runs at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstallStep {
    /// Announces an archive that comes in pieces.
    Begin { bytes: u64, sha256: [u8; 32], signature: Option<String> },
    /// An archive that the daemon can read itself.
    File { path: PathBuf, sha256: Option<[u8; 32]>, signature: Option<String> },
    /// Bytes of the archive that was announced. The last ones install it.
    Piece { upload: String, offset: u64, bytes: Vec<u8> },
    /// Forgets what has come so far.
    Abort { upload: String },
}

/// How far an installation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstallProgress {
    /// What is wanted next: the archive's bytes from `offset` on.
    Receiving {
        upload: String,
        offset: u64,
    },
    Installed(Installed),
    Aborted,
}

/// A model that was installed, and serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub model: String,
    pub version: String,
    /// The version that served before.
    pub previous: Option<String>,
    /// False: it served already, and nothing has changed.
    pub is_new: bool,
    /// It is rolled back if too many of so many requests fail; 0: whatever they do, it stays.
    pub trial_requests: u32,
    /// What was written to the disk, in bytes.
    pub written_bytes: u64,
}

/// How it stands with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelState {
    Loading,
    Ready,
    /// Not asked for, or unloaded.
    Unloaded,
    /// Its load failed, or it was quarantined after panics.
    Failed,
}

/// A model of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelStatus {
    pub name: String,
    /// The version that is serving, or that was tried last.
    pub version: Option<String>,
    pub state: ModelState,
    /// Why it is not ready; what to do.
    pub reason: Option<String>,
}

/// A loaded model's metadata: the signature that clients see.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    pub name: String,
    pub version: String,
    /// Versions that can be asked for.
    pub versions: Vec<String>,
    /// `intent`, `tensor`.
    pub task: String,
    pub inputs: Vec<InputSpec>,
    pub outputs: Vec<OutputSpec>,
    /// Experts that a request may ask for: smallest, largest; `None` without MoE layers.
    pub k: Option<(usize, usize)>,
    /// What it should take in memory, in bytes.
    pub resident_bytes: u64,
}

/// An input that clients give. A dimension is `None` if any size will do.
#[derive(Debug, Clone, PartialEq)]
pub struct InputSpec {
    pub name: String,
    pub dtype: DType,
    pub dims: Vec<Option<usize>>,
    /// Requests without it are taken.
    pub is_optional: bool,
}

/// An output that clients get.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputSpec {
    pub name: Arc<str>,
    pub dtype: DType,
    pub dims: Vec<Option<usize>>,
    pub content: Content,
}

/// How often something happened, and how long it took in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub count: u64,
    pub total: Duration,
}

/// A model's counts: what the statistics extension of the Open Inference Protocol asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelStatistics {
    pub name: String,
    pub version: String,
    pub last_inference: Option<SystemTime>,
    /// Answered with outputs, from request to answer.
    pub success: Tally,
    pub fail: Tally,
    pub queue: Tally,
    /// Pre-processing.
    pub compute_input: Tally,
    pub compute_infer: Tally,
    /// Post-processing.
    pub compute_output: Tally,
    /// Runs by batch size, with their time.
    pub batches: Vec<(usize, Tally)>,
    pub resident_bytes: u64,
}
