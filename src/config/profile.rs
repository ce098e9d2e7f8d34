//! `[profile.NAME]`: every socket option of a leg. Which there are is the table of
//! `net::options`; here is how they are written.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::kind::{
    As, Kind, Optional, Rate, Special, Switch, int, reference, row_of, size, text_schema,
    time_in_steps,
};
use super::raw::{Node, TableReader, Value};
use super::report::{Fault, Report};
use super::row::{Applies, KeyChange, Pairs, Row};
use super::section::{Section, section};
use super::text::{inline, quote};
use super::values;
use crate::net::options::{
    KEEPALIVE_MAX, Keepalive, Legs, OPTIONS, OptionKind, OptionRow, RawOption, Setting,
    SocketOptions,
};

/// The largest value of a C `int`, which raw options are.
const INT_MAX: i64 = i32::MAX as i64;

const SECOND: Duration = Duration::from_secs(1);

/// What a profile starts from: a forwarder that waits for more bytes before it
/// passes on the ones it has stalls every dialogue (nginx, too, sets this).
pub(super) fn built_in() -> SocketOptions {
    SocketOptions {
        nodelay: Some(true),
        ..SocketOptions::default()
    }
}

/// The options of the leg towards upstreams: where the profile leaves it open, the
/// handshake's last ACK rides on the first data.
pub(super) fn upstream_leg(profile: &SocketOptions) -> SocketOptions {
    SocketOptions {
        quickack: profile
            .quickack
            .or((profile.mptcp != Some(true)).then_some(false)),
        ..profile.clone()
    }
}

/// Reads one profile; wrong keys are reported and left unset.
pub(super) fn read(node: &Node, title: &str, report: &mut Report) -> SocketOptions {
    let mut options = built_in();
    let Some(mut table) = TableReader::open(node, title, report) else {
        return options;
    };
    let t = &mut table;
    for row in OPTIONS {
        if let Some(node) = t.get(row.key)
            && let Some(setting) = kind(row).read(row.key, node, report)
        {
            row.set(&mut options, setting);
        }
    }
    if options.keepalive == Some(OFF) {
        options.keepalive = None;
    }
    read_dscp(t, &mut options, report);
    options.raw = raw_options(t, report);
    table.close(report, &[]);
    options
}

/// The keys of a profile that are written, as TOML.
pub(super) fn pairs(options: &SocketOptions) -> Pairs {
    let value = |row: &OptionRow| kind(row).write(&row.get(options)?);
    let pairs = OPTIONS.iter().map(|row| (row.key, value(row)));
    let raw = (!options.raw.is_empty()).then(|| write_raw(&options.raw));
    let pairs = pairs.chain([("raw", raw)]);
    pairs
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
}

/// What differs, and what a change takes where the profile is that of a client leg.
pub(super) fn diff(old: &SocketOptions, new: &SocketOptions) -> Vec<KeyChange> {
    let mut changes = Vec::new();
    for row in rows() {
        let of = |options| {
            let mut pairs = pairs(options).into_iter();
            let pair = pairs.find(|(key, _)| *key == row.key);
            pair.map(|(_, value)| value)
        };
        let (old, new) = (of(old), of(new));
        if old != new {
            changes.push(KeyChange {
                key: row.key.to_owned(),
                old,
                new,
                effect: row.effect,
            });
        }
    }
    changes
}

