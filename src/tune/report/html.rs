//! One page that needs no network: the answer, plots of each option and of each run
//! over time, every figure, the machine, the profile.

use std::fmt::Write as _;

use super::{Report, tables};
use crate::bench::report::model::Tone;
use crate::bench::report::svg::{self, Bar, Direction, Group, Line, Outcome, RatioRow, escape};
use crate::bench::report::{page, render};
use crate::bench::stats::{self, Better, Estimate};
use crate::bench::units;
use crate::tune::measure::Through;
use crate::tune::race::{DEFAULTS, Decision, Fate};
use crate::tune::search::{Row, Series, StageResult};

/// The page.
pub fn render(report: &Report) -> String {
    let head = &report.head;
    let lead = [&head.when, &report.place, &head.machine.summary()];
    let lead = lead.map(|line| escape(line)).join("; ");
    let terms = [report.conditions(), report.path(), report.method()];
    let terms = terms.map(|sentence| format!("{}.", escape(&sentence)));
    let command = escape(&head.command);
    let mut out = page::open(
        "thalweg tune",
        &[
            format!("{lead}<br><code>{command}</code>"),
            terms.join("<br>"),
        ],
        &contents(report),
    );
    for doubt in &report.doubts {
        page::say(&mut out, Tone::Failed, &format!("Doubtful: {doubt}"));
    }
    page::section(&mut out, "answer", "The answer");
    page::answer(&mut out, &report.verdict);
    page::beside(&mut out, &forest(report), reading);
    page::section(&mut out, "profile", "The profile");
    let _ = writeln!(out, "<pre>{}</pre>", escape(&report.profile));
    page::section(&mut out, "limits", "What holds it back");
    for finding in &report.findings {
        page::say(&mut out, Tone::Plain, finding);
    }
    for (at, stage) in report.stages.iter().enumerate() {
        stage_section(report, at, stage, &mut out);
    }
    skipped(report, &mut out);
    page::machine(&head.machine, &report.facts.congestion, &mut out);
    page::close(&mut out, &head.version, "");
    out
}

fn stage_title(stage: &StageResult) -> &'static str {
    match stage.through {
        Through::Nothing => "The options of a leg",
        Through::Forwarder => "The forwarder's settings",
    }
}

fn contents(report: &Report) -> Vec<(String, String)> {
    let owned = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let mut contents = vec![
        owned("answer", "The answer"),
        owned("reading", "How to read this"),
        owned("profile", "The profile"),
        owned("limits", "What holds it back"),
    ];
    let stages = report.stages.iter().enumerate();
    contents
        .extend(stages.map(|(at, stage)| (format!("stage-{at}"), stage_title(stage).to_owned())));
    if !report.skipped.is_empty() {
        contents.push(owned("skipped", "Not tried"));
    }
    contents.push(owned("machine", "The machine"));
    contents
}

/// Every candidate against the defaults: by the fresh runs where it took part in them,
/// which decide, else by the race.
fn forest(report: &Report) -> String {
    let group = |stage: &StageResult| {
        let rows = stage
            .ranked()
            .into_iter()
            .filter(|(arm, _)| *arm != DEFAULTS);
        let row = |(_, row): (usize, &Row)| {
            let (ratio, rounds) = match row.confirmed {
                Some(ratio) => (Some(ratio), row.rounds[1]),
                None => (row.ratio, row.rounds[0]),
            };
            let fresh = if row.confirmed.is_some() {
                " (fresh)"
            } else {
                ""
            };
            RatioRow {
                label: format!("{}{fresh}", stage.name(row)),
                outcome: match (ratio, &row.fate) {
                    (_, Fate::Failed { .. }) => Outcome::Failed,
                    (Some(ratio), _) => {
                        let verdict = stats::verdict(ratio, rounds, Better::More);
                        Outcome::Ratio(ratio, verdict)
                    }
                    (None, _) => Outcome::Missing,
                },
            }
        };
        Group {
            title: format!("{}: {}", stage_title(stage), report.terms.objective),
            rows: rows.map(row).collect(),
        }
    };
    let groups: Vec<Group> = report.stages.iter().map(group).collect();
    svg::forest(
        "How many times as good as the defaults",
        "defaults",
        &groups,
    )
}

