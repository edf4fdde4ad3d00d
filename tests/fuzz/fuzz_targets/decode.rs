//! Any bytes are decoded as a request without a panic, in each form; what is read keeps to the
//! limits, and its answer can be written.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use moed::codec::{Limits, decode, encode};
use moed::infer::{Answer, Content, Cost, InputSpec, ModelInfo, Output, OutputSpec};
use moed::tensor::{DType, Data};

static MODEL: LazyLock<ModelInfo> = LazyLock::new(|| {
    let inputs = [("text", DType::Bytes), ("x", DType::F32), ("n", DType::I64), ("h", DType::F16)];
    let input = |(name, dtype): (&str, DType)| InputSpec {
        name: name.to_owned(),
        dtype,
        dims: vec![None],
        is_optional: true,
    };
    let output = |(name, dtype): (&str, DType)| OutputSpec {
        name: name.into(),
        dtype,
        dims: vec![None],
        content: Content::Plain,
    };
    ModelInfo {
        name: "m".to_owned(),
        version: "1".to_owned(),
        versions: vec!["1".to_owned()],
        task: "tensor".to_owned(),
        inputs: inputs.map(input).to_vec(),
        outputs: inputs.map(output).to_vec(),
        k: None,
        resident_bytes: 0,
    }
});

// The first two bytes choose the form: how much of the rest is JSON, or that all of it is.
fuzz_target!(|input: (Option<u16>, &[u8])| {
    let (json_bytes, body) = input;
    let limits = Limits { elements_max: 1000, strings_max: 100, ..Limits::default() };
    let Ok(decoded) = decode(body, json_bytes.map(usize::from), &MODEL, &limits) else { return };
    for input in &decoded.inputs {
        if let Data::Bytes(strings) = input.tensor.data() {
            assert!(strings.len() <= limits.strings_max);
        }
    }
    let outputs = decoded.inputs.into_iter().map(|input| Output {
        name: input.name.into(),
        content: Content::Plain,
        tensor: input.tensor,
    });
    let answer = Answer {
        model: "m".into(),
        version: "1".into(),
        outputs: outputs.collect(),
        cost: Cost::default(),
    };
    if let Ok(encoded) = encode(&answer, decoded.id.as_deref(), &decoded.form) {
        let json = encoded.json_bytes.unwrap_or(encoded.bytes.len());
        assert!(serde_json::from_slice::<Box<serde_json::value::RawValue>>(&encoded.bytes[..json]).is_ok());
    }
});