/// The rows of a profile.
pub(super) fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = OPTIONS.iter().map(option_row).collect();
    let at = rows.iter().position(|row| row.key == "tos");
    let mut dscp = Row::by_hand(
        "dscp",
        "name or 0 to 63",
        "",
        Applies::Rebind,
        "Such as `\"ef\"`, `\"af41\"`; instead of `tos`.",
        json!({ "anyOf": [
            { "enum": DSCPS.iter().map(|(name, _)| *name).collect::<Vec<_>>() },
            { "type": "integer", "minimum": 0, "maximum": 63 },
        ]}),
    )
    .example("\"af41\"");
    dscp.called = Some("IP_TOS`, `IPV6_TCLASS");
    rows.insert(at.map_or(0, |at| at + 1), dscp);
    let mut raw = Row::by_hand(
        "raw",
        "list of tables",
        "",
        Applies::Rebind,
        "Any option by its numbers: those of setsockopt(2), with an int.",
        json!({ "type": "array", "items": reference("raw") }),
    )
    .example("[{ level = 6, name = 13, value = 1 }]");
    raw.called = Some("setsockopt(2)");
    raw.table = Some("raw");
    rows.push(raw);
    rows
}

/// A leg towards clients inherits its options from its listeners; a connect takes what
/// is in force when it is made.
fn option_row(option: &'static OptionRow) -> Row {
    let effect = match option.legs {
        Legs::Connects => Applies::Live,
        Legs::Listeners | Legs::Both => Applies::Rebind,
    };
    let kind = kind(option);
    Row {
        key: option.key,
        words: kind.words(),
        default: String::new(),
        has_default: false,
        doc: option.doc,
        effect,
        example: Some(option.example),
        schema: kind.schema(),
        table: kind.table(),
        called: Some(option.called),
    }
}

/// How the values of an option are written.
fn kind(row: &OptionRow) -> Box<dyn Kind<Value = Setting>> {
    match row.kind {
        OptionKind::Switch => Box::new(As {
            kind: Switch,
            wrap: Setting::Switch,
            unwrap: |setting| match setting {
                Setting::Switch(on) => Some(*on),
                _ => None,
            },
        }),
        OptionKind::Number(low, high) | OptionKind::Bits(low, high) => Box::new(As {
            kind: int(low as i64..=high as i64),
            wrap: Setting::Number,
            unwrap: number,
        }),
        OptionKind::Size(low, high) => Box::new(As {
            kind: size(low..=high),
            wrap: Setting::Number,
            unwrap: number,
        }),
        OptionKind::Rate => Box::new(As {
            kind: Rate,
            wrap: Setting::Number,
            unwrap: number,
        }),
        OptionKind::Time(low, high, step) => Box::new(As {
            kind: time_in_steps(low..=high, step),
            wrap: Setting::Time,
            unwrap: |setting| match setting {
                Setting::Time(time) => Some(*time),
                _ => None,
            },
        }),
        OptionKind::Congestion => Box::new(text(congestion)),
        OptionKind::Interface => Box::new(text(interface_name)),
        OptionKind::Address => Box::new(As {
            kind: Special {
                read: source,
                write: |ip: &std::net::IpAddr| quote(&ip.to_string()),
                words: "IP address",
                schema: text_schema,
            },
            wrap: Setting::Address,
            unwrap: |setting| match setting {
                Setting::Address(ip) => Some(*ip),
                _ => None,
            },
        }),
        OptionKind::Keepalive => Box::new(As {
            kind: KeepaliveKey,
            wrap: Setting::Keepalive,
            unwrap: |setting| match setting {
                Setting::Keepalive(keepalive) => Some(*keepalive),
                _ => None,
            },
        }),
    }
}

fn number(setting: &Setting) -> Option<u64> {
    match setting {
        Setting::Number(number) => Some(*number),
        _ => None,
    }
}

fn text(read: fn(&Node) -> Result<String, Fault>) -> As<Special<String>, Setting> {
    As {
        kind: Special {
            read,
            write: |name| quote(name),
            words: "name",
            schema: text_schema,
        },
        wrap: Setting::Text,
        unwrap: |setting| match setting {
            Setting::Text(name) => Some(name.clone()),
            _ => None,
        },
    }
}

fn source(node: &Node) -> Result<std::net::IpAddr, Fault> {
    let text = values::string(node)?;
    text.parse().map_err(|_| {
        Fault::new(format!("`{text}` is not an IP address"))
            .remedy("write an address of this host without a port, such as \"10.0.0.2\"")
    })
}

