//! A pool: the servers of a forward and how they are used. `[upstream.NAME]`, or
//! written in the forward as a table or as bare addresses.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::{self, Check};
use super::raw::{Elsewhere, Entry, Node, TableReader, Value};
use super::report::{Fault, Report, Span};
use super::resolve::Names;
use super::server::{Server, WrittenServer, servers};
use super::units::format_duration;
use super::{choices, profile, sources, values};

/// Servers, and how sessions are spread over them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pool {
    /// Of `[upstream.NAME]`; `None`: it is written in the forward. Pools that
    /// ranges of ports make from one share its name.
    pub name: Option<String>,
    /// The servers, in order; never empty, never all backups, never all without
    /// weight.
    pub servers: Vec<Server>,
    /// Who is first for a new session.
    pub balance: Balance,
    /// Servers tried after the first one of a session; `None`, the default: every
    /// other one once.
    pub retries: Option<u8>,
    /// No further attempt begins later than this after the accept; 30 s by
    /// default, `Duration::MAX` for "off".
    pub retry_timeout: Duration,
    /// Failures within `fail_timeout` that take a server out of use for as long;
    /// 1 by default (as nginx). 0: failures are not counted.
    pub max_fails: u32,
    /// See `max_fails`; 10 s by default (as nginx), 1 ms to a day.
    pub fail_timeout: Duration,
    /// A server that is back gets its share little by little over this time; 0,
    /// the default: at once. At most a day.
    pub slow_start: Duration,
    /// Sessions that may wait, per reactor, while every server is at its
    /// `max_connections`; 1024 by default, 0: none waits.
    pub queue: u32,
    /// How long they may; 5 s by default, 1 ms to a day.
    pub queue_timeout: Duration,
    /// How servers are probed; `None`, the default: they are not.
    pub check: Option<Check>,
    /// Which addresses of a name are servers.
    pub resolve: Resolve,
    /// A name is looked up again no sooner than this, whatever its TTL; 1 s by
    /// default, 10 ms to a day.
    pub ttl_min: Duration,
    /// And no later; 5 min by default, never less than `ttl_min`, at most a week.
    pub ttl_max: Duration,
    /// Between attempts at the addresses of one name; 250 ms by default, 10 ms to
    /// 2 s (RFC 8305, section 5).
    pub attempt_delay: Duration,
    /// Local addresses of connects, used in turn; empty, the default: the
    /// profile's, or the kernel's choice. Every server with a literal address has
    /// one of its family.
    pub sources: Vec<IpAddr>,
    /// The interface connects leave by; `None`, the default: the profile's, or
    /// by the routes.
    pub interface: Option<String>,
    /// Connect from the client's own address (`IP_TRANSPARENT`, which needs
    /// `CAP_NET_ADMIN`); no by default, never together with `sources` or `warm`.
    pub transparent: bool,
    /// Connected spares kept for each server and reactor; 0 by default, at most
    /// 1024.
    pub warm: u32,
    /// A spare that is older is replaced; 60 s by default, 100 ms to a day.
    pub warm_max_age: Duration,
}

impl Pool {
    /// A pool of these servers, everything else by default.
    pub const fn new(servers: Vec<Server>) -> Self {
        Self {
            name: None,
            servers,
            balance: Balance::RoundRobin,
            retries: None,
            retry_timeout: Duration::from_secs(30),
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            slow_start: Duration::ZERO,
            queue: 1024,
            queue_timeout: Duration::from_secs(5),
            check: None,
            resolve: Resolve::All,
            ttl_min: Duration::from_secs(1),
            ttl_max: Duration::from_secs(300),
            attempt_delay: Duration::from_millis(250),
            sources: Vec::new(),
            interface: None,
            transparent: false,
            warm: 0,
            warm_max_age: Duration::from_secs(60),
        }
    }
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

/// `resolve =`: which addresses of a name are servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolve {
    /// Every one; the default.
    All,
    /// One server for the name, whichever of its addresses connects first.
    First,
}

/// Every key of a pool, for tables in which people look for them.
pub(super) const KEYS: [&str; 19] = [
    "servers",
    "balance",
    "retries",
    "retry_timeout",
    "max_fails",
    "fail_timeout",
    "slow_start",
    "queue",
    "queue_timeout",
    "check",
    "resolve",
    "resolve_ttl_min",
    "resolve_ttl_max",
    "attempt_delay",
    "source",
    "interface",
    "transparent",
    "warm",
    "warm_max_age",
];

/// Keys that every pool has for itself.
const IN_POOLS: Elsewhere<'_> = Elsewhere {
    keys: &["servers", "name"],
    owner: "of a pool",
    remedy: "such as [upstream.web] with servers = [\"10.0.0.1:443\"]",
};

/// Keys that a pool has not, and where they belong.
const IN_SERVERS: Elsewhere<'_> = Elsewhere {
    keys: &["address", "weight", "backup", "max_connections", "state"],
    owner: "of a server",
    remedy: "such as servers = [{ address = \"10.0.0.1:443\", weight = 2 }]",
};
const IN_CHECKS: Elsewhere<'_> = Elsewhere {
    keys: &[
        "type",
        "interval",
        "fast_interval",
        "timeout",
        "rise",
        "fall",
        "jitter",
        "on_down",
        "port",
    ],
    owner: "of a check",
    remedy: "such as check = { type = \"tcp\", interval = \"2s\", timeout = \"1s\" }",
};

