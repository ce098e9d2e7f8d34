//! One page that needs no network: verdicts, plots, every figure, the machine, and
//! how each subject was run.

use std::fmt::Write as _;

use super::svg::{self, Bar, Curve, escape};
use super::table::{deciding, growth, percent, ratio_text};
use super::{LayoutReport, Report, Row, ShapeReport};
use crate::bench::machine::Machine;
use crate::bench::stats::Interval;
use crate::bench::units;

pub(crate) const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:1440px;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
h1{font-size:1.7rem;margin-bottom:.2rem}h2{margin-top:2.5rem;border-bottom:2px solid #ddd}h3{margin-top:2rem}\
table{border-collapse:collapse;font-size:13px;margin:.8rem 0;font-variant-numeric:tabular-nums}\
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #e4e4e4;white-space:nowrap}\
th:first-child,td:first-child{text-align:left}th{background:#f5f5f5}\
.scroll{overflow-x:auto}.faster{color:#006b4f;font-weight:600}.slower{color:#b03a00;font-weight:600}.noise{color:#666}\
.failed{color:#b00020;font-weight:600}.remark{color:#7a5600}\
pre{background:#f6f6f6;padding:.7rem;overflow-x:auto;font-size:12px}code{font-size:13px}small{display:block;color:#666;font-weight:400}\
svg{max-width:100%;height:auto;display:block;margin:.6rem 0}dt{font-weight:600}dd{margin:0 0 .3rem 1.2rem}\
footer{margin-top:3rem;color:#666;font-size:13px}";

/// The page.
pub fn render(report: &Report) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>thalweg bench</title><style>{STYLE}</style></head><body>\n\
         <h1>thalweg bench</h1>\n<p>{}<br>{}<br><code>{}</code></p>\n<p>{}.</p>\n",
        escape(&report.when),
        escape(&report.machine.summary()),
        escape(&report.command),
        escape(&report.method),
    );
    for note in &report.place.notes {
        let _ = writeln!(out, "<p class=\"remark\">Note: {}</p>", escape(note));
    }
    for failure in report.failures() {
        let _ = writeln!(
            out,
            "<p class=\"failed\">Not compared: {}</p>",
            escape(&failure)
        );
    }
    verdicts(report, &mut out);
    for layout in &report.layouts {
        let _ = writeln!(
            out,
            "<h2>{}</h2>\n<p>{}</p>",
            layout.layout.name(),
            placement(layout)
        );
        for note in &layout.notes {
            let _ = writeln!(out, "<p class=\"remark\">Note: {}</p>", escape(note));
        }
        for shape in &layout.shapes {
            shape_section(layout, shape, &report.baseline, &mut out);
        }
    }
    starts(report, &mut out);
    idle(report, &mut out);
    machine(&report.machine, &report.place.congestion, &mut out);
    subjects(report, &mut out);
    reading(&mut out);
    let _ = writeln!(
        out,
        "<footer>thalweg {}. The samples of every round are in report.json.</footer></body></html>",
        escape(&report.version)
    );
    out
}

/// Every plot as a file of its own: name and content.
pub fn plots(report: &Report) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for layout in &report.layouts {
        for shape in &layout.shapes {
            let stem = format!("{}-{}", layout.layout.name(), shape.name)
                .replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_");
            for (kind, svg) in shape_plots(layout, shape) {
                files.push((format!("{stem}-{kind}.svg"), svg));
            }
        }
    }
    files
}

fn placement(layout: &LayoutReport) -> String {
    if layout.forwarder_cpus == layout.other_cpus {
        format!(
            "Client, forwarder and origin share CPU {:?}: what a path costs in all.",
            layout.other_cpus
        )
    } else {
        format!(
            "The forwarder has CPU {:?} to itself, client and origin share {:?}: its ceiling, \
             unless they are the bottleneck.",
            layout.forwarder_cpus, layout.other_cpus
        )
    }
}

/// One line for each layout and shape: every subject against the baseline.
fn verdicts(report: &Report, out: &mut String) {
    let baseline = escape(&report.baseline);
    let _ = writeln!(
        out,
        "<h2>Verdicts against {baseline}</h2>\n<div class=\"scroll\"><table><tr><th>layout, shape</th>\
         <th>subject</th><th>ratio and {:.0} % interval</th><th>verdict</th></tr>",
        report.confidence * 100.0
    );
    for layout in &report.layouts {
        for shape in &layout.shapes {
            for row in &shape.rows {
                let Some((ratio, verdict)) = deciding(shape, row, &report.baseline) else {
                    continue;
                };
                let _ = writeln!(
                    out,
                    "<tr><td>{}, {} ({})</td><td>{}</td><td>{}</td><td class=\"{v}\">{v}</td></tr>",
                    layout.layout.name(),
                    escape(&shape.name),
                    judged_by(shape),
                    escape(&row.subject),
                    ratio_text(ratio),
                    v = verdict.name(),
                );
            }
        }
    }
    out.push_str("</table></div>\n");
}

fn judged_by(shape: &ShapeReport) -> &'static str {
    use crate::bench::load::shape::Figure;
    match shape.figure {
        Figure::Throughput => "throughput",
        Figure::Requests => "requests a second",
        Figure::Connections => "connections a second",
        Figure::Share => "bulk before a single byte, less is better",
        Figure::Latency => "99th percentile, less is better",
    }
}

fn shape_section(layout: &LayoutReport, shape: &ShapeReport, baseline: &str, out: &mut String) {
    let _ = writeln!(
        out,
        "<h3>{}, {}</h3>",
        escape(&shape.name),
        layout.layout.name()
    );
    for (_, svg) in shape_plots(layout, shape) {
        out.push_str(&svg);
    }
    figures(shape, baseline, out);
    for row in &shape.rows {
        if let Some(failure) = &row.failure {
            let _ = writeln!(
                out,
                "<p class=\"failed\">{}: not compared: {}</p>",
                escape(&row.subject),
                escape(failure)
            );
        }
        if let Some(growth) = growth(layout, row) {
            let _ = writeln!(
                out,
                "<p>{}: CPU {} times that of {}</p>",
                escape(&row.subject),
                ratio_text(growth.ratio),
                escape(&growth.against)
            );
        }
        for remark in &row.remarks {
            let _ = writeln!(
                out,
                "<p class=\"remark\">{}: {}</p>",
                escape(&row.subject),
                escape(remark)
            );
        }
    }
}

fn shape_plots(layout: &LayoutReport, shape: &ShapeReport) -> Vec<(&'static str, String)> {
    let mut plots = Vec::new();
    let title = |what: &str| format!("{}, {}: {what}", shape.name, layout.layout.name());
    let bars = |value: &dyn Fn(&Row) -> Option<Interval>, text: &dyn Fn(f64) -> String| {
        let bars: Vec<Bar> = shape
            .rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.failure.is_none())
            .filter_map(|(colour, row)| {
                let value = value(row)?;
                Some(Bar {
                    label: row.subject.clone(),
                    value,
                    text: text(value.estimate),
                    colour,
                })
            })
            .collect();
        bars
    };
    if shape.has_bulk {
        let bars = bars(&|row| row.throughput, &units::bit_rate);
        plots.push(("throughput", svg::bars(&title("throughput"), &bars)));
    }
    if shape.has_exchanges {
        let list = bars(&|row| row.exchanges, &units::rate);
        plots.push(("rate", svg::bars(&title("exchanges a second"), &list)));
    }
    if shape.is_burst {
        let list = bars(&|row| row.burst.map(|burst| burst.last), &percent);
        let title = title("bulk moved before the last single byte, less is better");
        return vec![("burst", svg::bars(&title, &list))];
    }
    let unit = cpu_unit(shape);
    let list = bars(&|row| row.path_cpu, &|value| {
        format!("{} {unit}", units::digits(value))
    });
    plots.push((
        "cpu",
        svg::bars(&title("CPU of the whole path, less is better"), &list),
    ));
    if shape.has_exchanges {
        let curves: Vec<Curve> = shape
            .rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.failure.is_none() && !row.curve.is_empty())
            .map(|(colour, row)| Curve {
                label: row.subject.clone(),
                points: row.curve.clone(),
                colour,
            })
            .collect();
        plots.push(("latency", svg::curves(&title("latency"), &curves)));
    }
    plots
}