/// `dscp` is the upper six bits of `tos`.
fn read_dscp(t: &mut TableReader<'_>, options: &mut SocketOptions, report: &mut Report) {
    let dscp = t.read("dscp", report, dscp);
    if let (Some(_), Some(_)) = (t.get("tos"), t.get("dscp")) {
        let fault = Fault::new(format!(
            "`tos` and `dscp` in {} are the same byte",
            t.title()
        ))
        .remedy("keep one of them");
        report.error(&t.node().span, fault);
    }
    options.tos = options.tos.or(dscp.map(|dscp| dscp << 2));
}

/// `DiffServ` code points by name: RFC 2474, 2597, 3246, 5865, 8622.
const DSCPS: &[(&str, u8)] = &[
    ("default", 0),
    ("le", 1),
    ("cs0", 0),
    ("cs1", 8),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("cs2", 16),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("cs3", 24),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("cs4", 32),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("cs5", 40),
    ("va", 44),
    ("ef", 46),
    ("cs6", 48),
    ("cs7", 56),
];

/// `TCP_CA_NAME_MAX` is 16 with the terminator. Which names this kernel has is
/// asked when sockets are made.
fn congestion(node: &Node) -> Result<String, Fault> {
    let name = values::string(node)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 15 || !name.chars().all(plain) {
        let fault = Fault::new("this is not a name of a congestion control");
        return Err(fault.remedy("such as \"cubic\" or \"bbr\""));
    }
    Ok(name.to_owned())
}

/// `interface =` of a pool, too.
pub(super) fn interface() -> Special<String> {
    Special {
        read: interface_name,
        write: |name| quote(name),
        words: "name",
        schema: text_schema,
    }
}

/// `IFNAMSIZ` is 16 with the terminator.
fn interface_name(node: &Node) -> Result<String, Fault> {
    let name = values::string(node)?;
    let wrong = |c: char| c.is_whitespace() || c.is_control() || c == '/';
    if name.is_empty() || name.len() > 15 || name.contains(wrong) {
        let fault = Fault::new("this is not a name of an interface");
        return Err(fault.remedy("`ip link` lists them; such as \"eth0\""));
    }
    Ok(name.to_owned())
}

/// A code point as a name or a number from 0 to 63.
fn dscp(node: &Node) -> Result<u8, Fault> {
    match &node.value {
        Value::Integer(_) => values::integer(node, 0..=63),
        _ => values::choice(node, DSCPS),
    }
}

section! {
    /// The numbers of `keepalive`, each the kernel's choice where it is left out.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct KeepaliveNumbers, WrittenKeepalive {
        keys {
            /// Silence before the first probe (`TCP_KEEPIDLE`).
            idle: Option<Duration> = None, Optional(seconds()), Rebind,
                shown "the kernel's", example "\"60s\"";
            /// Between probes (`TCP_KEEPINTVL`).
            interval: Option<Duration> = None, Optional(seconds()), Rebind,
                shown "the kernel's", example "\"10s\"";
            /// Unanswered ones before the connection is given up (`TCP_KEEPCNT`).
            probes: Option<u32> = None, Optional(int(1..=127)), Rebind,
                shown "the kernel's", example "3";
        }
    }
}

fn seconds() -> super::kind::Time {
    time_in_steps(SECOND..=KEEPALIVE_MAX, SECOND)
}

/// `keepalive = false`, which no numbers can mean: a duration of zero is refused.
const OFF: Keepalive = Keepalive {
    idle: Some(Duration::ZERO),
    interval: None,
    probes: None,
};

/// `true`, `false`, a duration (silence before the first probe), or a table.
struct KeepaliveKey;

