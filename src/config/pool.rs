//! A pool: the servers of a forward and how they are used. Where pools are written
//! (`[upstream.NAME]`, in a forward) is `upstream`'s matter.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;

use super::check::{Check, CheckKey};
use super::kind::{
    Composite, Kind, OneOf, Optional, Special, Switch, Timeout, choice, int, one_or_list,
    reference, text_schema, time,
};
use super::profile;
use super::raw::{Node, TableReader, Value};
use super::report::{Fault, Report};
use super::row::{Applies, Row};
use super::section::{Section, section};
use super::send_proxy::{SendProxy, SendProxyKey};
use super::server::{Server, WrittenServer, fail_timeout, max_fails, servers};
use super::sources;
use super::text::{list, quote};
use super::units::format_duration;
use super::values;
use super::words::{Words, words};

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(86_400);
const WEEK: Duration = Duration::from_secs(7 * 86_400);
const WARM_MAX: i64 = 1024;

section! {
    /// Servers, and how sessions are spread over them.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    pub struct Pool, PoolKeys {
        fields {
            /// Of `[upstream.NAME]`; `None`: it is written in the forward. Pools that
            /// ranges of ports make from one share its name.
            name: Option<String> = None;
            /// The servers, in order; never empty, never all backups, never all without
            /// weight.
            servers: Vec<Server> = Vec::new();
        }
        keys {
            /// Who is first for a new session; the policies are below.
            balance: Balance = Balance::RoundRobin, BalanceKey(choice()), Live;
            /// Servers tried after the first; all is every other one once.
            retries: Option<u8> = None, retries(), Live;
            /// No further attempt begins later than this after the accept.
            retry_timeout: Duration = Duration::from_secs(30), Timeout, Live;
            /// Failures within `fail_timeout` that take a server out of use for as long (1 as
            /// nginx); 0 counts none; the only server of a pool always stays.
            max_fails: u32 = 1, max_fails(), Live;
            /// See `max_fails`.
            fail_timeout: Duration = Duration::from_secs(10), fail_timeout(), Live;
            /// A server that is back, or new among others of its name, gets its share little by
            /// little over this time.
            slow_start: Duration = Duration::ZERO, time(Duration::ZERO..=DAY), Live;
            /// Sessions that may wait, per reactor, while every server is at its
            /// `max_connections`.
            queue: u32 = 1024, int(0..=1_000_000), Live;
            /// How long they may.
            queue_timeout: Duration = Duration::from_secs(5), time(MILLISECOND..=DAY), Live;
            /// How servers are probed between sessions.
            check: Option<Check> = None, CheckKey, Live;
            /// Every address of a name is a server, or the name is one, whichever of its
            /// addresses connects first.
            resolve: Resolve = Resolve::All, choice(), Live;
            /// A name is looked up again no sooner, whatever its TTL.
            ttl_min as "resolve_ttl_min": Duration = Duration::from_secs(1),
                time(Duration::from_millis(10)..=DAY), Live;
            /// And no later.
            ttl_max as "resolve_ttl_max": Duration = Duration::from_secs(300),
                time(Duration::from_millis(10)..=WEEK), Live;
            /// What an answer without any address does: the last good ones stay, or the name has
            /// no servers until it has some again; a failure never takes any.
            on_empty as "resolve_empty": OnEmpty = OnEmpty::Keep, choice(), Live;
            /// Between attempts at the addresses of one name, the first that connects wins
            /// (RFC 8305).
            attempt_delay: Duration = Duration::from_millis(250),
                time(Duration::from_millis(10)..=Duration::from_secs(2)), Live;
            /// Local addresses of connects, used in turn: each has its own ports; goes before
            /// the profile's; every server with a literal address needs one of its family.
            sources as "source": Vec<IpAddr> = Vec::new(), sources(), Live,
                example "[\"10.0.0.1\", \"2001:db8::1\"]";
            /// The interface that connects leave by.
            interface: Option<String> = None, Optional(profile::interface()), Live,
                shown "the profile's", example "\"eth0\"";
            /// Connect from the client's own address: `IP_TRANSPARENT`, `CAP_NET_ADMIN`, and
            /// routes that bring the answers back here; not together with `source` or `warm`.
            transparent: bool = false, Switch, Live;
            /// Servers are told who the client is by a PROXY header before the first byte; their
            /// checks say that they are nobody's. A server may have another. `tlvs` of version 2: `authority`, `alpn`,
            /// `unique_id`, `crc32c`; see [routing](routing.md#out).
            send_proxy: Option<SendProxy> = None, SendProxyKey, Live,
                example "{ version = \"v2\", tlvs = [\"unique_id\", \"crc32c\"] }";
            /// Connected spares kept for each server and reactor.
            warm: u32 = 0, int(0..=WARM_MAX), Live;
            /// A spare that is older is replaced.
            warm_max_age: Duration = Duration::from_secs(60),
                time(Duration::from_millis(100)..=DAY), Live;
        }
    }
}

