//! Plots as SVG text: a forest of ratios, bars with intervals, percentile curves, and
//! lines over time.
//!
//! Written by hand because it is four shapes of plot: a library would bring more
//! code than these files, and fonts or a canvas of its own. A plot is narrow, so that it can
//! be read on a telephone; a wide page sets several side by side. Colours follow the
//! reader's scheme, light or dark, and nothing is told by colour alone: curves have dashes
//! and marks of their own, verdicts have shapes.

mod curves;
mod forest;
mod lines;

use std::fmt::Write as _;

use crate::bench::stats::{Estimate, Interval};

pub use curves::{Curve, curves};
pub use forest::{Group, Outcome, RatioRow, forest};
pub use lines::{Line, lines};

/// Every plot's, whether inside a page or as a file of its own. The first eight colours are
/// Okabe and Ito's, told apart also by colour-blind eyes.
pub const STYLE: &str = "\
svg.plot{--fg:#222;--bg:#fff;--grid:#ddd;--soft:#666;--good:#006b4f;--bad:#b03a00;\
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#a8558a;--c4:#b87900;--c5:#3a8fc0;--c6:#555;--c7:#857a00}\
@media (prefers-color-scheme:dark){svg.plot{--fg:#e4e4e4;--bg:#16191c;--grid:#3a4046;--soft:#a6adb4;\
--good:#4fd0a5;--bad:#ff9d6b;--c0:#6cb8f0;--c1:#ff9350;--c2:#3fd0a0;--c3:#e79fcb;--c4:#f0b840;--c5:#9ad8ff;\
--c6:#b5b5b5;--c7:#e0d860}}\
svg.plot text{fill:var(--fg);font:12px system-ui,sans-serif}svg.plot .bg{fill:var(--bg)}\
svg.plot .title{font-weight:600;font-size:13px}svg.plot .soft{fill:var(--soft);font-size:11px}\
svg.plot .head{font-weight:600;paint-order:stroke;stroke:var(--bg);stroke-width:5px}\
svg.plot .grid{stroke:var(--grid);fill:none}svg.plot .line{stroke-width:2;fill:none}\
svg.plot .whisker{stroke:var(--fg);stroke-width:1.5;fill:none}svg.plot .one{stroke:var(--soft);stroke-width:1.5}\
svg.plot .good{fill:var(--good);stroke:var(--good)}svg.plot .bad{fill:var(--bad);stroke:var(--bad)}\
svg.plot .even{fill:var(--bg);stroke:var(--soft);stroke-width:1.5}svg.plot text.bad{stroke:none}";

/// Of every plot; a page sets it as wide as there is room.
const WIDTH: f64 = 440.0;
const BAR: f64 = 16.0;
const GAP: f64 = 9.0;

/// Which way is good, as plots say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `more is better`.
    More,
    /// `less is better`.
    Less,
}

impl Direction {
    fn text(self) -> &'static str {
        match self {
            Self::More => "more is better →",
            Self::Less => "← less is better",
        }
    }
}

/// One bar.
#[derive(Debug, Clone)]
pub struct Bar {
    /// Its label.
    pub label: String,
    /// How long it is, and how sure that is; `None`: its subject failed.
    pub value: Option<Estimate>,
    /// The value in words, printed behind it.
    pub text: String,
    /// Which colour; the same number for the same subject in every plot.
    pub colour: usize,
}

/// Text that may stand in HTML and SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A plot as a file of its own.
pub fn as_file(plot: &str) -> String {
    plot.replacen("<title>", &format!("<style>{STYLE}</style>\n<title>"), 1)
}

/// `var(--c3)`.
fn colour(index: usize) -> String {
    format!("var(--c{})", index % 8)
}

/// What fits into so many characters.
fn shorten(label: &str, most: usize) -> String {
    if label.chars().count() <= most {
        return label.to_owned();
    }
    let kept: String = label.chars().take(most - 1).collect();
    format!("{kept}…")
}

