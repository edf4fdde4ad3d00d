//! `moed query`: asks the daemon and shows the answer.

use std::io::BufRead as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{Client, path_part, socket_path};
use super::{Failure, print};

/// Asks a model and shows its answer.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    moed query intent 'turn on the kitchen light'\n  \
    moed query intent --json --budget 0 'turn on the kitchen light'\n  \
    moed query m '{\"x\": [[1.5, 2]]}'\n  \
    moed query intent - < sentences.txt         one question on each line, one answer on each\n\n\
    It shows what is meant and how sure the model is, then how many experts ran in each layer and\n\
    how long that took.\n\n\
    The socket is the one that --socket or MOED_SOCKET names, or else /run/moed/moed.sock or\n\
    $XDG_RUNTIME_DIR/moed/moed.sock, whichever is there. The exit code is 1 if a question has no\n\
    answer.")]
pub struct Query {
    /// The model's name, as `moed models` shows it.
    model: String,
    /// A text; or a JSON object with the inputs by name; or `-` for lines of either.
    question: String,
    /// Shows the answer as JSON, as the daemon sent it.
    #[arg(long)]
    json: bool,
    /// Experts for each row in each layer, at most.
    #[arg(long)]
    k: Option<usize>,
    /// What it may cost, 0 (cheapest) to 1 (best), where the model chooses k.
    #[arg(long)]
    budget: Option<f64>,
    /// After so many milliseconds the answer is of no use.
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
    /// The daemon's socket.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Query {
    pub fn run(self) -> Result<(), Failure> {
        let mut client = Client::connect(&socket_path(self.socket.clone())?)?;
        if self.question != "-" {
            return self.ask(&mut client, &self.question);
        }
        let mut failed = 0usize;
        for line in std::io::stdin().lock().lines() {
            let line = line.map_err(|error| format!("standard input: {error}"))?;
            if line.trim().is_empty() {
                continue;
            }
            if let Err(error) = self.ask(&mut client, &line) {
                failed += 1;
                print(&match self.json {
                    true => format!("{}\n", json!({ "error": error })),
                    false => format!("error: {error}\n"),
                })?;
            }
        }
        if failed == 0 { Ok(()) } else { Err(format!("{failed} questions had no answer")) }
    }

    fn ask(&self, client: &mut Client, question: &str) -> Result<(), Failure> {
        let body = self.body(question)?;
        let target = format!("/v2/models/{}/infer", path_part(&self.model));
        let response = client.post(&target, body.to_string().into_bytes())?;
        let answer = response.json()?;
        if self.json {
            return print(&format!("{}\n", String::from_utf8_lossy(&response.body)));
        }
        print(&format!("{}\n", describe(&answer)))
    }

    /// The question as an object of inputs, with the options that were given.
    fn body(&self, question: &str) -> Result<Value, Failure> {
        let mut body: Map<String, Value> = if question.trim_start().starts_with('{') {
            serde_json::from_str(question)
                .map_err(|error| format!("question: not JSON: {error}; check its quotes"))?
        } else {
            Map::from_iter([("text".to_owned(), json!(question))])
        };
        let options = [
            ("k", self.k.map(|k| json!(k))),
            ("budget", self.budget.map(|budget| json!(budget))),
            ("timeout", self.timeout_ms.map(|ms| json!(ms.saturating_mul(1000)))),
        ];
        let options = options.into_iter().filter_map(|(name, value)| Some((name, value?)));
        if body.contains_key("inputs") {
            let parameters = body.entry("parameters").or_insert_with(|| json!({}));
            let parameters = parameters.as_object_mut();
            let parameters = parameters.ok_or("question: `parameters` is no object")?;
            parameters.extend(options.map(|(name, value)| (name.to_owned(), value)));
        } else {
            body.extend(options.map(|(name, value)| (name.to_owned(), value)));
        }
        Ok(Value::Object(body))
    }
}

/// An answer in a line: an intent in words, anything else as `name=value`.
pub fn describe(answer: &Value) -> String {
    let Some(fields) = answer.as_object() else { return answer.to_string() };
    let mut texts = Vec::new();
    if let Some(intent) = fields.get("intent").and_then(Value::as_str) {
        texts.push(intent.to_owned());
        let confidence = fields.get("confidence").and_then(Value::as_f64);
        texts.extend(confidence.map(|confidence| format!("{:.0}%", confidence * 100.0)));
        texts.extend(slots(answer));
        let entities = fields.get("entities").and_then(Value::as_array);
        let names: Vec<_> = entities.into_iter().flatten().filter_map(Value::as_str).collect();
        if !names.is_empty() {
            texts.push(format!("-> {}", names.join(" ")));
        }
    } else {
        let outputs = fields.iter().filter(|(name, _)| !["parameters", "id"].contains(&&***name));
        texts.extend(outputs.map(|(name, value)| format!("{name}={value}")));
    }
    texts.push(format!("({})", cost(answer)));
    texts.join("  ")
}

/// `name="kitchen light"`, ...
pub fn slots(answer: &Value) -> Vec<String> {
    let slots = answer.get("slots").and_then(Value::as_object);
    slots.into_iter().flatten().map(|(name, value)| format!("{name}={value}")).collect()
}

/// `experts 1+2, 210 us`
fn cost(answer: &Value) -> String {
    let experts = experts(answer);
    let mut texts = Vec::new();
    if !experts.is_empty() {
        texts.push(format!("experts {experts}"));
    }
    let us = answer.get("parameters").and_then(|all| all.get("compute_us")?.as_u64());
    texts.extend(us.map(|us| format!("{us} us")));
    texts.join(", ")
}

/// How many experts ran in each layer: `1+2`.
pub fn experts(answer: &Value) -> String {
    let layers = answer.get("parameters").and_then(|all| all.get("experts")?.as_array());
    let counts = layers.into_iter().flatten().filter_map(Value::as_array);
    counts.map(|layer| layer.len().to_string()).collect::<Vec<_>>().join("+")
}
