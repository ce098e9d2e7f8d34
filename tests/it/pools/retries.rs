//! Connects that fail: behaviours 18 to 24 with pools.

use std::net::SocketAddr;
use std::time::Duration;

use super::pool::{Pool, Visit, called, in_a_namespace, state, tell, tried, turned_away};
use crate::kit::namespace::{Firewall, ip};
use crate::kit::peer::Refusing;
use crate::kit::*;

fn failure(server: SocketAddr, cause: &str) -> (String, String) {
    (server.to_string(), cause.to_owned())
}

#[test]
fn b18_two_servers_refuse_and_the_record_names_each() {
    // Asked for are ten; a machine that is busy elsewhere is not the forwarder.
    const NEXT: Duration = Duration::from_millis(10);
    on_every_engine(|case| {
        let dead = [Refusing::new(), Refusing::new()];
        let alive = [Listener::new()];
        let servers = [dead[0].address(), dead[1].address(), alive[0].address()];
        let forwarder = Pool::of(&servers)
            .text("balance", "first")
            .key("max_fails", 0)
            .start(case);
        let mut sessions = 0;
        let took = best_of(10, NEXT, || {
            Visit::new(&forwarder, &alive).end();
            sessions += 1;
            let records = forwarder.wait_for_sessions(sessions);
            Duration::from_micros(records[sessions - 1].number("connect_us").unwrap())
        });
        assert!(took <= NEXT, "connecting took {took:?}");
        for record in forwarder.sessions() {
            assert_eq!(record.attempts(), 3);
            assert_eq!(record.text("server"), servers[2].to_string());
            let both = [
                failure(servers[0], "refused"),
                failure(servers[1], "refused"),
            ];
            assert_eq!(tried(&record), both);
            assert_eq!((record.code(), record.cause()), ("--", "finished"));
        }
        forwarder.check_idle();
    });
}

/// Where no SYN arrives, and nobody is told.
fn dropped<const N: usize>(firewall: &Firewall) -> [SocketAddr; N] {
    firewall.drop_packets("ip daddr 127.0.19.0/24 tcp flags syn");
    std::array::from_fn(|n| SocketAddr::from(([127, 0, 19, n as u8 + 1], 5000)))
}

#[test]
fn b19_without_an_answer_the_next_server_after_connect_timeout() {
    in_a_namespace(|case| {
        let Some(firewall) = Firewall::new() else {
            return;
        };
        let [mute] = dropped(&firewall);
        let alive = [Listener::new()];
        let forwarder = Pool::of(&[mute, alive[0].address()])
            .text("balance", "first")
            .setup(case)
            .set("defaults.connect_timeout", "300ms")
            .start();
        Visit::new(&forwarder, &alive).end();
        let record = forwarder.wait_for_session();
        assert_eq!(tried(&record), [failure(mute, "connect_timeout")]);
        let connect = Duration::from_micros(record.number("connect_us").unwrap());
        assert!(connect >= Duration::from_millis(270), "{connect:?}");
        assert!(connect <= Duration::from_secs(3), "{connect:?}");
        // It is marked: the next does not wait for it.
        Visit::new(&forwarder, &alive).end();
        let record = &forwarder.wait_for_sessions(2)[1];
        assert_eq!((record.attempts(), tried(record).len()), (1, 0));
        assert_eq!(tell(&forwarder, mute).of("failures_timeout"), 1);
        forwarder.check_idle();
    });
}

#[test]
fn b19_retries_and_retry_timeout_bound_tries_and_time() {
    in_a_namespace(|case| {
        let Some(firewall) = Firewall::new() else {
            return;
        };
        let mute: [_; 6] = dropped(&firewall);
        for (key, value, most) in [("retries", "1", 2), ("retry_timeout", "\"400ms\"", 3)] {
            let forwarder = Pool::of(&mute)
                .key(key, value)
                .setup(case)
                .set("defaults.connect_timeout", "250ms")
                .start();
            let watch = Stopwatch::start();
            assert_eq!(turned_away(&forwarder), End::Reset);
            let (took, allowing) = (watch.elapsed(), watch.allowing());
            let record = forwarder.wait_for_session();
            assert_eq!((record.code(), record.cause()), ("sC", "connect_timeout"));
            // Of six; by the time alone a third would begin only on a machine that
            // fires timers early.
            assert!(record.attempts() <= most, "{key}: {record:?}");
            assert_eq!(tried(&record).len() as u64, record.attempts(), "{record:?}");
            assert!(took >= Duration::from_millis(400), "{key}: {took:?}");
            assert!(allowing <= Duration::from_secs(5), "{key}: {took:?}");
            if key == "retries" {
                assert_eq!(record.attempts(), 2);
            }
            forwarder.check_idle();
        }
    });
}

