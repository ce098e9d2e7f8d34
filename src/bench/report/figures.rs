//! From samples to figures: intervals over rounds, and the cost of the hop. Comparisons
//! are in [`comparing`](super::comparing).

use hdrhistogram::Histogram;

use super::comparing::{self, calm, disturbance};
use super::round::{bulk, path_cpu, per_unit, quantile};
use super::{
    BurstReport, Cost, Costs, CpuShares, DatagramReport, Hop, Latency, LayoutReport, QuietReport,
    Row, ShapeReport, StartReport,
};
use crate::bench::harness::{
    BenchOptions, BurstSample, Cell, DatagramSample, Layout, LayoutResult, Quiet, Sample,
    SubjectFacts,
};
use crate::bench::load;
use crate::bench::load::shape::Shape;
use crate::bench::stats::{self, Estimate};
use crate::bench::subjects::running::StartCost;

/// The generator and the origin together use so much of their CPUs that they, and
/// not the subject, set the pace.
const SATURATED: f64 = 0.95;

/// Figures of every layout. A shape that an interrupt left without a round is left out.
pub fn layouts(
    options: &BenchOptions,
    results: &[LayoutResult],
    baseline: &str,
) -> Vec<LayoutReport> {
    results
        .iter()
        .map(|result| {
            let shapes: Vec<ShapeReport> = options
                .shapes
                .iter()
                .enumerate()
                .filter_map(|(index, shape)| {
                    let of_shape = |cell: &&Cell| cell.shape == index;
                    let cells: Vec<&Cell> = result.cells.iter().filter(of_shape).collect();
                    let said = |cell: &&Cell| !cell.samples.is_empty() || cell.failure.is_some();
                    cells
                        .iter()
                        .any(said)
                        .then(|| shape_report(shape, &cells, result, baseline))
                })
                .collect();
            LayoutReport {
                layout: result.layout,
                forwarder_cpus: result.forwarder_cpus.clone(),
                other_cpus: result.other_cpus.clone(),
                subjects: result.subjects.clone(),
                shapes,
                notes: result.notes.clone(),
                starts: starts(&result.subjects),
            }
        })
        .collect()
}

