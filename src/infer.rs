//! What can go wrong while a request is computed, in the words that its sender gets.
//!
//! Knows neither who sent the request nor how it will be answered.

/// Why a run gave no outputs. Texts are for the sender: no path, no address, no type name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The inputs are not what the model's signature asks for.
    #[error("input `{input}`: {cause}")]
    Input { input: String, cause: String },
    /// More or fewer experts than the model can choose.
    #[error("k = {k}: out of range: choose {k_min} to {k_max} experts")]
    K { k: usize, k_min: usize, k_max: usize },
    /// The model itself failed on these inputs.
    #[error("model: {cause}")]
    Model { cause: String },
    /// A panic was caught; the session should be dropped.
    #[error("model: internal error: it was stopped; try again, and report it if it happens twice")]
    Panicked { journal: String },
}
