//! `check =` of a pool: how servers are probed between sessions.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::kind::{
    Compared, Kind, Optional, Percent, Special, choice, int, reference, text_schema, time,
};
use super::raw::{KeyNode, Node, TableReader, Value};
use super::report::{Fault, Report};
use super::row::{KeyChange, Pairs, Row};
use super::section::{Section, section};
use super::text::{inline, quote};
use super::units::format_duration;
use super::values;
use super::words::{Words, words};
use crate::proto::host;

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

section! {
    /// The type of a check and the keys that not every type has.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(super) struct Question, WrittenQuestion {
        keys {
            /// What is asked of a server; the types are below.
            word as "type": Option<CheckWord> = None, Optional(choice()), Live,
                shown "required", example "\"http\"";
            /// exchange: what is sent first.
            send: Option<Vec<u8>> = None, Optional(special_bytes(bytes)), Live,
                shown "nothing", example "# \"PING\\r\\n\"";
            /// exchange: how the answer starts.
            expect: Option<Vec<u8>> = None, Optional(special_bytes(expected)), Live,
                shown "required", example "# \"+PONG\"";
            /// http: the path asked for.
            path: Option<String> = None, Optional(special_text(path, "text")), Live,
                shown "`\"/\"`", example "\"/health\"";
            /// http: the `Host` header.
            host: Option<String> = None, Optional(special_text(host, "text")), Live,
                shown "the server's address", example "\"a.example\"";
            /// http: statuses that are healthy.
            status: Option<Statuses> = None, Optional(special_statuses()), Live,
                shown "`\"200-399\"`", example "\"200-399\"";
            /// tls: the name to ask for (SNI).
            server_name: Option<String> = None,
                Optional(special_text(server_name, "host name")), Live,
                shown "the server's name", example "# \"www.example.com\"";
            /// command: an absolute path and arguments; no shell is between.
            command: Option<Vec<String>> = None, Optional(special_command()), Live,
                shown "required", example "# [\"/usr/local/bin/probe\", \"-q\"]";
        }
    }
}

/// Statuses that are healthy.
type Statuses = Vec<RangeInclusive<u16>>;

/// What is asked of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CheckKind {
    /// To accept a connection.
    Tcp,
    /// To answer with bytes.
    Exchange {
        /// What is sent first; may be empty. At most 1 KiB, as is `expect`.
        send: Vec<u8>,
        /// What the answer starts with; never empty.
        expect: Vec<u8>,
    },
    /// To answer an HTTP/1.1 GET, without TLS.
    Http {
        /// The path asked for, `/` by default; starts with a slash.
        path: String,
        /// The `Host` header; `None`, the default: the server's address.
        host: Option<String>,
        /// Statuses that are healthy, each within 100 to 599; 200 to 399 by
        /// default. Never empty.
        statuses: Vec<RangeInclusive<u16>>,
    },
    /// To start a TLS handshake: a ServerHello in answer to a ClientHello. The
    /// certificate is not checked.
    Tls {
        /// The name to ask for (SNI); `None`, the default: the server's name, and
        /// none for an IP address (RFC 6066, section 3).
        server_name: Option<String>,
    },
    /// A program that exits with 0.
    Command {
        /// An absolute path, and arguments. No shell interprets them.
        argv: Vec<String>,
    },
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
const EXCHANGE_MAX: usize = 1024;
const TEXT_MAX: usize = 1024;
const ARGUMENTS_MAX: usize = 64;

/// Which type of check each key belongs to that not every type has.
const KEYS: [(&str, CheckWord); 7] = [
    ("send", CheckWord::Exchange),
    ("expect", CheckWord::Exchange),
    ("path", CheckWord::Http),
    ("host", CheckWord::Http),
    ("status", CheckWord::Http),
    ("server_name", CheckWord::Tls),
    ("command", CheckWord::Command),
];

words! {
    /// `type =`.
    pub(super) enum CheckWord {
        Tcp = "tcp",
        Exchange = "exchange",
        Http = "http",
        Tls = "tls",
        Command = "command",
    }
}

impl Question {
    /// The keys that ask this.
    fn of(kind: &CheckKind) -> Self {
        let mut question = Self::default();
        question.word = Some(match kind {
            CheckKind::Tcp => CheckWord::Tcp,
            CheckKind::Exchange { send, expect } => {
                question.send = Some(send.clone());
                question.expect = Some(expect.clone());
                CheckWord::Exchange
            }
            CheckKind::Http {
                path,
                host,
                statuses,
            } => {
                question.path = Some(path.clone());
                question.host.clone_from(host);
                question.status = Some(statuses.clone());
                CheckWord::Http
            }
            CheckKind::Tls { server_name } => {
                question.server_name.clone_from(server_name);
                CheckWord::Tls
            }
            CheckKind::Command { argv } => {
                question.command = Some(argv.clone());
                CheckWord::Command
            }
        });
        question
    }
}

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
    Node {
        value: Value::Table(vec![KeyNode {
            key: "type".to_owned(),
            key_span: word.span.clone(),
            node: word.clone(),
        }]),
        span: word.span.clone(),
    }
}

