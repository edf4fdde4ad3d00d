//! The rules of ARCHITECTURE.md that a reader of the source can check, checked.
//!
//! Sources are read as tokens, so that comments and texts don't count. A new module or crate has
//! to be entered here first.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Every module that has a row of its own, from the top down, and which modules it may name. The
/// others belong to the module above them. No row may name one above itself.
const MAY_NAME: [(&str, &[&str]); 27] = [
    ("main", &["cli"]),
    (
        "cli",
        &[
            "bundle",
            "config",
            "daemon",
            "engine",
            "engine::tract",
            "engine::sim",
            "engine::inspect",
            "engine::kernel",
            "infer",
            "pipeline",
            "repository",
            "tensor",
        ],
    ),
    // The composition root.
    (
        "daemon",
        &[
            "bundle",
            "config",
            "engine",
            "engine::kernel",
            "infer",
            "metrics",
            "pipeline",
            "repository",
            "scheduler",
            "transport::mqtt",
            "transport::unix",
        ],
    ),
    (
        "config",
        &["fields", "pipeline", "repository", "scheduler", "transport::mqtt", "transport::unix"],
    ),
    ("lib", &[]),
    ("transport", &["transport::unix", "transport::mqtt"]),
    ("transport::mqtt", &["codec", "infer"]),
    ("transport::unix", &["codec", "infer"]),
    ("codec", &["infer", "tensor"]),
    ("scheduler", &["engine", "infer", "metrics", "repository", "tensor"]),
    ("repository", &["bundle", "engine", "infer", "pipeline", "tensor"]),
    (
        "bundle",
        &[
            "engine",
            "engine::inspect",
            "engine::layout",
            "engine::limits",
            "fields",
            "infer",
            "pipeline",
            "tensor",
        ],
    ),
    ("metrics", &["engine", "infer"]),
    ("pipeline", &["fields", "infer", "tensor"]),
    (
        "engine::tract",
        &[
            "engine",
            "engine::moe",
            "engine::inspect",
            "engine::kernel",
            "engine::limits",
            "engine::mapping",
            "infer",
            "tensor",
        ],
    ),
    ("engine::sim", &["engine", "infer", "tensor"]),
    ("engine::layout", &["engine", "engine::inspect", "engine::limits"]),
    ("engine::moe", &["engine::kernel", "engine::mapping"]),
    ("engine", &["engine::load_error", "engine::limits", "infer", "tensor"]),
    ("engine::load_error", &["engine::inspect", "engine::kernel"]),
    ("engine::inspect", &["engine::limits"]),
    ("engine::kernel", &[]),
    ("engine::mapping", &[]),
    ("engine::limits", &[]),
    ("fields", &[]),
    ("infer", &["tensor"]),
    ("tensor", &[]),
];

/// Crates and parts of `std`, and the files or folders that may name them. What is not listed
/// may be named anywhere.
const MAY_BE_NAMED_IN: [(&[&str], &[&str]); 11] = [
    (&["std", "env"], &["src/cli.rs", "src/cli/", "src/config/", "src/engine/kernel/select.rs"]),
    (&["std", "net"], &["src/transport/", "src/config/", "src/cli/serve.rs", MQTT_CLIENT]),
    (&["rumqttc"], &["src/transport/mqtt/connection/", MQTT_CLIENT]),
    (&["tokio_rustls"], &["src/transport/mqtt/connection/", "src/transport/mqtt/secrets.rs"]),
    (&["clap"], &["src/main.rs", "src/cli.rs", "src/cli/"]),
    (&["memmap2"], &["src/engine/mapping.rs", "src/engine/tract/hoist.rs"]),
    (
        &["rustix"],
        &[
            "src/engine/",
            "src/cli/",
            "src/transport/",
            "src/metrics/process.rs",
            "src/config/environment.rs",
            "src/repository/install/store.rs",
        ],
    ),
    (&["minisign_verify"], &["src/repository/install/signature.rs"]),
    (&["hyper"], &["src/transport/", "src/cli/client.rs"]),
    (&["listenfd"], &["src/transport/unix/listener.rs"]),
    (&["prost"], &["src/engine/"]),
];

/// The demo's devices.
const MQTT_CLIENT: &str = "src/cli/demo/over_mqtt.rs";

const TRACT: &str = "tract_";
const TRACT_IS_NAMED_IN: &[&str] = &["src/engine/"];

const UNSAFE_IS_IN: &[&str] =
    &["src/daemon/memory.rs", "src/engine/kernel/", "src/engine/mapping.rs"];

const LINES_MAX: usize = 500;
const LINE_CHARS_MAX: usize = 100;

struct Source {
    /// From the project's root, with `/`.
    path: String,
    /// `["engine", "tract", "hoist"]` for `src/engine/tract/hoist.rs`; `["main"]`, `["lib"]`.
    module: Vec<String>,
    text: String,
    tokens: TokenStream,
}

