//! `check =` of a pool: how servers are probed between sessions.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::choices;
use super::raw::{Entry, Node, TableReader, Value};
use super::report::{Fault, Report};
use super::units::format_duration;
use super::values;
use crate::proto::host;

/// How, and how often, the servers of a pool are checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Check {
    /// What is asked of a server.
    pub kind: CheckKind,
    /// From the start of one check to the start of the next; 2 s by default (as
    /// `HAProxy`), 10 ms to a day.
    pub interval: Duration,
    /// Instead of `interval` while a server is on its way up or down; `None`, the
    /// default: the same. Never longer than `interval`.
    pub fast_interval: Option<Duration>,
    /// A check that takes longer has failed. 1 s by default, or the shorter of the
    /// intervals if that is less; never longer than either.
    pub timeout: Duration,
    /// Checks in a row that must succeed before a server is up again; 2 by default
    /// (as `HAProxy`), 1 to 1000.
    pub rise: u32,
    /// Checks in a row that must fail before a server is down; 3 by default (as
    /// `HAProxy`), 1 to 1000.
    pub fall: u32,
    /// Percent by which each interval is longer or shorter at random, so that many
    /// checks do not fall together; 10 by default, at most 50.
    pub jitter: u8,
    /// What happens to the sessions of a server that is down.
    pub on_down: OnDown,
    /// The port to check instead of the server's own. A unix socket has none.
    pub port: Option<u16>,
}

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

/// `on_down =`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnDown {
    /// They go on; the default. A check can be wrong about them.
    Keep,
    /// They are reset.
    Close,
}

/// Bounds and defaults; the sources are at the fields.
const INTERVAL: Duration = Duration::from_secs(2);
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(86_400);
const TIMEOUT: Duration = Duration::from_secs(1);
const JITTER_MAX: u8 = 50;
const EXCHANGE_MAX: usize = 1024;
const TEXT_MAX: usize = 1024;
const ARGUMENTS_MAX: usize = 64;

const MICROSECOND: Duration = Duration::from_micros(1);

/// Which kind of check each key belongs to that not every kind has.
const KEYS: [(&str, CheckWord); 7] = [
    ("send", CheckWord::Exchange),
    ("expect", CheckWord::Exchange),
    ("path", CheckWord::Http),
    ("host", CheckWord::Http),
    ("status", CheckWord::Http),
    ("server_name", CheckWord::Tls),
    ("command", CheckWord::Command),
];

/// `type =`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckWord {
    Tcp,
    Exchange,
    Http,
    Tls,
    Command,
}

impl CheckKind {
    pub(super) fn word(&self) -> &'static str {
        let word = match self {
            Self::Tcp => CheckWord::Tcp,
            Self::Exchange { .. } => CheckWord::Exchange,
            Self::Http { .. } => CheckWord::Http,
            Self::Tls { .. } => CheckWord::Tls,
            Self::Command { .. } => CheckWord::Command,
        };
        choices::word(choices::CHECKS, &word)
    }
}

