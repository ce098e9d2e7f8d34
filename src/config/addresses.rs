//! Lists of addresses, each with its place.

use super::raw::{Node, Value};
use super::report::{Fault, Report, Span};
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

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Listen,
    Server,
}

/// Addresses to listen on: a string, several with commas, or a list of strings.
pub(super) fn listeners(key: &str, node: &Node, report: &mut Report) -> Vec<Written> {
    let mut found = Vec::new();
    match &node.value {
        Value::Array(nodes) => {
            refuse_empty(key, node, nodes, report);
            for node in nodes {
                found.extend(text(key, node, Use::Listen, report));
            }
        }
        _ => found.extend(text(key, node, Use::Listen, report)),
    }
    found
}

pub(super) fn refuse_empty(key: &str, node: &Node, nodes: &[Node], report: &mut Report) {
    if nodes.is_empty() {
        let fault = Fault::new(format!("`{key}`: the list is empty"));
        let remedy = "it needs at least one address, such as \"10.0.0.1:443\"";
        report.error(&node.span, fault.remedy(remedy));
    }
}

/// One string: an address, or several with commas.
pub(super) fn text(key: &str, node: &Node, purpose: Use, report: &mut Report) -> Vec<Written> {
    let mut found = Vec::new();
    let text = match values::string(node) {
        Ok(text) => text,
        Err(mut fault) => {
            if let Value::Integer(port @ 0..=65_535) = &node.value {
                fault = Fault::new("this must be an address in quotes, not a number");
                fault = fault.remedy(match purpose {
                    Use::Listen => format!("write \":{port}\""),
                    Use::Server => format!("write \"HOST:{port}\", such as \"127.0.0.1:{port}\""),
                });
            }
            fault.message = format!("`{key}`: {}", fault.message);
            report.error(&node.span, fault);
            return found;
        }
    };
    let mut offset = 0;
    for item in text.split(',') {
        let part = item.trim();
        let lead = item.len() - item.trim_start().len();
        let span = node.part_span(report, offset + lead, part);
        offset += item.len() + 1;
        let read = part.parse::<AddressRange>().and_then(|range| {
            match purpose {
                Use::Listen => range.first().check_listener()?,
                Use::Server => range.first().check_server()?,
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
    found
}
