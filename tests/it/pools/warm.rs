//! Warm connections: spares that stand before a client comes.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::pool::{Pool, Visit, addresses, in_a_namespace, servers, tell};
use crate::kit::directory::Directory;
use crate::kit::namespace::nft;
use crate::kit::*;

/// A pool of one server with `warm` spares.
fn warm(server: SocketAddr, spares: u32) -> Pool {
    Pool::of(&[server]).key("warm", spares)
}

/// The spares that the server has got, all of them.
#[track_caller]
fn spares(server: &Listener, count: usize) -> Vec<Peer> {
    (0..count).map(|_| server.accept()).collect()
}

/// A client has sent something: the spare at which it arrived.
#[track_caller]
fn taken(spares: &mut Vec<Peer>) -> Peer {
    let now = Duration::from_millis(1);
    let at = poll(PATIENCE, || {
        spares.iter().position(|it| it.is_readable_within(now))
    });
    spares.swap_remove(at.expect("no spare was used"))
}

#[test]
fn a_client_gets_a_spare_and_it_is_replaced() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = warm(server.address(), 2).start(case);
        let mut ready = spares(&server, 2);
        for _ in 0..5 {
            let mut client = forwarder.connect();
            client.send(1000);
            let mut upstream = taken(&mut ready);
            upstream.expect(1000);
            let mut visit = Visit {
                client,
                upstream,
                server: 0,
            };
            visit.talk();
            visit.end();
            ready.push(server.accept());
        }
        // No more than two at a time.
        assert!(server.accept_within(Duration::from_millis(100)).is_none());
        for record in forwarder.wait_for_sessions(5) {
            assert_eq!(record.json()["warm"], true, "{record:?}");
            assert_eq!((record.code(), record.attempts()), ("--", 1));
        }
        let told = tell(&forwarder, server.address());
        assert_eq!((told.of("warm_used"), told.of("warm_stale")), (5, 0));
        assert_eq!((told.of("connects"), told.of("active")), (7, 0));
        forwarder.check_quiet();
    });
}

/// Where the first SYN of each connection is lost a connect takes a second: the wait
/// of a client without spares, and of nobody with them.
#[test]
fn the_wait_for_a_distant_server_is_over_before_the_client_comes() {
    // From linux/tcp.h: the first retransmission after TCP_TIMEOUT_INIT.
    const SECOND_SYN: Duration = Duration::from_millis(900);
    in_a_namespace(|case| {
        let server = Listener::on([127, 0, 0, 9].into());
        let table = "inet thalweg_test";
        let made = nft(&format!("add table {table}"))
            && nft(&format!(
                "add set {table} seen {{ type inet_service; flags dynamic; size 1024; }}"
            ))
            && nft(&format!(
                "add chain {table} input {{ type filter hook input priority 0; }}"
            ))
            && nft(&format!(
                "add rule {table} input ip daddr 127.0.0.9 tcp flags syn \
                 tcp sport != @seen add @seen {{ tcp sport }} drop"
            ));
        if !made {
            return;
        }
        let wait = |spares: u32| {
            let forwarder = warm(server.address(), spares).start(case);
            let before: Vec<_> = (0..spares).map(|_| server.accept()).collect();
            let mut client = forwarder.connect();
            let mut upstreams = before;
            if spares == 0 {
                upstreams.push(server.accept());
            }
            for upstream in &mut upstreams {
                upstream.send(100);
            }
            client.expect(100);
            client.reset();
            let record = forwarder.wait_for_session();
            Duration::from_micros(record.number("first_byte_us").unwrap())
        };
        let cold = wait(0);
        assert!(cold >= SECOND_SYN, "the first SYN is lost: {cold:?}");
        let warm = best_of(3, SECOND_SYN / 2, || wait(1));
        assert!(warm <= SECOND_SYN / 2, "warm {warm:?}, cold {cold:?}");
    });
}

#[test]
fn a_server_that_speaks_first_keeps_its_bytes_in_order() {
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = warm(server.address(), 1).start(case);
        for greeting in [1, 50_000] {
            // In its socket long before the client comes.
            let mut upstream = server.accept();
            upstream.send(greeting);
            upstream.wait_until_acknowledged();
            let mut client = forwarder.connect();
            client.expect(greeting);
            let mut visit = Visit {
                client,
                upstream,
                server: 0,
            };
            visit.talk();
            visit.end();
        }
        for record in forwarder.wait_for_sessions(2) {
            assert_eq!(record.json()["warm"], true, "{record:?}");
            assert_eq!(record.lost(), 0);
        }
    });
}