/// Reads `check =`: a table, or the type alone, or `"off"`. `None` also where it is
/// wrong, which has been reported.
pub(super) fn read(node: &Node, report: &mut Report) -> Option<Check> {
    const FORM: &str = "such as check = \"tcp\", or check = { type = \"tcp\", interval = \"5s\" }";
    match &node.value {
        Value::Table(_) => read_table(node, report),
        Value::String(text) if text == "off" => None,
        _ => match values::choice(node, choices::CHECKS) {
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
        value: Value::Table(vec![Entry {
            key: "type".to_owned(),
            key_span: word.span.clone(),
            node: word.clone(),
        }]),
        span: word.span.clone(),
    }
}

/// A check with every default.
fn of_kind(kind: CheckKind) -> Check {
    Check {
        kind,
        interval: INTERVAL,
        fast_interval: None,
        timeout: TIMEOUT,
        rise: 2,
        fall: 3,
        jitter: 10,
        on_down: OnDown::Keep,
        port: None,
    }
}

fn read_table(node: &Node, report: &mut Report) -> Option<Check> {
    let mut table = TableReader::open(node, "`check`", report)?;
    let t = &mut table;
    let word = t.read("type", report, |n| values::choice(n, choices::CHECKS));
    if t.get("type").is_none() {
        let fault = Fault::new("this check has no `type`");
        let remedy =
            "such as check = { type = \"tcp\" }; or \"exchange\", \"http\", \"tls\", \"command\"";
        report.consequence(&node.span, fault.remedy(remedy));
    }
    let kind = read_kind(t, word, report);
    // What is wrong has been reported; with any kind the rest is looked at, too.
    let mut check = of_kind(kind.unwrap_or(CheckKind::Tcp));
    read_times(t, &mut check, report);
    let count = |n: &Node| values::integer(n, 1..=1000);
    check.rise = t.read("rise", report, count).unwrap_or(check.rise);
    check.fall = t.read("fall", report, count).unwrap_or(check.fall);
    let jitter = t.read("jitter", report, |n| values::percent(n, JITTER_MAX));
    check.jitter = jitter.unwrap_or(check.jitter);
    let on_down = t.read("on_down", report, |n| values::choice(n, choices::ON_DOWNS));
    check.on_down = on_down.unwrap_or(check.on_down);
    check.port = t.read("port", report, |n| values::integer(n, 1..=65_535));
    table.close(report, &[]);
    Some(check)
}

/// The kind and its keys; keys of another kind are refused.
fn read_kind(
    t: &mut TableReader<'_>,
    word: Option<CheckWord>,
    report: &mut Report,
) -> Option<CheckKind> {
    for (key, owner) in KEYS {
        let misplaced = t.get(key).is_some() && word.is_some_and(|word| word != owner);
        if let (true, Some(entry)) = (misplaced, t.node().entry(key)) {
            let owner = choices::word(choices::CHECKS, &owner);
            let fault = Fault::new(format!("`{key}` belongs to a check of type \"{owner}\""));
            let remedy = format!("remove it, or write type = \"{owner}\"");
            report.error(&entry.key_span, fault.remedy(remedy));
        }
    }
    match word? {
        CheckWord::Tcp => Some(CheckKind::Tcp),
        CheckWord::Exchange => {
            let send = t.read("send", report, bytes).unwrap_or_default();
            let form = "{ type = \"exchange\", send = \"PING\\r\\n\", expect = \"+PONG\" }";
            let expect = required(t, "expect", form, report, expected)?;
            Some(CheckKind::Exchange { send, expect })
        }
        CheckWord::Http => {
            let path = t.read("path", report, path);
            Some(CheckKind::Http {
                path: path.unwrap_or_else(|| "/".to_owned()),
                host: t.read("host", report, host),
                statuses: t
                    .read("status", report, statuses)
                    .unwrap_or_else(|| vec![200..=399]),
            })
        }
        CheckWord::Tls => Some(CheckKind::Tls {
            server_name: t.read("server_name", report, server_name),
        }),
        CheckWord::Command => {
            let form = "{ type = \"command\", command = [\"/usr/local/bin/probe\", \"-q\"] }";
            let argv = required(t, "command", form, report, argv)?;
            Some(CheckKind::Command { argv })
        }
    }
}

/// A key without which a check of its type makes no sense.
fn required<T>(
    t: &mut TableReader<'_>,
    key: &'static str,
    form: &str,
    report: &mut Report,
    parse: fn(&Node) -> Result<T, Fault>,
) -> Option<T> {
    if t.get(key).is_none() {
        let fault = Fault::new(format!("this check has no `{key}`"));
        let remedy = format!("such as check = {form}");
        report.consequence(&t.node().span, fault.remedy(remedy));
    }
    t.read(key, report, parse)
}

/// `interval`, `fast_interval` and `timeout`, and how they fit together.
fn read_times(t: &mut TableReader<'_>, check: &mut Check, report: &mut Report) {
    let time = |n: &Node| values::duration(n, INTERVALS, MICROSECOND);
    let interval = t.read("interval", report, time);
    check.interval = interval.unwrap_or(check.interval);
    check.fast_interval = t.read("fast_interval", report, time);
    let timeout = t.read("timeout", report, time);
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
