//! System calls that fail: behaviours 34, 35 and 38, by strace's fault injection on
//! the live process.

use std::time::{Duration, Instant};

use crate::kit::crowd::is_turned_away;
use crate::kit::peer::transfer;
use crate::kit::shortage::Fault;
use crate::kit::*;

/// Calls that only the epoll engine makes fail there alone.
const EPOLL: Case = Case {
    engine: "epoll",
    path: "auto",
};

/// Whether it mostly sleeps: told by the turns of its loop, because strace, which
/// stops it at each system call, hides what it would use of a core.
fn starves_quietly(forwarder: &Forwarder) -> bool {
    let (before, start) = (forwarder.counters().of("turns"), Instant::now());
    std::thread::sleep(Duration::from_millis(300));
    let turns = forwarder.counters().of("turns") - before;
    u128::from(turns) <= 10 + start.elapsed().as_millis() / 20
}

/// Behaviour 34.
#[test]
fn b34_accept_fails_for_want_of_something() {
    let server = Listener::new();
    let forwarder = Setup::new(server.address()).case(EPOLL).start();
    let (old, start) = (Crowd::through(&forwarder, &server, 3), Instant::now());
    for errno in ["ENFILE", "ENOBUFS", "ENOMEM"] {
        let pauses = forwarder.counters().of("accept_pauses");
        let Some(fault) = Fault::always(forwarder.process(), "accept4", errno) else {
            return;
        };
        let waiting = forwarder.connect();
        wait_until(errno, PATIENCE, || {
            forwarder.counters().of("accept_pauses") > pauses
        });
        assert!(starves_quietly(&forwarder), "it spins on {errno}");
        old.ping();
        assert!(server.accept_within(Duration::ZERO).is_none());
        drop(fault);
        let upstream = server.accept();
        waiting.half_close();
        drop((waiting, upstream));
    }
    old.finish();
    forwarder.wait_for_sessions(6);
    // At most one each 10 s.
    let lines = forwarder.lines_with("accepting pauses").len();
    assert!(
        lines as u64 <= 1 + start.elapsed().as_secs() / 10,
        "a flood"
    );
    forwarder.check_idle();
}

/// Behaviours 34 and 36: the client is told, no server is blamed.
#[test]
fn b34_opening_the_connection_to_the_server_fails() {
    let server = Listener::new();
    let forwarder = Setup::new(server.address()).case(EPOLL).start();
    let old = Crowd::through(&forwarder, &server, 3);
    let mut failed = 0;
    for (errno, cause) in [
        ("ENFILE", "no_descriptors"),
        ("ENOBUFS", "no_memory"),
        ("ENOMEM", "no_memory"),
    ] {
        let Some(fault) = Fault::always(forwarder.process(), "socket", errno) else {
            return;
        };
        is_turned_away(&forwarder);
        old.ping();
        drop(fault);
        failed += 1;
        let sessions = forwarder.wait_for_sessions(failed);
        assert_eq!(sessions[failed - 1].code(), "RC");
        assert_eq!(sessions[failed - 1].cause(), cause);
        let next = Crowd::through(&forwarder, &server, 1);
        next.ping();
        next.finish();
        failed += 1;
        forwarder.wait_for_sessions(failed);
    }
    assert_eq!(forwarder.counters().of("connect_shortages"), 3);
    old.finish();
    forwarder.wait_for_sessions(9);
    forwarder.check_idle();
}

/// Behaviour 34: whoever cannot be watched is turned away, not forgotten.
#[test]
fn b34_watching_a_connection_fails() {
    let server = Listener::new();
    let forwarder = Setup::new(server.address()).case(EPOLL).start();
    let old = Crowd::through(&forwarder, &server, 3);
    // The first call of a session is for its client, the second for its server.
    for (errno, which) in [("ENOSPC", "1"), ("ENOMEM", "1"), ("ENOSPC", "2")] {
        let Some(fault) = Fault::when(forwarder.process(), "epoll_ctl", errno, which) else {
            return;
        };
        is_turned_away(&forwarder);
        old.ping();
        drop(fault);
        // The second fails after its connect.
        drop(server.accept_within(Duration::ZERO));
        let next = Crowd::through(&forwarder, &server, 1);
        next.ping();
        next.finish();
    }
    let counters = forwarder.counters();
    assert_eq!(counters.of("refused"), 2);
    assert_eq!(counters.of("connect_shortages"), 1);
    old.finish();
    forwarder.wait_for_sessions(3 + 3 + 1);
    forwarder.check_idle();
}

