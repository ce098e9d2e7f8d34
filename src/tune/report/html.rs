//! One page that needs no network: the answer, plots of each option and of each run
//! over time, every figure, the machine, the profile.

use std::fmt::Write as _;

use super::{Report, tables};
use crate::bench::report::model::Tone;
use crate::bench::report::svg::{self, Bar, Line, escape};
use crate::bench::report::{page, render};
use crate::bench::stats::Estimate;
use crate::bench::units;
use crate::tune::measure::Through;
use crate::tune::race::{DEFAULTS, Decision};
use crate::tune::search::{Row, Series, StageResult};

/// The page.
pub fn render(report: &Report) -> String {
    let lead = [&report.when, &report.place, &report.machine.summary()];
    let lead = lead.map(|line| escape(line)).join("<br>");
    let terms = [report.conditions(), report.path(), report.method()];
    let terms = terms.map(|sentence| format!("{}.", escape(&sentence)));
    let command = escape(&report.command);
    let mut out = page::open(
        "thalweg tune",
        &[
            format!("{lead}<br><code>{command}</code>"),
            terms.join("<br>"),
        ],
    );
    for doubt in &report.doubts {
        page::say(&mut out, Tone::Failed, &format!("Doubtful: {doubt}"));
    }
    out.push_str("<h2>The answer</h2>\n");
    for sentence in &report.verdict {
        let _ = writeln!(out, "<p><b>{}</b></p>", escape(sentence));
    }
    let _ = writeln!(out, "<pre>{}</pre>", escape(&report.profile));
    out.push_str("<h2>What holds it back</h2>\n");
    for finding in &report.findings {
        let _ = writeln!(out, "<p>{}</p>", escape(finding));
    }
    for stage in &report.stages {
        stage_section(report, stage, &mut out);
    }
    skipped(report, &mut out);
    page::machine(&report.machine, &report.facts.congestion, &mut out);
    reading(&mut out);
    page::close(&mut out, &report.version, "");
    out
}

fn stage_section(report: &Report, stage: &StageResult, out: &mut String) {
    let title = match stage.through {
        Through::Nothing => "The options of a leg",
        Through::Forwarder => "The forwarder's settings",
    };
    let _ = writeln!(out, "<h2>{title}</h2>");
    out.push_str(&render::html(&tables::stage(report, stage)));
    out.push_str("<h3>Each option</h3>\n");
    for option in options(stage) {
        let throughput = bars(stage, &option, |row| row.throughput, units::bit_rate);
        out.push_str(&svg::bars(&format!("{option}: throughput"), &throughput));
        if report.terms.objective.needs_latency() {
            let p99 = bars(stage, &option, |row| row.p99, units::latency);
            let title = format!("{option}: p99 under load, less is better");
            out.push_str(&svg::bars(&title, &p99));
        }
        if report.terms.objective.cpu > 0.0 {
            let seconds = |value| format!("{} s/GB", units::digits(value));
            let cpu = bars(stage, &option, |row| row.cpu, seconds);
            out.push_str(&svg::bars(&format!("{option}: CPU, less is better"), &cpu));
        }
    }
    over_time(stage, out);
}

/// Options that some row has, in the order of the rows.
fn options(stage: &StageResult) -> Vec<String> {
    let mut options: Vec<String> = Vec::new();
    for change in stage.rows.iter().flat_map(|row| &row.candidate.changes) {
        let option = change.option();
        if !options.contains(&option) {
            options.push(option);
        }
    }
    options
}

