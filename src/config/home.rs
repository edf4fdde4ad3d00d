//! The home whose rooms and devices answers name: a TOML file, or Home Assistant's folder
//! `.storage` with its registries.

use std::path::Path;

use super::{ConfigError, read_text};
use crate::pipeline::intent::{Home, Registries};

const FILE_BYTES_MAX: u64 = 16 << 20;

/// Reads a home.
pub fn read(path: &Path) -> Result<Home, ConfigError> {
    let wrong = |cause| ConfigError::Field { file: path.display().to_string(), cause };
    if !path.is_dir() {
        return Home::parse(&read_text(path, FILE_BYTES_MAX)?).map_err(wrong);
    }
    let registry =
        |name: &str| read_text(&path.join(format!("core.{name}_registry")), FILE_BYTES_MAX);
    let (floors, areas) = (registry("floor")?, registry("area")?);
    let (devices, entities) = (registry("device")?, registry("entity")?);
    let registries =
        Registries { floors: &floors, areas: &areas, devices: &devices, entities: &entities };
    Home::from_registries(registries).map_err(wrong)
}
