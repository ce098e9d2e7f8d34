//! What was written, before any meaning: a tree in which each value knows its place,
//! whether it came from the file, from `-l`/`-r` or from `--set`.

use crate::config::report::{Report, Span};

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Node {
    pub(in crate::config) value: Value,
    pub(in crate::config) span: Span,
    /// Whether it is text from the environment, which may mean a number or a truth: there
    /// is no other way to write one of those.
    pub(in crate::config) is_expanded: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// Nothing in a configuration is a date; kept so that the error can say so.
    Date,
    Array(Vec<Node>),
    Table(Vec<KeyNode>),
}

/// `key = value`. Keys of a table are unique.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct KeyNode {
    pub(in crate::config) key: String,
    pub(in crate::config) key_span: Span,
    pub(in crate::config) node: Node,
}

impl Node {
    /// As it was written.
    pub(in crate::config) fn new(value: Value, span: Span) -> Self {
        Self {
            value,
            span,
            is_expanded: false,
        }
    }

    /// The entry of a table; `None` where there is none or this is no table.
    pub(in crate::config) fn entry(&self, key: &str) -> Option<&KeyNode> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// What kind of value this is, for an error.
    pub(in crate::config) fn kind(&self) -> &'static str {
        match &self.value {
            Value::String(_) => "a string",
            Value::Integer(_) => "a number",
            Value::Float(_) => "a fraction",
            Value::Boolean(_) => "true or false",
            Value::Date => "a date",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }
    }

    /// The place of `part`, which is part of this string; the whole string where
    /// escapes make that unclear.
    pub(in crate::config) fn part_span(&self, report: &Report, offset: usize, part: &str) -> Span {
        let text = report.text(&self.span);
        let quote = usize::from(text.starts_with(['"', '\'']));
        let start = self.span.range.start + quote + offset;
        let span = Span {
            source: self.span.source,
            range: start..start + part.len(),
        };
        if report.text(&span) == part && !part.is_empty() {
            span
        } else {
            self.span.clone()
        }
    }
}
