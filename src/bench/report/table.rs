//! The figures for a terminal: one block a layout and shape, one line a subject.

use std::fmt::Write as _;

use super::{LayoutReport, Ratio, Report, Row, ShapeReport};
use crate::bench::stats::{Interval, Verdict};
use crate::bench::units;

/// The whole report as text.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "thalweg {}, {}",
        report.version,
        report.machine.summary()
    );
    let _ = writeln!(out, "{}", report.method);
    for note in &report.place.notes {
        let _ = writeln!(out, "note: {note}");
    }
    for layout in &report.layouts {
        let _ = writeln!(
            out,
            "\n== {} ==  {}",
            layout.layout.name(),
            placement(layout)
        );
        for note in &layout.notes {
            let _ = writeln!(out, "note: {note}");
        }
        for shape in &layout.shapes {
            out.push('\n');
            out.push_str(&shape_block(layout, shape, &report.baseline));
        }
    }
    starts(report, &mut out);
    idle(report, &mut out);
    subjects(report, &mut out);
    out
}

fn placement(layout: &LayoutReport) -> String {
    if layout.forwarder_cpus == layout.other_cpus {
        format!(
            "client, forwarder and origin share CPU {}",
            list(&layout.other_cpus)
        )
    } else {
        format!(
            "forwarder on CPU {}, the rest on CPU {}",
            list(&layout.forwarder_cpus),
            list(&layout.other_cpus)
        )
    }
}

fn list(cpus: &[usize]) -> String {
    let words: Vec<String> = cpus.iter().map(usize::to_string).collect();
    words.join(",")
}

fn shape_block(layout: &LayoutReport, shape: &ShapeReport, baseline: &str) -> String {
    let mut head: Vec<String> = vec![shape.name.clone()];
    if shape.is_burst {
        head.extend(["bulk before last byte", "before half", "all moved in"].map(str::to_owned));
        head.extend([format!("vs {baseline}"), "verdict".to_owned()]);
        let mut lines = vec![head];
        lines.extend(
            shape
                .rows
                .iter()
                .map(|row| burst_line(shape, row, baseline)),
        );
        return align(&lines) + &remarks(layout, shape);
    }
    if shape.has_bulk {
        head.push("throughput".to_owned());
    }
    if shape.has_exchanges {
        head.extend(["rate", "p50", "p99", "p99.9", "max"].map(str::to_owned));
    }
    let unit = if shape.has_exchanges {
        "µs/op"
    } else {
        "s/GB"
    };
    head.push(format!("cpu {unit}"));
    head.push(format!("hop {unit}"));
    if shape.has_exchanges {
        head.push("hop p50".to_owned());
    }
    if shape.has_bulk && shape.has_exchanges {
        head.push("cpu used".to_owned());
        head.extend(["quiet rate", "p50", "p99", "p50/quiet", "p99/quiet"].map(str::to_owned));
    }
    head.push(format!("vs {baseline}"));
    head.push("verdict".to_owned());
    if baseline != "direct" {
        head.push("vs direct".to_owned());
    }
    let mut lines = vec![head];
    for row in &shape.rows {
        lines.push(line(shape, row, baseline));
    }
    align(&lines) + &remarks(layout, shape)
}

/// What a large configuration costs: the forwarder's CPU against that of the same subject
/// with a small one.
pub(super) fn growth<'a>(layout: &LayoutReport, row: &'a Row) -> Option<&'a Ratio> {
    let facts = layout.subjects.iter().find(|it| it.name == row.subject)?;
    let smaller = &layout.subjects[facts.smaller?].name;
    let is_it = |it: &&Ratio| it.of == "cpu" && it.against == *smaller;
    row.ratios.iter().find(is_it)
}

fn burst_line(shape: &ShapeReport, row: &Row, baseline: &str) -> Vec<String> {
    let none = || "–".to_owned();
    let ratio = deciding(shape, row, baseline);
    let mut cells = vec![row.subject.clone()];
    match row.burst {
        Some(burst) => cells.extend([
            with_spread(burst.last, percent),
            with_spread(burst.median, percent),
            units::latency(burst.seconds.estimate * 1e9),
        ]),
        None => cells.extend((0..3).map(|_| none())),
    }
    cells.push(ratio.map_or_else(none, |(ratio, _)| ratio_text(ratio)));
    cells.push(ratio.map_or_else(none, |(_, verdict)| verdict.name().to_owned()));
    cells
}

pub(super) fn percent(share: f64) -> String {
    format!("{} %", units::digits(share * 100.0))
}

fn remarks(layout: &LayoutReport, shape: &ShapeReport) -> String {
    let mut out = String::new();
    for row in &shape.rows {
        if let Some(growth) = growth(layout, row) {
            let _ = writeln!(
                out,
                "  {}: CPU {} times that of {}",
                row.subject,
                ratio_text(growth.ratio),
                growth.against
            );
        }
        if let Some(failure) = &row.failure {
            let _ = writeln!(out, "  {}: NOT COMPARED: {failure}", row.subject);
        }
        for remark in &row.remarks {
            let _ = writeln!(out, "  {}: {remark}", row.subject);
        }
    }
    out
}