fn cpu_unit(shape: &ShapeReport) -> &'static str {
    if shape.has_exchanges {
        "µs/op"
    } else {
        "s/GB"
    }
}

fn figures(shape: &ShapeReport, baseline: &str, out: &mut String) {
    let unit = cpu_unit(shape);
    let mut head = vec!["subject".to_owned()];
    if shape.has_bulk {
        head.push("throughput".to_owned());
    }
    if shape.has_exchanges {
        head.extend(["exchanges", "p50", "p90", "p99", "p99.9", "max"].map(str::to_owned));
    }
    if shape.has_bulk && shape.has_exchanges {
        head.extend(["quiet", "quiet p50<small>p99</small>"].map(str::to_owned));
        head.push("p50 to quiet<small>p99</small>".to_owned());
    }
    if shape.is_burst {
        head.extend(["bulk before the last byte", "before half", "all moved"].map(str::to_owned));
    }
    head.extend([
        format!("forwarder {unit}"),
        format!("path {unit}"),
        format!("hop {unit}"),
        "hop p50<small>p99</small>".to_owned(),
        "switches".to_owned(),
        "CPU used<small>generator, origin</small>".to_owned(),
        format!("against {}", escape(baseline)),
    ]);
    if baseline != "direct" {
        head.push("against direct".to_owned());
    }
    let _ = writeln!(
        out,
        "<div class=\"scroll\"><table><tr><th>{}</th></tr>",
        head.join("</th><th>")
    );
    for row in shape.rows.iter().filter(|row| row.rounds > 0) {
        let _ = writeln!(
            out,
            "<tr><td>{}</td></tr>",
            cells(shape, row, baseline).join("</td><td>")
        );
    }
    out.push_str("</table></div>\n");
}

