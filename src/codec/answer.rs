//! Writes an answer: the protocol's document, with binary data behind it where that was asked
//! for, or a plain object.

use std::borrow::Cow;

use serde::ser::{Error as _, SerializeSeq as _};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::classify::classify;
use super::datatype::word;
use super::{EncodeError, Form, Layout, Wanted, binary};
use crate::infer::{Answer, Content, Cost, Output};
use crate::tensor::{DType, Data};

/// An answer's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    pub bytes: Vec<u8>,
    /// How many of them are JSON, if binary data follows: the header of the binary tensor
    /// extension.
    pub json_bytes: Option<usize>,
}

/// Writes `answer` as its request asked for it. `id` is echoed.
///
/// # Errors
/// An output that has no form in JSON: bytes that are not text, FP16.
pub fn encode(answer: &Answer, id: Option<&str>, form: &Form) -> Result<Encoded, EncodeError> {
    match form.layout {
        Layout::Plain => plain(answer, id),
        Layout::Protocol { is_binary } => protocol(answer, id, &form.wanted, is_binary),
    }
}

fn protocol(
    answer: &Answer,
    id: Option<&str>,
    wanted: &[Wanted],
    is_binary: bool,
) -> Result<Encoded, EncodeError> {
    let mut outputs = Vec::with_capacity(answer.outputs.len());
    let mut binaries = Vec::new();
    for (output, is_binary, classes) in chosen(answer, wanted, is_binary) {
        let (dims, dtype, data) = match classes.and_then(|n| classify(&output.tensor, n)) {
            Some((dims, strings)) => {
                let data = strings.into_iter().map(String::into_bytes).collect();
                (Cow::Owned(dims), DType::Bytes, Cow::Owned(Data::Bytes(data)))
            }
            None => {
                let dims = Cow::Borrowed(output.tensor.shape().dims());
                (dims, output.tensor.dtype(), Cow::Borrowed(output.tensor.data()))
            }
        };
        let mut document = OutputDocument {
            name: &output.name,
            datatype: word(dtype),
            shape: dims,
            parameters: None,
            data: None,
        };
        if is_binary {
            let elements = document.shape.iter().product();
            let binary_data_size = binary::written_bytes(&data, elements);
            document.parameters = Some(OutputParameters { binary_data_size });
            binaries.push(data);
        } else {
            check_json(output, &data)?;
            document.data = Some(JsonData(data));
        }
        outputs.push(document);
    }
    let document = Document {
        model_name: &answer.model,
        model_version: &answer.version,
        id,
        parameters: Parameters::of(&answer.cost),
        outputs,
    };
    let mut bytes = Vec::with_capacity(512);
    serde_json::to_writer(&mut bytes, &document).map_err(|error| fault("", &error))?;
    let json_bytes = (!binaries.is_empty()).then_some(bytes.len());
    for data in &binaries {
        binary::write(&mut bytes, data);
    }
    Ok(Encoded { bytes, json_bytes })
}

/// The outputs to be written, each with whether it goes as binary data, and how many classes.
fn chosen<'a>(
    answer: &'a Answer,
    wanted: &'a [Wanted],
    is_binary: bool,
) -> Vec<(&'a Output, bool, Option<usize>)> {
    if wanted.is_empty() {
        return answer.outputs.iter().map(|output| (output, is_binary, None)).collect();
    }
    let find = |wanted: &Wanted| answer.outputs.iter().find(|output| *output.name == wanted.name);
    let with = |wanted: &'a Wanted| Some((find(wanted)?, wanted.is_binary, wanted.classes));
    wanted.iter().filter_map(with).collect()
}

/// Refuses what JSON has no form for.
fn check_json(output: &Output, data: &Data) -> Result<(), EncodeError> {
    let refused = |cause| Err(EncodeError::Output { output: output.name.to_string(), cause });
    match data {
        Data::F16(_) => {
            refused("FP16 has no form in JSON: ask with the parameter `binary_data_output`")
        }
        Data::Bytes(values) if values.iter().any(|value| std::str::from_utf8(value).is_err()) => {
            refused("its bytes are not text: ask with the parameter `binary_data_output`")
        }
        _ => Ok(()),
    }
}

fn fault(output: &str, cause: &dyn std::fmt::Display) -> EncodeError {
    EncodeError::Fault { output: output.to_owned(), cause: cause.to_string() }
}

#[derive(Serialize)]
struct Document<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    parameters: Parameters<'a>,
    outputs: Vec<OutputDocument<'a>>,
}

#[derive(Serialize)]
struct OutputDocument<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: Cow<'a, [usize]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<OutputParameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<JsonData<'a>>,
}

#[derive(Serialize)]
struct OutputParameters {
    binary_data_size: usize,
}

/// What an answer took: see docs/protocol.md.
#[derive(Serialize)]
struct Parameters<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<usize>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    experts: &'a [Vec<u32>],
    weight_bytes_read: u64,
    queue_us: u64,
    compute_us: u64,
}

