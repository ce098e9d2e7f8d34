//! `thalweg doctor`: what on this machine limits a forwarder.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde::Serialize;

use super::flags::{FlagArgs, QuietArgs};
use super::host::Host;
use super::output;
use super::sources::SourceArgs;
use crate::config::{Config, Override};
use crate::control::doctor::{self, Finding, State};

const EXAMPLES: &str = "\
Examples:
  thalweg doctor
  thalweg doctor -c thalweg.toml
  thalweg doctor -l :5000 -r 10.0.0.1:443 --set global.max_connections=100000 --json

Exit code: 0 if nothing is below what the configuration needs, 1 if something is, 2 for a
wrong configuration. Without a configuration nothing is needed.";

/// Say what on this machine limits a forwarder, and how to change it
///
/// Tries what a start takes hold of (listeners, log, tap, users), looks at descriptors, CPUs,
/// queues, buffers, ports, pipes, congestion controls, io_uring, offloads and the clock, and
/// changes nothing. Run it as the user, and in the unit or
/// container, that the forwarder will run in: limits differ between them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    flags: FlagArgs,
    #[command(flatten)]
    quiet: QuietArgs,

    /// Print everything as JSON instead of the table
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    /// Findings below what the configuration needs.
    short: usize,
    /// Findings that limit something else.
    notes: usize,
    /// Findings about which the kernel says nothing.
    unknown: usize,
    findings: &'a [Finding],
}

/// Prints what was found; exit code 1 when something falls short.
pub fn run(args: Args) -> ExitCode {
    let config = match load(args.sources, args.flags.overrides(args.quiet.quiet)) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let findings = doctor::examine(config.as_ref());
    let count = |state| findings.iter().filter(|it| it.state == state).count();
    let short = count(State::Short);
    let text = if args.json {
        let report = Report {
            short,
            notes: count(State::Note),
            unknown: count(State::Unknown),
            findings: &findings,
        };
        match serde_json::to_string_pretty(&report) {
            Ok(text) => text + "\n",
            Err(error) => {
                output::complain(&format!("cannot write JSON: {error}"));
                return ExitCode::FAILURE;
            }
        }
    } else {
        table(&findings)
    };
    let printed = output::result(text.as_bytes());
    if short > 0 {
        return ExitCode::FAILURE;
    }
    printed
}

/// The configuration, if one was given.
fn load(sources: SourceArgs, flags: Vec<Override>) -> Result<Option<Config>, ExitCode> {
    if sources.is_empty() {
        return Ok(None);
    }
    let config = sources.load(flags, &Host::default());
    config.map(Some).map_err(|why| why.told())
}

/// One line a finding, and below it what to do.
fn table(findings: &[Finding]) -> String {
    let width = |of: fn(&Finding) -> &str| {
        let widths = findings.iter().map(|it| of(it).chars().count());
        widths.max().unwrap_or(0).min(COLUMN_MAX)
    };
    let (names, founds) = (width(|it| &it.name), width(|it| &it.found));
    let mut out = String::new();
    for it in findings {
        let mark = match it.state {
            State::Fine => "ok",
            State::Unknown => "?",
            State::Note => "note",
            State::Short => "SHORT",
        };
        let wanted = match &it.wanted {
            Some(wanted) => format!("wanted: {wanted}"),
            None => String::new(),
        };
        let line = format!(
            "{mark:<5}  {:<names$}  {:<founds$}  {wanted}",
            it.name, it.found
        );
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", line.trim_end());
        if let Some(remedy) = &it.remedy {
            let _ = writeln!(out, "       {remedy}");
        }
    }
    let count = |state| findings.iter().filter(|it| it.state == state).count();
    let unknown = match count(State::Unknown) {
        0 => String::new(),
        1 => " 1 thing is unknown (?): see to that yourself.".to_owned(),
        count => format!(" {count} things are unknown (?): see to those yourself."),
    };
    let _ = match count(State::Short) {
        0 if unknown.is_empty() => writeln!(out, "\nNothing falls short of what is asked for."),
        0 => writeln!(
            out,
            "\nNothing that is known falls short of what is asked for.{unknown}"
        ),
        1 => writeln!(
            out,
            "\n1 thing falls short of what the configuration needs.{unknown}"
        ),
        short => writeln!(
            out,
            "\n{short} things fall short of what the configuration needs.{unknown}"
        ),
    };
    out
}

/// A column is no wider, so that one long text does not push the others apart.
const COLUMN_MAX: usize = 44;
