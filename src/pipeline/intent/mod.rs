//! The task `intent`: from a sentence to what its speaker wants done, and to what in their home.
//!
//! [`features`] makes numbers of a sentence, the graph reads them, [`decode`] makes labels of what
//! it gives, and what is said of rooms and devices is found among the names of the [`Home`].

mod config;
mod decode;
mod features;
mod home;
mod home_assistant;
mod number;
mod resolve;
mod slots;
mod spelling;
mod values;

use std::sync::Arc;

use super::{BUDGET, Signature, budget_tensor, input_error};
use crate::infer::{Content, InputSpec, NamedTensor, Output, OutputSpec, RunError};
use crate::tensor::{DType, Data, Tensor};

pub use config::{Config, OUT_OF_SCOPE, Tag};
pub use decode::{Reading, Span};
pub use features::{Word, words};
pub use home::{Area, Device, Home, Named};
pub use home_assistant::Registries;
pub use resolve::{Resolved, Resolver};

/// The client's input: one sentence.
const TEXT: &str = "text";
/// Bytes of a sentence. Longer than anybody says, and short enough for any buffer.
const TEXT_BYTES_MAX: usize = 4096;

const IDS: &str = "ids";
const INTENT_LOGITS: &str = "intent_logits";
const TAG_LOGITS: &str = "tag_logits";
const K: &str = "k";

/// A sentence on its way through the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    pub text: String,
    /// No more than the model takes.
    pub words: Vec<Word>,
}

/// What clients of every model of this task give and get.
pub fn signature() -> Signature {
    let input = |name: &str, dtype, is_optional| InputSpec {
        name: name.to_owned(),
        dtype,
        dims: vec![Some(1)],
        is_optional,
    };
    let output = |name: &str, dtype, content| OutputSpec {
        name: name.into(),
        dtype,
        dims: vec![Some(1)],
        content,
    };
    Signature {
        inputs: vec![input(TEXT, DType::Bytes, false)],
        outputs: vec![
            output("intent", DType::Bytes, Content::Plain),
            output("confidence", DType::F32, Content::Plain),
            output("slots", DType::Bytes, Content::Json),
            output("entities", DType::Bytes, Content::Json),
            output("areas", DType::Bytes, Content::Json),
            output(TEXT, DType::Bytes, Content::Plain),
        ],
    }
}

/// The task, joined to a graph.
#[derive(Debug, Clone)]
pub struct Steps {
    config: Arc<Config>,
    /// What each of the graph's inputs is.
    inputs: Vec<GraphInput>,
    intent_logits: usize,
    tag_logits: usize,
    /// How many experts a sentence got, if the graph gives it.
    k: Option<usize>,
    resolver: Option<Arc<Resolver>>,
}

#[derive(Debug, Clone, Copy)]
enum GraphInput {
    Ids,
    Budget,
}

impl Steps {
    pub(super) fn new(
        config: Arc<Config>,
        graph: &Signature,
        home: Option<Arc<Home>>,
    ) -> Result<Self, String> {
        let inputs = graph.inputs.iter().map(|input| graph_input(input, &config));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        if !inputs.iter().any(|input| matches!(input, GraphInput::Ids)) {
            return Err(format!("input `{IDS}`: missing; the task `intent` needs it"));
        }
        let intents = config.intents.len();
        let intent_logits = graph_output(graph, INTENT_LOGITS, &[Some(intents)])?;
        let tag_logits = graph_output(graph, TAG_LOGITS, &[None, Some(config.tags.len())])?;
        let k = graph.outputs.iter().position(|output| &*output.name == K);
        let resolver = home.map(|home| Arc::new(Resolver::new(&home)));
        Ok(Self { config, inputs, intent_logits, tag_logits, k, resolver })
    }

