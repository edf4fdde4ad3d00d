//! The engine at its boundary: what a run may choose, what it reports, and what it costs.

use moed::engine::tract::{TractModel, load};
use moed::engine::{LayerReport, LoadOptions, Model as _, Run, RunOptions};
use moed::infer::RunError;
use moed::tensor::{Data, Tensor};

use crate::support::{edited, floats, load_fixture, relative_error, tensors};

/// Eight experts' worth of choices: 4 experts, k = 4, so every k can be asked for.
const ALL_EXPERTS: &str = "qmoe-8bit-block32-relu-k4-bias";
const TWO_LAYERS: &str = "qmoe-two-layers";

fn fixture(name: &str, threads: usize) -> (TractModel, Vec<Tensor>) {
    let model = load_fixture("operators", &format!("{name}.onnx"), threads)
        .unwrap_or_else(|error| panic!("{error}"));
    let tensors = tensors("operators", &format!("{name}.io.onnx"));
    let inputs = model.signature().inputs.iter().map(|port| {
        tensors.iter().find(|(name, _)| *name == port.name).expect("an input's tensor").1.clone()
    });
    let inputs = inputs.collect();
    (model, inputs)
}

fn run(model: &TractModel, inputs: &[Tensor], k: Option<usize>) -> Result<Run, RunError> {
    model.session().expect("a session opens").run(inputs, RunOptions { k })
}

#[test]
fn a_run_reports_the_experts_that_ran_and_the_bytes_that_it_read() {
    let (model, inputs) = fixture(ALL_EXPERTS, 1);
    let [layer] = model.layers() else { panic!("one layer") };
    let rows = inputs[0].shape().dims()[0] as u32;
    for k in 1..=layer.k {
        let run = run(&model, &inputs, Some(k)).expect("it runs");
        let [LayerReport { layer: 0, k: used, experts, weight_bytes_read }] =
            run.report.layers.as_slice()
        else {
            panic!("one report, not {:?}", run.report)
        };
        assert_eq!(*used, k);
        assert_eq!(experts.iter().map(|(_, rows)| rows).sum::<u32>(), rows * k as u32);
        assert!(experts.is_sorted_by_key(|(expert, _)| *expert));
        assert_eq!(*weight_bytes_read, experts.len() as u64 * layer.expert_bytes);
    }
}

#[test]
fn k_equal_to_the_nodes_own_changes_nothing() {
    let (model, inputs) = fixture(ALL_EXPERTS, 1);
    let own = run(&model, &inputs, None).expect("it runs");
    let same = run(&model, &inputs, Some(model.layers()[0].k)).expect("it runs");
    assert_eq!(own, same);
}

#[test]
fn k_out_of_range_is_refused_and_says_the_range() {
    let (model, inputs) = fixture(ALL_EXPERTS, 1);
    let k_max = model.layers()[0].k;
    for k in [0, k_max + 1, usize::MAX] {
        let error = run(&model, &inputs, Some(k)).expect_err("it is refused");
        assert_eq!(error, RunError::K { k, k_min: 1, k_max });
    }
}

#[test]
fn layers_report_in_the_order_of_the_graph_whichever_runs_first() {
    let order = |model: &TractModel, inputs: &[Tensor]| -> Vec<usize> {
        assert_eq!(model.layers().len(), 2);
        let run = run(model, inputs, None).expect("it runs");
        run.report.layers.iter().map(|layer| layer.layer).collect()
    };
    let (model, inputs) = fixture(TWO_LAYERS, 1);
    assert_eq!(order(&model, &inputs), [0, 1]);
    // Side by side, and the second one's output asked for first.
    let dir = tempfile::tempdir().expect("a directory");
    edited(ALL_EXPERTS, dir.path(), |graph| {
        let mut second = graph.node[0].clone();
        (second.name, second.output) = ("second".to_owned(), vec!["z".to_owned()]);
        graph.node.push(second);
        let mut output = graph.output[0].clone();
        output.name = "z".to_owned();
        graph.output.insert(0, output);
    });
    let model = load(dir.path(), "model.onnx", &LoadOptions::default()).expect("it loads");
    let (_, inputs) = fixture(ALL_EXPERTS, 1);
    assert_eq!(order(&model, &inputs), [0, 1]);
}

