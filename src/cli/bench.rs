//! `thalweg bench`: what it forwards, how fast, at what cost, beside its peers.

#![allow(
    clippy::doc_markdown,
    reason = "the comments on arguments are the help text, which is not Markdown"
)]

use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::failure::Failure;
use super::output;
use crate::bench::harness::{self, BenchOptions, Layout, LayoutResult};
use crate::bench::interrupt::Interrupt;
use crate::bench::load::shape::Shape;
use crate::bench::path::{Link, PathFacts, PathSpec};
use crate::bench::report::{self, Report};
use crate::bench::subjects::{self, Subject};
use crate::bench::{machine, netns, socket, stats};
use crate::config::units::parse_duration;
use crate::net::limits;
use crate::observe::timestamp::timestamp;

const EXAMPLES: &str = "\
Subjects: direct (no forwarder), thalweg, nginx, haproxy, realm, socat, or any command
  thalweg:epoll thalweg:uring thalweg:copy thalweg:splice thalweg:tap (the first 64 KiB
  of each session are shown, to /dev/null) thalweg:connect (an HTTP CONNECT proxy)
  thalweg:warm (connections kept ready), joined by +; also KEY=VALUE as for --set;
  nginx:tuned (large buffer); haproxy:nosplice; NAME=KIND names one; KIND@PATH takes
  another binary; forwards=N and servers=N (thalweg, nginx, haproxy) give it a large
  configuration, compared with the same subject without; thalweg:sni nginx+preread haproxy+sni
  are routed by the server that a TLS hello asks for; +proxy2 (the same three) takes a PROXY header
  off; thalweg:access=100000 has a list of so many networks, and limits; cmd:COMMAND has {listen} and {upstream} in it

Shapes: bulk-up bulk-down bulk-both rr crr crr-nagle ping mix burst udp-rr udp-stream, each with :KEY=VALUE
  flows=N, size=64KiB and rate=20k (exchanges), bulk=N and direction=up|down|both (mix).
  ping is rr with one flow. In crr-nagle the origin answers in two writes, with Nagle on. With a rate, latency counts from when a request was due.
  mix is rr beside bulk flows, compared with the same rr alone in each round.
  burst: bulk=16 flows with size=6MB each and flows=8 with one byte become ready while the
  subject stands still; the share of the bulk that moves before the bytes is measured.
  udp-rr: a question in a datagram and its answer, 64 bytes each, from 64 ports that are kept, or
  port=new for each. udp-stream: datagrams of size=1200 in flows=4, direction=up|down|both, as
  fast as they arrive with window=64 of them under way, at rate=50k, or window=0 for no bound;
  train=16 sends and takes so many in one piece. What is lost is reported.

Examples:
  thalweg bench --quick
  thalweg bench --subjects direct,thalweg,nginx --shapes bulk-up,rr,crr --report out
  thalweg bench --subjects thalweg:copy,thalweg:splice --shapes bulk-down --against thalweg:copy
  thalweg bench --subjects thalweg,thalweg:tap --shapes bulk-up,bulk-down --against thalweg
  thalweg bench --subjects thalweg,nginx --shapes rr:rate=20k:size=1KiB,mix
  thalweg bench --subjects direct,thalweg,nginx --shapes udp-rr,udp-rr:port=new,udp-stream
  thalweg bench --subjects thalweg,nginx --layout own-core --shapes \\
    mix:bulk=50:flows=200:direction=up
  thalweg bench --subjects thalweg,thalweg:forwards=8000,nginx,nginx:forwards=8000 \\
    --shapes crr,rr --starts 5
  thalweg bench --subjects thalweg,thalweg:sni,nginx+preread,haproxy+sni --shapes crr
  thalweg bench --subjects direct,thalweg --path rtt=40ms,rate=200Mbit,loss=0.1%
  thalweg bench --subjects thalweg,old=thalweg@./thalweg-old --against old";

