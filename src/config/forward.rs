//! A forward: what it is, and the keys that `[defaults]` and each `[[forward]]` share.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::accept_proxy::{AcceptProxy, AcceptProxyKey};
use super::clients::ClientAccess;
use super::http_connect::{self, HttpConnect, Mode};
use super::kind::{Limit, Special, Timeout, choice, one_or_list, reference, text_schema, time};
use super::pool::Pool;
use super::route::{Route, RouteTo};
use super::row::{Applies, Row};
use super::section::section;
use super::tap::{Tap, TapKey};
use super::text::quote;
use super::udp::{Protocol, Udp};
use super::unix_file::UnixFile;
use super::values;
use super::words::words;
use crate::net::address::{Address, Transport};
use crate::net::options::SocketOptions;

/// Whether something is written in a table itself, not in `[defaults]` alone. No part of what a configuration means: any
/// two are equal.
#[derive(Debug, Clone, Copy, Default)]
pub struct InItsTable(pub(super) bool);

impl PartialEq for InItsTable {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

section! {
    /// One forward: listeners that share servers, options and limits.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Forward, ForwardKeys {
        fields {
            /// Its name, unique; the address of the first listener when not given.
            name: String = String::new();
            /// Where it listens; never empty. A name is looked up at start.
            listen: Vec<Address> = Vec::new();
            /// What it does with a connection.
            mode: Mode = Mode::Tcp;
            /// Its servers and how they are used; without servers, and everything else by
            /// default, when its clients say where to go ([`Mode::HttpConnect`]). The same
            /// `Arc` for every forward that has the same named pool with the same ports.
            pool: Arc<Pool> = Arc::default();
            /// Which of its sessions go elsewhere, in order.
            routes: Vec<Route> = Vec::new();
            /// What of its traffic is shown; `None`: nothing.
            tap: Option<Tap> = None;
            /// Whether its own table has keys of UDP.
            says_of_udp: InItsTable = InItsTable::default();
            /// Options of the leg towards clients.
            client: SocketOptions = SocketOptions::default();
            /// Options of the leg towards upstreams. `quickack` is `Some(false)` where the
            /// profile leaves it open (measured: 6 to 18 % more connections a second).
            upstream: SocketOptions = SocketOptions::default();
        }
        hand vec![TapKey::row()];
        parts {
            /// Deadlines.
            timeouts: Timeouts;
            /// Owner, group and rights of the paths of unix listeners.
            unix_file: UnixFile;
            /// Who may come in.
            clients: ClientAccess;
            /// What becomes of datagrams.
            udp: Udp;
        }
        keys {
            /// What is forwarded: connections, datagrams, or both at the same addresses; see
            /// [UDP](udp.md).
            protocol: Protocol = Protocol::Tcp, choice(), Rebind;
            /// Auto copies and turns to splice once a direction shows bulk; splice copies where a
            /// pipe cannot be had.
            data_path: DataPath = DataPath::Auto, choice(), Live;
            /// Socket options of the leg towards clients.
            client_profile: String = "default".to_owned(), profile_name(), Rebind,
                example "\"wan\"";
            /// Socket options of the leg towards upstreams.
            upstream_profile: String = "default".to_owned(), profile_name(), Live;
            /// Each connection begins with a PROXY header, from these senders and nobody else: its
            /// client is the client. `versions` both by default, `timeout` 3 s for all of it; see
            /// [routing](routing.md#in).
            accept_proxy: Option<AcceptProxy> = None, AcceptProxyKey, Live,
                example "{ from = [\"10.0.0.0/8\"], versions = [\"v2\"], timeout = \"3s\" }";
            /// How long the first bytes may take in all that a route is found by.
            sniff_timeout: Duration = Duration::from_secs(5),
                time(Duration::from_millis(10)..=Duration::from_secs(3600)), Live;
            /// What a client sees when no server can be had.
            on_no_server: OnNoServer = OnNoServer::Reset, choice(), Live;
            /// Sessions of one forward at the most; auto is only the global limit.
            max_connections: Option<u32> = None, Limit, Live;
        }
    }
}

section! {
    /// Deadlines of a session. `0` or `off` in the text means "never" and is
    /// `Duration::MAX` here, so that comparing needs no special case; anything else is
    /// at most a year.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Timeouts, TimeoutKeys {
        keys {
            /// For each attempt to connect.
            connect as "connect_timeout": Duration = Duration::from_secs(5), Timeout, Live;
            /// No byte either way, and none that the kernel was seen to deliver.
            idle as "idle_timeout": Duration = Duration::from_secs(600), Timeout, Live;
            /// After one side has ended: silence since the last byte.
            half_close as "half_close_timeout": Duration = Duration::from_secs(60), Timeout, Live;
            /// Bytes are due to a receiver and it takes none.
            write_stall as "write_stall_timeout": Duration = Duration::from_secs(600), Timeout,
                Live;
            /// After SIGTERM, and after the forward was removed: its sessions that are left are cut.
            drain as "drain_timeout": Duration = Duration::from_secs(30), Timeout, Live;
        }
    }
}

