//! Why a model can't be loaded.

use super::inspect::InspectError;
use super::kernel::SelectError;

/// Each text names the file or the node, what is wrong with it, and what to do where there is
/// something to do. No text holds a path outside the bundle.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{file}: can't be read: {cause}")]
    File { file: String, cause: std::io::Error },
    #[error("{file}: {cause}")]
    Inspect { file: String, cause: InspectError },
    #[error("{file}: {operator} node `{node}`: {cause}")]
    Operator { file: String, operator: String, node: String, cause: String },
    #[error("{file}: the graph: {cause}")]
    Graph { file: String, cause: String },
    /// The runtime panicked on it; the panic was caught.
    #[error("{file}: the graph: tract gave up on it: {cause}; export it again or report it")]
    Panicked { file: String, cause: String },
    #[error(transparent)]
    Kernel(#[from] SelectError),
    #[error("threads: can't be started: {0}; lower the thread count or free memory")]
    Threads(std::io::Error),
}
