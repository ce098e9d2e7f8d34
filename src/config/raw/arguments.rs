//! The command line as part of the tree: `-l`/`-r` pairs become `[[forward]]`
//! tables, `--set` and the flags that are short for it replace values.
//!
//! Both end in the same nodes as the file does, so one resolver checks all of it.

use std::ops::Range;

use toml_edit::{Document, Key};

use super::node::{KeyNode, Node, Value};
use super::toml;
use crate::config::inputs::{Override, Pair};
use crate::config::report::{Fault, Report, SourceId, SourceKind, Span, nearest};

/// Adds the forward that `-l LISTEN -r UPSTREAM` means; half a pair is an error.
pub(in crate::config) fn add_pair(report: &mut Report, root: &mut Node, pair: &Pair) {
    let mut side = |flag: &str, text: &String| {
        let source = report.add_source(SourceKind::Argument, format!("{flag} {text}"), text);
        Span {
            source,
            range: 0..text.len(),
        }
    };
    let listen = pair.listen.as_ref().map(|text| side("-l", text));
    let upstream = pair.upstream.as_ref().map(|text| side("-r", text));
    let (listen, upstream) = match (listen, upstream) {
        (Some(listen), Some(upstream)) => (listen, upstream),
        (Some(listen), None) => {
            let fault = Fault::new("this listener has no upstream: a `-r` is missing")
                .remedy("give one `-r HOST:PORT` for each `-l`, in the same order");
            return report.error(&listen, fault);
        }
        (None, Some(upstream)) => {
            let fault = Fault::new("this upstream has no listener: a `-l` is missing")
                .remedy("give one `-l ADDRESS:PORT` for each `-r`, in the same order");
            return report.error(&upstream, fault);
        }
        (None, None) => return,
    };
    let entry = |key: &str, span: Span, text: String| KeyNode {
        key: key.to_owned(),
        key_span: span.clone(),
        node: Node::new(Value::String(text), span),
    };
    let texts = [&pair.listen, &pair.upstream].map(|text| text.clone().unwrap_or_default());
    let [(of_listen, listen_text), (of_upstream, upstream_text)] = texts.map(without_protocol);
    if let (Some(one), Some(other)) = (&of_listen, &of_upstream)
        && one != other
    {
        let fault = Fault::new(format!("`{other}:` goes with no listener of `{one}:`"));
        report.error(&upstream, fault.remedy("write the same before both"));
    }
    let span = listen.clone();
    let mut entries = vec![
        entry("listen", listen, listen_text),
        entry("upstream", upstream, upstream_text),
    ];
    if let Some(protocol) = of_listen.or(of_upstream) {
        entries.push(entry("protocol", span.clone(), protocol));
    }
    let forward = Node::new(Value::Table(entries), span.clone());
    if let Value::Table(entries) = &mut root.value {
        match entries.iter_mut().find(|entry| entry.key == "forward") {
            Some(entry) => {
                // Anything but a list is refused by the resolver.
                if let Value::Array(forwards) = &mut entry.node.value {
                    forwards.push(forward);
                }
            }
            None => entries.push(KeyNode {
                key: "forward".to_owned(),
                key_span: span.clone(),
                node: Node::new(Value::Array(vec![forward]), span),
            }),
        }
    }
}

/// `udp::53` is `:53`, for datagrams; each of several addresses may say so.
fn without_protocol(text: String) -> (Option<String>, String) {
    let protocol = ["udp", "tcp"].into_iter().find(|protocol| {
        let rest = text.strip_prefix(protocol);
        rest.is_some_and(|rest| rest.starts_with(':') && rest[1..].contains(':'))
    });
    let Some(protocol) = protocol else {
        return (None, text);
    };
    let addresses = text.split(',').map(|address| {
        let rest = address.strip_prefix(protocol);
        rest.and_then(|rest| rest.strip_prefix(':'))
            .unwrap_or(address)
    });
    let rest = addresses.collect::<Vec<_>>().join(",");
    (Some(protocol.to_owned()), rest)
}

