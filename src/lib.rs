//! moed: runs Mixture-of-Experts models on small boards, and computes only the experts it needs.
//!
//! ARCHITECTURE.md is the map. From the bottom up: the [`engine`] runs ONNX files, a [`pipeline`]
//! joins a task to one, a [`bundle`] is both on disk; the [`repository`] keeps those that serve,
//! the [`scheduler`] computes requests, [`transport`]s bring them and take the answers back, and
//! the [`daemon`] is all of it in one process.

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
