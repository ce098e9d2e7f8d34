//! What a server may be given: sessions of one client, new sessions in a time, and bytes a
//! second. `max_connections` is in [`super::limits`].

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::pool::{Pool, Visit, servers, tell, tried};
use crate::kit::peer::{Refusing, unless_reset};
use crate::kit::*;

/// Servers that are used in this order, each with so many sessions of one client.
fn one_each(servers: &[Listener]) -> Pool {
    let pool = Pool::default().text("balance", "first");
    servers.iter().fold(pool, |pool, server| {
        pool.server(server.address(), "max_per_client = 1")
    })
}

fn come(last: u8, to: SocketAddr) -> Peer {
    Peer::connect_from_address([127, 0, 0, last], to)
}

/// A client that no server takes; how it was told.
fn turned_away(last: u8, to: SocketAddr) -> End {
    let client = unless_reset(Peer::try_connect_from_address([127, 0, 0, last], to));
    client.map_or(End::Reset, |mut client| client.receive_until_end())
}

#[test]
fn b79_a_client_has_its_share_of_each_server_and_no_more() {
    on_every_engine(|case| {
        let servers = servers::<2>();
        let forwarder = one_each(&servers).start(case);
        let to = forwarder.address();
        let first = Visit::of(come(2, to), &servers);
        let second = Visit::of(come(2, to), &servers);
        assert_eq!((first.server, second.server), (0, 1));
        assert_eq!(turned_away(2, to), End::Reset);
        let record = forwarder.wait_for_session();
        assert_eq!((record.code(), record.cause()), ("PR", "max_per_client"));
        // Another client has as many.
        let other = Visit::of(come(3, to), &servers);
        assert_eq!(other.server, 0);
        let line = forwarder.wait_for_line("turned away");
        assert_eq!((line.code(), line.cause()), ("PR", "max_per_client"));
        let counters = forwarder.counters();
        assert_eq!(counters.of("denied_server_max_per_client"), 1);
        assert_eq!(counters.of("denied_max_per_client"), 0);
        // The second session passed by the first server, the third by both.
        assert_eq!(tell(&forwarder, servers[0].address()).of("over_limit"), 2);
        assert_eq!(tell(&forwarder, servers[1].address()).of("over_limit"), 1);
        // A place is free after an end.
        first.end();
        forwarder.wait_for_sessions(2);
        let again = Visit::of(come(2, to), &servers);
        assert_eq!(again.server, 0);
        for visit in [second, other, again] {
            visit.end();
        }
        forwarder.wait_for_sessions(5);
        forwarder.check_idle();
    });
}

#[test]
fn b88_a_dry_run_of_a_servers_share_counts_and_lets_everybody_through() {
    on_every_engine(|case| {
        let servers = servers::<1>();
        let setup = one_each(&servers).setup(case);
        let forwarder = setup.set("defaults.dry_run", true).start();
        let to = forwarder.address();
        let visits: Vec<_> = (0..3).map(|_| Visit::of(come(2, to), &servers)).collect();
        let counters = forwarder.counters();
        assert_eq!(counters.of("denied_server_max_per_client"), 2);
        forwarder.wait_for_line("would be turned away");
        for visit in visits {
            visit.end();
        }
        forwarder.wait_for_sessions(3);
        forwarder.check_idle();
    });
}

/// Behaviour 81: two reactors, and whatever else a session may end by.
#[test]
fn b81_a_client_never_has_more_than_its_share_of_a_server() {
    const MAX: usize = 5;
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Pool::default()
            .server(server.address(), &format!("max_per_client = {MAX}"))
            .setup(case)
            .reactors(2)
            .start();
        let to = forwarder.address();
        let mut turned_away = 0;
        for round in 1..=3 {
            let clients: Vec<_> = (0..8 * MAX)
                .map(|_| unless_reset(Peer::try_connect_from_address([127, 0, 0, 2], to)))
                .collect();
            let upstreams: Vec<_> = (0..MAX).map(|_| server.accept()).collect();
            turned_away += 7 * MAX as u64;
            wait_until("the others are turned away", PATIENCE, || {
                forwarder.counters().of("denied_server_max_per_client") == turned_away
            });
            assert!(server.accept_within(Duration::from_millis(50)).is_none());
            for (at, upstream) in upstreams.into_iter().enumerate() {
                if at % 2 == 0 {
                    upstream.reset();
                } else {
                    upstream.close();
                }
            }
            drop(clients);
            forwarder.wait_for_sessions(round * 8 * MAX);
        }
        forwarder.check_idle();
    });
}