#[test]
fn a_session_gives_the_same_answer_every_time_and_for_any_number_of_rows() {
    let (model, inputs) = fixture(ALL_EXPERTS, 1);
    let mut session = model.session().expect("a session opens");
    let all = session.run(&inputs, RunOptions::default()).expect("it runs");
    assert_eq!(all, session.run(&inputs, RunOptions::default()).expect("it runs again"));
    let wanted = floats(&all.outputs[0]);
    let width = all.outputs[0].shape().dims()[1];
    for row in 0..inputs[0].shape().dims()[0] {
        let one: Vec<Tensor> = inputs.iter().map(|input| one_row(input, row)).collect();
        let run = session.run(&one, RunOptions::default()).expect("one row runs");
        let wanted = &wanted[row * width..(row + 1) * width];
        assert!(relative_error(&floats(&run.outputs[0]), wanted) < ONE_CODE);
    }
}

/// Many rows take another path through the kernel than one. Its sums differ in the last bit, and
/// that may round an inner activation to the neighbouring one of its 255 codes.
const ONE_CODE: f32 = 2e-2;

fn one_row(tensor: &Tensor, row: usize) -> Tensor {
    let width = tensor.shape().dims()[1];
    let data = floats(tensor)[row * width..(row + 1) * width].to_vec();
    Tensor::new(&[1, width], Data::F32(data)).expect("one row")
}

#[test]
fn rows_beyond_one_pass_give_what_single_rows_give() {
    let (model, inputs) = fixture(ALL_EXPERTS, 1);
    let mut session = model.session().expect("a session opens");
    let few = session.run(&inputs, RunOptions::default()).expect("it runs");
    let few = floats(&few.outputs[0]);
    // 1200 rows: more than the 512 of a pass.
    let repeats = 1200 / inputs[0].shape().dims()[0];
    let many: Vec<Tensor> = inputs
        .iter()
        .map(|input| {
            let [rows, width] = *input.shape().dims() else { panic!("rank 2") };
            let data = Data::F32(floats(input).repeat(repeats));
            Tensor::new(&[rows * repeats, width], data).expect("rows repeat")
        })
        .collect();
    let run = session.run(&many, RunOptions::default()).expect("it runs");
    assert!(relative_error(&floats(&run.outputs[0]), &few.repeat(repeats)) < ONE_CODE);
}

#[test]
fn inputs_that_do_not_fit_the_signature_are_refused_by_name() {
    let (model, inputs) = fixture(ALL_EXPERTS, 1);
    let mut session = model.session().expect("a session opens");
    let width = inputs[0].shape().dims()[1];
    let wrong = [
        Tensor::new(&[1, width + 1], Data::F32(vec![0.0; width + 1])),
        Tensor::new(&[width], Data::F32(vec![0.0; width])),
        Tensor::new(&[1, width], Data::I64(vec![0; width])),
    ];
    for wrong in wrong {
        let wrong = [wrong.expect("a tensor"), inputs[1].clone()];
        let error = session.run(&wrong, RunOptions::default()).expect_err("it is refused");
        assert!(matches!(&error, RunError::Input { input, .. } if input == "x"), "{error}");
    }
    let error = session.run(&inputs[..1], RunOptions::default()).expect_err("one is missing");
    assert!(error.to_string().contains("the model takes: x, router"), "{error}");
    let wrong = [inputs[0].clone(), one_row(&inputs[1], 0)];
    let error = session.run(&wrong, RunOptions::default()).expect_err("it is refused");
    assert_eq!(error.to_string(), "input `router`: dimension `rows` is 1 here and 4 in `x`");
    session.run(&inputs, RunOptions::default()).expect("the session still works");
}

/// `tensor` with its number `at` replaced.
fn with(tensor: &Tensor, at: usize, number: f32) -> Tensor {
    let mut numbers = floats(tensor);
    numbers[at] = number;
    Tensor::new(tensor.shape().dims(), Data::F32(numbers)).expect("a tensor")
}

