//! What every part of the daemon means by a request, an answer, an error, and a model on offer.
//!
//! A request travels one way: transport, scheduler, worker, and back through the [`Reply`] that it
//! carries. Knows no wire format, no queue and no engine.

mod error;
mod request;
mod service;

pub use error::{Code, InferError, RunError};
pub use request::{
    Answer, ClientId, Content, Cost, InferRequest, ModelRef, NamedTensor, Output, Priority, Reply,
    RequestOptions,
};
pub use service::{
    Admin, Done, InputSpec, InstallDone, InstallProgress, InstallStep, Installed, ModelInfo,
    ModelState, ModelStatistics, ModelStatus, OutputSpec, Service, Tally,
};
