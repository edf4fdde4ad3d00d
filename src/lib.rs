//! moed: runs Mixture-of-Experts models on small boards, and computes only the experts it needs.
//!
//! ARCHITECTURE.md is the map. What is here so far is the [`engine`]: bytes of an ONNX file in,
//! a model out, tensors in, tensors out, with a report of what each run read.

pub mod bundle;
pub mod cli;
pub mod codec;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod fields;
pub mod infer;
pub mod metrics;
pub mod pipeline;
pub mod repository;
pub mod scheduler;
pub mod tensor;
pub mod transport;
