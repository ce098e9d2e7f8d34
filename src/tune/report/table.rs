//! The result for a terminal.

use std::fmt::Write as _;

use super::{Report, ratio_text};
use crate::bench::report::table::align;
use crate::bench::stats::Interval;
use crate::bench::units;
use crate::tune::measure::Through;
use crate::tune::race::{DEFAULTS, Fate};
use crate::tune::search::{Row, StageResult};

/// Everything but the profile.
pub fn render(report: &Report) -> String {
    let mut out = format!(
        "{}\n{}\n{}\n{}\n{}\n",
        report.place,
        report.machine.summary(),
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
        out.push_str(&align(&lines(report, stage)));
        for (_, row) in stage.ranked() {
            for granted in &row.granted {
                let _ = writeln!(out, "  {}: {granted}", row.name);
            }
            if let Fate::Failed { why } = &row.fate {
                let _ = writeln!(out, "  {}: NOT MEASURED: {why}", row.name);
            }
        }
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

fn lines(report: &Report, stage: &StageResult) -> Vec<Vec<String>> {
    let latency = report.terms.objective.needs_latency();
    let mut head = vec!["candidate", "throughput"];
    if latency {
        head.push("p99");
    }
    head.extend([
        "CPU s/GB",
        "×defaults, race",
        "×defaults, fresh runs",
        "rounds",
        "",
        "held back by",
    ]);
    let mut lines = vec![head.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for (arm, row) in stage.ranked() {
        lines.push(line(stage, arm, row, latency));
    }
    lines
}

fn line(stage: &StageResult, arm: usize, row: &Row, latency: bool) -> Vec<String> {
    let none = || "–".to_owned();
    let spread = |interval: Option<Interval>, show: &dyn Fn(f64) -> String| {
        interval.map_or_else(none, |it| {
            let half = (it.high - it.low) / 2.0 / it.estimate.max(f64::MIN_POSITIVE);
            format!("{} ±{:.0}%", show(it.estimate), half * 100.0)
        })
    };
    let mut name = stage.name(row).to_owned();
    if row.present {
        name.push_str(" (present)");
    }
    let mut cells = vec![name, spread(row.throughput, &units::bit_rate)];
    if latency {
        cells.push(spread(row.p99, &units::latency));
    }
    cells.push(row.cpu.map_or_else(none, |it| units::digits(it.estimate)));
    cells.push(match row.ratio {
        _ if arm == DEFAULTS => "1".to_owned(),
        ratio => ratio.map_or_else(none, ratio_text),
    });
    cells.push(row.confirmed.map_or_else(String::new, ratio_text));
    cells.push(match row.rounds {
        [race, 0] => race.to_string(),
        [race, fresh] => format!("{race}+{fresh}"),
    });
    cells.push(fate(row, stage, arm).to_owned());
    let limit = row.diagnosis.as_ref().map(|it| it.limit.name());
    cells.push(limit.unwrap_or("–").to_owned());
    cells
}

/// What became of a row, in a word or two.
pub(super) fn fate(row: &Row, stage: &StageResult, arm: usize) -> &'static str {
    use crate::tune::race::Decision;
    match &row.fate {
        _ if matches!(stage.decision, Decision::Recommend { arm: it, .. } if it == arm) => {
            "recommended"
        }
        Fate::Stayed => "",
        Fate::Worse { .. } => "worse",
        Fate::Beaten { .. } => "beaten",
        Fate::Halved { .. } => "behind",
        Fate::Failed { .. } => "failed",
    }
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