/// Measure forwarders side by side: throughput, latency, CPU, memory
///
/// Runs every subject in interleaved rounds (A B C, C B A, ...) with the same load, and
/// compares them with intervals over the rounds. Ctrl-C reports the finished rounds.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    /// Whom to measure [default: direct,thalweg and what is installed of nginx,haproxy,realm]
    #[arg(long, value_name = "LIST")]
    subjects: Vec<String>,
    /// One more subject, taken as it is (may contain commas)
    #[arg(long, value_name = "SUBJECT")]
    subject: Vec<String>,
    /// With which traffic [default: bulk-up,bulk-down,ping,rr,crr]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    shapes: Vec<Shape>,
    /// Everything on one core, the forwarder on its own core, or both [default: both]
    #[arg(long, value_name = "LAYOUT", value_delimiter = ',')]
    layout: Vec<Layout>,
    /// Rounds of each measurement; fewer than 3 give no verdict [default: 7]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Measured time in each round [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Traffic before the measured time [default: 300ms]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    warm_up: Option<Duration>,
    /// Few and short rounds, everything on one core: under a minute
    #[arg(long)]
    quick: bool,
    /// Compare with this subject [default: nginx, or direct]
    #[arg(long, value_name = "SUBJECT")]
    against: Option<String>,
    /// Event loops of each forwarder
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Threads of the generator and of the origin [default: one for each of their CPUs]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Start every subject so often and say what that costs, 0 for not at all
    #[arg(long, value_name = "COUNT", default_value_t = 0,
          value_parser = clap::value_parser!(u16).range(0..=1000))]
    starts: u16,
    /// Idle sessions for the memory figure, 0 for none [default: 1000]
    #[arg(long, value_name = "COUNT")]
    idle_sessions: Option<usize>,
    /// Of so many MiB of a bulk flow, compare one with what was sent; 1 compares every byte
    #[arg(long, value_name = "COUNT", default_value_t = 32,
          value_parser = clap::value_parser!(u16).range(1..))]
    check_one_in: u16,
    /// Measure in a network namespace of its own: auto, yes, or no
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    netns: netns::Choice,
    /// Congestion control of every leg in that namespace; outside of one, of the
    /// generator's and the origin's sockets only [default: cubic; outside: the system's]
    #[arg(long, value_name = "NAME")]
    congestion: Option<String>,
    /// Put the origin behind an emulated path, such as rtt=40ms,rate=200Mbit,loss=0.1%
    ///
    /// Clients and forwarders are at its near end, the origin at its far end. Parts: rtt and
    /// rate (needed), loss, mtu (1500), queue (a bandwidth-delay product), jitter, seed.
    /// Needs root.
    #[arg(long, value_name = "SPEC")]
    path: Option<PathSpec>,
    /// Decides in which order subjects are measured within the rounds
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Print everything as JSON instead of the table
    #[arg(long)]
    json: bool,
    /// Write report.html, report.json, table.txt, summary.md and the plots as SVG here
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

/// Exit code 1 when something could not be measured or an interrupt ended it early, 2 when
/// what was asked for cannot be meant.
#[expect(
    clippy::needless_pass_by_value,
    reason = "every subcommand has this signature"
)]
pub fn run(args: Args) -> ExitCode {
    match measure(&args) {
        Ok(Outcome { text, failures }) => {
            let printed = output::result(text.as_bytes());
            if failures.is_empty() {
                return printed;
            }
            for failure in failures {
                output::complain(&failure);
            }
            ExitCode::FAILURE
        }
        Err(failure) => failure.report(),
    }
}

/// What to print, and what failed.
struct Outcome {
    text: String,
    failures: Vec<String>,
}

fn measure(args: &Args) -> Result<Outcome, Failure> {
    let subjects = chosen_subjects(args).map_err(Failure::Usage)?;
    let baseline = baseline(args, &subjects).map_err(Failure::Usage)?;
    check(args, &subjects).map_err(Failure::Usage)?;
    if let Some(directory) = &args.report {
        // Before minutes of measuring, not after.
        fs::create_dir_all(directory)
            .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    }
    let Stage {
        mut place,
        path,
        interrupt,
    } = enter(args)?;
    let options = options(args, subjects, &place, path.clone())?;
    let progress = progress();
    let started = Instant::now();
    let results = harness::run(&options, &interrupt, &|step| {
        progress.set_length(step.total as u64);
        progress.set_position(step.done as u64);
        progress.set_message(step.text.clone());
    });
    progress.finish_and_clear();
    let results = results?;
    let path = path.as_deref().map(PathFacts::of);
    if let (Some(path), Some(asked)) = (&path, &args.path) {
        place.notes.extend(path.doubts(asked.rtt));
    }
    let report = Report {
        head: report::Head::new(
            "thalweg-bench",
            std::env::args().collect::<Vec<_>>().join(" "),
            timestamp(SystemTime::now()),
            machine::facts(),
        ),
        method: method(&options, &place, started.elapsed()),
        interrupted: interrupt
            .is_raised()
            .then(|| interrupted(&options, &results)),
        place,
        path,
        layouts: report::layouts(&options, &results, &baseline),
        baseline,
    };
    let table = report::table::render(&report);
    let json = serde_json::to_string_pretty(&report)
        .map_err(|error| format!("cannot write JSON: {error}"))?;
    if let Some(directory) = &args.report {
        write_report(directory, &report, &table, &json)?;
    }
    let failures = report.failures().into_iter();
    let failures = failures.map(|failure| format!("not compared: {failure}"));
    Ok(Outcome {
        failures: failures.chain(report.interrupted.clone()).collect(),
        text: if args.json { json + "\n" } else { table },
    })
}

