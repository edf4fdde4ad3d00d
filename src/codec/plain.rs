//! The shorthand: an object with the model's inputs by name, such as `{"text": "..."}`.
//!
//! The keys of [`RESERVED`] are options, whatever the model's inputs are called.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::datatype::word;
use super::parameters::Parameters;
use super::{DecodeError, Decoded, Form, Layout, Limits, data, request};
use crate::infer::{InputSpec, ModelInfo, NamedTensor};
use crate::tensor::{DType, Tensor};

/// Keys that are no inputs. The last four are parameters of the same name.
pub(super) const RESERVED: [&str; 6] = ["id", "parameters", "k", "budget", "priority", "timeout"];

pub(super) fn decode(
    entries: Vec<(Cow<'_, str>, &RawValue)>,
    model: &ModelInfo,
    limits: &Limits,
) -> Result<Decoded, DecodeError> {
    let mut id = None;
    let mut parameters = Parameters::default();
    let mut short = Vec::new();
    let mut inputs = Vec::new();
    for (key, value) in entries {
        match &*key {
            "id" => id = request::id(value.get(), limits)?,
            "parameters" => parameters = request::parameters(value.get())?,
            name if RESERVED.contains(&name) => {
                let value = serde_json::from_str(value.get())
                    .map_err(|error| DecodeError::parameter(name, error.to_string()))?;
                short.push((key.into_owned(), value));
            }
            name => inputs.push(input(name, value.get(), model, limits)?),
        }
    }
    for (name, value) in short {
        if parameters.has(&name) {
            return Err(DecodeError::parameter(&name, "given twice: give it once"));
        }
        parameters.push(name, value);
    }
    if inputs.is_empty() {
        return Err(empty(model));
    }
    let form = Form { layout: Layout::Plain, wanted: Vec::new() };
    Ok(Decoded { id, inputs, options: parameters.options()?, timeout: parameters.timeout()?, form })
}

/// For a body that asks nothing: what one to this model could look like.
pub(super) fn empty(model: &ModelInfo) -> DecodeError {
    let value = |spec: &InputSpec| if spec.dtype == DType::Bytes { "\"...\"" } else { "[...]" };
    let inputs = model.inputs.iter().filter(|spec| !spec.is_optional).take(4);
    let inputs: Vec<String> =
        inputs.map(|spec| format!("\"{}\": {}", spec.name, value(spec))).collect();
    DecodeError::Empty { example: format!("{{{}}}", inputs.join(", ")) }
}

fn input(
    name: &str,
    json: &str,
    model: &ModelInfo,
    limits: &Limits,
) -> Result<NamedTensor, DecodeError> {
    let Some(spec) = model.inputs.iter().find(|spec| spec.name == name) else {
        let known: Vec<String> = model
            .inputs
            .iter()
            .map(|spec| format!("{} ({})", spec.name, word(spec.dtype)))
            .collect();
        let cause = format!("unknown: `{}` takes: {}", model.name, known.join(", "));
        return Err(DecodeError::input(name, cause));
    };
    let parsed =
        data::parse(json, spec.dtype, limits).map_err(|error| request::of_input(name, error))?;
    // What is missing of the model's rank are batches of one.
    let missing = spec.dims.len().saturating_sub(parsed.dims.len());
    let dims = [vec![1; missing], parsed.dims].concat();
    let tensor = Tensor::new(&dims, parsed.data)
        .map_err(|error| DecodeError::input(name, error.to_string()))?;
    Ok(NamedTensor { name: name.to_owned(), tensor })
}
