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

mod exposition;

use std::fmt::Write;

pub use exposition::{openmetrics, prometheus};

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
    /// The same as a scraper reads them.
    text: String,
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
        self.subjects.push(Subject::new(labels, table.values()));
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
