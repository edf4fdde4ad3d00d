//! The Mixture-of-Experts operators: `com.microsoft` `MoE`, `QMoE` and `MoEGroupRouter`, and
//! `MatMulNBits`, whose arithmetic is the same.
//!
//! Semantics are those of onnxruntime 1.32's CPU kernels, as `tests/vectors/oracle.py` spells
//! them out. A node is parsed once, with its weights, into a value that can be run
//! ([`experts::Experts`], [`nbits::MatMulNBits`], [`group_router::GroupRouter`]); whatever is
//! wrong with it is said then. Nothing here knows of tract's graph: `engine::tract` wraps these
//! values in its operators.

pub mod activation;
pub mod experts;
pub mod gate;
pub mod group_router;
pub mod nbits;
mod node;
mod parse;
mod parts;
pub mod projection;
mod tensors;

pub use node::Node;
pub use parse::{parse_experts, parse_group_router, parse_mat_mul_nbits};
pub use tensors::{TensorSource, Tensors};
