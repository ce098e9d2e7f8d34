//! One page that needs no network: the answer in words and as one plot, how to read it, then
//! every shape with its plots and figures, the machine, and how each subject was run.

use std::fmt::Write as _;

use super::model::{Tone, Unit};
use super::svg::{self, Bar, Curve, Direction, escape};
use super::{LayoutReport, Report, Row, ShapeReport, answer, page, render, tables};
use crate::bench::stats::Estimate;
use crate::bench::units;

/// The page.
pub fn render(report: &Report) -> String {
    let head = &report.head;
    let mut out = page::open(
        "thalweg bench",
        &[
            format!(
                "{}; {}; thalweg {}<br><code>{}</code>",
                escape(&head.when),
                escape(&head.machine.summary()),
                escape(&head.version),
                escape(&head.command)
            ),
            format!("{}.", escape(&report.method)),
        ],
        &contents(report),
    );
    notes(report, &mut out);
    page::section(&mut out, "answer", "The answer");
    page::answer(&mut out, &answer::sentences(report));
    page::beside(&mut out, &forest(report), reading);
    for layout in &report.layouts {
        let name = layout.layout.name();
        page::section(&mut out, name, name);
        page::say(&mut out, Tone::Plain, &placement(layout));
        for note in &layout.notes {
            page::say(&mut out, Tone::Doubt, &format!("Note: {note}"));
        }
        for shape in &layout.shapes {
            shape_section(layout, shape, &report.baseline, &mut out);
        }
    }
    for (name, title, table) in further(report) {
        page::section(&mut out, name, title);
        out.push_str(&render::html(&table));
    }
    page::section(&mut out, "verdicts", "Every verdict as a table");
    out.push_str(&render::html(&tables::verdicts(report)));
    page::machine(&head.machine, &report.place.congestion, &mut out);
    subjects(report, &mut out);
    let more = ". The samples of every round are in report.json.";
    page::close(&mut out, &head.version, more);
    out
}

/// What is shown where it was measured.
fn further(report: &Report) -> Vec<(&'static str, &'static str, super::model::Table)> {
    let starts = tables::starts(report).map(|it| ("start", "A start", it));
    let idle = tables::idle(report).map(|it| ("idle", "An idle session", it));
    let flow = tables::idle_flow(report).map(|it| ("idle-flow", "An idle flow", it));
    starts.into_iter().chain(idle).chain(flow).collect()
}

fn contents(report: &Report) -> Vec<(String, String)> {
    let mut contents = vec![("answer", "The answer"), ("reading", "How to read this")];
    contents.extend(report.layouts.iter().map(|layout| {
        let name = layout.layout.name();
        (name, name)
    }));
    contents.extend(further(report).iter().map(|it| (it.0, it.1)));
    contents.extend([
        ("verdicts", "Every verdict"),
        ("machine", "The machine"),
        ("subjects", "The subjects"),
    ]);
    let owned = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
    let mut contents: Vec<(String, String)> = contents.into_iter().map(owned).collect();
    for layout in &report.layouts {
        for shape in &layout.shapes {
            let text = format!("{}, {}", shape.name, layout.layout.name());
            contents.push((anchor(layout, shape), text));
        }
    }
    contents
}

/// What makes the figures doubtful, before them.
fn notes(report: &Report, out: &mut String) {
    if let Some(interrupted) = &report.interrupted {
        page::say(out, Tone::Failed, &format!("Note: {interrupted}."));
    }
    for note in &report.place.notes {
        page::say(out, Tone::Doubt, &format!("Note: {note}"));
    }
    if let Some(disturbance) = report.disturbance() {
        page::say(out, Tone::Doubt, &format!("{disturbance}."));
    }
    let failures = report.failures();
    if !failures.is_empty() {
        let cells = report.layouts.iter().flat_map(|it| &it.shapes);
        let cells: usize = cells.map(|shape| shape.rows.len()).sum();
        let _ = writeln!(
            out,
            "<details{open}><summary class=\"failed\">Not compared: {count} of {cells}</summary><ul>",
            open = if failures.len() < 5 { " open" } else { "" },
            count = failures.len(),
        );
        for failure in failures {
            let _ = writeln!(out, "<li>{}</li>", escape(&failure));
        }
        out.push_str("</ul></details>\n");
    }
}

