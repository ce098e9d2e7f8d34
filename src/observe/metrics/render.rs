//! Metrics as people and programs read them. Pure: values in, text out.
//!
//! | form | for | names |
//! | --- | --- | --- |
//! | [`fields`], [`text`] | the log | those of the rows: `bytes_up` |
//! | [`Exposition`] | scrapers | as exported: `thalweg_written_bytes_total`, with labels |
//!
//! Exported names have the unit behind them, totals `_total` behind that; times are in
//! seconds. Lines of a family stand together, its help and type once before them
//! (OpenMetrics 1.0.0; Prometheus exposition formats 0.0.4).

mod exposition;

use std::fmt::Write;

pub use exposition::{Exposition, Form};

use super::table::{Family, Kind, Table, Unit, Value, percentile};
use exposition::labels_text;

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

/// A table that was read for some of its subjects. It keeps what it was told, so that pages of
/// megabytes can be written from it piece by piece.
#[derive(Debug)]
pub struct Readings {
    families: &'static [Family],
    /// The labels of each subject, as [`labels_text`] has them.
    subjects: Vec<String>,
    /// Those of the first subject, of the second …: one for each member of each family.
    values: Vec<Kept>,
    /// Of all distributions.
    counts: Vec<u64>,
    brief: bool,
}

/// A value that was read.
#[derive(Debug, Clone, Copy)]
enum Kept {
    /// There is nothing to tell: see [`Readings::brief`].
    Untold,
    Number(u64),
    State(&'static str),
    /// So many of the table's counts, from the first one on.
    Distribution {
        first: u32,
        buckets: u32,
        sum: Option<u64>,
    },
}

impl Readings {
    /// None yet.
    pub const fn of<T: Table>() -> Self {
        Self {
            families: T::FAMILIES,
            subjects: Vec::new(),
            values: Vec::new(),
            counts: Vec::new(),
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
    pub fn with<T: Table>(mut self, labels: &[(&'static str, &str)], table: &T) -> Self {
        self.add(labels, table);
        self
    }

    /// See [`Readings::with`].
    pub fn add<T: Table>(&mut self, labels: &[(&'static str, &str)], table: &T) {
        self.subjects.push(labels_text(labels));
        let families = self.families.iter();
        let families = families.flat_map(|it| std::iter::repeat_n(it, it.members.len()));
        for (family, value) in families.zip(table.values()) {
            let is_told = !self.brief || is_worth(family, &value);
            self.values.push(match value {
                _ if !is_told => Kept::Untold,
                Value::Number(number) => Kept::Number(number),
                Value::State(state) => Kept::State(state),
                Value::Distribution { counts, sum } => {
                    let first = self.counts.len() as u32;
                    self.counts.extend_from_slice(counts);
                    let buckets = counts.len() as u32;
                    Kept::Distribution {
                        first,
                        buckets,
                        sum,
                    }
                }
            });
        }
    }

    /// What the `subject`-th has of the `member`-th of all members.
    fn value(&self, subject: usize, member: usize) -> Option<Value<'_>> {
        let width = self.values.len() / self.subjects.len();
        Some(match self.values[subject * width + member] {
            Kept::Untold => return None,
            Kept::Number(number) => Value::Number(number),
            Kept::State(state) => Value::State(state),
            Kept::Distribution {
                first,
                buckets,
                sum,
            } => {
                let counts = &self.counts[first as usize..][..buckets as usize];
                Value::Distribution { counts, sum }
            }
        })
    }
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

/// What the kind puts behind the name.
const fn total(family: &Family) -> &'static str {
    match family.kind {
        Kind::Counter => "_total",
        Kind::Gauge | Kind::Histogram | Kind::States => "",
    }
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
