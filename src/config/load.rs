//! From text to a [`Config`]: tables, defaults, profiles and pools. Forwards are read
//! next door (`forwards`).
//!
//! It goes on behind every error with a default in its place, so that one run shows
//! all of them; a [`Config`] with any error in the report is thrown away.

use std::collections::{BTreeMap, BTreeSet};

use super::admin::{Admin, Metrics};
use super::forward::Forward;
use super::forwards::{Forwards, Settings};
use super::global::{EngineChoice, Global};
use super::inputs::{FileText, Inputs};
use super::log::Log;
use super::model::Config;
use super::pool::{self, PoolKeys};
use super::raw::{self, Elsewhere, KeyNode, Node, TableReader, Value};
use super::remembered::Recollection;
use super::report::{ConfigErrors, Fault, Report, SourceKind, Span, nearest};
use super::scope::Scope;
use super::section::Section;
use super::surroundings::{Nowhere, Surroundings};
use super::written_pool::WrittenPool;
use super::{profile, values};

impl Config {
    /// Reads, merges and checks everything. On failure all errors are reported
    /// at once. No other file is included, and no variable is set: see [`Self::load_in`].
    pub fn load(inputs: &Inputs) -> Result<Self, ConfigErrors> {
        Self::load_in(inputs, &Nowhere)
    }

    /// Likewise, with the files that it includes and the variables that it names.
    pub fn load_in(inputs: &Inputs, around: &dyn Surroundings) -> Result<Self, ConfigErrors> {
        load(inputs, around).map(|(config, _)| config)
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, ConfigErrors> {
        Self::load(&Inputs {
            file: Some(FileText {
                name: "thalweg.toml".to_owned(),
                bytes: text.as_bytes().to_vec(),
            }),
            ..Inputs::default()
        })
    }
}

/// A configuration, and how many forwards came of each `[[forward]]`.
pub(super) fn load(
    inputs: &Inputs,
    around: &dyn Surroundings,
) -> Result<(Config, Vec<usize>), ConfigErrors> {
    let mut report = Report::default();
    let mut root = match &inputs.file {
        Some(file) => raw::read_file(&mut report, file, around),
        None => no_file(&mut report),
    };
    for pair in &inputs.pairs {
        raw::add_pair(&mut report, &mut root, pair);
    }
    for change in &inputs.overrides {
        raw::add_override(&mut report, &mut root, change);
    }
    // Half a pair was told of already, and is meant to be something to forward.
    let half = inputs
        .pairs
        .iter()
        .any(|it| it.listen.is_none() || it.upstream.is_none());
    let config = config(&root, half, &mut report);
    match report.into_errors() {
        None => Ok(config),
        Some(errors) => Err(errors),
    }
}

/// What an engine cannot do is told at the key that asks for it.
fn check_engine(global: &Global, node: Option<&Node>, report: &mut Report) {
    let Some(node) = node else { return };
    if global.survive_crash && global.engine == EngineChoice::IoUring {
        let fault = Fault::new("`survive_crash` cannot be had with `engine = \"io_uring\"`")
            .remedy("take epoll: io_uring reads ahead into memory that is gone with the process");
        let is_it = |it: &&KeyNode| it.key == "survive_crash";
        let key = match &node.value {
            Value::Table(keys) => keys.iter().find(is_it),
            _ => None,
        };
        report.error(key.map_or(&node.span, |it| &it.node.span), fault);
    }
}

fn no_file(report: &mut Report) -> Node {
    let source = report.add_source(SourceKind::Argument, "the command line", "");
    let span = Span {
        source,
        range: 0..0,
    };
    Node::new(Value::Table(Vec::new()), span)
}

fn config(root: &Node, half_a_pair: bool, report: &mut Report) -> (Config, Vec<usize>) {
    let mut config = Config {
        global: Global::default(),
        log: Log::default(),
        admin: Admin::default(),
        metrics: Metrics::default(),
        profiles: BTreeMap::from([("default".to_owned(), profile::built_in())]),
        forwards: Vec::new(),
        remembered: Recollection::default(),
    };
    let Some(mut table) = TableReader::open(root, "the configuration", report) else {
        return (config, Vec::new());
    };
    if let Some(node) = table.get(raw::INCLUDE) {
        // Those of files are gone by now.
        let fault = Fault::new("files are included by a file only");
        report.error(&node.span, fault.remedy("write it into the file of -c"));
    }
    config.global = section(table.get("global"), "[global]", report);
    check_engine(&config.global, table.get("global"), report);
    config.log = section(table.get("log"), "[log]", report);
    config.admin = section(table.get("admin"), "[admin]", report);
    config.metrics = section(table.get("metrics"), "[metrics]", report);
    let profile_nodes = table.get("profile");
    let mut scope = Scope {
        profiles: config.profiles,
        base_pool: base_pool(table.get("defaults"), report),
        ..Scope::default()
    };
    for entry in named_tables(profile_nodes, "profile", report) {
        let title = format!("[profile.{}]", entry.key);
        let options = profile::read(&entry.node, &title, report);
        scope.profiles.insert(entry.key.clone(), options);
    }
    let pool_nodes = table.get("upstream");
    for entry in named_tables(pool_nodes, "upstream", report) {
        // One key that `--set` made is no pool; a misspelt name is told below.
        if report.is_argument(&entry.key_span) && entry.node.entry("servers").is_none() {
            continue;
        }
        let pool = WrittenPool::named(entry, &scope.base_pool, report);
        scope.pools.insert(entry.key.clone(), pool);
    }
    let defaults = match table.get("defaults") {
        Some(node) => defaults(node, &scope, report),
        None => Settings::default(),
    };
    let mut forwards = Forwards::new(defaults);
    match table.get("forward").map(|node| (node, &node.value)) {
        Some((_, Value::Array(nodes))) => {
            for node in nodes {
                forwards.read(node, &mut scope, report);
            }
        }
        Some((node, _)) => {
            let fault = Fault::new(format!("`forward` must be a list, not {}", node.kind()));
            let fault = fault.remedy("start each forward with `[[forward]]`, two brackets");
            report.error(&node.span, fault);
        }
        None => {}
    }
    if !half_a_pair && forwards.none_seen() && table.get("forward").is_none_or(is_empty_list) {
        let fault = Fault::new("there is nothing to forward");
        let remedy = "add a [[forward]] with `listen` and `upstream` to a file, or give -l and -r";
        report.consequence(&root.span, fault.remedy(remedy));
    }
    refuse_useless_overrides(profile_nodes, "profile", &scope.used_profiles, report);
    refuse_useless_overrides(pool_nodes, "pool", &scope.used_pools, report);
    table.close(report, &sections());
    config.profiles = scope.profiles;
    for (section, addresses) in config.own_listeners() {
        let listen = root.entry(section).and_then(|it| it.node.entry("listen"));
        if let Some(entry) = listen {
            forwards.check_own(addresses, &entry.node.span, report);
        }
    }
    let (forwards, made) = forwards.finish();
    config.forwards = forwards;
    (config, made)
}

/// Keys that somebody writes without the section that they are in.
fn sections() -> [Elsewhere<'static>; 3] {
    let of = |keys, section: &'static str, remedy| Elsewhere {
        keys,
        owner: section,
        remedy,
    };
    [
        of(
            Forward::names(),
            "of [defaults], or of a [[forward]]",
            "write it below [defaults], or --set defaults.KEY=VALUE",
        ),
        of(
            Global::names(),
            "of [global]",
            "write it below [global], or --set global.KEY=VALUE",
        ),
        of(
            Log::names(),
            "of [log]",
            "write it below [log], or --set log.KEY=VALUE",
        ),
    ]
}

