//! The kinds of values: how each is read, written, compared, and described in words
//! and as JSON Schema.

use std::fmt::Display;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::raw::Node;
use super::report::{Fault, Report};
use super::row::{Applies, KeyChange, Row};
use super::text::quote;
use super::units::{format_duration, format_percent, format_rate, format_size, format_timeout};
use super::values;
use super::words::Words;

/// What values a key takes.
pub(super) trait Kind {
    type Value;

    /// `None` for a wrong one, which has been reported with the name of the key.
    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<Self::Value>;

    /// As TOML; `None` for a value that is written by leaving the key out.
    fn write(&self, value: &Self::Value) -> Option<String>;

    /// For people: `size, 4KiB to 16MiB`.
    fn words(&self) -> String;

    /// For machines.
    fn schema(&self) -> Json;

    /// The table of keys that a value is, by its name among the sections.
    fn table(&self) -> Option<&'static str> {
        None
    }

    /// Adds what differs: the key, or the keys below it.
    fn diff(
        &self,
        change: Compared,
        old: &Self::Value,
        new: &Self::Value,
        out: &mut Vec<KeyChange>,
    ) {
        change.texts(self.write(old), self.write(new), out);
    }
}

/// A key that is compared.
pub(super) struct Compared {
    pub(super) key: String,
    pub(super) effect: Applies,
}

impl Compared {
    /// The change, if there is one.
    pub(super) fn texts(self, old: Option<String>, new: Option<String>, out: &mut Vec<KeyChange>) {
        if old != new {
            let Self { key, effect } = self;
            out.push(KeyChange {
                key,
                old,
                new,
                effect,
            });
        }
    }
}

/// The row of a key of this kind.
pub(super) fn row_of<K: Kind>(
    key: &'static str,
    kind: &K,
    default: &K::Value,
    doc: &'static str,
    effect: Applies,
) -> Row {
    let default = kind.write(default);
    Row {
        key,
        words: kind.words(),
        has_default: default.is_some(),
        default: default.unwrap_or_default(),
        doc,
        effect,
        example: None,
        schema: kind.schema(),
        table: kind.table(),
        called: None,
    }
}

/// A value that its text alone makes right or wrong.
fn checked<T>(key: &str, node: &Node, report: &mut Report, value: Result<T, Fault>) -> Option<T> {
    value
        .map_err(|fault| report.error(&node.span, fault.of_key(key)))
        .ok()
}

/// `true` or `false`.
pub(super) struct Switch;

impl Kind for Switch {
    type Value = bool;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<bool> {
        checked(key, node, report, values::boolean(node))
    }

    fn write(&self, value: &bool) -> Option<String> {
        Some(value.to_string())
    }

    fn words(&self) -> String {
        "true, false".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "boolean" })
    }
}

/// A whole number within a range.
pub(super) struct Int<T> {
    range: RangeInclusive<i64>,
    of: PhantomData<T>,
}

pub(super) fn int<T>(range: RangeInclusive<i64>) -> Int<T> {
    let of = PhantomData;
    Int { range, of }
}

impl<T: TryFrom<i64> + Display> Kind for Int<T> {
    type Value = T;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<T> {
        let value = values::integer(node, self.range.clone());
        checked(key, node, report, value)
    }

    fn write(&self, value: &T) -> Option<String> {
        Some(value.to_string())
    }

    fn words(&self) -> String {
        // Where the range is that of the type it says nothing.
        if *self.range.end() >= i64::from(i32::MAX) {
            return "number".to_owned();
        }
        format!("{} to {}", self.range.start(), self.range.end())
    }

    fn schema(&self) -> Json {
        json!({ "type": "integer", "minimum": self.range.start(), "maximum": self.range.end() })
    }
}

/// Bytes within a range.
pub(super) struct Size<T> {
    range: RangeInclusive<u64>,
    of: PhantomData<T>,
}

pub(super) fn size<T>(range: RangeInclusive<u64>) -> Size<T> {
    let of = PhantomData;
    Size { range, of }
}

impl<T: TryFrom<u64> + Into<u64> + Copy> Kind for Size<T> {
    type Value = T;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<T> {
        checked(key, node, report, values::size(node, self.range.clone()))
    }

    fn write(&self, value: &T) -> Option<String> {
        Some(quote(&format_size((*value).into())))
    }

