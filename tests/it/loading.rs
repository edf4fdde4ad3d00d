//! Loading: weights stay where they are, and whatever a file holds ends in an error or an answer.

use std::path::Path;

use moed::engine::limits::Limits;
use moed::engine::tract::load;
use moed::engine::{LoadError, LoadOptions, Model as _, RunOptions};
use moed::tensor::{Data, Tensor};
use prost::Message as _;
use tract_onnx::pb::tensor_proto::DataLocation;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{ModelProto, NodeProto, StringStringEntryProto, TensorProto};

use crate::support::{data, edited, floats, load_fixture, tensors};

const MODEL: &str = "qmoe-8bit-block32-relu-k4-bias";

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(data("operators").join(format!("{name}.onnx"))).expect("a fixture's file")
}

fn inputs(name: &str, model: &impl moed::engine::Model) -> Vec<Tensor> {
    let tensors = tensors("operators", &format!("{name}.io.onnx"));
    let ports = &model.signature().inputs;
    let find = |port: &str| tensors.iter().find(|(name, _)| name == port).map(|(_, t)| t.clone());
    ports.iter().map(|port| find(&port.name).expect("an input's tensor")).collect()
}

/// Writes the fixture into `dir` with all weights in `experts.bin`, `gap` bytes before each.
fn externalise(name: &str, dir: &Path, gap: usize) {
    let mut model = ModelProto::decode(bytes(name).as_slice()).expect("a fixture decodes");
    let mut weights = Vec::new();
    for proto in &mut model.graph.as_mut().expect("a graph").initializer {
        weights.resize(weights.len() + gap, 0xab);
        let entry = |key: &str, value: usize| StringStringEntryProto {
            key: key.to_owned(),
            value: value.to_string(),
        };
        proto.external_data = vec![
            StringStringEntryProto { key: "location".into(), value: "experts.bin".into() },
            entry("offset", weights.len()),
            entry("length", proto.raw_data.len()),
        ];
        weights.append(&mut proto.raw_data);
        proto.data_location = Some(DataLocation::External as i32);
    }
    std::fs::write(dir.join("model.onnx"), model.encode_to_vec()).expect("the model is written");
    std::fs::write(dir.join("experts.bin"), weights).expect("the weights are written");
}

fn answer(dir: &Path, file: &str, inputs: &[Tensor]) -> Result<Vec<f32>, String> {
    let model = load(dir, file, &LoadOptions::default()).map_err(|error| error.to_string())?;
    let mut session = model.session().map_err(|error| error.to_string())?;
    let run = session.run(inputs, RunOptions::default()).map_err(|error| error.to_string())?;
    Ok(floats(&run.outputs[0]))
}

#[test]
fn weights_outside_the_file_give_what_weights_inside_give_at_any_alignment() {
    for name in [MODEL, "qmoe-two-layers", "lfm2-f32-layer1", "lfm2-int4-layer1"] {
        let inside = load_fixture("operators", &format!("{name}.onnx"), 1).expect("it loads");
        let inputs = inputs(name, &inside);
        let wanted = answer(&data("operators"), &format!("{name}.onnx"), &inputs);
        for gap in [0, 1, 2, 4096] {
            let dir = tempfile::tempdir().expect("a directory");
            externalise(name, dir.path(), gap);
            assert_eq!(answer(dir.path(), "model.onnx", &inputs), wanted, "{name}, gap {gap}");
        }
    }
}

#[test]
fn weights_that_are_missing_or_cut_short_or_links_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    externalise(MODEL, dir.path(), 0);
    let load = || load(dir.path(), "model.onnx", &LoadOptions::default()).map(|_| ());
    let weights = dir.path().join("experts.bin");
    let full = std::fs::read(&weights).expect("the weights");

    std::fs::write(&weights, &full[..full.len() - 1]).expect("cut short");
    assert!(matches!(load(), Err(LoadError::Inspect { .. })));
    std::fs::write(&weights, b"").expect("emptied");
    load().expect_err("an empty file is refused");
    std::fs::rename(&weights, dir.path().join("elsewhere")).expect("renamed");
    load().expect_err("a missing file is refused");
    std::os::unix::fs::symlink("elsewhere", &weights).expect("linked");
    load().expect_err("a link is refused");
    std::fs::remove_file(&weights).expect("removed");
    std::fs::write(&weights, &full).expect("restored");
    load().expect("the whole file loads");
}

