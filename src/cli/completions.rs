//! `thalweg completions`: what a shell needs to complete the command line.

use std::process::ExitCode;

use clap_complete::Shell;

use super::output;

const EXAMPLES: &str = "\
Examples:
  thalweg completions bash > /etc/bash_completion.d/thalweg
  thalweg completions zsh > /usr/share/zsh/site-functions/_thalweg
  thalweg completions fish > ~/.config/fish/completions/thalweg.fish";

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
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut super::definition(), "thalweg", &mut text);
    output::result(&text)
}
