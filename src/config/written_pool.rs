//! A pool as it is written: `[upstream.NAME]`, a table in a forward, or what
//! `[defaults.upstream]` says for all of them.

use super::check;
use super::pool::{self, Pool, PoolKeys};
use super::raw::{Elsewhere, KeyNode, Node, TableReader};
use super::report::{Fault, Report, Span};
use super::section::Section;
use super::server::{Server, WrittenServer};

/// A pool as it is written: its servers may be ranges of ports.
#[derive(Debug, Clone, Default)]
pub(super) struct WrittenPool {
    pub(super) name: Option<String>,
    pub(super) servers: Vec<WrittenServer>,
    /// Everything else, what `[defaults.upstream]` says included.
    pub(super) keys: PoolKeys,
}

impl WrittenPool {
    /// A pool without a name.
    pub(super) fn of(servers: Vec<WrittenServer>, base: &PoolKeys) -> Self {
        Self {
            name: None,
            servers,
            keys: base.clone(),
        }
    }

    /// `[upstream.NAME]`.
    pub(super) fn named(entry: &KeyNode, base: &PoolKeys, report: &mut Report) -> Self {
        let title = format!("[upstream.{}]", entry.key);
        let mut pool = Self::of(Vec::new(), base);
        if let Some(table) = TableReader::open(&entry.node, &title, report) {
            pool.read(table, &entry.key_span, report);
        }
        pool.name = Some(entry.key.clone());
        pool
    }

    /// `[defaults.upstream]`: what pools start from that do not say otherwise.
    pub(super) fn base(node: &Node, report: &mut Report) -> PoolKeys {
        let nothing = PoolKeys::default();
        let Some(mut table) = TableReader::open(node, "[defaults.upstream]", report) else {
            return nothing;
        };
        let keys = pool::read_keys(&mut table, &nothing, &[], report);
        close(table, true, report);
        keys
    }

    /// Reads the keys of a pool; `place` is where it is said that servers are missing.
    pub(super) fn read(&mut self, mut table: TableReader<'_>, place: &Span, report: &mut Report) {
        let t = &mut table;
        if let Some(node) = t.get("servers") {
            self.servers = pool::whole_servers("servers", node, report);
        } else {
            let fault = Fault::new(format!("{} has no `servers`", t.title()));
            let remedy = "such as servers = [\"10.0.0.1:443\", \"10.0.0.2:443\"]";
            report.consequence(place, fault.remedy(remedy));
        }
        self.keys = pool::read_keys(t, &self.keys, &self.servers, report);
        close(table, false, report);
    }

    /// The pool that belongs to the n-th port of a range.
    pub(super) fn at(&self, index: usize) -> Pool {
        Pool {
            name: self.name.clone(),
            servers: self.servers.iter().filter_map(|it| it.at(index)).collect(),
            ..Pool::fill(self.keys.clone())
        }
    }
}

/// Refuses the keys that a pool has not, and says where they belong.
fn close(table: TableReader<'_>, is_base: bool, report: &mut Report) {
    let in_pools = Elsewhere {
        keys: &["servers", "name"],
        owner: "of a pool",
        remedy: "such as [upstream.web] with servers = [\"10.0.0.1:443\"]",
    };
    let in_servers = Elsewhere {
        keys: Server::names(),
        owner: "of a server",
        remedy: "such as servers = [{ address = \"10.0.0.1:443\", weight = 2 }]",
    };
    let in_checks = Elsewhere {
        keys: &check::names(),
        owner: "of a check",
        remedy: "such as check = { type = \"tcp\", interval = \"2s\", timeout = \"1s\" }",
    };
    let others = [in_servers, in_checks];
    if is_base {
        let [in_servers, in_checks] = others;
        table.close(report, &[in_pools, in_servers, in_checks]);
    } else {
        table.close(report, &others);
    }
}