    pub(super) fn prepare(
        &self,
        inputs: Vec<NamedTensor>,
        budget: Option<f32>,
    ) -> Result<(Vec<Tensor>, Sentence), RunError> {
        let sentence = self.sentence(text_of(inputs)?)?;
        let tensors = self.inputs.iter().map(|input| match input {
            GraphInput::Ids => self.ids_tensor(&sentence),
            GraphInput::Budget => budget_tensor(budget),
        });
        Ok((tensors.collect::<Result<_, _>>()?, sentence))
    }

    fn sentence(&self, text: String) -> Result<Sentence, RunError> {
        let mut words = words(&text);
        words.truncate(self.config.words_max);
        if words.is_empty() {
            return Err(input_error(TEXT, "no words; send a sentence"));
        }
        Ok(Sentence { text, words })
    }

    /// The ids of the n-grams of each word, padded with 0.
    pub fn ids(&self, sentence: &Sentence) -> Vec<i64> {
        let mut ids = Vec::with_capacity(sentence.words.len() * self.config.ngrams_max);
        for word in &sentence.words {
            features::push_ids(&word.text, &self.config, &mut ids);
        }
        ids
    }

    fn ids_tensor(&self, sentence: &Sentence) -> Result<Tensor, RunError> {
        let dims = [sentence.words.len(), self.config.ngrams_max];
        Tensor::new(&dims, Data::I64(self.ids(sentence)))
            .map_err(|error| model_error(error.to_string()))
    }

    /// What the model read in a sentence; `outputs` are the graph's.
    pub fn reading(&self, sentence: &Sentence, outputs: &[Tensor]) -> Result<Reading, RunError> {
        let tags = self.tags(sentence, outputs)?;
        let logits = floats(outputs, self.intent_logits, &[self.config.intents.len()])?;
        let (intent, confidence) = decode::best_intent(logits, &self.config);
        Ok(Reading { intent, confidence, spans: decode::spans(&tags) })
    }

    /// The most probable tag of each word.
    pub fn tags(&self, sentence: &Sentence, outputs: &[Tensor]) -> Result<Vec<&Tag>, RunError> {
        let dims = [sentence.words.len(), self.config.tags.len()];
        let logits = floats(outputs, self.tag_logits, &dims)?;
        Ok(decode::best_tags(logits, &self.config))
    }

    /// The graph's output `intent_logits`.
    pub fn intent_logits<'a>(&self, outputs: &'a [Tensor]) -> Result<&'a [f32], RunError> {
        floats(outputs, self.intent_logits, &[self.config.intents.len()])
    }

    /// How many experts the graph chose for the sentence, if it says so.
    pub fn k(&self, outputs: &[Tensor]) -> Option<f32> {
        floats(outputs, self.k?, &[1]).ok()?.first().copied()
    }

    pub(super) fn finish(
        &self,
        sentence: &Sentence,
        outputs: &[Tensor],
    ) -> Result<Vec<Output>, RunError> {
        let reading = self.reading(sentence, outputs)?;
        let Resolved { intent, slots, entities, areas } = match &self.resolver {
            _ if reading.intent == OUT_OF_SCOPE => Resolved::default(),
            Some(resolver) => resolver.resolve(sentence, &reading),
            None => resolve::without_home(sentence, &reading),
        };
        let slots = serde_json::Value::Object(slots).to_string();
        let bytes = |text: &str| Data::Bytes(vec![text.as_bytes().to_vec()]);
        let outputs = [
            ("intent", Content::Plain, bytes(&intent.unwrap_or(reading.intent))),
            ("confidence", Content::Plain, Data::F32(vec![reading.confidence])),
            ("slots", Content::Json, bytes(&slots)),
            ("entities", Content::Json, bytes(&list(entities))),
            ("areas", Content::Json, bytes(&list(areas))),
            (TEXT, Content::Plain, bytes(&sentence.text)),
        ];
        let outputs = outputs.into_iter().map(|(name, content, data)| {
            let tensor = Tensor::new(&[1], data).map_err(|error| model_error(error.to_string()))?;
            Ok(Output { name: name.into(), content, tensor })
        });
        outputs.collect()
    }
}

/// Texts as a JSON list.
fn list(texts: Vec<String>) -> String {
    serde_json::Value::from(texts).to_string()
}

