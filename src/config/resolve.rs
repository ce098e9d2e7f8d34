//! The raw tree to a [`Config`]: tables, defaults, profiles and pools. Forwards are
//! resolved next door (`forward`).
//!
//! It goes on behind every error with a default in its place, so that one run shows
//! all of them; a [`Config`] with any error in the report is thrown away.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::forward::{Forwards, Settings};
use super::pool::{self, Pool, WrittenPool};
use super::raw::{self, Entry, Node, TableReader, Value};
use super::report::{ConfigErrors, Fault, Report, SourceKind, Span, nearest};
use super::values::Limit;
use super::{Config, FileText, Global, Inputs, Log, LogTarget, Reactors};
use super::{choices, names, profile, values};
use crate::net::options::SocketOptions;

pub(super) fn load(inputs: &Inputs) -> Result<Config, ConfigErrors> {
    let mut report = Report::default();
    let mut root = match &inputs.file {
        Some(file) => read_file(&mut report, file),
        None => no_file(&mut report),
    };
    for pair in &inputs.pairs {
        raw::add_pair(&mut report, &mut root, pair);
    }
    for change in &inputs.overrides {
        raw::add_override(&mut report, &mut root, change);
    }
    let config = config(&root, &mut report);
    match report.into_errors() {
        None => Ok(config),
        Some(errors) => Err(errors),
    }
}

fn no_file(report: &mut Report) -> Node {
    let source = report.add_source(SourceKind::Argument, "the command line", "");
    Node {
        value: Value::Table(Vec::new()),
        span: Span {
            source,
            range: 0..0,
        },
    }
}

/// What is not UTF-8 is reported once, and the rest still read.
fn read_file(report: &mut Report, file: &FileText) -> Node {
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
    raw::parse_file(report, source, &text)
}

/// What `[[forward]]`s refer to by name.
pub(super) struct Names {
    profiles: BTreeMap<String, SocketOptions>,
    pools: BTreeMap<String, WrittenPool>,
    /// What pools start from.
    base_pool: Pool,
    /// Profiles and pools that some forward names.
    used_profiles: BTreeSet<String>,
    used_pools: BTreeSet<String>,
    /// Named pools that some forward has.
    shared: HashSet<Arc<Pool>>,
}

fn config(root: &Node, report: &mut Report) -> Config {
    let mut config = Config {
        global: Global::default(),
        log: Log::default(),
        profiles: BTreeMap::from([("default".to_owned(), profile::built_in())]),
        forwards: Vec::new(),
    };
    let Some(mut table) = TableReader::open(root, "the file", report) else {
        return config;
    };
    if let Some(node) = table.get("global") {
        global(node, &mut config.global, report);
    }
    if let Some(node) = table.get("log") {
        log(node, &mut config.log, report);
    }
    let profile_nodes = table.get("profile");
    let mut names = Names {
        profiles: config.profiles,
        pools: BTreeMap::new(),
        base_pool: base_pool(table.get("defaults"), report),
        used_profiles: BTreeSet::new(),
        used_pools: BTreeSet::new(),
        shared: HashSet::new(),
    };
    for entry in named_tables(profile_nodes, "profile", report) {
        let title = format!("[profile.{}]", entry.key);
        let options = profile::read(&entry.node, &title, report);
        names.profiles.insert(entry.key.clone(), options);
    }
    let pool_nodes = table.get("upstream");
    for entry in named_tables(pool_nodes, "upstream", report) {
        // One key that `--set` made is no pool; a misspelt name is told below.
        if report.is_argument(&entry.key_span) && entry.node.entry("servers").is_none() {
            continue;
        }
        let pool = WrittenPool::named(entry, &names.base_pool, report);
        names.pools.insert(entry.key.clone(), pool);
    }
    let defaults = match table.get("defaults") {
        Some(node) => defaults(node, &names, report),
        None => Settings::default(),
    };
    let mut forwards = Forwards::new(defaults);
    match table.get("forward").map(|node| (node, &node.value)) {
        Some((_, Value::Array(nodes))) => {
            for node in nodes {
                forwards.read(node, &mut names, report);
            }
        }
        Some((node, _)) => {
            let fault = Fault::new(format!("`forward` must be a list, not {}", node.kind()));
            let fault = fault.remedy("start each forward with `[[forward]]`, two brackets");
            report.error(&node.span, fault);
        }
        None => {}
    }
    if forwards.none_seen() && table.get("forward").is_none_or(is_empty_list) {
        let fault = Fault::new("there is nothing to forward");
        let remedy = "add a [[forward]] with `listen` and `upstream` to a file, or give -l and -r";
        report.consequence(&root.span, fault.remedy(remedy));
    }
    refuse_useless_overrides(profile_nodes, "profile", &names.used_profiles, report);
    refuse_useless_overrides(pool_nodes, "pool", &names.used_pools, report);
    table.close(report, &[]);
    config.profiles = names.profiles;
    config.forwards = forwards.finish();
    config
}

