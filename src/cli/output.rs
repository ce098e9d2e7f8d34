//! Writing to people: stdout and stderr may be closed, full, or no terminal, and
//! none of that may panic.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::process::ExitCode;

use super::USAGE;
use crate::config::ConfigErrors;

/// Writes the result of a command. A reader that has seen enough (`| head`) is no
/// failure; a full disk is.
pub(super) fn result(bytes: &[u8]) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// One line on stderr, where someone may be listening.
pub(super) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "thalweg: {message}");
}

/// All errors of a configuration on stderr, and the exit code for them.
pub(super) fn configuration_errors(errors: &ConfigErrors) -> ExitCode {
    let mut stderr = io::stderr().lock();
    let colours = stderr.is_terminal() && colours_welcome();
    let _ = stderr.write_all(errors.render(colours).as_bytes());
    let _ = match errors.count() {
        1 => writeln!(stderr, "thalweg: 1 error in the configuration"),
        count => writeln!(stderr, "thalweg: {count} errors in the configuration"),
    };
    ExitCode::from(USAGE)
}

/// `NO_COLOR` (no-color.org) and a dumb terminal say no.
fn colours_welcome() -> bool {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !no_colour && !dumb
}