fn graph_input(input: &InputSpec, config: &Config) -> Result<GraphInput, String> {
    let (kind, dtype, dims) = match input.name.as_str() {
        IDS => (GraphInput::Ids, DType::I64, vec![None, Some(config.ngrams_max)]),
        BUDGET => (GraphInput::Budget, DType::F32, vec![Some(1)]),
        name => {
            return Err(format!(
                "input `{name}`: the task `intent` takes `{IDS}` and `{BUDGET}`; export the model \
                 again"
            ));
        }
    };
    if input.dtype == dtype && fits(&input.dims, &dims) {
        return Ok(kind);
    }
    let name = &input.name;
    Err(format!("input `{name}`: {dtype:?} {} is needed; export the model again", shown(&dims)))
}

fn graph_output(graph: &Signature, name: &str, dims: &[Option<usize>]) -> Result<usize, String> {
    let found = graph.outputs.iter().position(|output| &*output.name == name);
    let needed = |what: &str| {
        let dims = shown(dims);
        format!("output `{name}`: {what}: F32 {dims} is needed; export the model again")
    };
    let at = found.ok_or_else(|| needed("missing"))?;
    match graph.outputs.get(at) {
        Some(output) if output.dtype == DType::F32 && fits(&output.dims, dims) => Ok(at),
        _ => Err(needed("of another type or shape")),
    }
}

/// Whether a port is one of these dimensions, or can be: what is open is seen when it is run.
fn fits(port: &[Option<usize>], dims: &[Option<usize>]) -> bool {
    let is_one = |(a, b): (&Option<usize>, &Option<usize>)| a.is_none() || b.is_none() || a == b;
    port.len() == dims.len() && port.iter().zip(dims).all(is_one)
}

fn shown(dims: &[Option<usize>]) -> String {
    let dims: Vec<_> =
        dims.iter().map(|dim| dim.map_or_else(|| "?".to_owned(), |dim| dim.to_string())).collect();
    format!("[{}]", dims.join(", "))
}

fn text_of(inputs: Vec<NamedTensor>) -> Result<String, RunError> {
    let mut text = None;
    for NamedTensor { name, tensor } in inputs {
        if name != TEXT {
            let cause = format!("not known; the model takes `{TEXT}`, a sentence");
            return Err(input_error(&name, cause));
        }
        let [sentence] = (match tensor.data() {
            Data::Bytes(texts) => texts.as_slice(),
            _ => return Err(input_error(TEXT, "a text is needed, of type BYTES")),
        }) else {
            return Err(input_error(TEXT, "send one sentence in one request"));
        };
        if sentence.len() > TEXT_BYTES_MAX {
            let cause = format!("{} bytes; at most {TEXT_BYTES_MAX} are taken", sentence.len());
            return Err(input_error(TEXT, cause));
        }
        let sentence = std::str::from_utf8(sentence)
            .map_err(|_| input_error(TEXT, "not UTF-8; send it in UTF-8"))?;
        if text.replace(sentence.to_owned()).is_some() {
            return Err(input_error(TEXT, "given twice; give it once"));
        }
    }
    text.ok_or_else(|| input_error(TEXT, "missing; send a sentence"))
}

/// The elements of an output that must have these dimensions, and be finite.
fn floats<'a>(outputs: &'a [Tensor], at: usize, dims: &[usize]) -> Result<&'a [f32], RunError> {
    let floats = outputs.get(at).and_then(|output| match output.data() {
        Data::F32(data) if output.shape().dims() == dims => Some(data.as_slice()),
        _ => None,
    });
    let floats = floats.ok_or_else(|| model_error(format!("output {at}: not F32 {dims:?}")))?;
    if floats.iter().all(|x| x.is_finite()) {
        return Ok(floats);
    }
    Err(model_error(format!("output {at}: holds an infinity or a NaN")))
}

fn model_error(cause: impl Into<String>) -> RunError {
    RunError::Model { cause: cause.into() }
}