const MILLISECOND: Duration = Duration::from_millis(1);
const MICROSECOND: Duration = Duration::from_micros(1);
const DAY: Duration = Duration::from_secs(86_400);
const WARM_MAX: i64 = 1024;

/// A pool as it is written: its servers may be ranges of ports.
#[derive(Debug, Clone)]
pub(super) struct WrittenPool {
    pub(super) servers: Vec<WrittenServer>,
    /// Everything but the servers.
    rest: Pool,
}

impl WrittenPool {
    /// `[upstream.NAME]`.
    pub(super) fn named(entry: &Entry, base: &Pool, report: &mut Report) -> Self {
        let title = format!("[upstream.{}]", entry.key);
        let mut pool = Self::of(Vec::new(), base);
        if let Some(table) = TableReader::open(&entry.node, &title, report) {
            pool.read(table, &entry.key_span, report);
        }
        pool.rest.name = Some(entry.key.clone());
        pool
    }

    /// `upstream = { servers = … }`; `name` is what `thalweg check` prints of a
    /// pool that has one.
    fn inline(node: &Node, names: &Names, report: &mut Report) -> Self {
        let mut pool = Self::of(Vec::new(), names.base_pool());
        if let Some(mut table) = TableReader::open(node, "`upstream`", report) {
            pool.rest.name = table.read("name", report, |node| {
                let name = values::string(node)?;
                check_name(name)?;
                names.check_free(name)?;
                Ok(name.to_owned())
            });
            pool.read(table, &node.span, report);
        }
        pool
    }

    fn of(servers: Vec<WrittenServer>, base: &Pool) -> Self {
        let rest = base.clone();
        Self { servers, rest }
    }

    /// `[defaults.upstream]`: what pools start from that do not say otherwise.
    pub(super) fn base(node: &Node, report: &mut Report) -> Pool {
        let mut pool = Self::of(Vec::new(), &Pool::new(Vec::new()));
        if let Some(mut table) = TableReader::open(node, "[defaults.upstream]", report) {
            pool.read_rest(&mut table, report);
            table.close(report, &[IN_POOLS, IN_SERVERS, IN_CHECKS]);
        }
        pool.rest
    }

    /// The pool that belongs to the n-th port of a range.
    pub(super) fn at(&self, index: usize) -> Pool {
        Pool {
            servers: self.servers.iter().filter_map(|it| it.at(index)).collect(),
            ..self.rest.clone()
        }
    }

    /// What holds for the pool whatever the port.
    pub(super) fn rest(&self) -> &Pool {
        &self.rest
    }

    fn read(&mut self, mut table: TableReader<'_>, place: &Span, report: &mut Report) {
        let t = &mut table;
        if let Some(node) = t.get("servers") {
            self.servers = whole_servers("servers", node, report);
        } else {
            let fault = Fault::new(format!("{} has no `servers`", t.title()));
            let remedy = "such as servers = [\"10.0.0.1:443\", \"10.0.0.2:443\"]";
            report.consequence(place, fault.remedy(remedy));
        }
        self.read_rest(t, report);
        table.close(report, &[IN_SERVERS, IN_CHECKS]);
    }

    /// Every key but the servers.
    fn read_rest(&mut self, t: &mut TableReader<'_>, report: &mut Report) {
        let pool = &mut self.rest;
        read_policy(t, pool, report);
        read_failing(t, pool, report);
        if let Some(node) = t.get("check") {
            pool.check = check::read(node, report);
        }
        read_names(t, pool, report);
        read_local(t, pool, &self.servers, report);
    }
}

/// Sets what is written; what is not, or is wrong, keeps its default.
fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

/// Who is picked, and who waits.
fn read_policy(t: &mut TableReader<'_>, pool: &mut Pool, report: &mut Report) {
    set(&mut pool.balance, t.read("balance", report, balance));
    let start = |n: &Node| values::duration(n, Duration::ZERO..=DAY, MICROSECOND);
    set(&mut pool.slow_start, t.read("slow_start", report, start));
    let queue = |n: &Node| values::integer(n, 0..=1_000_000);
    set(&mut pool.queue, t.read("queue", report, queue));
    let wait = |n: &Node| values::duration(n, MILLISECOND..=DAY, MICROSECOND);
    set(
        &mut pool.queue_timeout,
        t.read("queue_timeout", report, wait),
    );
}

/// What a failure leads to.
fn read_failing(t: &mut TableReader<'_>, pool: &mut Pool, report: &mut Report) {
    set(&mut pool.retries, t.read("retries", report, retries));
    let timeout = t.read("retry_timeout", report, values::timeout);
    set(&mut pool.retry_timeout, timeout);
    set(&mut pool.max_fails, t.read("max_fails", report, max_fails));
    let timeout = t.read("fail_timeout", report, fail_timeout);
    set(&mut pool.fail_timeout, timeout);
}

