//! One page that needs no network: verdicts, plots, every figure, the machine, and
//! how each subject was run.

use std::fmt::Write as _;

use super::model::{Tone, Unit};
use super::svg::{self, Bar, Curve, escape};
use super::{LayoutReport, Report, Row, ShapeReport, page, render, tables};
use crate::bench::stats::Estimate;
use crate::bench::units;

/// The page.
pub fn render(report: &Report) -> String {
    let mut out = page::open(
        "thalweg bench",
        &[
            format!(
                "{}<br>{}<br><code>{}</code>",
                escape(&report.when),
                escape(&report.machine.summary()),
                escape(&report.command)
            ),
            format!("{}.", escape(&report.method)),
        ],
    );
    for note in &report.place.notes {
        page::say(&mut out, Tone::Doubt, &format!("Note: {note}"));
    }
    if let Some(interrupted) = &report.interrupted {
        page::say(&mut out, Tone::Failed, &format!("Note: {interrupted}."));
    }
    if let Some(disturbance) = report.disturbance() {
        page::say(&mut out, Tone::Doubt, &format!("{disturbance}."));
    }
    for failure in report.failures() {
        page::say(&mut out, Tone::Failed, &format!("Not compared: {failure}"));
    }
    let baseline = escape(&report.baseline);
    let _ = writeln!(out, "<h2>Verdicts against {baseline}</h2>");
    out.push_str(&render::html(&tables::verdicts(report)));
    for layout in &report.layouts {
        let _ = writeln!(
            out,
            "<h2>{}</h2>\n<p>{}</p>",
            layout.layout.name(),
            placement(layout)
        );
        for note in &layout.notes {
            page::say(&mut out, Tone::Doubt, &format!("Note: {note}"));
        }
        for shape in &layout.shapes {
            shape_section(layout, shape, &report.baseline, &mut out);
        }
    }
    let starts = ("A start", tables::starts(report));
    let idle = ("An idle session", tables::idle(report));
    for (title, table) in [starts, idle] {
        if let Some(table) = table {
            let _ = writeln!(out, "<h2>{title}</h2>");
            out.push_str(&render::html(&table));
        }
    }
    page::machine(&report.machine, &report.place.congestion, &mut out);
    subjects(report, &mut out);
    reading(&mut out);
    let more = ". The samples of every round are in report.json.";
    page::close(&mut out, &report.version, more);
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
    out.push_str(&render::html(&tables::shape(layout, shape, baseline)));
}

fn shape_plots(layout: &LayoutReport, shape: &ShapeReport) -> Vec<(&'static str, String)> {
    let mut plots = Vec::new();
    let title = |what: &str| format!("{}, {}: {what}", shape.name, layout.layout.name());
    let bars = |value: &dyn Fn(&Row) -> Option<Estimate>, text: &dyn Fn(f64) -> String| {
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
        let list = bars(&|row| row.burst.map(|burst| burst.last), &|share| {
            Unit::Share.text(share)
        });
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
         mean, with Student's interval over the rounds.</dd>\n\
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
