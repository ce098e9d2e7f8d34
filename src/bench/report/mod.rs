//! From samples to figures: intervals over rounds, ratios, verdicts, the cost of
//! the hop. Pure. What is shown of them is in `tables`, in terms of [`model`], which
//! [`render`] writes; the outputs around it are [`table`], [`markdown`], [`html`] and
//! [`svg`]. `tune` reports by the same model.

pub mod html;
pub mod markdown;
pub mod model;
pub(crate) mod page;
pub mod render;
pub mod svg;
pub mod table;
mod tables;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::harness::{
    BenchOptions, BurstSample, Cell, Layout, LayoutResult, Quiet, Sample, SubjectFacts,
};
use super::load;
use super::load::shape::{Figure, Shape};
use super::machine::Machine;
use super::netns::Place;
use super::path::PathFacts;
use super::stats::{self, Better, Interval, Verdict};
use super::subjects::running::StartCost;

/// The generator and the origin together use so much of their CPUs that they, and
/// not the subject, set the pace.
const SATURATED: f64 = 0.95;

/// More than this share of the CPUs went to something else: the figures suffer.
const DISTURBED: f64 = 0.05;

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
    pub seconds: Interval,
    /// CPU seconds of its process tree.
    pub cpu: Interval,
    /// Time against the same subject with a small configuration, start by start.
    pub seconds_ratio: Option<Interval>,
    /// CPU likewise.
    pub cpu_ratio: Option<Interval>,
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
    pub throughput: Option<Interval>,
    /// Exchanges a second.
    pub exchanges: Option<Interval>,
    /// Of all rounds together.
    pub latency: Option<Latency>,
    /// Of a mix: what its exchanges are without the bulk.
    pub quiet: Option<QuietReport>,
    /// Of a burst: how long its single bytes waited.
    pub burst: Option<BurstReport>,
    /// The forwarder's CPU: seconds per gigabyte (10⁹ bytes), or microseconds per
    /// exchange.
    pub cpu: Option<Interval>,
    /// CPU of generator, forwarder and origin together, in the same unit.
    pub path_cpu: Option<Interval>,
    /// Against the baseline, against `direct`, and of a subject with a large configuration
    /// against the same with a small one.
    pub ratios: Vec<Ratio>,
    /// What the forwarder adds to `direct`.
    pub hop: Option<Hop>,
    /// CPU seconds a second: forwarder, generator, origin.
    pub cpu_shares: [f64; 3],
    /// The forwarder's context switches per exchange, or per gigabyte.
    pub switches: f64,
    /// What limits or disturbs these figures, in words.
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
    pub exchanges: Interval,
    /// Of all rounds together.
    pub latency: Latency,
    /// The forwarder's CPU seconds a second.
    pub cpu: f64,
    /// p50 beside bulk divided by p50 without, round by round.
    pub p50: Interval,
    /// p99 likewise.
    pub p99: Interval,
}

/// How long the single bytes of a burst waited for its bulk.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct BurstReport {
    /// Share of the bulk, 0 to 1, that moved before half of the bytes.
    pub median: Interval,
    /// Before the last of them.
    pub last: Interval,
    /// Seconds until all of the bulk had moved.
    pub seconds: Interval,
}

/// A comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Ratio {
    /// With whom.
    pub against: String,
    /// Of what: `throughput`, `exchanges`, `p50`, `p99`, `share` (of a burst), `cpu` (the
    /// forwarder's), `path` (CPU of the whole path).
    pub of: &'static str,
    /// This subject's figure divided by the other's.
    pub ratio: Interval,
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

/// Figures of every layout. `seed` makes the intervals repeatable.
pub fn layouts(
    options: &BenchOptions,
    results: &[LayoutResult],
    baseline: &str,
    seed: u64,
) -> Vec<LayoutReport> {
    results
        .iter()
        .map(|result| {
            let shapes: Vec<ShapeReport> = options
                .shapes
                .iter()
                .enumerate()
                .map(|(index, shape)| {
                    let of_shape = |cell: &&Cell| cell.shape == index;
                    let cells: Vec<&Cell> = result.cells.iter().filter(of_shape).collect();
                    shape_report(shape, &cells, result, baseline, seed)
                })
                .collect();
            LayoutReport {
                layout: result.layout,
                forwarder_cpus: result.forwarder_cpus.clone(),
                other_cpus: result.other_cpus.clone(),
                subjects: result.subjects.clone(),
                shapes,
                notes: result.notes.clone(),
                starts: starts(&result.subjects, seed),
            }
        })
        .collect()
}