/// Behaviours 34 and 36: without a pipe, or memory for one, bytes are copied.
#[test]
fn b34_splicing_fails_for_want_of_something() {
    on_every_engine(|case| {
        for (call, errno) in [("pipe2", "ENFILE"), ("splice", "ENOMEM")] {
            let server = Listener::new();
            let setup = Setup::new(server.address()).case(case);
            let forwarder = setup.set("defaults.data_path", "splice").start();
            let Some(_fault) = Fault::always(forwarder.process(), call, errno) else {
                return;
            };
            let mut crowd = Crowd::through(&forwarder, &server, 1);
            let (client, upstream) = (&mut crowd.clients[0], &mut crowd.servers[0]);
            std::thread::scope(|scope| {
                scope.spawn(|| upstream.send(3 * MIB));
                client.expect(3 * MIB);
            });
            crowd.finish();
            let record = forwarder.wait_for_session();
            assert_eq!(record.bytes(), (1, 3 * MIB));
            assert_eq!(record.text("fallback_down"), "no_pipe", "{call} {errno}");
            forwarder.check_idle();
        }
    });
}

/// Behaviour 35.
#[test]
fn b35_accept_loses_connections_and_carries_on() {
    let server = Listener::new();
    let forwarder = Setup::new(server.address()).case(EPOLL).start();
    for errno in ["ECONNABORTED", "EINTR", "EPROTO"] {
        let lost = forwarder.counters().of("accept_lost");
        let Some(_fault) = Fault::when(forwarder.process(), "accept4", errno, "1..5") else {
            return;
        };
        // It is told only once that somebody waits.
        let crowd = Crowd::through(&forwarder, &server, 1);
        crowd.ping();
        crowd.finish();
        assert_eq!(forwarder.counters().of("accept_lost"), lost + 5, "{errno}");
    }
    assert_eq!(forwarder.counters().of("accept_pauses"), 0);
    forwarder.wait_for_sessions(3);
    forwarder.check_idle();
}

/// Behaviour 38: while a pipe is being filled.
#[test]
fn b38_splice_stops_working_before_the_pipe() {
    b38(|forwarder, errno, crowd| {
        let (client, upstream) = (&mut crowd.clients[0], &mut crowd.servers[0]);
        upstream.send(100_000);
        client.expect(100_000);
        let fault = Fault::always(forwarder.process(), "splice", errno)?;
        upstream.send(100_000);
        client.expect(100_000);
        Some(fault)
    });
}

/// Behaviour 38: while bytes lie in a pipe.
#[test]
fn b38_splice_stops_working_behind_the_pipe() {
    b38(|forwarder, errno, crowd| {
        let (client, upstream) = (&mut crowd.clients[0], &mut crowd.servers[0]);
        // An engine that has bytes in user memory already copies these first.
        transfer(upstream, client, 2 * MIB);
        let mut sent = 0;
        wait_until("bytes lie in a pipe", PATIENCE, || {
            sent += upstream.send_until_stuck(Duration::from_millis(100));
            let counters = forwarder.counters();
            counters.of("pipes") > 0 && counters.of("held_bytes") > 0
        });
        let fault = Fault::always(forwarder.process(), "splice", errno)?;
        client.expect(sent);
        Some(fault)
    });
}

/// Two sessions to which this happens, one after the other; `None` when it cannot
/// be brought about here.
fn b38(meanwhile: impl Fn(&Forwarder, &str, &mut Crowd) -> Option<Fault> + Sync) {
    on_every_engine(|case| {
        for errno in ["EINVAL", "ENOSYS"] {
            let server = Listener::new();
            let setup = Setup::new(server.address()).case(case);
            let forwarder = setup.set("defaults.data_path", "splice").start();
            for session in 1..=2 {
                let mut crowd = Crowd::through(&forwarder, &server, 1);
                let Some(fault) = meanwhile(&forwarder, errno, &mut crowd) else {
                    return;
                };
                let (client, upstream) = (&mut crowd.clients[0], &mut crowd.servers[0]);
                std::thread::scope(|scope| {
                    scope.spawn(|| upstream.send(MIB));
                    client.expect(MIB);
                });
                drop(fault);
                let total = crowd.clients[0].received();
                crowd.finish();
                let record = &forwarder.wait_for_sessions(session)[session - 1];
                assert_eq!(record.bytes(), (1, total));
                assert_eq!((record.code(), record.lost()), ("--", 0));
                assert_eq!(record.text("path_down"), "splice", "it did not splice");
                assert_eq!(record.text("fallback_down"), "unsupported", "{errno}");
            }
            let mut complaints = forwarder.complaints();
            complaints.retain(|line| line.message().contains("refuses to splice"));
            assert_eq!(complaints.len(), 1, "said once");
            forwarder.check_idle();
        }
    });
}
