//! The simulated engine does what its behaviour says, behind the same trait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use moed::engine::sim::{Behaviour, Sim};
use moed::engine::{Backend, LoadOptions, RunOptions, Session};
use moed::infer::RunError;
use moed::tensor::{Data, Tensor};

fn session(behaviour: Behaviour) -> Box<dyn Session> {
    let sim: Box<dyn Backend> = Box::new(Sim::new(behaviour));
    let model = sim.load(Path::new("."), "none.onnx", &LoadOptions::default()).expect("it loads");
    model.session().expect("a session opens")
}

fn x(rows: usize) -> Tensor {
    Tensor::new(&[rows, 2], Data::F32(vec![1.0; rows * 2])).expect("a tensor")
}

#[test]
fn answers_in_the_shape_of_its_signature_after_its_delay() {
    let delay = Duration::from_millis(20);
    let behaviour = Behaviour { delay, allocation_bytes: 1 << 20, ..Behaviour::default() };
    let mut session = session(behaviour);
    let start = Instant::now();
    let run = session.run(&[x(5)], RunOptions::default()).expect("it runs");
    assert!(start.elapsed() >= delay);
    assert_eq!(run.outputs[0].shape().dims(), [5, 3]);
}

#[test]
fn fails_and_panics_when_told_to_and_only_then() {
    let behaviour = Behaviour { error_every: 2, panic_every: 3, ..Behaviour::default() };
    let mut session = session(behaviour);
    let mut outcomes = Vec::new();
    for _ in 0..6 {
        let run = || session.run(&[x(1)], RunOptions::default());
        outcomes.push(match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(_)) => "answer",
            Ok(Err(RunError::Model { .. })) => "error",
            Ok(Err(other)) => panic!("{other}"),
            Err(_) => "panic",
        });
    }
    assert_eq!(outcomes, ["answer", "error", "panic", "error", "answer", "panic"]);
}