    fn words(&self) -> String {
        let (low, high) = (*self.range.start(), *self.range.end());
        let (least, most) = (format_size(low), format_size(high));
        // Beyond these no range is meant to be met.
        match (low > 1, high < 1 << 31) {
            (true, true) => format!("size, {least} to {most}"),
            (true, false) => format!("size, from {least}"),
            (false, true) => format!("size up to {most}"),
            (false, false) => "size".to_owned(),
        }
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [
            { "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?([KMGT]iB|[kKMGT]?B)?$" },
            { "type": "integer", "minimum": self.range.start(), "maximum": self.range.end() },
        ]})
    }
}

/// Bytes a second, more than none.
pub(super) struct Rate;

impl Kind for Rate {
    type Value = u64;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<u64> {
        checked(key, node, report, values::rate(node))
    }

    fn write(&self, value: &u64) -> Option<String> {
        Some(quote(&format_rate(*value)))
    }

    fn words(&self) -> String {
        "rate".to_owned()
    }

    fn schema(&self) -> Json {
        json!({
            "type": "string",
            "pattern": r"^[0-9]+(\.[0-9]+)?([kKMGT]?bit(/s)?|([KMGT]i|[kKMGT])?B/s)$",
        })
    }
}

/// A duration within a range, in steps of what it is used for.
pub(super) struct Time {
    range: RangeInclusive<Duration>,
    step: Duration,
}

/// A duration as exact as it can be written.
pub(super) fn time(range: RangeInclusive<Duration>) -> Time {
    time_in_steps(range, Duration::from_micros(1))
}

pub(super) fn time_in_steps(range: RangeInclusive<Duration>, step: Duration) -> Time {
    Time { range, step }
}

const DURATION_PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(d|h|m|s|ms|us|µs))+$";

impl Kind for Time {
    type Value = Duration;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<Duration> {
        let value = values::duration(node, self.range.clone(), self.step);
        checked(key, node, report, value)
    }

    fn write(&self, value: &Duration) -> Option<String> {
        Some(quote(&format_duration(*value)))
    }

    fn words(&self) -> String {
        let (low, high) = (*self.range.start(), *self.range.end());
        let (least, most) = (format_duration(low), format_duration(high));
        let range = match (low.is_zero(), high <= Duration::from_secs(7 * 86_400)) {
            (true, true) => format!(" up to {most}"),
            (false, true) => format!(", {least} to {most}"),
            // A range that is not meant to be met.
            (_, false) => String::new(),
        };
        match self.step.as_micros() {
            1 => format!("duration{range}"),
            _ => format!("duration{range}, steps of {}", format_duration(self.step)),
        }
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": DURATION_PATTERN })
    }
}

/// A duration up to a year, or never.
pub(super) struct Timeout;

impl Kind for Timeout {
    type Value = Duration;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<Duration> {
        checked(key, node, report, values::timeout(node))
    }

    fn write(&self, value: &Duration) -> Option<String> {
        Some(quote(&format_timeout(*value)))
    }

    fn words(&self) -> String {
        "timeout".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [
            { "type": "string", "pattern": DURATION_PATTERN },
            { "enum": ["off", "0", 0] },
        ]})
    }
}

/// Whole percents up to a limit.
pub(super) struct Percent(pub(super) u8);

impl Kind for Percent {
    type Value = u8;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<u8> {
        checked(key, node, report, values::percent(node, self.0))
    }

    fn write(&self, value: &u8) -> Option<String> {
        Some(quote(&format_percent(*value)))
    }

    fn words(&self) -> String {
        format!("percentage up to {}%", self.0)
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+ ?%$" })
    }
}

/// One of several words.
pub(super) struct OneOf<T>(PhantomData<T>);

pub(super) fn choice<T>() -> OneOf<T> {
    OneOf(PhantomData)
}

impl<T: Words> Kind for OneOf<T> {
    type Value = T;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<T> {
        checked(key, node, report, values::choice(node, T::WORDS))
    }

    fn write(&self, value: &T) -> Option<String> {
        Some(quote(value.word()))
    }

    fn words(&self) -> String {
        let words = T::WORDS.iter().map(|(word, _)| format!("`\"{word}\"`"));
        words.collect::<Vec<_>>().join(", ")
    }

    fn schema(&self) -> Json {
        json!({ "enum": T::WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>() })
    }
}

/// Connections at the most, or `"auto"`.
pub(super) struct Limit;

impl Kind for Limit {
    type Value = Option<u32>;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<Option<u32>> {
        checked(key, node, report, values::connections(node))
    }

    fn write(&self, value: &Option<u32>) -> Option<String> {
        Some(value.map_or_else(|| quote("auto"), |limit| limit.to_string()))
    }

