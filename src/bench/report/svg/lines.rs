//! Figures over time, linear in both directions, from zero upwards.

use std::fmt::Write as _;

use super::{WIDTH, colour, dashes, escape, legend, legend_at, mark, open};

const LEFT: f64 = 66.0;
const RIGHT: f64 = WIDTH - 18.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 190.0;

/// One line: what it is called, and its points as seconds and value.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its label.
    pub label: String,
    /// By rising time; what is not finite is left out.
    pub points: Vec<(f64, f64)>,
    /// Which colour, dashes and mark.
    pub colour: usize,
}

/// Lines over seconds; `text` writes a value with its unit. `marks` are moments to be
/// marked, in seconds.
pub fn lines(title: &str, lines: &[Line], marks: &[f64], text: impl Fn(f64) -> String) -> String {
    let points = || {
        let all = lines.iter().flat_map(|line| line.points.iter());
        all.filter(|point| point.0.is_finite() && point.1.is_finite())
    };
    let longest = points()
        .map(|point| point.0)
        .fold(f64::MIN_POSITIVE, f64::max);
    let highest = points()
        .map(|point| point.1)
        .fold(f64::MIN_POSITIVE, f64::max);
    let x = |at: f64| LEFT + (RIGHT - LEFT) * (at / longest).clamp(0.0, 1.0);
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * (value / highest).clamp(0.0, 1.0);
    let height = BOTTOM + 42.0 + lines.len().div_ceil(2) as f64 * 18.0;
    let mut out = open(height, title);
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>\
             <text class=\"soft\" x=\"{tx}\" y=\"{ty:.1}\" text-anchor=\"end\">{value}</text>\
             <text class=\"soft\" x=\"{x:.1}\" y=\"{below}\" text-anchor=\"middle\">{at:.2} s</text>",
            y = y(highest * share),
            tx = LEFT - 6.0,
            ty = y(highest * share) + 4.0,
            value = escape(&text(highest * share)),
            x = x(longest * share),
            below = BOTTOM + 15.0,
            at = longest * share,
        );
    }
    for mark in marks.iter().filter(|mark| mark.is_finite()) {
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{BOTTOM}\" style=\"stroke:var(--soft)\" stroke-dasharray=\"4 3\"/>",
            x = x(*mark),
        );
    }
    for (entry, line) in lines.iter().enumerate() {
        let mut path = String::new();
        let finite = |point: &&(f64, f64)| point.0.is_finite() && point.1.is_finite();
        let points: Vec<&(f64, f64)> = line.points.iter().filter(finite).collect();
        for (at, value) in &points {
            let verb = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{verb}{:.1} {:.1}", x(*at), y(*value));
        }
        let _ = writeln!(
            out,
            "<path class=\"line\" d=\"{path}\" stroke=\"{colour}\" stroke-dasharray=\"{dashes}\"/>",
            colour = colour(line.colour),
            dashes = dashes(line.colour),
        );
        // Some of the points; where lines lie on each other, not the same ones.
        for (at, value) in points
            .iter()
            .skip(2 + entry * 2)
            .step_by(points.len() / 4 + 1)
        {
            out.push_str(&mark(line.colour, x(*at), y(*value)));
        }
        out.push('\n');
        let place = legend_at(entry, BOTTOM + 38.0);
        legend(&mut out, line.colour, place, &line.label);
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::is_well_formed;
    use super::*;

    #[test]
    fn hostile_labels_and_strange_values_still_make_a_plot() {
        let list = [Line {
            label: "<b>&\"".to_owned(),
            points: vec![
                (0.0, 1.0),
                (f64::NAN, 2.0),
                (1.0, f64::INFINITY),
                (2.0, 3.0),
            ],
            colour: 11,
        }];
        let svg = lines("a < b", &list, &[1.0, f64::NAN], |value| {
            format!("{value:.1} <u>")
        });
        assert!(
            is_well_formed(&svg) && !svg.contains("<b>") && !svg.contains("<u>"),
            "{svg}"
        );
        assert!(is_well_formed(&lines("none", &[], &[], |_| String::new())));
    }
}
