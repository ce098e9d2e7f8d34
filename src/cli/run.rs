//! `thalweg run`, and `thalweg` without a command: forward until a signal ends it.

#![allow(
    clippy::doc_markdown,
    reason = "the comments on arguments are the help text, which is not Markdown"
)]

use std::process::ExitCode;

use clap::ValueHint;

use super::sources::SourceArgs;
use super::{USAGE, output};
use crate::config::{Config, Override};

const EXAMPLES: &str = "\
Examples:
  thalweg run -l :5000 -r 10.0.0.1:443
  thalweg run -c thalweg.toml --reactors 2
  thalweg run -l :5000 -r 10.0.0.1:80 --tap http
  thalweg run -c thalweg.toml --log-format json --log-to /var/log/thalweg.log

SIGTERM or SIGINT stops accepting and lets transfers finish, for at most
drain_timeout; a second one ends at once. SIGQUIT does the same, however often.
SIGHUP opens the log anew; SIGUSR1 logs the counters.";

/// Forward until SIGTERM or SIGINT
///
/// Forward until SIGTERM or SIGINT, which let running transfers finish.
///
/// What to forward comes from pairs of -l and -r, from a file, or from both. All errors of
/// the configuration are reported before anything starts.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    tap: TapArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Engine")]
struct EngineArgs {
    /// Who waits for the kernel: auto, epoll, or io_uring
    ///
    /// auto takes io_uring where it is built in and the kernel permits it.
    #[arg(long, value_name = "ENGINE", value_parser = ["auto", "epoll", "io_uring"],
          hide_possible_values = true)]
    engine: Option<String>,

    /// Threads that forward: a number, or auto
    ///
    /// auto is one for each core this process may use, by its CPU affinity and cgroup quota.
    #[arg(long, value_name = "COUNT")]
    reactors: Option<String>,

    /// How bytes cross: auto, copy, or splice
    ///
    /// auto copies short messages and splices bulk without a copy. A forward that says
    /// otherwise in the file keeps its own.
    #[arg(long, value_name = "PATH", value_parser = ["auto", "copy", "splice"],
          hide_possible_values = true)]
    data_path: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Tap")]
struct TapArgs {
    /// Show what flows: hex, text, http, or pcapng
    ///
    /// The first 64 KiB of every session, on standard error unless --tap-to says otherwise.
    /// http decodes HTTP/1, HTTP/2, gRPC and TLS records; pcapng is for Wireshark and needs a
    /// file. A forward with a tap of its own in the file keeps its keys.
    #[arg(long, value_name = "FORMAT", value_parser = ["hex", "text", "http", "pcapng"],
          hide_possible_values = true)]
    tap: Option<String>,

    /// Where the tap goes: stderr, or a file
    ///
    /// The path of a file needs a slash, such as ./tap.pcapng.
    #[arg(long, value_name = "TARGET", value_hint = ValueHint::FilePath)]
    tap_to: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Log")]
struct LogArgs {
    /// The least that is worth a line: error, warn, info, or debug
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug"],
          hide_possible_values = true)]
    log_level: Option<String>,

    /// text for people, json for machines
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"],
          hide_possible_values = true)]
    log_format: Option<String>,

    /// Which session records to write: off, close, or all
    ///
    /// close writes one at the end of each session, all also one at its start.
    #[arg(long, value_name = "WHICH", value_parser = ["off", "close", "all"],
          hide_possible_values = true)]
    log_sessions: Option<String>,

    /// Where lines go: stdout, stderr, or a file
    ///
    /// A file is appended to; its path needs a slash, such as ./thalweg.log.
    #[arg(long, value_name = "TARGET", value_hint = ValueHint::FilePath)]
    log_to: Option<String>,

    /// Only what needs an operator (--log-level error, --log-sessions off)
    #[arg(short, long, conflicts_with_all = ["log_level", "log_sessions", "verbose"])]
    quiet: bool,

    /// Also what a developer wants to know (--log-level debug)
    #[arg(short, long, conflicts_with = "log_level")]
    verbose: bool,
}

/// Forwards until a signal ends it.
pub fn run(args: Args) -> ExitCode {
    let flags = flags(args.engine, args.log, args.tap);
    let config = match args.sources.inputs(flags) {
        Ok(inputs) => Config::load(&inputs),
        Err(message) => {
            output::complain(&message);
            return ExitCode::from(USAGE);
        }
    };
    let config = match config {
        Ok(config) => config,
        Err(errors) => return output::configuration_errors(&errors),
    };
    match crate::control::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// The flags as the keys they are short for.
fn flags(engine: EngineArgs, log: LogArgs, tap: TapArgs) -> Vec<Override> {
    let word = |set: bool, word: &str| set.then(|| word.to_owned());
    [
        ("--engine", "global.engine", engine.engine),
        ("--reactors", "global.reactors", engine.reactors),
        ("--data-path", "defaults.data_path", engine.data_path),
        ("--tap", "defaults.tap.format", tap.tap),
        ("--tap-to", "defaults.tap.to", tap.tap_to),
        ("--log-level", "log.level", log.log_level),
        ("--log-format", "log.format", log.log_format),
        ("--log-sessions", "log.sessions", log.log_sessions),
        ("--log-to", "log.to", log.log_to),
        ("--verbose", "log.level", word(log.verbose, "debug")),
        ("--quiet", "log.level", word(log.quiet, "error")),
        ("--quiet", "log.sessions", word(log.quiet, "off")),
    ]
    .into_iter()
    .filter_map(|(flag, key, text)| {
        Some(Override {
            flag: flag.to_owned(),
            key: Some(key.to_owned()),
            text: text?,
        })
    })
    .collect()
}