fn forest(report: &Report) -> String {
    let title = format!(
        "How many times as good as {}, with {:.0} % intervals",
        report.baseline,
        report.head.confidence * 100.0
    );
    svg::forest(&title, &report.baseline, &answer::groups(report))
}

fn stem(layout: &LayoutReport, shape: &ShapeReport) -> String {
    format!("{}-{}", layout.layout.name(), shape.name)
        .replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_")
}

fn anchor(layout: &LayoutReport, shape: &ShapeReport) -> String {
    stem(layout, shape)
}

/// Every plot as a file of its own: name and content.
pub fn plots(report: &Report) -> Vec<(String, String)> {
    let mut files = vec![("ratios.svg".to_owned(), svg::as_file(&forest(report)))];
    for layout in &report.layouts {
        for shape in &layout.shapes {
            let stem = stem(layout, shape);
            for (kind, plot) in shape_plots(layout, shape) {
                files.push((format!("{stem}-{kind}.svg"), svg::as_file(&plot)));
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
        "<h3 id=\"{}\">{}, {}</h3>",
        anchor(layout, shape),
        escape(&shape.name),
        layout.layout.name()
    );
    page::plots(out, shape_plots(layout, shape).into_iter().map(|it| it.1));
    out.push_str(&render::html(&tables::shape(layout, shape, baseline)));
}

/// One bar for each subject; of one that failed, that it did.
fn shape_bars(
    shape: &ShapeReport,
    value: &dyn Fn(&Row) -> Option<Estimate>,
    text: &dyn Fn(f64) -> String,
) -> Vec<Bar> {
    let bar = |(colour, row): (usize, &Row)| {
        let label = row.subject.clone();
        if row.failure.is_some() {
            let text = "not compared".to_owned();
            return Some(Bar {
                label,
                value: None,
                text,
                colour,
            });
        }
        let value = value(row)?;
        Some(Bar {
            label,
            value: Some(value),
            text: text(value.estimate),
            colour,
        })
    };
    shape.rows.iter().enumerate().filter_map(bar).collect()
}

fn shape_plots(layout: &LayoutReport, shape: &ShapeReport) -> Vec<(&'static str, String)> {
    let mut plots = Vec::new();
    let title = |what: &str| format!("{}, {}: {what}", shape.name, layout.layout.name());
    if shape.is_burst {
        let percent = |value| Unit::Share.text(value);
        let list = shape_bars(shape, &|row| row.burst.map(|burst| burst.last), &percent);
        let title = title("bulk moved before the last single byte");
        return vec![("burst", svg::bars(&title, Direction::Less, &list))];
    }
    if shape.has_stream {
        let arrived = |row: &Row| row.datagrams.map(|it| it.arrived);
        let list = shape_bars(shape, &arrived, &units::rate);
        let plot = svg::bars(&title("datagrams a second"), Direction::More, &list);
        plots.push(("datagrams", plot));
    }
    if shape.has_bulk {
        let list = shape_bars(shape, &|row| row.throughput, &units::bit_rate);
        let plot = svg::bars(&title("throughput"), Direction::More, &list);
        plots.push(("throughput", plot));
    }
    if shape.has_exchanges {
        let list = shape_bars(shape, &|row| row.exchanges, &units::rate);
        let plot = svg::bars(&title("exchanges a second"), Direction::More, &list);
        plots.push(("rate", plot));
    }
    let (unit, scale) = if shape.has_exchanges {
        ("µs/op", 1e6)
    } else if shape.has_stream {
        ("µs/datagram", 1e6)
    } else {
        ("s/GB", 1.0)
    };
    let path = |row: &Row| {
        row.cost
            .map(|it| it.costs().path.map(|value| value * scale))
    };
    let list = shape_bars(shape, &path, &|value| {
        format!("{} {unit}", units::digits(value))
    });
    let plot = svg::bars(&title("CPU of the whole path"), Direction::Less, &list);
    plots.push(("cpu", plot));
    if shape.has_exchanges {
        let curves: Vec<Curve> = shape
            .rows
            .iter()
            .enumerate()
            .map(|(colour, row)| Curve {
                label: row.subject.clone(),
                points: match row.failure {
                    None => row.curve.clone(),
                    Some(_) => Vec::new(),
                },
                colour,
            })
            .collect();
        plots.push(("latency", svg::curves(&title("latency"), &curves)));
    }
    plots
}

fn subjects(report: &Report, out: &mut String) {
    let Some(layout) = report.layouts.first() else {
        return;
    };
    page::section(out, "subjects", "The subjects");
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
    page::section(out, "reading", "How to read this");
    out.push_str(
        "<p>In the plot of ratios everything to the right of 1 is better, to the left worse. A mark is the \
         estimate, the line through it the interval: the ratio is somewhere in it in 95 of 100 runs. A filled \
         triangle (▶ better, ◀ worse) is a verdict: the whole interval is on one side of 1. An open circle is \
         noise: this run tells no difference. An open diamond is disturbed: something else took the CPUs in too \
         many rounds, and nothing is concluded. An arrow: the line goes on.</p>\n\
         <details><summary>The other words</summary><dl>\n\
         <dt>ratio</dt><dd>This subject's figure divided by the other's, round by round; the geometric \
         mean, with Student's interval over the rounds. In the tables it is as measured, so that for latency and \
         CPU less than 1 is better.</dd>\n\
         <dt>cpu, ends, path</dt><dd>CPU time of the forwarder's process tree; of generator and origin, \
         which are the measurement and not the subject; of all three. Per gigabyte (10⁹ bytes), or per exchange \
         (request and response; in crr with its connection).</dd>\n\
         <dt>hop</dt><dd>The whole path's figure less the figure of direct: what the forwarder adds. In a \
         closed loop on one core, latency is mostly waiting for the CPU; ping shows the hop alone.</dd>\n\
         <dt>quiet</dt><dd>The exchanges of a mix without its bulk, in the same rounds; \"to quiet\" is the \
         ratio of the two, round by round, so that more than 1 is what the bulk costs them.</dd>\n\
         <dt>burst</dt><dd>The subject is stopped until bulk and single bytes are ready in its sockets, then goes \
         on: the share of the bulk that came to the origin before the bytes did.</dd>\n\
         <dt>switches</dt><dd>The forwarder's context switches per gigabyte or exchange.</dd>\n\
         <dt>logs</dt><dd>No subject logs connections: nginx's stream log and HAProxy's are off by default, \
         thalweg's session records are switched off.</dd>\n\
         <dt>checked</dt><dd>Every response is compared with its request, a sample of the bulk byte \
         by byte with what was sent, and all bytes sent upwards are counted at the origin. A subject that \
         fails in this is not compared.</dd>\n</dl></details>\n",
    );
}

#[cfg(test)]
mod tests {
    use super::super::sample::sample;

    #[test]
    fn the_answer_comes_first_and_every_section_is_in_the_contents() {
        let page = super::render(&sample());
        let at = |text: &str| {
            page.find(text)
                .unwrap_or_else(|| panic!("{text} is missing in {page}"))
        };
        assert!(at("id=\"answer\"") < at("<svg"));
        assert!(at("<svg") < at("id=\"reading\""));
        assert!(at("id=\"reading\"") < at("id=\"one-core\""));
        for section in page.split("<h2 id=\"").skip(1) {
            let name = section.split('"').next().unwrap();
            at(&format!("href=\"#{name}\""));
        }
        for link in page.split("href=\"").skip(1) {
            let name = link.strip_prefix('#').expect("links stay on the page");
            let name = name.split('"').next().unwrap();
            at(&format!("id=\"{name}\""));
        }
        for outside in ["src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn a_subject_that_failed_stays_visible_and_one_note_says_disturbed() {
        let page = super::render(&sample());
        // In the answer, in the forest, in the plots of the shape, in the table, in a note.
        assert!(page.contains("NOT COMPARED in rr"), "{page}");
        assert!(page.matches("✕ not compared").count() >= 3, "{page}");
        assert!(page.contains("✕ &lt;broken&gt;: not compared"), "{page}");
        assert_eq!(page.matches("Disturbed:").count(), 1, "{page}");
        assert!(!page.contains("<broken>"), "escaped");
    }
}
