//! The figures as Markdown, for a README: one table a layout, one column a subject,
//! and the machine named below it.

use std::fmt::Write as _;

use super::model::Unit;
use super::{LayoutReport, Report, render, tables};
use crate::bench::harness::IdleCost;

/// The tables.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    for layout in &report.layouts {
        layout_table(layout, report, &mut out);
    }
    let _ = writeln!(
        out,
        "Bold: the {:.0} % interval of the ratio to {} excludes 1. {}. {}.",
        report.head.confidence * 100.0,
        report.baseline,
        report.head.machine.summary(),
        report.method
    );
    for note in report.interrupted.iter().chain(&report.disturbance()) {
        let _ = writeln!(out, "{note}.");
    }
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
        let table = tables::shape(layout, shape, &report.baseline);
        out.push_str(&render::summary(&table));
    }
    let idle: Vec<String> = layout
        .subjects
        .iter()
        .map(|subject| {
            let text = |idle: IdleCost| Unit::Bytes.text(idle.bytes);
            subject.idle.map_or_else(|| "–".to_owned(), text)
        })
        .collect();
    if layout.subjects.iter().any(|subject| subject.idle.is_some()) {
        let _ = writeln!(out, "| memory of an idle session | {} |", idle.join(" | "));
    }
    out.push('\n');
}
