//! The engine at its boundary: what a run may choose, what it reports, and what it costs.

use std::sync::Arc;

use moed::engine::tract::TractModel;
use moed::engine::{LayerReport, Model as _, Run, RunOptions};
use moed::infer::RunError;
use moed::tensor::{Data, Tensor};

use crate::support::{floats, load_fixture, relative_error, tensors};

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
fn layers_report_in_the_order_in_which_they_run() {
    let (model, inputs) = fixture(TWO_LAYERS, 1);
    assert_eq!(model.layers().len(), 2);
    let run = run(&model, &inputs, None).expect("it runs");
    let order: Vec<_> = run.report.layers.iter().map(|layer| layer.layer).collect();
    assert_eq!(order, [0, 1]);
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
fn threads_change_nothing_but_the_time() {
    for name in [ALL_EXPERTS, TWO_LAYERS, "lfm2-int8-layer1", "lfm2-f32-layer1"] {
        let (one, inputs) = fixture(name, 1);
        let (three, _) = fixture(name, 3);
        let one = run(&one, &inputs, None).expect("it runs");
        assert_eq!(one, run(&three, &inputs, None).expect("it runs"), "{name}");
    }
}

#[test]
fn sessions_of_one_model_run_at_the_same_time() {
    let (model, inputs) = fixture(TWO_LAYERS, 2);
    let model = Arc::new(model);
    let wanted = run(&model, &inputs, None).expect("it runs");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut session = model.session().expect("a session opens");
                for _ in 0..20 {
                    let run = session.run(&inputs, RunOptions::default()).expect("it runs");
                    assert_eq!(run, wanted);
                }
            });
        }
    });
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

#[test]
fn numbers_that_are_not_finite_are_refused_never_turned_into_others() {
    let (model, inputs) = fixture(ALL_EXPERTS, 1);
    let mut session = model.session().expect("a session opens");
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = floats(&inputs[0]);
        x[3] = bad;
        let x = Tensor::new(inputs[0].shape().dims(), Data::F32(x)).expect("a tensor");
        let wrong = [x, inputs[1].clone()];
        let error = session.run(&wrong, RunOptions::default()).expect_err("it is refused");
        assert!(error.to_string().contains("infinity or a NaN"), "{error}");
    }
}

#[test]
fn no_rows_give_no_rows() {
    let (model, inputs) = fixture(ALL_EXPERTS, 1);
    let none = inputs.iter().map(|input| {
        let width = input.shape().dims()[1];
        Tensor::new(&[0, width], Data::F32(Vec::new())).expect("an empty tensor")
    });
    let run = run(&model, &none.collect::<Vec<_>>(), None).expect("it runs");
    assert_eq!(run.outputs[0].shape().elements(), 0);
}
