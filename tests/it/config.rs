//! `moed.toml`: its defaults, its bounds, and what is said when something is wrong.

use moed::config::Config;

/// The example of docs/configuration.md.
fn documented() -> String {
    let page = include_str!("../../docs/configuration.md");
    let (_, rest) = page.split_once("```toml\n").expect("the page has an example");
    rest.split_once("```").expect("it ends").0.to_owned()
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    assert_eq!(Config::parse(&documented()).expect("it is right"), Config::default());
    assert_eq!(Config::parse("").expect("nothing is needed"), Config::default());
}

#[test]
fn what_is_documented_as_optional_is_taken() {
    let text: Vec<_> = documented()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.contains(" = \"") => rest.to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    let config = Config::parse(&text.join("\n")).expect("it is right");
    assert_eq!(config.models.home.as_deref(), Some("/etc/moed/home.toml".as_ref()));
    assert_eq!(config.socket.admin_path.as_deref(), Some("/run/moed/admin.sock".as_ref()));
    assert!(config.socket.path.is_some() && config.socket.tcp_address.is_some());
}

#[test]
fn every_documented_bound_is_the_bound() {
    let mut checked = 0;
    let mut table = String::new();
    for line in documented().lines() {
        if line.starts_with('[') {
            table = line.to_owned();
        }
        let Some((setting, comment)) = line.split_once('#') else { continue };
        let Some((key, _)) = setting.split_once(" = ") else { continue };
        // `..., 1 to 64; 0: as many as there are processors`
        let words: Vec<&str> = comment.split_whitespace().collect();
        let Some(at) = words.iter().position(|word| *word == "to") else { continue };
        let number = |word: &str| word.trim_end_matches([';', ',']).parse::<u64>();
        let (Some(Ok(min)), Some(Ok(max))) = (
            words.get(at - 1).map(|word| number(word)),
            words.get(at + 1).map(|word| number(word)),
        ) else {
            continue;
        };
        let min = if comment.contains("; 0:") { 0 } else { min };
        let parse = |value: u64| Config::parse(&format!("{table}\n{key} = {value}"));
        assert!(parse(min).is_ok() && parse(max).is_ok(), "{key}: {min} to {max}");
        let error = parse(max + 1).expect_err("it is out of range").to_string();
        assert!(error.contains(key.trim()), "{error}");
        assert!(min == 0 || parse(min - 1).is_err(), "{key}: {min}");
        checked += 1;
    }
    assert_eq!(checked, 18, "bounds on the page");
}

#[test]
fn what_is_wrong_is_named_with_what_to_do() {
    for (text, want) in [
        ("[models]\ntreads = 2", "models.treads: unknown key; did you mean `threads`?"),
        ("[model]", "model: unknown key; did you mean `models`?"),
        ("[zzzz]", "zzzz: unknown key; remove it, or use one of: "),
        ("[models]\nthreads = 65", "models.threads: "),
        ("[models]\nthreads = \"2\"", "models.threads: "),
        ("[log]\nlevel = \"loud\"", "use off, error, warn, info, debug or trace"),
        ("[socket]\ntcp_address = \"8000\"", "write it as \"127.0.0.1:8000\""),
        ("[socket]\npath = \"\"", "socket.path: "),
        ("[models\n", "line 1: not TOML"),
    ] {
        let error = Config::parse(text).expect_err("it is wrong").to_string();
        assert!(error.contains(want), "{text}: {error}");
    }
}

#[test]
fn a_file_that_can_not_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("moed.toml");
    let error = Config::read(Some(&path)).expect_err("it is not there").to_string();
    assert!(error.starts_with(&path.display().to_string()), "{error}");
    std::fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
    let error = Config::read(Some(&path)).expect_err("it is too long").to_string();
    assert!(error.contains("larger than 1048576 bytes"), "{error}");
    std::fs::write(&path, "#".repeat(1 << 20)).unwrap();
    assert_eq!(Config::read(Some(&path)).expect("it is not"), Config::default());
}
