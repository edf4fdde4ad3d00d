//! Bundles made of ONNX files.

use std::fs;
use std::path::{Path, PathBuf};

use moed::bundle::{Bundle, BundleError, Golden, Limits, Recipe, Version, write};
use moed::engine::inspect::inspect;
use moed::engine::limits::Limits as EngineLimits;
use moed::engine::tract::{Tract, load};
use moed::engine::{LoadOptions, Model as _, RunOptions};
use moed::tensor::Tensor;

use crate::support::{data, tensors};

fn recipe(model: PathBuf) -> Recipe {
    Recipe {
        model,
        name: "made".to_owned(),
        version: Version { major: 0, minor: 1, patch: 0 },
        licence: "MIT \"or\" Apache-2.0".to_owned(),
        provenance: "tests/data\nsecond line".to_owned(),
        seed: 1,
    }
}

fn write_to(dir: &Path, model: PathBuf) -> Result<Bundle, BundleError> {
    write(&recipe(model), &dir.join("made"), &Tract, &Limits::default())
}

fn operator(name: &str) -> PathBuf {
    data("operators").join(format!("{name}.onnx"))
}

fn answers(dir: &Path, file: &str, inputs: &[Tensor]) -> Vec<Tensor> {
    let model = load(dir, file, &LoadOptions::default()).expect("it loads");
    let mut session = model.session().expect("a session opens");
    session.run(inputs, RunOptions::default()).expect("it runs").outputs
}

#[test]
fn any_onnx_file_becomes_a_bundle_that_opens_verifies_and_gives_its_golden_answers_again() {
    for name in ["qmoe-two-layers", "lfm2-int8-layer1", "matmulnbits-8bit-block32"] {
        let dir = tempfile::tempdir().expect("a directory");
        let bundle = write_to(dir.path(), operator(name)).expect(name);
        bundle.verify().expect("it is whole");
        let manifest = bundle.manifest();
        assert_eq!((manifest.name.as_str(), manifest.task.word()), ("made", "tensor"));
        assert_eq!(manifest.licence, "MIT \"or\" Apache-2.0");
        assert_eq!(manifest.provenance, "tests/data\nsecond line");
        assert_eq!(manifest.k.is_some(), name != "matmulnbits-8bit-block32");
        let golden = bundle.golden().expect("golden answers");
        assert!(golden.cases() >= 1, "one for each size of what is open");
        let model = load(bundle.dir(), "model.onnx", &LoadOptions::default()).expect("it loads");
        let pipeline = bundle.pipeline(&model, None).expect("a pipeline");
        let mut session = model.session().expect("a session opens");
        let reproduced = golden.check(&pipeline, session.as_mut()).expect("reproduced");
        assert!(reproduced.error_max < 0.01, "{name}: {reproduced:?}");
        let left: Vec<_> = fs::read_dir(dir.path()).expect("a directory").collect();
        assert_eq!(left.len(), 1, "only the bundle");
    }
}

#[test]
fn weights_lie_outside_at_the_beginnings_of_pages_and_give_the_same_answers() {
    let name = "lfm2-int8-layer1";
    let dir = tempfile::tempdir().expect("a directory");
    let bundle = write_to(dir.path(), operator(name)).expect("a bundle");
    let weights = bundle.manifest().file("experts.bin").expect("a file of weights").bytes;
    assert_eq!(weights, 16 << 10, "the one tensor that is large enough");
    let io = tensors("operators", &format!("{name}.io.onnx"));
    let model = load(&data("operators"), &format!("{name}.onnx"), &LoadOptions::default());
    let model = model.expect("it loads");
    let of = |port: &str| io.iter().find(|(name, _)| name == port).expect("an input").1.clone();
    let inputs: Vec<_> = model.signature().inputs.iter().map(|port| of(&port.name)).collect();
    let wanted = answers(&data("operators"), &format!("{name}.onnx"), &inputs);
    assert!(answers(bundle.dir(), "model.onnx", &inputs) == wanted);

    // Again, of a model whose weights lie outside already.
    let again = tempfile::tempdir().expect("a directory");
    let second = write_to(again.path(), bundle.dir().join("model.onnx")).expect("a bundle");
    let hash = |bundle: &Bundle, file| bundle.manifest().file(file).expect("a file").sha256;
    for file in ["experts.bin", "model.onnx"] {
        assert_eq!(hash(&second, file), hash(&bundle, file), "{file}");
    }
}