impl Source {
    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| match place.strip_suffix('/') {
            Some(_) => self.path.starts_with(place),
            None => self.path == *place,
        })
    }

    /// The paths that it names, `use` trees spread out; those inside the crate from its root.
    fn paths(&self) -> BTreeSet<Vec<String>> {
        let mut found = Vec::new();
        collect_paths(self.tokens.clone(), &mut found);
        found.iter().map(|path| self.resolve(path)).collect()
    }

    /// Replaces `crate`, `self`, `super`, the library's own name, and a child module's name.
    fn resolve(&self, path: &[String]) -> Vec<String> {
        let is_root = ["main", "lib"].contains(&self.module[0].as_str());
        let mut from: Vec<String> = if is_root { Vec::new() } else { self.module.clone() };
        let mut rest = path;
        match rest.first().map(String::as_str) {
            Some("crate" | "moed") => (from, rest) = (Vec::new(), &rest[1..]),
            Some("self") => rest = &rest[1..],
            Some("super") if path.len() > 1 => {}
            Some(first) => {
                // A word alone is a variable, a declaration, `pub(super)`, and many other things.
                if path.len() == 1 {
                    return path.to_vec();
                }
                from.push(first.to_owned());
                if row_of(&from).is_none_or(|row| row != from.join("::")) {
                    return path.to_vec();
                }
                from.pop();
            }
            None => return path.to_vec(),
        }
        while rest.first().is_some_and(|part| part == "super") {
            from.pop();
            rest = &rest[1..];
        }
        from.extend_from_slice(rest);
        from.insert(0, "crate".to_owned());
        from
    }
}

/// The row of [`MAY_NAME`] that a module or an item of one belongs to.
fn row_of(module: &[String]) -> Option<&'static str> {
    let has_row = |path: &str| MAY_NAME.iter().map(|(row, _)| *row).find(|row| *row == path);
    (1..=module.len()).rev().find_map(|n| has_row(&module[..n].join("::")))
}

/// Collects paths of one and more parts; `a::{b, c::{self, d}}` gives `a::b`, `a::c`, `a::c::d`.
fn collect_paths(tokens: TokenStream, found: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is_colon = |at: usize| match tokens.get(at) {
        Some(TokenTree::Punct(punct)) => punct.as_char() == ':',
        _ => false,
    };
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => collect_paths(group.stream(), found),
            TokenTree::Ident(first) => {
                let mut path = vec![first.to_string()];
                let mut tree = None;
                while tree.is_none() && is_colon(at + 1) && is_colon(at + 2) {
                    match tokens.get(at + 3) {
                        Some(TokenTree::Ident(part)) => path.push(part.to_string()),
                        Some(TokenTree::Punct(glob)) if glob.as_char() == '*' => {
                            path.push("*".to_owned());
                        }
                        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                            tree = Some(group.stream());
                        }
                        _ => break,
                    }
                    at += 3;
                }
                match tree {
                    None => found.push(path),
                    Some(tree) => {
                        let mut inside = Vec::new();
                        collect_paths(tree, &mut inside);
                        found.extend(inside.into_iter().map(|mut rest| {
                            rest.retain(|part| part != "self");
                            [path.clone(), rest].concat()
                        }));
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// All sources of the package.
fn sources() -> Vec<Source> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    list(&project.join("src"), &mut paths);
    paths.sort();
    let sources: Vec<Source> = paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).expect("a source can be read");
            let path = path.strip_prefix(project).expect("it is in the project");
            source(path.to_str().expect("its name is UTF-8"), text)
        })
        .collect();
    assert!(sources.len() > 30, "the sources are there");
    sources
}

fn list(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            list(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn source(path: &str, text: String) -> Source {
    let inside = path.strip_prefix("src/").expect("a source is in src");
    let module = inside.strip_suffix(".rs").expect("a source is Rust");
    let module = module.strip_suffix("/mod").unwrap_or(module);
    let tokens = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
    let module = module.split('/').map(str::to_owned).collect();
    Source { path: path.to_owned(), module, text, tokens }
}

/// Whether an identifier for which `is` holds is anywhere in the code.
fn has_ident(tokens: TokenStream, is: &dyn Fn(&str) -> bool) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Group(group) => has_ident(group.stream(), is),
        TokenTree::Ident(ident) => is(&ident.to_string()),
        _ => false,
    })
}

/// Edges of `source` that the table does not have, as texts.
fn forbidden_edges(source: &Source) -> Vec<String> {
    let Some(from) = row_of(&source.module) else {
        return vec![format!("{}: its module has no row in the table", source.path)];
    };
    let (_, may) = MAY_NAME.iter().find(|(row, _)| *row == from).expect("a row has been found");
    let named = source.paths();
    let inside = named.iter().filter(|path| path[0] == "crate" && path.len() > 1);
    inside
        .filter_map(|path| {
            let to = row_of(&path[1..]);
            if to.is_some_and(|to| to == from || may.contains(&to)) {
                return None;
            }
            Some(format!("{}: {from} names {}", source.path, path.join("::")))
        })
        .collect()
}

