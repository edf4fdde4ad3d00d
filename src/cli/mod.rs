//! The command line: what was asked for, carried out and put into words.
//!
//! Each command is a file; here is what they share. Exit codes: 0 done, 1 it failed (the reason is
//! on standard error), 2 the command line was wrong, 78 (EX_CONFIG of sysexits.h) the
//! configuration is, and `moed serve` does not start.

mod bench;
mod bundle;
mod check;
mod client;
mod demo;
mod inspect;
mod models;
mod process;
mod query;
mod resolve;
mod serve;
mod shell;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs Mixture-of-Experts models on small boards, and computes only the experts it needs.
#[derive(Debug, Parser)]
#[command(
    name = "moed",
    version,
    arg_required_else_help = true,
    after_help = "Examples:\n  \
        moed demo                                   see it work, with the model that is shipped\n  \
        moed serve --models models                  answer on a socket\n  \
        moed query intent 'turn on the kitchen light'\n  \
        moed check                                  what this machine and its models are like\n\n\
        Exit codes: 0 done; 1 it failed, the reason is on standard error; 2 the command line is \
        wrong."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Query(query::Query),
    Models(models::Models),
    Check(check::Check),
    Inspect(inspect::Inspect),
    Bundle(bundle::Bundle),
    Bench(bench::Bench),
    Demo(demo::Demo),
    Resolve(resolve::Resolve),
    Completions(shell::Completions),
    Man(shell::Man),
}

/// The exit code that tells systemd not to try again: `RestartPreventExitStatus=` of moed.service.
const CONFIGURATION_IS_WRONG: u8 = 78;

/// What a command says when it has failed: `what: which: cause`, and what to do.
type Failure = String;

/// Reads the command line, does what it says.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let mut code = ExitCode::FAILURE;
    let done = match arguments.command {
        Command::Serve(command) => command.run().map_err(|ended| {
            if ended.is_configuration {
                code = ExitCode::from(CONFIGURATION_IS_WRONG);
            }
            ended.reason
        }),
        Command::Query(command) => command.run(),
        Command::Models(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Bundle(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::Resolve(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is the last resort: if it can't be written, nobody can be told.
            let _ = writeln!(std::io::stderr(), "moed: {error}");
            code
        }
    }
}

/// Writes to standard output.
fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(|_| ())
}

/// Writes to standard output, and says whether anybody reads on. Somebody who has read enough,
/// `head` say, is no failure.
fn print_on(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(format!("standard output: can't be written: {error}")),
    }
}

/// Makes an error a command's.
fn failure(error: impl std::fmt::Display) -> Failure {
    error.to_string()
}
