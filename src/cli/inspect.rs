//! `moed inspect`: what is in a model, or in a bundle.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, failure, print};
use crate::bundle::{self, Manifest};
use crate::engine::tract::{TractModel, load};
use crate::engine::{LoadOptions, Model as _, Port};

/// Shows what a model takes, gives and holds, and that it loads here.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  moed inspect model.onnx\n  moed inspect models/intent\n\n\
    The model is loaded as the daemon would load it, and what tract makes of its operators is\n\
    shown: constants are folded, operators joined. What it can't run is named, with the\n\
    node and the cause, on standard error; the exit code is then 1.")]
pub struct Inspect {
    /// A bundle's directory, or an ONNX file; its external data is looked for beside it.
    model: PathBuf,
}

impl Inspect {
    pub fn run(self) -> Result<(), Failure> {
        print(&if self.model.is_dir() {
            inspect_bundle(&self.model)?
        } else {
            inspect(&self.model)?
        })
    }
}

fn inspect_bundle(path: &Path) -> Result<String, Failure> {
    let bundle = bundle::Bundle::open(path, &bundle::Limits::default()).map_err(failure)?;
    bundle.verify().map_err(failure)?;
    let manifest = bundle.manifest();
    let model = load(path, &manifest.model, &LoadOptions::default()).map_err(failure)?;
    Ok(describe_manifest(manifest) + &describe(&model))
}

fn inspect(path: &Path) -> Result<String, Failure> {
    let (Some(file), Some(bundle)) =
        (path.file_name().and_then(|file| file.to_str()), path.parent())
    else {
        return Err(format!("{}: not the name of a file; name an .onnx file", path.display()));
    };
    let bundle = if bundle.as_os_str().is_empty() { Path::new(".") } else { bundle };
    let model = load(bundle, file, &LoadOptions::default()).map_err(failure)?;
    Ok(describe(&model))
}

fn describe_manifest(manifest: &Manifest) -> String {
    let mib = manifest.resident_bytes as f64 / f64::from(1 << 20);
    let k = manifest.k.map_or_else(String::new, |k| {
        format!("k           {} to {}, {} where nobody chooses\n", k.min(), k.max(), k.default_k())
    });
    let files = manifest.files.iter().map(|file| {
        format!("  {}: {} KiB, sha256 {}\n", file.name, file.bytes.div_ceil(1024), file.sha256)
    });
    format!(
        "bundle      {} {}, task {}\nlicence     {}\nmemory      {mib:.1} MiB, estimated\n{k}\
         files, verified\n{}",
        manifest.name,
        manifest.version,
        manifest.task.word(),
        manifest.licence,
        files.collect::<String>(),
    )
}

fn describe(model: &TractModel) -> String {
    let mut text = String::new();
    let signature = model.signature();
    for (title, ports) in [("inputs", &signature.inputs), ("outputs", &signature.outputs)] {
        text += &format!("{title}\n");
        text.extend(ports.iter().map(|port| format!("  {}\n", describe_port(port))));
    }
    if !model.layers().is_empty() {
        text += "layers of experts\n";
    }
    for layer in model.layers() {
        let kib = layer.expert_bytes.div_ceil(1024);
        text += &format!(
            "  {}: top-{} of {} experts, {kib} KiB each, {} KiB in all\n",
            layer.name,
            layer.k,
            layer.experts,
            kib * layer.experts as u64
        );
    }
    text += "operators\n";
    for ((domain, operator), count) in model.operators() {
        let dot = if domain.is_empty() { "" } else { "." };
        text += &format!("  {count:>5} {domain}{dot}{operator}\n");
    }
    text += "what tract runs for them\n";
    for (operator, count) in model.plan_operators() {
        text += &format!("  {count:>5} {operator}\n");
    }
    text
}

fn describe_port(port: &Port) -> String {
    let dims: Vec<_> = port.dims.iter().map(ToString::to_string).collect();
    format!("{}: {:?} [{}]", port.name, port.dtype, dims.join(", "))
}
