//! Slow, silent and deaf peers: behaviours 40 to 42. The judge of a time is the
//! forwarder's own record of it.

use std::time::{Duration, Instant};

use crate::kit::*;

/// `idle_timeout` and `write_stall_timeout` here.
const T: Duration = Duration::from_millis(1_200);

/// How late a timeout may be on a busy machine.
const LATE: Duration = Duration::from_secs(2);

fn total(record: &Record) -> Duration {
    Duration::from_micros(record.number("total_us").unwrap())
}

/// Behaviour 40: all that is left to do is the kernel's, and the client takes
/// little at a time.
#[test]
fn b40_slow_but_not_idle() {
    on_every_path(|case| {
        let server = Listener::new();
        let setup = Setup::new(server.address()).case(case);
        let forwarder = setup.set("defaults.idle_timeout", "\"1200ms\"").start();
        let mut client = Peer::connect_small(forwarder.address(), 4 * 1024);
        let mut upstream = server.accept();
        let len = 96 * KIB;
        upstream.send(len);
        // Everything is in the kernel's hands: the forwarder has nothing to write
        // and hears nothing.
        wait_until("the forwarder has sent all", PATIENCE, || {
            let counters = forwarder.counters();
            counters.of("bytes_down") == len && counters.of("held_bytes") == 0
        });
        let start = Instant::now();
        let mut read = 0;
        while read < len {
            let piece = (len - read).min(2 * KIB);
            client.expect(piece);
            read += piece;
            std::thread::sleep(Duration::from_millis(80));
        }
        assert!(start.elapsed() > 2 * T, "too fast to prove anything");
        // Delivered, and silent from now on.
        assert_eq!(client.receive_until_end(), End::Eof);
        let record = forwarder.wait_for_session();
        assert_eq!(record.cause(), "idle_timeout");
        assert_eq!(record.bytes(), (0, len));
        drop(upstream);
        forwarder.check_idle();
    });
}

/// Behaviour 41.
#[test]
fn b41_idle_is_ended_at_its_time() {
    on_every_path(|case| {
        let server = Listener::new();
        let setup = Setup::new(server.address()).case(case);
        let forwarder = setup.set("defaults.idle_timeout", "\"1200ms\"").start();
        let watch = Stopwatch::start();
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        assert_eq!(client.receive_until_end(), End::Eof);
        assert_eq!(upstream.receive_until_end(), End::Eof);
        let record = forwarder.wait_for_session();
        assert_eq!((record.code(), record.cause()), ("cD", "idle_timeout"));
        let total = total(&record);
        let most = T + LATE + watch.taken_away();
        assert!(total >= T && total < most, "{total:?}");
        forwarder.check_idle();
    });
}

/// Behaviour 41: a byte now and then, one way or the other, is enough.
#[test]
fn b41_a_byte_now_and_then_is_not_idle() {
    on_every_path(|case| {
        let server = Listener::new();
        let setup = Setup::new(server.address()).case(case);
        let forwarder = setup.set("defaults.idle_timeout", "\"1200ms\"").start();
        let mut upward = Crowd::through(&forwarder, &server, 1);
        let mut downward = Crowd::through(&forwarder, &server, 1);
        for _ in 0..6 {
            std::thread::sleep(T / 2);
            upward.clients[0].send_byte();
            downward.servers[0].send_byte();
            upward.servers[0].expect(1);
            downward.clients[0].expect(1);
        }
        assert_eq!(forwarder.sessions().len(), 0);
        let last = Stopwatch::start();
        for peer in [&mut upward.clients[0], &mut downward.clients[0]] {
            assert_eq!(peer.receive_until_end(), End::Eof);
        }
        let (waited, allowing) = (last.elapsed(), last.allowing());
        assert!(waited > T / 2 && allowing < T + LATE, "{waited:?}");
        let records = forwarder.wait_for_sessions(2);
        assert!(records.iter().all(|r| r.cause() == "idle_timeout"));
        forwarder.check_idle();
    });
}

/// Behaviour 42: the client takes nothing, for ever.
#[test]
fn b42_a_client_that_never_reads() {
    on_every_path(|case| {
        let server = Listener::new();
        let setup = Setup::new(server.address()).case(case);
        let setup = setup.set("defaults.write_stall_timeout", "\"1200ms\"");
        let forwarder = setup.start();
        let mut crowd = Crowd::default();
        crowd
            .clients
            .push(Peer::connect_small(forwarder.address(), 8 * 1024));
        crowd.servers.push(server.accept());
        stalls(&forwarder, &mut crowd.servers[0], "cD");
        drop(crowd);
        forwarder.check_idle();
    });
}

/// Behaviour 42: the server takes nothing, for ever.
#[test]
fn b42_a_server_that_never_reads() {
    on_every_path(|case| {
        let server = Listener::small(8 * 1024);
        let setup = Setup::new(server.address()).case(case);
        let setup = setup.set("defaults.write_stall_timeout", "\"1200ms\"");
        let forwarder = setup.start();
        let mut crowd = Crowd::through(&forwarder, &server, 1);
        stalls(&forwarder, &mut crowd.clients[0], "sD");
        drop(crowd);
        forwarder.check_idle();
    });
}

/// The sender learns by a reset that its bytes did not all arrive.
fn stalls(forwarder: &Forwarder, sender: &mut Peer, code: &str) {
    let watch = Stopwatch::start();
    while sender.try_send(64 * KIB).is_ok() {}
    let record = forwarder.wait_for_session();
    assert_eq!((record.code(), record.cause()), (code, "write_stall"));
    let total = total(&record);
    let most = T + LATE + watch.taken_away();
    assert!(total >= T && total < most, "{total:?}");
}
