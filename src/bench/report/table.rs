//! The report for a terminal.

use std::fmt::Write as _;

use super::{LayoutReport, Report, answer, render, tables};

/// The whole report as text.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "thalweg {}, {}",
        report.head.version,
        report.head.machine.summary()
    );
    let _ = writeln!(out, "{}", report.method);
    for note in &report.place.notes {
        let _ = writeln!(out, "note: {note}");
    }
    if let Some(interrupted) = &report.interrupted {
        let _ = writeln!(out, "note: {interrupted}");
    }
    if let Some(disturbance) = report.disturbance() {
        let _ = writeln!(out, "note: {disturbance}");
    }
    for layout in &report.layouts {
        let name = layout.layout.name();
        let _ = writeln!(out, "\n== {name} ==  {}", placement(layout));
        for note in &layout.notes {
            let _ = writeln!(out, "note: {note}");
        }
        for shape in &layout.shapes {
            out.push('\n');
            out.push_str(&render::text(&tables::shape(
                layout,
                shape,
                &report.baseline,
            )));
        }
    }
    let others = [
        tables::starts(report),
        tables::idle(report),
        tables::idle_flow(report),
    ];
    for table in others.into_iter().flatten() {
        out.push('\n');
        out.push_str(&render::text(&table));
    }
    subjects(report, &mut out);
    out.push('\n');
    for sentence in answer::sentences(report) {
        let _ = writeln!(out, "=> {sentence}");
    }
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
