//! What every report is made of: tables of figures with units, intervals and notes.
//!
//! Pure data. `bench` and `tune` say once what their tables have; [`render`](super::render)
//! writes them for a terminal, for a page and for a README.

use crate::bench::stats::{Estimate, Verdict};
use crate::bench::units;

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes a second, as bits a second.
    BitRate,
    /// Events a second.
    Rate,
    /// Time, in nanoseconds.
    Nanoseconds,
    /// Time, in seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// 0 to 1, as a percentage.
    Share,
    /// The column's name says it.
    Plain,
}

impl Unit {
    /// A number with its unit, three digits.
    pub fn text(self, value: f64) -> String {
        match self {
            Self::BitRate => units::bit_rate(value),
            Self::Rate => units::rate(value),
            Self::Nanoseconds => units::latency(value),
            Self::Seconds => units::latency(value * 1e9),
            Self::Bytes => units::size(value),
            Self::Share => format!("{} %", units::digits(value * 100.0)),
            Self::Plain => units::digits(value),
        }
    }
}

/// What a cell holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// There is no such figure.
    Missing,
    /// A word or two, and how to take it.
    Word(String, Tone),
    /// A number without a spread.
    Number(f64, Unit),
    /// A difference, which carries its sign.
    Difference(f64, Unit),
    /// A number with its interval.
    Spread(Estimate, Unit),
    /// A quotient with its interval; with a verdict where it is a comparison.
    Ratio(Estimate, Option<Verdict>),
    /// Two that belong together, such as p50 and p99.
    Pair(Box<Value>, Box<Value>),
    /// Several comparisons, each of a named figure.
    Ratios(Vec<(&'static str, Estimate, Verdict)>),
}

impl Value {
    /// A word that is neither good nor bad.
    pub fn word(text: impl Into<String>) -> Self {
        Self::Word(text.into(), Tone::Plain)
    }

    /// A verdict as a word.
    pub fn verdict(verdict: Verdict) -> Self {
        Self::Word(verdict.name().to_owned(), Tone::of(verdict))
    }

    /// A number with its interval, or nothing.
    pub fn spread(interval: Option<Estimate>, unit: Unit) -> Self {
        interval.map_or(Self::Missing, |it| Self::Spread(it, unit))
    }

    /// A quotient, or nothing.
    pub fn ratio(ratio: Option<Estimate>) -> Self {
        ratio.map_or(Self::Missing, |it| Self::Ratio(it, None))
    }

    /// Two that belong together.
    pub fn pair(first: Self, second: Self) -> Self {
        Self::Pair(Box::new(first), Box::new(second))
    }
}

/// How to take a word or a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it stands.
    Plain,
    /// Better.
    Good,
    /// Worse.
    Bad,
    /// Neither: noise.
    Even,
    /// It limits what the figures say.
    Doubt,
    /// There are no figures.
    Failed,
}

impl Tone {
    /// Of a comparison.
    pub fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Faster => Self::Good,
            Verdict::Slower => Self::Bad,
            Verdict::Noise => Self::Even,
            Verdict::Disturbed => Self::Doubt,
        }
    }
}

/// Where a column is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// In a terminal and on the page.
    Everywhere,
    /// On the page only.
    Page,
    /// Nowhere but in the summary for a README.
    Nowhere,
}

/// One column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its head.
    pub name: String,
    /// Where it is shown.
    pub shown: Shown,
    /// What it is called in the summary for a README, if it belongs there.
    pub summary: Option<String>,
}

impl Column {
    /// One that is shown everywhere but in a summary.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            shown: Shown::Everywhere,
            summary: None,
        }
    }

    /// For the page only.
    #[must_use]
    pub fn on_page(self) -> Self {
        Self {
            shown: Shown::Page,
            ..self
        }
    }

    /// For the summary only.
    pub fn of_summary(name: impl Into<String>) -> Self {
        Self {
            name: String::new(),
            shown: Shown::Nowhere,
            summary: Some(name.into()),
        }
    }

    /// In the summary, too, by this name.
    #[must_use]
    pub fn summed_up(self, name: impl Into<String>) -> Self {
        Self {
            summary: Some(name.into()),
            ..self
        }
    }
}

/// What to know of one row, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// How to take it.
    pub tone: Tone,
    /// The words.
    pub text: String,
}

/// One row: whose it is, a value for each column, and what to know of them.
#[derive(Debug, Clone)]
pub struct TableRow {
    /// Whose.
    pub name: String,
    /// By column.
    pub values: Vec<Value>,
    /// Shown below the table, each with the row's name.
    pub notes: Vec<Note>,
}

impl TableRow {
    /// Whether there are no figures, and a note says why.
    pub fn is_failed(&self) -> bool {
        self.notes.iter().any(|note| note.tone == Tone::Failed)
    }
}

/// A table.
#[derive(Debug, Clone)]
pub struct Table {
    /// The head of the first column, which has the names of the rows.
    pub title: String,
    /// The others.
    pub columns: Vec<Column>,
    /// The rows.
    pub lines: Vec<TableRow>,
}

impl Table {
    /// One without columns yet.
    pub fn new(title: impl Into<String>, names: impl IntoIterator<Item = String>) -> Self {
        let line = |name| TableRow {
            name,
            values: Vec::new(),
            notes: Vec::new(),
        };
        Self {
            title: title.into(),
            columns: Vec::new(),
            lines: names.into_iter().map(line).collect(),
        }
    }

    /// Adds a column, with the values of `rows` in it; they are those of the names, in
    /// the same order.
    pub fn add<R>(&mut self, column: Column, rows: &[R], value: impl Fn(&R) -> Value) {
        assert_eq!(rows.len(), self.lines.len(), "a row for each name");
        self.columns.push(column);
        for (line, row) in self.lines.iter_mut().zip(rows) {
            line.values.push(value(row));
        }
    }
}