/// What an interrupt left, in words.
fn interrupted(options: &BenchOptions, results: &[LayoutResult]) -> String {
    let each = options.layouts.iter().map(|layout| {
        let result = results.iter().find(|it| it.layout == *layout);
        let cells = result.into_iter().flat_map(|it| &it.cells);
        let rounds = cells.map(|it| it.samples.len()).max().unwrap_or(0);
        format!("{} of {} rounds {}", rounds, options.rounds, layout.name())
    });
    let each: Vec<String> = each.collect();
    format!("interrupted: finished were {}", each.join(", "))
}

/// What can be said of the arguments before anything starts.
fn check(args: &Args, subjects: &[Subject]) -> Result<(), String> {
    if args.duration.is_some_and(|time| time.is_zero()) {
        return Err("--duration must be more than nothing".to_owned());
    }
    if let Some(name) = &args.congestion {
        socket::check_congestion(name).map_err(|error| format!("--congestion: {error}"))?;
    }
    if args.path.is_some() {
        if args.netns == netns::Choice::No {
            return Err("--path needs network namespaces: leave --netns no out".to_owned());
        }
        if subjects.iter().any(|subject| subject.size.servers > 1) {
            return Err("servers=N and --path do not go together".to_owned());
        }
    }
    Ok(())
}

/// Where and until when a run measures.
struct Stage {
    place: netns::Place,
    path: Option<Arc<Link>>,
    interrupt: Interrupt,
}

/// Enters the namespace of the run, and takes signals from then on.
fn enter(args: &Args) -> Result<Stage, String> {
    let congestion = args.congestion.as_deref().unwrap_or("cubic");
    let Some(spec) = &args.path else {
        let place = netns::enter(args.netns, congestion)?;
        check_place(args, &place)?;
        // After the namespace: the kernel lets only a process with a single thread make
        // the user namespace which that takes without privileges.
        let interrupt = Interrupt::install();
        return Ok(Stage {
            place,
            path: None,
            interrupt,
        });
    };
    // Before the threads of the path, which inherit the mask.
    let interrupt = Interrupt::install();
    let link = Link::start(spec).map_err(|error| format!("--path: {error}"))?;
    let place = netns::enter_path(&link, congestion)?;
    check_place(args, &place)?;
    Ok(Stage {
        place,
        path: Some(Arc::new(link)),
        interrupt,
    })
}

/// What was asked for by name is what is measured, or nothing is.
fn check_place(args: &Args, place: &netns::Place) -> Result<(), String> {
    match &args.congestion {
        Some(name) if place.isolated && place.congestion != *name => Err(format!(
            "--congestion {name}: the legs have {} instead ({})",
            place.congestion,
            place.notes.join("; ")
        )),
        _ => Ok(()),
    }
}

fn chosen_subjects(args: &Args) -> Result<Vec<Subject>, String> {
    let mut subjects = subjects::parse_list(&args.subjects)?;
    for text in &args.subject {
        subjects.push(text.parse()?);
    }
    if subjects.is_empty() {
        subjects = subjects::usual();
    }
    Ok(subjects)
}

fn baseline(args: &Args, subjects: &[Subject]) -> Result<String, String> {
    let named = |name: &str| subjects.iter().find(|subject| subject.name == name);
    match &args.against {
        Some(name) => match named(name) {
            Some(subject) => Ok(subject.name.clone()),
            None => Err(format!(
                "--against {name}: there is no such subject in this run"
            )),
        },
        None => Ok(named("nginx")
            .or_else(|| named("direct"))
            .unwrap_or(&subjects[0])
            .name
            .clone()),
    }
}

