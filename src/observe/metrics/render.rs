//! Metrics as people and programs read them. Pure: values in, text out.
//!
//! | form | for | names |
//! | --- | --- | --- |
//! | [`fields`], [`text`] | the log | those of the rows: `bytes_up` |
//! | [`json`] | programs | as exported: `thalweg_written_bytes_total`, with labels |
//! | [`openmetrics`] | scrapers | likewise; `application/openmetrics-text; version=1.0.0` |
//! | [`prometheus`] | older scrapers | likewise; `text/plain; version=0.0.4` |
//!
//! Exported names have the unit behind them, totals `_total` behind that; times are in
//! seconds. Lines of a family stand together, its help and type once before them
//! (OpenMetrics 1.0.0; Prometheus exposition formats 0.0.4).

use std::fmt::Write;

use super::table::{Family, Kind, Table, Unit, Value, bound, percentile};

/// Before each exported name.
const PREFIX: &str = "thalweg_";

/// Families whose names are those of every process (the conventions of Prometheus).
const OF_PROCESS: &str = "process_";

/// What the log tells of a distribution.
const PERCENTILES: [u64; 2] = [50, 99];

/// A value as the log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// A count, bytes or microseconds.
    Number(u64),
    /// A state.
    Word(&'static str),
}

/// Tells each value by its name in the log. A distribution is told by its percentiles,
/// once there are any.
pub fn fields<T: Table>(table: &T, put: &mut dyn FnMut(&str, Field)) {
    let values = table.values();
    let families = T::FAMILIES.iter();
    let members = families.flat_map(|family| family.members.iter().map(move |it| (family, it)));
    for ((family, member), value) in members.zip(values) {
        match value {
            Value::Number(number) => put(member.key, Field::Number(number)),
            Value::State(state) => put(member.key, Field::Word(state)),
            Value::Distribution { counts, .. } => {
                let unit = match family.unit {
                    Unit::Seconds => "_us",
                    Unit::Bytes | Unit::Each => "",
                };
                for percent in PERCENTILES {
                    if let Some(value) = percentile(counts, percent) {
                        let key = format!("{}_p{percent}{unit}", member.key);
                        put(&key, Field::Number(value));
                    }
                }
            }
        }
    }
}

/// Appends ` name=value` for each value.
pub fn text<T: Table>(table: &T, out: &mut impl Write) {
    fields(table, &mut |name, field| {
        // Whoever writes into memory does not fail, and others stop by themselves.
        let _ = match field {
            Field::Number(number) => write!(out, " {name}={number}"),
            Field::Word(word) => write!(out, " {name}={word}"),
        };
    });
}

/// A subject's values, and the labels that say whose they are.
#[derive(Debug)]
pub struct Subject<'a> {
    labels: Vec<(&'static str, &'a str)>,
    values: Vec<Value<'a>>,
}

/// A table that was read for some of its subjects.
#[derive(Debug)]
pub struct Readings<'a> {
    families: &'static [Family],
    subjects: Vec<Subject<'a>>,
    brief: bool,
}

impl<'a> Readings<'a> {
    /// None yet.
    pub const fn of<T: Table>() -> Self {
        Self {
            families: T::FAMILIES,
            subjects: Vec::new(),
            brief: false,
        }
    }

    /// For thousands of subjects: of a family that is told apart by a label only those
    /// that were ever counted, of distributions only those that have anything, and of their
    /// buckets every second one, so that bounds are powers of four.
    #[must_use]
    pub const fn brief(mut self) -> Self {
        self.brief = true;
        self
    }

    /// One more subject. Two of the same labels would be the same series twice.
    #[must_use]
    pub fn with<T: Table>(mut self, labels: &[(&'static str, &'a str)], table: &'a T) -> Self {
        self.subjects.push(Subject {
            labels: labels.to_vec(),
            values: table.values(),
        });
        self
    }

