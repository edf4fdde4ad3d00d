//! `moed demo`: a daemon, a socket, and sentences that come back understood.

mod over_mqtt;
mod sentences;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::process::Process;
use super::query::slots;
use super::{Failure, failure, print};
use crate::config::MODEL_DIRECTORIES;
use sentences::{Numbers, SENTENCES, misspell};

const MODEL: &str = "intent";

/// Starts a daemon with the model that is shipped and asks it forty questions.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  moed demo\n  moed demo --seed 7 --keep\n\n\
    The daemon listens on a socket in a new directory and is stopped at the end, unless --keep\n\
    is given: then it goes on, and how to ask and to stop it is shown.")]
pub struct Demo {
    /// Where the model `intent` is.
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Chooses the order and the spelling mistakes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leaves the daemon running.
    #[arg(long)]
    keep: bool,
}

/// What is counted for the summary.
#[derive(Default)]
struct Tally {
    asked: usize,
    right: usize,
    misspelt: usize,
    misspelt_right: usize,
    compute_us: Vec<u64>,
    there_and_back: Vec<Duration>,
}

impl Demo {
    pub fn run(self) -> Result<(), Failure> {
        let models = self.models.clone().map_or_else(shipped, Ok)?;
        let broker = over_mqtt::address()?;
        let daemon = Process::start(&models, &["--embedded-broker", &broker.to_string()])?;
        let socket = daemon.socket();
        let (place, ms) = (socket.display(), daemon.start.as_millis());
        print(&format!("moed serves {MODEL} on {place}, ready after {ms} ms\n\n{}", head()))?;
        let mut client = daemon.client()?;
        let mut tally = Tally::default();
        let mut numbers = Numbers::new(self.seed);
        let mut order: Vec<_> = SENTENCES.iter().collect();
        for i in (1..order.len()).rev() {
            order.swap(i, numbers.below(i + 1));
        }
        for sentence in order {
            let is_misspelt = numbers.below(3) == 0;
            let text = match is_misspelt {
                true => misspell(sentence.text, &mut numbers),
                false => sentence.text.to_owned(),
            };
            let body = json!({ "text": text }).to_string().into_bytes();
            let start = Instant::now();
            let response = client.post("/v2/models/intent/infer", body)?;
            let took = start.elapsed();
            let answer = response.json()?;
            let intent = answer.get("intent").and_then(Value::as_str).unwrap_or_default();
            // Which of the two a request without an answer gets is a matter of taste.
            let refusals = ["out_of_scope", "HassRespond"];
            let is_right = intent == sentence.intent
                || refusals.contains(&intent) && refusals.contains(&sentence.intent);
            tally.note(is_misspelt, is_right, took, &answer);
            print(&line(&text, intent, is_right, &answer))?;
        }
        print(&tally.summary(daemon.resident_bytes()))?;
        print(&over_mqtt::ask(broker)?)?;
        if self.keep {
            let pid = daemon.keep();
            let socket = socket.display();
            return print(&format!(
                "\nThe daemon goes on. Ask it:\n  moed query {MODEL} --socket {socket} 'turn on \
                 the light'\nStop it:\n  kill {pid}\n"
            ));
        }
        Ok(())
    }
}

/// Where the shipped model is.
fn shipped() -> Result<PathBuf, Failure> {
    let places = MODEL_DIRECTORIES.map(Path::new);
    let found = places.into_iter().find(|place| place.join(MODEL).join("manifest.toml").exists());
    found.map(Path::to_owned).ok_or_else(|| {
        let places = MODEL_DIRECTORIES.join(", ");
        failure(format!("model `{MODEL}`: not in {places}: name its directory with --models"))
    })
}

/// The columns' names.
fn head() -> String {
    format!(
        "     {:<48} {:<25} {:>4} {:>2} {:>7} {:>6}\n",
        "what was said", "what it means", "sure", "k", "experts", "us"
    )
}

fn line(text: &str, intent: &str, is_right: bool, answer: &Value) -> String {
    let parameters = answer.get("parameters");
    let number = |name: &str| parameters.and_then(|all| all.get(name)?.as_u64()).unwrap_or(0);
    let experts: Vec<_> = parameters
        .and_then(|all| all.get("experts")?.as_array())
        .into_iter()
        .flatten()
        .filter_map(|layer| Some(layer.as_array()?.len().to_string()))
        .collect();
    let sure = answer.get("confidence").and_then(Value::as_f64).unwrap_or(0.0) * 100.0;
    let mark = if is_right { "ok" } else { "--" };
    let first = format!(
        "{mark:<4} {text:<48} {intent:<25} {sure:>3.0}% {:>2} {:>7} {:>6}\n",
        number("k"),
        experts.join("+"),
        number("compute_us"),
    );
    match slots(answer) {
        slots if slots.is_empty() => first,
        slots => format!("{first}     {:<48} {}\n", "", slots.join("  ")),
    }
}

impl Tally {
    fn note(&mut self, is_misspelt: bool, is_right: bool, took: Duration, answer: &Value) {
        self.asked += 1;
        self.right += usize::from(is_right);
        self.misspelt += usize::from(is_misspelt);
        self.misspelt_right += usize::from(is_misspelt && is_right);
        self.there_and_back.push(took);
        let compute = answer.get("parameters").and_then(|all| all.get("compute_us")?.as_u64());
        self.compute_us.extend(compute);
    }

    fn summary(mut self, resident_bytes: Option<u64>) -> String {
        self.compute_us.sort_unstable();
        self.there_and_back.sort_unstable();
        let compute = self.compute_us.get(self.compute_us.len() / 2).copied().unwrap_or(0);
        let both = self.there_and_back.get(self.asked / 2).copied().unwrap_or_default();
        let memory = resident_bytes.map_or_else(String::new, |bytes| {
            format!("the daemon has {:.1} MiB in memory\n", bytes as f64 / f64::from(1 << 20))
        });
        format!(
            "\n{} of {} understood as they were meant; of {} with a spelling mistake, {}\n\
             median: {compute} us computing, {} us from question to answer over the socket\n\
             {memory}\
             For comparison: hassil, which matches templates, is published with 37.5% and 63.3%\n\
             of two benchmarks' sentences, without spelling mistakes (assist, assist-mini; other\n\
             sentences than these).\n",
            self.right,
            self.asked,
            self.misspelt,
            self.misspelt_right,
            both.as_micros(),
        )
    }
}
