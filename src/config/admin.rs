//! `[admin]` and `[metrics]`: where the process can be looked at and steered.

use std::path::PathBuf;

use super::addresses::listeners;
use super::kind::{Composite, Optional, Special, one_or_list, text_schema};
use super::raw::{Node, Value};
use super::report::{Fault, Report};
use super::section::section;
use super::text::{list, quote};
use super::values;
use crate::net::address::Address;

section! {
    /// `[admin]`: where the process can be looked at and steered, over HTTP.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Admin, WrittenAdmin {
        keys {
            /// `"auto"` is a unix socket in the runtime directory, where that can be made: see
            /// [admin](admin.md). Only the user of the process may connect to a unix socket; TCP
            /// needs `token_file`.
            listen: AdminListen = AdminListen::Auto, admin_listen(), Restart,
                example "\"auto\"";
            /// The token that requests over TCP bear, alone in a file that nobody but its owner
            /// can read.
            token_file: Option<PathBuf> = None, Optional(token_file()), Restart,
                shown "none", example "\"/etc/thalweg/admin.token\"";
            /// Host names by which the endpoint may be asked for over TCP, besides addresses and
            /// `localhost`.
            hosts: Vec<String> = Vec::new(), hosts(), Restart;
        }
    }
}

section! {
    /// `[metrics]`: a port for Prometheus alone.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Metrics, WrittenMetrics {
        keys {
            /// Where /metrics, /healthz and /readyz, and nothing else, can be read by anyone who
            /// can connect; `"off"` is nowhere.
            listen: Vec<Address> = Vec::new(), metrics_listen(), Restart,
                example "\"127.0.0.1:9090\"";
        }
    }
}

/// `[admin] listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminListen {
    /// A unix socket in the runtime directory, if that can be made.
    Auto,
    /// Nowhere, if empty; else at each of them, or the process does not start.
    At(Vec<Address>),
}

fn admin_listen() -> Composite<AdminListen> {
    Composite {
        read: |key, node, report| match &node.value {
            Value::String(text) if text == "auto" => Some(AdminListen::Auto),
            _ => Some(AdminListen::At(addresses(key, node, report))),
        },
        write: |listen| {
            Some(match listen {
                AdminListen::Auto => quote("auto"),
                AdminListen::At(addresses) => written(addresses),
            })
        },
        words: "`\"auto\"`, `\"off\"`, addresses",
        schema: || one_or_list(&text_schema()),
    }
}

fn metrics_listen() -> Composite<Vec<Address>> {
    Composite {
        read: |key, node, report| Some(addresses(key, node, report)),
        write: |addresses| Some(written(addresses)),
        words: "`\"off\"`, addresses",
        schema: || one_or_list(&text_schema()),
    }
}

fn written(addresses: &[Address]) -> String {
    match addresses {
        [] => quote("off"),
        addresses => list(addresses.iter().map(ToString::to_string)),
    }
}

/// `"off"`, or addresses; a range of ports is each of them.
fn addresses(key: &str, node: &Node, report: &mut Report) -> Vec<Address> {
    match &node.value {
        Value::String(text) if text == "off" => Vec::new(),
        _ => {
            let written = listeners(key, node, report);
            written.iter().flat_map(|it| it.range.expand()).collect()
        }
    }
}

fn token_file() -> Special<PathBuf> {
    Special {
        read: |node| match values::string(node)? {
            "" => Err(Fault::new("the path is empty")
                .remedy("write the path of a file that has the token in it")),
            text if text.contains('\0') => {
                Err(Fault::new("a path cannot contain a NUL byte").remedy("remove it"))
            }
            text => Ok(text.into()),
        },
        // Read from a text, so UTF-8.
        write: |path| quote(&path.to_string_lossy()),
        words: "path",
        schema: text_schema,
    }
}

fn hosts() -> Composite<Vec<String>> {
    Composite {
        read: |key, node, report| Some(read_hosts(key, node, report)),
        write: |hosts| Some(list(hosts.iter().cloned())),
        words: "list of host names",
        schema: || one_or_list(&text_schema()),
    }
}

fn read_hosts(key: &str, node: &Node, report: &mut Report) -> Vec<String> {
    let nodes = match &node.value {
        Value::Array(nodes) => nodes.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut hosts = Vec::new();
    for node in nodes {
        match values::string(node).and_then(host) {
            Ok(host) => hosts.push(host),
            Err(fault) => report.error(&node.span, fault.of_key(key)),
        }
    }
    hosts
}

/// A host name as browsers send it, without a port.
fn host(text: &str) -> Result<String, Fault> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.is_empty() || !text.chars().all(fits) {
        return Err(Fault::new("this is not a host name")
            .remedy("write it without a scheme and a port: \"forwarder.example\""));
    }
    Ok(text.trim_end_matches('.').to_ascii_lowercase())
}