#[test]
fn a_spare_that_the_server_ended_or_reset_is_never_handed_out_and_is_replaced() {
    on_every_engine(|case| {
        for resets in [false, true] {
            let server = [Listener::new()];
            let forwarder = warm(server[0].address(), 3).start(case);
            for spare in spares(&server[0], 3) {
                if resets { spare.reset() } else { spare.close() }
            }
            // At once, before anybody could have replaced them.
            let visit = Visit::new(&forwarder, &server);
            visit.end();
            let record = forwarder.wait_for_session();
            assert_eq!((record.code(), record.attempts()), ("--", 1), "{record:?}");
            wait_until("all of them are noticed", PATIENCE, || {
                tell(&forwarder, server[0].address()).of("warm_stale") == 3
            });
            // Replaced after a while, and used again.
            let mut ready = spares(&server[0], 3);
            let mut client = forwarder.connect();
            client.send(100);
            let mut upstream = taken(&mut ready);
            upstream.expect(100);
            Visit {
                client,
                upstream,
                server: 0,
            }
            .end();
            assert_eq!(forwarder.wait_for_sessions(2)[1].json()["warm"], true);
        }
    });
}

/// Nobody needs to come for it: its other half is closed, too.
#[test]
fn a_spare_that_the_server_ended_is_closed_without_a_client() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = warm(server.address(), 1).start(case);
        let mut spare = server.accept();
        spare.half_close();
        spare.receive_until_end();
        assert_eq!(tell(&forwarder, server.address()).of("warm_stale"), 1);
        server.accept();
    });
}

#[test]
fn a_spare_that_is_too_old_is_replaced_without_a_client() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = warm(server.address(), 1)
            .text("warm_max_age", "300ms")
            .start(case);
        let mut spare = server.accept();
        spare.receive_until_end();
        let _next = server.accept();
        assert_eq!(tell(&forwarder, server.address()).of("warm_stale"), 1);
    });
}

/// Age is no fault of the server's: what is too old is replaced at once.
#[test]
fn a_spare_that_is_too_old_is_never_handed_out() {
    const MAX_AGE: Duration = Duration::from_millis(100);
    const ROUNDS: usize = 5;
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = warm(server.address(), 1)
            .text("warm_max_age", "100ms")
            .start(case);
        let start = Instant::now();
        for _ in 0..ROUNDS {
            // The last of those that are there, and nothing to wait for but its age.
            let mut old = vec![server.accept()];
            while let Some(spare) = server.accept_within(Duration::ZERO) {
                old.push(spare);
            }
            std::thread::sleep(MAX_AGE + Duration::from_millis(20));
            let mut client = forwarder.connect();
            client.send(100);
            let mut young = Vec::new();
            let upstream = poll(PATIENCE, || {
                young.extend(server.accept_within(Duration::ZERO));
                let now = Duration::from_millis(1);
                let at = young
                    .iter()
                    .position(|it: &Peer| it.is_readable_within(now))?;
                Some(young.swap_remove(at))
            });
            let mut upstream = upstream.expect("nobody was called");
            upstream.expect(100);
            for mut spare in old {
                spare.receive_until_end();
                assert_eq!(spare.received(), 0);
            }
            Visit {
                client,
                upstream,
                server: 0,
            }
            .end();
        }
        // Pauses that grow from round to round would add up to 31 seconds.
        let took = start.elapsed();
        assert!(took <= Duration::from_secs(15), "{took:?}");
    });
}

/// A server that ends idle connections at once is not stormed.
#[test]
fn a_server_that_ends_spares_at_once_is_called_a_bounded_number_of_times() {
    const SPARES: usize = 4;
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = warm(server.address(), SPARES as u32).start(case);
        let start = Instant::now();
        let mut calls = 0;
        while start.elapsed() < Duration::from_millis(2500)
            || calls < SPARES && start.elapsed() < PATIENCE
        {
            if let Some(spare) = server.accept_within(Duration::from_millis(50)) {
                calls += 1;
                spare.close();
            }
        }
        // At once and after a pause of a second, which then doubles: two rounds, and one more where time went by elsewhere.
        let most = |took: Duration| SPARES * (2 + (took.as_secs() + 1).ilog2() as usize);
        let took = start.elapsed();
        assert!(
            (SPARES..=most(took)).contains(&calls),
            "{calls} calls in {took:?}"
        );
        let connects = tell(&forwarder, server.address()).of("connects");
        let took = start.elapsed();
        assert!(connects <= most(took) as u64, "{connects} in {took:?}");
        forwarder.check_quiet();
    });
}

/// Nobody listens for a moment: spares are there soon after somebody does.
#[test]
fn spares_are_made_soon_after_a_server_is_back() {
    on_every_engine(|case| {
        let port = peer::Refusing::new();
        let forwarder = warm(port.address(), 8).start(case);
        wait_until("it is tried", PATIENCE, || {
            tell(&forwarder, port.address()).of("failures_refused") >= 1
        });
        let start = Instant::now();
        let server = Listener::with(port.address(), 64, None);
        spares(&server, 8);
        let took = start.elapsed();
        // One failed round is a pause of a second, not one for each of the eight.
        assert!(took <= Duration::from_secs(20), "{took:?}");
    });
}