fn cells(shape: &ShapeReport, row: &Row, baseline: &str) -> Vec<String> {
    let none = || "–".to_owned();
    let spread = |interval: Option<Interval>, show: &dyn Fn(f64) -> String| {
        interval.map_or_else(none, |i| {
            format!(
                "{}<small>{} to {}</small>",
                show(i.estimate),
                show(i.low),
                show(i.high)
            )
        })
    };
    let mut cells = vec![escape(&row.subject)];
    if shape.has_bulk {
        cells.push(spread(row.throughput, &units::bit_rate));
    }
    if shape.has_exchanges {
        cells.push(spread(row.exchanges, &units::rate));
        match row.latency {
            Some(l) => cells
                .extend([l.p50, l.p90, l.p99, l.p999, l.max].map(|ns| units::latency(ns as f64))),
            None => cells.extend((0..5).map(|_| none())),
        }
    }
    if shape.has_bulk && shape.has_exchanges {
        match row.quiet {
            Some(quiet) => cells.extend([
                spread(Some(quiet.exchanges), &units::rate),
                format!(
                    "{}<small>{}</small>",
                    units::latency(quiet.latency.p50 as f64),
                    units::latency(quiet.latency.p99 as f64)
                ),
                format!(
                    "{}<small>{}</small>",
                    ratio_text(quiet.p50),
                    ratio_text(quiet.p99)
                ),
            ]),
            None => cells.extend((0..3).map(|_| none())),
        }
    }
    if shape.is_burst {
        cells.push(spread(row.burst.map(|burst| burst.last), &percent));
        cells.push(spread(row.burst.map(|burst| burst.median), &percent));
        let took = row.burst.map(|burst| burst.seconds);
        cells.push(spread(took, &|seconds| units::latency(seconds * 1e9)));
    }
    cells.push(spread(row.cpu.filter(|cpu| cpu.high > 0.0), &units::digits));
    cells.push(spread(row.path_cpu, &units::digits));
    cells.push(row.hop.map_or_else(none, |hop| units::digits(hop.cpu)));
    cells.push(match row.hop.map(|hop| (hop.p50, hop.p99)) {
        Some((Some(p50), Some(p99))) => format!("{}<small>{}</small>", signed(p50), signed(p99)),
        _ => none(),
    });
    cells.push(units::digits(row.switches));
    let [forwarder, generator, origin] = row.cpu_shares.map(|share| share * 100.0);
    cells.push(format!(
        "{forwarder:.0} %<small>{generator:.0} %, {origin:.0} %</small>"
    ));
    let mut others = vec![baseline, "direct"];
    others.dedup();
    for against in others {
        let ratios: Vec<String> = row
            .ratios
            .iter()
            .filter(|ratio| ratio.against == against)
            .map(|ratio| {
                format!(
                    "<small>{} {} <span class=\"{v}\">{v}</span></small>",
                    ratio.of,
                    ratio_text(ratio.ratio),
                    v = ratio.verdict.name()
                )
            })
            .collect();
        cells.push(if ratios.is_empty() {
            none()
        } else {
            ratios.concat()
        });
    }
    cells
}

