//! `source =` of a pool: the local addresses of its connects.

use std::net::IpAddr;

use super::raw::{Node, Value};
use super::report::{Fault, Report};
use super::server::WrittenServer;
use super::values;
use crate::net::address::Address;

/// Local addresses in one list: a /22, far more than port exhaustion calls for.
const SOURCES_MAX: usize = 1024;

/// An address of this host, several with commas, or a list of them.
pub(super) fn read(node: &Node) -> Result<Vec<IpAddr>, Fault> {
    let texts = match &node.value {
        Value::Array(nodes) => nodes
            .iter()
            .map(values::string)
            .collect::<Result<Vec<_>, _>>()?,
        _ => values::string(node)?.split(',').map(str::trim).collect(),
    };
    if texts.len() > SOURCES_MAX {
        return Err(Fault::new(format!(
            "{} addresses are too many; {SOURCES_MAX} is the most",
            texts.len()
        )));
    }
    texts.into_iter().map(source).collect()
}

fn source(text: &str) -> Result<IpAddr, Fault> {
    let short = || text.chars().take(60).collect::<String>();
    let Ok(ip) = text.parse::<IpAddr>() else {
        return Err(
            Fault::new(format!("`{}` is not an IP address", short())).remedy(
                "write addresses of this host without a port, such as [\"10.0.0.2\", \"10.0.0.3\"]",
            ),
        );
    };
    // An IPv4-mapped address is dialled from an IPv4 socket.
    let ip = ip.to_canonical();
    if ip.is_unspecified() || ip.is_multicast() {
        let fault = Fault::new(format!("`{ip}` cannot be the address of a host"));
        return Err(fault.remedy("leave it out for the kernel's choice"));
    }
    Ok(ip)
}

/// Every server whose family is sure has a source of that family: without one no
/// connect to it could succeed.
pub(super) fn check_families(sources: &[IpAddr], servers: &[WrittenServer], report: &mut Report) {
    if sources.is_empty() {
        return;
    }
    for server in servers {
        let Address::Inet(address) = &server.server().address else {
            continue;
        };
        if sources.iter().any(|ip| ip.is_ipv4() == address.is_ipv4()) {
            continue;
        }
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let fault = Fault::new(format!(
            "`{}` cannot be reached: `source` has no {family} address",
            server.written.range
        ));
        let remedy = format!("add an {family} address of this host to `source`");
        report.error(&server.written.span, fault.remedy(remedy));
    }
}
