//! `thalweg demo`: real traffic through a real forwarder, on this machine alone.
//!
//! The origin and the load are in this process; the forwarder is this same program
//! started as `thalweg run`, so that its CPU time is its own. Where nginx is installed it
//! is measured too: 'slower than nothing' says little of a forwarder, another one beside
//! it says much.

#![allow(
    clippy::doc_markdown,
    reason = "the comments on arguments are the help text, which is not Markdown"
)]

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::output;
use crate::bench::interrupt::Interrupt;
use crate::bench::load::shape::Shape;
use crate::bench::load::{self, Load, LoadPlan};
use crate::bench::netns;
use crate::bench::origin::{Handlers, Origin, OriginOptions, Role};
use crate::bench::preface::Preface;
use crate::bench::probe::{ProbeOptions, probe};
use crate::bench::report::render::align;
use crate::bench::subjects::launch::find_program;
use crate::bench::subjects::running::{Running, Stage, Workspace};
use crate::bench::{process, units};
use crate::config::units::parse_duration;
use crate::net::limits;

/// See it work: an origin, the forwarder, and traffic through it, in ten seconds
///
/// Starts an origin and a forwarder on this machine, moves bulk data and
/// request-response traffic directly, through the forwarder and, where it is installed,
/// through nginx, checks what arrives, and prints what each carried and cost.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long, all together
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    time: Duration,
}

/// What is measured: the shape, and what it is called.
const SHAPES: [(&str, &str); 2] = [
    ("bulk-down", "bulk, 4 flows"),
    ("rr:flows=16", "64-byte requests, 16 flows"),
];

/// Each way gets so many turns, so that whatever the machine does meanwhile hits all alike.
const TURNS: u32 = 3;

/// Of so many MiB one is compared with what was sent.
const COMPARE_ONE_IN: usize = 16;

/// Cells of the longest bar.
const BAR: usize = 30;

/// One way and what it came to in one shape.
struct Outcome {
    name: String,
    /// Whether it is judged by bytes, not by exchanges.
    is_bulk: bool,
    /// Whether there is a forwarder to have costs.
    forwards: bool,
    /// Of the turns so far.
    turns: u32,
    /// Sums over them: bytes a second, exchanges a second, CPU seconds a second.
    throughput: f64,
    exchanges: f64,
    cpu: f64,
    latency: Histogram<u64>,
    checked: u64,
}

impl Outcome {
    fn new(name: &str, is_bulk: bool, forwards: bool) -> Self {
        Self {
            name: name.to_owned(),
            is_bulk,
            forwards,
            turns: 0,
            throughput: 0.0,
            exchanges: 0.0,
            cpu: 0.0,
            latency: load::histogram(),
            checked: 0,
        }
    }

    /// What decides, a second: bytes or exchanges.
    fn rate(&self) -> f64 {
        let sum = if self.is_bulk {
            self.throughput
        } else {
            self.exchanges
        };
        sum / f64::from(self.turns.max(1))
    }

    fn rate_text(&self) -> String {
        if self.is_bulk {
            units::bit_rate(self.rate())
        } else {
            units::rate(self.rate())
        }
    }
}

