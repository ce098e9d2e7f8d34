//! Plots as SVG text: bars with intervals, percentile curves, and lines over time.
//!
//! Written by hand because it is three shapes of plot: a library would bring more
//! code than this file, and fonts or a canvas of its own. Every plot carries its own
//! styles, so that it is the same inside the page and as a file.

mod lines;

use std::fmt::Write as _;

use crate::bench::stats::{Estimate, Interval};

pub use lines::{Line, lines};

/// Okabe and Ito's palette, told apart also by colour-blind eyes.
const COLOURS: [&str; 8] = [
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#B8A800",
];

const WIDTH: f64 = 760.0;
const LABEL: f64 = 150.0;
const BAR: f64 = 22.0;
const GAP: f64 = 10.0;

/// One bar.
#[derive(Debug, Clone)]
pub struct Bar {
    /// Its label.
    pub label: String,
    /// How long it is, and how sure that is.
    pub value: Estimate,
    /// The value in words, printed behind it.
    pub text: String,
    /// Which colour; the same number for the same subject in every plot.
    pub colour: usize,
}

/// One curve: percentile (0 to 100) and nanoseconds.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Its label.
    pub label: String,
    /// The points, by rising percentile.
    pub points: Vec<(f64, u64)>,
    /// Which colour.
    pub colour: usize,
}

/// Text that may stand in HTML and SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

fn open(height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"20\" font-weight=\"600\">{title}</text>\n",
        title = escape(title),
    )
}

/// The ends of the interval, or the estimate itself.
fn ends(value: &Estimate) -> (f64, f64) {
    let low_and_high = |it: Interval| (it.low, it.high.max(value.estimate));
    let none = (value.estimate, value.estimate);
    value.interval.map_or(none, low_and_high)
}