#[test]
fn a_missing_file_is_named() {
    let error =
        load_fixture("operators", "no-such-model.onnx", 1).map(|_| ()).expect_err("refused");
    assert!(error.to_string().starts_with("no-such-model.onnx: "), "{error}");
}

/// A model cut short, or with a bit flipped, at each of its first 64 bytes and at every 23rd of the
/// others: an error or an answer. Fuzzing (tests/fuzz) tries the rest.
#[test]
fn truncations_and_bit_flips_end_in_an_error_or_an_answer() {
    // Panics inside tract are caught; their texts would drown the test's own.
    std::panic::set_hook(Box::new(|_| {}));
    let dir = tempfile::tempdir().expect("a directory");
    let small = "qmoe-two-layers";
    let model = load_fixture("operators", &format!("{small}.onnx"), 1).expect("it loads");
    let inputs = inputs(small, &model);
    let whole = bytes(small);
    let step = if cfg!(target_arch = "x86_64") { 1 } else { 97 };
    let mut answers = 0;
    let mut trials = 0;
    let mut trial = |bytes: &[u8]| {
        std::fs::write(dir.path().join("model.onnx"), bytes).expect("the model is written");
        match answer(dir.path(), "model.onnx", &inputs) {
            Ok(_) => answers += 1,
            // What makes a run panic is to be found at load.
            Err(error) => assert!(!error.contains("internal error"), "{error}"),
        }
        trials += 1;
    };
    let structure: Vec<usize> = (0..whole.len()).filter(|i| i % 23 == 0 || *i < 64).collect();
    for &at in structure.iter().step_by(step) {
        trial(&whole[..at]);
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        trial(&flipped);
    }
    let _ = std::panic::take_hook();
    assert!(trials > 100, "{trials} trials");
    // Flips inside weights change numbers, not the format.
    assert!(answers > 0 && answers < trials, "{answers} of {trials}");
}

#[test]
fn experts_that_no_row_chooses_stay_out_of_memory() {
    const EXPERTS: usize = 64;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let kind = big_model::Kind::Experts { bits: 8, block: None, fusion: None };
    let model_bytes = big_model::write(dir.path(), kind, EXPERTS);
    // Out of the page cache, where they lie in pieces of up to 2 MiB that are mapped as a whole.
    let weights = std::fs::File::open(dir.path().join("experts.bin")).expect("the weights");
    weights.sync_all().expect("they are on the disk");
    rustix::fs::fadvise(&weights, 0, None, rustix::fs::Advice::DontNeed).expect("advice is taken");
    let before = anonymous_kib();
    let model = load(dir.path(), "model.onnx", &LoadOptions::default()).expect("it loads");
    let mut session = model.session().expect("a session opens");
    let mut router = vec![0.0; EXPERTS];
    (router[5], router[40]) = (9.0, 8.0);
    let inputs = [
        Tensor::new(&[1, big_model::HIDDEN], Data::F32(vec![0.5; big_model::HIDDEN])),
        Tensor::new(&[1, EXPERTS], Data::F32(router)),
    ]
    .map(|tensor| tensor.expect("a tensor"));
    let run = session.run(&inputs, RunOptions::default()).expect("it runs");
    assert_eq!(run.report.layers[0].experts, [(5, 1), (40, 1)]);
    let read = run.report.weight_bytes_read();
    assert!(read < model_bytes / 20, "{read} of {model_bytes} bytes");
    let resident = mapped_resident_bytes("experts.bin");
    // The kernel may map up to 2 MiB around each of the four places, as it lies in the page cache.
    assert!(resident < read + (8 << 20), "{resident} bytes resident, {read} read");
    assert!(resident < model_bytes / 4, "{resident} of {model_bytes} bytes resident");
    let grown = anonymous_kib().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB of anonymous memory for {model_bytes} bytes of weights");
}

