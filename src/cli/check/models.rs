//! That every model loads, and reproduces its recorded answers.

use std::time::Instant;

use super::{Failure, Grade, Report};
use crate::config::Config;
use crate::daemon::{install_settings, load_settings, read_home};
use crate::engine::tract::Tract;
use crate::repository::load::load;
use crate::repository::scan::scan;

pub(super) fn check(report: &mut Report, config: &Config) -> Result<(), Failure> {
    let home = match read_home(config) {
        Ok(home) => home,
        Err(error) => {
            report.say(Grade::Fail, "home", &error.to_string())?;
            None
        }
    };
    let directories = &config.models.directories;
    let installed = install_settings(config).directory;
    let found = scan(directories, installed.as_deref(), config.models.models_max);
    if found.is_empty() {
        let names: Vec<_> = directories.iter().map(|path| path.display().to_string()).collect();
        let text = format!(
            "none found in {}: put bundles there, or: apt install moed-model-intent",
            names.join(", ")
        );
        return report.say(Grade::Warn, "models", &text);
    }
    let settings = load_settings(config);
    for (name, candidates) in found {
        let Some(newest) = candidates.first() else { continue };
        let start = Instant::now();
        let loaded = load(&name, newest, &Tract, &settings, home.as_ref());
        let ms = start.elapsed().as_millis();
        let loaded = loaded.map(|loaded| {
            let (version, need) = (loaded.version.version(), loaded.version.info().resident_bytes);
            format!(
                "{name} {version}: needs {} MiB; loads in {ms} ms; {} recorded answers reproduced",
                need.div_ceil(1 << 20),
                loaded.golden_cases,
            )
        });
        let path = newest.path.display();
        report.say_result("model", loaded.map_err(|error| format!("{name}: {path}: {error}")))?;
    }
    Ok(())
}
