//! Where connects come from: behaviours 28 to 30 with pools, several local addresses
//! and interfaces. Connecting from the client's address is in `transparent.rs`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::pool::{
    CLIENT_PORTS, Pool, Visit, addresses, called, in_a_namespace, leave_ports, servers, shares,
    state, tell, tried, turned_away,
};
use crate::kit::peer::unless_reset;
use crate::kit::*;

const FIRST_PORT: u16 = 40_000;

/// Connects so many clients; those that a server was found for, and how many were
/// turned away.
fn crowd(forwarder: &Forwarder, servers: &[Listener], clients: u16) -> (Vec<Visit>, usize) {
    let accept = |(at, server): (usize, &Listener)| {
        let upstream = server.accept_within(Duration::ZERO)?;
        Some((at, upstream))
    };
    let mut visits = Vec::new();
    for n in 0..clients {
        let ended = forwarder.sessions().len();
        let client = Peer::try_connect_from(CLIENT_PORTS + n, forwarder.address());
        let client = unless_reset(client);
        // A server hears of it, or it has ended.
        let called = poll(PATIENCE, || {
            match servers.iter().enumerate().find_map(accept) {
                None if forwarder.sessions().len() == ended => None,
                called => Some(called),
            }
        });
        if let (Some(client), Some((server, upstream))) = (client, called.unwrap()) {
            visits.push(Visit {
                client,
                upstream,
                server,
            });
        }
    }
    let away = usize::from(clients) - visits.len();
    (visits, away)
}

#[test]
fn several_sources_take_turns_and_have_ports_of_their_own() {
    const PORTS: u16 = 20;
    const CLIENTS: u16 = 50;
    in_a_namespace(|case| {
        let servers = servers::<1>();
        let sources = [100, 101].map(|host| IpAddr::from(Ipv4Addr::new(127, 0, 0, host)));
        let forwarder = Pool::of(&addresses(&servers))
            .key(
                "source",
                format!("[\"{}\", \"{}\"]", sources[0], sources[1]),
            )
            .start(case);
        leave_ports(FIRST_PORT, PORTS);
        let (mut visits, away) = crowd(&forwarder, &servers, CLIENTS);
        // The kernel's search may miss a port or two.
        let most = usize::from(2 * PORTS);
        assert!(
            (most - 2..=most).contains(&visits.len()),
            "{} of {most}",
            visits.len()
        );
        let from = |visit: &Visit| {
            let ip = visit.upstream.remote().ip();
            sources.iter().position(|source| *source == ip).unwrap()
        };
        let on: Vec<_> = visits.iter().map(from).collect();
        assert!(
            on[..10].windows(2).all(|pair| pair[0] != pair[1]),
            "in turn: {on:?}"
        );
        let shares: [usize; 2] = shares(&on);
        assert!(
            shares.iter().all(|it| *it >= usize::from(PORTS) - 2),
            "{shares:?}"
        );
        for record in forwarder.wait_for_sessions(away) {
            assert_eq!((record.code(), record.cause()), ("RC", "ports_exhausted"));
        }
        assert_eq!(forwarder.complaints().len(), 1, "one line, not {away}");
        for visit in &mut visits {
            visit.talk();
        }
        for visit in visits {
            visit.client.reset();
        }
        forwarder.wait_for_sessions(usize::from(CLIENTS));
        forwarder.check_idle();
    });
}

#[test]
fn b29_a_lack_of_ports_marks_no_server() {
    const PORTS: u16 = 10;
    in_a_namespace(|case| {
        let servers = servers::<2>();
        let at = addresses(&servers);
        let forwarder = Pool::of(&at).text("fail_timeout", "1h").start(case);
        leave_ports(FIRST_PORT, PORTS);
        let (visits, away) = crowd(&forwarder, &servers, 4 * PORTS);
        // Each port serves both servers.
        let most = usize::from(2 * PORTS);
        assert!(
            (most - 2..=most).contains(&visits.len()),
            "{} of {most}",
            visits.len()
        );
        for record in forwarder.wait_for_sessions(away) {
            assert_eq!((record.code(), record.cause()), ("RC", "ports_exhausted"));
        }
        for server in &at {
            let told = tell(&forwarder, *server);
            assert_eq!(told.word("state"), "up");
            for kind in ["refused", "unreachable", "timeout", "reset", "other"] {
                assert_eq!(told.of(&format!("failures_{kind}")), 0, "{kind}");
            }
        }
        assert!(forwarder.counters().of("connect_shortages") >= away as u64);
        assert!(forwarder.lines_with("is marked").is_empty());
        // Once they are free both are used as before.
        for visit in visits {
            visit.client.reset();
        }
        forwarder.wait_for_sessions(4 * usize::from(PORTS));
        let (visits, away) = crowd(&forwarder, &servers, 6);
        assert_eq!(away, 0);
        let on: Vec<_> = visits.iter().map(|visit| visit.server).collect();
        assert_eq!(shares(&on), [3, 3]);
    });
}

