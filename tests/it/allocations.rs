//! What a request allocates in the engine: nothing in our operators and kernels, once their
//! buffers have grown.
//!
//! A run as a whole does allocate, and that is tract's: each of its nodes makes its output anew,
//! and the tensors that go in and come out belong to whoever asked. That number is only held
//! steady here; `benches/figures daemon` prints it.

use std::path::{Path, PathBuf};

use moed::bundle::{Bundle, Limits};
use moed::engine::{LoadOptions, Model as _, RunOptions, tract::load};

use crate::support::allocations::{Counting, allocations, allocations_of_operators};
use crate::support::data;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/intent")
}

#[test]
fn what_a_thread_allocates_is_counted() {
    let before = allocations();
    let text = std::hint::black_box(vec![1u8; 100]);
    let other = std::thread::spawn(|| std::hint::black_box(vec![1u8; 100])).join();
    assert!(allocations() > before, "{} and {} bytes", text.len(), other.unwrap().len());
}

#[test]
fn the_shipped_model_s_operators_allocate_nothing_per_run() {
    for (rows, threads) in [(1, 1), (1, 2), (12, 2), (32, 2)] {
        let (count, operators) = allocations_of_operators(&shipped(), "model.onnx", rows, threads);
        assert!(operators > 0, "it has operators of ours");
        assert_eq!(count, 0, "{rows} rows on {threads} threads");
    }
}

#[test]
fn no_operator_of_any_fixture_allocates_per_run() {
    let folder = data("operators");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder is there")
        .map(|file| file.expect("it can be listed").file_name().into_string().expect("text"))
        .filter(|name| name.ends_with(".onnx") && !name.ends_with(".io.onnx"))
        .collect();
    files.sort();
    assert!(files.len() > 400, "{} fixtures", files.len());
    let counted = files.iter().map(|file| (allocations_of_operators(&folder, file, 3, 1), file));
    let wrong: Vec<_> =
        counted.filter(|((count, operators), _)| *count > 0 || *operators == 0).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_run_allocates_the_same_each_time() {
    let bundle = Bundle::open(&shipped(), &Limits::default()).expect("a bundle");
    let model =
        load(bundle.dir(), &bundle.manifest().model, &LoadOptions::default()).expect("it loads");
    let mut session = model.session().expect("a session");
    let pipeline = bundle.pipeline(&model, None).expect("a pipeline");
    let golden = bundle.golden().and_then(|golden| golden.questions()).expect("questions");
    let question = golden.into_iter().next().expect("there is one");
    let prepared = pipeline.prepare(question, None).expect("it can be asked");
    let mut run = || {
        let before = allocations();
        session.run(&prepared.inputs, RunOptions::default()).expect("it runs");
        allocations() - before
    };
    run();
    let first = run();
    for _ in 0..20 {
        assert_eq!(run(), first, "of a run");
    }
}
