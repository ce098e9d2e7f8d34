//! What a run found: the document, whose figures are made in `figures` and `comparing`.
//! Pure. What is shown of them is in `tables`, in terms of [`model`], which [`render`]
//! writes, and in words in `answer`; the outputs around it are [`table`], [`markdown`],
//! [`html`] and [`svg`]. `tune` reports by the same model, and its document shares
//! [`document`] with this one.

mod answer;
mod comparing;
pub mod document;
mod figures;
pub mod html;
pub mod markdown;
pub mod model;
pub(crate) mod page;
pub mod render;
mod round;
#[cfg(test)]
mod sample;
pub mod svg;
pub mod table;
mod tables;

pub use document::{Cost, Costs, Head, Ratio};
pub use figures::layouts;

use serde::Serialize;

use super::harness::{Layout, Sample, SubjectFacts};
use super::load::shape::Figure;
use super::netns::Place;
use super::path::PathFacts;
use super::stats::{Estimate, ROUNDS_MIN};

/// Everything that a run found.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Report {
    /// What it is, and what made it.
    #[serde(flatten)]
    pub head: Head,
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
    /// One for each layout.
    pub layouts: Vec<LayoutReport>,
}

/// One layout.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StartReport {
    /// Its name.
    pub subject: String,
    /// Seconds.
    pub seconds: Estimate,
    /// CPU seconds of its process tree.
    #[serde(rename = "cpu_seconds")]
    pub cpu: Estimate,
    /// Time against the same subject with a small configuration, start by start.
    pub seconds_ratio: Option<Estimate>,
    /// CPU likewise.
    #[serde(rename = "cpu_seconds_ratio")]
    pub cpu_ratio: Option<Estimate>,
}

/// One shape in one layout.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShapeReport {
    /// As on the command line.
    pub name: String,
    /// What decides.
    #[serde(skip)]
    pub figure: Figure,
    /// Whether it has exchanges (then cost is for each of them, otherwise for a gigabyte).
    pub has_exchanges: bool,
    /// Whether it has bulk flows.
    pub has_bulk: bool,
    /// Whether it is a burst of bulk and single bytes.
    pub is_burst: bool,
    /// Whether it is made of datagrams.
    pub has_datagrams: bool,
    /// Whether it is a stream of datagrams (then cost is for each of them).
    pub has_stream: bool,
    /// One for each subject.
    pub rows: Vec<Row>,
}

/// One subject in one shape in one layout.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Row {
    /// Its name.
    pub subject: String,
    /// Why it is not compared.
    pub failure: Option<String>,
    /// Rounds measured.
    pub rounds: usize,
    /// Bytes a second, both directions together.
    #[serde(rename = "throughput_bytes_per_second")]
    pub throughput: Option<Estimate>,
    /// Exchanges a second.
    #[serde(rename = "exchanges_per_second")]
    pub exchanges: Option<Estimate>,
    /// Of all rounds together.
    #[serde(rename = "latency_nanoseconds")]
    pub latency: Option<Latency>,
    /// Of a mix: what its exchanges are without the bulk.
    pub quiet: Option<QuietReport>,
    /// Of a burst: how long its single bytes waited.
    pub burst: Option<BurstReport>,
    /// Of datagrams: how many arrived, and how many did not.
    pub datagrams: Option<DatagramReport>,
    /// CPU time for a gigabyte, for an exchange, or for a datagram of a stream; not of a burst.
    #[serde(flatten)]
    pub cost: Option<Cost>,
    /// Against the baseline, against `direct`, and of a subject with a large configuration
    /// against the same with a small one.
    pub ratios: Vec<Ratio>,
    /// What the forwarder adds to `direct`.
    #[serde(rename = "hop_nanoseconds")]
    pub hop: Option<Hop>,
    /// CPU seconds a second.
    #[serde(rename = "cpu_seconds_per_second")]
    pub cpu_shares: CpuShares,
    /// What else took the CPUs meanwhile; `None`: nothing to speak of.
    pub disturbed: Option<Disturbance>,
    /// What limits these figures, in words.
    pub remarks: Vec<String>,
    /// Percentile (0 to 100) and nanoseconds.
    #[serde(rename = "latency_curve_percent_nanoseconds")]
    pub curve: Vec<(f64, u64)>,
    /// Round by round.
    pub samples: Vec<Sample>,
}

/// Nanoseconds.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct QuietReport {
    /// Exchanges a second.
    #[serde(rename = "exchanges_per_second")]
    pub exchanges: Estimate,
    /// Of all rounds together.
    #[serde(rename = "latency_nanoseconds")]
    pub latency: Latency,
    /// The forwarder's CPU seconds a second.
    #[serde(rename = "forwarder_cpu_seconds_per_second")]
    pub cpu: f64,
    /// p50 beside bulk divided by p50 without, round by round; `None` when no exchange
    /// was whole beside the bulk in some round.
    #[serde(rename = "p50_ratio")]
    pub p50: Option<Estimate>,
    /// p99 likewise.
    #[serde(rename = "p99_ratio")]
    pub p99: Option<Estimate>,
}

/// How long the single bytes of a burst waited for its bulk.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BurstReport {
    /// Share of the bulk, 0 to 1, that moved before half of the bytes.
    #[serde(rename = "bulk_share_before_half")]
    pub median: Estimate,
    /// Before the last of them.
    #[serde(rename = "bulk_share_before_last")]
    pub last: Estimate,
    /// Seconds until all of the bulk had moved.
    pub seconds: Estimate,
}

/// What became of datagrams, over all rounds.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DatagramReport {
    /// Datagrams of a stream that arrived in a second, both directions together; of questions,
    /// those that were answered.
    #[serde(rename = "arrived_per_second")]
    pub arrived: Estimate,
    /// Sent in all rounds, warm-ups included; of questions, those asked.
    pub sent: u64,
    /// Share of them, 0 to 1, that did not arrive, or were not answered in time.
    pub lost_share: f64,
    /// Those that came to somebody else than whom they were for.
    pub strayed: u64,
}

/// What took CPUs that a subject and its load were to have.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Disturbance {
    /// In so many rounds.
    pub rounds: usize,
    /// Up to this share of the CPUs, 0 to 1.
    #[serde(rename = "foreign_cpu_share_max")]
    pub share: f64,
    /// Whether enough other rounds remained to leave these out of all figures.
    pub is_left_out: bool,
}

/// Who used how much CPU, seconds a second.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CpuShares {
    /// The forwarder's process tree.
    pub forwarder: f64,
    /// The load generator.
    pub generator: f64,
    /// The origin.
    pub origin: f64,
}

/// What a forwarder adds to `direct`, nanoseconds.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Hop {
    /// At the median.
    pub p50: f64,
    /// At 99 %.
    pub p99: f64,
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