/// The defaults, and every row that has the option.
fn bars(
    stage: &StageResult,
    option: &str,
    of: impl Fn(&Row) -> Option<Estimate>,
    text: impl Fn(f64) -> String,
) -> Vec<Bar> {
    let has = |row: &&(usize, &Row)| {
        let mut changes = row.1.candidate.changes.iter();
        row.0 == DEFAULTS || changes.any(|change| change.option() == option)
    };
    let mut rows: Vec<(usize, &Row)> = stage.rows.iter().enumerate().collect();
    rows.retain(|row| has(&row));
    let bar = |(arm, row): (usize, &Row)| {
        let value = of(row)?;
        let label = match row.candidate.changes.as_slice() {
            [] => "defaults".to_owned(),
            [only] => only.shown().to_owned(),
            _ => row.name.replace(' ', ", "),
        };
        Some(Bar {
            label: shorten(&label),
            text: text(value.estimate),
            value,
            colour: usize::from(arm != DEFAULTS) + usize::from(row.candidate.changes.len() > 1),
        })
    };
    rows.into_iter().filter_map(bar).collect()
}

/// What fits beside a bar.
fn shorten(label: &str) -> String {
    match label.char_indices().nth(22) {
        Some((end, _)) => format!("{}…", &label[..end]),
        None => label.to_owned(),
    }
}

/// The defaults, the present settings and what is recommended, each in its last run.
fn over_time(stage: &StageResult, out: &mut String) {
    let recommended = match stage.decision {
        Decision::Recommend { arm, .. } => Some(arm),
        Decision::Leave { why: ref w } => match w {
            crate::tune::race::Leave::NotConfirmed { arm, .. } => Some(*arm),
            _ => None,
        },
    };
    let mut shown: Vec<(usize, &Row)> = stage.rows.iter().enumerate().collect();
    shown.retain(|(arm, row)| *arm == DEFAULTS || row.present || Some(*arm) == recommended);
    let lines = |of: fn(&Series) -> &Vec<f64>| {
        let each = shown.iter().enumerate().filter_map(|(colour, (_, row))| {
            let series = row.series.as_ref()?;
            Some(Line {
                label: shorten(stage.name(row)),
                points: series.at.iter().copied().zip(of(series).clone()).collect(),
                colour,
            })
        });
        each.collect::<Vec<_>>()
    };
    let marks = [stage.timing.warm_up.as_secs_f64()];
    out.push_str(
        "<h3>The last run of each over time</h3>\n\
         <p>TCP_INFO of the busiest flow; measured from the dashed line on.</p>\n",
    );
    let seconds = |value: f64| units::latency(value * 1e9);
    out.push_str(&svg::lines(
        "round trip time",
        &lines(|it| &it.rtt),
        &marks,
        seconds,
    ));
    out.push_str(&svg::lines(
        "congestion window",
        &lines(|it| &it.cwnd),
        &marks,
        units::size,
    ));
    out.push_str(&svg::lines(
        "delivery rate",
        &lines(|it| &it.rate),
        &marks,
        units::bit_rate,
    ));
}

fn skipped(report: &Report, out: &mut String) {
    if report.skipped.is_empty() {
        return;
    }
    out.push_str("<h2>Not tried</h2>\n<dl>\n");
    for skipped in &report.skipped {
        let _ = writeln!(
            out,
            "<dt>{}</dt><dd>{}</dd>",
            escape(&skipped.what),
            escape(&skipped.why)
        );
    }
    out.push_str("</dl>\n");
}

fn reading(out: &mut String) {
    out.push_str(
        "<h2>How to read this</h2>\n<p>A ratio compares a candidate with the defaults in the same \
         round; above 1 is better, whatever the objective. The race only picks: whoever leads \
         twenty equal candidates has been lucky, so what decides is the column of fresh runs, in \
         which only the defaults, the pick and the present settings take part. An interval that \
         contains 1 is noise. <i>Worse</i> was dropped as surely worse than the defaults, \
         <i>beaten</i> as surely worse than the best, <i>behind</i> when the time was given to the better half.</p>\n",
    );
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_whole_and_refers_to_nothing_outside() {
        let page = super::render(&super::super::sample::sample());
        assert!(page.ends_with("</html>\n") && page.matches("<svg").count() >= 5);
        assert!(page.contains("congestion: throughput") && page.contains("[profile.tuned]"));
        assert!(
            !page.contains("<vegas>") && !page.contains("<late>"),
            "escaped"
        );
        for outside in ["src=", "href=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