impl Kind for KeepaliveKey {
    type Value = Keepalive;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<Keepalive> {
        match &node.value {
            Value::Boolean(false) => Some(OFF),
            Value::Boolean(true) => Some(Keepalive::default()),
            Value::Table(_) => {
                let mut table = TableReader::open(node, format!("`{key}`"), report)?;
                let numbers = KeepaliveNumbers::read(&mut table, report);
                table.close(report, &[]);
                let numbers = KeepaliveNumbers::fill(numbers);
                Some(Keepalive {
                    idle: numbers.idle,
                    interval: numbers.interval,
                    probes: numbers.probes,
                })
            }
            _ => {
                let idle = values::duration(node, SECOND..=KEEPALIVE_MAX, SECOND);
                let idle = idle.map_err(|fault| match fault.remedy {
                    Some(_) => fault,
                    None => fault.remedy("or { idle = \"60s\", interval = \"10s\", probes = 3 }"),
                });
                match idle {
                    Ok(idle) => Some(Keepalive {
                        idle: Some(idle),
                        ..Keepalive::default()
                    }),
                    Err(fault) => {
                        report.error(&node.span, fault.of_key(key));
                        None
                    }
                }
            }
        }
    }

    fn write(&self, value: &Keepalive) -> Option<String> {
        let numbers = KeepaliveNumbers {
            idle: value.idle,
            interval: value.interval,
            probes: value.probes,
        };
        let mut pairs = Pairs::new();
        numbers.write(&mut pairs);
        Some(if pairs.is_empty() {
            "true".to_owned()
        } else {
            inline(&pairs)
        })
    }

    fn words(&self) -> String {
        "true, a duration, or a table".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [
            { "type": "boolean" },
            seconds().schema(),
            reference("keepalive"),
        ]})
    }

    fn table(&self) -> Option<&'static str> {
        Some("keepalive")
    }
}

fn write_raw(raw: &[RawOption]) -> String {
    let raw = raw.iter().map(|raw| {
        let numbers = [
            ("level", raw.level),
            ("name", raw.name),
            ("value", raw.value),
        ];
        inline(&numbers.map(|(key, number)| (key, number.to_string())))
    });
    format!("[{}]", raw.collect::<Vec<_>>().join(", "))
}

/// The rows of an entry of `raw`.
pub(super) fn raw_rows() -> Vec<Row> {
    let number = int::<i32>(i64::from(i32::MIN)..=INT_MAX);
    let keys = [
        ("level", "`level` of setsockopt(2).", "6"),
        ("name", "`optname` of setsockopt(2).", "13"),
        ("value", "The value, passed as a C `int`.", "1"),
    ];
    keys.map(|(key, doc, example)| {
        row_of(key, &number, &0, doc, Applies::Rebind)
            .shown("required")
            .example(example)
    })
    .to_vec()
}

/// `raw = [{ level = 6, name = 12, value = 1 }]`.
fn raw_options(t: &mut TableReader<'_>, report: &mut Report) -> Vec<RawOption> {
    const FORM: &str = "such as raw = [{ level = 6, name = 12, value = 1 }]";
    let Some(node) = t.get("raw") else {
        return Vec::new();
    };
    let Value::Array(nodes) = &node.value else {
        let fault = Fault::new(format!("`raw`: this must be a list, not {}", node.kind()));
        report.error(&node.span, fault.remedy(FORM));
        return Vec::new();
    };
    let mut options = Vec::new();
    for node in nodes {
        let Some(mut table) = TableReader::open(node, "an option of `raw`", report) else {
            continue;
        };
        let mut int = |key: &'static str| {
            if table.get(key).is_none() {
                let fault = Fault::new(format!("`{key}` of this raw option is missing"));
                report.consequence(&node.span, fault.remedy(FORM));
            }
            table.read(key, report, |node| {
                values::integer(node, i64::from(i32::MIN)..=INT_MAX)
            })
        };
        if let (Some(level), Some(name), Some(value)) = (int("level"), int("name"), int("value")) {
            options.push(RawOption { level, name, value });
        }
        table.close(report, &[]);
    }
    options
}
