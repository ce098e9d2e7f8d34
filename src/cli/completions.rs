//! `thalweg completions`: what a shell needs to complete the command line. For each TAB it calls
//! this program, which knows its commands and asks a running one for names.

use std::process::ExitCode;

use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};

use super::output;

/// What a shell sets to its name when it asks.
const VARIABLE: &str = "THALWEG_COMPLETE";

const ZSH_FIRST: &[u8] =
    b"\n[[ \"$funcstack[1]\" = _thalweg ]] && _clap_dynamic_completer_thalweg \"$@\"\n";

/// Not the one of the library, which takes each part of `web/10.0.0.2:80` for a word.
const BASH: &[u8] = include_bytes!("completions.bash");

const EXAMPLES: &str = "\
Examples:
  thalweg completions bash > /etc/bash_completion.d/thalweg
  thalweg completions zsh > /usr/share/zsh/site-functions/_thalweg
  thalweg completions fish > ~/.config/fish/completions/thalweg.fish

Names of servers, forwards and sessions are those of the thalweg that runs.";

/// Print completions for a shell
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the completions.
pub fn run(args: Args) -> ExitCode {
    if args.shell == Shell::Bash {
        return output::result(BASH);
    }
    let shells = Shells::builtins();
    let mut text = Vec::new();
    let written = shells
        .completer(&args.shell.to_string())
        .map(|it| it.write_registration(VARIABLE, "thalweg", "thalweg", "thalweg", &mut text));
    if args.shell == Shell::Zsh {
        // The first TAB loads the file as the function itself.
        text.extend_from_slice(ZSH_FIRST);
    }
    match written {
        Some(Ok(())) => output::result(&text),
        // Writing to a Vec cannot fail, and every shell that can be asked for is there.
        Some(Err(_)) | None => ExitCode::FAILURE,
    }
}

/// Answers a shell that asks what a word may be; `None` if none does.
pub(super) fn answer() -> Option<ExitCode> {
    std::env::var_os(VARIABLE)?;
    let here = std::env::current_dir().ok();
    let answered = CompleteEnv::with_factory(super::definition)
        .var(VARIABLE)
        .try_complete(std::env::args_os(), here.as_deref());
    match answered {
        Ok(true) => Some(ExitCode::SUCCESS),
        Ok(false) => None,
        Err(error) => Some(output::usage(error)),
    }
}
