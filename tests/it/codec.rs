//! The codec: what goes out comes back in, every type and form, and any bytes end in an answer.

use std::time::Duration;

use half::f16;
use moed::codec::{Decoded, Limits, decode, encode};
use moed::infer::{Answer, Content, Cost, NamedTensor, Output, Priority};
use moed::tensor::{Data, Tensor};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use crate::support::service::{DTYPES, model};

fn read(name: &str, body: &[u8], json_bytes: Option<usize>) -> Result<Decoded, String> {
    decode(body, json_bytes, &model(name), &Limits::default()).map_err(|error| error.to_string())
}

/// What comes back of `tensors` when the answer is written, and read again as a request.
fn echoed(model: &str, tensors: &[(&str, Tensor)], is_binary: bool) -> Vec<NamedTensor> {
    let ask = json!({
        "inputs": [{"name": "u8", "shape": [1], "datatype": "UINT8", "data": [1]}],
        "outputs": tensors.iter().map(|(name, _)| json!({"name": name})).collect::<Vec<_>>(),
        "parameters": {"binary_data_output": is_binary},
    });
    let form = read(model, ask.to_string().as_bytes(), None).expect("it can be asked").form;
    let outputs = tensors.iter().map(|(name, tensor)| Output {
        name: (*name).into(),
        content: Content::Plain,
        tensor: tensor.clone(),
    });
    let answer = Answer {
        model: "echo".into(),
        version: "1".into(),
        outputs: outputs.collect(),
        cost: Cost::default(),
    };
    let encoded = encode(&answer, Some("x"), &form).expect("it can be written");
    assert_eq!(encoded.json_bytes.is_some(), is_binary);
    let json_bytes = encoded.json_bytes.unwrap_or(encoded.bytes.len());
    let (json, binary) = encoded.bytes.split_at(json_bytes);
    let mut document: serde_json::Value = serde_json::from_slice(json).expect("it is JSON");
    let request = json!({
        "inputs": document["outputs"].take(), "parameters": {"binary_data_output": true},
    })
    .to_string();
    let body = [request.as_bytes(), binary].concat();
    read(model, &body, Some(request.len())).expect("it can be read").inputs
}

fn tensors() -> impl Strategy<Value = Vec<(&'static str, Tensor)>> {
    fn of<T: Clone + std::fmt::Debug + 'static>(
        name: &'static str,
        element: impl Strategy<Value = T> + 'static,
        data: fn(Vec<T>) -> Data,
    ) -> BoxedStrategy<(&'static str, Tensor)> {
        let dims = vec(0..4_usize, 0..4);
        let with_data = dims.prop_flat_map({
            let element = element.boxed();
            move |dims| {
                let elements = dims.iter().product::<usize>();
                (Just(dims), vec(element.clone(), elements))
            }
        });
        let tensor = move |(dims, elements): (Vec<usize>, Vec<T>)| {
            (name, Tensor::new(&dims, data(elements)).expect("it fits"))
        };
        with_data.prop_map(tensor).boxed()
    }
    (
        of("bool", any::<bool>(), Data::Bool),
        of("i8", any::<i8>(), Data::I8),
        of("i16", any::<i16>(), Data::I16),
        of("i32", any::<i32>(), Data::I32),
        of("i64", any::<i64>(), Data::I64),
        of("u16", any::<u16>(), Data::U16),
        of("u32", any::<u32>(), Data::U32),
        of("u64", any::<u64>(), Data::U64),
        of("f32", any::<f32>(), Data::F32),
        of("f64", any::<f64>(), Data::F64),
        of("bytes", any::<String>().prop_map(String::into_bytes), Data::Bytes),
    )
        .prop_map(|(a, b, c, d, e, f, g, h, i, j, k)| vec![a, b, c, d, e, f, g, h, i, j, k])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn tensors_come_back_as_they_went_in_either_form(tensors in tensors()) {
        for is_binary in [false, true] {
            let back = echoed("echo", &tensors, is_binary);
            prop_assert_eq!(back.len(), tensors.len());
            for (back, (name, tensor)) in back.iter().zip(&tensors) {
                prop_assert_eq!(&back.name, name);
                prop_assert_eq!(&back.tensor, tensor);
            }
        }
    }

    #[test]
    fn binary_data_comes_back_bit_by_bit(
        halves in vec(any::<u16>(), 0..20), bytes in vec(vec(any::<u8>(), 0..9), 0..9),
    ) {
        let halves: Vec<f16> = halves.into_iter().map(f16::from_bits).collect();
        let tensor = |data| Tensor::new(&[if let Data::F16(x) = &data { x.len() } else { bytes.len() }], data);
        let f16s = tensor(Data::F16(halves.clone())).unwrap();
        let strings = tensor(Data::Bytes(bytes.clone())).unwrap();
        let back = echoed("echo16", &[("f16", f16s), ("bytes", strings)], true);
        let Data::F16(got) = back[0].tensor.data() else { panic!("another type") };
        let bits = |x: &[f16]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(got), bits(&halves));
        prop_assert_eq!(back[1].tensor.data(), &Data::Bytes(bytes));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        body in vec(any::<u8>(), 0..200), json_bytes in proptest::option::of(0..220_usize),
    ) {
        for name in ["echo", "intent", "double"] {
            let _ = read(name, &body, json_bytes);
        }
    }

    #[test]
    fn almost_requests_are_read_without_a_panic(
        parts in vec(proptest::sample::select(PARTS), 0..24), json_bytes in 0..220_usize,
    ) {
        let body = parts.concat();
        for name in ["echo", "intent", "double"] {
            let _ = read(name, body.as_bytes(), None);
            let _ = read(name, body.as_bytes(), Some(json_bytes));
        }
    }

    #[test]
    fn text_comes_back_in_the_plain_form(text in any::<String>()) {
        let body = json!({ "text": text }).to_string();
        let decoded = read("intent", body.as_bytes(), None).expect("it is a request");
        let tensor = decoded.inputs[0].tensor.clone();
        prop_assert_eq!(tensor.data(), &Data::Bytes(vec![text.clone().into_bytes()]));
        let outputs = vec![Output { name: "answer".into(), content: Content::Plain, tensor }];
        let answer =
            Answer { model: "m".into(), version: "1".into(), outputs, cost: Cost::default() };
        let encoded = encode(&answer, None, &decoded.form).expect("it can be written");
        let json: serde_json::Value = serde_json::from_slice(&encoded.bytes).expect("JSON");
        prop_assert_eq!(json["answer"].as_str(), Some(text.as_str()));
    }
}

