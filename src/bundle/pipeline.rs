//! Joins a bundle's task to the model that was loaded from it.

use std::sync::Arc;

use super::{Bundle, BundleError};
use crate::engine::{self, Dim, Model};
use crate::infer::{Content, InputSpec, OutputSpec};
use crate::pipeline::{Pipeline, Signature, intent};

impl Bundle {
    /// The pipeline of this bundle's task for its loaded `model`. `home` is for the task
    /// `intent`, where it is known.
    ///
    /// # Errors
    /// If the model is not what the manifest says: its experts, or what the task needs.
    pub fn pipeline(
        &self,
        model: &dyn Model,
        home: Option<Arc<intent::Home>>,
    ) -> Result<Pipeline, BundleError> {
        let wrong =
            |cause: String| BundleError::Model { model: self.manifest.model.clone(), cause };
        let k_max = model.layers().iter().map(|layer| layer.k).max();
        match (self.manifest.k, k_max) {
            (None, None) => {}
            (Some(k), Some(k_max)) if k.max() <= k_max => {}
            (Some(k), Some(k_max)) => {
                let k = k.max();
                return Err(wrong(format!("k.max is {k} in manifest.toml; the model has {k_max}")));
            }
            (Some(_), None) => {
                let cause = "no layer of experts; remove [k] from manifest.toml";
                return Err(wrong(cause.to_owned()));
            }
            (None, Some(k_max)) => {
                let cause = format!("up to {k_max} experts run; add [k] to manifest.toml");
                return Err(wrong(cause));
            }
        }
        Pipeline::new(&self.manifest.task, &graph(model.signature()), home).map_err(wrong)
    }
}

/// A graph's signature in the words of those who ask.
pub fn graph(signature: &engine::Signature) -> Signature {
    let dims = |dims: &[Dim]| {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => Some(*size),
            Dim::Named(_) | Dim::Open => None,
        };
        dims.iter().map(size).collect::<Vec<_>>()
    };
    let inputs = signature.inputs.iter().map(|port| InputSpec {
        name: port.name.clone(),
        dtype: port.dtype,
        dims: dims(&port.dims),
        is_optional: false,
    });
    let outputs = signature.outputs.iter().map(|port| OutputSpec {
        name: port.name.as_str().into(),
        dtype: port.dtype,
        dims: dims(&port.dims),
        content: Content::Plain,
    });
    Signature { inputs: inputs.collect(), outputs: outputs.collect() }
}
