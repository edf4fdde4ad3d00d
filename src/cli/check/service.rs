//! What is around the daemon: the broker, systemd's unit, and the daemon that runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Failure, Grade, Report};
use crate::cli::client::Client;
use crate::config::Config;
use crate::config::environment::Environment;
use crate::daemon::reach_broker;

const UNIT: &str = "moed.service";

/// What `systemd-analyze security` may say of the unit, where nobody has weakened it.
const SCORE_MAX: f64 = 1.0;

pub(super) fn check_broker(report: &mut Report, config: &Config) -> Result<(), Failure> {
    let Some(settings) = &config.mqtt else {
        let text = "none configured: give `broker` in [mqtt], if requests should come over one";
        return report.say(Grade::Ok, "broker", text);
    };
    let broker = &settings.broker;
    match reach_broker(settings) {
        Ok(reached) if !reached.is_in_local_network => {
            let text = format!(
                "{broker}: MQTT {}; it is outside of the local network, where the unit may not \
                 go: add drop-ins/internet-broker.conf",
                reached.version
            );
            report.say(Grade::Warn, "broker", &text)
        }
        Ok(reached) => {
            report.say(Grade::Ok, "broker", &format!("{broker}: MQTT {}", reached.version))
        }
        Err(reason) => {
            let text = format!(
                "{broker}: {reason}; is it there, and does it listen? The daemon starts without \
                 it, and goes on trying"
            );
            report.say(Grade::Fail, "broker", &text)
        }
    }
}

/// What systemd thinks of the unit as it is installed, drop-ins included.
pub(super) fn check_unit(report: &mut Report) -> Result<(), Failure> {
    let analyze = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", UNIT])
        .output();
    let score = match &analyze {
        Ok(output) => score(&String::from_utf8_lossy(&output.stdout)),
        Err(_) => {
            let text = "systemd-analyze is not here: not looked at";
            return report.say(Grade::Warn, "unit", text);
        }
    };
    match score {
        Some(score) if score <= SCORE_MAX => {
            report.say(Grade::Ok, "unit", &format!("{UNIT}: exposure {score:.1} of 10"))
        }
        Some(score) => {
            let text = format!(
                "{UNIT}: exposure {score:.1} of 10, where {SCORE_MAX:.1} would do: \
                 `systemctl cat moed` shows the drop-in that weakens it"
            );
            report.say(Grade::Warn, "unit", &text)
        }
        None => {
            let text = format!(
                "{UNIT}: not installed, or systemd is older than 250: install the package to have \
                 it started at boot"
            );
            report.say(Grade::Warn, "unit", &text)
        }
    }
}

/// The number in `Overall exposure level for moed.service: 1.0 OK`.
fn score(text: &str) -> Option<f64> {
    let (_, rest) = text.split_once("exposure level for ")?;
    let (_, rest) = rest.split_once(": ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The daemon that runs, if one does.
pub(super) fn check_daemon(report: &mut Report, config: &Config) -> Result<(), Failure> {
    let environment = Environment::read();
    let found = || environment.connect_path(Path::exists);
    let socket: Option<PathBuf> = config.socket.path.clone().or_else(found);
    let Some(socket) = socket.filter(|socket| socket.exists()) else {
        let text = "none runs: `systemctl start moed`, or `moed serve`";
        return report.say(Grade::Ok, "daemon", text);
    };
    let place = socket.display();
    let asked = Client::connect(&socket).and_then(|mut client| client.get("/v2/health/ready"));
    match asked {
        Ok(response) if response.status < 300 => {
            report.say(Grade::Ok, "daemon", &format!("{place}: ready"))
        }
        Ok(_) => {
            let text = format!("{place}: a model is not ready: `moed models` says why");
            report.say(Grade::Fail, "daemon", &text)
        }
        Err(error) => report.say(Grade::Warn, "daemon", &error),
    }
}