fn is_empty_list(node: &Node) -> bool {
    matches!(&node.value, Value::Array(nodes) if nodes.is_empty())
}

/// The entries of `[profile]` or `[upstream]`, whose keys are names.
fn named_tables<'n>(node: Option<&'n Node>, what: &str, report: &mut Report) -> &'n [Entry] {
    let title = format!("`{what}`");
    let table = node.and_then(|node| TableReader::open(node, title, report));
    let entries = table.map_or(&[][..], |table| table.entries());
    for entry in entries {
        let checked = match what {
            "upstream" => pool::check_name(&entry.key),
            _ => values::check_name(&entry.key),
        };
        if let Err(fault) = checked {
            report.error(&entry.key_span, fault);
        }
    }
    entries
}

fn global(node: &Node, global: &mut Global, report: &mut Report) {
    let Some(mut table) = TableReader::open(node, "[global]", report) else {
        return;
    };
    let t = &mut table;
    let was = global.clone();
    let reactors = t.read("reactors", report, reactors);
    global.reactors = reactors.unwrap_or(was.reactors);
    let engine = t.read("engine", report, |n| values::choice(n, choices::ENGINES));
    global.engine = engine.unwrap_or(was.engine);
    let connections = t.read("max_connections", report, values::connections);
    global.max_connections = connections.and_then(Limit::count);
    let scratch = t.read("scratch_buffer", report, |n| {
        values::size(n, 4 << 10..=16 << 20)
    });
    global.scratch_buffer = scratch.unwrap_or(was.scratch_buffer);
    let pipe = t.read("pipe_size", report, |n| values::size(n, 4 << 10..=1 << 30));
    global.pipe_size = pipe.unwrap_or(was.pipe_size);
    let limit = t.read("buffer_limit", report, |n| {
        values::size(n, 1 << 20..=1 << 50)
    });
    global.buffer_limit = limit.unwrap_or(was.buffer_limit);
    let busy_poll = t.read("busy_poll", report, |n| {
        let (longest, step) = (Duration::from_secs(1), Duration::from_micros(1));
        values::duration(n, Duration::ZERO..=longest, step)
    });
    global.busy_poll = busy_poll.unwrap_or(was.busy_poll);
    names::read(t, &mut global.names, report);
    table.close(report, &[]);
}

fn reactors(node: &Node) -> Result<Reactors, Fault> {
    match &node.value {
        Value::String(text) if text == "auto" => Ok(Reactors::Auto),
        Value::String(text) if text.parse::<u16>().is_err() => {
            Err(Fault::new("this must be a number or \"auto\"")
                .remedy("\"auto\" is one for each core this process may use"))
        }
        _ => values::integer(node, 1..=1024).map(Reactors::Count),
    }
}

fn log(node: &Node, log: &mut Log, report: &mut Report) {
    let Some(mut table) = TableReader::open(node, "[log]", report) else {
        return;
    };
    let t = &mut table;
    let level = t.read("level", report, |n| values::choice(n, choices::LOG_LEVELS));
    log.level = level.unwrap_or(log.level);
    let format = t.read("format", report, |n| {
        values::choice(n, choices::LOG_FORMATS)
    });
    log.format = format.unwrap_or(log.format);
    let sessions = t.read("sessions", report, |n| {
        values::choice(n, choices::SESSION_LOGS)
    });
    log.sessions = sessions.unwrap_or(log.sessions);
    if let Some(to) = t.read("to", report, log_target) {
        log.to = to;
    }
    table.close(report, &[]);
}

/// `stdout`, `stderr`, or a path. A path needs a slash, so that a misspelt word
/// does not become a file.
fn log_target(node: &Node) -> Result<LogTarget, Fault> {
    let text = values::string(node)?;
    match text {
        "stdout" => Ok(LogTarget::Stdout),
        "stderr" => Ok(LogTarget::Stderr),
        path if path.contains('\0') => Err(Fault::new("a path cannot contain a NUL byte")),
        path if path.ends_with('/') => Err(Fault::new("this is a directory, not a file")),
        path if path.contains('/') => Ok(LogTarget::File(PathBuf::from(path))),
        word => {
            let fault = Fault::new("this is neither \"stdout\" nor \"stderr\" nor a path");
            Err(match nearest(word, ["stdout", "stderr"]) {
                Some(known) => fault.remedy(format!("did you mean \"{known}\"?")),
                None => fault.remedy(format!("write a file with a slash: \"./{word}\"")),
            })
        }
    }
}

