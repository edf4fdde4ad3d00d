//! Pipelines: from what clients give to what a graph takes, and back.

use moed::bundle::{Bundle, Limits};
use moed::engine::tract::{TractModel, load};
use moed::engine::{LoadOptions, Model as _, RunOptions};
use moed::infer::{Content, InputSpec, NamedTensor, OutputSpec};
use moed::pipeline::intent::{Tag, words};
use moed::pipeline::{Pipeline, Signature, Task};
use moed::tensor::{DType, Data, Tensor};
use proptest::prelude::*;

use crate::support::data;

fn tiny() -> (Bundle, TractModel) {
    let bundle = Bundle::open(&data("bundles").join("intent"), &Limits::default());
    let bundle = bundle.expect("the fixture opens");
    bundle.verify().expect("the fixture is whole");
    let model = load(bundle.dir(), &bundle.manifest().model, &LoadOptions::default());
    (bundle, model.expect("the fixture loads"))
}

fn tensor(dims: &[usize], data: Data) -> Tensor {
    Tensor::new(dims, data).expect("a tensor")
}

fn text(sentence: &str) -> NamedTensor {
    let tensor = tensor(&[1], Data::Bytes(vec![sentence.as_bytes().to_vec()]));
    NamedTensor { name: "text".to_owned(), tensor }
}

/// Those of the tests, and those that are shipped.
#[test]
fn every_bundle_in_the_project_is_whole_and_gives_its_golden_answers_again() {
    let project = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut bundles = 0;
    for folder in [data("bundles"), project.join("models")] {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if !path.join("manifest.toml").exists() {
                continue;
            }
            let name = path.display();
            let bundle = Bundle::open(&path, &Limits::default()).expect("it opens");
            bundle.verify().unwrap_or_else(|error| panic!("{name}: {error}"));
            let model = load(bundle.dir(), &bundle.manifest().model, &LoadOptions::default());
            let model = model.unwrap_or_else(|error| panic!("{name}: {error}"));
            let pipeline = bundle.pipeline(&model, None);
            let pipeline = pipeline.unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut session = model.session().expect("a session opens");
            let golden = bundle.golden().unwrap_or_else(|error| panic!("{name}: {error}"));
            let reproduced = golden.check(&pipeline, session.as_mut());
            let reproduced = reproduced.unwrap_or_else(|error| panic!("{name}: {error}"));
            eprintln!("{name}: {reproduced:?}");
            bundles += 1;
        }
    }
    assert!(bundles > 0, "there is at least the one of the tests");
}

#[test]
fn onnxruntimes_answers_are_given_again_by_tract_and_our_kernels() {
    let (bundle, model) = tiny();
    let pipeline = bundle.pipeline(&model, None).expect("the graph is one of task `intent`");
    let mut session = model.session().expect("a session opens");
    let golden = bundle.golden().expect("the golden answers");
    let reproduced = golden.check(&pipeline, session.as_mut()).expect("they are reproduced");
    assert_eq!(reproduced.cases, 8);
    assert!(reproduced.error_max < 0.2, "{reproduced:?}");
}

#[test]
fn a_golden_answer_that_differs_is_named_with_the_case_and_the_value() {
    let (bundle, model) = tiny();
    let pipeline = bundle.pipeline(&model, None).expect("the graph is one of task `intent`");
    let mut session = model.session().expect("a session opens");
    let whole = std::fs::read_to_string(bundle.dir().join("golden.json")).expect("a text");
    let mut texts = String::new();
    for (from, to) in [
        ("[[80, 62,", "[[80, 63,"),
        ("HassGetState", "HassLightSet"),
        ("\"I-area\", \"O\"", "\"I-area\", \"B-area\""),
        ("0.44475", "0.54475"),
        ("0.26832", "0.36832"),
        (", -0.3651", ""),
        ("\"budget\": 0.0", "\"budget\": 2.0"),
        ("\"budget\": 0.0, ", ""),
        ("\"budget\"", "\"bugdet\""),
    ] {
        assert!(whole.contains(from), "{from}: is there");
        let changed = whole.replacen(from, to, 1);
        let golden = moed::bundle::Golden::parse(&changed, &bundle.manifest().task);
        let checked = golden.and_then(|golden| golden.check(&pipeline, session.as_mut()));
        texts += &format!("{}\n", checked.expect_err(to));
    }
    insta::assert_snapshot!(texts);
}

