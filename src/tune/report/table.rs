//! The result for a terminal.

use std::fmt::Write as _;

use super::{Report, tables};
use crate::bench::report::render;
use crate::tune::measure::Through;

/// Everything but the profile.
pub fn render(report: &Report) -> String {
    let mut out = format!(
        "{}\n{}\n{}\n{}\n{}\n",
        report.place,
        report.head.machine.summary(),
        report.conditions(),
        report.path(),
        report.method()
    );
    for doubt in &report.doubts {
        let _ = writeln!(out, "DOUBTFUL: {doubt}");
    }
    for stage in &report.stages {
        out.push('\n');
        if stage.through == Through::Forwarder {
            let _ = writeln!(out, "With a forwarder between, its legs as found above:");
        }
        out.push_str(&render::text(&tables::stage(report, stage)));
    }
    if !report.skipped.is_empty() {
        out.push_str("\nNot tried:\n");
        for skipped in &report.skipped {
            let _ = writeln!(out, "  {}: {}", skipped.what, skipped.why);
        }
    }
    out.push_str("\nWhat holds it back:\n");
    for finding in &report.findings {
        let _ = writeln!(out, "  {finding}");
    }
    out.push('\n');
    for sentence in &report.verdict {
        let _ = writeln!(out, "=> {sentence}");
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_has_the_answer_and_what_it_rests_on() {
        let text = super::render(&super::super::sample::sample());
        for part in [
            "loopback",
            "congestion control of the defaults: bbr",
            "kernel's defaults",
            "1.45 [1.41, 1.49]",
            "recommended",
            "congestion=<vegas>: not here",
            "DOUBTFUL: <late>",
            "=> congestion=cubic",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
