//! The flags that are short for a key of the configuration: what `run` takes, `check` and
//! `doctor` take as well, so that a command line can be looked at before it is run.

#![allow(
    clippy::doc_markdown,
    reason = "the comments on arguments are the help text, which is not Markdown"
)]

use clap::ValueHint;

use crate::config::Override;

/// Every flag of `run` but those that say what to forward, and `--quiet`, which is each
/// command's own.
#[derive(Debug, clap::Args)]
pub(super) struct FlagArgs {
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    tap: TapArgs,
}

/// `--quiet` as `run` means it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Log")]
pub(super) struct QuietArgs {
    /// Only what needs an operator (--log-level error, --log-sessions off)
    #[arg(short, long, conflicts_with_all = ["log_level", "log_sessions", "verbose"])]
    pub(super) quiet: bool,
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

    /// Also what a developer wants to know (--log-level debug)
    #[arg(short, long, conflicts_with = "log_level")]
    verbose: bool,
}

impl FlagArgs {
    /// The keys that the flags are short for.
    pub(super) fn overrides(self, quiet: bool) -> Vec<Override> {
        let Self { engine, log, tap } = self;
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
            ("--quiet", "log.level", word(quiet, "error")),
            ("--quiet", "log.sessions", word(quiet, "off")),
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
}