/// What requests are made of.
const PARTS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"inputs\"",
    "\"outputs\"",
    "\"parameters\"",
    "\"data\"",
    "\"shape\"",
    "\"datatype\"",
    "\"name\"",
    "\"FP32\"",
    "\"BYTES\"",
    "\"x\"",
    "\"text\"",
    "\"f32\"",
    "1",
    "-1",
    "1e400",
    "0.5",
    "null",
    "true",
    "\"\\ud800\"",
    "18446744073709551615",
    "{\"inputs\":[{\"name\":\"f32\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":",
    "\"binary_data_size\"",
];

fn input(datatype: &str, shape: &serde_json::Value, data: &serde_json::Value) -> Vec<u8> {
    let input = json!({"name": "x", "shape": shape, "datatype": datatype, "data": data});
    json!({ "inputs": [input] }).to_string().into_bytes()
}

#[test]
fn numbers_are_taken_at_the_ends_of_their_types_and_not_beyond() {
    for (datatype, taken, refused) in [
        ("INT8", json!([-128, 127]), json!([128])),
        ("INT16", json!([-32768, 32767]), json!([-32769])),
        ("INT32", json!([i32::MIN, i32::MAX]), json!([2_147_483_648_u64])),
        ("INT64", json!([i64::MIN, i64::MAX]), json!([u64::MAX])),
        ("UINT8", json!([0, 255]), json!([-1])),
        ("UINT16", json!([0, 65535]), json!([65536])),
        ("UINT32", json!([0, u32::MAX]), json!([4_294_967_296_u64])),
        ("UINT64", json!([0, u64::MAX]), json!([1.0])),
        ("FP32", json!([f32::MIN, 1, null]), json!([1e39])),
        ("FP64", json!([f64::MIN, 1, null]), json!([true])),
        ("BOOL", json!([true, false]), json!([1])),
        ("BYTES", json!(["", "é"]), json!([1])),
    ] {
        let length = taken.as_array().map_or(0, Vec::len);
        let result = read("echo", &input(datatype, &json!([length]), &taken), None);
        assert!(result.is_ok(), "{datatype}: {result:?}");
        let error = read("echo", &input(datatype, &json!([1]), &refused), None).unwrap_err();
        assert!(error.contains(datatype), "{datatype}: {error}");
    }
}