pub(super) fn max_fails(node: &Node) -> Result<u32, Fault> {
    values::integer(node, 0..=i64::from(u32::MAX))
}

pub(super) fn fail_timeout(node: &Node) -> Result<Duration, Fault> {
    values::duration(node, MILLISECOND..=DAY, MICROSECOND)
}

/// Names and their addresses.
fn read_names(t: &mut TableReader<'_>, pool: &mut Pool, report: &mut Report) {
    const WEEK: Duration = Duration::from_secs(7 * 86_400);
    let resolve = t.read("resolve", report, |n| values::choice(n, choices::RESOLVES));
    set(&mut pool.resolve, resolve);
    let time = |most| {
        let range: RangeInclusive<Duration> = MILLISECOND * 10..=most;
        move |n: &Node| values::duration(n, range, MICROSECOND)
    };
    let (min, max) = (
        t.read("resolve_ttl_min", report, time(DAY)),
        t.read("resolve_ttl_max", report, time(WEEK)),
    );
    set(&mut pool.ttl_min, min);
    set(&mut pool.ttl_max, max);
    let written = t.get("resolve_ttl_max").or(t.get("resolve_ttl_min"));
    if let (true, Some(node)) = (pool.ttl_min > pool.ttl_max, written) {
        let fault = Fault::new(format!(
            "`resolve_ttl_min` of {} is more than `resolve_ttl_max` of {}",
            format_duration(pool.ttl_min),
            format_duration(pool.ttl_max)
        ));
        report.error(&node.span, fault.remedy("lower the one or raise the other"));
    }
    let delay = t.read("attempt_delay", report, |n| {
        values::duration(n, MILLISECOND * 10..=Duration::from_secs(2), MICROSECOND)
    });
    set(&mut pool.attempt_delay, delay);
}

/// The near end of connects, and spares.
fn read_local(
    t: &mut TableReader<'_>,
    pool: &mut Pool,
    servers: &[WrittenServer],
    report: &mut Report,
) {
    if let Some(node) = t.get("source") {
        pool.sources = sources::read(node, report);
    }
    if let Some(interface) = t.read("interface", report, profile::interface) {
        pool.interface = Some(interface);
    }
    let transparent = t.read("transparent", report, values::boolean);
    set(&mut pool.transparent, transparent);
    set(
        &mut pool.warm,
        t.read("warm", report, |n| values::integer(n, 0..=WARM_MAX)),
    );
    let age = |n: &Node| values::duration(n, MILLISECOND * 100..=DAY, MICROSECOND);
    set(&mut pool.warm_max_age, t.read("warm_max_age", report, age));
    sources::check_families(&pool.sources, servers, report);
    if !pool.transparent {
        return;
    }
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

/// A policy by its name here; by another forwarder's name, ours is said.
fn balance(node: &Node) -> Result<Balance, Fault> {
    if let Value::String(text) = &node.value {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let foreign = choices::FOREIGN_BALANCES
            .iter()
            .find(|(name, ..)| *name == words.to_ascii_lowercase());
        if let Some((name, owner, ours)) = foreign {
            let fault = Fault::new(format!("\"{name}\" is what {owner} calls it"));
            return Err(fault.remedy(format!("write \"{ours}\"")));
        }
    }
    values::choice(node, choices::BALANCES)
}

/// A number, or `"all"`: every other server once.
fn retries(node: &Node) -> Result<Option<u8>, Fault> {
    match &node.value {
        Value::String(text) if text == "all" => Ok(None),
        Value::String(text) if text.parse::<u8>().is_err() => {
            let fault = Fault::new("this must be a number or \"all\"");
            Err(fault.remedy("\"all\" is every other server once"))
        }
        _ => values::integer(node, 0..=255).map(Some),
    }
}

/// The servers of a pool, and what must hold for all of them together. A list of
/// which a part is wrong is not judged as a whole: that part may be what is missing.
fn whole_servers(key: &str, node: &Node, report: &mut Report) -> Vec<WrittenServer> {
    let errors = report.count();
    let servers = servers(key, node, report);
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

/// `upstream =` of a forward: a pool's name, a pool, or servers. Without servers
/// where it is wrong, which has been reported.
pub(super) fn upstream(node: &Node, names: &mut Names, report: &mut Report) -> WrittenPool {
    match &node.value {
        Value::String(text) if !text.is_empty() && !text.contains([':', ',']) => {
            match names.pool(text) {
                Ok(pool) => pool.clone(),
                Err(mut fault) => {
                    fault.message = format!("`upstream`: {}", fault.message);
                    report.consequence(&node.span, fault);
                    WrittenPool::of(Vec::new(), names.base_pool())
                }
            }
        }
        // A single server as a table was read before pools could be.
        Value::Table(_) if node.entry("address").is_none() => {
            WrittenPool::inline(node, names, report)
        }
        _ => {
            let servers = whole_servers("upstream", node, report);
            WrittenPool::of(servers, names.base_pool())
        }
    }
}
