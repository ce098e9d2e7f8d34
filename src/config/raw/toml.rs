//! TOML to the tree, going on behind a syntax error so that every error of a file
//! is reported in one run.
//!
//! The parser stops at its first error. Here the statement it lies in is blanked
//! out and the text is parsed again, a bounded number of times. Blanking keeps
//! every byte offset, so places stay right.

use std::ops::Range;

use toml_edit::{Document, Item, Table, TableLike, TomlError};

use super::node::{KeyNode, Node, Value};
use crate::config::report::{Fault, Report, SourceId, Span};

/// Syntax errors looked for in one file.
const ATTEMPTS: usize = 64;

/// Bytes parsed again behind errors, all attempts together: a log of megabytes that
/// was taken for a configuration must not be parsed dozens of times.
const BYTES_AGAIN: usize = 16 << 20;

/// Reads a source as TOML. What could not be read is reported and left out.
pub(in crate::config) fn parse_file(report: &mut Report, source: SourceId, text: &str) -> Node {
    let root = match readable_part(report, source, text) {
        Some(document) => table_value(source, document.as_table(), 0..0),
        None => Value::Table(Vec::new()),
    };
    Node::new(
        root,
        Span {
            source,
            range: 0..0,
        },
    )
}

fn readable_part(report: &mut Report, source: SourceId, text: &str) -> Option<Document<String>> {
    let mut text = text.to_owned();
    let mut last: Option<(String, Range<usize>)> = None;
    let attempts = ATTEMPTS.min(2 + BYTES_AGAIN / text.len().max(1));
    for _ in 0..attempts {
        let error = match Document::parse(text.clone()) {
            Ok(document) => return Some(document),
            Err(error) => error,
        };
        report.mark_damaged();
        let range = error.span().unwrap_or(text.len()..text.len());
        let this = (error.message().to_owned(), range.clone());
        // An unclosed string shows at the end of the text until its start is gone.
        if last.as_ref() != Some(&this) {
            let span = Span {
                source,
                range: range.clone(),
            };
            report.error(&span, explain(&error, &text, &range));
        }
        last = Some(this);
        let lines = damaged_lines(&text, range.start, error.message())?;
        blank(&mut text, lines);
    }
    let end = Span {
        source,
        range: text.len()..text.len(),
    };
    report.error(
        &end,
        Fault::new(format!("there are more than {attempts} errors of syntax"))
            .remedy("is this a TOML file?"),
    );
    None
}

/// The parser's message in the words of someone who edits a configuration.
fn explain(error: &TomlError, text: &str, range: &Range<usize>) -> Fault {
    let found = text.get(range.clone()).unwrap_or_default();
    let message = error.message();
    if let Some(fault) = unquoted(text, range.start) {
        return fault;
    }
    if message.starts_with("string values must be quoted") {
        return match found.trim() {
            "" => Fault::new("the value after `=` is missing"),
            word => Fault::new("this value needs quotes").remedy(format!("write \"{word}\"")),
        };
    }
    if message.starts_with("duplicate key") {
        let key: String = text
            .get(range.start..)
            .unwrap_or_default()
            .chars()
            .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
            .collect();
        let fault = Fault::new(format!("`{key}` is given twice"));
        return match key.as_str() {
            "forward" => fault.remedy("start each forward with `[[forward]]`, two brackets"),
            _ => fault.remedy("keep one of the two"),
        };
    }
    if message.starts_with("key with no value") {
        return Fault::new("a key without `= value`")
            .remedy("write `key = value`, or `[table]` in brackets");
    }
    if message.starts_with("integer number overflowed") {
        return Fault::new("this number is too large");
    }
    if message.contains("recursion limit") || message.contains("max recursion depth") {
        return Fault::new("this is nested too deeply");
    }
    let fault = Fault::new(message);
    let line_start = text[..range.start.min(text.len())].rfind('\n').unwrap_or(0);
    match text.get(line_start..range.start) {
        Some(before) if before.trim().is_empty() && is_cut_short_above(message) => {
            fault.remedy("is a list or a table above not closed by `]` or `}`?")
        }
        _ => fault,
    }
}

/// Quotes that a word processor or a web page made of straight ones.
const TYPOGRAPHIC: [char; 9] = ['“', '”', '„', '‟', '‘', '’', '‚', '‛', '″'];

/// A value that lacks its quotes, whatever the parser took the beginning of it for: an
/// address looks like a number with too many dots, an IPv6 address like a list.
fn unquoted(text: &str, offset: usize) -> Option<Fault> {
    let value = value_at(text, offset)?;
    let straight = value.trim_matches(TYPOGRAPHIC);
    if straight != value {
        let fault = Fault::new("these are typographic quotes, which TOML does not know");
        return Some(fault.remedy(format!("write straight ones: \"{straight}\"")));
    }
    let address = |text: &str| {
        let ports = text.rsplit(':').next().unwrap_or_default();
        text.starts_with(|c: char| c.is_ascii_digit() || c == '[' || c == ':')
            && text.contains(['.', ':'])
            && !ports.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".:[]%-/".contains(c))
    };
    address(value).then(|| {
        // Of an IPv6 address in a list the bracket was taken for the list's.
        let bracket = if value.contains(']') && !value.starts_with('[') {
            "["
        } else {
            ""
        };
        let fault = Fault::new("this value needs quotes");
        fault.remedy(format!("write \"{bracket}{value}\""))
    })
}