fn line(shape: &ShapeReport, row: &Row, baseline: &str) -> Vec<String> {
    let mut cells = vec![row.subject.clone()];
    let none = || "–".to_owned();
    if shape.has_bulk {
        cells.push(
            row.throughput
                .map_or_else(none, |i| with_spread(i, units::bit_rate)),
        );
    }
    if shape.has_exchanges {
        cells.push(
            row.exchanges
                .map_or_else(none, |i| with_spread(i, units::rate)),
        );
        match row.latency {
            Some(l) => {
                cells.extend([l.p50, l.p99, l.p999, l.max].map(|ns| units::latency(ns as f64)));
            }
            None => cells.extend((0..4).map(|_| none())),
        }
    }
    let is_direct = row.hop.is_none() && row.cpu_shares[0] == 0.0;
    cells.push(match row.cpu {
        Some(cpu) if !is_direct => units::digits(cpu.estimate),
        _ => none(),
    });
    cells.push(row.hop.map_or_else(none, |hop| units::digits(hop.cpu)));
    if shape.has_exchanges {
        cells.push(row.hop.and_then(|hop| hop.p50).map_or_else(none, |ns| {
            format!(
                "{}{}",
                if ns < 0.0 { "-" } else { "+" },
                units::latency(ns.abs())
            )
        }));
    }
    if shape.has_bulk && shape.has_exchanges {
        cells.push(percent(row.cpu_shares[0]));
        match row.quiet {
            Some(quiet) => cells.extend([
                units::rate(quiet.exchanges.estimate),
                units::latency(quiet.latency.p50 as f64),
                units::latency(quiet.latency.p99 as f64),
                ratio_text(quiet.p50),
                ratio_text(quiet.p99),
            ]),
            None => cells.extend((0..5).map(|_| none())),
        }
    }
    let first = deciding(shape, row, baseline);
    cells.push(first.map_or_else(none, |(ratio, _)| ratio_text(ratio)));
    cells.push(first.map_or_else(none, |(_, verdict)| verdict.name().to_owned()));
    if baseline != "direct" {
        cells.push(
            deciding(shape, row, "direct")
                .map_or_else(none, |(ratio, _)| format!("{:.2}", ratio.estimate)),
        );
    }
    cells
}

/// The ratio of the figure by which the shape is judged.
pub(super) fn deciding(
    shape: &ShapeReport,
    row: &Row,
    against: &str,
) -> Option<(Interval, Verdict)> {
    use crate::bench::load::shape::Figure;
    let of = match shape.figure {
        Figure::Throughput => "throughput",
        Figure::Requests | Figure::Connections => "exchanges",
        Figure::Share => "share",
        Figure::Latency => "p99",
    };
    row.ratios
        .iter()
        .find(|ratio| ratio.against == against && ratio.of == of)
        .map(|ratio| (ratio.ratio, ratio.verdict))
}

fn with_spread(interval: Interval, show: impl Fn(f64) -> String) -> String {
    let half = (interval.high - interval.low) / 2.0 / interval.estimate.max(f64::MIN_POSITIVE);
    format!("{} ±{:.0}%", show(interval.estimate), half * 100.0)
}

pub(super) fn ratio_text(ratio: Interval) -> String {
    format!(
        "{:.2} [{:.2}, {:.2}]",
        ratio.estimate, ratio.low, ratio.high
    )
}

/// Columns as wide as their widest cell; the first to the left, the rest to the right.
pub(crate) fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            let pad = widths[column] - cell.chars().count();
            if column == 0 {
                out.push_str(cell);
                out.extend(std::iter::repeat_n(' ', pad));
            } else {
                out.push_str("  ");
                out.extend(std::iter::repeat_n(' ', pad));
                out.push_str(cell);
            }
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
    out
}

fn starts(report: &Report, out: &mut String) {
    let Some(layout) = report.layouts.first() else {
        return;
    };
    let head = [
        "a start takes",
        "time",
        "CPU",
        "time to small",
        "CPU to small",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for start in &layout.starts {
        let seconds = |value: f64| units::latency(value * 1e9);
        let ratio = |ratio: Option<Interval>| ratio.map_or_else(|| "–".to_owned(), ratio_text);
        lines.push(vec![
            start.subject.clone(),
            with_spread(start.seconds, seconds),
            with_spread(start.cpu, seconds),
            ratio(start.seconds_ratio),
            ratio(start.cpu_ratio),
        ]);
    }
    if lines.len() > 1 {
        out.push('\n');
        out.push_str(&align(&lines));
    }
}

fn idle(report: &Report, out: &mut String) {
    let Some(layout) = report.layouts.first() else {
        return;
    };
    let mut lines = vec![
        [
            "an idle session costs",
            "memory",
            "descriptors",
            "pipe ends",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for subject in &layout.subjects {
        if let Some(idle) = subject.idle {
            lines.push(vec![
                subject.name.clone(),
                units::size(idle.bytes),
                format!("{:.2}", idle.descriptors),
                format!("{:.2}", idle.pipe_ends),
            ]);
        }
    }
    if lines.len() > 1 {
        out.push('\n');
        out.push_str(&align(&lines));
    }
}

fn subjects(report: &Report, out: &mut String) {
    let Some(layout) = report.layouts.first() else {
        return;
    };
    out.push('\n');
    for subject in &layout.subjects {
        let half = if subject.keeps_half_closed {
            ""
        } else {
            "; cuts half-closed connections"
        };
        let _ = writeln!(out, "{}: {}{half}", subject.name, subject.launch.version);
    }
}
