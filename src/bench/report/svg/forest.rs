//! Every comparison of a report in one plot: ratios with their intervals around 1, on a
//! logarithmic axis on which the right side is always the better one.

use std::fmt::Write as _;

use super::{WIDTH, ends, escape, open, shorten};
use crate::bench::report::render::ratio_text;
use crate::bench::stats::{Estimate, Verdict};
use crate::bench::units;

/// Ratios that belong together.
#[derive(Debug, Clone)]
pub struct Group {
    /// Such as `one-core, rr: requests a second`.
    pub title: String,
    /// In the order of the subjects.
    pub rows: Vec<RatioRow>,
}

/// One comparison.
#[derive(Debug, Clone)]
pub struct RatioRow {
    /// Whose.
    pub label: String,
    /// What it came to.
    pub outcome: Outcome,
}

/// What a comparison came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// How many times as good.
    Ratio(Estimate, Verdict),
    /// The subject is not compared.
    Failed,
    /// There are no figures.
    Missing,
}

/// Of one character of a label, about.
const CHARACTER: f64 = 6.6;
/// The least and the most that labels get of the width.
const LABELS: (f64, f64) = (70.0, 176.0);
const RIGHT: f64 = WIDTH - 128.0;
const TOP: f64 = 58.0;
const LINE: f64 = 19.0;
const HEAD: f64 = 22.0;

const TICKS: [f64; 19] = [
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25, 1.5, 2.0, 5.0, 10.0, 20.0,
    50.0, 100.0,
];

/// What of the axis is shown, as logarithms: all figures, and of intervals as much as is
/// not far beyond them.
fn bounds(groups: &[Group]) -> (f64, f64) {
    let (mut low, mut high) = (-0.15_f64, 0.15_f64);
    for row in groups.iter().flat_map(|group| &group.rows) {
        let Outcome::Ratio(ratio, _) = &row.outcome else {
            continue;
        };
        let (from, to) = ends(ratio);
        let [at, from, to] = [ratio.estimate, from, to].map(|it| it.max(1e-6).ln());
        if at.is_finite() {
            low = low.min(from.max(at - 0.7));
            high = high.max(to.min(at + 0.7));
        }
    }
    (low - 0.05, high + 0.05)
}

/// The plot; `one` is what everything is compared with.
pub fn forest(title: &str, one: &str, groups: &[Group]) -> String {
    let rows: usize = groups.iter().map(|group| group.rows.len()).sum();
    let height = TOP + groups.len() as f64 * HEAD + rows as f64 * LINE + 10.0;
    let (low, high) = bounds(groups);
    let labels = groups.iter().flat_map(|group| &group.rows);
    let longest = labels.map(|row| row.label.chars().count()).max();
    let left = longest.unwrap_or(0) as f64 * CHARACTER + 14.0;
    let left = left.clamp(LABELS.0, LABELS.1);
    let x = |log: f64| left + (RIGHT - left) * ((log - low) / (high - low)).clamp(0.0, 1.0);
    let mut out = open(height, title);
    axis(&mut out, one, height, (low, high), &x);
    let mut y = TOP;
    for group in groups {
        y += HEAD;
        let _ = writeln!(
            out,
            "<text class=\"head\" x=\"4\" y=\"{:.1}\">{}</text>",
            y - 6.0,
            escape(&shorten(&group.title, 66))
        );
        for row in &group.rows {
            self::row(&mut out, row, (left, y + LINE / 2.0), (low, high), &x);
            y += LINE;
        }
    }
    out.push_str("</svg>\n");
    out
}

fn axis(out: &mut String, one: &str, height: f64, range: (f64, f64), x: &dyn Fn(f64) -> f64) {
    let centre = x(0.0);
    let _ = writeln!(
        out,
        "<path class=\"one\" d=\"M{centre:.1} {y:.0}V{bottom:.0}\"/>\
         <text x=\"{centre:.1}\" y=\"{ty:.0}\" text-anchor=\"middle\">{one}</text>\
         <text class=\"soft\" x=\"{left:.0}\" y=\"{ty:.0}\">← worse</text>\
         <text class=\"soft\" x=\"{right:.0}\" y=\"{ty:.0}\">better →</text>",
        y = TOP - 8.0,
        bottom = height - 6.0,
        ty = TOP - 24.0,
        one = escape(&shorten(&format!("{one} = 1"), 24)),
        left = 4.0,
        right = RIGHT + 14.0,
    );
    let mut last = [centre; 2];
    let below = TICKS.iter().rev().filter(|tick| **tick < 1.0);
    let above = TICKS.iter().filter(|tick| **tick > 1.0);
    for (side, tick) in below.map(|it| (0, it)).chain(above.map(|it| (1, it))) {
        let log = tick.ln();
        let at = x(log);
        if log < range.0 || log > range.1 || (at - last[side]).abs() < 26.0 {
            continue;
        }
        last[side] = at;
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{at:.1} {y:.0}V{bottom:.0}\"/>\
             <text class=\"soft\" x=\"{at:.1}\" y=\"{ty:.0}\" text-anchor=\"middle\">{tick}</text>",
            y = TOP - 4.0,
            bottom = height - 6.0,
            ty = TOP - 8.0,
        );
    }
}

