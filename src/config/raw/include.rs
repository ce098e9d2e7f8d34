//! `include = ["conf.d/*.toml"]`: other files, whose keys join those of the file that names
//! them.
//!
//! Forwards come after those that are there already, tables that several files have get the
//! keys of all, and whatever would be given twice is refused with both places. A file may
//! include others in turn; none is read twice.

use std::collections::BTreeMap;

use super::node::{KeyNode, Node, Value};
use super::toml::parse_file;
use crate::config::inputs::FileText;
use crate::config::report::{Fault, Report, SourceKind, Span};
use crate::config::surroundings::Surroundings;

/// The key.
pub(in crate::config) const KEY: &str = "include";

/// Files in all. More are a mistake, such as a folder of logs.
const FILES_MAX: usize = 10_000;

/// Tables whose keys may stand in several files.
const SHARED: [&str; 7] = [
    "global", "log", "admin", "metrics", "defaults", "profile", "upstream",
];

/// A file as a tree, with all that it includes. What is not UTF-8 is reported once, and the
/// rest still read.
pub(in crate::config) fn read(
    report: &mut Report,
    file: &FileText,
    around: &dyn Surroundings,
) -> Node {
    let mut included = Included {
        around,
        seen: BTreeMap::new(),
    };
    let root = included.parse(report, file);
    included.seen.insert(file.name.clone(), root.span.clone());
    included.follow(report, root, &file.name)
}

struct Included<'a> {
    around: &'a dyn Surroundings,
    /// Each file, and what named it.
    seen: BTreeMap<String, Span>,
}

impl Included<'_> {
    fn parse(&self, report: &mut Report, file: &FileText) -> Node {
        let text = String::from_utf8_lossy(&file.bytes);
        let source = report.add_source(SourceKind::File, &file.name, text.clone());
        if let Err(error) = std::str::from_utf8(&file.bytes) {
            report.mark_damaged();
            let start = error.valid_up_to();
            let span = Span {
                source,
                range: start..start + '\u{fffd}'.len_utf8(),
            };
            let fault = Fault::new("this byte is not UTF-8, which a TOML file must be");
            report.error(&span, fault.remedy("save the file as UTF-8"));
        }
        let mut root = parse_file(report, source, &text);
        super::environment::expand(report, &mut root, self.around);
        root
    }

    /// A tree with all that it includes.
    fn follow(&mut self, report: &mut Report, mut root: Node, name: &str) -> Node {
        for pattern in patterns(report, &mut root) {
            let Value::String(text) = &pattern.value else {
                continue;
            };
            let files = match self.around.include(name, text) {
                Ok(files) => files,
                Err(problem) => {
                    // Whatever is missing may stand in there.
                    report.mark_damaged();
                    report.error(&pattern.span, Fault::new(problem).of_key(KEY));
                    continue;
                }
            };
            for file in files {
                if self.is_new(report, &file.name, &pattern.span) {
                    let tree = self.parse(report, &file);
                    let tree = self.follow(report, tree, &file.name);
                    join(report, &mut root, tree);
                }
            }
        }
        root
    }

    fn is_new(&mut self, report: &mut Report, name: &str, by: &Span) -> bool {
        if let Some(earlier) = self.seen.get(name) {
            let place = report.describe(earlier, by);
            let fault = Fault::new(format!("`{KEY}`: {name} is read already ({place})"));
            report.error(by, fault.remedy("include each file once"));
            return false;
        }
        if self.seen.len() >= FILES_MAX {
            let fault = Fault::new(format!("`{KEY}`: more than {FILES_MAX} files"));
            report.error(by, fault.remedy("is this a folder of configurations?"));
            return false;
        }
        self.seen.insert(name.to_owned(), by.clone());
        true
    }
}

/// What `include` has, which is thereby taken out of the tree.
fn patterns(report: &mut Report, root: &mut Node) -> Vec<Node> {
    let Value::Table(entries) = &mut root.value else {
        return Vec::new();
    };
    let Some(at) = entries.iter().position(|entry| entry.key == KEY) else {
        return Vec::new();
    };
    let node = entries.remove(at).node;
    let nodes = match node.value {
        Value::Array(nodes) => nodes,
        _ => vec![node],
    };
    let is_text = |node: &Node| matches!(node.value, Value::String(_));
    for node in nodes.iter().filter(|it| !is_text(it)) {
        let fault = Fault::new(format!("`{KEY}`: this must be a path, not {}", node.kind()));
        report.error(
            &node.span,
            fault.remedy("such as include = [\"conf.d/*.toml\"]"),
        );
    }
    nodes.into_iter().filter(is_text).collect()
}

/// Adds what another file has.
fn join(report: &mut Report, root: &mut Node, other: Node) {
    let (Value::Table(entries), Value::Table(others)) = (&mut root.value, other.value) else {
        return;
    };
    for other in others {
        let Some(entry) = entries.iter_mut().find(|it| it.key == other.key) else {
            entries.push(other);
            continue;
        };
        match (&mut entry.node.value, other.node.value) {
            (Value::Array(nodes), Value::Array(others)) if entry.key == "forward" => {
                nodes.extend(others);
            }
            (Value::Table(entries), Value::Table(others)) if SHARED.contains(&&*entry.key) => {
                for other in others {
                    match entries.iter().find(|it| it.key == other.key) {
                        Some(earlier) => twice(report, &earlier.key_span, &other),
                        None => entries.push(other),
                    }
                }
            }
            (_, value) => {
                let node = Node {
                    value,
                    ..other.node
                };
                twice(report, &entry.key_span, &KeyNode { node, ..other });
            }
        }
    }
}

fn twice(report: &mut Report, earlier: &Span, again: &KeyNode) {
    let place = report.describe(earlier, &again.key_span);
    let fault = Fault::new(format!("`{}` is given twice ({place})", again.key));
    report.error(&again.key_span, fault.remedy("keep one of the two"));
}
