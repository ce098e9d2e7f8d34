//! `thalweg demo`: real traffic through a real forwarder, on this machine alone.
//!
//! The origin and the load are in this process; the forwarder is this same program
//! started as `thalweg run`, so that its CPU time is its own.

#![allow(
    clippy::doc_markdown,
    reason = "the comments on arguments are the help text, which is not Markdown"
)]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::output;
use crate::bench::interrupt::Interrupt;
use crate::bench::load::{self, Load, LoadPlan, LoadResult};
use crate::bench::origin::{Handlers, Origin, OriginOptions, Role};
use crate::bench::probe::{ProbeOptions, probe};
use crate::bench::report::render::align;
use crate::bench::subjects::running::{Running, Stage, Workspace};
use crate::bench::{process, units};
use crate::config::units::parse_duration;
use crate::net::limits;

/// See it work: an origin, the forwarder, and traffic through it, in ten seconds
///
/// Starts an origin and a forwarder on this machine, moves bulk data and
/// request-response traffic directly and through the forwarder, checks what arrives, and
/// prints what the forwarder cost.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long, all together
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    time: Duration,
}

const BULK: &str = "bulk-down";
const REQUESTS: &str = "rr:flows=16";

/// The phases that are measured, in this order.
const PHASES: [(&str, Path); 4] = [
    (BULK, Path::Direct),
    (BULK, Path::Through),
    (REQUESTS, Path::Direct),
    (REQUESTS, Path::Through),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Direct,
    Through,
}

/// What a phase measured.
struct Outcome {
    /// Bytes a second.
    throughput: f64,
    /// Exchanges a second.
    exchanges: f64,
    /// CPU seconds a second of the forwarder.
    cpu: f64,
    result: LoadResult,
}

