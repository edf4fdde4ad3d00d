//! Which operators a model may have, and under which domain.
//!
//! tract's registry ignores domains, so a `MoE` of any domain would reach moed's, and
//! `com.microsoft`'s `Attention` reaches the standard one and panics. Here the two are told
//! apart. It does not check inputs; that is the operator's own business.

use std::ops::RangeInclusive;

use tract_onnx::pb::{ModelProto, NodeProto};

use super::error::{InspectError, shown};
use crate::engine::limits::Limits;

/// Versions of the default domain that tract 0.23.9 is tried with.
const STANDARD_VERSIONS: RangeInclusive<i64> = 7..=24;
/// Versions of `ai.onnx.ml`.
const ML_VERSIONS: RangeInclusive<i64> = 1..=5;
/// The one version of `com.microsoft`.
const CONTRIB_VERSIONS: RangeInclusive<i64> = 1..=1;
/// The standard operator set that brought `Attention`.
const ATTENTION_VERSION: i64 = 23;

/// Operators of `com.microsoft` that tract or moed implements.
const CONTRIB: [&str; 14] = [
    "BiasGelu",
    "FastGelu",
    "GatherBlockQuantized",
    "GroupQueryAttention",
    "MatMulNBits",
    "MoE",
    "MoEGroupRouter",
    "MultiHeadAttention",
    "QMoE",
    "QuickGelu",
    "RotaryEmbedding",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
];
/// Those that are nowhere else.
const CONTRIB_ONLY: [&str; 4] = ["MatMulNBits", "MoE", "MoEGroupRouter", "QMoE"];

/// Lists of numbers that divide or step, so that 0 is a division by zero or a loop in tract.
const POSITIVE_LISTS: [&str; 3] = ["dilations", "kernel_shape", "strides"];
/// Numbers of the same kind.
const POSITIVE_NUMBERS: [&str; 2] = ["blocksize", "group"];
/// Attributes that name an axis or several, which tract 0.23.9 indexes with.
const AXES: [&str; 3] = ["axes", "axis", "perm"];

/// A domain that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Domain {
    Standard,
    Ml,
    Contrib,
}

impl Domain {
    fn of(name: &str) -> Option<Domain> {
        match name {
            "" | "ai.onnx" => Some(Domain::Standard),
            "ai.onnx.ml" => Some(Domain::Ml),
            "com.microsoft" => Some(Domain::Contrib),
            _ => None,
        }
    }

    /// The one spelling that [`Summary`](super::Summary) uses.
    pub fn name(self) -> &'static str {
        match self {
            Domain::Standard => "",
            Domain::Ml => "ai.onnx.ml",
            Domain::Contrib => "com.microsoft",
        }
    }

    fn versions(self) -> RangeInclusive<i64> {
        match self {
            Domain::Standard => STANDARD_VERSIONS,
            Domain::Ml => ML_VERSIONS,
            Domain::Contrib => CONTRIB_VERSIONS,
        }
    }
}

/// The operator sets that the model imports, by version.
#[derive(Debug, Default)]
pub(super) struct OperatorSets {
    standard: Option<i64>,
    ml: Option<i64>,
    contrib: Option<i64>,
}

impl OperatorSets {
    /// Reads and checks the imports of `model`.
    pub fn of(model: &ModelProto) -> Result<OperatorSets, InspectError> {
        let mut sets = OperatorSets::default();
        for import in &model.opset_import {
            let refused = |cause: String| InspectError::OperatorSet {
                domain: shown(&import.domain),
                version: import.version,
                cause,
            };
            let Some(domain) = Domain::of(&import.domain) else {
                return Err(refused("the domain is not known".to_owned()));
            };
            let versions = domain.versions();
            if !versions.contains(&import.version) {
                let (first, last) = (versions.start(), versions.end());
                return Err(refused(format!("only versions {first} to {last} are known")));
            }
            if sets.slot(domain).replace(import.version).is_some() {
                return Err(refused("imported twice".to_owned()));
            }
        }
        Ok(sets)
    }

    fn slot(&mut self, domain: Domain) -> &mut Option<i64> {
        match domain {
            Domain::Standard => &mut self.standard,
            Domain::Ml => &mut self.ml,
            Domain::Contrib => &mut self.contrib,
        }
    }

    fn version(&self, domain: Domain) -> Option<i64> {
        match domain {
            Domain::Standard => self.standard,
            Domain::Ml => self.ml,
            Domain::Contrib => self.contrib,
        }
    }

    /// Checks that `node`'s operator may be there, and gives its domain.
    pub fn check(&self, node: &NodeProto) -> Result<Domain, InspectError> {
        self.checked(node).map_err(|cause| InspectError::Operator {
            node: shown(label(node)),
            domain: shown(&node.domain),
            operator: shown(&node.op_type),
            cause,
        })
    }

    fn checked(&self, node: &NodeProto) -> Result<Domain, &'static str> {
        let operator = node.op_type.as_str();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if operator.is_empty() || !operator.chars().all(plain) {
            return Err("no name of an operator; export the model again");
        }
        let domain = Domain::of(&node.domain)
            .ok_or("the domain is not known; export the model with standard operators")?;
        let version = self
            .version(domain)
            .ok_or("the model imports no operator set of that domain; export the model again")?;
        match domain {
            Domain::Contrib if operator == "Attention" => {
                Err("not implemented; export with `MultiHeadAttention` or standard operators")
            }
            Domain::Contrib if !CONTRIB.contains(&operator) => {
                Err("not implemented; export the model with standard operators")
            }
            Domain::Standard | Domain::Ml if CONTRIB_ONLY.contains(&operator) => {
                Err("only known in the domain `com.microsoft`; export the model again")
            }
            Domain::Standard if operator == "Attention" && version < ATTENTION_VERSION => {
                Err("only known since version 23; export the model with that operator set")
            }
            _ => Ok(domain),
        }
    }
}

/// A node's name, or that of its first output: exporters often leave the name empty.
pub(super) fn label(node: &NodeProto) -> &str {
    let named = std::iter::once(&node.name).chain(&node.output).find(|name| !name.is_empty());
    named.map_or("", String::as_str)
}

/// Refuses numbers that no operator allows and that make tract divide by zero or index past an
/// end. This is not all that does: what is left must be caught.
pub(super) fn check_attribute_values(
    node: &NodeProto,
    limits: &Limits,
) -> Result<(), InspectError> {
    for attribute in &node.attribute {
        let name = attribute.name.as_str();
        let ints = &attribute.ints;
        let cause = if POSITIVE_LISTS.contains(&name) && ints.iter().any(|n| *n < 1)
            || POSITIVE_NUMBERS.contains(&name) && attribute.i < 1
        {
            "must be at least 1"
        } else if AXES.contains(&name)
            && ints.iter().chain([&attribute.i]).any(|n| n.unsigned_abs() > limits.rank_max)
        {
            "an axis that no tensor has"
        } else {
            continue;
        };
        return Err(InspectError::Attribute {
            node: shown(label(node)),
            attribute: shown(name),
            cause,
        });
    }
    Ok(())
}