fn defaults(node: &Node, names: &Names, report: &mut Report) -> Settings {
    let Some(mut table) = TableReader::open(node, "[defaults]", report) else {
        return Settings::default();
    };
    let settings = Settings::read(&mut table, names, report);
    // Read before the pools: see `base_pool`.
    table.get("upstream");
    table.close(report, &[]);
    settings
}

/// `[defaults.upstream]`, which pools need before `[defaults]` as a whole is read.
fn base_pool(defaults: Option<&Node>, report: &mut Report) -> Pool {
    match defaults.and_then(|node| node.entry("upstream")) {
        Some(entry) => WrittenPool::base(&entry.node, report),
        None => Pool::new(Vec::new()),
    }
}

/// A profile or a pool that only `--set` made and no forward uses is a slip of the
/// fingers: without this it would be ignored in silence.
fn refuse_useless_overrides(
    nodes: Option<&Node>,
    what: &str,
    used: &BTreeSet<String>,
    report: &mut Report,
) {
    let Some(Value::Table(entries)) = nodes.map(|node| &node.value) else {
        return;
    };
    for entry in entries {
        if !report.is_argument(&entry.key_span) || used.contains(&entry.key) {
            continue;
        }
        let fault = Fault::new(format!("no forward uses a {what} named `{}`", entry.key));
        let known = used.iter().map(String::as_str);
        let remedy = match nearest(&entry.key, known.clone()) {
            Some(name) => format!("did you mean `{name}`?"),
            None if used.is_empty() => format!("no forward names a {what}"),
            None => format!("{what}s in use: {}", known.collect::<Vec<_>>().join(", ")),
        };
        report.consequence(&entry.key_span, fault.remedy(remedy));
    }
}

impl Names {
    /// What pools start from that do not say otherwise.
    pub(super) const fn base_pool(&self) -> &Pool {
        &self.base_pool
    }

    /// Checks that a profile exists.
    pub(super) fn check_profile(&self, name: &str) -> Result<(), Fault> {
        if self.profiles.contains_key(name) {
            return Ok(());
        }
        let short: String = name.chars().take(60).collect();
        let fault = Fault::new(format!("there is no profile named `{short}`"));
        let known = self.profiles.keys().map(String::as_str);
        Err(match nearest(name, known.clone()) {
            Some(near) => fault.remedy(format!("did you mean `{near}`?")),
            None => fault.remedy(format!(
                "define [profile.{short}], or use one of: {}",
                known.collect::<Vec<_>>().join(", ")
            )),
        })
    }

    /// The options of a profile that a forward uses.
    pub(super) fn profile(&mut self, name: &str) -> SocketOptions {
        self.used_profiles.insert(name.to_owned());
        // An unknown name has been reported where it was read.
        self.profiles.get(name).cloned().unwrap_or_default()
    }

    /// One `Arc` for equal pools of the same name, however many forwards have it:
    /// what is learnt about their servers is then learnt once. Pools that are
    /// written in their forwards stay apart.
    pub(super) fn share(&mut self, pool: Pool) -> Arc<Pool> {
        if pool.name.is_none() {
            return Arc::new(pool);
        }
        if let Some(shared) = self.shared.get(&pool) {
            return shared.clone();
        }
        let pool = Arc::new(pool);
        self.shared.insert(pool.clone());
        pool
    }

    /// Whether a pool in a forward can have this name.
    pub(super) fn check_free(&self, name: &str) -> Result<(), Fault> {
        if !self.pools.contains_key(name) {
            return Ok(());
        }
        let fault = Fault::new(format!("there is an [upstream.{name}] already"));
        Err(fault.remedy(format!("write upstream = \"{name}\", or another name")))
    }

    /// The pool of that name, which a forward uses.
    pub(super) fn pool(&mut self, name: &str) -> Result<&WrittenPool, Fault> {
        let short: String = name.chars().take(60).collect();
        self.used_pools.insert(name.to_owned());
        self.pools.get(name).ok_or_else(|| {
            let fault = Fault::new(format!("there is no pool named `{short}`"));
            match nearest(name, self.pools.keys().map(String::as_str)) {
                Some(near) => fault.remedy(format!("did you mean `{near}`?")),
                None => fault.remedy(format!(
                    "define [upstream.{short}], or write an address: {short}:PORT"
                )),
            }
        })
    }
}
