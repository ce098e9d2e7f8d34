//! Figures over time, linear in both directions, from zero upwards.

use std::fmt::Write as _;

use super::{WIDTH, colour, escape, open};

const HEIGHT: f64 = 240.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = WIDTH - 170.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = HEIGHT - 36.0;

/// One line: what it is called, and its points as seconds and value.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its label.
    pub label: String,
    /// By rising time; what is not finite is left out.
    pub points: Vec<(f64, f64)>,
    /// Which colour.
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
    let mut out = open(HEIGHT, title);
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#ddd\"/>\
             <text x=\"{tx}\" y=\"{ty:.1}\" text-anchor=\"end\" font-size=\"11\">{value}</text>\
             <text x=\"{x:.1}\" y=\"{below}\" text-anchor=\"middle\" font-size=\"11\">{at:.2} s</text>",
            y = y(highest * share),
            tx = LEFT - 6.0,
            ty = y(highest * share) + 4.0,
            value = escape(&text(highest * share)),
            x = x(longest * share),
            below = BOTTOM + 18.0,
            at = longest * share,
        );
    }
    for mark in marks.iter().filter(|mark| mark.is_finite()) {
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {TOP}V{BOTTOM}\" stroke=\"#888\" stroke-dasharray=\"4 3\"/>",
            x = x(*mark),
        );
    }
    for (index, line) in lines.iter().enumerate() {
        let mut path = String::new();
        let finite = |point: &&(f64, f64)| point.0.is_finite() && point.1.is_finite();
        for (at, value) in line.points.iter().filter(finite) {
            let verb = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{verb}{:.1} {:.1}", x(*at), y(*value));
        }
        let legend = TOP + 14.0 + index as f64 * 20.0;
        let _ = writeln!(
            out,
            "<path d=\"{path}\" stroke=\"{colour}\" stroke-width=\"1.8\" fill=\"none\"/>\n\
             <rect x=\"{rx:.0}\" y=\"{ry:.1}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>\
             <text x=\"{tx:.0}\" y=\"{legend:.1}\" font-size=\"12\">{label}</text>",
            colour = colour(line.colour),
            rx = RIGHT + 10.0,
            ry = legend - 7.0,
            tx = RIGHT + 28.0,
            label = escape(&line.label),
        );
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
