//! The keys of `[global]` that say what this process may do besides forwarding.

use std::path::PathBuf;

use serde_json::json;

use super::kind::{Composite, Optional, choice, one_or_list, text_schema};
use super::raw::{Node, Value};
use super::report::{Fault, Report};
use super::section::section;
use super::text::{list, quote};
use super::unix_file::who;
use super::values;
use super::words::words;
use crate::net::listener::Who;

section! {
    /// What this process may do: see [service](service.md).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Confine, WrittenConfine {
        keys {
            /// Started as root: the user that it is before a socket or a file is opened, a name
            /// or a number. It keeps the capabilities that the configuration needs, usually none.
            user: Option<Who> = None, Optional(who()), Restart,
                shown "as started", example "\"thalweg\"";
            /// And the group, instead of the user's own.
            group: Option<Who> = None, Optional(who()), Restart,
                shown "the user's", example "\"thalweg\"";
            /// Files, TCP ports and system calls that the configuration has no need of are denied
            /// by the kernel: as far as this one can, or not at all, or not without all of it.
            sandbox: Sandbox = Sandbox::Off, choice(), Restart;
            /// Further files and folders that a later configuration may read, and write logs and
            /// taps to.
            sandbox_paths: Vec<PathBuf> = Vec::new(), paths(), Restart,
                example "[\"/etc/thalweg\"]";
            /// Further TCP ports that a later configuration may listen on and connect to:
            /// `[443, "8000-8099"]`.
            sandbox_ports: Vec<(u16, u16)> = Vec::new(), ports(), Restart,
                example "[443, \"8000-8099\"]";
        }
    }
}

words! {
    /// `sandbox =`.
    pub enum Sandbox {
        /// Nothing is denied.
        Off = "off",
        /// What this kernel can deny; the start says what that is.
        Auto = "auto",
        /// All of it, or there is no start.
        On = "on",
    }
}

/// The values of a list, or the only one.
fn each(node: &Node) -> &[Node] {
    match &node.value {
        Value::Array(nodes) => nodes,
        _ => std::slice::from_ref(node),
    }
}

/// All that can be read; the rest is reported.
fn collect<T>(
    key: &'static str,
    node: &Node,
    report: &mut Report,
    read: impl Fn(&Node) -> Result<T, Fault>,
) -> Vec<T> {
    let mut found = Vec::new();
    for node in each(node) {
        match read(node) {
            Ok(value) => found.push(value),
            Err(fault) => report.error(&node.span, fault.of_key(key)),
        }
    }
    found
}

fn paths() -> Composite<Vec<PathBuf>> {
    Composite {
        read: |_, node, report| Some(collect("sandbox_paths", node, report, path)),
        // Read from texts, so UTF-8.
        write: |paths| {
            Some(list(
                paths.iter().map(|it| it.to_string_lossy().into_owned()),
            ))
        },
        words: "list of paths",
        schema: || one_or_list(&text_schema()),
    }
}

fn path(node: &Node) -> Result<PathBuf, Fault> {
    let text = values::string(node)?;
    if !text.starts_with('/') || text.contains('\0') {
        return Err(Fault::new("this is no path from the root").remedy("such as \"/etc/thalweg\""));
    }
    Ok(text.into())
}

fn ports() -> Composite<Vec<(u16, u16)>> {
    Composite {
        read: |_, node, report| Some(collect("sandbox_ports", node, report, ports_of)),
        write: |ports| {
            let each = ports.iter().map(|(first, last)| {
                if first == last {
                    first.to_string()
                } else {
                    quote(&format!("{first}-{last}"))
                }
            });
            Some(format!("[{}]", each.collect::<Vec<_>>().join(", ")))
        },
        words: "list of ports",
        schema: || {
            one_or_list(&json!({ "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": 65_535 },
            { "type": "string", "pattern": "^[0-9]+-[0-9]+$" },
        ] }))
        },
    }
}

fn ports_of(node: &Node) -> Result<(u16, u16), Fault> {
    if let Value::Integer(_) = &node.value {
        let port = values::integer(node, 1..=65_535)?;
        return Ok((port, port));
    }
    let wrong = || Fault::new("these are no ports").remedy("such as 443 or \"8000-8099\"");
    let (first, last) = values::string(node)?.split_once('-').ok_or_else(wrong)?;
    let port = |text: &str| text.parse::<u16>().ok().filter(|it| *it > 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(wrong()),
    }
}