#[test]
fn the_budget_of_a_request_chooses_how_many_experts_run() {
    let (bundle, model) = tiny();
    let pipeline = bundle.pipeline(&model, None).expect("the graph is one of task `intent`");
    let mut session = model.session().expect("a session opens");
    let mut rows = |budget| {
        let prepared = pipeline.prepare(vec![text("turn on the light")], budget).expect("prepared");
        let run = session.run(&prepared.inputs, RunOptions::default()).expect("it runs");
        let experts = &run.report.layers[0].experts;
        experts.iter().map(|&(_, rows)| rows).sum::<u32>()
    };
    assert_eq!(rows(Some(0.0)), 4, "one expert for each of four words");
    assert_eq!(rows(Some(1.0)), 8);
    assert_eq!(rows(None), 8, "the best answer, if nothing is said");
}

#[test]
fn an_answer_has_the_outputs_that_the_signature_names() {
    let (bundle, model) = tiny();
    let pipeline = bundle.pipeline(&model, None).expect("the graph is one of task `intent`");
    let mut session = model.session().expect("a session opens");
    let prepared = pipeline.prepare(vec![text("Turn on the Lamp")], None).expect("prepared");
    let run = session.run(&prepared.inputs, RunOptions::default()).expect("it runs");
    let outputs = pipeline.finish(&prepared.kept, run.outputs).expect("finished");
    let specs = &pipeline.signature().outputs;
    assert_eq!(outputs.len(), specs.len());
    for (output, spec) in outputs.iter().zip(specs) {
        assert_eq!((&output.name, output.content), (&spec.name, spec.content));
        assert_eq!(output.tensor.dtype(), spec.dtype);
        assert_eq!(output.tensor.shape().dims(), [1]);
        if let (Content::Json, Data::Bytes(texts)) = (output.content, output.tensor.data()) {
            serde_json::from_slice::<serde_json::Value>(&texts[0]).expect("JSON");
        }
    }
}

#[test]
fn a_wrong_request_is_refused_in_words_that_say_what_to_send() {
    let (bundle, model) = tiny();
    let pipeline = bundle.pipeline(&model, None).expect("the graph is one of task `intent`");
    let named =
        |name: &str, data| NamedTensor { name: name.to_owned(), tensor: tensor(&[1], data) };
    let two = Data::Bytes(vec![b"on".to_vec(), b"off".to_vec()]);
    let two = NamedTensor { name: "text".to_owned(), tensor: tensor(&[2], two) };
    let requests = [
        vec![],
        vec![text("")],
        vec![text(" ?! ")],
        vec![text(&"la ".repeat(1366))],
        vec![text("on"), text("off")],
        vec![two],
        vec![named("text", Data::I64(vec![1]))],
        vec![named("text", Data::Bytes(vec![vec![0xff]]))],
        vec![named("sentence\n", Data::Bytes(vec![b"on".to_vec()]))],
    ];
    let mut texts = String::new();
    for request in requests {
        let error = pipeline.prepare(request, None).expect_err("it is refused");
        texts += &format!("{error}\n");
    }
    for budget in [-0.1, 1.1, f32::NAN] {
        let error = pipeline.prepare(vec![text("on")], Some(budget)).expect_err("refused");
        texts += &format!("{error}\n");
    }
    insta::assert_snapshot!(texts);
}

fn graph() -> Signature {
    let input = |name: &str, dims: &[Option<usize>]| InputSpec {
        name: name.to_owned(),
        dtype: DType::F32,
        dims: dims.to_vec(),
        is_optional: false,
    };
    let output = OutputSpec {
        name: "y".into(),
        dtype: DType::F32,
        dims: vec![None],
        content: Content::Plain,
    };
    let inputs = vec![input("a", &[None]), input("b", &[None]), input("budget", &[Some(1)])];
    Signature { inputs, outputs: vec![output] }
}