#[test]
fn data_may_be_flat_or_nested_as_its_shape() {
    let want = Tensor::new(&[1, 2, 2], Data::I32(vec![1, 2, 3, 4])).unwrap();
    for data in [json!([1, 2, 3, 4]), json!([[[1, 2], [3, 4]]])] {
        let decoded = read("echo", &input("INT32", &json!([1, 2, 2]), &data), None).unwrap();
        assert_eq!(decoded.inputs[0].tensor, want);
    }
    for data in [
        json!([[1, 2], [3, 4]]),
        json!([[[1, 2, 3, 4]]]),
        json!([[[1, 2], [3], [4]]]),
        json!([1, [2], 3, 4]),
        json!([[], 1]),
    ] {
        assert!(read("echo", &input("INT32", &json!([1, 2, 2]), &data), None).is_err(), "{data}");
    }
    let empty = read("echo", &input("INT32", &json!([2, 0]), &json!([[], []])), None).unwrap();
    assert_eq!(empty.inputs[0].tensor.shape().dims(), [2, 0]);
}

#[test]
fn plain_values_get_the_rank_that_the_model_has() {
    for (body, dims) in [
        (json!({"x": [1, 2, 3, 4]}), [1, 4]),
        (json!({"x": [[1, 2, 3, 4], [5, 6, 7, 8]]}), [2, 4]),
        (json!({"x": 1}), [1, 1]),
    ] {
        let decoded = read("double", body.to_string().as_bytes(), None).unwrap();
        assert_eq!(decoded.inputs[0].tensor.shape().dims(), dims);
    }
}

#[test]
fn options_are_read_in_both_forms() {
    let plain = json!({"text": "on", "id": "a", "k": 2, "budget": 0.25, "priority": "low",
                       "timeout": 1500, "parameters": {"unknown": [1, {"a": 2}]}});
    let protocol = json!({
        "id": "a",
        "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["on"]}],
        "parameters": {"k": 2, "budget": 0.25, "priority": 3, "timeout": 1500, "other": null},
        "unknown": {},
    });
    for body in [plain, protocol] {
        let decoded = read("intent", body.to_string().as_bytes(), None).unwrap();
        assert_eq!(decoded.id.as_deref(), Some("a"));
        assert_eq!((decoded.options.k, decoded.options.budget), (Some(2), Some(0.25)));
        assert_eq!(decoded.options.priority, Priority::Low);
        assert_eq!(decoded.timeout, Some(Duration::from_micros(1500)));
    }
}

#[test]
fn no_request_is_larger_than_the_limits() {
    let limits = Limits { elements_max: 3, strings_max: 2, string_bytes_max: 4, id_bytes_max: 2 };
    for (datatype, taken, refused) in [
        ("INT32", json!([1, 2, 3]), json!([1, 2, 3, 4])),
        ("BYTES", json!(["a", "b"]), json!(["a", "b", "c"])),
        ("BYTES", json!(["abcd"]), json!(["abcde"])),
    ] {
        for (data, is_taken) in [(taken, true), (refused, false)] {
            let length = data.as_array().map_or(0, Vec::len);
            let body = input(datatype, &json!([length]), &data);
            let result = decode(&body, None, &model("echo"), &limits);
            assert_eq!(result.is_ok(), is_taken, "{datatype} {data}: {result:?}");
        }
    }
    let many = json!({"inputs": vec![json!({}); 65]}).to_string();
    let error = read("echo", many.as_bytes(), None).unwrap_err();
    assert!(error.contains("more than 64"), "{error}");
    let many: serde_json::Map<_, _> = (0..200).map(|at| (at.to_string(), json!(1))).collect();
    let error = read("echo", json!(many).to_string().as_bytes(), None).unwrap_err();
    assert!(error.contains("more than 128 keys"), "{error}");
}

#[test]
fn numbers_that_are_not_finite_are_null_in_json() {
    let tensor = Tensor::new(&[3], Data::F32(vec![f32::NAN, f32::INFINITY, 0.1])).unwrap();
    let back = echoed("echo", &[("f32", tensor)], false);
    let Data::F32(values) = back[0].tensor.data() else { panic!("another type") };
    assert!(values[0].is_nan() && values[1].is_nan() && values[2] == 0.1);
}

#[test]
fn every_type_has_a_word() {
    let model = model("echo");
    let words: Vec<&str> =
        model.inputs.iter().map(|spec| moed::codec::datatype_word(spec.dtype)).collect();
    assert_eq!(words.len(), DTYPES.len());
    assert_eq!(
        words.join(" "),
        "BOOL INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 UINT64 FP16 FP32 \
                                 FP64 BYTES"
    );
}