/// Every kind of layer whose work is split, large enough to be worth it: the fixtures are not.
const WORTH_THREADS: [big_model::Kind; 6] = [
    big_model::Kind::Dense,
    big_model::Kind::Experts { bits: 8, block: None, fusion: None },
    big_model::Kind::Experts { bits: 8, block: Some(32), fusion: Some(1) },
    big_model::Kind::Experts { bits: 4, block: Some(32), fusion: Some(0) },
    big_model::Kind::Experts { bits: 4, block: None, fusion: Some(2) },
    big_model::Kind::Experts { bits: 2, block: Some(64), fusion: Some(1) },
];

fn big_inputs(kind: big_model::Kind, experts: usize) -> Vec<Tensor> {
    const ROWS: usize = 9;
    let floats_of = |width: usize| {
        let data = (0..ROWS * width).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        Tensor::new(&[ROWS, width], Data::F32(data)).expect("a tensor")
    };
    match kind {
        big_model::Kind::Dense => vec![floats_of(big_model::HIDDEN)],
        big_model::Kind::Experts { .. } => {
            vec![floats_of(big_model::HIDDEN), floats_of(experts)]
        }
    }
}

#[test]
fn threads_change_nothing_where_there_is_work_for_them() {
    for kind in WORTH_THREADS {
        let dir = tempfile::tempdir().expect("a directory");
        big_model::write(dir.path(), kind, 4);
        let inputs = big_inputs(kind, 4);
        let run = |threads| {
            let options = LoadOptions { threads, ..LoadOptions::default() };
            let model = load(dir.path(), "model.onnx", &options)
                .unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            let mut session = model.session().expect("a session opens");
            // Twice: the second run finds the buffers of the first.
            session.run(&inputs, RunOptions::default()).expect("it runs");
            session.run(&inputs, RunOptions::default()).expect("it runs again")
        };
        let alone = run(1);
        assert!(floats(&alone.outputs[0]).iter().any(|y| *y != 0.0));
        for threads in [2, 3, 5] {
            assert_eq!(run(threads), alone, "{kind:?}, {threads} threads");
        }
    }
}

#[test]
fn sessions_of_one_model_share_its_threads() {
    let kind = WORTH_THREADS[2];
    let dir = tempfile::tempdir().expect("a directory");
    big_model::write(dir.path(), kind, 4);
    let inputs = big_inputs(kind, 4);
    let options = LoadOptions { threads: 2, ..LoadOptions::default() };
    let model = load(dir.path(), "model.onnx", &options).expect("it loads");
    let run = || {
        let mut session = model.session().expect("a session opens");
        (0..5).map(|_| session.run(&inputs, RunOptions::default()).expect("it runs")).collect()
    };
    let wanted: Vec<_> = run();
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        for other in others {
            assert_eq!(other.join().expect("no panic"), wanted);
        }
    });
}

#[test]
fn a_model_can_not_name_what_moed_leaves_in_a_graph() {
    let dir = tempfile::tempdir().expect("a directory");
    edited(MODEL, dir.path(), |graph| {
        let mut node = graph.node[0].clone();
        (node.op_type, node.domain) = ("moed.Operator".to_owned(), String::new());
        node.output = vec!["z".to_owned()];
        graph.node.push(node);
    });
    let error = load(dir.path(), "model.onnx", &LoadOptions::default()).map(|_| ());
    let error = error.expect_err("it is refused").to_string();
    assert!(error.contains("no name of an operator"), "{error}");
}

#[test]
fn more_experts_than_the_limit_are_refused_by_their_node() {
    let limits = Limits { experts_max: 3, ..Limits::default() };
    let options = LoadOptions { limits, ..LoadOptions::default() };
    let error = load(&data("operators"), &format!("{MODEL}.onnx"), &options).map(|_| ());
    let error = error.expect_err("it is refused").to_string();
    assert!(error.contains("QMoE node") && error.contains("at most 3 are supported"), "{error}");
}

