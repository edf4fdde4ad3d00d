//! Any file is loaded or refused: `load` returns, and says why in one line.
//!
//! tract panics on some of what passes `inspect`, on the loading thread, where `load` catches it.
//! libFuzzer must not take that for a crash, and libfuzzer-sys makes it one: its panic hook aborts
//! before anything is unwound. So this target puts a hook of its own in its place, which is
//! silent for the loading thread and aborts for every other: a panic that `load` would let
//! through, or that happens in a kernel's thread, is still found. (What must not be set is
//! `panic = "abort"`: then nothing could be caught. `cargo fuzz` sets it nowhere.)

#![no_main]

use std::panic;
use std::process;
use std::sync::OnceLock;
use std::thread;

use libfuzzer_sys::fuzz_target;
use moed::engine::limits::Limits;
use moed::engine::tract::load;
use moed::engine::{LoadOptions, Model as _};
use tempfile::TempDir;

/// The name that `load` gives to the thread whose panics it catches.
const LOADING_THREAD: &str = "moed-load";

const FILE: &str = "model.onnx";

/// Runs after libfuzzer-sys has set its hook.
#[expect(clippy::disallowed_methods, reason = "it is how libFuzzer learns of a crash")]
fn let_load_catch_panics() {
    panic::set_hook(Box::new(|info| {
        if thread::current().name() != Some(LOADING_THREAD) {
            eprintln!("{info}\n{}", std::backtrace::Backtrace::force_capture());
            process::abort();
        }
    }));
}

fn bundle() -> &'static TempDir {
    static BUNDLE: OnceLock<TempDir> = OnceLock::new();
    BUNDLE.get_or_init(|| tempfile::tempdir().expect("a temporary directory can be made"))
}

fuzz_target!(init: let_load_catch_panics(), |bytes: &[u8]| {
    let bundle = bundle().path();
    std::fs::write(bundle.join(FILE), bytes).expect("the temporary directory can be written");
    let limits = Limits { model_bytes_max: 1 << 20, ..Limits::default() };
    match load(bundle, FILE, &LoadOptions { limits, threads: 1 }) {
        Ok(model) => drop(model.session()),
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with(FILE), "the file is named: {text}");
            assert!(!text.contains(&*bundle.to_string_lossy()), "no path is given away: {text}");
        }
    }
});
