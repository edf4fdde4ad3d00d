//! Files that are no protobuf, or that decode to far more than they are.

use moed::engine::inspect::{Counts, InspectError, inspect, scan};
use moed::engine::limits::Limits;
use proptest::prelude::*;
use prost::Message;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto};

use super::{good, graph, node, refusal, subgraph, with_attribute};

/// A field of `number` that spans `content`.
fn span(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(u64::from(number) << 3 | 2, &mut bytes);
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend(content);
    bytes
}

/// `content` inside the messages that `path` leads through, the outermost first.
fn inside(path: &[u8], content: Vec<u8>) -> Vec<u8> {
    path.iter().rev().fold(content, |content, number| span(*number, &content))
}

#[track_caller]
fn check(expect: &str, bytes: &[u8]) {
    let error = inspect(bytes, &Limits::default()).expect_err("refused");
    let text = error.to_string();
    assert!(text.contains(expect), "`{expect}` is not in `{text}`");
}

#[test]
fn refuses_bytes_that_are_not_protobuf() {
    check("byte 1: a group", &[0x0b]);
    check("byte 1: a group", &[0x0c]);
    check("an unknown wire type", &[0x0e]);
    check("a field number is 0", &[0x00, 0x00]);
    check("a field number is too large", &[0xff, 0xff, 0xff, 0xff, 0x1f, 0x00]);
    check(
        "a number has more than ten bytes",
        &[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00][..],
    );
    check(
        "a number has more than 64 bits",
        &[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02][..],
    );
    check("byte 2: a number leads past the end", &[0x08, 0x80]);
    check("a number leads past the end", &[0x0d, 0, 0, 0]);
    check("a number leads past the end", &[0x09, 0, 0, 0, 0, 0, 0, 0]);
    check("a length leads past the end", &[0x12, 0x05, b'a']);
    let huge = [0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    check("a length leads past the end", &huge);
    // A node that is longer than the graph around it, but not than the file.
    check("a length leads past the end", &[0x3a, 0x02, 0x0a, 0x02, 0x08, 0x01]);
    check("a number where a message or a text belongs", &[0x38, 0x01]);
    check("not an ONNX model", &span(2, &[0xff]));
    check("a graph: missing", &[]);
}

#[test]
fn refuses_a_small_file_that_would_decode_to_a_large_one() {
    let limits = Limits { decode_overhead_bytes_max: 1 << 18, ..Limits::default() };
    const NODE: &[u8] = &[7, 1];
    const ATTRIBUTE: &[u8] = &[7, 1, 5];
    const TENSOR: &[u8] = &[7, 5];
    const VALUE: &[u8] = &[7, 11];
    let field = |path: &[u8], last: u8| [path, &[last][..]].concat();
    // Every field that repeats, and the way to it.
    let repeated = [
        field(&[], 8),
        field(&[], 14),
        field(&[7], 1),
        field(&[7], 5),
        field(&[7], 11),
        field(&[7], 12),
        field(&[7], 13),
        field(&[7], 14),
        field(&[7, 14], 2),
        field(NODE, 1),
        field(NODE, 2),
        field(NODE, 5),
        field(ATTRIBUTE, 8),
        field(ATTRIBUTE, 9),
        field(ATTRIBUTE, 10),
        field(ATTRIBUTE, 11),
        field(TENSOR, 1),
        field(TENSOR, 5),
        field(TENSOR, 6),
        field(TENSOR, 7),
        field(TENSOR, 11),
        field(TENSOR, 13),
        field(VALUE, 2).into_iter().chain([1, 2, 1]).collect(),
    ];
    for path in repeated {
        let (last, way) = path.split_last().expect("not empty");
        let many = inside(way, span(*last, &[]).repeat(40_000));
        let packed = inside(way, span(*last, &[0; 200_000]));
        let numbers = matches!((way, last), (ATTRIBUTE, 8) | (TENSOR, 1 | 5 | 7 | 11));
        match scan(if numbers { &packed } else { &many }, &limits) {
            Err(InspectError::OverLimit { what: "memory to decode it", .. }) => {}
            other => panic!("field {last} in {way:?}: {other:?}"),
        }
    }
}

#[test]
fn counts_what_is_in_subgraphs_too() {
    let mut model = good();
    let axis = AttributeProto { name: "axis".into(), i: 1, ..Default::default() };
    let inner = GraphProto {
        node: vec![with_attribute(node("Softmax", "", &["x"], &["t"]), axis)],
        ..Default::default()
    };
    graph(&mut model).node.push(subgraph(inner));
    let counts = scan(&model.encode_to_vec(), &Limits::default()).expect("good");
    let Counts { nodes, initializers, attributes, .. } = counts;
    assert_eq!((nodes, initializers, attributes), (4, 2, 2));
}

#[test]
fn refuses_one_more_than_each_limit_and_passes_the_limit() {
    let bytes = good().encode_to_vec();
    let counts = scan(&bytes, &Limits::default()).expect("good");
    type Lower = fn(&mut Limits) -> &mut u64;
    let limits: [(u64, Lower); 9] = [
        (bytes.len() as u64, |limits| &mut limits.model_bytes_max),
        (counts.fields, |limits| &mut limits.fields_max),
        (counts.nodes, |limits| &mut limits.nodes_max),
        (counts.initializers, |limits| &mut limits.initializers_max),
        (1, |limits| &mut limits.nesting_depth_max),
        (7, |limits| &mut limits.message_depth_max),
        (28, |limits| &mut limits.external_bytes_max),
        (1, |limits| &mut limits.external_files_max),
        (2, |limits| &mut limits.graph_ios_max),
    ];
    for (i, (exact, of)) in limits.into_iter().enumerate() {
        let mut lowered = Limits::default();
        *of(&mut lowered) = exact;
        assert!(inspect(&bytes, &lowered).is_ok(), "limit {i}: {:?}", inspect(&bytes, &lowered));
        *of(&mut lowered) = exact - 1;
        assert!(inspect(&bytes, &lowered).is_err(), "limit {i}");
    }
}

#[test]
fn refuses_graphs_nested_too_deep() {
    let nested = |levels: usize| {
        let mut model = good();
        for _ in 1..levels {
            let inner = GraphProto {
                node: std::mem::take(&mut graph(&mut model).node),
                output: vec![],
                ..Default::default()
            };
            graph(&mut model).node = vec![subgraph(inner)];
        }
        graph(&mut model).output[0].name = "z".into();
        model
    };
    // Seven levels below the first; the innermost still sees `x`, `b` and `w`.
    assert!(inspect(&nested(8).encode_to_vec(), &Limits::default()).is_ok());
    let text = refusal(&nested(9)).to_string();
    assert!(text.contains("depth of graphs: 9 is over the limit of 8"), "{text}");
    let limits =
        Limits { nesting_depth_max: u64::MAX, message_depth_max: u64::MAX, ..Limits::default() };
    let error = inspect(&nested(40).encode_to_vec(), &limits).expect_err("refused");
    let text = error.to_string();
    assert!(text.contains("depth of messages: 65 is over the limit of 64"), "{text}");
    let path: Vec<u8> = std::iter::once(7).chain([1, 5, 6].repeat(2_000)).collect();
    check("depth of graphs: 9", &inside(&path, Vec::new()));
}

#[test]
fn answers_every_truncation_and_every_flipped_bit() {
    let bytes = good().encode_to_vec();
    let (mut passed, mut refused) = (0, 0);
    let mut answer = |bytes: &[u8]| match inspect(bytes, &Limits::default()) {
        Ok(_) => passed += 1,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            refused += 1;
        }
    };
    for length in 0..bytes.len() {
        answer(&bytes[..length]);
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        answer(&flipped);
    }
    assert_eq!(passed + refused, bytes.len() * 9);
    assert!(refused > passed, "{refused} refused, {passed} passed");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = inspect(&bytes, &Limits::default());
    }

    #[test]
    fn random_bytes_never_panic_inside_messages(
        bytes in proptest::collection::vec(any::<u8>(), 0..128),
        path in prop::sample::select(vec![
            vec![7], vec![8], vec![7, 1], vec![7, 1, 5], vec![7, 5],
            vec![7, 11], vec![7, 11, 2, 1, 2], vec![7, 1, 5, 5], vec![7, 1, 5, 6],
        ]),
    ) {
        let mut model = good().encode_to_vec();
        model.extend(inside(&path, bytes));
        let _ = inspect(&model, &Limits::default());
    }

    #[test]
    fn damage_ends_in_an_answer(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = good().encode_to_vec();
        for (index, to) in flips {
            let at = index.index(bytes.len());
            bytes[at] = to;
        }
        let _ = inspect(&bytes, &Limits::default());
        bytes.truncate(length.index(bytes.len()));
        let _ = inspect(&bytes, &Limits::default());
    }

    /// Types that are right and numbers that are not: nearer to what an attacker would write.
    #[test]
    fn any_declaration_ends_in_an_answer(
        dims in proptest::collection::vec(any::<i64>(), 0..10),
        data_type in -1..30_i32,
        raw_data in proptest::collection::vec(any::<u8>(), 0..64),
        data_location in proptest::option::of(-1..3_i32),
        entries in proptest::collection::vec(("location|offset|length|x", "[0-9./a]{0,24}"), 0..4),
    ) {
        let mut model = good();
        let tensor = &mut graph(&mut model).initializer[1];
        tensor.dims = dims;
        tensor.data_type = data_type;
        tensor.raw_data = raw_data;
        tensor.data_location = data_location;
        tensor.external_data = entries
            .into_iter()
            .map(|(key, value)| tract_onnx::pb::StringStringEntryProto { key, value })
            .collect();
        if let Ok(passed) = inspect(&model.encode_to_vec(), &Limits::default()) {
            let sum: u64 = passed.externals.iter().map(|external| external.bytes).sum();
            prop_assert!(sum <= Limits::default().external_bytes_max);
        }
    }
}

#[test]
fn an_unnamed_node_goes_by_its_output() {
    let mut model = good();
    let gelu =
        NodeProto { name: String::new(), ..node("FusedGelu", "com.microsoft", &["x"], &["z"]) };
    graph(&mut model).node.push(gelu);
    assert!(refusal(&model).to_string().starts_with("node `z`: operator `FusedGelu`"));
}