    fn words(&self) -> String {
        "limit".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [
            { "enum": ["auto"] },
            { "type": "integer", "minimum": 1, "maximum": u32::MAX },
        ]})
    }
}

/// A kind of its own: a key, or a few, that nothing else is like.
pub(super) struct Special<T> {
    pub(super) read: fn(&Node) -> Result<T, Fault>,
    pub(super) write: fn(&T) -> String,
    pub(super) words: &'static str,
    pub(super) schema: fn() -> Json,
}

impl<T> Kind for Special<T> {
    type Value = T;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<T> {
        checked(key, node, report, (self.read)(node))
    }

    fn write(&self, value: &T) -> Option<String> {
        Some((self.write)(value))
    }

    fn words(&self) -> String {
        self.words.to_owned()
    }

    fn schema(&self) -> Json {
        (self.schema)()
    }
}

/// The mode of a file, in octal digits as chmod(1) has it.
pub(super) fn file_mode() -> Special<u32> {
    Special {
        read: |node| {
            let text = values::string(node)?;
            let digits = matches!(text.len(), 3 | 4) && text.bytes().all(|b| b.is_ascii_digit());
            let mode = digits.then(|| u32::from_str_radix(text, 8).ok()).flatten();
            match mode {
                Some(mode) if mode <= 0o777 && mode & 0o200 != 0 => Ok(mode),
                Some(mode) if mode <= 0o777 => Err(Fault::new(
                    "a file with this mode could not be written by its owner",
                )
                .remedy("such as \"0600\", or \"0640\" to let its group read")),
                _ => {
                    let short: String = text.chars().take(20).collect();
                    let fault = Fault::new(format!("`{}` is not a mode", short.escape_debug()));
                    Err(fault.remedy("write octal digits, such as \"0600\" or \"0640\""))
                }
            }
        },
        write: |mode| quote(&format!("{mode:04o}")),
        words: "octal digits in quotes",
        schema: || json!({ "type": "string", "pattern": "^0?[0-7]{3}$" }),
    }
}

/// As [`Special`], for a value with several parts, each with a place of its own.
pub(super) struct Composite<T> {
    pub(super) read: fn(&str, &Node, &mut Report) -> Option<T>,
    /// `None` for a value that is written by leaving the key out.
    pub(super) write: fn(&T) -> Option<String>,
    pub(super) words: &'static str,
    pub(super) schema: fn() -> Json,
}

impl<T> Kind for Composite<T> {
    type Value = T;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<T> {
        (self.read)(key, node, report)
    }

    fn write(&self, value: &T) -> Option<String> {
        (self.write)(value)
    }

    fn words(&self) -> String {
        self.words.to_owned()
    }

    fn schema(&self) -> Json {
        (self.schema)()
    }
}

/// A value that may be left out.
pub(super) struct Optional<K>(pub(super) K);

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<Self::Value> {
        self.0.read(key, node, report).map(Some)
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        self.0.write(value.as_ref()?)
    }

    fn words(&self) -> String {
        self.0.words()
    }

    fn schema(&self) -> Json {
        self.0.schema()
    }

    fn table(&self) -> Option<&'static str> {
        self.0.table()
    }

    fn diff(
        &self,
        change: Compared,
        old: &Self::Value,
        new: &Self::Value,
        out: &mut Vec<KeyChange>,
    ) {
        match (old, new) {
            (Some(old), Some(new)) => self.0.diff(change, old, new, out),
            _ => change.texts(self.write(old), self.write(new), out),
        }
    }
}

/// A kind in the place of another value that stands for its own.
pub(super) struct As<K: Kind, T> {
    pub(super) kind: K,
    pub(super) wrap: fn(K::Value) -> T,
    pub(super) unwrap: fn(&T) -> Option<K::Value>,
}

impl<K: Kind, T> Kind for As<K, T> {
    type Value = T;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<T> {
        self.kind.read(key, node, report).map(self.wrap)
    }

    fn write(&self, value: &T) -> Option<String> {
        self.kind.write(&(self.unwrap)(value)?)
    }

    fn words(&self) -> String {
        self.kind.words()
    }

    fn schema(&self) -> Json {
        self.kind.schema()
    }

    fn table(&self) -> Option<&'static str> {
        self.kind.table()
    }
}

/// The schema of a section by its name.
pub(super) fn reference(name: &str) -> Json {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// The schema of one or several of something.
pub(super) fn one_or_list(item: &Json) -> Json {
    json!({ "anyOf": [item, { "type": "array", "items": item }] })
}

/// The schema of a text.
pub(super) fn text_schema() -> Json {
    json!({ "type": "string" })
}