impl Pool {
    /// Every PROXY header that its servers may be told.
    pub fn headers(&self) -> impl Iterator<Item = SendProxy> + '_ {
        let servers = self.servers.iter();
        servers.filter_map(|server| server.send_proxy.unwrap_or(self.send_proxy))
    }

    /// A pool of these servers, everything else by default.
    pub fn new(servers: Vec<Server>) -> Self {
        Self {
            servers,
            ..Self::default()
        }
    }
}

/// The row of `servers`, which `[defaults.upstream]` has not.
pub(super) fn servers_row() -> Row {
    let server = json!({ "anyOf": [text_schema(), reference("server")] });
    Row::by_hand(
        "servers",
        "address, list, or tables as below",
        "required",
        Applies::Live,
        "The servers, in order.",
        one_or_list(&server),
    )
}

/// `balance =`: which server is first for a new session. Each heeds weights, but
/// for [`Balance::First`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Balance {
    /// In turn, smoothly by weight; the default.
    RoundRobin,
    /// The one with the fewest sessions for its weight.
    LeastConn,
    /// The one with fewer sessions of two at random.
    PowerOfTwo,
    /// At random.
    Random,
    /// By a consistent hash of the client's address (Maglev): the same for every
    /// forwarder with this configuration.
    Hash(HashKey),
    /// The first in order that has room.
    First,
}

/// What of a client is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// Its address: all its sessions go to one server.
    Address,
    /// Its address and port: each session by itself.
    AddressPort,
}

impl Words for Balance {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("round_robin", Self::RoundRobin),
        ("least_conn", Self::LeastConn),
        ("p2c", Self::PowerOfTwo),
        ("random", Self::Random),
        ("hash_address", Self::Hash(HashKey::Address)),
        ("hash_address_port", Self::Hash(HashKey::AddressPort)),
        ("first", Self::First),
    ];
}

/// What other forwarders call these policies: the name, whose it is, and ours.
/// nginx's `random` and `HAProxy`'s `first` and `random` are called the same here.
pub(super) const FOREIGN_BALANCES: &[(&str, &str, &str)] = &[
    ("random two", "nginx", "p2c"),
    ("random two least_conn", "nginx", "p2c"),
    ("least_time", "nginx", "least_conn"),
    ("ip_hash", "nginx", "hash_address"),
    ("hash", "nginx", "hash_address"),
    ("hash $remote_addr", "nginx", "hash_address"),
    ("hash $remote_addr consistent", "nginx", "hash_address"),
    ("hash $binary_remote_addr", "nginx", "hash_address"),
    (
        "hash $binary_remote_addr consistent",
        "nginx",
        "hash_address",
    ),
    ("roundrobin", "HAProxy", "round_robin"),
    ("static-rr", "HAProxy", "round_robin"),
    ("leastconn", "HAProxy", "least_conn"),
    ("source", "HAProxy", "hash_address"),
    ("random(2)", "HAProxy", "p2c"),
    ("least_request", "Envoy", "p2c"),
    ("maglev", "Envoy", "hash_address"),
    ("ring_hash", "Envoy", "hash_address"),
];

words! {
    /// `resolve =`: which addresses of a name are servers.
    pub enum Resolve {
        /// Every one; the default.
        All = "all",
        /// One server for the name, whichever of its addresses connects first.
        First = "first",
    }
}

words! {
    /// `resolve_empty =`: what a name means that is said to have no address any more.
    pub enum OnEmpty {
        /// Probably an accident; the default.
        Keep = "keep",
        /// What it says.
        Obey = "obey",
    }
}

/// `balance =`, which knows other forwarders' words.
struct BalanceKey(OneOf<Balance>);

impl Kind for BalanceKey {
    type Value = Balance;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<Balance> {
        read_balance(node)
            .map_err(|fault| report.error(&node.span, fault.of_key(key)))
            .ok()
    }

    fn write(&self, value: &Balance) -> Option<String> {
        self.0.write(value)
    }

    fn words(&self) -> String {
        "a policy".to_owned()
    }

    fn schema(&self) -> serde_json::Value {
        self.0.schema()
    }
}

fn retries() -> Special<Option<u8>> {
    Special {
        read: read_retries,
        write: |retries| retries.map_or_else(|| quote("all"), |it| it.to_string()),
        words: "0 to 255, or `\"all\"`",
        schema: || {
            json!({ "anyOf": [
                { "enum": ["all"] },
                { "type": "integer", "minimum": 0, "maximum": 255 },
            ]})
        },
    }
}