fn open(height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" \
         viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">\n\
         <title>{full}</title>\n<rect class=\"bg\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"4\" y=\"16\">{title}</text>\n",
        full = escape(title),
        title = escape(&shorten(title, 62)),
    )
}

/// Horizontal bars from zero, each with its interval.
pub fn bars(title: &str, direction: Direction, bars: &[Bar]) -> String {
    const LABEL: f64 = 128.0;
    const TOP: f64 = 42.0;
    let height = TOP + 4.0 + bars.len() as f64 * (BAR + GAP);
    let mut out = open(height, title);
    let room = WIDTH - LABEL - 100.0;
    // An interval far beyond every figure would leave no room for them: it is cut, and ends
    // in an arrow.
    let most = bars
        .iter()
        .filter_map(|bar| bar.value.map(|it| it.estimate))
        .filter(|value| value.is_finite())
        .fold(f64::MIN_POSITIVE, f64::max);
    let longest = bars
        .iter()
        .filter_map(|bar| bar.value.map(|it| ends(&it).1))
        .filter(|value| value.is_finite())
        .fold(most, f64::max)
        .min(most * 2.0);
    let at = |value: f64| LABEL + room * (value / longest).clamp(0.0, 1.0);
    let _ = writeln!(
        out,
        "<path class=\"grid\" d=\"M{LABEL} {y}V{bottom:.0}\"/>\
         <text class=\"soft\" x=\"{LABEL}\" y=\"{ty}\">0, {direction}</text>",
        y = TOP - 4.0,
        bottom = height - 2.0,
        ty = TOP - 10.0,
        direction = direction.text(),
    );
    for (index, bar) in bars.iter().enumerate() {
        let top = TOP + index as f64 * (BAR + GAP);
        let middle = top + BAR / 2.0;
        let _ = writeln!(
            out,
            "<text x=\"{x:.0}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>",
            x = LABEL - 6.0,
            y = middle + 4.0,
            label = escape(&shorten(&bar.label, 19)),
        );
        let Some(value) = bar.value else {
            let _ = writeln!(
                out,
                "<text class=\"bad\" x=\"{x:.0}\" y=\"{y:.1}\">✕ {text}</text>",
                x = LABEL + 6.0,
                y = middle + 4.0,
                text = escape(&bar.text),
            );
            continue;
        };
        let (low, high) = ends(&value);
        let is_cut = high > longest;
        let (low, end, high) = (at(low), at(value.estimate), at(high));
        let _ = writeln!(
            out,
            "<rect x=\"{LABEL}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{BAR}\" \
             fill=\"{colour}\" fill-opacity=\"0.7\"/>",
            width = end - LABEL,
            colour = colour(bar.colour),
        );
        if value.interval.is_some() {
            let _ = writeln!(
                out,
                "<path class=\"whisker\" d=\"M{low:.1} {middle:.1}H{high:.1}M{low:.1} {t:.1}V{b:.1}{end}\"/>",
                t = middle - 4.0,
                b = middle + 4.0,
                end = if is_cut {
                    format!("M{:.1} {:.1}l4 4l-4 4", high - 4.0, middle - 4.0)
                } else {
                    format!("M{high:.1} {:.1}V{:.1}", middle - 4.0, middle + 4.0)
                },
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>",
            x = high.max(end) + 6.0,
            y = middle + 4.0,
            text = escape(&bar.text),
        );
    }
    out.push_str("</svg>\n");
    out
}

/// The ends of the interval, or the estimate itself.
fn ends(value: &Estimate) -> (f64, f64) {
    let low_and_high = |it: Interval| (it.low, it.high.max(value.estimate));
    let none = (value.estimate, value.estimate);
    value.interval.map_or(none, low_and_high)
}

/// How a curve is told apart without its colour.
fn dashes(index: usize) -> &'static str {
    [
        "",
        "7 3",
        "2 3",
        "9 3 2 3",
        "4 2",
        "12 4",
        "1 2",
        "6 2 1 2 1 2",
    ][index % 8]
}

