//! `[upstream.NAME]` and lists of addresses, each with its place.

use super::raw::{Entry, Node, TableReader, Value};
use super::report::{Fault, Report, Span};
use super::resolve::Names;
use super::values;
use crate::net::address::{AddressError, AddressRange};

impl From<AddressError> for Fault {
    fn from(error: AddressError) -> Self {
        let fault = Fault::new(error.problem);
        match error.remedy {
            Some(remedy) => fault.remedy(remedy),
            None => fault,
        }
    }
}

/// An address or a range of ports, and where it is written.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) range: AddressRange,
    pub(super) span: Span,
}

/// `[upstream.NAME]`.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    servers: Vec<Written>,
}

/// Keys of a pool that a later version will have.
pub(super) const LATER: [(&str, &str); 4] = [
    (
        "max_fails",
        "remove it: a server that fails is skipped for that session",
    ),
    (
        "fail_timeout",
        "remove it: a server that fails is skipped for that session",
    ),
    (
        "check",
        "remove it: servers are not checked between sessions",
    ),
    ("weight", "remove it: every server gets the same share"),
];

/// Keys of a server that a later version will have.
const SERVER_LATER: [(&str, &str); 4] = [
    ("weight", "remove it: every server gets the same share"),
    ("backup", "remove it: every server of the list is used"),
    (
        "max_fails",
        "remove it: a server that fails is skipped for that session",
    ),
    (
        "fail_timeout",
        "remove it: a server that fails is skipped for that session",
    ),
];

/// Ways to balance that a later version will have.
const BALANCES_LATER: [&str; 5] = ["least_conn", "random", "hash", "source", "p2c"];

impl Pool {
    pub(super) fn read(entry: &Entry, report: &mut Report) -> Self {
        let title = format!("[upstream.{}]", entry.key);
        let Some(mut table) = TableReader::open(&entry.node, &title, report) else {
            return Self {
                servers: Vec::new(),
            };
        };
        table.read("balance", report, balance);
        let servers = if let Some(node) = table.get("servers") {
            addresses("servers", node, true, report)
        } else {
            let fault = Fault::new(format!("{title} has no `servers`"));
            let remedy = "such as servers = [\"10.0.0.1:443\", \"10.0.0.2:443\"]";
            report.consequence(&entry.key_span, fault.remedy(remedy));
            Vec::new()
        };
        table.close(report, &LATER);
        Self { servers }
    }
}

fn balance(node: &Node) -> Result<(), Fault> {
    match values::string(node)? {
        later if BALANCES_LATER.contains(&later) => Err(Fault::new(format!(
            "\"{later}\" is not supported by this version"
        ))
        .remedy("write \"round_robin\"")),
        _ => values::choice(node, &[("round_robin", ())]),
    }
}

/// A string, a comma list, or a list of strings; for servers also tables.
pub(super) fn addresses(
    key: &str,
    node: &Node,
    servers: bool,
    report: &mut Report,
) -> Vec<Written> {
    let mut found = Vec::new();
    match &node.value {
        Value::Array(nodes) => {
            for node in nodes {
                match &node.value {
                    Value::Table(_) if servers => server_table(key, node, &mut found, report),
                    _ => address_text(key, node, servers, &mut found, report),
                }
            }
            if nodes.is_empty() {
                let fault = Fault::new(format!("`{key}`: the list is empty"));
                let remedy = "it needs at least one address, such as \"10.0.0.1:443\"";
                report.error(&node.span, fault.remedy(remedy));
            }
        }
        Value::Table(_) if servers => server_table(key, node, &mut found, report),
        _ => address_text(key, node, servers, &mut found, report),
    }
    found
}

/// `{ address = "10.0.0.1:443" }`.
fn server_table(key: &str, node: &Node, found: &mut Vec<Written>, report: &mut Report) {
    let title = format!("a server of `{key}`");
    let Some(mut table) = TableReader::open(node, title, report) else {
        return;
    };
    if let Some(node) = table.get("address") {
        address_text("address", node, true, found, report);
    } else {
        let fault = Fault::new("this server has no `address`");
        let remedy = "such as { address = \"10.0.0.1:443\" }";
        report.consequence(&node.span, fault.remedy(remedy));
    }
    table.close(report, &SERVER_LATER);
}

/// One string: an address, or several with commas.
fn address_text(
    key: &str,
    node: &Node,
    servers: bool,
    found: &mut Vec<Written>,
    report: &mut Report,
) {
    let text = match values::string(node) {
        Ok(text) => text,
        Err(mut fault) => {
            fault.message = format!("`{key}`: {}", fault.message);
            return report.error(&node.span, fault);
        }
    };
    let mut offset = 0;
    for item in text.split(',') {
        let part = item.trim();
        let lead = item.len() - item.trim_start().len();
        let span = node.part_span(report, offset + lead, part);
        offset += item.len() + 1;
        let read = part.parse::<AddressRange>().and_then(|range| {
            if servers {
                range.first().check_server()?;
            }
            Ok(range)
        });
        match read {
            Ok(range) => found.push(Written { range, span }),
            Err(error) => {
                let mut fault = Fault::from(error);
                fault.message = format!("`{key}`: {}", fault.message);
                report.error(&span, fault);
            }
        }
    }
}

/// A pool's name, or addresses as in [`addresses`].
pub(super) fn upstream(node: &Node, names: &Names, report: &mut Report) -> Vec<Written> {
    match &node.value {
        Value::String(text) if !text.is_empty() && !text.contains([':', ',']) => {
            match names.pool(text) {
                Ok(pool) => pool.servers.clone(),
                Err(mut fault) => {
                    fault.message = format!("`upstream`: {}", fault.message);
                    report.consequence(&node.span, fault);
                    Vec::new()
                }
            }
        }
        _ => addresses("upstream", node, true, report),
    }
}
