//! Latency over percentiles: nines to the right, logarithmic upwards.

use std::fmt::Write as _;

use super::{WIDTH, colour, dashes, legend, legend_at, mark, open, tick};

/// One curve: percentile (0 to 100) and nanoseconds.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Its label.
    pub label: String,
    /// The points, by rising percentile; none: its subject failed.
    pub points: Vec<(f64, u64)>,
    /// Which colour, dashes and mark.
    pub colour: usize,
}

const LEFT: f64 = 52.0;
const RIGHT: f64 = WIDTH - 16.0;
const TOP: f64 = 42.0;
const BOTTOM: f64 = 280.0;

const PERCENTILES: [(f64, &str); 6] = [
    (50.0, "50"),
    (90.0, "90"),
    (99.0, "99"),
    (99.9, "99.9"),
    (99.99, "99.99"),
    (99.999, "99.999"),
];

fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).max(1e-9).log10()
}

/// The plot; less is better.
pub fn curves(title: &str, curves: &[Curve]) -> String {
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

    let height = BOTTOM + 42.0 + curves.len().div_ceil(2) as f64 * 18.0;
    let mut out = open(height, title);
    let _ = writeln!(
        out,
        "<text class=\"soft\" x=\"4\" y=\"{y:.0}\">↓ less is better; share of the exchanges, % →</text>",
        y = TOP - 10.0
    );
    for (percentile, label) in PERCENTILES {
        if nines(percentile) > right + 1e-9 {
            break;
        }
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{BOTTOM}\"/>\
             <text class=\"soft\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{label}</text>",
            x = x(percentile),
            y = BOTTOM + 15.0,
        );
    }
    for decade in low as i32..=high as i32 {
        for step in [1.0, 2.0, 5.0] {
            let ns = step * 10_f64.powi(decade);
            if ns.log10() > high + 1e-9 {
                break;
            }
            let _ = writeln!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke-opacity=\"{strength}\"/>",
                y = y(ns),
                strength = if step > 1.0 { 0.5 } else { 1.0 },
            );
            if step < 2.0 || high - low < 2.5 {
                let _ = writeln!(
                    out,
                    "<text class=\"soft\" x=\"{x:.1}\" y=\"{ty:.1}\" text-anchor=\"end\">{text}</text>",
                    x = LEFT - 5.0,
                    ty = y(ns) + 4.0,
                    text = tick(ns),
                );
            }
        }
    }
    for (entry, curve) in curves.iter().enumerate() {
        let mut path = String::new();
        for (percentile, ns) in &curve.points {
            let verb = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{verb}{:.1} {:.1}", x(*percentile), y(*ns as f64));
        }
        let _ = writeln!(
            out,
            "<path class=\"line\" d=\"{path}\" stroke=\"{colour}\" stroke-dasharray=\"{dashes}\"/>",
            colour = colour(curve.colour),
            dashes = dashes(curve.colour),
        );
        for (percentile, _) in PERCENTILES {
            let near = |point: &&(f64, u64)| nines(point.0) + 0.03 >= nines(percentile);
            if let Some((at, ns)) = curve.points.iter().find(near) {
                out.push_str(&mark(curve.colour, x(*at), y(*ns as f64)));
            }
        }
        out.push('\n');
        let label = if curve.points.is_empty() {
            format!("✕ {}: not compared", curve.label)
        } else {
            curve.label.clone()
        };
        legend(
            &mut out,
            curve.colour,
            legend_at(entry, BOTTOM + 38.0),
            &label,
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
    fn a_curve_rises_from_left_to_right() {
        let curve = |label: &str, points: &[(f64, u64)], colour| Curve {
            label: label.to_owned(),
            points: points.to_vec(),
            colour,
        };
        let points = [
            (0.0, 10_000),
            (50.0, 20_000),
            (99.0, 900_000),
            (99.99, 5_000_000),
        ];
        let svg = curves(
            "latency",
            &[curve("nginx", &points, 0), curve("<b>", &[], 1)],
        );
        assert!(is_well_formed(&svg), "{svg}");
        assert!(svg.contains(">99.9<") && svg.contains("10 µs") && svg.contains("10 ms"));
        assert!(svg.contains("✕ &lt;b&gt;: not compared"), "{svg}");
        // Dashes tell the second from the first.
        assert!(svg.contains("stroke-dasharray=\"7 3\""));
        assert!(is_well_formed(&curves("none", &[])));
    }
}
