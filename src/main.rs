//! The `moed` command: see [`moed::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    moed::cli::run()
}
