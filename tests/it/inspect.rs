//! Hostile models: each is refused with a reason, none panics, and a good one passes.
//!
//! Models are built here, from the same protobuf types, one fault at a time.

mod bytes;
mod files;

use moed::engine::inspect::{
    DataType, External, ExternalFault, InspectError, TensorFault, inspect,
};
use moed::engine::limits::Limits;
use prost::Message;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value as DimensionValue};
use tract_onnx::pb::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, StringStringEntryProto, TensorProto, TensorShapeProto, TrainingInfoProto,
    TypeProto, ValueInfoProto, tensor_proto::Segment, type_proto,
};

fn import(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: domain.into(), version }
}

fn value(name: &str, dims: Vec<DimensionValue>) -> ValueInfoProto {
    let dim = dims
        .into_iter()
        .map(|value| Dimension { value: Some(value), ..Default::default() })
        .collect();
    let of = type_proto::Tensor {
        elem_type: DataType::Float as i32,
        shape: Some(TensorShapeProto { dim }),
    };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(of)), ..Default::default() };
    ValueInfoProto { name: name.into(), r#type: Some(r#type), ..Default::default() }
}

fn batch() -> DimensionValue {
    DimensionValue::DimParam("batch".into())
}

fn tensor(name: &str, dims: &[i64], data_type: DataType, raw_bytes: usize) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: data_type as i32,
        raw_data: vec![0; raw_bytes],
        ..Default::default()
    }
}

fn external(name: &str, dims: &[i64], entries: &[(&str, &str)]) -> TensorProto {
    let external_data = entries
        .iter()
        .map(|(key, value)| StringStringEntryProto { key: (*key).into(), value: (*value).into() })
        .collect();
    let data_location = Some(1);
    TensorProto { external_data, data_location, ..tensor(name, dims, DataType::Int8, 0) }
}

fn node(operator: &str, domain: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        name: format!("n_{}", outputs.join("_")),
        op_type: operator.into(),
        domain: domain.into(),
        input: inputs.iter().map(|name| (*name).into()).collect(),
        output: outputs.iter().map(|name| (*name).into()).collect(),
        ..Default::default()
    }
}

fn with_attribute(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(attribute);
    node
}