fn sources() -> Composite<Vec<IpAddr>> {
    Composite {
        read: |_, node, report| Some(sources::read(node, report)),
        write: |sources| Some(list(sources.iter().map(ToString::to_string))),
        words: "IP address or list",
        schema: || one_or_list(&text_schema()),
    }
}

/// A policy by its name here; by another forwarder's name, ours is said.
fn read_balance(node: &Node) -> Result<Balance, Fault> {
    if let Value::String(text) = &node.value {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let foreign = FOREIGN_BALANCES
            .iter()
            .find(|(name, ..)| *name == words.to_ascii_lowercase());
        if let Some((name, owner, ours)) = foreign {
            let fault = Fault::new(format!("\"{name}\" is what {owner} calls it"));
            return Err(fault.remedy(format!("write \"{ours}\"")));
        }
    }
    values::choice(node, Balance::WORDS)
}

/// A number, or `"all"`: every other server once.
fn read_retries(node: &Node) -> Result<Option<u8>, Fault> {
    match &node.value {
        Value::String(text) if text == "all" => Ok(None),
        Value::String(text) if text.parse::<u8>().is_err() => {
            let fault = Fault::new("this must be a number or \"all\"");
            Err(fault.remedy("\"all\" is every other server once"))
        }
        _ => values::integer(node, 0..=255).map(Some),
    }
}

/// The keys of a pool but its servers, and how they fit together; `servers` are those
/// that are known already. Errors have been reported.
pub(super) fn read_keys(
    t: &mut TableReader<'_>,
    base: &PoolKeys,
    servers: &[WrittenServer],
    report: &mut Report,
) -> PoolKeys {
    let keys = Pool::merge(Pool::read(t, report), base);
    let pool = Pool::fill(keys.clone());
    refuse_backward_ttl(t, &pool, report);
    sources::check_families(&pool.sources, servers, report);
    if pool.transparent {
        refuse_beside_transparent(t, &pool, report);
    }
    keys
}

fn refuse_backward_ttl(t: &mut TableReader<'_>, pool: &Pool, report: &mut Report) {
    let written = t.get("resolve_ttl_max").or(t.get("resolve_ttl_min"));
    if let (true, Some(node)) = (pool.ttl_min > pool.ttl_max, written) {
        let fault = Fault::new(format!(
            "`resolve_ttl_min` of {} is more than `resolve_ttl_max` of {}",
            format_duration(pool.ttl_min),
            format_duration(pool.ttl_max)
        ));
        report.error(&node.span, fault.remedy("lower the one or raise the other"));
    }
}

fn refuse_beside_transparent(t: &mut TableReader<'_>, pool: &Pool, report: &mut Report) {
    let switch = t.get("transparent");
    let place = t.get("source").or(switch);
    if let (false, Some(node)) = (pool.sources.is_empty(), place) {
        let fault = Fault::new("`source`: with `transparent` the client's address is the source");
        report.error(&node.span, fault.remedy("remove one of the two"));
    }
    let place = t.get("warm").or(switch);
    if let (true, Some(node)) = (pool.warm > 0, place) {
        let fault = Fault::new(
            "`warm`: with `transparent` a connection belongs to one client; none can be kept ready",
        );
        report.error(&node.span, fault.remedy("remove one of the two"));
    }
}

/// The servers of a pool, and what must hold for all of them together. A list of
/// which a part is wrong is not judged as a whole: that part may be what is missing.
pub(super) fn whole_servers(key: &str, node: &Node, report: &mut Report) -> Vec<WrittenServer> {
    let errors = report.count();
    let servers = servers(key, node, Pool::names(), report);
    if servers.is_empty() || report.count() > errors {
        return servers;
    }
    let all = |it: fn(&Server) -> bool| servers.iter().all(|written| it(written.server()));
    if all(|server| server.backup) {
        let fault = Fault::new("every server of this pool is a backup");
        let remedy = "leave `backup` out for those that are used first";
        report.consequence(&node.span, fault.remedy(remedy));
    }
    if all(|server| server.weight == 0) {
        let fault = Fault::new("every server of this pool has a weight of zero: none is ever used");
        let remedy =
            "give at least one a weight; state = \"drain\" is for taking servers out of use";
        report.consequence(&node.span, fault.remedy(remedy));
    }
    servers
}

/// The name of a pool: like any, and it cannot look like an address.
pub(super) fn check_name(name: &str) -> Result<(), Fault> {
    values::check_name(name)?;
    if name.contains([':', ',']) {
        let fault = Fault::new("the name of a pool cannot contain `:` or `,`");
        return Err(fault.remedy("those are parts of addresses"));
    }
    Ok(())
}

/// Every key of a pool, for tables in which people look for them.
pub(super) fn names() -> Vec<&'static str> {
    let mut names = vec!["servers"];
    names.extend(Pool::names());
    names
}