/// Exit code 1 when anything was lost or did not start.
#[expect(
    clippy::needless_pass_by_value,
    reason = "every subcommand has this signature"
)]
pub fn run(args: Args) -> ExitCode {
    // Before any thread: only a process with a single one may make the user namespace that
    // this takes without privileges. There every leg has the same congestion control.
    let place = netns::enter(netns::Choice::Auto, "cubic");
    let interrupt = Interrupt::install();
    let shown = place.and_then(|place| demonstrate(args.time, &place, &interrupt));
    match shown {
        Ok(text) => output::result(text.as_bytes()),
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn demonstrate(
    time: Duration,
    place: &netns::Place,
    interrupt: &Interrupt,
) -> Result<String, String> {
    limits::raise_descriptor_limit().map_err(|error| error.to_string())?;
    let origin = Origin::start(&OriginOptions::default(), Handlers::default())
        .map_err(|error| format!("the origin cannot start: {error}"))?;
    let upstream = origin
        .address(Role::Command)
        .ok_or("the origin has no command port")?;
    let workspace =
        Workspace::new().map_err(|error| format!("cannot make a temporary directory: {error}"))?;
    let stage = Stage {
        upstream,
        workers: 1,
        sessions: 64,
        datagrams: false,
        workspace: &workspace,
        interrupt,
    };
    let start = |name: &str| Running::start(&name.parse()?, stage);
    let forwarder = start("thalweg")?;
    output::note(&format!(
        "origin on {upstream}, forwarder on {}:\n  {}",
        forwarder.address,
        forwarder.launch.argv.join(" ")
    ));
    let checked = greet(&forwarder)?;
    let mut ways = vec![
        (start("direct")?, "direct, no forwarder"),
        (forwarder, "through thalweg"),
    ];
    if find_program("nginx").is_some() {
        match start("nginx") {
            Ok(nginx) => ways.push((nginx, "through nginx")),
            Err(error) => output::note(&format!("  without nginx: {error}")),
        }
    }
    let slices = SHAPES.len() as u32 * TURNS * ways.len() as u32;
    let each = time.max(Duration::from_secs(1)) / slices;
    let mut results = Vec::new();
    for (shape, what) in SHAPES {
        output::note(what);
        results.push((what, compare(shape, &ways, each, interrupt)?));
        if origin.counters().differed.load(Relaxed) > 0 {
            return Err("bytes arrived that were not sent".to_owned());
        }
    }
    Ok(summary(&results, checked, place))
}

/// That what is sent comes back; how many bytes of records did.
fn greet(forwarder: &Running) -> Result<u64, String> {
    let checked = probe(&ProbeOptions {
        address: forwarder.address,
        strings: 20,
        records: 20,
        timeout: Duration::from_secs(5),
        total: Duration::from_secs(60),
    })
    .map_err(|error| format!("through the forwarder: {error}"))?;
    output::note(&format!(
        "  20 strings and 20 records ({}) came back through it as they were sent",
        units::size(checked.record_bytes as f64)
    ));
    Ok(checked.record_bytes)
}

/// Each way in turn, some times, with bars as long as what each carries.
fn compare(
    shape: &str,
    ways: &[(Running, &str)],
    each: Duration,
    interrupt: &Interrupt,
) -> Result<Vec<Outcome>, String> {
    let screen = MultiProgress::new();
    let style = ProgressStyle::with_template(&format!("  {{prefix:22}} {{bar:{BAR}}} {{msg}}"));
    let bars: Vec<ProgressBar> = ways
        .iter()
        .map(|(_, name)| {
            let bar = screen.add(ProgressBar::new(1000).with_prefix((*name).to_owned()));
            if let Ok(style) = &style {
                bar.set_style(style.clone());
            }
            bar
        })
        .collect();
    let parsed: Shape = shape.parse()?;
    let is_bulk = parsed.exchange.is_none();
    let mut outcomes: Vec<Outcome> = ways
        .iter()
        .map(|(way, name)| Outcome::new(name, is_bulk, way.process().is_some()))
        .collect();
    for _ in 0..TURNS {
        for (at, (way, name)) in ways.iter().enumerate() {
            turn(&parsed, way, &mut outcomes[at], each, interrupt)
                .map_err(|error| format!("{shape}, {name}: {error}"))?;
            let best = outcomes.iter().map(Outcome::rate).fold(1.0, f64::max);
            let begun = outcomes.iter().filter(|it| it.turns > 0);
            for (bar, outcome) in bars.iter().zip(begun) {
                bar.set_position((outcome.rate() / best * 1000.0) as u64);
                bar.set_message(outcome.rate_text());
            }
        }
    }
    for bar in &bars {
        bar.abandon();
    }
    // The table at the end has them again.
    let _ = screen.clear();
    Ok(outcomes)
}

/// One load through one way.
fn turn(
    shape: &Shape,
    way: &Running,
    outcome: &mut Outcome,
    time: Duration,
    interrupt: &Interrupt,
) -> Result<(), String> {
    let load = Load::start(LoadPlan {
        target: way.address,
        preface: Preface::Nothing,
        shape: shape.clone(),
        threads: 1,
        exchanges_apart: None,
        cpus: Vec::new(),
        congestion: None,
        options: None,
        watch: None,
        compare_one_in: Some(COMPARE_ONE_IN),
        connect_timeout: Duration::from_secs(5),
        patience: load::PATIENCE,
        traffic: None,
        answer_timeout: load::ANSWER_TIMEOUT,
    })?;
    let warm_up = time / 4;
    let window = load.go(warm_up, time.saturating_sub(warm_up));
    let snapshot = |at: Instant| {
        if interrupt.wait_until(at) {
            return Err("interrupted".to_owned());
        }
        let used = way.process().map(process::usage_of_tree);
        let counters = load.counters();
        let moved = [
            counters.received.into_inner(),
            counters.exchanges.into_inner(),
        ];
        Ok((Instant::now(), used.unwrap_or_default(), moved))
    };
    let begin = snapshot(window.begin)?;
    let end = snapshot(window.end)?;
    let result = load.finish();
    if let Some(error) = result.first_error {
        return Err(error);
    }
    let seconds = end.0.duration_since(begin.0).as_secs_f64();
    let rate = |at: usize| (end.2[at] - begin.2[at]) as f64 / seconds;
    outcome.turns += 1;
    outcome.throughput += rate(0);
    outcome.exchanges += rate(1);
    outcome.cpu += end.1.since(begin.1).cpu_ns as f64 / 1e9 / seconds;
    outcome.checked += result.checked;
    outcome
        .latency
        .add(&result.latency)
        .expect("every histogram here has the same bounds");
    Ok(())
}

/// A bar of `share` of the longest.
fn bar(share: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * BAR as f64 * 8.0).round() as usize;
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

fn summary(results: &[(&str, Vec<Outcome>)], records: u64, place: &netns::Place) -> String {
    let mut text = String::new();
    for (what, outcomes) in results {
        let _ = writeln!(text, "\n{what}");
        let best = outcomes.iter().map(Outcome::rate).fold(1.0, f64::max);
        let lines: Vec<Vec<String>> = outcomes
            .iter()
            .map(|outcome| {
                vec![
                    format!("  {:22}{:BAR$}", outcome.name, bar(outcome.rate() / best)),
                    outcome.rate_text(),
                    cost(outcome),
                    latency(outcome),
                ]
            })
            .collect();
        text.push_str(&align(&lines));
    }
    let _ = write!(text, "\n{}", explanation(results));
    let compared: u64 = results
        .iter()
        .flat_map(|(_, outcomes)| outcomes)
        .map(|outcome| outcome.checked)
        .sum();
    let _ = writeln!(
        text,
        "{}, a sample of the bulk and every request, and {} of records before, were compared with what\n\
         was sent: no difference.",
        units::size(compared as f64),
        units::size(records as f64),
    );
    if place.congestion.contains("bbr") {
        text.push_str(
            "The congestion control here is bbr, which slows loopback down; as root, or where user\n\
             namespaces are permitted, this is measured with cubic.\n",
        );
    }
    text.push_str(
        "\nNext:\n  \
         thalweg -l :5000 -r HOST:PORT     forward a port of this machine\n  \
         thalweg bench --quick             beside nginx and HAProxy, with intervals and verdicts\n  \
         thalweg origin                    a far end; `thalweg probe HOST:PORT` checks the path\n",
    );
    text
}

fn cost(outcome: &Outcome) -> String {
    if !outcome.forwards {
        return String::new();
    }
    if outcome.is_bulk {
        let seconds = outcome.cpu * 1e9 / outcome.throughput.max(1.0);
        format!("{} s CPU/GB", units::digits(seconds))
    } else {
        let micros = outcome.cpu * 1e6 / outcome.exchanges.max(1.0);
        format!("{} µs CPU each", units::digits(micros))
    }
}

fn latency(outcome: &Outcome) -> String {
    if outcome.latency.is_empty() {
        return String::new();
    }
    let at = |share| units::latency(outcome.latency.value_at_quantile(share) as f64);
    format!("median {}, 99 % {}", at(0.5), at(0.99))
}

/// What the numbers mean, in sentences.
fn explanation(results: &[(&str, Vec<Outcome>)]) -> String {
    let mut text = "Direct has no forwarder in it: client and origin talk to each other, and that is \
                    about the ceiling.\nA forwarder makes two connections of one, so every byte passes the kernel \
                    twice, on the same CPUs.\n"
        .to_owned();
    let times = |outcomes: &[Outcome]| match outcomes {
        [_, thalweg, nginx, ..] if nginx.rate() > 0.0 => Some(thalweg.rate() / nginx.rate()),
        _ => None,
    };
    let [(_, bulk), (_, requests), ..] = results else {
        return text;
    };
    if let (Some(bulk), Some(requests)) = (times(bulk), times(requests)) {
        let _ = writeln!(
            text,
            "Of two forwarders in the same place, thalweg carried {bulk:.2} times nginx's bulk and \
             {requests:.2} times its\nrequests. One short look, without intervals: `thalweg bench` \
             tells a difference from noise."
        );
    } else {
        text.push_str(
            "How good a forwarder is shows beside another one: with nginx installed, this shows it too.\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str, rate: f64, forwards: bool, bulk: bool) -> Outcome {
        let mut outcome = Outcome::new(name, bulk, forwards);
        outcome.turns = 1;
        outcome.throughput = rate;
        outcome.exchanges = rate;
        outcome.cpu = 0.5;
        outcome.checked = 1 << 30;
        if !bulk {
            outcome.latency.saturating_record(150_000);
        }
        outcome
    }

    fn text(nginx: bool) -> String {
        let ways = |bulk: bool| {
            let mut ways = vec![
                outcome("direct, no forwarder", 4e9, false, bulk),
                outcome("through thalweg", 2e9, true, bulk),
            ];
            if nginx {
                ways.push(outcome("through nginx", 5e8, true, bulk));
            }
            ways
        };
        let results = [("bulk", ways(true)), ("requests", ways(false))];
        let place = netns::Place {
            isolated: true,
            congestion: "cubic".to_owned(),
            notes: Vec::new(),
        };
        summary(&results, 1 << 20, &place)
    }

    #[test]
    fn bars_are_as_long_as_the_rates_and_a_sentence_explains_them() {
        let text = text(true);
        let cells = |name: &str| {
            let line = text.lines().find(|line| line.contains(name)).unwrap();
            line.matches('█').count()
        };
        let lengths = ["direct, no", "through thalweg", "through nginx"].map(cells);
        assert_eq!(lengths, [30, 15, 3], "{text}");
        for part in [
            "32.0 Gb/s",
            "0.250 s CPU/GB",
            "median 150 µs",
            "4.00 times nginx's bulk",
            "Next:",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert!(!text.contains("bbr"));
    }

    #[test]
    fn without_nginx_it_says_what_it_would_show() {
        let text = text(false);
        assert!(text.contains("with nginx installed"), "{text}");
        assert!(text.contains("no difference"), "{text}");
    }
}
