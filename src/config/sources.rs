//! `source =` of a pool: the local addresses of its connects.

use std::net::IpAddr;

use super::raw::{Node, Value};
use super::report::{Fault, Report, Span};
use super::server::WrittenServer;
use super::values;
use crate::net::address::Address;

/// Local addresses in one list: a /22, far more than port exhaustion calls for.
const SOURCES_MAX: usize = 1024;

/// An address of this host, several with commas, or a list of them. Empty where one
/// is wrong, which has been reported: families are then not judged.
pub(super) fn read(node: &Node, report: &mut Report) -> Vec<IpAddr> {
    let errors = report.count();
    let mut found = Vec::new();
    match &node.value {
        Value::Array(nodes) => {
            for node in nodes {
                add(node, &mut found, report);
            }
        }
        _ => add(node, &mut found, report),
    }
    if found.len() > SOURCES_MAX {
        let fault = Fault::new(format!(
            "`source`: {} addresses are too many; {SOURCES_MAX} is the most",
            found.len()
        ));
        report.error(&node.span, fault);
    }
    if report.count() > errors {
        found.clear();
    }
    found
}

/// One string: an address, or several with commas.
fn add(node: &Node, found: &mut Vec<IpAddr>, report: &mut Report) {
    let mut refuse = |span: &Span, mut fault: Fault| {
        fault.message = format!("`source`: {}", fault.message);
        report.error(span, fault);
    };
    let text = match values::string(node) {
        Ok(text) => text,
        Err(fault) => return refuse(&node.span, fault),
    };
    for part in text.split(',') {
        match source(part.trim()) {
            Ok(ip) => found.push(ip),
            Err(fault) => refuse(&node.span, fault),
        }
    }
}

fn source(text: &str) -> Result<IpAddr, Fault> {
    let Ok(ip) = text.parse::<IpAddr>() else {
        let short: String = text.chars().take(60).collect();
        let fault = Fault::new(format!("`{short}` is not an IP address"));
        let remedy =
            "write addresses of this host without a port, such as [\"10.0.0.2\", \"10.0.0.3\"]";
        return Err(fault.remedy(remedy));
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