#[test]
fn spares_are_gone_once_it_drains() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = warm(server.address(), 2).start(case);
        let mut ready = spares(&server, 2);
        let mut client = forwarder.connect();
        client.send(100);
        let mut upstream = taken(&mut ready);
        upstream.expect(100);
        ready.push(server.accept());
        forwarder.process().signal(Signal::SIGTERM);
        for mut spare in ready {
            spare.receive_until_end();
        }
        // The session goes on, and nobody makes another spare.
        let mut visit = Visit {
            client,
            upstream,
            server: 0,
        };
        visit.talk();
        assert!(server.accept_within(Duration::from_millis(200)).is_none());
        visit.end();
        let mut forwarder = forwarder;
        let status = forwarder.wait_for_exit(PATIENCE);
        assert!(status.is_some_and(|it| it.success()), "{status:?}");
    });
}

#[test]
fn no_connection_is_made_ahead_unless_asked_for() {
    on_every_engine(|case| {
        let servers = servers::<2>();
        let forwarder = Pool::of(&addresses(&servers)).start(case);
        for server in &servers {
            assert!(server.accept_within(Duration::from_millis(300)).is_none());
        }
        Visit::new(&forwarder, &servers).end();
        let record = forwarder.wait_for_session();
        assert!(record.json()["warm"].is_null(), "{record:?}");
        assert_eq!(forwarder.counters().of("connects"), 1);
        forwarder.check_idle();
    });
}

/// Whichever reactor a client comes to, it finds one.
#[test]
fn each_reactor_keeps_spares_of_its_own() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = warm(server.address(), 2).setup(case).reactors(2).start();
        let mut ready = spares(&server, 4);
        assert!(server.accept_within(Duration::from_millis(100)).is_none());
        for _ in 0..8 {
            let mut client = forwarder.connect();
            client.send(100);
            taken(&mut ready).expect(100);
            client.reset();
            ready.push(server.accept());
        }
        let records = forwarder.wait_for_sessions(8);
        assert!(records.iter().all(|it| it.json()["warm"] == true));
    });
}

/// A unix socket has no state that could be asked for: what can be read tells.
#[test]
fn spares_of_a_unix_socket_are_looked_at_too() {
    on_every_engine(|case| {
        let directory = Directory::new();
        let path = directory.join("server");
        let server = UnixListener::bind(&path).unwrap();
        let accept = || {
            let (stream, _) = server.accept().unwrap();
            Peer::server(TcpStream::from(OwnedFd::from(stream)))
        };
        let forwarder = Pool::default()
            .server(format!("unix:{}", path.display()), "")
            .key("warm", 1)
            .start(case);
        // One that has said something, one that has ended.
        let mut upstream = accept();
        upstream.send(1000);
        let mut client = forwarder.connect();
        client.expect(1000);
        Visit {
            client,
            upstream,
            server: 0,
        }
        .end();
        accept().close();
        let mut client = forwarder.connect();
        client.send(1000);
        let mut upstream = accept();
        if !upstream.is_readable_within(Duration::from_millis(500)) {
            // That was the next spare.
            upstream = accept();
        }
        upstream.expect(1000);
        Visit {
            client,
            upstream,
            server: 0,
        }
        .end();
        let records = forwarder.wait_for_sessions(2);
        assert_eq!(records[0].json()["warm"], true, "{records:?}");
        assert!(records[1].json()["warm"].is_null(), "{records:?}");
    });
}

/// A spare is a connection like any other: no second server gets what it has taken.
#[test]
fn b23_a_spare_that_took_a_byte_is_not_replaced_by_another_server() {
    on_every_path(|case| {
        let servers = servers::<2>();
        let forwarder = Pool::of(&addresses(&servers))
            .key("warm", 1)
            .text("balance", "first")
            .start(case);
        let mut ready = vec![servers[0].accept()];
        let spare = servers[1].accept();
        let mut client = forwarder.connect();
        client.send(70_000);
        let mut upstream = taken(&mut ready);
        upstream.expect(1);
        upstream.reset();
        assert_eq!(client.receive_until_end(), End::Reset);
        let record = forwarder.wait_for_session();
        assert_eq!((record.code(), record.attempts()), ("SD", 1));
        assert!(!spare.is_readable_within(Duration::from_millis(50)));
    });
}

/// Spares cost descriptors, and nothing else is left of them after their use.
#[test]
fn spares_leave_nothing_behind() {
    on_every_engine(|case| {
        let server = [Listener::new()];
        let forwarder = warm(server[0].address(), 4).start(case);
        let ready = spares(&server[0], 4);
        let idle = forwarder.process().descriptors();
        // Each session takes a spare that nobody here can tell from another: the
        // servers of all of them answer to what they get.
        let mut all = ready;
        for _ in 0..30 {
            let mut client = forwarder.connect();
            client.send(100);
            let mut upstream = taken(&mut all);
            upstream.expect(100);
            Visit {
                client,
                upstream,
                server: 0,
            }
            .end();
            all.push(server[0].accept());
        }
        forwarder.wait_for_sessions(30);
        wait_until("descriptors are back", PATIENCE, || {
            forwarder.process().descriptors().sockets <= idle.sockets
        });
        forwarder.check_quiet();
    });
}
