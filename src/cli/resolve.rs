//! `moed resolve`: sentences in, what their speakers want done out, without a daemon.

use std::io::{BufRead, Read as _};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::{Failure, failure, print_on};
use crate::bundle::{Bundle, Limits};
use crate::config::home;
use crate::engine::tract::load;
use crate::engine::{LoadOptions, Model as _, RunOptions, Session};
use crate::infer::{Content, NamedTensor, Output};
use crate::pipeline::{Pipeline, Task};
use crate::tensor::{Data, Tensor};

/// Bytes of a line of input.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Says what sentences want done in your home: one a line in, one answer a line out.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  echo 'turn on the kitchen light' | \\\n    \
    moed resolve --home home.toml models/intent\n\n\
    A line is a sentence, or a JSON object with the field `text`. An answer is a JSON object:\n\
    intent, confidence, slots, entities, areas, text; or error, if there is none.")]
pub struct Resolve {
    /// The names of your home: a TOML file, or Home Assistant's folder `.storage`.
    #[arg(long, value_name = "FILE")]
    home: Option<PathBuf>,
    /// How much an answer may cost, 0 (cheapest) to 1 (best).
    #[arg(long, default_value_t = 1.0)]
    budget: f32,
    /// Adds to each answer the microseconds it took, and the experts that ran.
    #[arg(long)]
    cost: bool,
    /// A bundle of task `intent`: its directory.
    bundle: PathBuf,
}

/// A line of input that is a JSON object. Other fields are for whoever wrote it.
#[derive(serde::Deserialize)]
struct Line {
    text: String,
}

impl Resolve {
    /// Answers each line of standard input with a line of standard output.
    pub fn run(self) -> Result<(), Failure> {
        let path = &self.bundle;
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let bundle = Bundle::open(path, &Limits::default()).map_err(|error| named(&error))?;
        bundle.verify().map_err(|error| named(&error))?;
        if !matches!(bundle.manifest().task, Task::Intent(_)) {
            return Err(named(&"its task is not `intent`; name a bundle of that task"));
        }
        let home = self.home.as_deref().map(home::read).transpose().map_err(failure)?;
        let model = load(bundle.dir(), &bundle.manifest().model, &LoadOptions::default())
            .map_err(|error| named(&error))?;
        let pipeline = bundle.pipeline(&model, home.map(Arc::new));
        let pipeline = pipeline.map_err(|error| named(&error))?;
        let mut session = model.session().map_err(|error| named(&error))?;
        let mut input = std::io::stdin().lock();
        let mut line = Vec::new();
        while read_line(&mut input, &mut line)? {
            let answer = answer(&line, &pipeline, session.as_mut(), &self);
            let answer =
                answer.unwrap_or_else(|error| serde_json::json!({ "error": error }).to_string());
            // Whoever asks line by line waits for each answer.
            if !print_on(&format!("{answer}\n"))? {
                break;
            }
        }
        Ok(())
    }
}

/// Reads a line, without what of it is too long; whether there was one.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> Result<bool, Failure> {
    let failed = |error: std::io::Error| format!("standard input: can't be read: {error}");
    line.clear();
    input.take(LINE_BYTES_MAX + 1).read_until(b'\n', line).map_err(failed)?;
    if line.len() as u64 > LINE_BYTES_MAX && line.last() != Some(&b'\n') {
        input.skip_until(b'\n').map_err(failed)?;
    }
    Ok(!line.is_empty())
}

fn answer(
    line: &[u8],
    pipeline: &Pipeline,
    session: &mut dyn Session,
    arguments: &Resolve,
) -> Result<String, Failure> {
    if line.len() as u64 > LINE_BYTES_MAX {
        return Err(format!("line: more than {LINE_BYTES_MAX} bytes; send a sentence a line"));
    }
    let line = std::str::from_utf8(line).map_err(|_| "line: not UTF-8; send UTF-8".to_owned())?;
    let text = if line.trim_start().starts_with('{') {
        let line: Line = serde_json::from_str(line).map_err(|error| format!("line: {error}"))?;
        line.text
    } else {
        line.trim_end_matches(['\n', '\r']).to_owned()
    };
    let tensor = Tensor::new(&[1], Data::Bytes(vec![text.into_bytes()]));
    let tensor = tensor.map_err(failure)?;
    let input = NamedTensor { name: "text".to_owned(), tensor };
    let started = std::time::Instant::now();
    let prepared = pipeline.prepare(vec![input], Some(arguments.budget));
    let prepared = prepared.map_err(failure)?;
    let run = session.run(&prepared.inputs, RunOptions::default());
    let run = run.map_err(failure)?;
    let outputs = pipeline.finish(&prepared.kept, run.outputs);
    let outputs = outputs.map_err(failure)?;
    let elapsed = started.elapsed();
    let mut object = object(&outputs)?;
    if arguments.cost {
        let experts: Vec<Vec<u32>> = run
            .report
            .layers
            .iter()
            .map(|layer| layer.experts.iter().map(|&(expert, _)| expert).collect())
            .collect();
        let bytes = run.report.weight_bytes_read();
        let cost = serde_json::json!({
            "us": u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            "experts": experts,
            "weight_bytes_read": bytes,
        });
        object.truncate(object.len() - 1);
        object += &format!(",\"cost\":{cost}}}");
    }
    Ok(object)
}

/// The outputs as one JSON object, in their order.
fn object(outputs: &[Output]) -> Result<String, String> {
    let fields = outputs.iter().map(|output| {
        let name = serde_json::Value::from(&*output.name);
        let value = match (output.content, output.tensor.data()) {
            (Content::Json, Data::Bytes(texts)) => {
                let text = texts.first().map(Vec::as_slice).unwrap_or_default();
                let json: &RawValue = serde_json::from_slice(text).map_err(failure)?;
                json.get().to_owned()
            }
            (Content::Plain, Data::Bytes(texts)) => {
                let text = texts.first().map(Vec::as_slice).unwrap_or_default();
                serde_json::Value::from(String::from_utf8_lossy(text)).to_string()
            }
            (_, Data::F32(numbers)) => {
                // As short as it is exact for an f32, not for the f64 that JSON means.
                numbers.first().map_or_else(|| "null".to_owned(), ToString::to_string)
            }
            _ => return Err(format!("output `{}`: of another type", output.name)),
        };
        Ok(format!("{name}:{value}"))
    });
    let fields = fields.collect::<Result<Vec<_>, String>>()?;
    Ok(format!("{{{}}}", fields.join(",")))
}