fn row(
    out: &mut String,
    row: &RatioRow,
    (left, y): (f64, f64),
    range: (f64, f64),
    x: &dyn Fn(f64) -> f64,
) {
    let _ = writeln!(
        out,
        "<text x=\"{lx:.0}\" y=\"{ty:.1}\" text-anchor=\"end\">{label}</text>",
        lx = left - 8.0,
        ty = y + 4.0,
        label = escape(&shorten(&row.label, ((left - 14.0) / CHARACTER) as usize)),
    );
    let words = |out: &mut String, class: &str, text: &str| {
        let _ = writeln!(
            out,
            "<text class=\"{class}\" x=\"{tx:.0}\" y=\"{ty:.1}\">{text}</text>",
            tx = RIGHT + 8.0,
            ty = y + 4.0,
            text = escape(text),
        );
    };
    let (ratio, verdict) = match &row.outcome {
        Outcome::Failed => return words(out, "bad", "✕ not compared"),
        Outcome::Missing => return words(out, "soft", "–"),
        Outcome::Ratio(ratio, verdict) => (*ratio, *verdict),
    };
    let (low, high) = ends(&ratio);
    let [at, low, high] = [ratio.estimate, low, high].map(|it| it.max(1e-6).ln());
    if ratio.interval.is_some() {
        let mut path = format!("M{:.1} {y:.1}H{:.1}", x(low), x(high));
        // An end beyond the axis is an arrow.
        if low < range.0 {
            let _ = write!(path, "M{:.1} {:.1}l-4 3.5l4 3.5", x(low) + 4.0, y - 3.5);
        }
        if high > range.1 {
            let _ = write!(path, "M{:.1} {:.1}l4 3.5l-4 3.5", x(high) - 4.0, y - 3.5);
        }
        let _ = writeln!(out, "<path class=\"whisker\" d=\"{path}\"/>");
    }
    let at = x(at);
    let (class, path) = match verdict {
        Verdict::Faster => ("good", format!("M{:.1} {:.1}l8 5l-8 5z", at - 4.0, y - 5.0)),
        Verdict::Slower => ("bad", format!("M{:.1} {:.1}l-8 5l8 5z", at + 4.0, y - 5.0)),
        Verdict::Noise => (
            "even",
            format!("M{:.1} {y:.1}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", at - 4.0),
        ),
        Verdict::Disturbed => ("even", format!("M{at:.1} {:.1}l5 5l-5 5l-5 -5z", y - 5.0)),
    };
    let _ = writeln!(out, "<path class=\"{class}\" d=\"{path}\"/>");
    words(out, "", &short(ratio));
}

/// As [`ratio_text`], with three digits where there are more before the point.
fn short(ratio: Estimate) -> String {
    match ratio.interval {
        Some(it) if it.high >= 10.0 => format!(
            "{} [{}, {}]",
            units::digits(ratio.estimate),
            units::digits(it.low),
            units::digits(it.high)
        ),
        _ => ratio_text(ratio),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{around, is_well_formed};
    use super::*;
    use crate::bench::stats::Interval;

    #[test]
    fn every_outcome_has_a_shape_of_its_own() {
        let row = |outcome| RatioRow {
            label: "<b>".to_owned(),
            outcome,
        };
        let wide = Estimate {
            estimate: 8.0,
            interval: Some(Interval {
                low: 0.9,
                high: 900.0,
            }),
        };
        let single = Estimate {
            estimate: 1.5,
            interval: None,
        };
        let rows = vec![
            row(Outcome::Ratio(around(1.5), Verdict::Faster)),
            row(Outcome::Ratio(around(0.5), Verdict::Slower)),
            row(Outcome::Ratio(wide, Verdict::Disturbed)),
            row(Outcome::Ratio(single, Verdict::Noise)),
            row(Outcome::Failed),
            row(Outcome::Missing),
        ];
        let group = Group {
            title: "one-core, rr".to_owned(),
            rows,
        };
        let svg = forest("all", "nginx", &[group]);
        assert!(is_well_formed(&svg) && !svg.contains("<b>"), "{svg}");
        for part in [
            "nginx = 1",
            "better →",
            "1.50 [1.35, 1.65]",
            "8.00 [0.900, 900]",
            "✕ not compared",
            "class=\"good\"",
            "class=\"bad\"",
            "class=\"even\"",
        ] {
            assert!(svg.contains(part), "{part} is missing in {svg}");
        }
        assert!(is_well_formed(&forest("none", "x", &[])));
    }
}