/// Horizontal bars from zero, each with its interval.
pub fn bars(title: &str, bars: &[Bar]) -> String {
    let height = 40.0 + bars.len() as f64 * (BAR + GAP);
    let mut out = open(height, title);
    let room = WIDTH - LABEL - 190.0;
    let longest = bars
        .iter()
        .map(|bar| ends(&bar.value).1)
        .filter(|value| value.is_finite())
        .fold(f64::MIN_POSITIVE, f64::max);
    let at = |value: f64| LABEL + room * (value / longest).clamp(0.0, 1.0);
    for (index, bar) in bars.iter().enumerate() {
        let top = 34.0 + index as f64 * (BAR + GAP);
        let middle = top + BAR / 2.0;
        let (low, high) = ends(&bar.value);
        let (low, end, high) = (at(low), at(bar.value.estimate), at(high));
        let _ = writeln!(
            out,
            "<text x=\"{x:.0}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>\n\
             <rect x=\"{LABEL}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{BAR}\" \
             fill=\"{colour}\" fill-opacity=\"0.75\"/>\n\
             <path d=\"M{low:.1} {middle:.1}H{high:.1}M{low:.1} {t:.1}V{b:.1}M{high:.1} {t:.1}V{b:.1}\" \
             stroke=\"#222\" stroke-width=\"1.5\" fill=\"none\"/>\n\
             <text x=\"{after:.1}\" y=\"{y:.1}\">{text}</text>",
            x = LABEL - 8.0,
            y = middle + 4.5,
            label = escape(&bar.label),
            width = end - LABEL,
            colour = colour(bar.colour),
            t = middle - 5.0,
            b = middle + 5.0,
            after = high.max(end) + 8.0,
            text = escape(&bar.text),
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Latency over percentiles: nines to the right, logarithmic upwards.
pub fn curves(title: &str, curves: &[Curve]) -> String {
    const HEIGHT: f64 = 360.0;
    const LEFT: f64 = 70.0;
    const RIGHT: f64 = WIDTH - 150.0;
    const TOP: f64 = 36.0;
    const BOTTOM: f64 = HEIGHT - 40.0;
    let nines = |percentile: f64| -(1.0 - percentile / 100.0).max(1e-9).log10();
    let all = || curves.iter().flat_map(|curve| curve.points.iter());
    let right = all().map(|point| nines(point.0)).fold(1.0, f64::max);
    let least = all()
        .map(|point| point.1.max(1) as f64)
        .fold(f64::MAX, f64::min);
    let most = all().map(|point| point.1.max(1) as f64).fold(1.0, f64::max);
    let (low, high) = (
        least.min(most).log10().floor(),
        most.log10().ceil().max(1.0),
    );
    let x = |percentile: f64| LEFT + (RIGHT - LEFT) * nines(percentile) / right;
    let y = |ns: f64| BOTTOM - (BOTTOM - TOP) * (ns.max(1.0).log10() - low) / (high - low).max(1.0);

    let mut out = open(HEIGHT, title);
    for (percentile, label) in [
        (50.0, "50"),
        (90.0, "90"),
        (99.0, "99"),
        (99.9, "99.9"),
        (99.99, "99.99"),
        (99.999, "99.999"),
    ] {
        if nines(percentile) > right + 1e-9 {
            break;
        }
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {TOP}V{BOTTOM}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{label} %</text>",
            x = x(percentile),
            y = BOTTOM + 18.0,
        );
    }
    for decade in low as i32..=high as i32 {
        for (step, strong) in [(1.0, true), (2.0, false), (5.0, false)] {
            let ns = step * 10_f64.powi(decade);
            if ns.log10() > high + 1e-9 {
                break;
            }
            let _ = writeln!(
                out,
                "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"{line}\"/>\
                 <text x=\"{x:.1}\" y=\"{ty:.1}\" text-anchor=\"end\" font-size=\"{size}\">{text}</text>",
                y = y(ns),
                ty = y(ns) + 4.0,
                x = LEFT - 6.0,
                line = if strong { "#bbb" } else { "#eee" },
                size = if strong { 13 } else { 10 },
                text = tick(ns),
            );
        }
    }
    for (index, curve) in curves.iter().enumerate() {
        let mut path = String::new();
        for (percentile, ns) in &curve.points {
            let verb = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{verb}{:.1} {:.1}", x(*percentile), y(*ns as f64));
        }
        let legend = TOP + 14.0 + index as f64 * 20.0;
        let _ = writeln!(
            out,
            "<path d=\"{path}\" stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\"/>\n\
             <rect x=\"{x:.0}\" y=\"{ry:.1}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>\
             <text x=\"{tx:.0}\" y=\"{legend:.1}\">{label}</text>",
            colour = colour(curve.colour),
            x = RIGHT + 12.0,
            ry = legend - 7.0,
            tx = RIGHT + 32.0,
            label = escape(&curve.label),
        );
    }
    out.push_str("</svg>\n");
    out
}

fn tick(ns: f64) -> String {
    match ns {
        n if n >= 1e9 => format!("{:.0} s", n / 1e9),
        n if n >= 1e6 => format!("{:.0} ms", n / 1e6),
        n if n >= 1e3 => format!("{:.0} µs", n / 1e3),
        n => format!("{n:.0} ns"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) fn is_well_formed(svg: &str) -> bool {
        let mut open: Vec<&str> = Vec::new();
        for tag in svg.split('<').skip(1) {
            let tag = tag.split('>').next().unwrap_or_default();
            let name = tag
                .split([' ', '/'])
                .find(|word| !word.is_empty())
                .unwrap_or_default();
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop() != Some(name) {
                    return false;
                }
            } else if !tag.ends_with('/') {
                open.push(name);
            }
        }
        open.is_empty() && !svg.contains("NaN") && !svg.contains("inf")
    }

    #[test]
    fn hostile_names_and_strange_values_still_make_a_plot() {
        let interval = |estimate| Estimate {
            estimate,
            interval: Some(Interval {
                low: estimate * 0.9,
                high: estimate * 1.1,
            }),
        };
        let list = [3.0, 0.0, f64::INFINITY].map(|value| Bar {
            label: "<script>&\"".to_owned(),
            value: interval(value),
            text: "x".to_owned(),
            colour: 9,
        });
        let svg = bars("a < b", &list);
        assert!(is_well_formed(&svg) && !svg.contains("<script>"), "{svg}");
        assert!(is_well_formed(&bars("none", &[])));
        assert!(is_well_formed(&curves("none", &[])));
    }

    #[test]
    fn a_curve_rises_from_left_to_right() {
        let svg = curves(
            "latency",
            &[Curve {
                label: "nginx".to_owned(),
                points: vec![
                    (0.0, 10_000),
                    (50.0, 20_000),
                    (99.0, 900_000),
                    (99.99, 5_000_000),
                ],
                colour: 0,
            }],
        );
        assert!(is_well_formed(&svg), "{svg}");
        assert!(svg.contains("99.9 %") && svg.contains("10 µs") && svg.contains("5 ms"));
    }
}
