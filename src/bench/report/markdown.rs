//! The figures as Markdown, for a README: one table a layout, one column a subject,
//! and the machine named below it.

use std::fmt::Write as _;

use super::table::{deciding, percent, ratio_text};
use super::{LayoutReport, Report, Row, ShapeReport};
use crate::bench::units;

/// The tables.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    for layout in &report.layouts {
        layout_table(layout, report, &mut out);
    }
    let _ = writeln!(
        out,
        "Bold: the {:.0} % interval of the ratio to {} excludes 1. {}. {}.",
        report.confidence * 100.0,
        report.baseline,
        report.machine.summary(),
        report.method
    );
    let versions: Vec<String> = report
        .layouts
        .iter()
        .take(1)
        .flat_map(|layout| &layout.subjects)
        .filter(|subject| !subject.is_direct)
        .map(|subject| format!("{}: {}", subject.name, subject.launch.version))
        .collect();
    let _ = writeln!(out, "{}.", versions.join("; "));
    out
}

fn layout_table(layout: &LayoutReport, report: &Report, out: &mut String) {
    let names: Vec<&str> = layout.subjects.iter().map(|s| s.name.as_str()).collect();
    let _ = writeln!(out, "| {} | {} |", layout.layout.name(), names.join(" | "));
    let _ = writeln!(out, "| --- |{}", " ---: |".repeat(names.len()));
    for shape in &layout.shapes {
        let mut line = |what: &str, cell: &dyn Fn(&Row) -> Option<String>| {
            let cells: Vec<String> = shape
                .rows
                .iter()
                .map(|row| match &row.failure {
                    Some(_) => "failed".to_owned(),
                    None => cell(row).unwrap_or_else(|| "–".to_owned()),
                })
                .collect();
            let _ = writeln!(out, "| {}, {what} | {} |", shape.name, cells.join(" | "));
        };
        if shape.has_bulk {
            line("throughput", &|row| {
                row.throughput.map(|i| units::bit_rate(i.estimate))
            });
        }
        if shape.has_exchanges {
            line("a second", &|row| {
                row.exchanges.map(|i| units::rate(i.estimate))
            });
            line("p50 / p99", &|row| {
                let l = row.latency?;
                Some(format!(
                    "{} / {}",
                    units::latency(l.p50 as f64),
                    units::latency(l.p99 as f64)
                ))
            });
        }
        if shape.has_bulk && shape.has_exchanges {
            line("p50 / p99 without the bulk", &|row| {
                let l = row.quiet?.latency;
                Some(format!(
                    "{} / {}",
                    units::latency(l.p50 as f64),
                    units::latency(l.p99 as f64)
                ))
            });
            line("p50, ratio to without", &|row| {
                Some(ratio_text(row.quiet?.p50))
            });
            line("p99, ratio to without", &|row| {
                Some(ratio_text(row.quiet?.p99))
            });
        }
        if shape.is_burst {
            line("bulk before the last byte", &|row| {
                Some(percent(row.burst?.last.estimate))
            });
        }
        let unit = if shape.has_exchanges {
            "µs each"
        } else {
            "s/GB"
        };
        line(&format!("forwarder's CPU, {unit}"), &|row| {
            row.cpu
                .filter(|cpu| cpu.high > 0.0)
                .map(|cpu| units::digits(cpu.estimate))
        });
        line(&format!("ratio to {}", report.baseline), &|row| {
            ratio(shape, row, &report.baseline)
        });
    }
    let idle: Vec<String> = layout
        .subjects
        .iter()
        .map(|subject| {
            subject
                .idle
                .map_or_else(|| "–".to_owned(), |idle| units::size(idle.bytes))
        })
        .collect();
    if layout.subjects.iter().any(|subject| subject.idle.is_some()) {
        let _ = writeln!(out, "| memory of an idle session | {} |", idle.join(" | "));
    }
    out.push('\n');
}

fn ratio(shape: &ShapeReport, row: &Row, baseline: &str) -> Option<String> {
    use crate::bench::stats::Verdict;
    let (ratio, verdict) = deciding(shape, row, baseline)?;
    let text = ratio_text(ratio);
    Some(match verdict {
        Verdict::Noise => text,
        Verdict::Faster | Verdict::Slower => format!("**{text}**"),
    })
}