fn is_empty_list(node: &Node) -> bool {
    matches!(&node.value, Value::Array(nodes) if nodes.is_empty())
}

/// The entries of `[profile]` or `[upstream]`, whose keys are names.
fn named_tables<'n>(node: Option<&'n Node>, what: &str, report: &mut Report) -> &'n [KeyNode] {
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

/// A section of its own, with every default where it is not written.
fn section<S: Section>(node: Option<&Node>, title: &str, report: &mut Report) -> S {
    let mut keys = S::Keys::default();
    if let Some(mut table) = node.and_then(|node| TableReader::open(node, title, report)) {
        keys = S::read(&mut table, report);
        table.close(report, &[]);
    }
    S::fill(keys)
}

fn defaults(node: &Node, scope: &Scope, report: &mut Report) -> Settings {
    let Some(mut table) = TableReader::open(node, "[defaults]", report) else {
        return Settings::default();
    };
    let settings = Settings::read(&mut table, scope, report);
    // Read before the pools: see `base_pool`.
    table.get("upstream");
    table.close(report, &[]);
    settings
}

/// `[defaults.upstream]`, which pools need before `[defaults]` as a whole is read.
fn base_pool(defaults: Option<&Node>, report: &mut Report) -> PoolKeys {
    match defaults.and_then(|node| node.entry("upstream")) {
        Some(entry) => WrittenPool::base(&entry.node, report),
        None => PoolKeys::default(),
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
