//! Reads a model before tract does, and refuses what tract should not see.
//!
//! Whoever supplies a model file is not trusted: a file of 10 kB can abort tract by a stack
//! overflow, and a claimed size can ask for more memory than a board has. Three passes, each of
//! which may rely on the one before:
//!
//! 1. [`wire`] counts messages over the bytes and allocates nothing;
//! 2. prost decodes what was counted;
//! 3. [`graph`] checks names, operators, tensors and references to external data.
//!
//! Nothing here panics on any bytes, and nothing allocates for a size that the bytes do not back.
//! It knows neither bundles nor manifests, and not what an operator does: a wrong attribute still
//! makes tract panic, and a shape that a node computes (`Expand`, `Tile`, `ConstantOfShape`) is
//! beyond it. So a load still runs under `catch_unwind`, and the first load of an unknown file in
//! a process of its own.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod error;
pub mod external;
mod graph;
mod operators;
mod schema;
mod tensor;
mod wire;

use std::collections::BTreeMap;

use prost::Message;
use tract_onnx::pb::{ModelProto, tensor_proto};

pub use error::{ExternalFault, FileFault, InspectError, TensorFault};
pub use external::External;
pub use wire::{Counts, scan};

use super::limits::Limits;

/// The element type of a tensor, as ONNX numbers them.
pub type DataType = tensor_proto::DataType;

/// A model that passed.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspected {
    /// The decoded model, as it was in the file.
    pub model: ModelProto,
    /// The initializers whose data lies outside, in the order of the graph. Not opened yet.
    pub externals: Vec<External>,
    /// What is in it.
    pub summary: Summary,
}

/// What is in a model, subgraphs included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub nodes: u64,
    pub initializers: u64,
    /// Bytes of tensors inside the file, those in attributes included.
    pub inline_bytes: u64,
    /// Bytes of tensors outside. What two tensors share is counted twice.
    pub external_bytes: u64,
    /// How often each operator is used, by (domain, operator); the default domain is "".
    pub operators: BTreeMap<(String, String), u64>,
}

/// Reads and checks the model in `bytes`.
pub fn inspect(bytes: &[u8], limits: &Limits) -> Result<Inspected, InspectError> {
    scan(bytes, limits)?;
    let model = ModelProto::decode(bytes)
        .map_err(|error| InspectError::Undecodable { cause: error.to_string() })?;
    // The scan refuses it too; this says so to whoever changes the scan.
    if !model.functions.is_empty() {
        return Err(InspectError::Unsupported {
            what: "functions inside the model",
            remedy: "inline them (`onnx.inliner.inline_local_functions`)",
        });
    }
    for (what, name) in [
        ("producer", &model.producer_name),
        ("producer version", &model.producer_version),
        ("model domain", &model.domain),
    ] {
        graph::check_name(what, name, limits)?;
    }
    let (externals, summary) = {
        let graph = model.graph.as_ref().ok_or(InspectError::Missing { what: "a graph" })?;
        let mut walk = graph::Walk::new(limits, operators::OperatorSets::of(&model)?);
        walk.main(graph)?;
        (walk.externals, walk.summary)
    };
    Ok(Inspected { model, externals, summary })
}
