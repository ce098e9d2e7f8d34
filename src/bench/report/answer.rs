//! The answer of a run: in words, and as one plot of every comparison that decides.

use super::svg::{Group, Outcome, RatioRow};
use super::tables::{deciding, judged_by};
use super::{LayoutReport, Report, Row, ShapeReport};
use crate::bench::load::shape::Figure;
use crate::bench::stats::{Estimate, Interval, Verdict};

/// How many times as good: the ratio, or its inverse where less is better.
fn times_as_good(shape: &ShapeReport, ratio: Estimate) -> Estimate {
    match shape.figure {
        Figure::Throughput | Figure::Requests | Figure::Connections | Figure::Datagrams => ratio,
        Figure::Share | Figure::Latency | Figure::Cpu => Estimate {
            estimate: 1.0 / ratio.estimate,
            interval: ratio.interval.map(|it| Interval {
                low: 1.0 / it.high,
                high: 1.0 / it.low,
            }),
        },
    }
}

fn outcome(shape: &ShapeReport, row: &Row, baseline: &str) -> Outcome {
    if row.failure.is_some() {
        return Outcome::Failed;
    }
    deciding(shape, row, baseline).map_or(Outcome::Missing, |(ratio, verdict)| {
        Outcome::Ratio(times_as_good(shape, ratio), verdict)
    })
}

/// Every comparison with the baseline; the right side is better throughout.
pub(super) fn groups(report: &Report) -> Vec<Group> {
    let shapes = report.layouts.iter().flat_map(|layout| {
        let of = move |shape| (layout, shape);
        layout.shapes.iter().map(of)
    });
    let group = |(layout, shape): (&LayoutReport, &ShapeReport)| Group {
        title: format!(
            "{}, {}: {}",
            layout.layout.name(),
            shape.name,
            // Here more is better throughout.
            judged_by(shape).replace("less is better", "inverted")
        ),
        rows: shape
            .rows
            .iter()
            .filter(|row| row.subject != report.baseline || row.failure.is_some())
            .map(|row| RatioRow {
                label: row.subject.clone(),
                outcome: outcome(shape, row, &report.baseline),
            })
            .collect(),
    };
    let groups = shapes.map(group).filter(|group| !group.rows.is_empty());
    groups.collect()
}

/// What came of one subject's comparisons.
#[derive(Default)]
struct Tally {
    better: Vec<(String, f64)>,
    worse: Vec<(String, f64)>,
    noise: usize,
    disturbed: usize,
    failed: Vec<String>,
}

impl Tally {
    fn of(report: &Report, subject: &str) -> Self {
        let mut tally = Self::default();
        let layouts = report.layouts.len();
        for layout in &report.layouts {
            for shape in &layout.shapes {
                let Some(row) = shape.rows.iter().find(|row| row.subject == subject) else {
                    continue;
                };
                let place = if layouts > 1 {
                    format!("{} {}", layout.layout.name(), shape.name)
                } else {
                    shape.name.clone()
                };
                match outcome(shape, row, &report.baseline) {
                    Outcome::Failed => tally.failed.push(place),
                    Outcome::Missing => {}
                    Outcome::Ratio(ratio, verdict) => {
                        let found = (place, ratio.estimate);
                        match verdict {
                            Verdict::Faster => tally.better.push(found),
                            Verdict::Slower => tally.worse.push(found),
                            Verdict::Disturbed => tally.disturbed += 1,
                            Verdict::Noise => tally.noise += 1,
                        }
                    }
                }
            }
        }
        tally
    }

    /// `better in bulk-up (3.31 times as good); worse in …`.
    fn text(&self) -> String {
        let list = |places: &[(String, f64)]| {
            let each = places.iter();
            let each = each.map(|(place, times)| format!("{place} ({times:.2})"));
            each.collect::<Vec<_>>().join(", ")
        };
        let mut parts = Vec::new();
        if !self.better.is_empty() {
            parts.push(format!("better in {}", list(&self.better)));
        }
        if !self.worse.is_empty() {
            parts.push(format!("worse in {}", list(&self.worse)));
        }
        if self.noise > 0 {
            parts.push(format!("no difference told in {}", self.noise));
        }
        if self.disturbed > 0 {
            parts.push(format!("no verdict in {}, disturbed", self.disturbed));
        }
        if !self.failed.is_empty() {
            parts.push(format!("NOT COMPARED in {}", self.failed.join(", ")));
        }
        parts.join("; ")
    }

    fn count(&self) -> usize {
        self.better.len() + self.worse.len() + self.noise
    }
}

/// A sentence for each subject, and one on how many of the verdicts may be wrong.
pub(super) fn sentences(report: &Report) -> Vec<String> {
    let subjects = report.layouts.first().map_or(&[][..], |it| &it.subjects);
    let mut sentences = Vec::new();
    let mut verdicts = 0;
    for subject in subjects {
        if subject.name == report.baseline {
            continue;
        }
        let tally = Tally::of(report, &subject.name);
        verdicts += tally.count();
        let text = tally.text();
        if !text.is_empty() {
            let baseline = &report.baseline;
            sentences.push(format!("{} against {baseline}: {text}.", subject.name));
        }
    }
    if verdicts > 0 {
        let wrong = (1.0 - report.head.confidence) * verdicts as f64;
        sentences.push(format!(
            "In brackets: how many times as good. Of {verdicts} comparisons between equals about \
             {wrong:.1} would get a verdict by chance."
        ));
    }
    sentences
}