/// A small shape around a point, one for each of the first six curves.
fn mark(index: usize, x: f64, y: f64) -> String {
    let path = match index % 6 {
        0 => format!(
            "M{:.1} {y:.1}a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0",
            x - 3.5
        ),
        1 => format!("M{:.1} {:.1}h6v6h-6z", x - 3.0, y - 3.0),
        2 => format!("M{x:.1} {:.1}l4 7h-8z", y - 4.0),
        3 => format!("M{x:.1} {:.1}l4 4l-4 4l-4 -4z", y - 4.0),
        4 => format!("M{x:.1} {:.1}l-4 -7h8z", y + 4.0),
        _ => format!("M{:.1} {:.1}l6 6m0 -6l-6 6", x - 3.0, y - 3.0),
    };
    format!(
        "<path d=\"{path}\" fill=\"{c}\" stroke=\"{c}\"/>",
        c = colour(index)
    )
}

/// One entry of a legend: a piece of the curve and its name.
fn legend(out: &mut String, index: usize, at: (f64, f64), label: &str) {
    let (x, y) = at;
    let _ = writeln!(
        out,
        "<path class=\"line\" d=\"M{x:.0} {ly:.1}h30\" stroke=\"{colour}\" stroke-dasharray=\"{dashes}\"/>{mark}\
         <text x=\"{tx:.0}\" y=\"{y:.1}\">{label}</text>",
        ly = y - 4.0,
        colour = colour(index),
        dashes = dashes(index),
        mark = mark(index, x + 15.0, y - 4.0),
        tx = x + 36.0,
        label = escape(&shorten(label, 24)),
    );
}

/// Where the entries of a legend stand, two in a line.
fn legend_at(entry: usize, top: f64) -> (f64, f64) {
    let column = (entry % 2) as f64;
    (8.0 + column * WIDTH / 2.0, top + (entry / 2) as f64 * 18.0)
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

    pub(super) fn around(estimate: f64) -> Estimate {
        Estimate {
            estimate,
            interval: Some(Interval {
                low: estimate * 0.9,
                high: estimate * 1.1,
            }),
        }
    }

    #[test]
    fn hostile_names_and_strange_values_still_make_a_plot() {
        let list = [3.0, 0.0, f64::INFINITY].map(|value| Bar {
            label: "<script>&\"".to_owned(),
            value: Some(around(value)),
            text: "x".to_owned(),
            colour: 9,
        });
        let svg = bars("a < b", Direction::More, &list);
        assert!(is_well_formed(&svg) && !svg.contains("<script>"), "{svg}");
        assert!(svg.contains("more is better"));
        assert!(is_well_formed(&as_file(&svg)) && as_file(&svg).contains("<style>"));
        assert!(is_well_formed(&bars("none", Direction::Less, &[])));
    }

    #[test]
    fn a_subject_that_failed_keeps_its_place() {
        let failed = Bar {
            label: "x".to_owned(),
            value: None,
            text: "not compared".to_owned(),
            colour: 0,
        };
        let svg = bars("a", Direction::Less, &[failed]);
        assert!(svg.contains("✕ not compared"), "{svg}");
    }

    #[test]
    fn an_interval_far_beyond_the_figures_is_cut() {
        let wide = Estimate {
            estimate: 1.0,
            interval: Some(Interval {
                low: 0.0,
                high: 70.0,
            }),
        };
        let bar = |value| Bar {
            label: "x".to_owned(),
            value: Some(value),
            text: String::new(),
            colour: 0,
        };
        let svg = bars("a", Direction::More, &[bar(wide), bar(around(2.0))]);
        assert!(is_well_formed(&svg) && svg.contains("l4 4l-4 4"), "{svg}");
    }
}