/// Pages of 4 KiB and, on a Raspberry Pi 5, of 16 KiB: who reads a tensor brings no other into memory.
#[test]
fn tensors_outside_share_no_page_on_any_board() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = write_to(dir.path(), operator("lfm2-int8-layer1")).expect("a bundle");
    for bundle in [made.dir(), Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/models/intent"))] {
        let model = fs::read(bundle.join("model.onnx")).expect("the model");
        let inspected = inspect(&model, &EngineLimits::default()).expect("it passes");
        assert!(!inspected.externals.is_empty(), "{}", bundle.display());
        for page_bytes in [4 << 10, 16 << 10] {
            let mut free = 0;
            for tensor in &inspected.externals {
                let (first, end) = (tensor.offset / page_bytes, tensor.offset + tensor.bytes);
                assert_eq!(tensor.offset % page_bytes, 0, "{}", tensor.initializer);
                assert!(first >= free, "{} of {page_bytes} bytes", tensor.initializer);
                free = end.div_ceil(page_bytes);
            }
        }
    }
}

#[test]
fn what_can_not_be_a_bundle_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = operator("qmoe-two-layers");
    let refused = |recipe: &Recipe, to: &str, wanted: &str| {
        let error = write(recipe, &dir.path().join(to), &Tract, &Limits::default());
        let error = error.map(|_| ()).expect_err(wanted).to_string();
        assert!(error.contains(wanted), "{error}");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "{error}");
    };
    let good = recipe(model);
    refused(&Recipe { name: "a/b".to_owned(), ..good.clone() }, "made", "manifest.toml: can't");
    refused(&Recipe { model: dir.path().join("none.onnx"), ..good.clone() }, "made", "none.onnx");
    refused(&Recipe { licence: String::new(), ..good.clone() }, "made", "licence: 0 bytes");
    refused(&Recipe { model: data("operators/index.json"), ..good }, "made", "model.onnx: index");
}

#[test]
fn a_directory_that_is_there_is_never_written_over() {
    let dir = tempfile::tempdir().expect("a directory");
    write_to(dir.path(), operator("qmoe-two-layers")).expect("a bundle");
    let error = write_to(dir.path(), operator("qmoe-two-layers")).map(|_| ()).expect_err("refused");
    let text = "bundle: can't be written: it is there already; name another directory";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_changed_golden_answer_of_a_tensor_model_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let bundle = write_to(dir.path(), operator("qmoe-two-layers")).expect("a bundle");
    let model = load(bundle.dir(), "model.onnx", &LoadOptions::default()).expect("it loads");
    let pipeline = bundle.pipeline(&model, None).expect("a pipeline");
    let mut session = model.session().expect("a session opens");
    let Golden::Tensor(mut cases) = bundle.golden().expect("golden answers") else {
        panic!("its task is `tensor`");
    };
    let output = cases[1].outputs.values_mut().next().expect("an output");
    output.values[2] += 1.0;
    let error = Golden::Tensor(cases).check(&pipeline, session.as_mut()).expect_err("found");
    assert!(error.to_string().starts_with("golden.json: case 1: output `"), "{error}");
}

#[test]
fn the_directory_that_it_goes_into_is_made_if_it_is_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    let models = dir.path().join("models");
    let bundle = write_to(&models, operator("matmulnbits-8bit-block32")).expect("it is written");
    assert_eq!(bundle.dir(), models.join("made"));
}