fn stage_section(report: &Report, at: usize, stage: &StageResult, out: &mut String) {
    page::section(out, &format!("stage-{at}"), stage_title(stage));
    out.push_str(&render::html(&tables::stage(report, stage)));
    out.push_str("<h3>Each option</h3>\n");
    let mut plots = Vec::new();
    for option in options(stage) {
        let mut plot = |what: &str, direction, list: &[Bar]| {
            plots.push(svg::bars(&format!("{option}: {what}"), direction, list));
        };
        let throughput = bars(stage, &option, |row| row.throughput, units::bit_rate);
        plot("throughput", Direction::More, &throughput);
        if report.terms.objective.needs_latency() {
            let p99 = bars(stage, &option, |row| row.p99, units::latency);
            plot("p99 under load", Direction::Less, &p99);
        }
        if report.terms.objective.cpu > 0.0 {
            let seconds = |value| format!("{} s/GB", units::digits(value));
            let cpu = bars(stage, &option, path_cpu, seconds);
            plot("CPU", Direction::Less, &cpu);
        }
    }
    page::plots(out, plots);
    over_time(stage, out);
}

fn path_cpu(row: &Row) -> Option<Estimate> {
    row.cost.map(|cost| cost.costs().path)
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
        let label = match row.candidate.changes.as_slice() {
            [] => "defaults".to_owned(),
            [only] => only.shown().to_owned(),
            _ => row.name.replace(' ', ", "),
        };
        let value = match row.fate {
            Fate::Failed { .. } => None,
            _ => Some(of(row)?),
        };
        Some(Bar {
            label,
            text: value.map_or_else(|| "not measured".to_owned(), |it| text(it.estimate)),
            value,
            colour: usize::from(arm != DEFAULTS) + usize::from(row.candidate.changes.len() > 1),
        })
    };
    rows.into_iter().filter_map(bar).collect()
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
                label: stage.name(row).to_owned(),
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
    let rtt = svg::lines("round trip time", &lines(|it| &it.rtt), &marks, seconds);
    let cwnd = lines(|it| &it.cwnd);
    let cwnd = svg::lines("congestion window", &cwnd, &marks, units::size);
    let rate = lines(|it| &it.rate);
    let rate = svg::lines("delivery rate", &rate, &marks, units::bit_rate);
    page::plots(out, [rtt, cwnd, rate]);
}

fn skipped(report: &Report, out: &mut String) {
    if report.skipped.is_empty() {
        return;
    }
    page::section(out, "skipped", "Not tried");
    out.push_str("<dl>\n");
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
    page::section(out, "reading", "How to read this");
    out.push_str(
        "<p>In the plot of ratios everything to the right of 1 is better than the defaults. A mark is the \
         estimate, the line through it its 95 % interval. A filled triangle: the whole interval is on one \
         side of 1; an open circle: noise.</p>\n<p>A ratio compares a candidate with the defaults in the same \
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
        assert!(page.find("id=\"answer\"") < page.find("<svg"));
        assert!(page.find("<svg") < page.find("id=\"reading\""));
        assert!(page.contains("congestion=cubic"), "{page}");
        for link in page.split("href=\"").skip(1) {
            let name = link.strip_prefix('#').expect("links stay on the page");
            let name = name.split('"').next().unwrap();
            assert!(page.contains(&format!("id=\"{name}\"")), "{name}");
        }
        assert!(page.contains("congestion: throughput") && page.contains("[profile.tuned]"));
        assert!(
            !page.contains("<vegas>") && !page.contains("<late>"),
            "escaped"
        );
        for outside in ["src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