#[test]
fn external_data_that_can_not_be_mapped_is_limited() {
    let dir = tempfile::tempdir().expect("a directory");
    edited(MODEL, dir.path(), |graph| {
        let proto = TensorProto {
            name: "table".to_owned(),
            data_type: DataType::Float as i32,
            dims: vec![1 << 10, 16],
            data_location: Some(DataLocation::External as i32),
            external_data: vec![StringStringEntryProto {
                key: "location".to_owned(),
                value: "table.bin".to_owned(),
            }],
            ..TensorProto::default()
        };
        graph.initializer.push(proto);
        graph.node.push(NodeProto {
            op_type: "Neg".to_owned(),
            input: vec!["table".to_owned()],
            output: vec!["z".to_owned()],
            ..NodeProto::default()
        });
    });
    let table = std::fs::File::create(dir.path().join("table.bin")).expect("a file");
    table.set_len(64 << 10).expect("64 KiB");
    let load = |external_heap_bytes_max| {
        let limits = Limits { external_heap_bytes_max, ..Limits::default() };
        load(dir.path(), "model.onnx", &LoadOptions { limits, ..LoadOptions::default() })
            .map(|_| ())
    };
    load(64 << 10).expect("as much as is allowed");
    let error = load((64 << 10) - 1).expect_err("one byte more").to_string();
    assert!(error.contains("`table`") && error.contains("external data"), "{error}");
}

/// Anonymous memory of this process.
fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("RssAnon");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// Resident bytes of this process's mappings of files called `name`.
fn mapped_resident_bytes(name: &str) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
    let mut ours = false;
    let mut kib = 0;
    for line in maps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if !first.ends_with(':') {
            ours = line.ends_with(name);
        } else if ours && first == "Rss:" {
            kib += line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
        }
    }
    kib * 1024
}

/// A QMoE node with its experts outside: 50 MB of them.
mod big_model {
    use super::*;
    use tract_onnx::pb::attribute_proto::AttributeType;
    use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
    use tract_onnx::pb::type_proto::{Tensor as TensorType, Value};
    use tract_onnx::pb::{
        AttributeProto, GraphProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
    };

    pub const HIDDEN: usize = 512;
    const INTER: usize = 768;
    const DENSE: usize = 1000;

    #[derive(Debug, Clone, Copy)]
    pub enum Kind {
        /// A `MatMulNBits`, `HIDDEN` to `DENSE`.
        Dense,
        /// A `QMoE`; `fusion`: that of SwiGLU, else relu.
        Experts { bits: usize, block: Option<usize>, fusion: Option<i64> },
    }

    /// Writes `model.onnx` and `experts.bin`; returns the bytes of the latter.
    pub fn write(dir: &Path, kind: Kind, experts: usize) -> u64 {
        let mut weights = Vec::new();
        match kind {
            Kind::Dense => {
                let tensors = vec![
                    tensor(&mut weights, "b", DataType::Uint8, &[DENSE, HIDDEN / 32, 32]),
                    tensor(&mut weights, "scales", DataType::Float, &[DENSE, HIDDEN / 32]),
                ];
                let (k, n) = (HIDDEN as i64, DENSE as i64);
                let attributes = [("K", k), ("N", n), ("bits", 8), ("block_size", 32)];
                let node = node("MatMulNBits", &["x", "b", "scales"], &attributes);
                save(dir, node, tensors, vec![value("x", HIDDEN)], DENSE);
            }
            Kind::Experts { bits, block, fusion } => {
                let mut tensors = Vec::new();
                let mut projection = |name: &str, n: usize, k: usize| {
                    let codes = [experts, n, k * bits / 8];
                    tensors.push(tensor(&mut weights, name, DataType::Uint8, &codes));
                    let mut scales = vec![experts, n];
                    scales.extend(block.map(|block| k / block));
                    let name = format!("{name}_scales");
                    tensors.push(tensor(&mut weights, &name, DataType::Float, &scales));
                };
                let is_fused = matches!(fusion, Some(1 | 2));
                projection("fc1", if is_fused { 2 * INTER } else { INTER }, HIDDEN);
                projection("fc2", HIDDEN, INTER);
                let mut names = vec!["x", "router", "fc1", "fc1_scales", "", "fc2", "fc2_scales"];
                if fusion == Some(0) {
                    projection("fc3", INTER, HIDDEN);
                    names.extend(["", "fc3", "fc3_scales"]);
                }
                let mut attributes = vec![("k", 2), ("expert_weight_bits", bits as i64)];
                attributes.extend(block.map(|block| ("block_size", block as i64)));
                attributes.extend(fusion.map(|fusion| ("swiglu_fusion", fusion)));
                let mut node = node("QMoE", &names, &attributes);
                if fusion.is_some() {
                    node.attribute.push(AttributeProto {
                        name: "activation_type".to_owned(),
                        r#type: AttributeType::String as i32,
                        s: b"swiglu".to_vec(),
                        ..AttributeProto::default()
                    });
                }
                let inputs = vec![value("x", HIDDEN), value("router", experts)];
                save(dir, node, tensors, inputs, HIDDEN);
            }
        }
        std::fs::write(dir.join("experts.bin"), &weights).expect("the weights");
        weights.len() as u64
    }

