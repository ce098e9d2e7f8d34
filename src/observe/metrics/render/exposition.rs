//! Metrics as a scraper reads them, in pieces of [`PIECE`] bytes: thousands of subjects make
//! megabytes, every few seconds, beside sessions that want the same cores. What is the same for
//! many lines is made once: a family's names and bounds, a subject's labels.

use std::fmt::Write as _;

use super::{Readings, Subject, escaped, is_worth, name, total};
use crate::observe::metrics::table::{Family, Kind, Unit, Value, bound};

/// Small enough for an allocator to keep, and for a cache.
const PIECE: usize = 64 << 10;

/// As OpenMetrics text 1.0.0.
pub fn openmetrics(tables: &[Readings<'_>]) -> Vec<String> {
    let mut page = exposition(tables, Form::OpenMetrics);
    page.text().push_str("# EOF\n");
    page.0
}

/// As Prometheus text 0.0.4.
pub fn prometheus(tables: &[Readings<'_>]) -> Vec<String> {
    exposition(tables, Form::Prometheus).0
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    OpenMetrics,
    Prometheus,
}

/// Its pieces.
struct Page(Vec<String>);

impl Page {
    /// Where the next lines go.
    fn text(&mut self) -> &mut String {
        let is_full = |it: &String| it.len() >= PIECE;
        if self.0.last().is_none_or(is_full) {
            // No line of any family is as long as the rest of it.
            self.0.push(String::with_capacity(PIECE + PIECE / 8));
        }
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
}

fn exposition(tables: &[Readings<'_>], form: Form) -> Page {
    let mut page = Page(Vec::new());
    for table in tables {
        let mut first = 0;
        for family in table.families {
            let end = first + family.members.len();
            let lines = Lines::of(family, form, table.brief);
            let mut is_told = false;
            for subject in &table.subjects {
                for (member, value) in subject.values[first..end].iter().enumerate() {
                    if table.brief && !is_worth(family, value) {
                        continue;
                    }
                    let out = page.text();
                    if !std::mem::replace(&mut is_told, true) {
                        head(out, family, form);
                    }
                    lines.write(out, &subject.text, member, *value);
                }
            }
            first = end;
        }
    }
    page
}

/// TYPE, UNIT and HELP. OpenMetrics names the family, Prometheus the samples.
fn head(out: &mut String, family: &Family, form: Form) {
    let mut name = name(family);
    let kind = match (family.kind, form) {
        (Kind::Counter, _) => "counter",
        (Kind::Histogram, _) => "histogram",
        (Kind::States, Form::OpenMetrics) => "stateset",
        (Kind::Gauge, _) | (Kind::States, Form::Prometheus) => "gauge",
    };
    let unit = match family.unit {
        Unit::Each => None,
        Unit::Bytes => Some("bytes"),
        Unit::Seconds => Some("seconds"),
    };
    if form == Form::Prometheus {
        name.push_str(total(family));
    }
    let help = escaped(family.help.trim(), form == Form::OpenMetrics);
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# TYPE {name} {kind}");
    if let (Form::OpenMetrics, Some(unit)) = (form, unit) {
        let _ = writeln!(out, "# UNIT {name} {unit}");
    }
    let _ = writeln!(out, "# HELP {name} {help}");
}

/// What the lines of a family have in common.
struct Lines {
    family: &'static Family,
    form: Form,
    name: String,
    /// `,cause="reset"`, by member; none if there is but one.
    members: Vec<String>,
    /// Likewise, by state.
    states: Vec<String>,
    /// `,le="0.5"`, by bucket; `None`: it is not told.
    bounds: Vec<Option<String>>,
}

impl Lines {
    fn of(family: &'static Family, form: Form, brief: bool) -> Self {
        let bounds = |bucket: usize| {
            let is_told = !(brief && bucket.is_multiple_of(2));
            is_told.then(|| {
                let mut text = ",le=\"".to_owned();
                scaled(&mut text, family, bound(bucket));
                // Bounds of buckets are floats also where they are whole (OpenMetrics).
                text.push_str(if text.contains('.') { "\"" } else { ".0\"" });
                text
            })
        };
        let bounds = match family.kind {
            // No distribution has more.
            Kind::Histogram => (0..63).map(bounds).collect(),
            Kind::Counter | Kind::Gauge | Kind::States => Vec::new(),
        };
        let labels = family.label.into_iter().flat_map(|label| {
            let members = family.members.iter();
            members.map(move |member| labels_text(&[(label, member.label)]))
        });
        Self {
            family,
            form,
            name: name(family),
            members: labels.collect(),
            // A set of states has its own name for a label.
            states: family
                .states
                .iter()
                .map(|state| format!(",{}=\"{state}\"", name(family)))
                .collect(),
            bounds,
        }
    }

    /// The lines of one value.
    fn write(&self, out: &mut String, subject: &str, member: usize, value: Value<'_>) {
        let family = self.family;
        let member = self.members.get(member).map_or("", String::as_str);
        let begin = |out: &mut String, suffix: &str, more: &str| {
            out.push_str(&self.name);
            out.push_str(suffix);
            // Each has a comma before it, which is a bracket for the first.
            let mut is_open = false;
            for labels in [subject, member, more] {
                if let Some(first) = labels.strip_prefix(',') {
                    out.push(if is_open { ',' } else { '{' });
                    out.push_str(first);
                    is_open = true;
                }
            }
            out.push_str(if is_open { "} " } else { " " });
        };
        match value {
            Value::Number(number) => {
                begin(out, total(family), "");
                scaled(out, family, number);
                out.push('\n');
            }
            Value::State(now) => {
                for (state, label) in family.states.iter().zip(&self.states) {
                    begin(out, "", label);
                    out.push_str(if *state == now { "1\n" } else { "0\n" });
                }
            }
            Value::Distribution { counts, sum } => {
                let last = counts.len() - 1;
                let mut seen = 0;
                for (bucket, count) in counts.iter().enumerate() {
                    seen += count;
                    let le = match self.bounds.get(bucket).filter(|_| bucket < last) {
                        Some(Some(bound)) => bound,
                        Some(None) => continue,
                        None => ",le=\"+Inf\"",
                    };
                    begin(out, "_bucket", le);
                    whole(out, seen);
                    out.push('\n');
                }
                // OpenMetrics has the count only beside a sum, Prometheus always.
                if sum.is_some() || self.form == Form::Prometheus {
                    begin(out, "_count", "");
                    whole(out, seen);
                    out.push('\n');
                }
                if let Some(sum) = sum {
                    begin(out, "_sum", "");
                    scaled(out, family, sum);
                    out.push('\n');
                }
            }
        }
    }
}

/// `,forward="web",code="--"`: each with a comma before it.
pub(super) fn labels_text(labels: &[(&'static str, &str)]) -> String {
    let len = labels
        .iter()
        .map(|(key, value)| key.len() + value.len() + 5);
    let mut text = String::with_capacity(len.sum());
    for (key, value) in labels {
        for part in [",", key, "=\""] {
            text.push_str(part);
        }
        if value.contains(['\\', '\n', '"']) {
            text.push_str(&escaped(value, true));
        } else {
            text.push_str(value);
        }
        text.push('"');
    }
    text
}

/// In the unit that is exported.
fn scaled(out: &mut String, family: &Family, n: u64) {
    whole(
        out,
        match family.unit {
            Unit::Each | Unit::Bytes => return whole(out, n),
            Unit::Seconds => n / 1_000_000,
        },
    );
    let micros = n % 1_000_000;
    if micros > 0 {
        let _ = write!(out, ".{micros:06}");
        out.truncate(out.trim_end_matches('0').len());
    }
}

/// A number; most are small.
fn whole(out: &mut String, mut n: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend(digits[at..].iter().map(|it| char::from(*it)));
}

impl<'a> Subject<'a> {
    pub(super) fn new(labels: &[(&'static str, &'a str)], values: Vec<Value<'a>>) -> Self {
        Self {
            text: labels_text(labels),
            labels: labels.to_vec(),
            values,
        }
    }
}