/// An `Add` and a `MatMul` over one inline and one external initializer.
fn good() -> ModelProto {
    ModelProto {
        ir_version: 8,
        opset_import: vec![import("", 17), import("com.microsoft", 1)],
        producer_name: "test".into(),
        graph: Some(GraphProto {
            name: "g".into(),
            node: vec![
                node("Add", "", &["x", "b"], &["s"]),
                node("MatMul", "ai.onnx", &["s", "w"], &["y"]),
            ],
            initializer: vec![
                tensor("b", &[3], DataType::Float, 12),
                external("w", &[3, 4], &[("location", "w.bin"), ("offset", "16")]),
            ],
            input: vec![value("x", vec![batch(), DimensionValue::DimValue(3)])],
            output: vec![value("y", vec![batch(), DimensionValue::DimValue(4)])],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().expect("built with a graph")
}

fn refusal(model: &ModelProto) -> InspectError {
    match inspect(&model.encode_to_vec(), &Limits::default()) {
        Err(error) => error,
        Ok(passed) => panic!("passed: {:?}", passed.summary),
    }
}

/// Checks that the good model is refused after `spoil`, with a text that has `expect` in it.
#[track_caller]
fn check(expect: &str, spoil: impl FnOnce(&mut ModelProto)) {
    let mut model = good();
    spoil(&mut model);
    let text = refusal(&model).to_string();
    assert!(text.contains(expect), "`{expect}` is not in `{text}`");
    assert!(!text.contains('/') && !text.contains('\n'), "a path or a line end: `{text}`");
}

/// The same for the good model with its inline initializer in place of `b`.
#[track_caller]
fn check_tensor(expect: &str, b: TensorProto) {
    check(expect, |model| graph(model).initializer[0] = TensorProto { name: "b".into(), ..b });
}

#[track_caller]
fn check_external(expect: &str, entries: &[(&str, &str)]) {
    let w = external("w", &[3, 4], entries);
    check(expect, |model| graph(model).initializer[1] = w);
}

fn subgraph(inner: GraphProto) -> NodeProto {
    let g = AttributeProto {
        name: "then_branch".into(),
        r#type: 5,
        g: Some(inner),
        ..Default::default()
    };
    with_attribute(node("If", "", &["x"], &["z"]), g)
}

#[test]
fn passes_a_good_model_and_sums_it_up() {
    let model = good();
    let passed = inspect(&model.encode_to_vec(), &Limits::default()).expect("good");
    assert_eq!(passed.model, model);
    let of = |domain: &str, operator: &str| (domain.to_owned(), operator.to_owned());
    assert_eq!(passed.summary.operators, [(of("", "Add"), 1), (of("", "MatMul"), 1)].into());
    assert_eq!((passed.summary.nodes, passed.summary.initializers), (2, 2));
    assert_eq!((passed.summary.inline_bytes, passed.summary.external_bytes), (12, 12));
    let w = External {
        initializer: "w".into(),
        location: "w.bin".into(),
        offset: 16,
        bytes: 12,
        elements: 12,
        data_type: DataType::Int8,
        dims: vec![3, 4],
    };
    assert_eq!(w.check_within(28), Ok(()));
    let fault = ExternalFault::Short { needed: 28, present: 27 };
    let tensor = "initializer `w`".to_owned();
    assert_eq!(w.check_within(27), Err(InspectError::External { tensor, fault }));
    assert_eq!(passed.externals, [w]);
}

#[test]
fn passes_what_exporters_write() {
    let passes = |change: fn(&mut ModelProto)| {
        let mut model = good();
        change(&mut model);
        inspect(&model.encode_to_vec(), &Limits::default()).map(|passed| passed.summary)
    };
    // Initializers listed as inputs, a dimension of -1, an expression, a scalar, an empty tensor,
    // typed data, an operator of com.microsoft, a subgraph that captures.
    let changes: [fn(&mut ModelProto); 8] = [
        |model| graph(model).input.push(value("b", vec![])),
        |model| graph(model).input[0] = value("x", vec![DimensionValue::DimValue(-1)]),
        |model| {
            let text = "floor((height - 1)/2) + max(1, s_0.x)";
            graph(model).input[0] = value("x", vec![DimensionValue::DimParam(text.into())]);
        },
        |model| graph(model).initializer.push(tensor("c", &[], DataType::Float, 4)),
        |model| graph(model).initializer.push(tensor("c", &[0, 4], DataType::Int64, 0)),
        |model| {
            graph(model).initializer[0].raw_data = vec![];
            graph(model).initializer[0].float_data = vec![1.0, 2.0, 3.0];
        },
        |model| {
            let moe = node("QMoE", "com.microsoft", &["x", "", "w"], &["", "m"]);
            graph(model).node.push(moe);
        },
        |model| {
            let inner = GraphProto {
                node: vec![node("Identity", "", &["s"], &["t"])],
                output: vec![ValueInfoProto { name: "t".into(), ..Default::default() }],
                ..Default::default()
            };
            graph(model).node.push(subgraph(inner));
        },
    ];
    for (i, change) in changes.into_iter().enumerate() {
        assert!(passes(change).is_ok(), "change {i}: {:?}", passes(change));
    }
}

#[test]
fn refuses_a_tensor_whose_dims_overflow() {
    let of = |dims: &[i64]| tensor("b", dims, DataType::Float, 12);
    for dims in [&[1 << 32, 1 << 32][..], &[(1 << 62) + 1, 4], &[i64::MAX; 8], &[0, 1 << 62, 4]] {
        check_tensor("more than 2147483648 elements", of(dims));
    }
    check_tensor("initializer `b`: dims [3, -1]: a dimension is negative", of(&[3, -1]));
    check_tensor("initializer `b`: rank 9: over the limit of 8", of(&[1; 9]));
    let fault = TensorFault::Rank { rank: 9, limit: 8 };
    let mut model = good();
    graph(&mut model).initializer[0] = of(&[1; 9]);
    assert_eq!(refusal(&model), InspectError::Tensor { tensor: "initializer `b`".into(), fault });
}

#[test]
fn refuses_a_tensor_whose_data_is_not_what_it_declares() {
    let of = |data_type| tensor("b", &[3], data_type, 0);
    let raw = |data_type, bytes| tensor("b", &[3], data_type, bytes);
    check_tensor("data: 11 bytes where 12 are declared", raw(DataType::Float, 11));
    check_tensor("data: 12 bytes where 6 are declared", raw(DataType::Float16, 12));
    check_tensor("data: 0 bytes where 24 are declared", raw(DataType::Int64, 0));
    check_tensor("data type bfloat16: not supported", raw(DataType::Bfloat16, 6));
    check_tensor("data type int4: not supported", raw(DataType::Int4, 2));
    check_tensor("data type undefined", raw(DataType::Undefined, 0));
    check_tensor("data type 99", TensorProto { data_type: 99, ..of(DataType::Float) });
    check_tensor("in `raw_data`: not where strings belong", raw(DataType::String, 3));
    let typed = TensorProto { float_data: vec![0.0; 2], ..of(DataType::Float) };
    check_tensor("2 elements where 3 are declared", typed);
    let wrong = TensorProto { float_data: vec![0.0; 3], ..of(DataType::Int8) };
    check_tensor("in `float_data`: not where elements of this type belong", wrong);
    // tract looks for these in other fields than the specification says, and finds none.
    let unsigned = TensorProto { uint64_data: vec![0; 3], ..of(DataType::Uint32) };
    check_tensor("in `uint64_data`: not where elements of this type belong", unsigned);
    let both = TensorProto { int32_data: vec![0; 3], ..raw(DataType::Int8, 3) };
    check_tensor("in `int32_data`: a second field with data", both);
    let text = |text: &[u8]| TensorProto {
        string_data: vec![text.to_vec(), vec![], vec![]],
        ..of(DataType::String)
    };
    check_tensor("a string is not UTF-8", text(&[0xff]));
    let segment = Some(Segment { begin: 0, end: 1 });
    check_tensor("segment: not supported", TensorProto { segment, ..raw(DataType::Float, 12) });
    let elsewhere = TensorProto { data_location: Some(7), ..raw(DataType::Float, 12) };
    check_tensor("data location 7", elsewhere);
    let inside = TensorProto { data_location: Some(0), ..external("b", &[3], &[("offset", "0")]) };
    check_tensor("in `external_data`: there, but the data location is not EXTERNAL", inside);
}

#[test]
fn refuses_external_data_that_is_not_plainly_described() {
    let at = ("location", "w.bin");
    for (location, cause) in [
        ("", "empty"),
        ("/etc/shadow", "an absolute path"),
        ("../w.bin", "a part that is empty"),
        ("a/../../w.bin", "a part that is empty"),
        ("a//w.bin", "a part that is empty"),
        ("a/", "a part that is empty"),
        ("./w.bin", "a part that is empty"),
        ("..", "a part that is empty"),
        ("a\\w.bin", "a backslash"),
        ("w.bin\0", "a control character"),
        ("w\n.bin", "a control character"),
    ] {
        check_external(&format!("external data: location: {cause}"), &[("location", location)]);
    }
    check_external("location: missing", &[("offset", "0")]);
    check_external("key `location`: given twice", &[at, at]);
    check_external("key `length`: given twice", &[at, ("length", "12"), ("length", "12")]);
    check_external("key `mode`: not known", &[at, ("mode", "x")]);
    for wrong in ["", "-1", "+1", " 1", "1 ", "0x10", "1.0", "18446744073709551616"] {
        check_external("offset: no whole number of 64 bits", &[at, ("offset", wrong)]);
        check_external("length: no whole number of 64 bits", &[at, ("length", wrong)]);
    }
    check_external("length: 13 where the dims need 12", &[at, ("length", "13")]);
    check_external("the data would end past", &[at, ("offset", "18446744073709551610")]);
    check_external("the data would end past", &[at, ("offset", "4294967290")]);
}

#[test]
fn refuses_external_data_where_it_may_not_be() {
    let w = || external("w", &[3, 4], &[("location", "w.bin")]);
    check("in `raw_data`: there beside external data", |model| {
        graph(model).initializer[1] = TensorProto { raw_data: vec![0; 12], ..w() };
    });
    check("strings cannot lie outside", |model| {
        graph(model).initializer[1] = TensorProto { data_type: DataType::String as i32, ..w() };
    });
    check("node `n_c`: attribute `value`: external data: only initializers", |model| {
        let attribute =
            AttributeProto { name: "value".into(), r#type: 4, t: Some(w()), ..Default::default() };
        graph(model).node.push(with_attribute(node("Constant", "", &[], &["c"]), attribute));
    });
    check("initializer `w`: external data: only initializers", |model| {
        let inner = GraphProto { initializer: vec![w()], ..Default::default() };
        graph(model).node.push(subgraph(inner));
    });
    // Tensors may share bytes of a file, but whoever copies them pays for each.
    check("bytes of external data: 4831838208 is over the limit", |model| {
        for i in 0..9 {
            let dims = [1 << 29];
            let shared = external(&format!("w{i}"), &dims, &[("location", "w.bin")]);
            graph(model).initializer.push(shared);
        }
        graph(model).initializer.remove(1);
        graph(model).node.pop();
        graph(model).output[0].name = "s".into();
    });
    check("files of external data: 1025 is over the limit", |model| {
        for i in 0..1024 {
            let file = format!("w{i}.bin");
            let tensor = external(&format!("w{i}"), &[1], &[("location", file.as_str())]);
            graph(model).initializer.push(tensor);
        }
    });
}

#[test]
fn refuses_operators_and_domains_that_are_not_known() {
    let spoil = |operator: &'static str, domain: &'static str| {
        move |model: &mut ModelProto| {
            graph(model).node.push(node(operator, domain, &["x"], &["z"]));
        }
    };
    check("operator `Attention` of domain `com.microsoft`", spoil("Attention", "com.microsoft"));
    check("not implemented", spoil("FusedMatMul", "com.microsoft"));
    for operator in ["MoE", "QMoE", "MatMulNBits", "MoEGroupRouter"] {
        check("only known in the domain `com.microsoft`", spoil(operator, ""));
    }
    check("only known since version 23", spoil("Attention", ""));
    check("the domain is not known", spoil("Add", "evil.example"));
    check("imports no operator set of that domain", spoil("Scaler", "ai.onnx.ml"));
    check("no name of an operator", spoil("Add(", ""));
    check("no name of an operator", spoil("", ""));
    for (domain, version, cause) in [
        ("ai.onnx", 17, "imported twice"),
        ("evil.example", 1, "operator set `evil.example`: version 1: the domain is not known"),
        ("ai.onnx.ml", 6, "only versions 1 to 5"),
        ("ai.onnx.ml", 0, "only versions 1 to 5"),
    ] {
        check(cause, |model| model.opset_import.push(import(domain, version)));
    }
    for version in [i64::MIN, 6, 25] {
        check("only versions 7 to 24", |model| model.opset_import[0].version = version);
    }
    check("only versions 1 to 1", |model| model.opset_import[1].version = 2);
    check("imports no operator set", |model| model.opset_import.clear());
}

#[test]
fn refuses_parts_of_onnx_that_it_does_not_run() {
    check("functions inside the model: not supported; inline them", |model| {
        model.functions.push(FunctionProto::default());
    });
    check("training information", |model| {
        model.training_info.push(TrainingInfoProto::default());
    });
    check("a sparse tensor", |model| {
        graph(model).sparse_initializer.push(SparseTensorProto::default());
    });
    let attribute = |name: &str| AttributeProto { name: name.into(), ..Default::default() };
    let spoil = |attribute: AttributeProto| {
        move |model: &mut ModelProto| graph(model).node[0].attribute.push(attribute)
    };
    let sparse = SparseTensorProto::default();
    check(
        "a sparse tensor",
        spoil(AttributeProto { sparse_tensor: Some(sparse), ..attribute("a") }),
    );
    let types = vec![TypeProto::default()];
    check("an attribute of types", spoil(AttributeProto { type_protos: types, ..attribute("a") }));
    let reference = AttributeProto { ref_attr_name: "r".into(), ..attribute("a") };
    check("node `n_s`: attribute `a`: refers to", spoil(reference));
    let strides = AttributeProto { ints: vec![1, 0], ..attribute("strides") };
    check("attribute `strides`: must be at least 1", spoil(strides));
    let perm = AttributeProto { ints: vec![1, -9], ..attribute("perm") };
    check("attribute `perm`: an axis that no tensor has", spoil(perm));
    let axis = AttributeProto { i: i64::MIN, ..attribute("axis") };
    check("attribute `axis`: an axis that no tensor has", spoil(axis));
    check(
        "attribute `group`: must be at least 1",
        spoil(AttributeProto { i: 0, ..attribute("group") }),
    );
}

#[test]
fn refuses_names_that_are_wrong_twice_there_or_nowhere() {
    check("initializer: name `b\\u{7}`: a control character", |model| {
        graph(model).initializer[0].name = "b\u{7}".into();
    });
    check("node: name `\\n`: a control character", |model| graph(model).node[0].name = "\n".into());
    check("producer: name", |model| model.producer_name = "\u{1b}[2J".into());
    check("bytes of a name: 1025 is over the limit of 1024", |model| {
        graph(model).node[0].name = "n".repeat(1025);
    });
    check("initializer: `b`: named twice", |model| {
        let b = graph(model).initializer[0].clone();
        graph(model).initializer.push(b);
    });
    check("node output: `s`: named twice", |model| {
        graph(model).node.push(node("Relu", "", &["x"], &["s"]));
    });
    check("node output: `x`: named twice", |model| graph(model).node[0].output[0] = "x".into());
    check("node output: `b`: named twice", |model| graph(model).node[0].output[0] = "b".into());
    check("graph input: `x`: named twice", |model| {
        let x = graph(model).input[0].clone();
        graph(model).input.push(x);
    });
    check("graph output: `z`: nothing in the model makes it", |model| {
        graph(model).output[0].name = "z".into();
    });
    check("node input: `q`: nothing in the model makes it", |model| {
        graph(model).node[0].input[0] = "q".into();
    });
    check("graph output: `s`: nothing", |model| {
        let output = vec![ValueInfoProto { name: "s".into(), ..Default::default() }];
        graph(model).node.push(subgraph(GraphProto { output, ..Default::default() }));
    });
    check("attribute: `a`: named twice", |model| {
        let attribute = AttributeProto { name: "a".into(), ..Default::default() };
        graph(model).node[0].attribute = vec![attribute.clone(), attribute];
    });
}

#[test]
fn refuses_a_graph_without_inputs_or_outputs_or_with_too_many() {
    check("model: a graph: missing", |model| model.graph = None);
    check("model: an output: missing", |model| graph(model).output.clear());
    check("model: an input: missing", |model| {
        graph(model).input.clear();
        graph(model).initializer.push(tensor("x", &[3], DataType::Float, 12));
    });
    check("graph inputs and outputs: 257 is over the limit of 256", |model| {
        for i in 0..255 {
            graph(model).input.push(value(&format!("x{i}"), vec![batch()]));
        }
    });
    check("value `x`: no tensor type", |model| graph(model).input[0].r#type = None);
    let spoil = |dims: Vec<DimensionValue>| {
        move |model: &mut ModelProto| graph(model).value_info.push(value("s", dims))
    };
    let size = DimensionValue::DimValue;
    check("value `s`: more dimensions", spoil(vec![size(1); 9]));
    check("value `s`: more elements", spoil(vec![size(1 << 62), size(1 << 62)]));
    let param = |text: &str| vec![DimensionValue::DimParam(text.into())];
    check("bytes of a symbolic dimension: 5000 is over", spoil(param(&"(".repeat(5000))));
    check("nests too deep", spoil(param(&"(".repeat(9))));
    check("printable ASCII", spoil(param("b\u{e4}tch")));
}
