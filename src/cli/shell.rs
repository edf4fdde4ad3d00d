//! `moed completions` and `moed man`: what a package installs beside the program.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Arguments, Failure, failure, print};

/// Writes completions for a shell to standard output.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  moed completions bash > /usr/share/bash-completion/completions/moed"
)]
pub struct Completions {
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Result<(), Failure> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "moed", &mut text);
        print(&String::from_utf8_lossy(&text))
    }
}

/// Writes the manual page, all commands in one, to standard output.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  moed man > /usr/share/man/man1/moed.1")]
pub struct Man {}

impl Man {
    pub fn run(self) -> Result<(), Failure> {
        let Self {} = self;
        let mut text = Vec::new();
        let mut command = Arguments::command();
        command.build();
        clap_mangen::Man::new(command.clone()).render(&mut text).map_err(failure)?;
        for command in command.get_subcommands() {
            let man = clap_mangen::Man::new(command.clone());
            man.render_name_section(&mut text).map_err(failure)?;
            man.render_synopsis_section(&mut text).map_err(failure)?;
            man.render_options_section(&mut text).map_err(failure)?;
            man.render_extra_section(&mut text).map_err(failure)?;
        }
        print(&String::from_utf8_lossy(&text))
    }
}