    /// Each family with the samples of all subjects.
    fn families(&self) -> Vec<(&'static Family, Vec<Sample<'_>>)> {
        let mut families = Vec::with_capacity(self.families.len());
        let mut first = 0;
        for family in self.families {
            let mut samples = Vec::new();
            for subject in &self.subjects {
                let values = &subject.values[first..first + family.members.len()];
                let members = values.iter().zip(family.members);
                let told = members.filter(|(value, _)| !self.brief || is_worth(family, value));
                samples.extend(told.map(|(value, member)| {
                    let told_apart = family.label.map(|label| (label, member.label));
                    Sample {
                        labels: subject.labels.iter().copied().chain(told_apart).collect(),
                        value: *value,
                        brief: self.brief,
                    }
                }));
            }
            first += family.members.len();
            families.push((family, samples));
        }
        families
    }
}

/// A value with every label it has.
struct Sample<'a> {
    labels: Vec<(&'static str, &'a str)>,
    value: Value<'a>,
    brief: bool,
}

/// Whether there is anything to tell: see [`Readings::brief`].
fn is_worth(family: &Family, value: &Value<'_>) -> bool {
    match value {
        Value::Number(number) => *number > 0 || family.label.is_none(),
        Value::Distribution { counts, .. } => counts.iter().any(|count| *count > 0),
        Value::State(_) => true,
    }
}

/// `thalweg_written_bytes`: without what the kind puts behind it.
fn name(family: &Family) -> String {
    let unit = match family.unit {
        Unit::Each => "",
        Unit::Bytes => "_bytes",
        Unit::Seconds => "_seconds",
    };
    let prefix = if family.name.starts_with(OF_PROCESS) {
        ""
    } else {
        PREFIX
    };
    format!("{prefix}{}{unit}", family.name)
}

/// As JSON: `{"metrics": [{"name", "kind", "unit", "help", "samples": [{"labels",
/// "value"}]}]}`. A histogram's value is `{"buckets": [{"le", "count"}], "count", "sum"}`,
/// counted up; a state's is its word.
pub fn json(tables: &[Readings<'_>]) -> serde_json::Value {
    let metrics = tables.iter().flat_map(Readings::families);
    let metrics = metrics.map(|(family, samples)| {
        let samples = samples.iter().map(|sample| {
            let labels = sample.labels.iter();
            let labels = labels.map(|(key, value)| ((*key).to_owned(), (*value).into()));
            serde_json::json!({
                "labels": labels.collect::<serde_json::Map<_, _>>(),
                "value": json_value(family, sample.value),
            })
        });
        serde_json::json!({
            "name": format!("{}{}", name(family), total(family)),
            "kind": match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
                Kind::States => "states",
            },
            "unit": match family.unit {
                Unit::Each => "",
                Unit::Bytes => "bytes",
                Unit::Seconds => "seconds",
            },
            "help": family.help.trim(),
            "samples": samples.collect::<Vec<_>>(),
        })
    });
    serde_json::json!({ "metrics": metrics.collect::<Vec<_>>() })
}

fn json_value(family: &Family, value: Value<'_>) -> serde_json::Value {
    match value {
        Value::Number(number) => number.into(),
        Value::State(state) => state.into(),
        Value::Distribution { counts, sum } => {
            let scaled = |n: u64| match family.unit {
                Unit::Seconds => serde_json::json!(n as f64 / 1e6),
                Unit::Bytes | Unit::Each => n.into(),
            };
            let last = counts.len() - 1;
            let buckets = cumulated(counts).enumerate().map(|(bucket, count)| {
                let le = if bucket < last {
                    scaled(bound(bucket))
                } else {
                    "+Inf".into()
                };
                serde_json::json!({ "le": le, "count": count })
            });
            serde_json::json!({
                "buckets": buckets.collect::<Vec<_>>(),
                "count": counts.iter().sum::<u64>(),
                "sum": sum.map(scaled),
            })
        }
    }
}

/// What the kind puts behind the name.
const fn total(family: &Family) -> &'static str {
    match family.kind {
        Kind::Counter => "_total",
        Kind::Gauge | Kind::Histogram | Kind::States => "",
    }
}

