//! `thalweg check`: what a configuration means, without touching the network.

use std::process::ExitCode;

use super::flags::FlagArgs;
use super::sources::SourceArgs;
use super::{USAGE, output};
use crate::config::Config;

const EXAMPLES: &str = "\
Examples:
  thalweg check -c thalweg.toml
  thalweg check -c thalweg.toml --set profile.wan.mss=1400
  thalweg check -l :5000-5009 -r host:6000-6009 > thalweg.toml

Exit code: 0 if the configuration is valid, 2 if not.";

/// Check a configuration and print what it means
///
/// Check a configuration without touching the network, and print it with every default
/// filled in, as a file that can be used in its place. All errors are reported at once, each
/// with its line and column.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, max_term_width = 100, arg_required_else_help = true)]
pub struct Args {
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    flags: FlagArgs,

    /// Print nothing if it is valid
    #[arg(short, long)]
    quiet: bool,
}

/// Prints the resolved configuration, or all of its errors.
pub fn run(args: Args) -> ExitCode {
    let inputs = match args.sources.inputs(args.flags.overrides(false)) {
        Ok(inputs) => inputs,
        Err(message) => {
            output::complain(&message);
            return ExitCode::from(USAGE);
        }
    };
    match Config::load(&inputs) {
        Ok(_) if args.quiet => ExitCode::SUCCESS,
        Ok(config) => output::result(config.to_toml().as_bytes()),
        Err(errors) => output::configuration_errors(&errors),
    }
}