#[test]
fn tensors_are_put_in_the_graphs_order_whatever_order_they_come_in() {
    let pipeline = Pipeline::new(&Task::Tensor, &graph(), None).expect("any graph will do");
    let floats = |name: &str, x| NamedTensor {
        name: name.to_owned(),
        tensor: tensor(&[1], Data::F32(vec![x])),
    };
    let prepared = pipeline.prepare(vec![floats("b", 2.0), floats("a", 1.0)], Some(0.25));
    let prepared = prepared.expect("prepared");
    let first = |tensor: &Tensor| crate::support::floats(tensor)[0];
    assert_eq!(prepared.inputs.iter().map(first).collect::<Vec<_>>(), [1.0, 2.0, 0.25]);
    let outputs = pipeline.finish(&prepared.kept, vec![prepared.inputs[1].clone()]);
    assert_eq!(&*outputs.expect("finished")[0].name, "y");
    let given = vec![floats("a", 1.0), floats("b", 2.0), floats("budget", 0.5)];
    assert_eq!(first(&pipeline.prepare(given, Some(1.0)).expect("prepared").inputs[2]), 0.5);
    assert!(pipeline.signature().inputs[2].is_optional);

    for (request, wanted) in [
        (vec![floats("a", 1.0)], "input `b`: missing; the model takes: a, b, budget"),
        (vec![floats("c", 1.0)], "input `c`: not known; the model takes: a, b, budget"),
        (vec![floats("a", 1.0), floats("a", 1.0)], "input `a`: given twice; give it once"),
    ] {
        let error = pipeline.prepare(request, None).expect_err(wanted);
        assert_eq!(error.to_string(), wanted);
    }
    pipeline.finish(&prepared.kept, vec![]).expect_err("an output is missing");
}

#[test]
fn a_graph_that_is_none_of_task_intent_is_refused_with_the_port_that_is_wrong() {
    let (bundle, model) = tiny();
    let task = &bundle.manifest().task;
    let error = Pipeline::new(task, &graph(), None).map(|_| ()).expect_err("refused");
    assert!(error.starts_with("input `a`: the task `intent` takes"), "{error}");
    let pipeline = bundle.pipeline(&model, None).expect("the right one is taken");
    assert_eq!(pipeline.signature().inputs.len(), 1);
    let error = Pipeline::new(task, &Signature::default(), None).map(|_| ()).expect_err("refused");
    assert!(error.starts_with("input `ids`: missing"), "{error}");
}

#[test]
fn words_are_cut_as_the_recipe_cuts_them() {
    let cut = |text: &str| words(text).into_iter().map(|word| word.text).collect::<Vec<_>>();
    assert_eq!(cut("Turn ON the light!"), ["turn", "on", "the", "light"]);
    assert_eq!(cut("it's dad\u{2019}s 'thing'"), ["it's", "dad's", "thing"]);
    assert_eq!(cut("to 21.5°, 40% 1,000. 3."), ["to", "21.5", "°", "40", "%", "1,000", "3"]);
    assert_eq!(cut("a.b 1.b a,1"), ["a", "b", "1", "b", "a", "1"]);
    assert_eq!(cut("Straße ÄÖ İx ΟΔΟΣ"), ["straße", "äö", "i\u{307}x", "οδος"]);
    assert_eq!(cut("wall-e"), ["wall", "e"]);
    assert_eq!(cut("1''2 '' 1..2"), ["1", "2", "1", "2"]);
    assert_eq!(cut(""), [""; 0]);
}

#[test]
fn tags_are_written_as_the_manifest_writes_them() {
    let (bundle, _) = tiny();
    let Task::Intent(config) = &bundle.manifest().task else { panic!("its task is `intent`") };
    let texts: Vec<_> = config.tags.iter().map(Tag::text).collect();
    assert_eq!(texts[..3], ["O", "B-name", "I-name"]);
}

proptest! {
    #[test]
    fn every_word_of_any_text_is_where_it_says(text in "\\PC{0,60}") {
        let mut end = 0;
        for word in words(&text) {
            prop_assert!(word.bytes.0 >= end && word.bytes.1 > word.bytes.0);
            end = word.bytes.1;
            let there = text.get(word.bytes.0..word.bytes.1).expect("whole characters");
            let there = there.replace('\u{2019}', "'").to_lowercase();
            prop_assert_eq!(there, word.text);
        }
    }
}