/// As OpenMetrics text 1.0.0.
pub fn openmetrics(tables: &[Readings<'_>]) -> String {
    let mut out = exposition(tables, Form::OpenMetrics);
    out.push_str("# EOF\n");
    out
}

/// As Prometheus text 0.0.4.
pub fn prometheus(tables: &[Readings<'_>]) -> String {
    exposition(tables, Form::Prometheus)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    OpenMetrics,
    Prometheus,
}

fn exposition(tables: &[Readings<'_>], form: Form) -> String {
    let mut out = String::new();
    for (family, samples) in tables.iter().flat_map(Readings::families) {
        if samples.is_empty() {
            continue;
        }
        head(&mut out, family, form);
        for sample in &samples {
            write_sample(&mut out, family, sample, form);
        }
    }
    out
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

fn write_sample(out: &mut String, family: &Family, sample: &Sample<'_>, form: Form) {
    let name = name(family);
    let labels = &labels_text(&sample.labels);
    match sample.value {
        Value::Number(number) => {
            let suffix = total(family);
            line(out, (&name, suffix), labels, None, &scaled(family, number));
        }
        Value::State(now) => {
            for state in family.states {
                let is = if *state == now { "1" } else { "0" };
                // A set of states has its own name for a label.
                line(out, (&name, ""), labels, Some((&name, *state)), is);
            }
        }
        Value::Distribution { counts, sum } => {
            let last = counts.len() - 1;
            for (bucket, count) in cumulated(counts).enumerate() {
                if sample.brief && bucket % 2 == 0 && bucket < last {
                    continue;
                }
                let le = if bucket < last {
                    float(scaled(family, bound(bucket)))
                } else {
                    "+Inf".to_owned()
                };
                let le = Some(("le", le.as_str()));
                line(out, (&name, "_bucket"), labels, le, &count.to_string());
            }
            // OpenMetrics has the count only beside a sum, Prometheus always.
            if sum.is_some() || form == Form::Prometheus {
                let count = counts.iter().sum::<u64>().to_string();
                line(out, (&name, "_count"), labels, None, &count);
            }
            if let Some(sum) = sum {
                line(out, (&name, "_sum"), labels, None, &scaled(family, sum));
            }
        }
    }
}

fn line(
    out: &mut String,
    (name, suffix): (&str, &str),
    labels: &str,
    more: Option<(&str, &str)>,
    value: &str,
) {
    out.push_str(name);
    out.push_str(suffix);
    if !labels.is_empty() || more.is_some() {
        out.push('{');
        out.push_str(labels);
        if let Some((key, value)) = more {
            let lead = if labels.is_empty() { "" } else { "," };
            // Bounds and states need no escapes.
            for part in [lead, key, "=\"", value, "\""] {
                out.push_str(part);
            }
        }
        out.push('}');
    }
    out.push(' ');
    out.push_str(value);
    out.push('\n');
}

/// `forward="web",code="--"`, for all lines of a sample.
fn labels_text(labels: &[(&'static str, &str)]) -> String {
    let mut text = String::new();
    for (index, (key, value)) in labels.iter().enumerate() {
        let lead = if index == 0 { "" } else { "," };
        let _ = write!(text, "{lead}{key}=\"{}\"", escaped(value, true));
    }
    text
}

/// In the unit that is exported.
fn scaled(family: &Family, n: u64) -> String {
    match family.unit {
        Unit::Each | Unit::Bytes => n.to_string(),
        Unit::Seconds => {
            let text = format!("{}.{:06}", n / 1_000_000, n % 1_000_000);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

/// Bounds of buckets are floats also where they are whole (OpenMetrics).
fn float(number: String) -> String {
    if number.contains('.') {
        number
    } else {
        number + ".0"
    }
}

/// How many observations are in each bucket or one before it.
fn cumulated(counts: &[u64]) -> impl Iterator<Item = u64> {
    counts.iter().scan(0, |sum: &mut u64, count| {
        *sum += count;
        Some(*sum)
    })
}

/// Backslashes and line ends, and quotes where they would end something.
fn escaped(text: &str, quotes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
