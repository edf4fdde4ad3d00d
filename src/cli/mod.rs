//! The command line: what was asked for, carried out and put into words.
//!
//! Exit codes: 0 done, 1 it failed (the reason is on standard error), 2 the command line was
//! wrong.

mod resolve;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::engine::kernel;
use crate::engine::tract::{TractModel, load};
use crate::engine::{LoadOptions, Model as _, Port};

/// Runs Mixture-of-Experts models on small boards, and computes only the experts it needs.
#[derive(Debug, Parser)]
#[command(name = "moed", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows what a model takes, gives and holds, and that it loads here.
    #[command(after_help = "Example:\n  moed inspect model.onnx\n\n\
        The model is loaded as the daemon would load it. What it can't run is named, with the\n\
        node and the cause, on standard error; the exit code is then 1.")]
    Inspect {
        /// An ONNX file; its external data is looked for beside it.
        model: PathBuf,
    },
    /// Says what sentences want done in your home: one a line in, one answer a line out.
    #[command(after_help = "Example:\n  echo 'turn on the kitchen light' | \\\n    \
        moed resolve --home home.toml models/intent\n\n\
        A line is a sentence, or a JSON object with the field `text`. An answer is a JSON object:\n\
        intent, confidence, slots, entities, areas, text; or error, if there is none.")]
    Resolve(resolve::Arguments),
    /// Shows this machine as moed sees it: kernels, the one in use, page size.
    #[command(after_help = "MOED_KERNEL=NAME chooses another of the kernels listed.")]
    Check,
}

/// Reads the command line, does what it says.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Inspect { model } => inspect(&model),
        Command::Resolve(arguments) => {
            let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
            resolve::run(&arguments, &mut input, &mut output).map(|()| String::new())
        }
        Command::Check => check(),
    };
    let written = done.and_then(|text| {
        let written = std::io::stdout().lock().write_all(text.as_bytes());
        written.map_err(|error| format!("standard output: can't be written: {error}"))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is the last resort: if it can't be written, nobody can be told.
            drop(writeln!(std::io::stderr(), "moed: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<String, String> {
    let active = kernel::active().map_err(|error| error.to_string())?;
    let names: Vec<_> = kernel::available().iter().map(|kernel| kernel.name()).collect();
    Ok(format!(
        "kernel     {} (of {})\npage size  {} bytes\nprocessors {}\n",
        active.name(),
        names.join(", "),
        rustix::param::page_size(),
        std::thread::available_parallelism().map_or(1, usize::from),
    ))
}

fn inspect(path: &Path) -> Result<String, String> {
    let (Some(file), Some(bundle)) =
        (path.file_name().and_then(|file| file.to_str()), path.parent())
    else {
        return Err(format!("{}: not the name of a file; name an .onnx file", path.display()));
    };
    let bundle = if bundle.as_os_str().is_empty() { Path::new(".") } else { bundle };
    let model = load(bundle, file, &LoadOptions::default()).map_err(|error| error.to_string())?;
    Ok(describe(&model))
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
    text
}

fn describe_port(port: &Port) -> String {
    let dims: Vec<_> = port.dims.iter().map(ToString::to_string).collect();
    format!("{}: {:?} [{}]", port.name, port.dtype, dims.join(", "))
}