fn read_table(node: &Node, report: &mut Report) -> Option<Check> {
    let mut table = TableReader::open(node, "`check`", report)?;
    let t = &mut table;
    let question = Question::read(t, report);
    let written = Check::read(t, report);
    let word = question.word.flatten();
    if t.get("type").is_none() {
        let fault = Fault::new("this check has no `type`");
        let remedy =
            "such as check = { type = \"tcp\" }; or \"exchange\", \"http\", \"tls\", \"command\"";
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

/// The kind that the keys make; keys of another kind are refused.
fn kind_of_check(
    t: &mut TableReader<'_>,
    word: Option<CheckWord>,
    question: WrittenQuestion,
    report: &mut Report,
) -> Option<CheckKind> {
    for (key, owner) in KEYS {
        let misplaced = word.is_some_and(|word| word != owner);
        if let (true, Some(entry)) = (misplaced, t.node().entry(key)) {
            let owner = owner.word();
            let fault = Fault::new(format!("`{key}` belongs to a check of type \"{owner}\""));
            let remedy = format!("remove it, or write type = \"{owner}\"");
            report.error(&entry.key_span, fault.remedy(remedy));
        }
    }
    match word? {
        CheckWord::Tcp => Some(CheckKind::Tcp),
        CheckWord::Exchange => {
            let form = "{ type = \"exchange\", send = \"PING\\r\\n\", expect = \"+PONG\" }";
            require(t, "expect", form, report);
            Some(CheckKind::Exchange {
                send: question.send.flatten().unwrap_or_default(),
                expect: question.expect.flatten()?,
            })
        }
        CheckWord::Http => Some(CheckKind::Http {
            path: question.path.flatten().unwrap_or_else(|| "/".to_owned()),
            host: question.host.flatten(),
            statuses: question.status.flatten().unwrap_or_else(|| vec![200..=399]),
        }),
        CheckWord::Tls => Some(CheckKind::Tls {
            server_name: question.server_name.flatten(),
        }),
        CheckWord::Command => {
            let form = "{ type = \"command\", command = [\"/usr/local/bin/probe\", \"-q\"] }";
            require(t, "command", form, report);
            let argv = question.command.flatten()?;
            Some(CheckKind::Command { argv })
        }
    }
}

/// A key without which a check of its type makes no sense.
fn require(t: &mut TableReader<'_>, key: &'static str, form: &str, report: &mut Report) {
    if t.get(key).is_none() {
        let fault = Fault::new(format!("this check has no `{key}`"));
        let remedy = format!("such as check = {form}");
        report.consequence(&t.node().span, fault.remedy(remedy));
    }
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

fn special_bytes(read: fn(&Node) -> Result<Vec<u8>, Fault>) -> Special<Vec<u8>> {
    Special {
        read,
        write: |bytes| written_bytes(bytes),
        words: "text or `\"hex:…\"`, up to 1 KiB",
        schema: text_schema(),
    }
}

/// As text where it is text, so that a person can read it.
fn written_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.starts_with("hex:") => quote(text),
        _ => {
            let mut text = String::from("hex:");
            for byte in bytes {
                // Writing to a String cannot fail.
                let _ = write!(text, "{byte:02x}");
            }
            quote(&text)
        }
    }
}

fn special_text(read: fn(&Node) -> Result<String, Fault>, words: &'static str) -> Special<String> {
    Special {
        read,
        write: |text| quote(text),
        words,
        schema: text_schema(),
    }
}

fn special_statuses() -> Special<Statuses> {
    Special {
        read: statuses,
        write: |statuses| {
            let range = |it: &RangeInclusive<u16>| format!("{}-{}", it.start(), it.end());
            quote(&statuses.iter().map(range).collect::<Vec<_>>().join(","))
        },
        words: "`\"200-399\"`, `\"200,204\"`, 200",
        schema: json!({ "anyOf": [
            { "type": "string", "pattern": "^[0-9 ,-]+$" },
            { "type": "integer", "minimum": 100, "maximum": 599 },
        ]}),
    }
}

fn special_command() -> Special<Vec<String>> {
    Special {
        read: argv,
        write: |argv| {
            let words: Vec<String> = argv.iter().map(|word| quote(word)).collect();
            format!("[{}]", words.join(", "))
        },
        words: "list of texts",
        schema: json!({ "type": "array", "items": text_schema(), "minItems": 1 }),
    }
}

/// Text as it is, or `hex:` and pairs of digits.
fn bytes(node: &Node) -> Result<Vec<u8>, Fault> {
    let text = values::string(node)?;
    let bytes = match text.strip_prefix("hex:") {
        Some(digits) => unhex(digits)?,
        None => text.as_bytes().to_vec(),
    };
    match bytes.len() {
        len if len > EXCHANGE_MAX => Err(Fault::new(format!(
            "this has {len} bytes; {EXCHANGE_MAX} is the most"
        ))),
        _ => Ok(bytes),
    }
}

fn unhex(digits: &str) -> Result<Vec<u8>, Fault> {
    let fault = |problem: &str| Fault::new(problem).remedy("such as \"hex:50494e470d0a\"");
    if let Some(bad) = digits.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(fault(&format!("`{bad}` is not a hexadecimal digit")));
    }
    if !digits.len().is_multiple_of(2) {
        return Err(fault("a byte is two hexadecimal digits; one is missing"));
    }
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16);
    let bytes = (0..digits.len()).step_by(2).map(byte);
    bytes
        .collect::<Result<_, _>>()
        .map_err(|_| fault("these are not hexadecimal digits"))
}

