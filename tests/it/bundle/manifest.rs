//! The manifest's parser: every field, at its bounds.

use std::collections::BTreeSet;

use moed::bundle::{Manifest, Sha256, Version};
use proptest::prelude::*;

const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn manifest() -> String {
    format!(
        r#"format = 1
name = "intent"
version = "1.0.0"
task = "intent"
model = "model.onnx"
licence = "MIT"
provenance = "made up"
language = "en"
[k]
min = 1
max = 4
default = 2
[memory]
resident_bytes = 6000000
[[files]]
name = "model.onnx"
bytes = 123
sha256 = "{HASH}"
[[files]]
name = "golden.json"
bytes = 0
sha256 = "{HASH}"
[intent]
words_max = 32
ngram_min = 2
ngram_max = 4
ngrams_max = 24
buckets = 16384
intents = ["HassTurnOn", "out_of_scope"]
tags = ["O", "B-name", "I-name"]
temperature = 1.3
threshold = 0.5
"#
    )
}

#[test]
fn a_manifest_of_each_task_is_read() {
    let intent = Manifest::parse(&manifest()).expect("it is read");
    assert_eq!(intent.task.word(), "intent");
    assert_eq!(intent.files[0].name, "golden.json");
    let text = manifest();
    let tensor = text.replace("\"intent\"", "\"tensor\"");
    let tensor = tensor.split("[intent]").next().expect("what comes before");
    assert_eq!(Manifest::parse(tensor).expect("it is read").task.word(), "tensor");
}

/// One change each, and what is said about it.
#[test]
fn a_wrong_field_is_named_with_what_to_do() {
    let changes = [
        ("format = 1", "format = 2"),
        ("format = 1", ""),
        ("name = \"intent\"", "name = \"in/tent\""),
        ("name = \"intent\"", "name = \"\""),
        ("name = \"intent\"", "nmae = \"intent\""),
        ("version = \"1.0.0\"", "version = \"1.0\""),
        ("version = \"1.0.0\"", "version = 1"),
        ("task = \"intent\"", "task = \"text\""),
        ("model = \"model.onnx\"", "model = \"other.onnx\""),
        ("licence = \"MIT\"", "license = \"MIT\""),
        ("licence = \"MIT\"", "licence = \"\""),
        ("language = \"en\"", "language = \"en\\u0007\""),
        ("max = 4", "max = 0"),
        ("default = 2", "default = 5"),
        ("default = 2", "default = 2\nforced = 1"),
        ("resident_bytes = 6000000", "resident_bytes = -1"),
        ("[memory]", "[memroy]"),
        ("bytes = 123", "bytes = 1.5"),
        ("name = \"model.onnx\"", "name = \"../model.onnx\""),
        ("name = \"model.onnx\"", "name = \".model.onnx\""),
        ("name = \"model.onnx\"", "name = \"golden.json\""),
        ("name = \"model.onnx\"", "name = \"manifest.toml\""),
        (HASH, "00"),
        ("[intent]", "[intents]"),
        ("ngram_max = 4", "ngram_max = 1"),
        ("words_max = 32", "words_max = 257"),
        ("\"HassTurnOn\", ", "\"out_of_scope\", "),
        ("\"O\", ", ""),
        ("\"B-name\"", "\"B-\""),
        ("\"B-name\"", "\"X-name\""),
        ("\"B-name\"", "7"),
        ("temperature = 1.3", "temperature = 0"),
        ("threshold = 0.5", "threshold = nan"),
        ("threshold = 0.5", "threshold = 0.5 0.5"),
    ];
    let mut texts = String::new();
    for (from, to) in changes {
        let changed = manifest().replacen(from, to, 1);
        assert_ne!(changed, manifest(), "{from}: is there");
        let error = Manifest::parse(&changed).expect_err(to);
        texts += &format!("{to}\n    {error}\n");
    }
    insta::assert_snapshot!(texts);
}

#[test]
fn versions_are_ordered_by_their_numbers() {
    let version = |text| Version::parse(text).expect(text);
    assert!(version("1.10.0") > version("1.9.9"));
    assert!(version("2.0.0") > version("1.99.99"));
    for text in ["", "1", "1.0", "1.0.0.0", "1.0.x", "1.0.-1", "+1.0.0", "01.0.0", "1..0"] {
        assert_eq!(Version::parse(text), None, "{text}");
    }
}

#[test]
fn a_hash_is_64_hexadecimal_digits_and_nothing_else() {
    assert_eq!(Sha256::parse(HASH).expect("it is one").to_string(), HASH);
    assert_eq!(Sha256::parse(&HASH.to_uppercase()), Sha256::parse(HASH));
    let short = HASH.strip_prefix('0').expect("its first digit");
    let long = format!("{HASH}0");
    for text in [short, &long, &HASH.replace('a', "g"), &HASH.replace('a', "+")] {
        assert_eq!(Sha256::parse(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_in_one_line(text in "[a-z\\[\\]=\"0-9.\n ]{0,200}") {
        if let Err(error) = Manifest::parse(&text) {
            prop_assert!(!error.to_string().trim().is_empty());
        }
    }

    /// Lines left out, doubled and swapped: what is still read keeps all that the types promise.
    #[test]
    fn any_mixture_of_good_lines_is_read_or_refused(
        lines in proptest::collection::vec(0usize..30, 0..40),
    ) {
        let whole = manifest();
        let all: Vec<&str> = whole.lines().collect();
        let mut text: Vec<&str> = all.clone();
        for pair in lines.chunks_exact(2) {
            let (a, b) = (pair[0] % text.len(), pair[1] % all.len());
            if a % 3 == 0 { text[a] = all[b] } else { text.swap(a, b % all.len()) }
        }
        if let Ok(manifest) = Manifest::parse(&text.join("\n")) {
            let names: BTreeSet<_> = manifest.files.iter().map(|file| &file.name).collect();
            prop_assert_eq!(names.len(), manifest.files.len());
            prop_assert!(manifest.file(&manifest.model).is_some());
        }
    }

    #[test]
    fn a_version_is_read_as_it_is_shown(major: u32, minor: u32, patch: u32) {
        let version = Version { major, minor, patch };
        prop_assert_eq!(Version::parse(&version.to_string()), Some(version));
    }
}