fn starts(subjects: &[SubjectFacts], seed: u64) -> Vec<StartReport> {
    let values = |subject: &SubjectFacts, of: fn(&StartCost) -> f64| {
        subject.starts.iter().map(of).collect::<Vec<f64>>()
    };
    let report = |subject: &SubjectFacts| {
        let mean = |of| stats::mean(&values(subject, of), seed);
        let ratio = |of| {
            let smaller = &subjects[subject.smaller?];
            stats::ratio(&values(subject, of), &values(smaller, of), seed)
        };
        Some(StartReport {
            subject: subject.name.clone(),
            seconds: mean(|it| it.seconds)?,
            cpu: mean(|it| it.cpu)?,
            seconds_ratio: ratio(|it| it.seconds),
            cpu_ratio: ratio(|it| it.cpu),
        })
    };
    subjects.iter().filter_map(report).collect()
}

impl Report {
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

fn shape_report(
    shape: &Shape,
    cells: &[&Cell],
    result: &LayoutResult,
    baseline: &str,
    seed: u64,
) -> ShapeReport {
    let name = |cell: &Cell| result.subjects[cell.subject].name.as_str();
    let direct = cells
        .iter()
        .find(|cell| result.subjects[cell.subject].is_direct && cell.failure.is_none());
    let base = cells
        .iter()
        .find(|cell| name(cell) == baseline && cell.failure.is_none());
    let rows = cells
        .iter()
        .map(|cell| {
            let mut row = row(shape, cell, result, seed);
            if cell.failure.is_some() {
                return row;
            }
            let mut others: Vec<&Cell> = Vec::new();
            let smaller = result.subjects[cell.subject].smaller;
            let smaller = cells
                .iter()
                .find(|it| Some(it.subject) == smaller && it.failure.is_none());
            for other in [base, direct, smaller].into_iter().flatten() {
                if other.subject != cell.subject
                    && !others.iter().any(|known| known.subject == other.subject)
                {
                    others.push(other);
                }
            }
            for other in others {
                row.ratios
                    .extend(ratios(shape, cell, other, name(other), seed));
            }
            let direct = direct.filter(|it| it.subject != cell.subject && shape.burst.is_none());
            if let Some(direct) = direct {
                row.hop = Some(hop(shape, cell, direct));
            }
            row
        })
        .collect();
    ShapeReport {
        name: shape.name.clone(),
        figure: shape.figure(),
        has_exchanges: shape.exchange.is_some(),
        has_bulk: shape.bulk.is_some(),
        is_burst: shape.burst.is_some(),
        rows,
    }
}

fn row(shape: &Shape, cell: &Cell, result: &LayoutResult, seed: u64) -> Row {
    let samples = &cell.samples;
    let has_exchanges = shape.exchange.is_some();
    let has_cpu = shape.burst.is_none();
    let interval = |of: &dyn Fn(&Sample) -> f64| {
        let values: Vec<f64> = samples.iter().map(of).collect();
        stats::mean(&values, seed)
    };
    let latency = latency(cell);
    let average = |of: &dyn Fn(&Sample) -> f64| {
        samples.iter().map(of).sum::<f64>() / samples.len().max(1) as f64
    };
    Row {
        subject: result.subjects[cell.subject].name.clone(),
        failure: cell.failure.clone(),
        rounds: samples.len(),
        throughput: shape.bulk.and_then(|_| interval(&|s| bulk(shape, s))),
        exchanges: interval(&|s| s.exchanges).filter(|_| has_exchanges),
        latency: summary(&latency),
        quiet: quiet(samples, seed),
        burst: burst(samples, seed),
        cpu: interval(&|s| per_unit(shape, s, s.forwarder_cpu)).filter(|_| has_cpu),
        path_cpu: interval(&|s| per_unit(shape, s, path_cpu(s))).filter(|_| has_cpu),
        ratios: Vec::new(),
        hop: None,
        cpu_shares: [
            average(&|s| s.forwarder_cpu),
            average(&|s| s.generator_cpu),
            average(&|s| s.origin_cpu),
        ],
        switches: average(&|s| {
            let units = if has_exchanges {
                s.exchanges
            } else {
                throughput(s) / 1e9
            };
            s.switches / units.max(f64::MIN_POSITIVE)
        }),
        remarks: remarks(cell, result),
        curve: curve(&latency),
        samples: samples.clone(),
    }
}

fn remarks(cell: &Cell, result: &LayoutResult) -> Vec<String> {
    let mut remarks = Vec::new();
    let samples = &cell.samples;
    let count = samples.len().max(1) as f64;
    let others = samples
        .iter()
        .map(|s| s.generator_cpu + s.origin_cpu)
        .sum::<f64>()
        / count
        / result.other_cpus.len() as f64;
    let forwarder = samples.iter().map(|s| s.forwarder_cpu).sum::<f64>()
        / count
        / result.forwarder_cpus.len() as f64;
    let is_direct = result.subjects[cell.subject].is_direct;
    if result.layout == Layout::OwnCore
        && !is_direct
        && others >= SATURATED
        && forwarder < SATURATED
    {
        remarks.push(format!(
            "generator and origin are the bottleneck ({:.0} % of their CPUs; the forwarder uses \
             {:.0} % of its own): its ceiling is higher",
            others * 100.0,
            forwarder * 100.0
        ));
    }
    let foreign = samples.iter().map(|s| s.foreign_cpu).sum::<f64>() / count;
    if foreign > DISTURBED {
        remarks.push(format!(
            "disturbed: {:.0} % of these CPUs went to something else",
            foreign * 100.0
        ));
    }
    if cell.cut_short > 0 && result.subjects[cell.subject].keeps_half_closed {
        remarks.push(format!(
            "in {} flows the other direction was cut when one ended",
            cell.cut_short
        ));
    }
    remarks
}

fn quiet(samples: &[Sample], seed: u64) -> Option<QuietReport> {
    let rounds: Vec<(&Sample, &Quiet)> = samples
        .iter()
        .filter_map(|sample| Some((sample, sample.quiet.as_ref()?)))
        .collect();
    let ratio = |at: f64| {
        let beside: Vec<f64> = rounds.iter().map(|(it, _)| quantile(it, at)).collect();
        let alone = rounds
            .iter()
            .map(|(_, it)| it.latency.value_at_quantile(at) as f64);
        stats::ratio(&beside, &alone.collect::<Vec<f64>>(), seed)
    };
    let rates: Vec<f64> = rounds.iter().map(|(_, it)| it.exchanges).collect();
    let cpu = rounds.iter().map(|(_, it)| it.forwarder_cpu).sum::<f64>();
    Some(QuietReport {
        exchanges: stats::mean(&rates, seed)?,
        latency: summary(&merged(rounds.iter().map(|(_, it)| &it.latency)))?,
        cpu: cpu / rounds.len() as f64,
        p50: ratio(0.5)?,
        p99: ratio(0.99)?,
    })
}

fn burst(samples: &[Sample], seed: u64) -> Option<BurstReport> {
    let rounds: Vec<BurstSample> = samples.iter().filter_map(|sample| sample.burst).collect();
    let mean = |of: &dyn Fn(&BurstSample) -> f64| {
        stats::mean(&rounds.iter().map(of).collect::<Vec<f64>>(), seed)
    };
    Some(BurstReport {
        median: mean(&|it| it.median)?,
        last: mean(&|it| it.last)?,
        seconds: mean(&|it| it.seconds)?,
    })
}

fn throughput(sample: &Sample) -> f64 {
    sample.up + sample.down
}

/// Without what a mix's exchanges move.
fn bulk(shape: &Shape, sample: &Sample) -> f64 {
    let each = shape.exchange.map_or(0, |exchange| 2 * exchange.size);
    (throughput(sample) - sample.exchanges * each as f64).max(0.0)
}

fn path_cpu(sample: &Sample) -> f64 {
    sample.forwarder_cpu + sample.generator_cpu + sample.origin_cpu
}

/// CPU seconds a second to seconds per gigabyte, or microseconds per exchange.
fn per_unit(shape: &Shape, sample: &Sample, cpu: f64) -> f64 {
    if shape.exchange.is_some() {
        cpu * 1e6 / sample.exchanges
    } else {
        cpu * 1e9 / throughput(sample)
    }
}

fn quantile(sample: &Sample, quantile: f64) -> f64 {
    sample.latency.value_at_quantile(quantile) as f64
}

fn ratios(shape: &Shape, cell: &Cell, other: &Cell, against: &str, seed: u64) -> Vec<Ratio> {
    type Of<'a> = (&'static str, Better, Box<dyn Fn(&Sample) -> f64 + 'a>);
    let mut figures: Vec<Of<'_>> = Vec::new();
    if shape.bulk.is_some() {
        figures.push(("throughput", Better::More, Box::new(|s| bulk(shape, s))));
    }
    if shape.exchange.is_some() {
        figures.push(("exchanges", Better::More, Box::new(|s| s.exchanges)));
        figures.push(("p50", Better::Less, Box::new(|s| quantile(s, 0.5))));
        figures.push(("p99", Better::Less, Box::new(|s| quantile(s, 0.99))));
    }
    if shape.burst.is_some() {
        let waited = |s: &Sample| s.burst.map_or(f64::NAN, |burst| burst.last);
        figures.push(("share", Better::Less, Box::new(waited)));
    }
    figures.push((
        "cpu",
        Better::Less,
        Box::new(|s| per_unit(shape, s, s.forwarder_cpu)),
    ));
    figures.push((
        "path",
        Better::Less,
        Box::new(|s| per_unit(shape, s, path_cpu(s))),
    ));
    // Rounds that both have: a subject that failed later still has its earlier ones.
    let rounds = cell.samples.len().min(other.samples.len());
    figures
        .into_iter()
        .filter_map(|(of, better, figure)| {
            let values: Vec<f64> = cell.samples[..rounds].iter().map(&figure).collect();
            let base: Vec<f64> = other.samples[..rounds].iter().map(&figure).collect();
            let ratio = stats::ratio(&values, &base, seed)?;
            Some(Ratio {
                against: against.to_owned(),
                of,
                ratio,
                verdict: stats::verdict(ratio, rounds, better),
            })
        })
        .collect()
}

fn hop(shape: &Shape, cell: &Cell, direct: &Cell) -> Hop {
    let mean = |cell: &Cell| {
        let total: f64 = cell
            .samples
            .iter()
            .map(|s| per_unit(shape, s, path_cpu(s)))
            .sum();
        total / cell.samples.len().max(1) as f64
    };
    let added = |share: f64| {
        let (with, without) = (latency(cell), latency(direct));
        (!with.is_empty() && !without.is_empty())
            .then(|| with.value_at_quantile(share) as f64 - without.value_at_quantile(share) as f64)
    };
    Hop {
        cpu: mean(cell) - mean(direct),
        p50: added(0.5),
        p99: added(0.99),
    }
}

fn latency(cell: &Cell) -> Histogram<u64> {
    merged(cell.samples.iter().map(|sample| &sample.latency))
}

fn merged<'a>(rounds: impl Iterator<Item = &'a Histogram<u64>>) -> Histogram<u64> {
    let mut all = load::histogram();
    for latency in rounds {
        all.add(latency)
            .expect("every histogram here has the same bounds");
    }
    all
}

fn summary(latency: &Histogram<u64>) -> Option<Latency> {
    (!latency.is_empty()).then(|| Latency {
        p50: latency.value_at_quantile(0.5),
        p90: latency.value_at_quantile(0.9),
        p99: latency.value_at_quantile(0.99),
        p999: latency.value_at_quantile(0.999),
        max: latency.max(),
    })
}

/// Evenly spaced in the number of nines, as far as there are samples behind them.
fn curve(latency: &Histogram<u64>) -> Vec<(f64, u64)> {
    if latency.is_empty() {
        return Vec::new();
    }
    let nines_max = (latency.len() as f64).log10().min(5.0);
    (0..=100)
        .map(|step| nines_max * f64::from(step) / 100.0)
        .map(|nines| {
            let share = 1.0 - 10_f64.powf(-nines);
            (share * 100.0, latency.value_at_quantile(share))
        })
        .collect()
}