/// Fails with all findings, one a line.
fn check(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn modules_name_only_what_the_table_allows() {
    check(&sources().iter().flat_map(forbidden_edges).collect::<Vec<_>>());
}

#[test]
fn no_row_of_the_table_names_one_above_itself() {
    let rows: Vec<&str> = MAY_NAME.iter().map(|(row, _)| *row).collect();
    let place = |row: &str| rows.iter().position(|other| *other == row);
    for (row, may) in MAY_NAME {
        for named in may {
            assert!(place(named) > place(row), "{row} may not name {named}: it is not below it");
        }
    }
}

#[test]
fn every_row_of_the_table_is_a_module() {
    let modules: BTreeSet<String> =
        sources().iter().map(|source| source.module.join("::")).collect();
    for (row, _) in MAY_NAME {
        assert!(modules.contains(row), "{row}: there is no such module");
    }
}

#[test]
fn a_forbidden_edge_is_found_however_it_is_written() {
    for (path, code) in [
        ("src/engine/kernel/select.rs", "use crate::engine::moe;"),
        ("src/engine/kernel/select.rs", "use crate::{engine::{kernel, moe::{self, gate}}, log};"),
        ("src/engine/kernel/select.rs", "use super::super::tract::load;"),
        ("src/engine/kernel/x86_64/avx2.rs", "fn f() { super::super::super::tract::load() }"),
        ("src/engine/kernel/mod.rs", "pub(crate) fn f(x: Vec<crate::tensor::Tensor>) {}"),
        ("src/engine/mod.rs", "fn f() { tract::load() }"),
        ("src/engine/mod.rs", "use self::moe::experts::Experts;"),
        ("src/tensor.rs", "type Run = crate::engine::Run;"),
        ("src/main.rs", "fn main() { moed::tensor::f() }"),
        ("src/main.rs", "use moed::infer as other;"),
        ("src/engine/limits.rs", "use super::*;"),
        ("src/new.rs", ""),
    ] {
        let found = forbidden_edges(&source(path, code.to_owned()));
        assert!(!found.is_empty(), "{path}: {code}");
    }
    for (path, code) in [
        ("src/engine/kernel/select.rs", "use super::{Kernel, scalar}; // crate::engine::moe"),
        ("src/engine/kernel/mod.rs", "pub(crate) fn f() -> &str { \"crate::engine::moe\" }"),
        ("src/engine/tract/mod.rs", "use super::{Model, kernel::{self, Kernel}};"),
        ("src/engine/mod.rs", "pub mod tract; fn f(x: limits::Limits) {}"),
        ("src/main.rs", "use moed::cli; fn main() { cli::run() }"),
    ] {
        check(&forbidden_edges(&source(path, code.to_owned())));
    }
}

#[test]
fn crates_are_named_only_where_they_belong() {
    let mut findings = Vec::new();
    for source in sources() {
        let paths = source.paths();
        for (named, places) in MAY_BE_NAMED_IN {
            let is_named = |path: &Vec<String>| path.iter().zip(named).all(|(a, b)| a == b);
            let is_long_enough = |path: &&Vec<String>| path.len() >= named.len();
            if !source.is_in(places) && paths.iter().filter(is_long_enough).any(is_named) {
                findings.push(format!("{}: names {}", source.path, named.join("::")));
            }
        }
        let is_tract = |ident: &str| ident.starts_with(TRACT);
        if !source.is_in(TRACT_IS_NAMED_IN) && has_ident(source.tokens.clone(), &is_tract) {
            findings.push(format!("{}: names tract", source.path));
        }
    }
    check(&findings);
}

#[test]
fn unsafe_code_is_only_where_it_is_said_to_be() {
    let sources = sources();
    let outside = sources.iter().filter(|source| !source.is_in(UNSAFE_IS_IN));
    let has_unsafe =
        |source: &&Source| has_ident(source.tokens.clone(), &|ident| ident == "unsafe");
    check(&outside.filter(has_unsafe).map(|source| source.path.clone()).collect::<Vec<_>>());
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let sources = sources();
    let silent = sources.iter().filter(|source| !source.text.starts_with("//! "));
    check(&silent.map(|source| source.path.clone()).collect::<Vec<_>>());
}

#[test]
fn no_file_is_too_long_to_read() {
    let mut findings = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            findings.push(format!("{}: {lines} lines", source.path));
        }
        for (number, line) in source.text.lines().enumerate() {
            if line.chars().count() > LINE_CHARS_MAX {
                findings.push(format!("{}:{}: too wide", source.path, number + 1));
            }
        }
    }
    check(&findings);
}

#[test]
fn nothing_is_left_to_do_in_the_source() {
    let mut findings = Vec::new();
    for source in sources() {
        let is_unfinished = |ident: &str| ["todo", "unimplemented"].contains(&ident);
        let has_mark = ["FIXME", "TODO", "XXX"].iter().any(|mark| source.text.contains(mark));
        if has_mark || has_ident(source.tokens.clone(), &is_unfinished) {
            findings.push(source.path);
        }
    }
    check(&findings);
}
