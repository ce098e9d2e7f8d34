//! `mode = "http-connect"` and `[forward.connect]`: a forward whose clients say by an
//! HTTP CONNECT request where to go.

mod access;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::raw::{Node, TableReader, Value};
use super::report::{Fault, Report};
use super::{choices, values};

pub use access::AccessRules;

use crate::policy::access::Rule;

/// What a forward does with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// It connects it to a server of its pool; the default.
    Tcp,
    /// It awaits a CONNECT request, and connects to the target of that.
    HttpConnect(Arc<HttpConnect>),
}

/// The word of `mode =`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModeWord {
    Tcp,
    HttpConnect,
}

/// `[forward.connect]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConnect {
    /// Where requests may go.
    pub access: AccessRules,
    /// A file of users and hashes of their passwords; `None`, the default: nobody is
    /// asked who he is.
    pub users: Option<PathBuf>,
    /// What a 407 says the credentials are for; `thalweg` by default.
    pub realm: String,
    /// For the whole request, from the accept on; 10 s by default, 100 ms to an hour.
    pub header_timeout: Duration,
    /// Bytes of the request's header at the most; 8 KiB by default, 256 bytes to
    /// 64 KiB.
    pub header_max: u32,
}

impl Default for HttpConnect {
    fn default() -> Self {
        Self {
            access: AccessRules::default(),
            users: None,
            realm: "thalweg".to_owned(),
            header_timeout: Duration::from_secs(10),
            header_max: 8 << 10,
        }
    }
}

/// Rules of one list at the most: more than a list of a continent's networks has. How
/// many there are does not slow a request down.
const RULES_MAX: usize = 1 << 17;

/// Bytes of a realm.
const REALM_MAX: usize = 200;

/// Reads `mode` and `connect` of a `[[forward]]`.
pub(super) fn read(table: &mut TableReader<'_>, report: &mut Report) -> Mode {
    let word = table.read("mode", report, |node| values::choice(node, choices::MODES));
    let node = table.get("connect");
    match (word, node) {
        (Some(ModeWord::HttpConnect), Some(node)) => {
            Mode::HttpConnect(Arc::new(read_connect(node, report)))
        }
        (Some(ModeWord::HttpConnect), None) => Mode::HttpConnect(Arc::default()),
        (_, Some(node)) => {
            let fault = Fault::new("`connect` belongs to a forward of another mode");
            report.error(&node.span, fault.remedy("add mode = \"http-connect\""));
            Mode::Tcp
        }
        (_, None) => Mode::Tcp,
    }
}

fn read_connect(node: &Node, report: &mut Report) -> HttpConnect {
    let mut connect = HttpConnect::default();
    let Some(mut t) = TableReader::open(node, "[forward.connect]", report) else {
        return connect;
    };
    if let Some(node) = t.get("allow") {
        connect.access.allow = rules("allow", node, report);
    }
    if let Some(node) = t.get("deny") {
        connect.access.deny = rules("deny", node, report);
    }
    connect.users = t.read("users", report, path);
    if let Some(realm) = t.read("realm", report, realm) {
        connect.realm = realm;
    }
    let range = Duration::from_millis(100)..=Duration::from_secs(3600);
    let timeout = t.read("header_timeout", report, |node| {
        values::duration(node, range, Duration::from_millis(1))
    });
    connect.header_timeout = timeout.unwrap_or(connect.header_timeout);
    let size = t.read("header_max", report, |node| {
        values::size(node, 256..=64 << 10)
    });
    connect.header_max = size.unwrap_or(connect.header_max);
    t.close(report, &[]);
    connect
}

fn rules(key: &str, node: &Node, report: &mut Report) -> Vec<Rule> {
    let one = std::slice::from_ref(node);
    let nodes = match &node.value {
        Value::Array(nodes) => nodes,
        _ => one,
    };
    if nodes.len() > RULES_MAX {
        let fault = Fault::new(format!("`{key}` has more than {RULES_MAX} entries"));
        report.error(&node.span, fault.remedy("gather them into fewer networks"));
        return Vec::new();
    }
    let mut rules = Vec::new();
    for node in nodes {
        match values::string(node).and_then(|text| text.parse::<Rule>().map_err(Fault::from)) {
            Ok(rule) => rules.push(rule),
            Err(mut fault) => {
                fault.message = format!("`{key}`: {}", fault.message);
                report.error(&node.span, fault);
            }
        }
    }
    rules
}

fn path(node: &Node) -> Result<PathBuf, Fault> {
    let text = values::string(node)?;
    if text.is_empty() || text.contains('\0') {
        let fault = Fault::new("this is not the path of a file");
        return Err(fault.remedy("such as \"/etc/thalweg/users\""));
    }
    Ok(text.into())
}

/// What stands between quotes in a header.
fn realm(node: &Node) -> Result<String, Fault> {
    let text = values::string(node)?;
    if text.len() > REALM_MAX || !text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        let fault = Fault::new("a realm is a line of visible ASCII");
        return Err(fault.remedy(format!("of at most {REALM_MAX} characters")));
    }
    Ok(text.to_owned())
}