/// A server that refuses gives the place back each time.
#[test]
fn b79_a_refused_connect_holds_no_place() {
    on_every_engine(|case| {
        let (refusing, servers) = (Refusing::new(), servers::<1>());
        let forwarder = Pool::default()
            .server(refusing.address(), "max_per_client = 1, max_fails = 0")
            .server(servers[0].address(), "max_per_client = 9")
            .text("balance", "first")
            .start(case);
        let to = forwarder.address();
        let visits: Vec<_> = (0..4).map(|_| Visit::of(come(2, to), &servers)).collect();
        for visit in visits {
            visit.end();
        }
        for record in forwarder.wait_for_sessions(4) {
            assert_eq!(tried(&record).len(), 1, "{record:?}");
        }
        assert_eq!(tell(&forwarder, refusing.address()).of("over_limit"), 0);
        forwarder.check_idle();
    });
}

/// The addresses of a name are raced, and each has places of its own.
#[test]
fn b79_a_race_takes_places_and_gives_them_back() {
    on_every_engine(|case| {
        let servers = servers::<1>();
        let port = servers[0].address().port();
        let forwarder = Pool::default()
            .server(
                format!("localhost:{port}"),
                "max_per_client = 1, max_fails = 0",
            )
            .start(case);
        let to = forwarder.address();
        for round in 1..=3 {
            let visit = Visit::of(come(2, to), &servers);
            assert_eq!(turned_away(2, to), End::Reset);
            let record = forwarder.wait_for_sessions(2 * round - 1).pop().unwrap();
            assert_eq!((record.code(), record.cause()), ("PR", "max_per_client"));
            visit.end();
            forwarder.wait_for_sessions(2 * round);
        }
        forwarder.check_idle();
    });
}

/// Behaviour 82 of a server: who comes too fast waits, or goes to the others.
#[test]
fn b82_a_server_is_given_sessions_no_faster_than_it_takes() {
    const COME: usize = 8;
    on_every_engine(|case| {
        let server = Listener::new();
        let limit = "connect_rate = \"10/s\", connect_burst = 2";
        let forwarder = Pool::default()
            .server(server.address(), limit)
            .text("queue_timeout", "60s")
            .setup(case)
            .reactors(2)
            .start();
        let began = Instant::now();
        let clients: Vec<_> = (0..COME).map(|_| forwarder.connect()).collect();
        for arrived in 1..=COME {
            drop(server.accept());
            let least = Duration::from_millis(100) * arrived.saturating_sub(2) as u32;
            assert!(began.elapsed() >= least, "{arrived}: {:?}", began.elapsed());
        }
        drop(clients);
        forwarder.wait_for_sessions(COME);
        assert!(forwarder.counters().of("queued") > 0);
        let told = tell(&forwarder, server.address());
        assert!(told.of("connect_rate_reached") > 0);
        forwarder.check_idle();
    });
}

#[test]
fn who_is_too_fast_for_a_server_goes_to_another_one() {
    on_every_engine(|case| {
        let servers = servers::<2>();
        let forwarder = Pool::default()
            .server(servers[0].address(), "connect_rate = \"1/h\"")
            .server(servers[1].address(), "")
            .text("balance", "first")
            .start(case);
        let went = super::pool::visits(&forwarder, &servers, 3);
        assert_eq!(went, [0, 1, 1]);
        assert_eq!(forwarder.counters().of("queued"), 0);
        forwarder.check_idle();
    });
}

/// Behaviour 85 of a server: two sessions share its rate, and those of another one know
/// nothing of it.
#[test]
fn b85_the_sessions_of_a_server_share_its_rate() {
    const EACH: u64 = 500_000;
    on_every_path(|case| {
        let servers = servers::<2>();
        let limit = "max_connections = 2, rate = { down = \"1MB/s\" }";
        let forwarder = Pool::default()
            .server(servers[0].address(), limit)
            .server(servers[1].address(), "")
            .text("balance", "first")
            .start(case);
        let mut visits: Vec<_> = (0..3).map(|_| Visit::new(&forwarder, &servers)).collect();
        assert_eq!(visits[2].server, 1);
        visits[2].talk();
        let began = Instant::now();
        std::thread::scope(|scope| {
            for visit in &mut visits[..2] {
                let Visit {
                    client, upstream, ..
                } = visit;
                scope.spawn(move || upstream.send(EACH));
                scope.spawn(move || client.expect(EACH));
            }
        });
        // What flows in the burst comes at once.
        assert!(began.elapsed() >= Duration::from_millis(850));
        assert!(forwarder.counters().of("held_back_server") > 0);
        let free = visits.pop().unwrap();
        free.end();
        let record = forwarder.wait_for_session();
        assert_eq!(record.number("held_back_us").unwrap_or(0), 0, "{record:?}");
        for visit in visits {
            visit.end();
        }
        let records = forwarder.wait_for_sessions(3);
        let held = records.iter().filter_map(|it| it.number("held_back_us"));
        assert!(held.sum::<u64>() > 500_000, "{records:?}");
        forwarder.check_idle();
    });
}