fn starts(subjects: &[SubjectFacts]) -> Vec<StartReport> {
    let values = |subject: &SubjectFacts, of: fn(&StartCost) -> f64| {
        subject.starts.iter().map(of).collect::<Vec<f64>>()
    };
    let report = |subject: &SubjectFacts| {
        let mean = |of| stats::mean(&values(subject, of));
        let ratio = |of| {
            let smaller = &subjects[subject.smaller?];
            stats::ratio(&values(subject, of), &values(smaller, of))
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

fn shape_report(
    shape: &Shape,
    cells: &[&Cell],
    result: &LayoutResult,
    baseline: &str,
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
            let mut row = row(shape, cell, result);
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
                let ratios = comparing::ratios(shape, &cell.samples, &other.samples, name(other));
                row.ratios.extend(ratios);
            }
            let direct = direct.filter(|it| it.subject != cell.subject && shape.burst.is_none());
            if let Some(direct) = direct {
                row.hop = hop(cell, direct);
                if let Some(Cost::Gigabyte(costs) | Cost::Exchange(costs) | Cost::Datagram(costs)) =
                    &mut row.cost
                {
                    costs.hop = Some(hop_cpu(shape, cell, direct));
                }
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
        has_datagrams: shape.is_datagrams(),
        has_stream: shape.stream.is_some(),
        rows,
    }
}

fn row(shape: &Shape, cell: &Cell, result: &LayoutResult) -> Row {
    let samples = &calm(&cell.samples);
    let has_exchanges = shape.exchange.is_some();
    let interval = |of: &dyn Fn(&Sample) -> f64| {
        let values: Vec<f64> = samples.iter().map(|it| of(it)).collect();
        stats::mean(&values)
    };
    let latency = latency(samples);
    let average = |of: &dyn Fn(&Sample) -> f64| {
        samples.iter().map(|it| of(it)).sum::<f64>() / samples.len().max(1) as f64
    };
    Row {
        subject: result.subjects[cell.subject].name.clone(),
        failure: cell.failure.clone(),
        rounds: samples.len(),
        throughput: interval(&|s| bulk(shape, s))
            .filter(|_| shape.bulk.is_some() || shape.stream.is_some()),
        exchanges: interval(&|s| s.exchanges).filter(|_| has_exchanges),
        latency: summary(&latency),
        quiet: quiet(samples),
        burst: burst(samples),
        datagrams: datagrams(samples),
        cost: cost(shape, samples, &interval),
        ratios: Vec::new(),
        hop: None,
        cpu_shares: CpuShares {
            forwarder: average(&|s| s.forwarder_cpu),
            generator: average(&|s| s.generator_cpu),
            origin: average(&|s| s.origin_cpu),
        },
        disturbed: disturbance(&cell.samples),
        remarks: remarks(cell, samples, result),
        curve: curve(&latency),
        samples: cell.samples.clone(),
    }
}

/// What a gigabyte or an exchange costs, but for what is compared with `direct`.
fn cost(
    shape: &Shape,
    samples: &[&Sample],
    interval: &impl Fn(&dyn Fn(&Sample) -> f64) -> Option<Estimate>,
) -> Option<Cost> {
    if shape.burst.is_some() {
        return None;
    }
    let switches = samples.iter().map(|s| per_unit(shape, s, s.switches));
    let costs = Costs {
        path: interval(&|s| per_unit(shape, s, path_cpu(s)))?,
        forwarder: interval(&|s| per_unit(shape, s, s.forwarder_cpu)),
        ends: interval(&|s| per_unit(shape, s, s.generator_cpu + s.origin_cpu)),
        hop: None,
        context_switches: Some(switches.sum::<f64>() / samples.len().max(1) as f64),
    };
    Some(match (shape.exchange, shape.stream) {
        (Some(_), _) => Cost::Exchange(costs),
        (None, Some(_)) => Cost::Datagram(costs),
        (None, None) => Cost::Gigabyte(costs),
    })
}

fn datagrams(samples: &[&Sample]) -> Option<DatagramReport> {
    let rounds: Vec<DatagramSample> = samples.iter().filter_map(|it| it.datagrams).collect();
    let arrived: Vec<f64> = rounds.iter().map(|it| it.arrived).collect();
    let sum = |of: fn(&DatagramSample) -> u64| rounds.iter().map(of).sum::<u64>();
    Some(DatagramReport {
        arrived: stats::mean(&arrived)?,
        sent: sum(|it| it.sent),
        lost_share: sum(|it| it.lost) as f64 / sum(|it| it.sent).max(1) as f64,
        strayed: sum(|it| it.strayed),
    })
}

fn remarks(cell: &Cell, samples: &[&Sample], result: &LayoutResult) -> Vec<String> {
    let mut remarks = Vec::new();
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
    if cell.cut_short > 0 && result.subjects[cell.subject].keeps_half_closed {
        remarks.push(format!(
            "in {} flows the other direction was cut when one ended",
            cell.cut_short
        ));
    }
    remarks
}

fn quiet(samples: &[&Sample]) -> Option<QuietReport> {
    let rounds: Vec<(&Sample, &Quiet)> = samples
        .iter()
        .filter_map(|sample| Some((*sample, sample.quiet.as_ref()?)))
        .collect();
    let ratio = |at: f64| {
        let beside: Vec<f64> = rounds.iter().map(|(it, _)| quantile(it, at)).collect();
        let alone = rounds
            .iter()
            .map(|(_, it)| it.latency.value_at_quantile(at) as f64);
        stats::ratio(&beside, &alone.collect::<Vec<f64>>())
    };
    let rates: Vec<f64> = rounds.iter().map(|(_, it)| it.exchanges).collect();
    let cpu = rounds.iter().map(|(_, it)| it.forwarder_cpu).sum::<f64>();
    Some(QuietReport {
        exchanges: stats::mean(&rates)?,
        latency: summary(&merged(rounds.iter().map(|(_, it)| &it.latency)))?,
        cpu: cpu / rounds.len() as f64,
        p50: ratio(0.5),
        p99: ratio(0.99),
    })
}

fn burst(samples: &[&Sample]) -> Option<BurstReport> {
    let rounds: Vec<BurstSample> = samples.iter().filter_map(|sample| sample.burst).collect();
    let mean = |of: &dyn Fn(&BurstSample) -> f64| {
        stats::mean(&rounds.iter().map(of).collect::<Vec<f64>>())
    };
    Some(BurstReport {
        median: mean(&|it| it.median)?,
        last: mean(&|it| it.last)?,
        seconds: mean(&|it| it.seconds)?,
    })
}

/// What the forwarder adds to the CPU of the path.
fn hop_cpu(shape: &Shape, cell: &Cell, direct: &Cell) -> f64 {
    let mean = |cell: &Cell| {
        let samples = calm(&cell.samples);
        let each = samples.iter().map(|s| per_unit(shape, s, path_cpu(s)));
        each.sum::<f64>() / samples.len().max(1) as f64
    };
    mean(cell) - mean(direct)
}

/// What the forwarder adds to the latency.
fn hop(cell: &Cell, direct: &Cell) -> Option<Hop> {
    let (with, without) = (
        latency(&calm(&cell.samples)),
        latency(&calm(&direct.samples)),
    );
    let added =
        |share: f64| with.value_at_quantile(share) as f64 - without.value_at_quantile(share) as f64;
    (!with.is_empty() && !without.is_empty()).then(|| Hop {
        p50: added(0.5),
        p99: added(0.99),
    })
}

fn latency(samples: &[&Sample]) -> Histogram<u64> {
    merged(samples.iter().map(|sample| &sample.latency))
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