#[test]
fn b20_unreachable_servers_are_named_and_counted() {
    in_a_namespace(|case| {
        ip("route add unreachable 10.1.0.1");
        ip("route add prohibit 10.1.0.2");
        let dead: [SocketAddr; 2] =
            ["10.1.0.1:5000", "10.1.0.2:5000"].map(|it| it.parse().unwrap());
        let alive = [Listener::new()];
        let forwarder = Pool::of(&[dead[0], dead[1], alive[0].address()])
            .text("balance", "first")
            .start(case);
        Visit::new(&forwarder, &alive).end();
        let record = forwarder.wait_for_session();
        let both = dead.map(|server| failure(server, "unreachable"));
        assert_eq!(tried(&record), both);
        for server in dead {
            assert_eq!(tell(&forwarder, server).of("failures_unreachable"), 1);
            assert_eq!(state(&forwarder, server), "marked");
        }
        forwarder.check_idle();
    });
}

#[test]
fn b21_every_server_down_and_each_is_tried_once() {
    const CLIENTS: usize = 100;
    on_every_engine(|case| {
        let dead: [_; 3] = std::array::from_fn(|_| Refusing::new());
        let dead = dead.each_ref().map(Refusing::address);
        for balance in ["round_robin", "least_conn", "p2c", "hash_address", "first"] {
            let forwarder = Pool::of(&dead).text("balance", balance).start(case);
            for _ in 0..CLIENTS {
                assert_eq!(turned_away(&forwarder), End::Reset);
            }
            for record in forwarder.wait_for_sessions(CLIENTS) {
                assert_eq!((record.code(), record.cause()), ("SC", "refused"));
                assert_eq!(record.attempts(), 3, "{balance}: {record:?}");
                let mut servers: Vec<_> = tried(&record).into_iter().map(|it| it.0).collect();
                servers.sort();
                servers.dedup();
                assert_eq!(servers.len(), 3, "{balance}: each once: {record:?}");
            }
            let connects = forwarder.counters().of("connects");
            assert_eq!(connects, 3 * CLIENTS as u64, "{balance}");
            // A line for each mark, and a few in ten seconds for all the rest.
            let lines = forwarder.complaints().len();
            assert!(lines <= 8, "{balance}: {lines} lines");
            forwarder.check_idle();
        }
    });
}

/// The whole of a failed attempt lies before the first byte: what the client sends
/// while it waits in the queue is kept as well.
#[test]
fn b22_bytes_that_arrive_in_the_queue_reach_the_server_once() {
    on_every_path(|case| {
        let (dead, alive) = (Refusing::new(), [Listener::new()]);
        let forwarder = Pool::of(&[dead.address()])
            .server(alive[0].address(), "max_connections = 1")
            .text("balance", "first")
            .text("queue_timeout", "60s")
            .start(case);
        let first = Visit::new(&forwarder, &alive);
        let mut client = forwarder.connect();
        client.send(64 * KIB);
        wait_until("it waits", PATIENCE, || {
            forwarder.counters().of("queued") == 1
        });
        first.end();
        let (_, mut upstream) = called(&alive);
        upstream.expect(64 * KIB);
        let mut visit = Visit {
            client,
            upstream,
            server: 0,
        };
        visit.talk();
        visit.end();
        let records = forwarder.wait_for_sessions(2);
        assert!(records.iter().all(|record| record.lost() == 0));
        forwarder.check_idle();
    });
}

/// The documented policy: the session ends by that reset, it counts as a failure of
/// the server, and the next one goes elsewhere.
#[test]
fn b24_a_reset_right_after_the_connect_ends_the_session_and_is_counted() {
    on_every_engine(|case| {
        for bytes in [0, 1000] {
            let servers = [Listener::new(), Listener::new()];
            let pair = servers.each_ref().map(Listener::address);
            let forwarder = Pool::of(&pair)
                .text("balance", "first")
                .text("fail_timeout", "60s")
                .start(case);
            let mut client = forwarder.connect();
            client.send(bytes);
            let (server, mut upstream) = called(&servers);
            assert_eq!(server, 0);
            upstream.expect(bytes);
            upstream.reset();
            assert_eq!(client.receive_until_end(), End::Reset);
            let record = forwarder.wait_for_session();
            assert_eq!((record.code(), record.cause()), ("SD", "reset"));
            assert_eq!(record.attempts(), 1, "a byte may have been passed on");
            assert_eq!(tell(&forwarder, pair[0]).of("failures_reset"), 1);
            assert_eq!(state(&forwarder, pair[0]), "marked");
            for _ in 0..3 {
                assert_eq!(Visit::new(&forwarder, &servers).server, 1);
            }
        }
    });
}

/// A reset later, or after the server has said something, says nothing against it.
#[test]
fn b24_a_reset_after_an_answer_is_no_failure_of_the_server() {
    on_every_engine(|case| {
        let servers = [Listener::new(), Listener::new()];
        let pair = servers.each_ref().map(Listener::address);
        let forwarder = Pool::of(&pair).text("balance", "first").start(case);
        let visit = Visit::new(&forwarder, &servers);
        visit.upstream.reset();
        forwarder.wait_for_session();
        assert_eq!(tell(&forwarder, pair[0]).of("failures_reset"), 0);
        assert_eq!(state(&forwarder, pair[0]), "up");
        assert_eq!(Visit::new(&forwarder, &servers).server, 0);
    });
}
