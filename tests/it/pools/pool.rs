//! A pool of a configuration, and sessions through it.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::kit::log::Counters;
use crate::kit::namespace::sysctl;
use crate::kit::peer::transfer;
use crate::kit::*;

/// Ports of clients, outside of those that a test leaves to the kernel.
pub(crate) const CLIENT_PORTS: u16 = 20_000;

/// The pool `pool`, key by key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool {
    servers: Vec<String>,
    keys: Vec<(String, String)>,
}

impl Pool {
    /// Of these servers, with nothing else said of them.
    pub(crate) fn of(servers: &[SocketAddr]) -> Self {
        let pool = Self::default();
        servers.iter().fold(pool, |pool, at| pool.server(*at, ""))
    }

    /// One more server; `more` are its keys, such as `weight = 2`.
    pub(crate) fn server(mut self, address: impl ToString, more: &str) -> Self {
        let comma = if more.is_empty() { "" } else { ", " };
        let address = address.to_string();
        self.servers
            .push(format!("{{ address = \"{address}\"{comma}{more} }}"));
        self
    }

    /// A key of the pool; `value` as TOML has it.
    pub(crate) fn key(mut self, key: &str, value: impl ToString) -> Self {
        self.keys.push((key.to_owned(), value.to_string()));
        self
    }

    /// A key whose value is a text.
    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.key(key, format!("\"{value}\""))
    }

    /// A forwarder to it.
    pub(crate) fn setup(&self, case: Case) -> Setup {
        self.setup_at("127.0.0.1:0", case)
    }

    /// A forwarder to it, from `listen`.
    pub(crate) fn setup_at(&self, listen: &str, case: Case) -> Setup {
        let servers = format!("[{}]", self.servers.join(", "));
        let setup = Setup::between(listen, "pool")
            .case(case)
            .set("upstream.pool.servers", servers);
        self.keys.iter().fold(setup, |setup, (key, value)| {
            setup.set(&format!("upstream.pool.{key}"), value)
        })
    }

    pub(crate) fn start(&self, case: Case) -> Forwarder {
        self.setup(case).start()
    }
}

/// Runs a behaviour on every engine, each in a namespace of its own.
pub(crate) fn in_a_namespace(behaviour: impl Fn(Case) + Sync) {
    on_every_engine(|case| {
        if let Some(namespace) = Namespace::new() {
            namespace.run(|| behaviour(case));
        }
    });
}

/// The local ports that the kernel hands out in this namespace from now on.
pub(crate) fn leave_ports(first: u16, count: u16) {
    let range = format!("{first} {}", first + count - 1);
    sysctl("net.ipv4.ip_local_port_range", &range);
}

/// Servers on ports of their own.
pub(crate) fn servers<const N: usize>() -> [Listener; N] {
    std::array::from_fn(|_| Listener::new())
}

/// Where they are.
pub(crate) fn addresses(servers: &[Listener]) -> Vec<SocketAddr> {
    servers.iter().map(Listener::address).collect()
}

/// A session that stands.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) client: Peer,
    pub(crate) upstream: Peer,
    /// Which of the servers it is on.
    pub(crate) server: usize,
}

impl Visit {
    /// A new client, wherever it is sent; there and back.
    #[track_caller]
    pub(crate) fn new(forwarder: &Forwarder, servers: &[Listener]) -> Self {
        Self::of(forwarder.connect(), servers)
    }

    /// Of a client that is connected; there and back.
    #[track_caller]
    pub(crate) fn of(client: Peer, servers: &[Listener]) -> Self {
        let (server, upstream) = called(servers);
        let mut visit = Self {
            client,
            upstream,
            server,
        };
        visit.talk();
        visit
    }

    /// Bytes both ways.
    #[track_caller]
    pub(crate) fn talk(&mut self) {
        transfer(&mut self.client, &mut self.upstream, 1000);
        transfer(&mut self.upstream, &mut self.client, 1000);
    }

    /// Ends in good order.
    #[track_caller]
    pub(crate) fn end(mut self) {
        self.client.half_close();
        self.upstream.expect_then_eof(0);
        self.upstream.close();
        self.client.expect_then_eof(0);
    }
}

/// The next connection that any of the servers gets.
#[track_caller]
pub(crate) fn called(servers: &[Listener]) -> (usize, Peer) {
    let accept = |(at, server): (usize, &Listener)| {
        let peer = server.accept_within(Duration::ZERO)?;
        Some((at, peer))
    };
    let found = poll(PATIENCE, || servers.iter().enumerate().find_map(accept));
    found.expect("no server was called")
}

/// So many sessions, one after the other; which server each was on.
#[track_caller]
pub(crate) fn visits(forwarder: &Forwarder, servers: &[Listener], count: usize) -> Vec<usize> {
    let visit = |_| {
        let visit = Visit::new(forwarder, servers);
        let server = visit.server;
        visit.end();
        server
    };
    (0..count).map(visit).collect()
}

/// How many of the visits each server had.
pub(crate) fn shares<const N: usize>(visits: &[usize]) -> [usize; N] {
    std::array::from_fn(|at| visits.iter().filter(|server| **server == at).count())
}

/// A client that nobody can serve; how it was told.
#[track_caller]
pub(crate) fn turned_away(forwarder: &Forwarder) -> End {
    match peer::unless_reset(Peer::try_connect(forwarder.address())) {
        Some(mut client) => client.receive_until_end(),
        None => End::Reset,
    }
}

/// Servers that a session tried in vain, and why, as its record has them.
pub(crate) fn tried(record: &Record) -> Vec<(String, String)> {
    let tried = record.json()["tried"].as_array();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    tried
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .map(|it| (text(&it["server"]), text(&it["cause"])))
        .collect()
}

/// What the forwarder says of a server, asked for now (SIGUSR1).
#[track_caller]
pub(crate) fn tell(forwarder: &Forwarder, server: SocketAddr) -> Counters {
    let text = format!("server {server} pool=pool");
    let before = forwarder.lines_with(&text).len();
    forwarder.process().signal(Signal::SIGUSR1);
    let line = poll(PATIENCE, || {
        forwarder.lines_with(&text).get(before).cloned()
    });
    Counters::of_line(&line.expect("nothing is said of the server"))
}

/// Its state in a word.
#[track_caller]
pub(crate) fn state(forwarder: &Forwarder, server: SocketAddr) -> String {
    tell(forwarder, server).word("state").to_owned()
}
