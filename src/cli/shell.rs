//! `moed completions` and `moed man`: what a package installs beside the program.

use clap::{Args, Command, CommandFactory as _};
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
#[command(after_help = "Examples:\n  moed man > /usr/share/man/man1/moed.1\n  \
    moed man | man --local-file -")]
pub struct Man {}

/// What no command's own help says.
const END: &str = r#".SH EXIT STATUS
.TP
0
Done.
.TP
1
It failed; the reason is on standard error. \fBmoed check\fR: a line says fail. \fBmoed models\fR:
a model is not ready. \fBmoed query\fR: a question has no answer. \fBmoed serve\fR: it could not
start, or requests were left when it had to stop.
.TP
2
The command line was wrong.
.TP
78
\fBmoed serve\fR: the configuration is wrong, and only its owner can mend it: systemd does not try
again.
.SH ENVIRONMENT
.TP
MOED_SOCKET
The daemon's socket, for \fBmoed serve\fR and for those that ask it.
.TP
MOED_KERNEL
Another of the kernels that \fBmoed check\fR lists than the fastest.
.TP
NO_COLOR
If it is set, output has no colours.
.SH FILES
.TP
/etc/moed/moed.toml
The configuration, if it is there.
.TP
/run/moed/moed.sock, $XDG_RUNTIME_DIR/moed/moed.sock
The socket of the system's daemon, and of a user's own.
.TP
/var/lib/moed/models, /usr/share/moed/models
Models.
"#;

impl Man {
    pub fn run(self) -> Result<(), Failure> {
        let Self {} = self;
        let mut command = Arguments::command().disable_help_subcommand(true);
        command.build();
        let mut text = Vec::new();
        let man = clap_mangen::Man::new(command.clone());
        man.render_title(&mut text).map_err(failure)?;
        man.render_name_section(&mut text).map_err(failure)?;
        man.render_synopsis_section(&mut text).map_err(failure)?;
        man.render_extra_section(&mut text).map_err(failure)?;
        let mut page = String::from_utf8_lossy(&text).replace(".SH EXTRA", ".SH DESCRIPTION");
        for command in command.get_subcommands() {
            page += &section(command)?;
        }
        print(&(page + END))
    }
}

/// A command's part of the page: its own page with its sections one level lower.
fn section(command: &Command) -> Result<String, Failure> {
    let mut text = Vec::new();
    let man = clap_mangen::Man::new(command.clone());
    man.render_synopsis_section(&mut text).map_err(failure)?;
    man.render_options_section(&mut text).map_err(failure)?;
    man.render_extra_section(&mut text).map_err(failure)?;
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let name = command.get_name().to_ascii_uppercase();
    let text = String::from_utf8_lossy(&text)
        .replace(".SH SYNOPSIS", &format!(".SH {name}\n{about}.\n.PP"))
        .replace(".SH OPTIONS", ".SS Options")
        .replace(".SH EXTRA", ".SS Notes");
    Ok(text)
}
