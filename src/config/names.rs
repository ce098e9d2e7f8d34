//! The keys of `[global]` that say where names are looked up.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde_json::json;

use super::kind::{Composite, Special, one_or_list, text_schema};
use super::raw::{Node, Value};
use super::report::{Fault, Report};
use super::section::section;
use super::text::{list, quote};
use super::values;

/// Where DNS servers listen (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;

/// Servers at the most: behind so many silent ones no answer comes in time.
const SERVERS_MAX: usize = 8;

section! {
    /// Where names are looked up; by default as the system does.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct NameSources, WrittenNames {
        keys {
            /// Name servers, asked in this order, port 53 unless given: `["10.0.0.2",
            /// "127.0.0.1:5353"]`; `[]` is those of `resolv_conf`, whose search list and options
            /// count either way ([names](names.md)).
            dns_servers: Vec<SocketAddr> = Vec::new(), dns_servers(), Restart;
            /// Name servers, search list and options, as resolv.conf(5); read again when it has
            /// changed.
            resolv_conf: PathBuf = "/etc/resolv.conf".into(), system_path(), Restart;
            /// Names with their addresses, as hosts(5), which go before DNS; read again when it
            /// has changed.
            hosts: PathBuf = "/etc/hosts".into(), system_path(), Restart;
        }
    }
}

fn dns_servers() -> Composite<Vec<SocketAddr>> {
    Composite {
        read: |_, node, report| Some(servers(node, report)),
        write: |servers| Some(list(servers.iter().map(SocketAddr::to_string))),
        words: "list of addresses",
        schema: || one_or_list(&text_schema()),
    }
}

fn system_path() -> Special<PathBuf> {
    Special {
        read: path,
        // Read from a text or a constant, so UTF-8.
        write: |path| quote(&path.to_string_lossy()),
        words: "path",
        schema: || json!({ "type": "string", "pattern": "^/" }),
    }
}

/// A list of addresses, or one string with commas.
fn servers(node: &Node, report: &mut Report) -> Vec<SocketAddr> {
    let nodes = match &node.value {
        Value::Array(nodes) => nodes.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut found = Vec::new();
    for node in nodes {
        let text = match values::string(node) {
            Ok(text) => text,
            Err(fault) => {
                report.error(&node.span, fault.of_key("dns_servers"));
                continue;
            }
        };
        let mut offset = 0;
        for item in text.split(',') {
            let part = item.trim();
            let lead = item.len() - item.trim_start().len();
            match server(part) {
                Ok(server) => found.push(server),
                Err(fault) => {
                    let span = node.part_span(report, offset + lead, part);
                    report.error(&span, fault.of_key("dns_servers"));
                }
            }
            offset += item.len() + 1;
        }
    }
    if found.len() > SERVERS_MAX {
        let fault = Fault::new(format!("these are more than {SERVERS_MAX} servers"));
        report.error(
            &node.span,
            fault
                .remedy("two or three are enough")
                .of_key("dns_servers"),
        );
        found.truncate(SERVERS_MAX);
    }
    found
}

/// `10.0.0.2`, `10.0.0.2:5353`, `::1`, `[::1]:5353`.
fn server(text: &str) -> Result<SocketAddr, Fault> {
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let address = match bare.unwrap_or(text).parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, DNS_PORT),
        Err(_) => text.parse::<SocketAddr>().map_err(|_| {
            let short: String = text.chars().take(60).collect();
            let fault = Fault::new(format!("`{}` is not an IP address", short.escape_debug()));
            fault.remedy("such as \"10.0.0.2\", \"127.0.0.1:5353\" or \"[::1]:5353\"")
        })?,
    };
    if address.ip().is_unspecified() || address.ip().is_multicast() {
        return Err(Fault::new(format!("{} cannot be asked", address.ip()))
            .remedy("write the address of a name server"));
    }
    if address.port() == 0 {
        return Err(Fault::new("port 0 cannot be asked").remedy("leave the port out for 53"));
    }
    Ok(address)
}

fn path(node: &Node) -> Result<PathBuf, Fault> {
    match values::string(node)? {
        "" => Err(Fault::new("the path is empty").remedy("leave the key out for the system's")),
        text if text.contains('\0') => {
            Err(Fault::new("a path cannot contain a NUL byte").remedy("remove it"))
        }
        text if !text.starts_with('/') => {
            Err(Fault::new("the path must begin at the root").remedy("such as \"/etc/hosts\""))
        }
        text => Ok(text.into()),
    }
}
