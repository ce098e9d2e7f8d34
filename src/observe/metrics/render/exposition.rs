//! Metrics as a scraper reads them, in pieces of some [`PIECE`] bytes: thousands of subjects make
//! megabytes, every few seconds, beside sessions that want the same cores. What is the same for
//! many lines is made once: a family's names and bounds, a subject's labels.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use super::{Readings, escaped, name, total};
use crate::observe::metrics::table::{Family, Kind, Unit, Value, bound};

/// Small enough for an allocator to keep, and for a cache; and a kernel that is built without
/// preemption copies it in some microseconds.
const PIECE: usize = 32 << 10;

/// Which of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Text 1.0.0, `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
    /// Text 0.0.4, `text/plain; version=0.0.4`.
    Prometheus,
}

/// The page, in pieces that are written when they are asked for: at no time is there more of
/// it than one.
#[derive(Debug)]
pub struct Exposition {
    tables: std::vec::IntoIter<Readings>,
    form: Form,
    /// The table whose turn it is.
    table: Option<Families>,
    is_over: bool,
}

impl Exposition {
    /// Of all these tables.
    pub fn new(tables: Vec<Readings>, form: Form) -> Self {
        Self {
            tables: tables.into_iter(),
            form,
            table: None,
            is_over: false,
        }
    }
}

impl Iterator for Exposition {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if self.is_over {
            return None;
        }
        // No value's lines are as long as the rest of it.
        let mut piece = String::with_capacity(PIECE + PIECE / 4);
        loop {
            if self.table.is_none() {
                self.table = self.tables.next().map(Families::of);
            }
            let Some(table) = &mut self.table else {
                break;
            };
            if table.write(&mut piece, self.form).is_continue() {
                return Some(piece);
            }
            self.table = None;
        }
        self.is_over = true;
        if self.form == Form::OpenMetrics {
            piece.push_str("# EOF\n");
        }
        Some(piece)
    }
}

/// A table that is being written: how far it is.
#[derive(Debug)]
struct Families {
    table: Readings,
    /// The family whose turn it is, and how many members those before it have.
    family: usize,
    first: usize,
    /// The subject whose turn it is.
    subject: usize,
    /// Of this family, once it has a line.
    lines: Option<Lines>,
}

impl Families {
    const fn of(table: Readings) -> Self {
        Self {
            table,
            family: 0,
            first: 0,
            subject: 0,
            lines: None,
        }
    }

    /// Goes on until the piece is full, or breaks behind the last line.
    fn write(&mut self, out: &mut String, form: Form) -> ControlFlow<()> {
        while let Some(family) = self.table.families.get(self.family) {
            while self.subject < self.table.subjects.len() {
                if out.len() >= PIECE {
                    return ControlFlow::Continue(());
                }
                self.write_subject(out, family, form);
                self.subject += 1;
            }
            self.family += 1;
            self.first += family.members.len();
            self.subject = 0;
            self.lines = None;
        }
        ControlFlow::Break(())
    }

    fn write_subject(&mut self, out: &mut String, family: &'static Family, form: Form) {
        let table = &self.table;
        for member in 0..family.members.len() {
            let Some(value) = table.value(self.subject, self.first + member) else {
                continue;
            };
            let lines = self.lines.get_or_insert_with(|| {
                head(out, family, form);
                Lines::of(family, form, table.brief)
            });
            lines.write(out, &table.subjects[self.subject], member, value);
        }
    }
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
#[derive(Debug)]
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