/// Exit code 1 when anything was lost or did not start.
#[expect(
    clippy::needless_pass_by_value,
    reason = "every subcommand has this signature"
)]
pub fn run(args: Args) -> ExitCode {
    let interrupt = Interrupt::install();
    match demonstrate(args.time, &interrupt) {
        Ok(text) => output::result(text.as_bytes()),
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn demonstrate(time: Duration, interrupt: &Interrupt) -> Result<String, String> {
    limits::raise_descriptor_limit().map_err(|error| error.to_string())?;
    let origin = Origin::start(&OriginOptions::default(), Handlers::default())
        .map_err(|error| format!("the origin cannot start: {error}"))?;
    let upstream = origin
        .address(Role::Command)
        .ok_or("the origin has no command port")?;
    let workspace =
        Workspace::new().map_err(|error| format!("cannot make a temporary directory: {error}"))?;
    let forwarder = Running::start(
        &"thalweg".parse()?,
        Stage {
            upstream,
            workers: 1,
            sessions: 64,
            workspace: &workspace,
            interrupt,
        },
    )?;
    output::note(&format!(
        "origin on {upstream}, forwarder on {}:\n  {}",
        forwarder.address,
        forwarder.launch.argv.join(" ")
    ));
    let checked = probe(&ProbeOptions {
        address: forwarder.address,
        strings: 20,
        records: 20,
        timeout: Duration::from_secs(5),
    })
    .map_err(|error| format!("through the forwarder: {error}"))?;
    output::note(&format!(
        "  20 strings and 20 records ({}) came back through it as they were sent",
        units::size(checked.record_bytes as f64)
    ));

    let each = time.max(Duration::from_secs(1)) / PHASES.len() as u32;
    let mut outcomes = Vec::new();
    for (shape, path) in PHASES {
        let target = match path {
            Path::Direct => upstream,
            Path::Through => forwarder.address,
        };
        let root = forwarder.process().filter(|_| path == Path::Through);
        let outcome = phase(shape, path, target, root, each, interrupt)?;
        if origin.counters().differed.load(Relaxed) > 0 {
            return Err("bytes arrived that were not sent".to_owned());
        }
        outcomes.push(outcome);
    }
    Ok(summary(&outcomes, &checked.info_here))
}

/// One load, with what moves shown as it moves.
fn phase(
    shape: &str,
    path: Path,
    target: SocketAddr,
    forwarder: Option<i32>,
    time: Duration,
    interrupt: &Interrupt,
) -> Result<Outcome, String> {
    let name = match path {
        Path::Direct => "direct, no forwarder",
        Path::Through => "through thalweg",
    };
    let what = if shape == BULK {
        "bulk"
    } else {
        "request-response"
    };
    let load = Load::start(LoadPlan {
        target,
        tunnel: None,
        shape: shape.parse()?,
        threads: 1,
        exchanges_apart: None,
        cpus: Vec::new(),
        congestion: None,
        options: None,
        watch: None,
        compare_one_in: Some(1),
        connect_timeout: Duration::from_secs(5),
        patience: load::PATIENCE,
    })?;
    let warm_up = time / 8;
    let window = load.go(warm_up, time.saturating_sub(warm_up));
    let bar = progress(&format!("{what:16} {name:20}"));
    if interrupt.wait_until(window.begin) {
        return Err("interrupted".to_owned());
    }
    let cpu = || forwarder.map(process::usage_of_tree).unwrap_or_default();
    let count = || {
        let counters = load.counters();
        (
            counters.received.into_inner(),
            counters.exchanges.into_inner(),
        )
    };
    let (began, cpu_before, before) = (Instant::now(), cpu(), count());
    let (mut throughput, mut exchanges) = (0.0, 0.0);
    let mut now = began;
    while now < window.end {
        if interrupt.wait_until(window.end.min(now + Duration::from_millis(100))) {
            return Err("interrupted".to_owned());
        }
        now = Instant::now();
        let (bytes, answers) = count();
        let seconds = now.duration_since(began).as_secs_f64();
        throughput = (bytes - before.0) as f64 / seconds;
        exchanges = (answers - before.1) as f64 / seconds;
        let done = seconds / window.end.duration_since(began).as_secs_f64();
        bar.set_position((done * 100.0) as u64);
        bar.set_message(if shape == BULK {
            units::bit_rate(throughput)
        } else {
            units::rate(exchanges)
        });
    }
    let used = cpu().since(cpu_before);
    let seconds = now.duration_since(began).as_secs_f64();
    let result = load.finish();
    bar.finish();
    if let Some(error) = &result.first_error {
        return Err(format!("{what}, {name}: {error}"));
    }
    Ok(Outcome {
        throughput,
        exchanges,
        cpu: used.cpu_ns as f64 / 1e9 / seconds,
        result,
    })
}

fn progress(prefix: &str) -> ProgressBar {
    let bar = ProgressBar::new(100).with_prefix(prefix.to_owned());
    if let Ok(style) = ProgressStyle::with_template("  {prefix} {bar:30} {msg}") {
        bar.set_style(style);
    }
    bar
}

fn summary(outcomes: &[Outcome], info: &str) -> String {
    let [bulk, bulk_through, requests, requests_through] = outcomes else {
        return String::new();
    };
    let latency = |outcome: &Outcome, quantile: f64| {
        units::latency(outcome.result.latency.value_at_quantile(quantile) as f64)
    };
    let row = |what: &str, direct: String, through: String| vec![what.to_owned(), direct, through];
    let lines = [
        row("", "direct".to_owned(), "through thalweg".to_owned()),
        row(
            "bulk, 4 flows",
            units::bit_rate(bulk.throughput),
            units::bit_rate(bulk_through.throughput),
        ),
        row(
            "64-byte requests, 16 flows",
            units::rate(requests.exchanges),
            units::rate(requests_through.exchanges),
        ),
        row(
            "  median",
            latency(requests, 0.5),
            latency(requests_through, 0.5),
        ),
        row(
            "  99 %",
            latency(requests, 0.99),
            latency(requests_through, 0.99),
        ),
        row(
            "forwarder's CPU for a gigabyte",
            String::new(),
            format!(
                "{} s",
                units::digits(bulk_through.cpu * 1e9 / bulk_through.throughput)
            ),
        ),
        row(
            "forwarder's CPU for a request",
            String::new(),
            format!(
                "{} µs",
                units::digits(requests_through.cpu * 1e6 / requests_through.exchanges)
            ),
        ),
    ];
    let mut text = format!("\n{}", align(&lines));
    let checked: u64 = outcomes.iter().map(|outcome| outcome.result.checked).sum();
    let _ = writeln!(
        text,
        "\n{} were compared byte by byte with what was sent: no difference.",
        units::size(checked as f64)
    );
    if info.contains("congestion=bbr") {
        text.push_str(
            "The system's congestion control is bbr, which slows loopback down; `thalweg bench`\n\
             compares with cubic in a network namespace of its own.\n",
        );
    }
    text.push_str(
        "\nNext:\n  \
         thalweg -l :5000 -r HOST:PORT     forward a port of this machine\n  \
         thalweg bench --quick             beside nginx and HAProxy, with intervals\n  \
         thalweg origin                    a far end; `thalweg probe HOST:PORT` checks the path\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let load = crate::bench::load::histogram();
        Outcome {
            throughput: 1e9,
            exchanges: 1e5,
            cpu: 0.5,
            result: LoadResult {
                latency: load,
                sent: 0,
                checked: 1 << 30,
                unanswered: 0,
                cut_short: 0,
                unfinished: 0,
                errors: 0,
                first_error: None,
            },
        }
    }

    #[test]
    fn the_summary_names_both_ways_and_what_to_try_next() {
        let outcomes = [outcome(), outcome(), outcome(), outcome()];
        let text = summary(&outcomes, "congestion=bbr rtt=1µs");
        for part in [
            "direct",
            "through thalweg",
            "8.00 Gb/s",
            "4.00 GiB",
            "0.500 s",
            "bbr",
            "Next:",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert!(!summary(&outcomes, "congestion=cubic").contains("bbr"));
    }
}
