//! `moed models`: what the daemon serves, and, for its owner, what it shall serve.

mod install;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, admin_socket_path, path_part, socket_path};
use super::{Failure, print};

/// Shows the daemon's models; installs, rolls back, unloads, loads and removes them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    moed models                              what is served, and how it stands with it\n  \
    moed models install intent-1.1.0.moed    a newer version; the old one serves until it does\n  \
    moed models rollback intent              back to the version before\n\n\
    All but `list` need the socket for the owner's commands: --socket, MOED_ADMIN_SOCKET,\n\
    /run/moed/admin.sock, or $XDG_RUNTIME_DIR/moed/admin.sock.\n\
    The exit code of `list` is 1 if a model is not ready; of the others, if nothing was done.")]
pub struct Models {
    #[command(subcommand)]
    command: Option<Command>,
    /// Shows them as JSON, as the daemon sent them.
    #[arg(long)]
    json: bool,
    /// The daemon's socket; that for the owner's commands, for all but `list`.
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the models, their versions, and what is wrong with those that do not serve.
    List(List),
    Install(install::Install),
    /// Goes back to the version that served before, and stays there, also after a restart.
    #[command(after_help = "Example:\n  moed models rollback intent\n\n\
        An installed version that is rolled back from stays on the disk, withdrawn: `moed models \
        load MODEL`\ntries it again, `moed models remove MODEL VERSION` removes it.")]
    Rollback(Named),
    /// Stops serving a model, and frees its memory, until it is loaded again.
    #[command(after_help = "Example:\n  moed models unload intent\n\n\
        After a restart of the daemon it is served again.")]
    Unload(Named),
    /// Loads the newest version, also one that failed, was rolled back from, or was unloaded.
    #[command(after_help = "Example:\n  moed models load intent")]
    Load(Named),
    /// Removes what was installed of a model; a packaged version serves again, if there is one.
    #[command(after_help = "Examples:\n  \
        moed models remove intent          all versions that were installed\n  \
        moed models remove intent 1.1.0    one of them\n\n\
        What a package or a person put into a models directory is not removed: use `apt remove`, \
        or `rm`.")]
    Remove(Remove),
}

#[derive(Debug, Args)]
struct List {
    /// Shows them as JSON, as the daemon sent them.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Named {
    model: String,
}

#[derive(Debug, Args)]
struct Remove {
    model: String,
    version: Option<String>,
}

impl Models {
    pub fn run(self) -> Result<(), Failure> {
        let (verb, model, version) = match self.command {
            None => return list(self.socket, self.json),
            Some(Command::List(List { json })) => return list(self.socket, json || self.json),
            Some(Command::Install(install)) => {
                let mut client = Client::connect_as_owner(&admin_socket_path(self.socket)?)?;
                return install.run(&mut client);
            }
            Some(Command::Rollback(Named { model })) => ("rollback", model, None),
            Some(Command::Unload(Named { model })) => ("unload", model, None),
            Some(Command::Load(Named { model })) => ("load", model, None),
            Some(Command::Remove(Remove { model, version })) => ("remove", model, version),
        };
        let mut client = Client::connect_as_owner(&admin_socket_path(self.socket)?)?;
        let target = format!("/v2/repository/models/{}/{verb}", path_part(&model));
        let body = version.map_or(json!({}), |version| json!({ "version": version }));
        client.post(&target, body.to_string().into_bytes())?.json()?;
        // What has come of it.
        let listed = client.get("/v2/models")?.json()?;
        let is_it = |one: &&Value| text(one, "name") == model;
        match models(&listed).into_iter().find(is_it) {
            Some(model) => print(&line(model)),
            None => print(&format!("{model}: no version is left\n")),
        }
    }
}

fn list(socket: Option<PathBuf>, is_json: bool) -> Result<(), Failure> {
    let mut client = Client::connect(&socket_path(socket)?)?;
    let response = client.get("/v2/models")?;
    let listed = response.json()?;
    if is_json {
        return print(&format!("{}\n", String::from_utf8_lossy(&response.body)));
    }
    let models = models(&listed);
    if models.is_empty() {
        return print("no models yet: install one with `moed models install FILE`\n");
    }
    print(&models.iter().map(|model| line(model)).collect::<String>())?;
    let is_failed = |model: &&&Value| text(model, "state") == "FAILED";
    match models.iter().filter(is_failed).count() {
        0 => Ok(()),
        n => Err(format!("{n} of {} models are not ready", models.len())),
    }
}

fn models(listed: &Value) -> Vec<&Value> {
    listed.get("models").and_then(Value::as_array).into_iter().flatten().collect()
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
