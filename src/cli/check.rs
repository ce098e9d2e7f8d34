//! `thalweg check`: what a configuration means, without touching the network.

use std::path::PathBuf;
use std::process::ExitCode;

use super::flags::FlagArgs;
use super::host::Host;
use super::route::{Asked, explain};
use super::sources::SourceArgs;
use super::{USAGE, output};
use crate::config::Config;
use crate::control::{AccessFileError, Confinement, errors_of_lists};

const EXAMPLES: &str = "\
Examples:
  thalweg check -c thalweg.toml
  thalweg check -c thalweg.toml --set profile.wan.mss=1400
  thalweg check -l :5000-5009 -r host:6000-6009 > thalweg.toml
  thalweg check -c thalweg.toml --sandbox
  thalweg check -c thalweg.toml --route sni=a.example,alpn=h2,client=192.0.2.1

Exit code: 0 if the configuration is valid, 2 if not.";

/// Check a configuration and print what it means
///
/// Check a configuration without touching the network, and print it with every default
/// filled in, as a file that can be used in its place. All errors are reported at once, each
/// with its line and column; those of the files that lists name (`@partners.txt`) as well.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, max_term_width = 100, arg_required_else_help = true)]
pub struct Args {
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    flags: FlagArgs,

    /// Say where such a client would go, and why: sni=, host=, alpn=, protocol=, client=,
    /// listener=, forward=, with commas between them
    #[arg(long, value_name = "CLIENT")]
    route: Option<Asked>,

    /// Say what a sandbox lets it do here, and which key needs it
    #[arg(long, conflicts_with = "route")]
    sandbox: bool,

    /// Print nothing if it is valid
    #[arg(short, long)]
    quiet: bool,
}

/// Prints the resolved configuration, or all of its errors.
pub fn run(args: Args) -> ExitCode {
    let flags = args.flags.overrides(false);
    let host = Host::default();
    match args.sources.load(flags, &host) {
        Ok(config) if args.sandbox => {
            let files = host.asked().was_read();
            let files = files.keys().map(PathBuf::as_path);
            output::result(Confinement::foretold(&config, files).as_bytes())
        }
        Ok(config) => told(&config, args.route.as_ref(), args.quiet),
        Err(why) => why.told(),
    }
}

/// What a valid configuration means.
fn told(config: &Config, route: Option<&Asked>, quiet: bool) -> ExitCode {
    for advice in config.advice() {
        output::complain(&format!("warning: {advice}"));
    }
    let mut refused = false;
    for (forward, error) in errors_of_lists(config) {
        // A file may be there where the configuration is to run, and not here.
        let absent = matches!(error, AccessFileError::Unreadable { .. });
        let kind = if absent { "warning" } else { "error" };
        output::complain(&format!("{kind}: forward {forward}: {error}"));
        refused |= !absent;
    }
    if refused {
        return ExitCode::from(USAGE);
    }
    match route.map(|asked| explain(config, asked)) {
        Some(Ok(text)) => output::result(text.as_bytes()),
        Some(Err(message)) => {
            output::complain(&message);
            ExitCode::from(USAGE)
        }
        None if quiet => ExitCode::SUCCESS,
        None => output::result(config.to_toml().as_bytes()),
    }
}
