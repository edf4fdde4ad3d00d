//! Reads the body of an inference request, in each of its forms.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::data::{self, DataError};
use super::datatype::{self, element_bytes};
use super::parameters::Parameters;
use super::{DecodeError, Decoded, Form, Layout, Limits, TENSORS_MAX, Wanted, binary, plain};
use crate::infer::{ModelInfo, NamedTensor, RequestOptions};
use crate::tensor::{DType, Data, Shape, Tensor};

/// Most keys of the top-level object.
const KEYS_MAX: usize = 128;

const HEADER: &str = "Inference-Header-Content-Length";

/// Reads `body` as a request to `model`.
///
/// `json_bytes` is the header of the binary tensor extension: how much of the body is JSON. With
/// 0, the whole body is the model's only input.
///
/// # Errors
/// What of the body is wrong, in the order of reading. Whether its inputs fit the model's
/// signature is not asked here.
pub fn decode(
    body: &[u8],
    json_bytes: Option<usize>,
    model: &ModelInfo,
    limits: &Limits,
) -> Result<Decoded, DecodeError> {
    let (json, mut binary) = match json_bytes {
        None => (body, &[][..]),
        Some(0) => return raw(body, model, limits),
        Some(bytes) => body.split_at_checked(bytes).ok_or_else(|| {
            let cause = format!(
                "{bytes}: more than the {} bytes of the body: give the bytes of its JSON",
                body.len()
            );
            DecodeError::field(HEADER, cause)
        })?,
    };
    if json.trim_ascii().is_empty() {
        return Err(plain::empty(model));
    }
    let document: Document<'_> = serde_json::from_slice(json)
        .map_err(|error| DecodeError::Json { cause: reason(&error) })?;
    let decoded = match document.inputs {
        None => plain::decode(document.others, model, limits)?,
        Some(inputs) => protocol(inputs.0, &document.others, &mut binary, model, limits)?,
    };
    if !binary.is_empty() {
        let cause = format!(
            "{} bytes of binary data belong to no input: give each its `binary_data_size`",
            binary.len()
        );
        return Err(DecodeError::field("body", cause));
    }
    Ok(decoded)
}

/// serde's words. Without position if it is a syntax error of ours to explain.
fn reason(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Eof => "it ends inside the JSON: send all of it".to_owned(),
        serde_json::error::Category::Syntax => format!("not JSON: {error}"),
        _ => error.to_string(),
    }
}

