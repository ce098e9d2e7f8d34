//! Reading one table key by key: remembers which keys were asked for, so that what
//! is left over can be refused with the nearest known name.

use super::node::{KeyNode, Node, Value};
use crate::config::report::{Fault, Report, nearest};

/// A table being read. Every key it may have is asked for once; [`Self::close`]
/// refuses the rest.
pub(in crate::config) struct TableReader<'n> {
    node: &'n Node,
    entries: &'n [KeyNode],
    /// How errors call the table: `[global]`.
    title: String,
    known: Vec<&'static str>,
}

/// Keys that people write into the wrong table.
pub(in crate::config) struct Elsewhere<'k> {
    pub(in crate::config) keys: &'k [&'k str],
    /// "of a pool". In the remedy `KEY` stands for the key.
    pub(in crate::config) owner: &'k str,
    pub(in crate::config) remedy: &'k str,
}

/// Names other forwarders use for the same thing.
const SYNONYMS: [(&str, &str); 35] = [
    ("bind", "listen"),
    ("local", "listen"),
    ("remote", "upstream"),
    ("proxy_pass", "upstream"),
    ("backend", "upstream"),
    ("server", "servers"),
    ("proxy_connect_timeout", "connect_timeout"),
    ("timeout_connect", "connect_timeout"),
    ("proxy_timeout", "idle_timeout"),
    ("timeout", "idle_timeout"),
    ("maxconn", "max_connections"),
    ("worker_processes", "reactors"),
    ("threads", "reactors"),
    ("tcp_nodelay", "nodelay"),
    ("so_keepalive", "keepalive"),
    ("sndbuf", "send_buffer"),
    ("rcvbuf", "receive_buffer"),
    ("maxseg", "mss"),
    ("congestion_control", "congestion"),
    ("method", "balance"),
    ("lb_policy", "balance"),
    ("proxy_next_upstream_tries", "retries"),
    ("proxy_next_upstream_timeout", "retry_timeout"),
    ("slowstart", "slow_start"),
    ("health_check", "check"),
    ("healthcheck", "check"),
    ("proxy_bind", "source"),
    ("max_conns", "max_connections"),
    ("down", "state"),
    ("disabled", "state"),
    ("inter", "interval"),
    ("fastinter", "fast_interval"),
    ("fails", "fall"),
    ("passes", "rise"),
    ("sni", "server_name"),
];

impl<'n> TableReader<'n> {
    /// Starts to read; anything but a table is reported.
    pub(in crate::config) fn open(
        node: &'n Node,
        title: impl Into<String>,
        report: &mut Report,
    ) -> Option<Self> {
        let title = title.into();
        let Value::Table(entries) = &node.value else {
            let fault = Fault::new(format!("{title} must be a table, not {}", node.kind()));
            report.error(&node.span, fault);
            return None;
        };
        Some(Self {
            node,
            entries,
            title,
            known: Vec::new(),
        })
    }

    /// Every entry, for tables whose keys are names that the user chose.
    pub(in crate::config) fn entries(&self) -> &'n [KeyNode] {
        self.entries
    }

    pub(in crate::config) fn node(&self) -> &'n Node {
        self.node
    }

    pub(in crate::config) fn title(&self) -> &str {
        &self.title
    }

    /// The value of a key, which is thereby known.
    pub(in crate::config) fn get(&mut self, key: &'static str) -> Option<&'n Node> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.map(|entry| &entry.node)
    }

    /// The value of a key as `parse` understands it; a fault is reported with the
    /// key's name. `None` when the key is absent or wrong.
    pub(in crate::config) fn read<T>(
        &mut self,
        key: &'static str,
        report: &mut Report,
        parse: impl FnOnce(&'n Node) -> Result<T, Fault>,
    ) -> Option<T> {
        let node = self.get(key)?;
        match parse(node) {
            Ok(value) => Some(value),
            Err(mut fault) => {
                fault.message = format!("`{key}`: {}", fault.message);
                report.error(&node.span, fault);
                None
            }
        }
    }

    /// Refuses every key that was not asked for; those that belong to a table
    /// nearby are shown the way there.
    pub(in crate::config) fn close(self, report: &mut Report, nearby: &[Elsewhere<'_>]) {
        for entry in self.entries {
            let key = entry.key.as_str();
            if self.known.contains(&key) {
                continue;
            }
            let fault = match nearby.iter().find(|it| it.keys.contains(&key)) {
                Some(Elsewhere { owner, remedy, .. }) => {
                    let title = &self.title;
                    let remedy = remedy.replace("KEY", key);
                    Fault::new(format!("`{key}` is a key {owner}, not of {title}")).remedy(remedy)
                }
                None => self.unknown(key),
            };
            report.error(&entry.key_span, fault);
        }
    }

    fn unknown(&self, key: &str) -> Fault {
        let short: String = key.chars().take(60).collect();
        let fault = Fault::new(format!("unknown key `{short}` in {}", self.title));
        let synonym = SYNONYMS
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, known)| *known)
            .filter(|known| self.known.contains(known));
        match synonym.or_else(|| nearest(key, self.known.iter().copied())) {
            Some(known) => fault.remedy(format!("did you mean `{known}`?")),
            None => fault.remedy(format!("keys here: {}", self.known.join(", "))),
        }
    }
}
