//! What a check asks of a server: its type, and the keys that not every type has.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde_json::json;

use super::kind::{Optional, Special, choice, text_schema};
use super::raw::{Node, TableReader, Value};
use super::report::{Fault, Report};
use super::section::section;
use super::text::quote;
use super::values;
use super::words::{Words, words};
use crate::proto::host;

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
    /// To answer a datagram with one.
    Udp {
        /// What is in the question; may be empty. At most 1 KiB, as is `expect`.
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

section! {
    /// The type of a check and the keys that not every type has.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(super) struct Question, WrittenQuestion {
        keys {
            /// What is asked of a server; the types are below.
            word as "type": Option<CheckWord> = None, Optional(choice()), Live,
                shown "required", example "\"http\"";
            /// exchange: what is sent first; udp: what the question is.
            send: Option<Vec<u8>> = None, Optional(special_bytes(bytes)), Live,
                shown "nothing", example "# \"PING\\r\\n\"";
            /// exchange, udp: how the answer starts.
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

const EXCHANGE_MAX: usize = 1024;
const TEXT_MAX: usize = 1024;
const ARGUMENTS_MAX: usize = 64;

/// Which type of check each key belongs to that not every type has.
const KEYS: [(&str, &[CheckWord]); 7] = [
    ("send", &[CheckWord::Exchange, CheckWord::Udp]),
    ("expect", &[CheckWord::Exchange, CheckWord::Udp]),
    ("path", &[CheckWord::Http]),
    ("host", &[CheckWord::Http]),
    ("status", &[CheckWord::Http]),
    ("server_name", &[CheckWord::Tls]),
    ("command", &[CheckWord::Command]),
];

words! {
    /// `type =`.
    pub(super) enum CheckWord {
        Tcp = "tcp",
        Exchange = "exchange",
        Udp = "udp",
        Http = "http",
        Tls = "tls",
        Command = "command",
    }
}

impl Question {
    /// The keys that ask this.
    pub(super) fn of(kind: &CheckKind) -> Self {
        let mut question = Self::default();
        question.word = Some(match kind {
            CheckKind::Tcp => CheckWord::Tcp,
            CheckKind::Exchange { send, expect } => {
                question.send = Some(send.clone());
                question.expect = Some(expect.clone());
                CheckWord::Exchange
            }
            CheckKind::Udp { send, expect } => {
                question.send = Some(send.clone());
                question.expect = Some(expect.clone());
                CheckWord::Udp
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

/// The kind that the keys make; keys of another kind are refused.
pub(super) fn kind_of_check(
    t: &mut TableReader<'_>,
    word: Option<CheckWord>,
    question: WrittenQuestion,
    report: &mut Report,
) -> Option<CheckKind> {
    for (key, owners) in KEYS {
        let owner = owners[0];
        let misplaced = word.is_some_and(|word| !owners.contains(&word));
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
        CheckWord::Udp => {
            let form = "{ type = \"udp\", send = \"hex:…\", expect = \"hex:…\" }";
            require(t, "expect", form, report);
            Some(CheckKind::Udp {
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

fn special_bytes(read: fn(&Node) -> Result<Vec<u8>, Fault>) -> Special<Vec<u8>> {
    Special {
        read,
        write: |bytes| written_bytes(bytes),
        words: "text or `\"hex:…\"`, up to 1 KiB",
        schema: text_schema,
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
        schema: text_schema,
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
        schema: || {
            json!({ "anyOf": [
                { "type": "string", "pattern": "^[0-9 ,-]+$" },
                { "type": "integer", "minimum": 100, "maximum": 599 },
            ]})
        },
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
        schema: || json!({ "type": "array", "items": text_schema(), "minItems": 1 }),
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
