//! Bundles: what is taken, what is refused, and in which words.

mod archive;
mod manifest;
mod write;

use std::fs;
use std::path::{Path, PathBuf};

use moed::bundle::{Bundle, BundleError, Limits, Sha256};
use sha2::{Digest as _, Sha256 as Hasher};
use tempfile::TempDir;

use crate::support::data;

/// Golden answers of nothing: enough for tests that run no model.
const GOLDEN: &str = r#"[{"seed": 1, "inputs": {}, "outputs": {}, "tolerance": 0.01}]"#;

/// A bundle of a model of two layers of experts, whose golden answers are of nothing.
pub fn write_bundle(dir: &Path) {
    fs::create_dir_all(dir).expect("a directory");
    fs::copy(data("operators").join("qmoe-two-layers.onnx"), dir.join("model.onnx"))
        .expect("a fixture's file");
    fs::write(dir.join("golden.json"), GOLDEN).expect("written");
    fs::write(dir.join("manifest.toml"), manifest_of(dir, "")).expect("written");
}

/// A manifest that names all files that are in `dir`, with `more` before the files.
pub fn manifest_of(dir: &Path, more: &str) -> String {
    let mut text = format!(
        "format = 1\nname = \"two-layers\"\nversion = \"1.2.3\"\ntask = \"tensor\"\n\
         model = \"model.onnx\"\nlicence = \"MIT\"\nprovenance = \"random numbers\"\n{more}\n\
         [k]\nmin = 1\nmax = 2\ndefault = 2\n[memory]\nresident_bytes = 100000\n"
    );
    let mut names: Vec<_> =
        fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry")).collect();
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let name = entry.file_name().into_string().expect("UTF-8");
        if name == "manifest.toml" {
            continue;
        }
        let bytes = fs::read(entry.path()).expect("a file");
        let hash = Sha256(Hasher::digest(&bytes).into());
        text += &format!(
            "[[files]]\nname = \"{name}\"\nbytes = {}\nsha256 = \"{hash}\"\n",
            bytes.len()
        );
    }
    text
}

pub fn bundle() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("two-layers");
    write_bundle(&path);
    (dir, path)
}

fn open_and_verify(dir: &Path) -> Result<Bundle, BundleError> {
    let bundle = Bundle::open(dir, &Limits::default())?;
    bundle.verify()?;
    Ok(bundle)
}

fn refusal(dir: &Path) -> String {
    let error = open_and_verify(dir).map(|_| ()).expect_err("it is refused").to_string();
    assert!(!error.contains(&*dir.to_string_lossy()), "no path is given away: {error}");
    error
}

#[test]
fn a_bundle_with_exactly_the_files_that_its_manifest_names_opens() {
    let (_dir, path) = bundle();
    let bundle = open_and_verify(&path).expect("it opens");
    let manifest = bundle.manifest();
    assert_eq!((manifest.name.as_str(), manifest.model.as_str()), ("two-layers", "model.onnx"));
    assert_eq!(manifest.version.to_string(), "1.2.3");
    let k = manifest.k.expect("a range");
    assert_eq!((k.min(), k.default_k(), k.max()), (1, 2, 2));
    assert_eq!(bundle.golden().expect("it is read").cases(), 1);
}

#[test]
fn a_changed_byte_is_found_by_its_hash_and_a_changed_length_before() {
    let (_dir, path) = bundle();
    let model = path.join("model.onnx");
    let mut bytes = fs::read(&model).expect("the model");
    *bytes.last_mut().expect("a byte") ^= 1;
    fs::write(&model, &bytes).expect("written");
    Bundle::open(&path, &Limits::default()).expect("the size is right");
    assert_eq!(
        refusal(&path),
        "model.onnx: its SHA-256 is not that of manifest.toml; copy the bundle again"
    );
    bytes.push(0);
    fs::write(&model, &bytes).expect("written");
    let error = Bundle::open(&path, &Limits::default()).map(|_| ()).expect_err("refused");
    assert!(matches!(error, BundleError::Size { .. }), "{error}");
}

#[test]
fn a_file_that_is_not_named_and_a_name_without_a_file_are_refused() {
    let (_dir, path) = bundle();
    fs::write(path.join("more.bin"), b"").expect("written");
    assert_eq!(
        refusal(&path),
        "more.bin: not named in manifest.toml; remove it, or name it under [[files]]"
    );
    fs::remove_file(path.join("more.bin")).expect("removed");
    fs::create_dir(path.join("more")).expect("a folder");
    assert!(refusal(&path).starts_with("more: not named"));
    fs::remove_dir(path.join("more")).expect("removed");
    fs::remove_file(path.join("golden.json")).expect("removed");
    assert!(refusal(&path).starts_with("golden.json: entity not found"));
}

#[test]
fn links_and_folders_in_place_of_files_are_refused() {
    let (dir, path) = bundle();
    let (model, outside) = (path.join("model.onnx"), dir.path().join("outside.onnx"));
    fs::rename(&model, &outside).expect("moved out");
    std::os::unix::fs::symlink(&outside, &model).expect("a link");
    assert!(refusal(&path).contains("a link"), "{}", refusal(&path));
    fs::remove_file(&model).expect("removed");
    fs::hard_link(&outside, &model).expect("a hard link");
    assert!(refusal(&path).contains("hard links"), "{}", refusal(&path));
    fs::remove_file(&model).expect("removed");
    fs::create_dir(&model).expect("a folder");
    assert!(refusal(&path).contains("not a regular file"), "{}", refusal(&path));
    fs::remove_dir(&model).expect("removed");
    fs::rename(&outside, &model).expect("moved back");
    fs::rename(path.join("manifest.toml"), dir.path().join("manifest.toml")).expect("moved out");
    assert!(refusal(&path).starts_with("manifest.toml: "));
    std::os::unix::fs::symlink("../manifest.toml", path.join("manifest.toml")).expect("a link");
    assert!(refusal(&path).contains("a link"), "{}", refusal(&path));
}

#[test]
fn what_is_over_a_limit_is_refused_before_it_is_read() {
    let (_dir, path) = bundle();
    let manifest = fs::metadata(path.join("manifest.toml")).expect("the manifest").len();
    let total = open_and_verify(&path).expect("it opens").manifest().files_bytes();
    let limits = |manifest_bytes_max, bundle_bytes_max| Limits {
        manifest_bytes_max,
        bundle_bytes_max,
        ..Limits::default()
    };
    Bundle::open(&path, &limits(manifest, total)).expect("at the limits it opens");
    for limits in [limits(manifest - 1, total), limits(manifest, total - 1)] {
        let error = Bundle::open(&path, &limits).map(|_| ()).expect_err("refused");
        assert!(error.to_string().contains("over the limit"), "{error}");
    }
    let limits = Limits { golden_bytes_max: 10, ..Limits::default() };
    let error = Bundle::open(&path, &limits).expect("it opens").golden().expect_err("refused");
    assert!(error.to_string().starts_with("golden.json: over the limit"), "{error}");
}
