//! `thalweg tune`: which options make this path fast, by measurement.

#![allow(
    clippy::doc_markdown,
    reason = "the comments on arguments are the help text, which is not Markdown"
)]

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::failure::Failure;
use super::output;
use crate::bench::interrupt::Interrupt;
use crate::bench::load::shape::Direction;
use crate::bench::path::PathSpec;
use crate::bench::{machine, socket};
use crate::config::units::parse_duration;
use crate::net::limits;
use crate::observe::timestamp::timestamp;
use crate::tune::measure::Terms;
use crate::tune::objective::Objective;
use crate::tune::report::{self, Occasion, Report};
use crate::tune::space::{Candidate, Change, Searched};
use crate::tune::venue::{Venue, Where};
use crate::tune::{self, TuneError, TuneOptions};

const EXAMPLES: &str = "\
The far end: `thalweg origin -l :7000` there, `thalweg tune --to host:7000` here.

Options searched over (--options): leg (congestion, receive_buffer, send_buffer, mss,
  notsent_lowat, max_pacing_rate, quickack, busy_poll), forwarder (data_path,
  scratch_buffer, pipe_size, engine, global.busy_poll), or all

Examples:
  thalweg tune --loopback
  thalweg tune --to far.example:7000 --direction down --flows 4 --time 5m
  thalweg tune --path rtt=40ms,rate=1gbit,loss=0.1%,mtu=1500,queue=256KiB
  thalweg tune --to far.example:7000 --set receive_buffer=64KiB
  thalweg tune --loopback --objective throughput=1,latency=0.5 --html report.html
  thalweg tune --to far.example:7000 --profile wan.toml --profile-name wan";

/// Find the options that make a path fast, by measurement
///
/// Searches over socket options and forwarder settings in interleaved rounds, drops what is
/// surely worse, and confirms what leads in fresh runs against the kernel's defaults. A
/// difference inside the noise is not recommended: `leave it to the kernel` is an answer.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    /// Everything ends within this
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = parse_duration)]
    time: Duration,
    /// What is wanted: throughput, latency (p99 under load), cpu (seconds a gigabyte), or
    /// weights such as throughput=1,latency=0.5
    #[arg(long, value_name = "WHAT", default_value = "throughput")]
    objective: Objective,
    /// Which way the bytes go, seen from here
    #[arg(long, value_name = "WAY", default_value = "up")]
    direction: Way,
    /// Bulk flows at a time
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    flows: u16,
    /// What to search over: a list, or a group [default: whatever can matter on the path]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    options: Vec<String>,
    /// The settings in use now, as a profile of this file; they are compared too
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Which profile of that file [default: the only one]
    #[arg(long, value_name = "NAME", requires = "from")]
    from_profile: Option<String>,
    /// One setting in use now, KEY=VALUE as in a profile; it is compared too
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Change>,
    /// Set options on this end only, also where the far end is ours
    #[arg(long)]
    near_only: bool,
    /// Congestion control of the defaults on an emulated path [default: the system's]
    #[arg(long, value_name = "NAME", requires = "path")]
    congestion: Option<String>,
    /// A gain below this is not worth a setting
    #[arg(long, value_name = "PERCENT", default_value = "3%", value_parser = percent)]
    min_effect: f64,
    /// Makes the order of runs and the intervals repeatable
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    outputs: OutputArgs,
}

/// Where the far end is: exactly one of these.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct PlaceArgs {
    /// A `thalweg origin` at the far end; its port is 7000 unless given
    #[arg(long, value_name = "HOST[:PORT]")]
    to: Option<String>,
    /// An emulated path on this machine, such as rtt=40ms,rate=1gbit,loss=0.1% (needs root)
    #[arg(long, value_name = "PATH")]
    path: Option<PathSpec>,
    /// This machine's loopback
    #[arg(long)]
    loopback: bool,
}

#[derive(Debug, clap::Args)]
struct OutputArgs {
    /// Write everything as JSON to this file, or `-` for standard output instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write one HTML page with plots to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the profile to this file instead of printing it
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// What the profile is called
    #[arg(long, value_name = "NAME", default_value = "tuned")]
    profile_name: String,
}

/// `--direction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    /// From here to the far end.
    Up,
    /// From the far end to here.
    Down,
    /// Both at the same time.
    Both,
}

impl From<Way> for Direction {
    fn from(way: Way) -> Self {
        match way {
            Way::Up => Self::Up,
            Way::Down => Self::Down,
            Way::Both => Self::Both,
        }
    }
}

/// `3%` as 0.03.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    number
        .parse()
        .ok()
        .filter(|number: &f64| (0.0..=1000.0).contains(number))
        .map(|number| number / 100.0)
        .ok_or_else(|| format!("`{text}` is not a percentage such as 3%"))
}

/// Exit code 1 when the path cannot be measured, 2 when the settings are wrong.
#[expect(
    clippy::needless_pass_by_value,
    reason = "every subcommand has this signature"
)]
pub fn run(args: Args) -> ExitCode {
    match search(&args) {
        Ok((text, interrupted)) => {
            let printed = output::result(text.as_bytes());
            if !interrupted {
                return printed;
            }
            output::complain("interrupted: what was known by then is reported");
            ExitCode::FAILURE
        }
        Err(failure) => failure.report(),
    }
}