#[test]
fn numbers_that_are_not_finite_are_refused_or_stay_so_and_never_become_others() {
    let bad = [f32::NAN, f32::INFINITY];
    // Of x, by every activation, with integers and without.
    for (name, numbers) in [
        (ALL_EXPERTS, &bad[..]),
        ("moe-relu-k4-bias", &bad),
        ("moe-silu-k4-bias", &bad),
        ("moe-gelu-k4-bias", &bad),
        ("moe-swiglu-fc3-alpha-beta-limit", &bad),
        ("qmoe-8bit-channel-relu-k4-bias", &bad),
        ("qmoe-4bit-channel-relu-k4-bias", &bad),
    ] {
        let (model, inputs) = fixture(name, 1);
        for &number in numbers {
            let mut wrong = inputs.clone();
            wrong[0] = with(&inputs[0], 3, number);
            if let Ok(run) = run(&model, &wrong, None) {
                let width = run.outputs[0].shape().dims()[1];
                let first_row = &floats(&run.outputs[0])[..width];
                assert!(
                    first_row.iter().any(|y| !y.is_finite()),
                    "{name}: {number}: {first_row:?}"
                );
            }
        }
    }
    // Of what chooses.
    for name in [ALL_EXPERTS, "moe-relu-k4-bias", "moegrouprouter-one-group"] {
        let (model, inputs) = fixture(name, 1);
        let mut wrong = inputs.clone();
        let router = wrong.len() - 1;
        wrong[router] = with(&inputs[router], 1, f32::NAN);
        let error = run(&model, &wrong, None).expect_err("no choice can be made by a NaN");
        assert!(error.to_string().contains("an infinity or a NaN"), "{name}: {error}");
    }
}

#[test]
fn a_run_that_fails_changes_nothing_for_the_next() {
    let (model, inputs) = fixture(ALL_EXPERTS, 1);
    let mut session = model.session().expect("a session opens");
    let one: Vec<Tensor> = inputs.iter().map(|input| one_row(input, 0)).collect();
    let wanted = session.run(&one, RunOptions::default()).expect("it runs");
    let wrong = [with(&inputs[0], 3, f32::NAN), inputs[1].clone()];
    for _ in 0..3 {
        session.run(&wrong, RunOptions::default()).expect_err("four rows, one of them wrong");
        assert_eq!(session.run(&one, RunOptions::default()).expect("one row runs"), wanted);
    }
    // A router with other rows than x, where the signature can't see it.
    let (model, inputs) = fixture("lfm2-int8-layer1", 1);
    let mut session = model.session().expect("a session opens");
    let wanted = session.run(&inputs, RunOptions::default()).expect("it runs");
    let [hidden, experts] =
        [2, 1].map(|axis| *inputs[2 - axis].shape().dims().last().expect("rank"));
    let x = Tensor::new(&[1, 3, hidden], Data::F32(vec![0.5; 3 * hidden])).expect("a tensor");
    let router = Tensor::new(&[2, experts], Data::F32(vec![0.5; 2 * experts])).expect("a tensor");
    session.run(&[x, router], RunOptions::default()).expect_err("two routers' rows for three");
    assert_eq!(session.run(&inputs, RunOptions::default()).expect("it runs"), wanted);
}

#[test]
fn no_rows_give_no_rows() {
    for name in [
        ALL_EXPERTS,
        "qmoe-4bit-channel-relu-k4-bias",
        "qmoe-2bit-channel-relu-k4-bias",
        "matmulnbits-8bit-block128-accuracy4",
        "matmulnbits-4bit-block16",
        "matmulnbits-4bit-block128",
        "matmulnbits-2bit-block32",
    ] {
        let (model, inputs) = fixture(name, 1);
        let none = inputs.iter().map(|input| {
            let width = input.shape().dims()[1];
            Tensor::new(&[0, width], Data::F32(Vec::new())).expect("an empty tensor")
        });
        let run = run(&model, &none.collect::<Vec<_>>(), None);
        let run = run.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(run.outputs[0].shape().elements(), 0, "{name}");
    }
}