#[test]
fn b30_connects_from_the_source_of_a_pool_share_ports_between_servers() {
    const PORTS: u16 = 10;
    const SERVERS: u8 = 4;
    in_a_namespace(|case| {
        let source = IpAddr::from(Ipv4Addr::new(127, 0, 0, 100));
        let servers: Vec<_> = (1..=SERVERS)
            .map(|host| Listener::on(Ipv4Addr::new(127, 0, 1, host).into()))
            .collect();
        let forwarder = Pool::of(&addresses(&servers))
            .text("source", &source.to_string())
            .start(case);
        leave_ports(FIRST_PORT, PORTS);
        let clients = PORTS * u16::from(SERVERS) * 3 / 4;
        let (mut visits, away) = crowd(&forwarder, &servers, clients);
        assert_eq!(away, 0, "more connections than ports");
        for visit in &mut visits {
            assert_eq!(visit.upstream.remote().ip(), source);
            visit.talk();
        }
    });
}

/// With one free port, which is the server's, the connect reaches itself; the pool
/// has another server, and this one is marked as one that refuses.
#[test]
fn b28_a_server_of_a_pool_that_is_the_forwarder_itself() {
    in_a_namespace(|case| {
        let down = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_PORT));
        let alive = servers::<1>();
        let forwarder = Pool::of(&[down, alive[0].address()])
            .text("balance", "first")
            .start(case);
        leave_ports(FIRST_PORT, 1);
        let client = Peer::connect_from(CLIENT_PORTS, forwarder.address());
        Visit::of(client, &alive).end();
        let record = forwarder.wait_for_session();
        assert_eq!(
            tried(&record),
            [(down.to_string(), "self_connect".to_owned())]
        );
        assert_eq!(tell(&forwarder, down).of("failures_refused"), 1);
        assert_eq!(state(&forwarder, down), "marked");
        forwarder.check_idle();
    });
}

#[test]
fn connects_leave_by_the_interface_of_the_pool() {
    on_every_engine(|case| {
        let servers = servers::<2>();
        let at = addresses(&servers);
        let forwarder = Pool::of(&at).text("interface", "lo").start(case);
        Visit::new(&forwarder, &servers).end();

        // One that is not there is a lack on this machine, and no server's fault.
        let forwarder = Pool::of(&at).text("interface", "none-such0").start(case);
        let away = turned_away(&forwarder);
        assert_eq!(away, End::Reset);
        let record = forwarder.wait_for_session();
        assert_eq!((record.code(), record.cause()), ("RC", "no_source"));
        for server in at {
            assert_eq!(state(&forwarder, server), "up");
        }
    });
}

/// A source that no interface has: likewise.
#[test]
fn a_source_that_is_gone_is_no_fault_of_a_server() {
    on_every_engine(|case| {
        let servers = servers::<2>();
        let at = addresses(&servers);
        let forwarder = Pool::of(&at)
            .key("source", "[\"192.0.2.77\", \"127.0.0.100\"]")
            .start(case);
        // The other one is used instead.
        for _ in 0..4 {
            let client = forwarder.connect();
            let (_, upstream) = called(&servers);
            assert_eq!(upstream.remote().ip(), IpAddr::from([127, 0, 0, 100]));
            drop(client);
        }
        let alone = Pool::of(&at).text("source", "192.0.2.77").start(case);
        assert_eq!(turned_away(&alone), End::Reset);
        let record = alone.wait_for_session();
        assert_eq!((record.code(), record.cause()), ("RC", "no_source"));
        assert_eq!(state(&alone, at[0]), "up");
    });
}