impl<'a> Parameters<'a> {
    fn of(cost: &'a Cost) -> Self {
        let microseconds = |time: std::time::Duration| time.as_micros() as u64;
        Self {
            k: (cost.k > 0).then_some(cost.k),
            experts: &cost.experts,
            weight_bytes_read: cost.weight_bytes_read,
            queue_us: microseconds(cost.queue),
            compute_us: microseconds(cost.compute),
        }
    }
}

/// Elements as one flat array. Numbers that are not finite are `null`.
struct JsonData<'a>(Cow<'a, Data>);

impl Serialize for JsonData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &*self.0 {
            Data::Bool(values) => values.serialize(serializer),
            Data::I8(values) => values.serialize(serializer),
            Data::I16(values) => values.serialize(serializer),
            Data::I32(values) => values.serialize(serializer),
            Data::I64(values) => values.serialize(serializer),
            Data::U8(values) => values.serialize(serializer),
            Data::U16(values) => values.serialize(serializer),
            Data::U32(values) => values.serialize(serializer),
            Data::U64(values) => values.serialize(serializer),
            Data::F32(values) => values.serialize(serializer),
            Data::F64(values) => values.serialize(serializer),
            Data::F16(_) => Err(S::Error::custom("FP16")),
            Data::Bytes(values) => {
                let mut seq = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    let text = std::str::from_utf8(value).map_err(S::Error::custom)?;
                    seq.serialize_element(text)?;
                }
                seq.end()
            }
        }
    }
}

/// An object with the outputs by name, and `parameters`.
fn plain(answer: &Answer, id: Option<&str>) -> Result<Encoded, EncodeError> {
    let mut bytes = Vec::with_capacity(256);
    bytes.push(b'{');
    if let Some(id) = id {
        bytes.extend_from_slice(b"\"id\":");
        write(&mut bytes, id, "id")?;
        bytes.push(b',');
    }
    for output in &answer.outputs {
        write(&mut bytes, &*output.name, &output.name)?;
        bytes.push(b':');
        plain_tensor(&mut bytes, output)?;
        bytes.push(b',');
    }
    bytes.extend_from_slice(b"\"parameters\":");
    write(&mut bytes, &Parameters::of(&answer.cost), "parameters")?;
    bytes.push(b'}');
    Ok(Encoded { bytes, json_bytes: None })
}

fn write<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    value: &T,
    output: &str,
) -> Result<(), EncodeError> {
    serde_json::to_writer(out, value).map_err(|error| fault(output, &error))
}

/// A lone element as itself, everything else as nested arrays.
fn plain_tensor(out: &mut Vec<u8>, output: &Output) -> Result<(), EncodeError> {
    let Output { name, content, tensor } = output;
    let dims = tensor.shape().dims();
    let dims = if tensor.shape().elements() == 1 && dims.len() <= 1 { &[] } else { dims };
    macro_rules! nested {
        ($values:ident) => {
            write_nested(out, dims, &mut $values.iter(), &mut |out, value| write(out, value, name))
        };
    }
    match tensor.data() {
        Data::Bool(values) => nested!(values),
        Data::I8(values) => nested!(values),
        Data::I16(values) => nested!(values),
        Data::I32(values) => nested!(values),
        Data::I64(values) => nested!(values),
        Data::U8(values) => nested!(values),
        Data::U16(values) => nested!(values),
        Data::U32(values) => nested!(values),
        Data::U64(values) => nested!(values),
        Data::F32(values) => nested!(values),
        Data::F64(values) => nested!(values),
        // Exact: every FP16 is an FP32.
        Data::F16(values) => write_nested(out, dims, &mut values.iter(), &mut |out, value| {
            write(out, &value.to_f32(), name)
        }),
        Data::Bytes(values) => write_nested(out, dims, &mut values.iter(), &mut |out, value| {
            write_bytes(out, name, *content, value)
        }),
    }
}

fn write_bytes(
    out: &mut Vec<u8>,
    name: &str,
    content: Content,
    value: &[u8],
) -> Result<(), EncodeError> {
    match content {
        Content::Plain => {
            let Ok(text) = std::str::from_utf8(value) else {
                let cause = "its bytes are not text: ask with `inputs` and the parameter \
                             `binary_data_output`";
                return Err(EncodeError::Output { output: name.to_owned(), cause });
            };
            write(out, text, name)
        }
        Content::Json => {
            let json: &RawValue =
                serde_json::from_slice(value).map_err(|error| fault(name, &error))?;
            out.extend_from_slice(json.get().as_bytes());
            Ok(())
        }
    }
}

type WriteElement<'a, T> = dyn FnMut(&mut Vec<u8>, T) -> Result<(), EncodeError> + 'a;

/// Writes the next elements as arrays of `dims`. Recurses once for each dimension, of which there
/// are few.
fn write_nested<T>(
    out: &mut Vec<u8>,
    dims: &[usize],
    elements: &mut dyn Iterator<Item = T>,
    write: &mut WriteElement<'_, T>,
) -> Result<(), EncodeError> {
    let Some((&size, inner)) = dims.split_first() else {
        return elements.next().map_or(Ok(()), |element| write(out, element));
    };
    out.push(b'[');
    for at in 0..size {
        if at > 0 {
            out.push(b',');
        }
        write_nested(out, inner, elements, write)?;
    }
    out.push(b']');
    Ok(())
}
