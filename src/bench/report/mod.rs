//! What a run found: the document, whose figures are made in `figures`. Pure. What is shown of them is in `tables`, in terms of [`model`], which
//! [`render`] writes; the outputs around it are [`table`], [`markdown`], [`html`] and
//! [`svg`]. `tune` reports by the same model.

mod comparing;
mod figures;
pub mod html;
pub mod markdown;
pub mod model;
pub(crate) mod page;
pub mod render;
pub mod svg;
pub mod table;
mod tables;

pub use figures::layouts;

use serde::Serialize;

use super::harness::{Layout, Sample, SubjectFacts};
use super::load::shape::Figure;
use super::machine::Machine;
use super::netns::Place;
use super::path::PathFacts;
use super::stats::{Estimate, ROUNDS_MIN, Verdict};

/// Everything that a run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Of thalweg.
    pub version: String,
    /// The command line that made it.
    pub command: String,
    /// UTC, ISO 8601.
    pub when: String,
    /// What it ran on.
    pub machine: Machine,
    /// In which network namespace, with which congestion control.
    pub place: Place,
    /// The path between the subjects and the origin; `None`: loopback.
    pub path: Option<PathFacts>,
    /// How it was measured, in words.
    pub method: String,
    /// What an interrupt left, in words; `None`: everything that was asked for.
    pub interrupted: Option<String>,
    /// The subject that ratios are against.
    pub baseline: String,
    /// Confidence of every interval.
    pub confidence: f64,
    /// One for each layout.
    pub layouts: Vec<LayoutReport>,
}

/// One layout.
#[derive(Debug, Clone, Serialize)]
pub struct LayoutReport {
    /// Which.
    pub layout: Layout,
    /// The forwarder's CPUs.
    pub forwarder_cpus: Vec<usize>,
    /// Everybody else's.
    pub other_cpus: Vec<usize>,
    /// How each subject was run.
    pub subjects: Vec<SubjectFacts>,
    /// One for each shape.
    pub shapes: Vec<ShapeReport>,
    /// What to know of how it was measured, in words.
    pub notes: Vec<String>,
    /// What starting each subject takes, where that was measured.
    pub starts: Vec<StartReport>,
}

/// What it takes to start a subject, until the first exchange crosses it.
#[derive(Debug, Clone, Serialize)]
pub struct StartReport {
    /// Its name.
    pub subject: String,
    /// Seconds.
    pub seconds: Estimate,
    /// CPU seconds of its process tree.
    pub cpu: Estimate,
    /// Time against the same subject with a small configuration, start by start.
    pub seconds_ratio: Option<Estimate>,
    /// CPU likewise.
    pub cpu_ratio: Option<Estimate>,
}

/// One shape in one layout.
#[derive(Debug, Clone, Serialize)]
pub struct ShapeReport {
    /// As on the command line.
    pub name: String,
    /// What decides.
    #[serde(skip)]
    pub figure: Figure,
    /// Whether it has exchanges (then CPU is per exchange, otherwise per gigabyte).
    pub has_exchanges: bool,
    /// Whether it has bulk flows.
    pub has_bulk: bool,
    /// Whether it is a burst of bulk and single bytes.
    pub is_burst: bool,
    /// One for each subject.
    pub rows: Vec<Row>,
}

/// One subject in one shape in one layout.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub subject: String,
    /// Why it is not compared.
    pub failure: Option<String>,
    /// Rounds measured.
    pub rounds: usize,
    /// Bytes a second, both directions together.
    pub throughput: Option<Estimate>,
    /// Exchanges a second.
    pub exchanges: Option<Estimate>,
    /// Of all rounds together.
    pub latency: Option<Latency>,
    /// Of a mix: what its exchanges are without the bulk.
    pub quiet: Option<QuietReport>,
    /// Of a burst: how long its single bytes waited.
    pub burst: Option<BurstReport>,
    /// The forwarder's CPU: seconds per gigabyte (10⁹ bytes), or microseconds per
    /// exchange.
    pub cpu: Option<Estimate>,
    /// CPU of generator, forwarder and origin together, in the same unit.
    pub path_cpu: Option<Estimate>,
    /// CPU of generator and origin alone: what the ends of the measurement cost.
    pub ends_cpu: Option<Estimate>,
    /// Against the baseline, against `direct`, and of a subject with a large configuration
    /// against the same with a small one.
    pub ratios: Vec<Ratio>,
    /// What the forwarder adds to `direct`.
    pub hop: Option<Hop>,
    /// CPU seconds a second: forwarder, generator, origin.
    pub cpu_shares: [f64; 3],
    /// The forwarder's context switches per exchange, or per gigabyte.
    pub switches: f64,
    /// What else took the CPUs meanwhile; `None`: nothing to speak of.
    pub disturbed: Option<Disturbance>,
    /// What limits these figures, in words.
    pub remarks: Vec<String>,
    /// Percentile (0 to 100) and nanoseconds.
    pub curve: Vec<(f64, u64)>,
    /// Round by round.
    pub samples: Vec<Sample>,
}

/// Nanoseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// The slowest.
    pub max: u64,
}

/// The exchanges of a mix without its bulk, measured in the same rounds, and what the
/// bulk makes of them.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct QuietReport {
    /// Exchanges a second.
    pub exchanges: Estimate,
    /// Of all rounds together.
    pub latency: Latency,
    /// The forwarder's CPU seconds a second.
    pub cpu: f64,
    /// p50 beside bulk divided by p50 without, round by round; `None` when no exchange
    /// was whole beside the bulk in some round.
    pub p50: Option<Estimate>,
    /// p99 likewise.
    pub p99: Option<Estimate>,
}

/// How long the single bytes of a burst waited for its bulk.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct BurstReport {
    /// Share of the bulk, 0 to 1, that moved before half of the bytes.
    pub median: Estimate,
    /// Before the last of them.
    pub last: Estimate,
    /// Seconds until all of the bulk had moved.
    pub seconds: Estimate,
}

/// What took CPUs that a subject and its load were to have.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Disturbance {
    /// In so many rounds.
    pub rounds: usize,
    /// Up to this share of the CPUs, 0 to 1.
    pub share: f64,
    /// Whether enough other rounds remained to leave these out of all figures.
    pub is_left_out: bool,
}

/// A comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Ratio {
    /// With whom.
    pub against: String,
    /// Of what: `throughput`, `exchanges`, `p50`, `p99`, `share` (of a burst), `cpu` (the
    /// forwarder's), `path` (CPU of the whole path).
    pub of: &'static str,
    /// Over how many rounds.
    pub rounds: usize,
    /// This subject's figure divided by the other's.
    pub ratio: Estimate,
    /// What that means, given which way is good.
    pub verdict: Verdict,
}

/// What a forwarder adds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Hop {
    /// CPU of the whole path, in the unit of [`Row::cpu`].
    pub cpu: f64,
    /// Nanoseconds at the median; `None` without exchanges.
    pub p50: Option<f64>,
    /// Nanoseconds at 99 %.
    pub p99: Option<f64>,
}

impl Report {
    /// What disturbed the measurements, in one sentence for all of them.
    pub fn disturbance(&self) -> Option<String> {
        let layouts = self.layouts.iter();
        let rows: Vec<&Row> = layouts
            .flat_map(|layout| &layout.shapes)
            .flat_map(|shape| &shape.rows)
            .filter(|row| row.failure.is_none())
            .collect();
        let rounds: usize = rows.iter().map(|row| row.samples.len()).sum();
        let all: Vec<Disturbance> = rows.iter().filter_map(|row| row.disturbed).collect();
        let disturbed: usize = all.iter().map(|it| it.rounds).sum();
        let most = all.iter().map(|it| it.share).fold(0.0, f64::max);
        (disturbed > 0).then(|| {
            format!(
                "Disturbed: in {disturbed} of {rounds} measurements something else took more \
                 than {:.0} % of the CPUs, up to {:.0} %. Such rounds are left out where {} others \
                 remain; where they do not, there is no verdict",
                comparing::DISTURBED * 100.0,
                most * 100.0,
                ROUNDS_MIN,
            )
        })
    }

    /// Every failure: layout, shape, subject, reason.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for layout in &self.layouts {
            for shape in &layout.shapes {
                for row in &shape.rows {
                    if let Some(failure) = &row.failure {
                        failures.push(format!(
                            "{}, {}, {}: {failure}",
                            layout.layout.name(),
                            shape.name,
                            row.subject
                        ));
                    }
                }
            }
        }
        failures
    }
}
