//! `moed demo`: a daemon, a socket, and sentences that come back understood.

mod over_mqtt;
mod sentences;
mod show;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::process::Process;
use super::{Failure, print};
use crate::config::MODEL_DIRECTORIES;
use sentences::{Numbers, SENTENCES, misspell};
use show::Style;

const MODEL: &str = "intent";

/// Whose rooms and devices the sentences are about.
const HOME: &str = include_str!("home.toml");

/// Starts a daemon with the model that is shipped and asks it forty questions.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  moed demo\n  moed demo --seed 7 --keep\n\n\
    For each sentence it shows what is to be done in a home that is made up for this, how sure\n\
    the model is, how many experts ran in each of its layers, and how long that took.\n\n\
    The daemon listens on a socket in a new directory and is stopped at the end, unless --keep\n\
    is given: then it goes on, and how to ask and to stop it is shown. Colours are for terminals;\n\
    NO_COLOR=1 turns them off.")]
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
        let models = directory(self.models.as_deref())?;
        let broker = over_mqtt::address()?;
        let arguments = ["--embedded-broker", &broker.to_string()];
        let daemon = Process::start(&models, &arguments, Some(HOME))?;
        let socket = daemon.socket();
        let (place, ms) = (socket.display(), daemon.start.as_millis());
        let style = Style::of_standard_output();
        let head = style.head();
        print(&format!("moed serves {MODEL} on {place},\nready after {ms} ms\n\n{head}"))?;
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
            print(&style.answer(&text, is_right, &answer))?;
        }
        print(&tally.summary(daemon.resident_bytes()))?;
        print(&over_mqtt::ask(broker)?)?;
        if self.keep {
            let dir = socket.parent().unwrap_or(&socket).display();
            let (pid, socket) = (daemon.keep(), socket.display());
            return print(&format!(
                "\nThe daemon goes on. Ask it:\n  moed query {MODEL} 'turn on the light' --socket \
                 {socket}\nStop it:\n  kill {pid} && rm -r {dir}\n"
            ));
        }
        Ok(())
    }
}

/// The directory that the model is in: the one that was named, or one of those where models are.
fn directory(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let places = named.map_or_else(|| MODEL_DIRECTORIES.map(Path::new).to_vec(), |one| vec![one]);
    let has_model = |place: &&Path| place.join(MODEL).join("manifest.toml").exists();
    places.iter().copied().find(has_model).map(Path::to_owned).ok_or_else(|| {
        let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        let places = places.join(", ");
        format!("model `{MODEL}`: not in {places}: name the directory that has it with --models")
    })
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
            format!("the daemon takes {:.1} MiB of memory\n", bytes as f64 / f64::from(1 << 20))
        });
        format!(
            "\n{} of {} were understood; of the {} with a slip of the finger, {}\n\
             median: {compute} us to compute, {} us from question to answer over the socket\n\
             {memory}\n\
             For comparison: hassil, which matches templates, is published with 37.5% and\n\
             63.3% (assist, assist-mini): two benchmarks of other sentences, without slips.\n",
            self.right,
            self.asked,
            self.misspelt,
            self.misspelt_right,
            both.as_micros(),
        )
    }
}
