//! Writing to people, for every command: stdout and stderr may be closed, full, slow, or
//! no terminal, and none of that may panic. `print!` and its kin do; a lint keeps them out.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;

use super::{USAGE, hints};
use crate::config::ConfigErrors;
use crate::observe::aside::aside;

/// Writes the result of a command, all of it. A reader that has seen enough (`| head`)
/// is no failure; a full disk is.
pub(super) fn result(bytes: &[u8]) -> ExitCode {
    match say(bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

/// Writes to standard output what is not the end of a command yet. The error is the
/// exit code to end with: 0, without a word, where nobody reads any more.
pub(super) fn say(bytes: &[u8]) -> Result<(), ExitCode> {
    match write_all(bytes) {
        Ok(()) => Ok(()),
        Err(Errno::EPIPE) => Err(ExitCode::SUCCESS),
        Err(errno) => {
            let error = io::Error::from(errno);
            complain(&format!("cannot write to standard output: {error}"));
            Err(ExitCode::FAILURE)
        }
    }
}

/// Past std's buffer, which reports an error late or not at all, and which loses bytes
/// where another process has made the same pipe or terminal non-blocking.
fn write_all(mut bytes: &[u8]) -> Result<(), Errno> {
    let stdout = io::stdout();
    while !bytes.is_empty() {
        match unistd::write(&stdout, bytes) {
            Ok(0) => return Err(Errno::EIO),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut wanted = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut wanted, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// What clap has to say: help and versions are a result, the rest is wrong usage.
pub(super) fn usage(mut error: clap::Error) -> ExitCode {
    if let Some(hint) = hints::of(&error) {
        let hint = vec![hint.into()];
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(hint));
    }
    let text = error.render();
    let paint = |terminal: bool| {
        if terminal && colours_welcome() {
            text.ansi().to_string()
        } else {
            text.to_string()
        }
    };
    if error.use_stderr() {
        aside(&paint(io::stderr().is_terminal()));
        return ExitCode::from(USAGE);
    }
    result(paint(io::stdout().is_terminal()).as_bytes())
}

/// A line for whoever watches, on stderr: no result, and no failure.
pub(super) fn note(text: &str) {
    aside(&format!("{text}\n"));
}

/// One line on stderr, where someone may be listening.
pub(super) fn complain(message: &str) {
    aside(&format!("thalweg: {message}\n"));
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
