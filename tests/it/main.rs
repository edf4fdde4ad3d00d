//! All integration tests, in one binary. Fixtures are files under `tests/data`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test ends by panicking, reads its environment, and starts threads as it likes"
)]

mod allocations;
mod architecture;
mod board;
mod bundle;
mod cli;
mod cli_resolve;
mod codec;
mod config;
mod engine;
mod fourier;
mod inspect;
mod intent;
mod kernels;
mod left_out;
mod loading;
mod moe_ffn;
mod mqtt;
mod operators;
mod pipeline;
mod repository;
mod scheduler;
mod sim;
mod support;
mod systemd;
mod transport;
mod updates;
