//! `accept_proxy =`: from whom a PROXY header is required, and whom it is believed.

use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::kind::{Kind, one_or_list, text_schema, time};
use super::raw::{Node, TableReader, Value};
use super::report::{Fault, Report};
use super::section::read_key;
use super::text::{inline, list, quote};
use super::units::format_duration;
use super::values;
use super::words::Words;
use crate::net::network;
use crate::proto::proxy::Version;

/// The word for clients of unix sockets, beside networks.
const UNIX: &str = "unix";

/// How long a header may take, all of it.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Clients speak for others: each connection begins with a PROXY header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptProxy {
    /// Whose headers are believed; anybody else is turned away.
    pub from: Vec<IpNet>,
    /// Clients of unix sockets are, too.
    pub unix: bool,
    /// Headers of version 1 are taken.
    pub v1: bool,
    /// Headers of version 2 are taken.
    pub v2: bool,
    /// A header that takes longer in all is none.
    pub timeout: Duration,
}

impl AcceptProxy {
    fn nobody() -> Self {
        Self {
            from: Vec::new(),
            unix: false,
            v1: true,
            v2: true,
            timeout: TIMEOUT,
        }
    }

    /// Whether every address is believed, of either family.
    pub fn trusts_everybody(&self) -> bool {
        self.from.iter().any(|network| network.prefix_len() == 0)
    }

    fn write(&self) -> String {
        let networks = self.from.iter().map(ToString::to_string);
        let unix = self.unix.then(|| UNIX.to_owned());
        let versions = [(self.v1, Version::V1), (self.v2, Version::V2)];
        let versions = versions.iter().filter(|(taken, _)| *taken);
        let versions = versions.map(|(_, version)| version.word().to_owned());
        inline(&[
            ("from", one_line(networks.chain(unix))),
            ("versions", one_line(versions)),
            ("timeout", quote(&format_duration(self.timeout))),
        ])
    }
}

/// A list within an inline table.
fn one_line(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.map(|item| quote(&item)).collect();
    format!("[{}]", items.join(", "))
}

/// `accept_proxy =`.
pub(super) struct AcceptProxyKey;

impl Kind for AcceptProxyKey {
    type Value = Option<AcceptProxy>;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<Option<AcceptProxy>> {
        match &node.value {
            Value::Boolean(false) => Some(None),
            Value::Boolean(true) => Some(Some(everybody())),
            Value::Table(_) => read_table(key, node, report).map(Some),
            _ => {
                let mut accept = AcceptProxy::nobody();
                read_from(&mut accept, key, node, report);
                Some(Some(accept))
            }
        }
    }

    fn write(&self, value: &Option<AcceptProxy>) -> Option<String> {
        let write = |it: &AcceptProxy| it.write();
        Some(value.as_ref().map_or_else(|| "false".to_owned(), write))
    }

    fn words(&self) -> String {
        "networks or `\"unix\"`, a list of them, a table of `from`, `versions` and `timeout`, true \
         for everybody, or false"
            .to_owned()
    }

    fn schema(&self) -> Json {
        let from = one_or_list(&text_schema());
        json!({ "anyOf": [
            { "type": "boolean" },
            from,
            {
                "type": "object",
                "properties": {
                    "from": from,
                    "versions": one_or_list(&json!({ "enum": ["v1", "v2"] })),
                    "timeout": text_schema(),
                },
                "required": ["from"],
                "additionalProperties": false,
            },
        ]})
    }
}

fn everybody() -> AcceptProxy {
    let networks = ["0.0.0.0/0", "::/0"].iter();
    AcceptProxy {
        from: networks.filter_map(|it| it.parse().ok()).collect(),
        unix: true,
        ..AcceptProxy::nobody()
    }
}

fn read_table(key: &str, node: &Node, report: &mut Report) -> Option<AcceptProxy> {
    let mut table = TableReader::open(node, format!("`{key}`"), report)?;
    let mut accept = AcceptProxy::nobody();
    if let Some(node) = table.get("from") {
        read_from(&mut accept, "from", node, report);
    } else {
        let fault = Fault::new(format!(
            "`{key}` has no `from`: whose headers are believed?"
        ));
        let remedy = "such as from = [\"10.0.0.0/8\"]";
        report.consequence(&node.span, fault.remedy(remedy));
    }
    if let Some(node) = table.get("versions") {
        let nodes = nodes(node);
        (accept.v1, accept.v2) = (false, false);
        for node in nodes {
            match values::choice(node, Version::WORDS) {
                Ok(Version::V1) => accept.v1 = true,
                Ok(Version::V2) => accept.v2 = true,
                Err(fault) => report.error(&node.span, fault.of_key("versions")),
            }
        }
        if nodes.is_empty() {
            let fault = Fault::new("`versions`: the list is empty: no header would be taken");
            report.error(&node.span, fault.remedy("remove the key to take both"));
        }
    }
    let patience = time(Duration::from_millis(10)..=Duration::from_secs(3600));
    if let Some(timeout) = read_key(&mut table, "timeout", &patience, report) {
        accept.timeout = timeout;
    }
    table.close(report, &[]);
    Some(accept)
}

fn nodes(node: &Node) -> &[Node] {
    match &node.value {
        Value::Array(nodes) => nodes,
        _ => std::slice::from_ref(node),
    }
}

/// Every wrong one is reported.
fn read_from(accept: &mut AcceptProxy, key: &str, node: &Node, report: &mut Report) {
    let nodes = nodes(node);
    if nodes.is_empty() {
        let fault = Fault::new(format!(
            "`{key}`: the list is empty: every client would be turned away"
        ));
        let remedy = "name the networks of the proxies, such as \"10.0.0.0/8\"";
        report.error(&node.span, fault.remedy(remedy));
    }
    for node in nodes {
        match values::string(node) {
            Ok(UNIX) => accept.unix = true,
            Ok(text) => match network::parse(text) {
                Ok(network) => accept.from.push(network),
                Err(error) => {
                    let fault = Fault::new(error.problem).remedy(error.remedy);
                    report.error(&node.span, fault.of_key(key));
                }
            },
            Err(fault) => report.error(&node.span, fault.of_key(key)),
        }
    }
}

/// As [`list`], of networks.
pub(super) fn write_networks(networks: &[IpNet]) -> String {
    list(networks.iter().map(ToString::to_string))
}
