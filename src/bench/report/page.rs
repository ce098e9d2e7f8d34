//! What every page has: its style, its head with the contents, its end, and the machine.
//!
//! A page needs no network, follows the reader's scheme (light or dark), and can be read at
//! 400 pixels: plots stand below each other there, and a table's rows become blocks in which
//! each figure has its name.

use std::fmt::Write as _;

use super::model::Tone;
use super::render::class;
use super::svg::{self, escape};
use crate::bench::machine::Machine;
use crate::bench::units;

const STYLE: &str = "\
:root{color-scheme:light dark;--fg:#222;--bg:#fff;--soft:#5c6166;--line:#dcdfe2;--head:#f3f5f6;--good:#006b4f;\
--bad:#b03a00;--fail:#b00020;--doubt:#7a5600;--link:#005a96}\
@media (prefers-color-scheme:dark){:root{--fg:#e4e4e4;--bg:#16191c;--soft:#a6adb4;--line:#3a4046;--head:#21262b;\
--good:#4fd0a5;--bad:#ff9d6b;--fail:#ff8a96;--doubt:#e6bd62;--link:#7cc0f5}}\
*{box-sizing:border-box}\
body{font:15px/1.5 system-ui,sans-serif;max-width:1240px;margin:1.5rem auto;padding:0 1rem;color:var(--fg);\
background:var(--bg);overflow-wrap:anywhere}\
h1{font-size:1.6rem;margin:0 0 .2rem}h2{font-size:1.25rem;margin:2.2rem 0 .6rem;border-bottom:2px solid var(--line)}\
h3{font-size:1.05rem;margin:1.6rem 0 .4rem}p{margin:.5rem 0}a{color:var(--link)}.lead,.meta{color:var(--soft)}\
.meta{font-size:13px}nav{background:var(--head);padding:.5rem .8rem;margin:.8rem 0;border-radius:4px}\
nav a{display:inline-block;margin:.1rem .9rem .1rem 0}.answer{font-size:16px}.answer li{margin:.2rem 0}\
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,380px),1fr));gap:1rem;align-items:start}\
svg.plot{width:100%;max-width:620px;height:auto;display:block}\
.beside{display:grid;gap:0 2rem;grid-template-columns:1fr}.beside h2{margin-top:.4rem}\
@media (min-width:900px){.beside{grid-template-columns:minmax(0,600px) minmax(0,1fr)}}\
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13px;margin:.7rem 0;font-variant-numeric:tabular-nums}\
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid var(--line);vertical-align:top}\
th{background:var(--head);font-weight:600}th:first-child,td:first-child,.facts td{text-align:left}\
tbody th{text-align:left;background:none;white-space:nowrap}td{white-space:nowrap}.facts td{white-space:normal}\
.faster{color:var(--good);font-weight:600}.slower{color:var(--bad);font-weight:600}.noise,.plain small{color:var(--soft)}\
.failed{color:var(--fail);font-weight:600}.remark{color:var(--doubt)}\
pre{background:var(--head);padding:.7rem;overflow-x:auto;font-size:12px;white-space:pre-wrap}code{font-size:13px}\
small{display:block;color:var(--soft);font-weight:400}details{margin:.6rem 0}summary{cursor:pointer;color:var(--link)}\
dt{font-weight:600}dd{margin:0 0 .3rem 1rem}footer{margin-top:2.5rem;color:var(--soft);font-size:13px}\
@media (max-width:640px){body{padding:0 .8rem}h1{font-size:1.35rem}\
table.figures thead{display:none}table.figures,table.figures tbody,table.figures tr,table.figures td,table.figures tbody th\
{display:block;width:100%}table.figures tr{border:1px solid var(--line);border-radius:4px;margin:.6rem 0}\
table.figures tbody th{background:var(--head)}table.figures td{display:flex;justify-content:space-between;gap:1rem;\
white-space:normal;text-align:right}table.figures td::before{content:attr(data-of);color:var(--soft);text-align:left}}";

/// A page up to its first section: the title, then each paragraph, which is HTML, then
/// the contents: the name of each section and what it is called.
pub(crate) fn open(title: &str, paragraphs: &[String], contents: &[(String, String)]) -> String {
    let title = escape(title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}{plots}</style></head><body>\n<h1>{title}</h1>\n",
        plots = svg::STYLE,
    );
    for paragraph in paragraphs {
        let _ = writeln!(out, "<p class=\"meta\">{paragraph}</p>");
    }
    out.push_str("<nav aria-label=\"Contents\">");
    for (name, text) in contents {
        let _ = write!(out, "<a href=\"#{name}\">{}</a>", escape(text));
    }
    out.push_str("</nav>\n");
    out
}

/// The head of a section, which the contents name.
pub(crate) fn section(out: &mut String, name: &str, title: &str) {
    let _ = writeln!(out, "<h2 id=\"{name}\">{}</h2>", escape(title));
}

/// A sentence that stands by itself.
pub(crate) fn say(out: &mut String, tone: Tone, text: &str) {
    let _ = writeln!(out, "<p class=\"{}\">{}</p>", class(tone), escape(text));
}

/// The answer, a point each.
pub(crate) fn answer(out: &mut String, sentences: &[String]) {
    out.push_str("<ul class=\"answer\">\n");
    for sentence in sentences {
        let _ = writeln!(out, "<li>{}</li>", escape(sentence));
    }
    out.push_str("</ul>\n");
}

/// A plot, and beside it, or below where there is no room, what to say of it.
pub(crate) fn beside(out: &mut String, plot: &str, text: impl FnOnce(&mut String)) {
    let _ = write!(out, "<div class=\"beside\"><div>\n{plot}</div><div>\n");
    text(out);
    out.push_str("</div></div>\n");
}

/// Plots beside each other, as many as there is room for.
pub(crate) fn plots(out: &mut String, plots: impl IntoIterator<Item = String>) {
    out.push_str("<div class=\"plots\">\n");
    out.extend(plots);
    out.push_str("</div>\n");
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
    section(out, "machine", "The machine");
    out.push_str("<table class=\"facts\">\n");
    for (name, value) in facts {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td></tr>",
            escape(&name),
            escape(&value)
        );
    }
    out.push_str("</table>\n");
}
