//! `max_connections` of a server, and the queue before it.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::pool::{Pool, Visit, addresses, servers, tell, tried, turned_away};
use crate::kit::peer::Refusing;
use crate::kit::*;

/// A pool of one server that takes so many sessions.
fn limited(server: &Listener, max: u32) -> Pool {
    Pool::default()
        .server(server.address(), &format!("max_connections = {max}"))
        .text("queue_timeout", "60s")
}

/// A client that waits: number `n`, with a byte by which it is known.
#[track_caller]
fn waits(forwarder: &Forwarder, n: u64) -> Peer {
    let before = forwarder.counters().of("queued");
    let mut client = forwarder.connect().numbered_client(n);
    client.send(100);
    wait_until("it waits", PATIENCE, || {
        forwarder.counters().of("queued") == before + 1
    });
    client
}

#[test]
fn who_waits_is_served_in_order_when_a_session_ends() {
    on_every_engine(|case| {
        let servers = servers::<1>();
        let forwarder = limited(&servers[0], 2).start(case);
        let first = Visit::new(&forwarder, &servers);
        let second = Visit::new(&forwarder, &servers);
        let waiting: Vec<_> = (1..=4).map(|n| (n, waits(&forwarder, n))).collect();
        assert!(
            servers[0]
                .accept_within(Duration::from_millis(50))
                .is_none()
        );
        assert_eq!(tell(&forwarder, servers[0].address()).of("active"), 2);
        first.end();
        let mut sessions = vec![second];
        for (n, client) in waiting {
            // His payload and nobody else's.
            let mut upstream = servers[0].accept().numbered_server(n);
            upstream.expect(100);
            assert!(
                servers[0]
                    .accept_within(Duration::from_millis(20))
                    .is_none()
            );
            let mut visit = Visit {
                client,
                upstream,
                server: 0,
            };
            visit.talk();
            sessions.push(visit);
            sessions.remove(0).end();
        }
        sessions.remove(0).end();
        let records = forwarder.wait_for_sessions(6);
        assert!(
            records
                .iter()
                .all(|it| (it.code(), it.attempts()) == ("--", 1)),
            "{records:?}"
        );
        forwarder.check_idle();
        assert_eq!(tell(&forwarder, servers[0].address()).of("active"), 0);
    });
}

#[test]
fn a_server_is_never_above_its_limit_over_two_reactors() {
    const CLIENTS: usize = 12;
    on_every_engine(|case| {
        let servers = servers::<1>();
        let forwarder = limited(&servers[0], 1).setup(case).reactors(2).start();
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| forwarder.connect()).collect();
        for client in &mut clients {
            client.send(100);
        }
        // Whoever it is: clients wait on both reactors, and either may be next.
        for _ in 0..CLIENTS {
            let mut upstream = servers[0].accept();
            upstream.expect(100);
            let more = servers[0].accept_within(Duration::from_millis(30));
            assert!(more.is_none(), "two at a time");
            upstream.send(1);
            let answered = poll(PATIENCE, || {
                let now = Duration::from_millis(1);
                clients
                    .iter()
                    .position(|client| client.is_readable_within(now))
            });
            let mut client = clients.swap_remove(answered.unwrap());
            client.expect(1);
            let visit = Visit {
                client,
                upstream,
                server: 0,
            };
            visit.end();
        }
        let records = forwarder.wait_for_sessions(CLIENTS);
        let reactors: Vec<_> = records
            .iter()
            .filter_map(|it| it.number("reactor"))
            .collect();
        assert!(
            reactors.contains(&0) && reactors.contains(&1),
            "{reactors:?}"
        );
        // Reactors compete; on each of them who came first is first.
        for reactor in [0, 1] {
            let here = records
                .iter()
                .filter(|it| it.number("reactor") == Some(reactor));
            let ids: Vec<_> = here.filter_map(|it| it.number("id")).collect();
            assert!(ids.is_sorted(), "reactor {reactor}: {ids:?}");
        }
        // Nobody waits twice.
        let queued = forwarder.counters().of("queued");
        assert!(queued < CLIENTS as u64, "{queued} waited");
        forwarder.check_idle();
    });
}

#[test]
fn the_queue_is_full_and_others_are_turned_away() {
    on_every_engine(|case| {
        let servers = servers::<1>();
        let forwarder = limited(&servers[0], 1).key("queue", 2).start(case);
        let served = Visit::new(&forwarder, &servers);
        let waiting = [waits(&forwarder, 1), waits(&forwarder, 2)];
        for _ in 0..3 {
            assert_eq!(turned_away(&forwarder), End::Reset);
        }
        for record in forwarder.wait_for_sessions(3) {
            assert_eq!((record.code(), record.cause()), ("SC", "queue_full"));
            assert_eq!(record.attempts(), 0);
        }
        assert_eq!(forwarder.counters().of("queue_full"), 3);
        // Who leaves makes room for another.
        let [leaving, mut client] = waiting;
        leaving.reset();
        forwarder.wait_for_sessions(4);
        let third = waits(&forwarder, 3);
        served.end();
        let mut upstream = servers[0].accept().numbered_server(2);
        upstream.expect(100);
        client.half_close();
        upstream.expect_then_eof(0);
        upstream.close();
        client.expect_then_eof(0);
        let mut upstream = servers[0].accept().numbered_server(3);
        upstream.expect(100);
        Visit {
            client: third,
            upstream,
            server: 0,
        }
        .end();
        forwarder.check_idle();
    });
}

