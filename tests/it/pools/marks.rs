//! Servers that sessions mark by their failures: `max_fails` within `fail_timeout`.

use std::thread;
use std::time::Duration;

use super::pool::{Pool, Visit, state, tell, turned_away, visits};
use crate::kit::peer::Refusing;
use crate::kit::*;

/// How many servers the last of `count` sessions tried.
fn attempts(forwarder: &Forwarder, count: usize) -> u64 {
    forwarder.wait_for_sessions(count)[count - 1].attempts()
}

#[test]
fn so_many_failures_mark_a_server_and_one_session_tries_it_afterwards() {
    on_every_engine(|case| {
        let (port, alive) = (Refusing::new(), Listener::new());
        let pair = [port.address(), alive.address()];
        let forwarder = Pool::of(&pair)
            .text("balance", "first")
            .key("max_fails", 3)
            .text("fail_timeout", "2s")
            .start(case);
        let mut servers = vec![alive];
        for session in 1..=3 {
            visits(&forwarder, &servers, 1);
            assert_eq!(attempts(&forwarder, session), 2);
        }
        let mark = forwarder.wait_for_line("is marked");
        assert!(mark.message().contains("refused"), "{mark:?}");
        assert_eq!(state(&forwarder, pair[0]), "marked");
        visits(&forwarder, &servers, 5);
        assert_eq!(
            tell(&forwarder, pair[0]).of("connects"),
            3,
            "nobody goes there"
        );

        // The trial fails: one session paid for it, and the mark stays.
        wait_until("it is tried", PATIENCE, || {
            visits(&forwarder, &servers, 1);
            tell(&forwarder, pair[0]).of("connects") == 4
        });
        visits(&forwarder, &servers, 5);
        assert_eq!(tell(&forwarder, pair[0]).of("connects"), 4, "one is enough");

        // It is back: the next trial brings it back into use.
        servers.push(Listener::with(pair[0], 64, None));
        wait_until("it is used", PATIENCE, || {
            visits(&forwarder, &servers, 1) == [1]
        });
        forwarder.wait_for_line("is used again");
        assert_eq!(visits(&forwarder, &servers, 5), [1; 5]);
        assert_eq!(state(&forwarder, pair[0]), "up");
        assert_eq!(
            forwarder.lines_with("is marked").len(),
            1,
            "each change once"
        );
        forwarder.check_idle();
    });
}

#[test]
fn failures_that_are_far_apart_do_not_add_up() {
    const FAIL_TIMEOUT: Duration = Duration::from_millis(100);
    on_every_engine(|case| {
        let (port, alive) = (Refusing::new(), [Listener::new()]);
        let forwarder = Pool::of(&[port.address(), alive[0].address()])
            .text("balance", "first")
            .key("max_fails", 2)
            .text("fail_timeout", "100ms")
            .start(case);
        for session in 1..=4 {
            visits(&forwarder, &alive, 1);
            assert_eq!(attempts(&forwarder, session), 2, "it is tried each time");
            // Nothing to wait for: it is the time that counts.
            thread::sleep(FAIL_TIMEOUT + Duration::from_millis(20));
        }
        assert!(forwarder.lines_with("is marked").is_empty());
    });
}

#[test]
fn the_only_server_is_never_marked() {
    on_every_engine(|case| {
        let port = Refusing::new();
        let forwarder = Pool::of(&[port.address()])
            .text("fail_timeout", "1h")
            .start(case);
        for _ in 0..5 {
            assert_eq!(turned_away(&forwarder), End::Reset);
        }
        for record in forwarder.wait_for_sessions(5) {
            assert_eq!((record.code(), record.attempts()), ("SC", 1));
        }
        assert_eq!(state(&forwarder, port.address()), "up");
        assert_eq!(tell(&forwarder, port.address()).of("failures_refused"), 5);
        let back = [Listener::with(port.address(), 64, None)];
        Visit::new(&forwarder, &back).end();
        assert!(forwarder.lines_with("is marked").is_empty());
    });
}

#[test]
fn max_fails_of_zero_never_marks_and_a_server_may_have_its_own() {
    on_every_engine(|case| {
        let (one, two, alive) = (Refusing::new(), Refusing::new(), [Listener::new()]);
        let forwarder = Pool::default()
            .server(one.address(), "")
            .server(two.address(), "max_fails = 1, fail_timeout = \"1h\"")
            .server(alive[0].address(), "")
            .text("balance", "first")
            .key("max_fails", 0)
            .start(case);
        visits(&forwarder, &alive, 4);
        let records = forwarder.wait_for_sessions(4);
        let attempts: Vec<_> = records.iter().map(Record::attempts).collect();
        assert_eq!(attempts, [3, 2, 2, 2]);
        assert_eq!(state(&forwarder, one.address()), "up");
        assert_eq!(state(&forwarder, two.address()), "marked");
    });
}

/// A mark is a guess from the past, and no server at all is worse.
#[test]
fn marked_servers_are_used_when_nothing_else_is_left() {
    on_every_engine(|case| {
        let ports = [Refusing::new(), Refusing::new()];
        let pair = ports.each_ref().map(Refusing::address);
        let forwarder = Pool::of(&pair).text("fail_timeout", "1h").start(case);
        assert_eq!(turned_away(&forwarder), End::Reset);
        assert_eq!(state(&forwarder, pair[0]), "marked");
        assert_eq!(state(&forwarder, pair[1]), "marked");
        let back = [Listener::with(pair[1], 64, None)];
        visits(&forwarder, &back, 3);
    });
}

/// Marks are shared: what one reactor has found out spares the others.
#[test]
fn a_mark_counts_on_every_reactor() {
    on_every_engine(|case| {
        let (port, alive) = (Refusing::new(), [Listener::new()]);
        let forwarder = Pool::of(&[port.address(), alive[0].address()])
            .text("balance", "first")
            .text("fail_timeout", "1h")
            .setup(case)
            .reactors(2)
            .start();
        visits(&forwarder, &alive, 20);
        let records = forwarder.wait_for_sessions(20);
        let total: u64 = records.iter().map(Record::attempts).sum();
        assert_eq!(total, 21, "one session paid for it");
        let reactors = records.iter().filter_map(|it| it.number("reactor"));
        assert_eq!(reactors.max(), Some(1), "both reactors had sessions");
    });
}
