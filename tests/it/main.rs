//! All integration tests, in one binary. Fixtures are files under `tests/data`.

mod inspect;
mod kernels;
mod operators;
mod support;