fn expected(node: &Node) -> Result<Vec<u8>, Fault> {
    match bytes(node)? {
        empty if empty.is_empty() => Err(Fault::new("this is empty: any server would do")
            .remedy("write how its answer begins, or use type = \"tcp\"")),
        bytes => Ok(bytes),
    }
}

/// A text that can stand in the first lines of a request as it is.
fn request_text<'n>(node: &'n Node, what: &str) -> Result<&'n str, Fault> {
    let text = values::string(node)?;
    if text.is_empty() {
        return Err(Fault::new(format!("{what} cannot be empty")).remedy("or leave it out"));
    }
    if text.len() > TEXT_MAX {
        return Err(Fault::new(format!("{what} has at most {TEXT_MAX} bytes")));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        let fault = Fault::new(format!("{what} consists of visible ASCII characters"));
        return Err(fault.remedy("write others, and spaces, as %XX"));
    }
    Ok(text)
}

fn path(node: &Node) -> Result<String, Fault> {
    let text = request_text(node, "a path")?;
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err(Fault::new("a path starts with a slash").remedy(format!("write \"/{text}\"")))
    }
}

fn host(node: &Node) -> Result<String, Fault> {
    let text = request_text(node, "a host")?;
    match text.split_once("://") {
        Some((_, host)) => Err(Fault::new("a scheme does not belong to a host")
            .remedy(format!("did you mean \"{host}\"?"))),
        None => Ok(text.to_owned()),
    }
}

/// `"200-399"`, `"200,204,300-399"`, or one number.
fn statuses(node: &Node) -> Result<Vec<RangeInclusive<u16>>, Fault> {
    const REMEDY: &str = "such as \"200-399\", \"200,204\" or 200";
    if let Value::Integer(_) = node.value {
        let status = values::integer(node, 100..=599)?;
        return Ok(vec![status..=status]);
    }
    let number = |text: &str| {
        let number = text.trim().parse::<u16>().ok();
        let valid = number.filter(|status| (100..=599).contains(status));
        valid.ok_or_else(|| {
            let short: String = text.trim().chars().take(40).collect();
            Fault::new(format!("`{short}` is not a status from 100 to 599")).remedy(REMEDY)
        })
    };
    let mut ranges = Vec::new();
    for part in values::string(node)?.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high) = (number(low)?, number(high)?);
        if low > high {
            return Err(Fault::new("the range of statuses runs backwards")
                .remedy(format!("did you mean \"{high}-{low}\"?")));
        }
        ranges.push(low..=high);
    }
    Ok(ranges)
}

/// A host name as in an address; SNI takes no IP address.
fn server_name(node: &Node) -> Result<String, Fault> {
    const REMEDY: &str = "such as \"www.example.com\", without a port";
    let text = values::string(node)?;
    if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        let fault = Fault::new("a server name is not an IP address (RFC 6066)");
        return Err(fault.remedy("leave it out for servers without a name"));
    }
    host::parse(text).map_err(|error| {
        Fault::new(error.to_string()).remedy(format!("{}; {REMEDY}", error.remedy()))
    })
}

/// A program by its absolute path, because a service's search path is anybody's
/// guess, and its arguments.
fn argv(node: &Node) -> Result<Vec<String>, Fault> {
    const REMEDY: &str = "such as [\"/usr/local/bin/probe\", \"-q\"]";
    let Value::Array(nodes) = &node.value else {
        let fault = Fault::new(format!("this must be a list, not {}", node.kind()));
        return Err(fault.remedy(REMEDY));
    };
    let argv = nodes.iter().map(values::string);
    let argv = argv.collect::<Result<Vec<_>, _>>()?;
    let wrong = |problem: &str| Err(Fault::new(problem).remedy(REMEDY));
    match argv.first() {
        None | Some(&"") => return wrong("the command is empty"),
        Some(program) if !program.starts_with('/') => {
            return wrong("a command starts with an absolute path");
        }
        Some(_) => {}
    }
    if argv.len() > ARGUMENTS_MAX || argv.iter().any(|word| word.len() > TEXT_MAX) {
        return Err(Fault::new(format!(
            "a command has at most {ARGUMENTS_MAX} words of {TEXT_MAX} bytes"
        ))
        .remedy("put it into a script"));
    }
    if argv.iter().any(|word| word.contains('\0')) {
        return wrong("a command cannot contain a NUL byte");
    }
    Ok(argv.into_iter().map(str::to_owned).collect())
}
