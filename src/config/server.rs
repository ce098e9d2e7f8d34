//! One server of a pool, and lists of them.

use std::time::Duration;

use super::addresses::{self, Use, Written};
use super::byte_rate::{ByteRate, ByteRateKey, RATE_BURST, rate_burst};
use super::connect_rate::{WrittenRate, connect_burst, connect_rate, max_per_client};
use super::kind::{Int, Limit, Optional, Switch, Time, choice, int, text_schema, time};
use super::raw::{Elsewhere, Node, TableReader, Value};
use super::report::{Fault, Report};
use super::row::{Applies, Row};
use super::section::{Section, section};
use super::send_proxy::{SendProxy, SendProxyKey};
use super::words::words;
use crate::net::address::Address;
use crate::policy::connect_rate::ConnectRate;
use crate::policy::meter;

section! {
    /// One server of a pool.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    pub struct Server, ServerKeys {
        fields {
            /// Where it is; never [`Address::Any`]. A name or SRV records may stand for
            /// several servers, each of which has what else is said here.
            address: Address = Address::Any { port: 0 };
        }
        hand vec![
            Row::by_hand(
                "address",
                "address",
                "required",
                Applies::Live,
                "Where it is.",
                text_schema(),
            )
            .example("\"10.0.0.2:443\""),
        ];
        keys {
            /// Its share beside the others' weights; with 0 it gets none.
            weight: u32 = 1, int(0..=WEIGHT_MAX), Live;
            /// Used only while no other server can be.
            backup: bool = false, Switch, Live;
            /// Sessions at the most over all reactors; auto is no limit of its own.
            max_connections: Option<u32> = None, Limit, Live;
            /// Sessions of one client at the most, counted as by `max_per_client` of a forward.
            /// Further ones of this client go to other servers, or are turned away when it has its
            /// share of each.
            max_per_client: Option<u32> = None, Optional(max_per_client()), Live,
                example "10";
            /// New sessions that it is given in a time, over all reactors: `"100/s"`, `"600/m"`.
            /// What is faster goes to other servers, or waits as at `max_connections`.
            connect_rate: Option<WrittenRate> = None, Optional(connect_rate()), Live,
                example "\"100/s\"";
            /// So many of them at once, after a pause; by default those of a second, one at
            /// least.
            connect_burst: Option<u32> = None, Optional(connect_burst()), Live,
                example "20";
            /// Bytes a second of all its sessions together, each way or of each way by itself, as
            /// `rate` of a forward.
            rate: Option<ByteRate> = None, Optional(ByteRateKey), Live,
                example "\"100MB/s\"";
            /// What that lets flow in this time may flow at once, after a pause.
            rate_burst: Duration = RATE_BURST, rate_burst(), Live;
            /// As for the pool, or otherwise than it: `"off"`, `"v1"`, `"v2"` or a table. Its checks go
            /// by it too.
            send_proxy: Option<Option<SendProxy>> = None, Optional(SendProxyKey), Live,
                shown "the pool's", example "\"off\"";
            /// drain: it keeps its sessions and gets no new ones; maintenance: likewise, and it is
            /// not checked.
            state: AdminState = AdminState::Active, choice(), Live;
            /// As for the pool.
            max_fails: Option<u32> = None, Optional(max_fails()), Live,
                shown "the pool's", example "3";
            /// As for the pool.
            fail_timeout: Option<Duration> = None, Optional(fail_timeout()), Live,
                shown "the pool's", example "\"30s\"";
        }
    }
}

impl Server {
    /// How fast it is given sessions.
    pub fn connects(&self) -> Option<ConnectRate> {
        Some(self.connect_rate?.with_burst(self.connect_burst))
    }

    /// How fast bytes of its sessions flow, up and down.
    pub fn bytes(&self) -> Option<[meter::Rate; 2]> {
        Some(self.rate?.with_burst(self.rate_burst))
    }

    /// A server with every default.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            ..Self::default()
        }
    }
}

words! {
    /// `state =`, what an operator wants of a server.
    pub enum AdminState {
        /// It takes sessions; the default.
        Active = "active",
        /// It keeps the sessions it has, takes no new ones, and is still checked.
        Drain = "drain",
        /// Likewise, and it is not checked either.
        Maintenance = "maintenance",
    }
}

/// Failures within the time of `fail_timeout`.
pub(super) fn max_fails() -> Int<u32> {
    int(0..=i64::from(u32::MAX))
}

pub(super) fn fail_timeout() -> Time {
    time(Duration::from_millis(1)..=Duration::from_secs(86_400))
}

/// The largest weight. Slots of a table of hashes are shared out by weight, and
/// nginx and HAProxy (256) see no need for more.
pub(crate) const WEIGHT_MAX: i64 = 1000;

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
/// `pool_keys` are those of a pool, which people write beside an address.
pub(super) fn servers(
    key: &str,
    node: &Node,
    pool_keys: &[&str],
    report: &mut Report,
) -> Vec<WrittenServer> {
    let mut found = Vec::new();
    match &node.value {
        Value::Array(nodes) => {
            addresses::refuse_empty(key, node, nodes, report);
            for node in nodes {
                found.extend(one(key, node, pool_keys, report));
            }
        }
        _ => found.extend(one(key, node, pool_keys, report)),
    }
    found
}

fn one(key: &str, node: &Node, pool_keys: &[&str], report: &mut Report) -> Vec<WrittenServer> {
    if let Value::Table(_) = &node.value {
        return server_table(key, node, pool_keys, report);
    }
    let found = addresses::text(key, node, Use::Server, report);
    found.into_iter().map(WrittenServer::new).collect()
}

/// `{ address = "10.0.0.1:443", weight = 2 }`.
fn server_table(
    key: &str,
    node: &Node,
    pool_keys: &[&str],
    report: &mut Report,
) -> Vec<WrittenServer> {
    let title = format!("a server of `{key}`");
    let Some(mut table) = TableReader::open(node, title, report) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if let Some(node) = table.get("address") {
        let written = addresses::text("address", node, Use::Server, report);
        found.extend(written.into_iter().map(WrittenServer::new));
    } else {
        let fault = Fault::new("this server has no `address`");
        let remedy = "such as { address = \"10.0.0.1:443\" }";
        report.consequence(&node.span, fault.remedy(remedy));
    }
    let keys = Server::read(&mut table, report);
    for written in &mut found {
        written.server = Server {
            address: written.server.address.clone(),
            ..Server::fill(keys.clone())
        };
    }
    table.close(
        report,
        &[Elsewhere {
            keys: pool_keys,
            owner: "of a pool",
            remedy: "write it beside `servers`, for all of them",
        }],
    );
    found
}
