//! `moed models`: what the daemon serves, and, for its owner, what it shall serve.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::client::{Client, path_part, socket_path};
use super::{Failure, print};

/// Shows the daemon's models and how it stands with them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  moed models\n  \
    moed models --rollback intent --socket /run/moed/admin.sock\n\n\
    --load, --unload and --rollback need the owner's socket: `admin_path` of the configuration.\n\
    The exit code is 1 if a model is not ready, or the command failed.")]
pub struct Models {
    /// Shows them as JSON, as the daemon sent them.
    #[arg(long)]
    json: bool,
    /// Loads the newest version of a model, also one that failed before.
    #[arg(long, value_name = "MODEL", group = "command")]
    load: Option<String>,
    /// Stops serving a model until it is loaded again.
    #[arg(long, value_name = "MODEL", group = "command")]
    unload: Option<String>,
    /// Goes back to the version that served before.
    #[arg(long, value_name = "MODEL", group = "command")]
    rollback: Option<String>,
    /// The daemon's socket.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Models {
    pub fn run(self) -> Result<(), Failure> {
        let mut client = Client::connect(&socket_path(self.socket)?)?;
        let command = [("load", self.load), ("unload", self.unload), ("rollback", self.rollback)];
        let is_asked = |(verb, model): (&'static str, Option<String>)| Some((verb, model?));
        if let Some((verb, model)) = command.into_iter().find_map(is_asked) {
            let target = format!("/v2/repository/models/{}/{verb}", path_part(&model));
            let response = client.post(&target, b"{}".to_vec())?;
            return if response.status < 400 { Ok(()) } else { response.json().map(drop) };
        }
        let response = client.get("/v2/models")?;
        let listed = response.json()?;
        if self.json {
            return print(&format!("{}\n", String::from_utf8_lossy(&response.body)));
        }
        let models: Vec<&Value> =
            listed.get("models").and_then(Value::as_array).into_iter().flatten().collect();
        if models.is_empty() {
            return print("no models yet: put bundles into a models directory\n");
        }
        print(&models.iter().map(|model| line(model)).collect::<String>())?;
        let is_failed = |model: &&&Value| text(model, "state") == "FAILED";
        match models.iter().filter(is_failed).count() {
            0 => Ok(()),
            n => Err(format!("{n} of {} models are not ready", models.len())),
        }
    }
}

fn line(model: &Value) -> String {
    let (name, version) = (text(model, "name"), text(model, "version"));
    let (state, reason) = (text(model, "state").to_ascii_lowercase(), text(model, "reason"));
    let reason = if reason.is_empty() { String::new() } else { format!("  {reason}") };
    format!("{name:<20} {version:<10} {state}{reason}\n")
}

fn text<'a>(model: &'a Value, name: &str) -> &'a str {
    model.get(name).and_then(Value::as_str).unwrap_or_default()
}