/// What to print, and whether an interrupt ended it early.
fn search(args: &Args) -> Result<(String, bool), Failure> {
    let started = Instant::now();
    let options = options(args)?;
    check_outputs(&args.outputs)?;
    // Both ends of every flow, and their duplicates for sampling.
    limits::raise_descriptor_limit()
        .map_err(|error| format!("cannot read the limit of descriptors: {error}"))?;
    let interrupt = Interrupt::install();
    let venue = Venue::open(&options.place, options.congestion.as_deref())?;
    let progress = progress(options.time);
    let result = tune::run(&options, &venue, &interrupt, started, &|step| {
        progress.set_position(step.elapsed.as_millis() as u64);
        progress.set_message(step.text.clone());
    });
    progress.finish_and_clear();
    let doubts = venue.doubts();
    drop(venue);
    let result = result.map_err(|error| match error {
        TuneError::Present(error) => Failure::Usage(format!("the present settings: {error}")),
        other => Failure::Running(other.to_string()),
    })?;
    let occasion = Occasion {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        when: timestamp(SystemTime::now()),
        machine: machine::facts(),
        place: place_in_words(args, &options.place),
        doubts,
        profile_name: args.outputs.profile_name.clone(),
    };
    let text = deliver(&args.outputs, &Report::new(&options, result, occasion))?;
    Ok((text, interrupt.is_raised()))
}

fn options(args: &Args) -> Result<TuneOptions, Failure> {
    let place = match &args.place {
        PlaceArgs { to: Some(text), .. } => {
            Where::Remote(socket::resolve_origin(text).map_err(Failure::of_address)?)
        }
        PlaceArgs {
            path: Some(spec), ..
        } => Where::Path(spec.clone()),
        _ => Where::Loopback,
    };
    if let Some(name) = &args.congestion {
        socket::check_congestion(name)
            .map_err(|error| Failure::Usage(format!("--congestion: {error}")))?;
    }
    let searched = match args.options.as_slice() {
        [] => None,
        words => Some(Searched::parse_list(words).map_err(Failure::Usage)?),
    };
    Ok(TuneOptions {
        place,
        terms: Terms {
            direction: args.direction.into(),
            flows: usize::from(args.flows),
            objective: args.objective,
            both_ends: !args.near_only,
        },
        time: args.time,
        searched,
        present: present(args)?,
        minimum_effect: args.min_effect,
        seed: args.seed,
        congestion: args.congestion.clone(),
    })
}

/// `--from`, and `--set` over it.
fn present(args: &Args) -> Result<Candidate, Failure> {
    let mut present = Candidate::default();
    if let Some(path) = &args.from {
        let name = path.display().to_string();
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::Usage(format!("cannot read {name}: {error}")))?;
        present = Candidate::from_file(&text, &name, args.from_profile.as_deref())
            .map_err(Failure::Usage)?;
    }
    for change in &args.set {
        present = present.with(&Candidate::single(change.clone()));
    }
    // Before anything is measured.
    present
        .options()
        .map_err(|error| Failure::Usage(format!("the present settings: {error}")))?;
    Ok(present)
}

fn place_in_words(args: &Args, place: &Where) -> String {
    let ends = match (place, args.near_only) {
        (Where::Remote(_), _) => "options set on this end only",
        (_, true) => "options set on the near end only",
        (_, false) => "options set on both ends",
    };
    match place {
        Where::Loopback => format!("loopback of this machine; {ends}"),
        Where::Remote(address) => format!("path to {address}; {ends}"),
        Where::Path(spec) => {
            format!("emulated path {spec} between two network namespaces; {ends}")
        }
    }
}

/// Before minutes of measuring, not after.
fn check_outputs(outputs: &OutputArgs) -> Result<(), Failure> {
    let files = [&outputs.json, &outputs.html, &outputs.profile];
    for path in files.into_iter().flatten().filter(|path| !is_stdout(path)) {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn deliver(outputs: &OutputArgs, report: &Report) -> Result<String, Failure> {
    let write = |path: &Path, content: &str| {
        fs::write(path, content)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    let json = serde_json::to_string_pretty(report)
        .map_err(|error| format!("cannot write JSON: {error}"))?
        + "\n";
    if let Some(path) = &outputs.html {
        write(path, &report::html::render(report))?;
    }
    let mut text = report::table::render(report);
    match &outputs.profile {
        Some(path) if !is_stdout(path) => write(path, &report.profile)?,
        _ => {
            text.push('\n');
            text.push_str(&report.profile);
        }
    }
    match &outputs.json {
        Some(path) if is_stdout(path) => return Ok(json),
        Some(path) => write(path, &json)?,
        None => {}
    }
    Ok(text)
}

fn progress(time: Duration) -> ProgressBar {
    let target = if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        ProgressDrawTarget::stderr_with_hz(5)
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(time.as_millis() as u64), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:16} {elapsed}  {wide_msg}") {
        bar.set_style(style);
    }
    bar
}