    fn node(operator: &str, inputs: &[&str], attributes: &[(&str, i64)]) -> NodeProto {
        let int = |&(name, i): &(&str, i64)| AttributeProto {
            name: name.to_owned(),
            r#type: AttributeType::Int as i32,
            i,
            ..AttributeProto::default()
        };
        NodeProto {
            name: "big".to_owned(),
            op_type: operator.to_owned(),
            domain: "com.microsoft".to_owned(),
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec!["y".to_owned()],
            attribute: attributes.iter().map(int).collect(),
            ..NodeProto::default()
        }
    }

    fn save(
        dir: &Path,
        node: NodeProto,
        initializer: Vec<TensorProto>,
        input: Vec<ValueInfoProto>,
        width: usize,
    ) {
        let graph = GraphProto {
            name: "big".to_owned(),
            node: vec![node],
            initializer,
            input,
            output: vec![value("y", width)],
            ..GraphProto::default()
        };
        let set = |domain: &str, version| OperatorSetIdProto { domain: domain.to_owned(), version };
        let model = ModelProto {
            ir_version: 9,
            opset_import: vec![set("", 17), set("com.microsoft", 1)],
            graph: Some(graph),
            ..ModelProto::default()
        };
        std::fs::write(dir.join("model.onnx"), model.encode_to_vec()).expect("the model");
    }

    fn tensor(weights: &mut Vec<u8>, name: &str, kind: DataType, dims: &[usize]) -> TensorProto {
        weights.resize(weights.len().next_multiple_of(16 << 10), 0);
        let (offset, elements) = (weights.len(), dims.iter().product::<usize>());
        if kind == DataType::Float {
            weights.extend((0..elements).flat_map(|_| 0.01f32.to_le_bytes()));
        } else {
            weights.extend((0..elements).map(|i| (i % 251) as u8));
        }
        let entry =
            |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
        TensorProto {
            name: name.to_owned(),
            data_type: kind as i32,
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_location: Some(DataLocation::External as i32),
            external_data: vec![
                entry("location", "experts.bin".to_owned()),
                entry("offset", offset.to_string()),
                entry("length", (weights.len() - offset).to_string()),
            ],
            ..TensorProto::default()
        }
    }

    fn value(name: &str, width: usize) -> ValueInfoProto {
        let dim = |value| Dimension { value: Some(value), ..Dimension::default() };
        let rows = dim(dimension::Value::DimParam("rows".to_owned()));
        let width = dim(dimension::Value::DimValue(width as i64));
        let shape = Some(TensorShapeProto { dim: vec![rows, width] });
        let elem_type = DataType::Float as i32;
        let value = Some(Value::TensorType(TensorType { elem_type, shape }));
        let r#type = Some(TypeProto { value, ..TypeProto::default() });
        ValueInfoProto { name: name.to_owned(), r#type, ..ValueInfoProto::default() }
    }
}