/// Replaces one value in the tree; what is wrong with the key is reported here,
/// what is wrong with the value later, at the same place.
pub(in crate::config) fn add_override(report: &mut Report, root: &mut Node, change: &Override) {
    let (flag, text) = (&change.flag, &change.text);
    let source = report.add_source(SourceKind::Argument, format!("{flag} {text}"), text);
    let span = |range: Range<usize>| Span { source, range };
    let (path, value) = match &change.key {
        Some(key) => {
            let node = toml_or_text(text, span(0..text.len()));
            (key.split('.').map(str::to_owned).collect(), node)
        }
        None => match key_and_value(source, text, root) {
            Ok(both) => both,
            Err(fault) => return report.error(&span(0..text.len()), fault),
        },
    };
    let key_end = text.find('=').filter(|_| change.key.is_none());
    let key_span = span(0..key_end.unwrap_or(text.len()));
    if let Err(fault) = place(root, &path, &key_span, value) {
        report.error(&key_span, fault);
    }
}

/// Splits `KEY=VALUE`. A value that is TOML is taken as TOML, anything else as text,
/// so that a shell needs no second pair of quotes.
fn key_and_value(source: SourceId, text: &str, root: &Node) -> Result<(Vec<String>, Node), Fault> {
    const FORM: &str = "write KEY=VALUE, such as defaults.idle_timeout=5s";
    let Some((key, value)) = text.split_once('=') else {
        return Err(Fault::new("there is no `=`").remedy(FORM));
    };
    let path = match path_of(key) {
        _ if key.starts_with("forward.") => of_forward(key, root)?,
        Some(path) => path,
        None => return Err(Fault::new(format!("`{key}` is not a key")).remedy(FORM)),
    };
    let offset = key.len() + 1;
    let span = Span {
        source,
        range: offset..text.len(),
    };
    Ok((path, toml_or_text(value, span)))
}

fn path_of(key: &str) -> Option<Vec<String>> {
    let keys = Key::parse(key).ok()?;
    Some(keys.iter().map(|key| key.get().to_owned()).collect())
}