fn signed(ns: f64) -> String {
    let sign = if ns < 0.0 { '−' } else { '+' };
    format!("{sign}{}", units::latency(ns.abs()))
}

fn starts(report: &Report, out: &mut String) {
    let Some(layout) = report.layouts.first().filter(|it| !it.starts.is_empty()) else {
        return;
    };
    out.push_str(
        "<h2>A start</h2>\n<table><tr><th>subject</th><th>time until an exchange crosses</th>\
         <th>CPU</th><th>time, to the small one</th><th>CPU, to the small one</th></tr>\n",
    );
    for start in &layout.starts {
        let seconds = |value: Interval| {
            let text = |value: f64| units::latency(value * 1e9);
            let (low, high) = (text(value.low), text(value.high));
            format!("{}<small>{low} to {high}</small>", text(value.estimate))
        };
        let ratio = |ratio: Option<Interval>| ratio.map_or_else(|| "–".to_owned(), ratio_text);
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&start.subject),
            seconds(start.seconds),
            seconds(start.cpu),
            ratio(start.seconds_ratio),
            ratio(start.cpu_ratio),
        );
    }
    out.push_str("</table>\n");
}

fn idle(report: &Report, out: &mut String) {
    let Some(layout) = report.layouts.first() else {
        return;
    };
    if layout.subjects.iter().all(|subject| subject.idle.is_none()) {
        return;
    }
    out.push_str(
        "<h2>An idle session</h2>\n<table><tr><th>subject</th><th>user memory</th>\
         <th>descriptors</th><th>pipe ends</th><th>measured with</th></tr>\n",
    );
    for subject in &layout.subjects {
        if let Some(idle) = subject.idle {
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{:.2}</td><td>{:.2}</td><td>{} sessions</td></tr>",
                escape(&subject.name),
                units::size(idle.bytes),
                idle.descriptors,
                idle.pipe_ends,
                idle.sessions,
            );
        }
    }
    out.push_str("</table>\n");
}

