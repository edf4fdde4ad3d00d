//! placeholder
pub mod slot;
pub mod version;
