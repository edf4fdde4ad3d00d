//! The repository: what it finds, what it loads, and what it does when that fails.

mod installing;
mod memory;
mod plan;
pub mod serving;
mod trial;