/// `forward.NAME.KEY`, whose name may be an address with dots and colons and needs no
/// quotes of its own: it is one of those that there are.
fn of_forward(key: &str, root: &Node) -> Result<Vec<String>, Fault> {
    let rest = key.strip_prefix("forward.").unwrap_or(key);
    let names = names_of_forwards(root);
    let begins = |name: &&String| {
        let rest = rest.strip_prefix(name.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if let Some(name) = names.iter().filter(begins).max_by_key(|name| name.len()) {
        let tail = rest[name.len()..].strip_prefix('.').unwrap_or_default();
        let mut path = vec!["forward".to_owned(), name.clone()];
        if !tail.is_empty() {
            let unknown = || Fault::new(format!("`{tail}` is not a key"));
            path.extend(path_of(tail).ok_or_else(unknown)?);
        }
        return Ok(path);
    }
    path_of(key).ok_or_else(|| {
        // Not TOML, so no forward of the file is meant.
        let (name, key) = rest.rsplit_once('.').unwrap_or((rest, ""));
        no_such_forward(name, key, &names)
    })
}

fn toml_or_text(value: &str, span: Span) -> Node {
    const PREFIX: &str = "v=";
    let parsed = Document::parse(format!("{PREFIX}{value}")).ok();
    let parsed = parsed.and_then(|document| {
        // More than one key: the value holds a line end and another statement.
        let single = document.len() == 1;
        let table = toml::table_value(span.source, document.as_table(), 0..0);
        match table {
            Value::Table(mut entries) if single => entries.pop(),
            _ => None,
        }
    });
    let shift = |span_of_copy: &mut Span| {
        let range = &mut span_of_copy.range;
        let at = |offset: usize| (offset + span.range.start).saturating_sub(PREFIX.len());
        *range = at(range.start)..at(range.end);
    };
    match parsed {
        Some(entry) => {
            let mut node = entry.node;
            for_each_span(&mut node, &shift);
            node
        }
        None => Node::new(Value::String(value.to_owned()), span),
    }
}

fn for_each_span(node: &mut Node, change: &impl Fn(&mut Span)) {
    change(&mut node.span);
    match &mut node.value {
        Value::Array(nodes) => {
            for node in nodes {
                for_each_span(node, change);
            }
        }
        Value::Table(entries) => {
            for entry in entries {
                change(&mut entry.key_span);
                for_each_span(&mut entry.node, change);
            }
        }
        _ => {}
    }
}

/// Puts `value` at `path`, making tables on the way. A forward is named by its name.
fn place(root: &mut Node, path: &[String], key_span: &Span, value: Node) -> Result<(), Fault> {
    let mut node = root;
    let mut path_left = path;
    if let [forward, name, rest @ ..] = path
        && forward == "forward"
    {
        node = forward_named(node, name, rest)?;
        path_left = rest;
        if rest.is_empty() {
            let fault = Fault::new("a key of the forward must follow its name");
            return Err(fault.remedy(format!("such as forward.{name}.data_path=splice")));
        }
    }
    for (index, key) in path_left.iter().enumerate() {
        let kind = node.kind();
        let Value::Table(entries) = &mut node.value else {
            let above = path[..path.len() - path_left.len() + index].join(".");
            let fault = Fault::new(format!("`{above}` is {kind}: it has no key `{key}`"));
            return Err(fault.remedy(format!("set all of it: {above}=VALUE")));
        };
        let at = entries.iter().position(|entry| entry.key == *key);
        let at = at.unwrap_or_else(|| {
            entries.push(KeyNode {
                key: key.clone(),
                key_span: key_span.clone(),
                node: Node::new(Value::Table(Vec::new()), key_span.clone()),
            });
            entries.len() - 1
        });
        node = &mut entries[at].node;
    }
    *node = value;
    Ok(())
}

/// The forward of that name, or without a name and with that `listen`.
fn forward_named<'n>(
    root: &'n mut Node,
    wanted: &str,
    rest: &[String],
) -> Result<&'n mut Node, Fault> {
    let nothing = || Fault::new("there is no [[forward]] that this could change");
    let Value::Table(entries) = &mut root.value else {
        return Err(nothing());
    };
    let entry = entries.iter_mut().find(|entry| entry.key == "forward");
    let Some(Value::Array(forwards)) = entry.map(|entry| &mut entry.node.value) else {
        return Err(nothing());
    };
    let names: Vec<String> = forwards.iter().map(forward_name).collect();
    if let Some(at) = names.iter().position(|name| name == wanted) {
        return Ok(&mut forwards[at]);
    }
    Err(no_such_forward(wanted, &rest.join("."), &names))
}

/// With the whole key that was probably meant.
fn no_such_forward(wanted: &str, rest: &str, names: &[String]) -> Fault {
    let fault = Fault::new(format!("there is no forward named `{wanted}`"));
    let tail = if rest.is_empty() { "KEY" } else { rest };
    // A port alone: the forward that listens there.
    let port = format!(":{wanted}");
    let by_port = names.iter().find(|name| name.ends_with(&port));
    let near = by_port
        .map(String::as_str)
        .or_else(|| nearest(wanted, names.iter().map(String::as_str)));
    match near {
        Some(name) => fault.remedy(format!("did you mean forward.{name}.{tail}?")),
        None if names.is_empty() => fault.remedy("there is no [[forward]] to change"),
        None => fault.remedy(format!("the forwards are: {}", names.join(", "))),
    }
}

fn names_of_forwards(root: &Node) -> Vec<String> {
    match root.entry("forward").map(|entry| &entry.node.value) {
        Some(Value::Array(forwards)) => forwards.iter().map(forward_name).collect(),
        _ => Vec::new(),
    }
}

fn forward_name(forward: &Node) -> String {
    let first = |node: &Node| match &node.value {
        Value::String(text) => text.clone(),
        Value::Array(nodes) => match nodes.first().map(|node| &node.value) {
            Some(Value::String(text)) => text.clone(),
            _ => String::new(),
        },
        _ => String::new(),
    };
    ["name", "listen"]
        .iter()
        .find_map(|key| forward.entry(key))
        .map_or_else(String::new, |entry| first(&entry.node))
}
