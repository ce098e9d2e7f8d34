//! One server of a pool, and lists of them.

use std::time::Duration;

use super::addresses::{self, Use, Written};
use super::raw::{Elsewhere, Node, TableReader, Value};
use super::report::{Fault, Report};
use super::values::{self, Limit};
use super::{choices, pool};
use crate::net::address::Address;

/// One server of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// Where it is; never [`Address::Any`]. A name or SRV records may stand for
    /// several servers, each of which has what else is said here.
    pub address: Address,
    /// Its share of new sessions beside the others' weights; 1 by default, 0 to
    /// 1000. With 0 it gets none.
    pub weight: u32,
    /// Used only while no other server of the pool can be; no by default.
    pub backup: bool,
    /// Sessions at the most over all reactors; `None`, the default: no limit of
    /// its own.
    pub max_connections: Option<u32>,
    /// What an operator wants of it.
    pub state: AdminState,
    /// Instead of the pool's; `None`: the pool's.
    pub max_fails: Option<u32>,
    /// Instead of the pool's; `None`: the pool's.
    pub fail_timeout: Option<Duration>,
}

impl Server {
    /// A server with every default.
    pub const fn new(address: Address) -> Self {
        Self {
            address,
            weight: 1,
            backup: false,
            max_connections: None,
            state: AdminState::Active,
            max_fails: None,
            fail_timeout: None,
        }
    }
}

/// `state =`, what an operator wants of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AdminState {
    /// It takes sessions; the default.
    Active,
    /// It keeps the sessions it has, takes no new ones, and is still checked.
    Drain,
    /// Likewise, and it is not checked either.
    Maintenance,
}

/// The largest weight. Slots of a table of hashes are shared out by weight, and
/// nginx and HAProxy (256) see no need for more.
const WEIGHT_MAX: i64 = 1000;

/// A server as it is written: possibly a range of ports.
#[derive(Debug, Clone)]
pub(super) struct WrittenServer {
    pub(super) written: Written,
    /// At the lowest port.
    server: Server,
}

impl WrittenServer {
    fn new(written: Written) -> Self {
        let server = Server::new(written.range.first().clone());
        Self { written, server }
    }

    /// Of a range the server at this port; the only one there is otherwise.
    pub(super) fn at(&self, index: usize) -> Option<Server> {
        let single = self.written.range.len() == 1;
        let address = self.written.range.nth(if single { 0 } else { index })?;
        Some(Server {
            address,
            ..self.server.clone()
        })
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }
}

/// Servers: a string, several with commas, a table, or a list of strings and tables.
pub(super) fn servers(key: &str, node: &Node, report: &mut Report) -> Vec<WrittenServer> {
    let mut found = Vec::new();
    match &node.value {
        Value::Array(nodes) => {
            addresses::refuse_empty(key, node, nodes, report);
            for node in nodes {
                found.extend(one(key, node, report));
            }
        }
        _ => found.extend(one(key, node, report)),
    }
    found
}

fn one(key: &str, node: &Node, report: &mut Report) -> Vec<WrittenServer> {
    if let Value::Table(_) = &node.value {
        return server_table(key, node, report);
    }
    let found = addresses::text(key, node, Use::Server, report);
    found.into_iter().map(WrittenServer::new).collect()
}

/// `{ address = "10.0.0.1:443", weight = 2 }`.
fn server_table(key: &str, node: &Node, report: &mut Report) -> Vec<WrittenServer> {
    let title = format!("a server of `{key}`");
    let Some(mut table) = TableReader::open(node, title, report) else {
        return Vec::new();
    };
    let t = &mut table;
    let mut found = Vec::new();
    if let Some(node) = t.get("address") {
        let written = addresses::text("address", node, Use::Server, report);
        found.extend(written.into_iter().map(WrittenServer::new));
    } else {
        let fault = Fault::new("this server has no `address`");
        let remedy = "such as { address = \"10.0.0.1:443\" }";
        report.consequence(&node.span, fault.remedy(remedy));
    }
    let weight = t.read("weight", report, |n| values::integer(n, 0..=WEIGHT_MAX));
    let backup = t.read("backup", report, values::boolean);
    let max_connections = t.read("max_connections", report, values::connections);
    let state = t.read("state", report, |n| {
        values::choice(n, choices::ADMIN_STATES)
    });
    let max_fails = t.read("max_fails", report, pool::max_fails);
    let fail_timeout = t.read("fail_timeout", report, pool::fail_timeout);
    for server in found.iter_mut().map(|written| &mut written.server) {
        server.weight = weight.unwrap_or(server.weight);
        server.backup = backup.unwrap_or(server.backup);
        server.max_connections = max_connections.and_then(Limit::count);
        server.state = state.unwrap_or(server.state);
        server.max_fails = max_fails;
        server.fail_timeout = fail_timeout;
    }
    let pools: Vec<_> = pool::KEYS
        .into_iter()
        .filter(|key| *key != "servers")
        .collect();
    table.close(
        report,
        &[Elsewhere {
            keys: &pools,
            owner: "of a pool",
            remedy: "write it beside `servers`, for all of them",
        }],
    );
    found
}