words! {
    /// `on_no_server =`.
    pub enum OnNoServer {
        /// A reset: a failure is told as one.
        Reset = "reset",
        /// An end, as of nginx, HAProxy and realm: nothing is read as an error by clients that
        /// take a reset for one of the network.
        Close = "close",
    }
}

words! {
    /// How payload crosses.
    pub enum DataPath {
        /// Copy first, splice once a lane shows bulk.
        Auto = "auto",
        /// Always through the scratch buffer.
        Copy = "copy",
        /// Always through a pipe; copies where a pipe cannot be had.
        Splice = "splice",
    }
}

impl Forward {
    /// What it listens for at each of its addresses.
    pub fn transports(&self) -> impl Iterator<Item = Transport> + use<> {
        let tcp = self.protocol.has_tcp().then_some(Transport::Tcp);
        let udp = self.protocol.has_udp().then_some(Transport::Udp);
        tcp.into_iter().chain(udp)
    }

    /// Its own pool, and those of its routes.
    pub(super) fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        let routes = self.routes.iter().filter_map(|route| match &route.to {
            RouteTo::Pool(pool) => Some(pool),
            RouteTo::Reject | RouteTo::HttpConnect(_) => None,
        });
        [&self.pool].into_iter().chain(routes)
    }

    /// Likewise, to be changed.
    pub(super) fn pools_mut(&mut self) -> impl Iterator<Item = &mut Arc<Pool>> {
        let routes = self.routes.iter_mut();
        let routes = routes.filter_map(|route| match &mut route.to {
            RouteTo::Pool(pool) => Some(pool),
            RouteTo::Reject | RouteTo::HttpConnect(_) => None,
        });
        [&mut self.pool].into_iter().chain(routes)
    }

    /// What its clients may ask for, and by which of its routes they come there.
    pub fn requests(&self) -> impl Iterator<Item = (Option<u16>, &HttpConnect)> {
        let own = match &self.mode {
            Mode::HttpConnect(connect) => Some((None, &**connect)),
            Mode::Tcp => None,
        };
        let routes = (0..).zip(&self.routes);
        let others = routes.filter_map(|(at, route)| match &route.to {
            RouteTo::HttpConnect(connect) => Some((Some(at), &**connect)),
            RouteTo::Pool(_) | RouteTo::Reject => None,
        });
        own.into_iter().chain(others)
    }
}

/// The name of a profile; whether there is one is known once all have been read.
fn profile_name() -> Special<String> {
    Special {
        read: |node| values::string(node).map(str::to_owned),
        write: |name| quote(name),
        words: "name",
        schema: text_schema,
    }
}

/// The rows that a `[[forward]]` has for itself; they are read by hand, because they
/// depend on one another.
pub(super) fn own_rows() -> Vec<Row> {
    let [mode, connect] = http_connect::rows();
    let mut route = Row::by_hand(
        "route",
        "tables",
        "",
        Applies::Live,
        "Where sessions go that meet its conditions: below, and [routing](routing.md).",
        json!({ "type": "array", "items": reference("route") }),
    )
    .value("[]");
    route.table = Some("route");
    let servers = json!({ "anyOf": [text_schema(), reference("server")] });
    let upstream = json!({ "anyOf": [one_or_list(&servers), reference("pool_of_forward")] });
    vec![
        Row::by_hand(
            "name",
            "text",
            "the first address listened on",
            Applies::Live,
            "Appears in logs; unique; a range adds the port. Another name is another forward.",
            text_schema(),
        )
        .example("\"web\""),
        Row::by_hand(
            "listen",
            "address or list",
            "required",
            Applies::Rebind,
            "Where it listens.",
            one_or_list(&text_schema()),
        )
        .example("[\":8443\", \"unix:/run/thalweg/web.sock\"]"),
        Row::by_hand(
            "upstream",
            "address, list, the name of a pool, or a pool",
            "required, but for `mode = \"http-connect\"`, where it is an error",
            Applies::Live,
            "Its servers, and how they are used.",
            upstream,
        )
        .example("\"web\""),
        mode,
        connect,
        route,
    ]
}

/// The row of `upstream` in `[defaults]`.
pub(super) fn defaults_upstream_row() -> Row {
    let mut row = Row::by_hand(
        "upstream",
        "table",
        "–",
        Applies::Live,
        "What pools start from, see [below](#defaultsupstream); in a `[[forward]]` it is where it \
         goes.",
        reference("pool_defaults"),
    );
    row.table = Some("pool_defaults");
    row
}
