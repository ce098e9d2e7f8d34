//! What every page has: its style, its head and its end, and the machine.

use std::fmt::Write as _;

use super::model::Tone;
use super::render::class;
use super::svg::escape;
use crate::bench::machine::Machine;
use crate::bench::units;

const STYLE: &str = "\
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

/// A page up to its first section: the title, then each paragraph, which is HTML.
pub(crate) fn open(title: &str, paragraphs: &[String]) -> String {
    let title = escape(title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    );
    for paragraph in paragraphs {
        let _ = writeln!(out, "<p>{paragraph}</p>");
    }
    out
}

/// A sentence that stands by itself.
pub(crate) fn say(out: &mut String, tone: Tone, text: &str) {
    let _ = writeln!(out, "<p class=\"{}\">{}</p>", class(tone), escape(text));
}

/// The end of a page.
pub(crate) fn close(out: &mut String, version: &str, more: &str) {
    let _ = writeln!(
        out,
        "<footer>thalweg {}{more}</footer></body></html>",
        escape(version)
    );
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
