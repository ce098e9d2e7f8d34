//! `check =` of a pool: how servers are probed between sessions.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::kind::{Compared, Kind, Optional, Percent, choice, int, reference, time};
use super::question::{CheckKind, CheckWord, Question, kind_of_check};
use super::raw::{KeyNode, Node, TableReader, Value};
use super::report::{Fault, Report};
use super::row::{KeyChange, Pairs, Row};
use super::section::{Section, section};
use super::text::{inline, quote};
use super::units::format_duration;
use super::values;
use super::words::{Words, words};

section! {
    /// How, and how often, the servers of a pool are checked.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    pub struct Check, WrittenCheck {
        fields {
            /// What is asked of a server.
            kind: CheckKind = CheckKind::Tcp;
        }
        keys {
            /// From the start of one check to the start of the next.
            interval: Duration = INTERVAL, time(INTERVALS), Live;
            /// Instead, while a server is on its way up or down; no longer than `interval`.
            fast_interval: Option<Duration> = None, Optional(time(INTERVALS)), Live,
                shown "the interval", example "\"1s\"";
            /// A check that takes longer has failed; no longer than either interval.
            timeout: Duration = TIMEOUT, time(INTERVALS), Live,
                shown "`\"1s\"`, or the shorter interval if that is less", example "\"1s\"";
            /// Checks in a row that bring a server up.
            rise: u32 = 2, int(1..=1000), Live;
            /// Failed ones in a row that take it down.
            fall: u32 = 3, int(1..=1000), Live;
            /// By which each interval is longer or shorter at random, so that many checks do not
            /// fall together.
            jitter: u8 = 10, Percent(JITTER_MAX), Live;
            /// Sessions of a server that is down go on, or are reset.
            on_down: OnDown = OnDown::Keep, choice(), Live;
            /// Another port to check; a unix socket has none.
            port: Option<u16> = None, Optional(int(1..=65_535)), Live,
                shown "the server's", example "8080";
        }
    }
}

words! {
    /// `on_down =`.
    pub enum OnDown {
        /// They go on; the default. A check can be wrong about them.
        Keep = "keep",
        /// They are reset.
        Close = "close",
    }
}

/// Bounds and defaults; the sources are at the fields.
const INTERVAL: Duration = Duration::from_secs(2);
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(86_400);
const TIMEOUT: Duration = Duration::from_secs(1);
const JITTER_MAX: u8 = 50;
/// The names of the keys of a check that every type has.
pub(super) fn names() -> Vec<&'static str> {
    let mut names = vec!["type"];
    names.extend(Check::names());
    names
}

/// `check =` of a pool.
pub(super) struct CheckKey;

impl Kind for CheckKey {
    type Value = Option<Check>;

    fn read(&self, _key: &str, node: &Node, report: &mut Report) -> Option<Option<Check>> {
        Some(read(node, report))
    }

    fn write(&self, check: &Option<Check>) -> Option<String> {
        let Some(check) = check else {
            return Some(quote("off"));
        };
        let mut pairs = Pairs::new();
        Question::of(&check.kind).write(&mut pairs);
        check.write(&mut pairs);
        Some(inline(&pairs))
    }

    fn words(&self) -> String {
        "a type, a table as below, or `\"off\"`".to_owned()
    }

    fn schema(&self) -> Json {
        let mut words = CheckWord::WORDS
            .iter()
            .map(|(word, _)| *word)
            .collect::<Vec<_>>();
        words.push("off");
        json!({ "anyOf": [{ "enum": words }, reference("check")] })
    }

    fn table(&self) -> Option<&'static str> {
        Some("check")
    }

    fn diff(
        &self,
        change: Compared,
        old: &Option<Check>,
        new: &Option<Check>,
        out: &mut Vec<KeyChange>,
    ) {
        if let (Some(old), Some(new)) = (old, new) {
            let path = format!("{}.", change.key);
            Question::of(&old.kind).diff(&Question::of(&new.kind), &path, out);
            return old.diff(new, &path, out);
        }
        change.texts(self.write(old), self.write(new), out);
    }
}

/// The rows of a check.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = Question::rows();
    rows.extend(Check::rows());
    rows
}

/// Reads `check =`: a table, or the type alone, or `"off"`. `None` also where it is
/// wrong, which has been reported.
pub(super) fn read(node: &Node, report: &mut Report) -> Option<Check> {
    const FORM: &str = "such as check = \"tcp\", or check = { type = \"tcp\", interval = \"5s\" }";
    match &node.value {
        Value::Table(_) => read_table(node, report),
        Value::String(text) if text == "off" => None,
        _ => match values::choice(node, CheckWord::WORDS) {
            Ok(_) => read_table(&table_of_type(node), report),
            Err(fault) => {
                let message = format!("`check`: {}", fault.message);
                let remedy = fault.remedy.unwrap_or_else(|| FORM.to_owned());
                report.error(&node.span, Fault::new(message).remedy(remedy));
                None
            }
        },
    }
}

/// `{ type = "tcp" }`, of which `"tcp"` is short.
fn table_of_type(word: &Node) -> Node {
    let entry = KeyNode {
        key: "type".to_owned(),
        key_span: word.span.clone(),
        node: word.clone(),
    };
    Node::new(Value::Table(vec![entry]), word.span.clone())
}

fn read_table(node: &Node, report: &mut Report) -> Option<Check> {
    let mut table = TableReader::open(node, "`check`", report)?;
    let t = &mut table;
    let question = Question::read(t, report);
    let written = Check::read(t, report);
    let word = question.word.flatten();
    if t.get("type").is_none() {
        let fault = Fault::new("this check has no `type`");
        let remedy = "such as check = { type = \"tcp\" }; or \"exchange\", \"udp\", \"http\", \"tls\", \"command\"";
        report.consequence(&node.span, fault.remedy(remedy));
    }
    let kind = kind_of_check(t, word, question, report);
    let timeout = written.timeout;
    let mut check = Check::fill(written);
    // What is wrong has been reported; with any kind the rest is looked at, too.
    check.kind = kind.unwrap_or(CheckKind::Tcp);
    fit_times(t, &mut check, timeout, report);
    table.close(report, &[]);
    Some(check)
}

/// How `interval`, `fast_interval` and `timeout` fit together.
fn fit_times(
    t: &mut TableReader<'_>,
    check: &mut Check,
    timeout: Option<Duration>,
    report: &mut Report,
) {
    let shortest = check.fast_interval.unwrap_or(check.interval);
    let shortest = shortest.min(check.interval);
    check.timeout = timeout.unwrap_or(TIMEOUT.min(shortest));
    if let (Some(fast), Some(node)) = (check.fast_interval, t.get("fast_interval"))
        && fast > check.interval
    {
        let fault = Fault::new(format!(
            "`fast_interval`: {} is longer than the interval of {}",
            format_duration(fast),
            format_duration(check.interval)
        ));
        report.error(
            &node.span,
            fault.remedy("write a shorter one, or leave it out"),
        );
    } else if let Some(node) = t.get("timeout")
        && check.timeout > shortest
    {
        let key = if shortest < check.interval {
            "fast_interval"
        } else {
            "interval"
        };
        let fault = Fault::new(format!(
            "`timeout`: {} is longer than the {key} of {}: a check would not be over \
             when the next is due",
            format_duration(check.timeout),
            format_duration(shortest)
        ));
        let remedy = format!(
            "write timeout = \"{0}\" or less, or a longer {key}",
            format_duration(shortest)
        );
        report.error(&node.span, fault.remedy(remedy));
    }
}