/// The request of the protocol.
fn protocol(
    inputs: Vec<InputDocument<'_>>,
    others: &[(Cow<'_, str>, &RawValue)],
    binary: &mut &[u8],
    model: &ModelInfo,
    limits: &Limits,
) -> Result<Decoded, DecodeError> {
    let other =
        |name: &str| others.iter().find(|(key, _)| key == name).map(|(_, value)| value.get());
    let id = other("id").map(|json| id(json, limits)).transpose()?.flatten();
    let parameters = other("parameters").map(parameters).transpose()?.unwrap_or_default();
    let is_binary = parameters.boolean("binary_data_output")?.unwrap_or(false);
    let wanted = match other("outputs") {
        Some(json) => wanted(json, is_binary)?,
        None => Vec::new(),
    };
    if inputs.is_empty() {
        return Err(plain::empty(model));
    }
    let mut tensors: Vec<NamedTensor> = Vec::with_capacity(inputs.len());
    for document in inputs {
        let tensor = input(document, binary, limits)?;
        if tensors.iter().any(|other| other.name == tensor.name) {
            return Err(DecodeError::input(&tensor.name, "given twice: give it once"));
        }
        tensors.push(tensor);
    }
    let form = Form { layout: Layout::Protocol { is_binary }, wanted };
    check_outputs(&form, is_binary, model)?;
    let outputs = form.wanted.iter().map(|wanted| wanted.name.clone()).collect();
    let options = RequestOptions { outputs, ..parameters.options()? };
    Ok(Decoded { id, inputs: tensors, options, timeout: parameters.timeout()?, form })
}

/// The raw request of the binary tensor extension: the body is the only input.
fn raw(body: &[u8], model: &ModelInfo, limits: &Limits) -> Result<Decoded, DecodeError> {
    let [spec] = model.inputs.as_slice() else {
        let cause = format!(
            "0: a body without JSON is for models with one input, and `{}` has {}: \
             say how many bytes of the body are JSON",
            model.name,
            model.inputs.len()
        );
        return Err(DecodeError::field(HEADER, cause));
    };
    let refused = |cause: String| DecodeError::input(&spec.name, cause);
    let data_refused = |error| of_input(&spec.name, error);
    let fixed: Option<usize> =
        spec.dims.iter().flatten().try_fold(1usize, |product, &dim| product.checked_mul(dim));
    let fixed = fixed.ok_or_else(|| refused("its shape does not fit in memory".to_owned()))?;
    let open = spec.dims.iter().filter(|dim| dim.is_none()).count();
    let (size, data) = match element_bytes(spec.dtype) {
        None if fixed != 1 => {
            let cause = "it takes several strings: send them as JSON or as binary tensor data";
            return Err(refused(cause.to_owned()));
        }
        None if body.len() > limits.string_bytes_max => {
            let max = limits.string_bytes_max;
            return Err(data_refused(DataError::TooLarge { what: "bytes of a string", max }));
        }
        None => (1, Data::Bytes(vec![body.to_vec()])),
        Some(_) if open > 1 => {
            let cause = format!("{open} of its dimensions are open: say its shape in JSON");
            return Err(refused(cause));
        }
        Some(bytes) => {
            let elements = body.len() / bytes;
            let data = binary::parse(body, spec.dtype, elements, limits).map_err(data_refused)?;
            (elements.checked_div(fixed).unwrap_or(0), data)
        }
    };
    let dims: Vec<usize> = spec.dims.iter().map(|dim| dim.unwrap_or(size)).collect();
    let tensor = Tensor::new(&dims, data).map_err(|error| refused(error.to_string()))?;
    Ok(Decoded {
        id: None,
        inputs: vec![NamedTensor { name: spec.name.clone(), tensor }],
        options: RequestOptions::default(),
        timeout: None,
        form: Form { layout: Layout::Protocol { is_binary: true }, wanted: Vec::new() },
    })
}

/// One entry of `inputs`; its binary data is taken from the front of `binary`.
fn input(
    document: InputDocument<'_>,
    binary: &mut &[u8],
    limits: &Limits,
) -> Result<NamedTensor, DecodeError> {
    let Some(name) = document.name else {
        return Err(DecodeError::field("inputs", "one has no `name`: give each its name"));
    };
    let refused = |cause: String| DecodeError::input(&name, cause);
    let Some(word) = document.datatype else {
        return Err(refused("no `datatype`: give it, such as \"FP32\"".to_owned()));
    };
    let Some(dtype) = datatype::parse(&word) else {
        let (word, known) = (super::shortened(&word), datatype::words());
        return Err(refused(format!("datatype `{word}`: unknown: give one of {known}")));
    };
    let Some(shape) = document.shape else {
        return Err(refused("no `shape`: give it, such as [1, 4]".to_owned()));
    };
    let dims: Option<Vec<usize>> = shape.0.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let Some(dims) = dims else {
        let cause = format!("shape {:?}: a size below 0: give the sizes of the data", shape.0);
        return Err(refused(cause));
    };
    let shape = Shape::new(&dims).map_err(|error| refused(error.to_string()))?;
    if document.parameters.has("shared_memory_region") {
        let cause = "shared memory is not supported: send the data in the body";
        return Err(refused(cause.to_owned()));
    }
    let data = match (document.parameters.whole("binary_data_size")?, document.data) {
        (Some(_), Some(_)) => {
            let cause = "both `data` and `binary_data_size`: give one of them";
            return Err(refused(cause.to_owned()));
        }
        (None, None) => return Err(refused("no `data`: give its elements".to_owned())),
        (Some(bytes), None) => {
            let Some((data, rest)) = binary.split_at_checked(bytes) else {
                let left = binary.len();
                return Err(refused(format!(
                    "binary_data_size {bytes}: only {left} bytes of binary data are left: \
                     send as many as it says, and the header {HEADER}"
                )));
            };
            *binary = rest;
            binary::parse(data, dtype, shape.elements(), limits)
                .map_err(|error| of_input(&name, error))?
        }
        (None, Some(json)) => json_data(&name, json.get(), dtype, &dims, limits)?,
    };
    let tensor =
        Tensor::new(&dims, data).map_err(|error| refused(format!("{error}: make them agree")))?;
    Ok(NamedTensor { name, tensor })
}

fn json_data(
    name: &str,
    json: &str,
    dtype: DType,
    dims: &[usize],
    limits: &Limits,
) -> Result<Data, DecodeError> {
    let parsed = data::parse(json, dtype, limits).map_err(|error| of_input(name, error))?;
    match parsed.dims.as_slice() {
        [] => Err(DecodeError::input(name, "data: a lone value: put it into an array")),
        [_] => Ok(parsed.data),
        nested if nested == dims => Ok(parsed.data),
        nested => {
            let cause = format!("shape {dims:?}: data is nested as {nested:?}: make them agree");
            Err(DecodeError::input(name, cause))
        }
    }
}

pub(super) fn of_input(name: &str, error: DataError) -> DecodeError {
    match error {
        DataError::Wrong(cause) => DecodeError::input(name, format!("data: {cause}")),
        DataError::TooLarge { what, max } => DecodeError::TooLarge {
            what: format!("input `{}`: {what}", super::shortened(name)),
            max,
        },
    }
}

/// An id, or none for `null`.
pub(super) fn id(json: &str, limits: &Limits) -> Result<Option<String>, DecodeError> {
    let id: Option<String> = serde_json::from_str(json)
        .map_err(|_| DecodeError::field("id", "not a string: put it into quotes"))?;
    match id {
        Some(id) if id.len() > limits.id_bytes_max => {
            Err(DecodeError::TooLarge { what: "id: bytes".to_owned(), max: limits.id_bytes_max })
        }
        id => Ok(id),
    }
}

pub(super) fn parameters(json: &str) -> Result<Parameters, DecodeError> {
    serde_json::from_str(json).map_err(|error| DecodeError::field("parameters", error.to_string()))
}

fn wanted(json: &str, is_binary: bool) -> Result<Vec<Wanted>, DecodeError> {
    let documents: AtMost<OutputDocument, TENSORS_MAX> = serde_json::from_str(json)
        .map_err(|error| DecodeError::field("outputs", error.to_string()))?;
    let mut wanted: Vec<Wanted> = Vec::with_capacity(documents.0.len());
    for OutputDocument { name, parameters } in documents.0 {
        let Some(name) = name else {
            return Err(DecodeError::field("outputs", "one has no `name`: give each its name"));
        };
        if wanted.iter().any(|other| other.name == name) {
            return Err(DecodeError::output(&name, "asked for twice: ask once"));
        }
        if parameters.has("shared_memory_region") {
            let cause = "shared memory is not supported: take the data from the body";
            return Err(DecodeError::output(&name, cause));
        }
        let is_binary = parameters.boolean("binary_data")?.unwrap_or(is_binary);
        let classes = parameters.whole("classification")?.filter(|&classes| classes > 0);
        wanted.push(Wanted { name, is_binary, classes });
    }
    Ok(wanted)
}

/// Refuses what could not be answered, before it is computed.
fn check_outputs(form: &Form, is_binary: bool, model: &ModelInfo) -> Result<(), DecodeError> {
    for wanted in &form.wanted {
        let Some(spec) = model.outputs.iter().find(|spec| *spec.name == wanted.name) else {
            let known: Vec<&str> = model.outputs.iter().map(|spec| &*spec.name).collect();
            let cause = format!("unknown: the model gives: {}", known.join(", "));
            return Err(DecodeError::output(&wanted.name, cause));
        };
        if wanted.classes.is_some() && matches!(spec.dtype, DType::Bytes | DType::Bool) {
            let cause = "classification: it holds no numbers: ask for it without";
            return Err(DecodeError::output(&wanted.name, cause));
        }
    }
    let needs_binary = |name: &str| {
        let wanted = form.wanted.iter().find(|wanted| wanted.name == name);
        match wanted {
            Some(wanted) => !wanted.is_binary && wanted.classes.is_none(),
            None => form.wanted.is_empty() && !is_binary,
        }
    };
    let mut halves = model.outputs.iter().filter(|spec| spec.dtype == DType::F16);
    if let Some(spec) = halves.find(|spec| needs_binary(&spec.name)) {
        let cause = "FP16 has no form in JSON: ask with the parameter `binary_data_output`";
        return Err(DecodeError::output(&spec.name, cause));
    }
    Ok(())
}

/// A body: `inputs` are read as they come, everything else is kept as text.
struct Document<'a> {
    inputs: Option<AtMost<InputDocument<'a>, TENSORS_MAX>>,
    others: Vec<(Cow<'a, str>, &'a RawValue)>,
}

#[derive(Deserialize)]
struct InputDocument<'a> {
    name: Option<String>,
    shape: Option<AtMost<i64, 16>>,
    datatype: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct OutputDocument {
    name: Option<String>,
    #[serde(default)]
    parameters: Parameters,
}

impl<'de> Deserialize<'de> for Document<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Document<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut document = Document { inputs: None, others: Vec::new() };
                while let Some(Key(key)) = map.next_key()? {
                    let is_known = document.others.iter().any(|(known, _)| *known == key);
                    if is_known || (key == "inputs" && document.inputs.is_some()) {
                        let key = super::shortened(&key);
                        return Err(A::Error::custom(format_args!("`{key}` is given twice")));
                    }
                    if key == "inputs" {
                        document.inputs = Some(map.next_value()?);
                    } else if document.others.len() < KEYS_MAX {
                        document.others.push((key, map.next_value()?));
                    } else {
                        return Err(A::Error::custom(format_args!("more than {KEYS_MAX} keys")));
                    }
                }
                Ok(document)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// Borrowed where it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// A list that stops being read when it gets too long.
struct AtMost<T, const MAX: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for AtMost<T, MAX> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
            type Value = AtMost<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if list.len() >= MAX {
                        return Err(A::Error::custom(format_args!("more than {MAX} in an array")));
                    }
                    list.push(element);
                }
                Ok(AtMost(list))
            }
        }

        deserializer.deserialize_seq(List(PhantomData))
    }
}