/// The bare value that `offset` lies in: behind `=`, or an item of a list that begins on
/// the same line.
fn value_at(text: &str, offset: usize) -> Option<&str> {
    let start = text.get(..offset)?.rfind('\n').map_or(0, |at| at + 1);
    let line = text[start..].lines().next()?;
    let at = offset - start;
    let equals = line.find('=').filter(|it| *it < at || line.len() <= at)?;
    let rest = &line[equals + 1..];
    let rest = rest.split('#').next()?;
    // The whole of it, if it is an IPv6 address or a list of one line.
    let whole = rest.trim();
    if let Some(end) = whole.find("]:") {
        let port = whole[end + 2..].trim_start_matches(|c: char| c.is_ascii_digit() || c == '-');
        if whole.starts_with('[') && port.is_empty() {
            return Some(whole);
        }
    }
    let mut begin = equals + 1;
    for part in rest.split_inclusive(['[', ',', '{']) {
        let end = begin + part.len();
        // Behind a key of an inline table.
        let item = part.trim_end_matches([',', ']', '}', '[', '{']);
        let item = item.rsplit('=').next().unwrap_or(item).trim();
        let item = item.trim_end_matches([',', ']', '}']).trim();
        if end > at && !item.is_empty() {
            return (!item.starts_with(['"', '\''])).then_some(item);
        }
        begin = end;
    }
    None
}

/// The lines of the statement that the error at `offset` belongs to; `None` when
/// nothing is left to blank.
fn damaged_lines(text: &str, offset: usize, message: &str) -> Option<Range<usize>> {
    let lines = line_ranges(text);
    let is_blank = |index: usize| text[lines[index].clone()].trim().is_empty();
    let at = lines.partition_point(|line| line.start <= offset).max(1) - 1;
    let mut last = at;
    let text_start = lines[at].start + leading_space(&text[lines[at].clone()]);
    if at > 0 && offset <= text_start && is_cut_short_above(message) {
        last = at - 1;
    }
    let mut first = (0..=last).rev().find(|index| !is_blank(*index));
    if first.is_none() {
        // Only what follows is left.
        first = (at..lines.len()).find(|index| !is_blank(*index));
        last = first?;
    }
    let mut first = first?;
    while first > 0 && !is_statement(&text[lines[first].clone()]) {
        first -= 1;
    }
    // Keys under a header that cannot be read belong to no table.
    if is_header(&text[lines[first].clone()]) {
        while last + 1 < lines.len() && !is_header(&text[lines[last + 1].clone()]) {
            last += 1;
        }
    }
    Some(lines[first].start..lines[last].end)
}

/// Whether the parser found out only where the next statement begins.
fn is_cut_short_above(message: &str) -> bool {
    message.starts_with("missing comma") || message.starts_with("unclosed")
}

fn leading_space(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn line_ranges(text: &str) -> Vec<Range<usize>> {
    let mut start = 0;
    text.split_inclusive('\n')
        .map(|line| {
            let range = start..start + line.len();
            start = range.end;
            range
        })
        .chain((text.is_empty() || text.ends_with('\n')).then_some(text.len()..text.len()))
        .collect()
}

fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

/// Whether a line looks like the start of `key = value` or a header.
fn is_statement(line: &str) -> bool {
    let key_char = |c: char| c.is_alphanumeric() || "_-.\"' \t".contains(c);
    is_header(line)
        || line
            .split_once('=')
            .is_some_and(|(key, _)| !key.trim().is_empty() && key.chars().all(key_char))
}

/// Overwrites lines with spaces, byte for byte; line ends stay.
fn blank(text: &mut String, range: Range<usize>) {
    let spaces: String = text[range.clone()]
        .bytes()
        .map(|byte| match byte {
            b'\n' => '\n',
            _ => ' ',
        })
        .collect();
    text.replace_range(range, &spaces);
}

/// A TOML table of any spelling (header, inline, dotted) as a value. `place` stands
/// in for what has no place of its own.
pub(super) fn table_value(source: SourceId, table: &Table, place: Range<usize>) -> Value {
    table_like(source, table, &place)
}

fn table_like(source: SourceId, table: &dyn TableLike, place: &Range<usize>) -> Value {
    let entries = table
        .iter()
        .map(|(name, item)| {
            let key = table.key(name).and_then(toml_edit::Key::span);
            let key = key.unwrap_or(place.clone());
            KeyNode {
                key: name.to_owned(),
                node: node(source, item, &key),
                key_span: Span { source, range: key },
            }
        })
        .collect();
    Value::Table(entries)
}

/// Recursion is bounded by the parser, which refuses to nest deeper than 80.
fn node(source: SourceId, item: &Item, place: &Range<usize>) -> Node {
    let range = item.span().unwrap_or(place.clone());
    let value = match item {
        Item::None => Value::Table(Vec::new()),
        Item::Value(value) => plain_value(source, value, &range),
        Item::Table(table) => table_like(source, table, &range),
        Item::ArrayOfTables(tables) => Value::Array(
            tables
                .iter()
                .map(|table| {
                    let range = table.span().unwrap_or(range.clone());
                    Node::new(table_like(source, table, &range), Span { source, range })
                })
                .collect(),
        ),
    };
    Node::new(value, Span { source, range })
}

fn plain_value(source: SourceId, value: &toml_edit::Value, place: &Range<usize>) -> Value {
    match value {
        toml_edit::Value::String(text) => Value::String(text.value().clone()),
        toml_edit::Value::Integer(number) => Value::Integer(*number.value()),
        toml_edit::Value::Float(number) => Value::Float(*number.value()),
        toml_edit::Value::Boolean(truth) => Value::Boolean(*truth.value()),
        toml_edit::Value::Datetime(_) => Value::Date,
        toml_edit::Value::Array(array) => Value::Array(
            array
                .iter()
                .map(|value| {
                    let range = value.span().unwrap_or(place.clone());
                    Node::new(plain_value(source, value, &range), Span { source, range })
                })
                .collect(),
        ),
        toml_edit::Value::InlineTable(table) => table_like(source, table, place),
    }
}
