//! `moed resolve`, as a program that is given lines and gives lines.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::support::data;

fn resolve(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_moed"))
        .arg("resolve")
        .args(arguments)
        .current_dir(data(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("moed starts");
    // It may have refused its arguments before it read a line.
    drop(child.stdin.take().expect("a pipe").write_all(input));
    child.wait_with_output().expect("it ends")
}

#[test]
fn every_line_gets_one_answer_in_order_wrong_ones_too() {
    let lines =
        "turn on the kitchen light\n{\"text\": \"is it warm\", \"id\": 7}\n\n{\"txt\": 1}\nlast";
    let output = resolve(&["--home", "homes/house.toml", "bundles/intent"], lines.as_bytes());
    assert!(output.status.success(), "{output:?}");
    let answers = String::from_utf8(output.stdout).expect("UTF-8");
    let answers = answers.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let answers = answers.collect::<Vec<serde_json::Value>>();
    assert_eq!(answers.len(), 5);
    for (at, text) in [(0, "turn on the kitchen light"), (1, "is it warm"), (4, "last")] {
        assert_eq!(answers[at]["text"], text);
        for key in ["intent", "confidence", "slots", "entities", "areas"] {
            assert!(!answers[at][key].is_null(), "{key} in {}", answers[at]);
        }
    }
    assert_eq!(answers[2]["error"], "input `text`: no words; send a sentence");
    assert!(answers[3]["error"].as_str().is_some_and(|text| text.contains("missing field `text`")));
}

#[test]
fn an_answers_cost_is_said_on_demand() {
    let output = resolve(&["--cost", "--budget", "0", "bundles/intent"], b"turn on the light");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["cost"]["experts"].as_array().map(Vec::len), Some(1), "{answer}");
    assert!(answer["cost"]["weight_bytes_read"].as_u64().is_some_and(|bytes| bytes > 0));
}

#[test]
fn what_can_not_be_used_is_named() {
    for (arguments, wanted) in [
        (&["homes"][..], "homes: manifest.toml: "),
        (&["--home", "none.toml", "bundles/intent"], "none.toml: "),
        (&["--home", "operators/index.json", "bundles/intent"], "index.json: line 2: not TOML"),
        (&["--home", "homes", "bundles/intent"], "core.floor_registry: "),
    ] {
        let output = resolve(arguments, b"");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn a_line_that_is_too_long_is_told_so_and_the_next_is_answered() {
    let lines = format!("{}\nturn on the light\n", "word ".repeat(20_000));
    let output = resolve(&["bundles/intent"], lines.as_bytes());
    let answers = String::from_utf8(output.stdout).expect("UTF-8");
    let answers = answers.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let answers = answers.collect::<Vec<serde_json::Value>>();
    assert_eq!(answers[0]["error"], "line: more than 65536 bytes; send a sentence a line");
    assert_eq!(answers[1]["text"], "turn on the light");
    assert_eq!(answers.len(), 2);
}