fn options(
    args: &Args,
    subjects: Vec<Subject>,
    place: &netns::Place,
    path: Option<Arc<Link>>,
) -> Result<BenchOptions, String> {
    let usual_shapes: &[&str] = if args.quick {
        &["bulk-up", "bulk-down", "rr", "crr"]
    } else {
        &["bulk-up", "bulk-down", "ping", "rr", "crr"]
    };
    let shapes = if args.shapes.is_empty() {
        usual_shapes
            .iter()
            .map(|s| s.parse())
            .collect::<Result<_, _>>()?
    } else {
        args.shapes.clone()
    };
    let enough_cpus = limits::allowed_cpus().len() > usize::from(args.workers);
    let layouts = match args.layout.as_slice() {
        [] if args.quick || !enough_cpus => vec![Layout::OneCore],
        [] => vec![Layout::OneCore, Layout::OwnCore],
        given => given.to_vec(),
    };
    let (rounds, duration, warm_up, idle) = if args.quick {
        (
            3,
            Duration::from_millis(300),
            Duration::from_millis(150),
            200,
        )
    } else {
        (7, Duration::from_secs(1), Duration::from_millis(300), 1000)
    };
    Ok(BenchOptions {
        subjects,
        shapes,
        layouts,
        rounds: args.rounds.map_or(rounds, usize::from),
        seed: args.seed,
        warm_up: args.warm_up.unwrap_or(warm_up),
        duration: args.duration.unwrap_or(duration),
        workers: usize::from(args.workers),
        threads: args.threads.map(usize::from),
        starts: usize::from(args.starts),
        // What a session weighs does not depend on the path; opening many over a long
        // one takes minutes.
        idle_sessions: args
            .idle_sessions
            .unwrap_or(if path.is_some() { 0 } else { idle }),
        compare_one_in: usize::from(args.check_one_in),
        // Inside a namespace the default is set for all; outside only on request.
        congestion: args.congestion.clone().filter(|_| !place.isolated),
        path,
    })
}

fn method(options: &BenchOptions, place: &netns::Place, took: Duration) -> String {
    let congestion = match &options.congestion {
        Some(own) => format!(
            "congestion control {own} on the sockets of generator and origin, {} (the system's) \
             on those of the subjects unless they set another",
            place.congestion
        ),
        None => format!("congestion control {} on every leg", place.congestion),
    };
    let place = match (&options.path, place.isolated) {
        (Some(path), _) => format!(
            "clients and subjects beside each other, the origin at the far end of an emulated \
             path: {}",
            path.spec()
        ),
        (None, true) => "loopback in a network namespace of its own".to_owned(),
        (None, false) => "loopback in this machine's network namespace".to_owned(),
    };
    let bulk = if options.shapes.iter().any(|shape| shape.bulk.is_some()) {
        format!(
            "bulk is sent by sendfile(2), of {} MiB one is compared, the rest is discarded in the \
             kernel; ",
            options.compare_one_in
        )
    } else {
        String::new()
    };
    format!(
        "{} interleaved rounds of {:.2} s after {:.2} s of warm-up; {} event loop{} for each \
         subject; {bulk}{congestion}; {place}; intervals at {:.0} %; took {:.0} s",
        options.rounds,
        options.duration.as_secs_f64(),
        options.warm_up.as_secs_f64(),
        options.workers,
        if options.workers == 1 { "" } else { "s" },
        stats::CONFIDENCE * 100.0,
        took.as_secs_f64(),
    )
}

fn progress() -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(5)
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {eta} left  {msg}") {
        bar.set_style(style);
    }
    bar
}

fn write_report(directory: &Path, report: &Report, table: &str, json: &str) -> Result<(), String> {
    let mut files = vec![
        ("report.html".to_owned(), report::html::render(report)),
        ("report.json".to_owned(), json.to_owned()),
        ("table.txt".to_owned(), table.to_owned()),
        ("summary.md".to_owned(), report::markdown::render(report)),
    ];
    files.extend(report::html::plots(report));
    for (name, content) in files {
        let path = directory.join(name);
        fs::write(&path, content)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}