#[test]
fn the_queue_timeout_ends_the_wait() {
    on_every_engine(|case| {
        let servers = servers::<1>();
        let forwarder = limited(&servers[0], 1)
            .text("queue_timeout", "300ms")
            .start(case);
        let served = Visit::new(&forwarder, &servers);
        let watch = Stopwatch::start();
        assert_eq!(turned_away(&forwarder), End::Reset);
        let (took, allowing) = (watch.elapsed(), watch.allowing());
        assert!(took >= Duration::from_millis(270), "{took:?}");
        assert!(allowing <= Duration::from_secs(5), "{took:?}");
        let record = forwarder.wait_for_session();
        assert_eq!((record.code(), record.cause()), ("sQ", "queue_timeout"));
        assert_eq!(record.attempts(), 0);
        served.end();
        Visit::new(&forwarder, &servers).end();
        forwarder.check_idle();
    });
}

/// What a client that has left would have been given goes to the next.
#[test]
fn a_client_that_leaves_the_queue_is_passed_over() {
    on_every_engine(|case| {
        let servers = servers::<1>();
        let forwarder = limited(&servers[0], 1).start(case);
        let served = Visit::new(&forwarder, &servers);
        let (one, two) = (waits(&forwarder, 1), waits(&forwarder, 2));
        one.reset();
        let record = forwarder.wait_for_session();
        assert_eq!((record.code(), record.cause()), ("CQ", "reset"));
        served.end();
        let mut upstream = servers[0].accept().numbered_server(2);
        upstream.expect(100);
        Visit {
            client: two,
            upstream,
            server: 0,
        }
        .end();
        forwarder.check_idle();
    });
}

/// No server has room, and then another one is the first that has.
#[test]
fn whichever_server_has_room_first_is_used() {
    on_every_engine(|case| {
        let servers = servers::<3>();
        let pool = addresses(&servers)
            .into_iter()
            .fold(Pool::default(), |pool, at| {
                pool.server(at, "max_connections = 1")
            });
        let forwarder = pool.text("queue_timeout", "60s").start(case);
        let mut held: Vec<_> = (0..3).map(|_| Visit::new(&forwarder, &servers)).collect();
        for server in [2, 0, 1] {
            let client = waits(&forwarder, 1);
            let at = held
                .iter()
                .position(|visit| visit.server == server)
                .unwrap();
            held.swap_remove(at).end();
            let mut upstream = servers[server].accept().numbered_server(1);
            upstream.expect(100);
            held.push(Visit {
                client,
                upstream,
                server,
            });
        }
    });
}

/// The one with room was tried already: it is the other that is waited for.
#[test]
fn who_was_refused_waits_for_the_server_that_is_full() {
    on_every_engine(|case| {
        let (dead, servers) = (Refusing::new(), servers::<1>());
        let forwarder = Pool::of(&[dead.address()])
            .server(servers[0].address(), "max_connections = 1")
            .text("balance", "first")
            .text("queue_timeout", "60s")
            .key("max_fails", 0)
            .start(case);
        let served = Visit::new(&forwarder, &servers);
        let waiting: Vec<_> = (1..=2).map(|n| (n, waits(&forwarder, n))).collect();
        forwarder.check_quiet();
        let mut before = served;
        for (n, client) in waiting {
            before.end();
            let mut upstream = servers[0].accept().numbered_server(n);
            upstream.expect(100);
            before = Visit {
                client,
                upstream,
                server: 0,
            };
        }
        before.end();
        for record in forwarder.wait_for_sessions(3) {
            let refused = (dead.address().to_string(), "refused".to_owned());
            assert_eq!(tried(&record), [refused]);
            assert_eq!((record.code(), record.attempts()), ("--", 2));
        }
        assert_eq!(forwarder.counters().of("queued"), 2);
        forwarder.check_idle();
    });
}

/// They were let in: they are served, and then it ends.
#[test]
fn b65_who_waits_when_it_drains_is_served() {
    on_every_engine(|case| {
        let servers = servers::<1>();
        let mut forwarder = limited(&servers[0], 1).start(case);
        let served = Visit::new(&forwarder, &servers);
        let client = waits(&forwarder, 1);
        forwarder.process().signal(Signal::SIGTERM);
        forwarder.wait_for_line("draining: 2 sessions");
        served.end();
        let mut upstream = servers[0].accept().numbered_server(1);
        upstream.expect(100);
        Visit {
            client,
            upstream,
            server: 0,
        }
        .end();
        let status = forwarder.wait_for_exit(PATIENCE);
        assert!(status.is_some_and(|it| it.success()), "{status:?}");
    });
}