/// What was measured on, as a section of a page.
pub(crate) fn machine(machine: &Machine, congestion: &str, out: &mut String) {
    let mut facts = vec![
        ("processor".to_owned(), machine.cpu.clone()),
        (
            "virtual machine".to_owned(),
            machine.virtual_machine.to_string(),
        ),
        ("CPUs".to_owned(), format!("{:?}", machine.cpus)),
        ("memory".to_owned(), units::size(machine.memory as f64)),
        ("kernel".to_owned(), machine.kernel.clone()),
        ("clock source".to_owned(), machine.clocksource.clone()),
        (
            "frequency governor".to_owned(),
            machine
                .governor
                .clone()
                .unwrap_or_else(|| "none".to_owned()),
        ),
        ("descriptors".to_owned(), machine.descriptors.to_string()),
        ("loopback".to_owned(), machine.loopback.clone()),
        (
            "congestion control in use".to_owned(),
            congestion.to_owned(),
        ),
    ];
    facts.extend(machine.sysctls.iter().cloned());
    out.push_str("<h2>The machine</h2>\n<table>\n");
    for (name, value) in facts {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td style=\"text-align:left\">{}</td></tr>",
            escape(&name),
            escape(&value)
        );
    }
    out.push_str("</table>\n");
}

fn subjects(report: &Report, out: &mut String) {
    let Some(layout) = report.layouts.first() else {
        return;
    };
    out.push_str("<h2>The subjects</h2>\n");
    for subject in &layout.subjects {
        let _ = writeln!(
            out,
            "<h3>{}</h3>\n<p>{}{}</p>",
            escape(&subject.name),
            escape(&subject.launch.version),
            if subject.keeps_half_closed {
                ""
            } else {
                "; cuts a response that follows the client's end"
            }
        );
        if !subject.launch.argv.is_empty() {
            let mut words: Vec<String> = subject
                .launch
                .environment
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            words.extend(subject.launch.argv.iter().cloned());
            let _ = writeln!(out, "<pre>{}</pre>", escape(&words.join(" ")));
        }
        for (path, content) in &subject.launch.files {
            let _ = writeln!(
                out,
                "<details><summary>{}</summary><pre>{}</pre></details>",
                escape(&path.display().to_string()),
                escape(content)
            );
        }
    }
}

/// What the words mean, so that the page can be read without the manual.
fn reading(out: &mut String) {
    out.push_str(
        "<h2>How to read this</h2>\n<dl>\n\
         <dt>ratio</dt><dd>This subject's figure divided by the other's, round by round; the geometric \
         mean, with an expanded-percentile bootstrap interval over the rounds.</dd>\n\
         <dt>verdict</dt><dd>Faster or slower when the interval excludes 1; otherwise noise.</dd>\n\
         <dt>forwarder CPU, path CPU</dt><dd>CPU time of the forwarder's process tree; of generator, \
         forwarder and origin together. Per gigabyte (10⁹ bytes), or per exchange (request and response; \
         in crr with its connection).</dd>\n\
         <dt>hop</dt><dd>The whole path's figure less the figure of direct: what the forwarder adds. In a \
         closed loop on one core, latency is mostly waiting for the CPU; ping shows the hop alone.</dd>\n\
         <dt>quiet</dt><dd>The exchanges of a mix without its bulk, in the same rounds; \"to quiet\" is the \
         ratio of the two, round by round, so that more than 1 is what the bulk costs them.</dd>\n\
         <dt>burst</dt><dd>The subject is stopped until bulk and single bytes are ready in its sockets, then goes \
         on: the share of the bulk that came to the origin before the bytes did.</dd>\n\
         <dt>switches</dt><dd>The forwarder's context switches per gigabyte or exchange.</dd>\n\
         <dt>logs</dt><dd>No subject logs connections: nginx's stream log and HAProxy's are off by default, \
         thalweg's session records are switched off.</dd>\n\
         <dt>checked</dt><dd>Every response is compared with its request, a sample of the bulk flows byte \
         by byte with what was sent, and all bytes sent upwards are counted at the origin. A subject that \
         fails in this is not compared.</dd>\n</dl>\n",
    );
}
