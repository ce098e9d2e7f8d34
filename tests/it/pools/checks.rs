//! Health checks through the binary: behaviour 31. Counts, kinds and time-outs of
//! checks by themselves are in `tests/checks`.

use std::net::SocketAddr;
use std::time::Duration;

use super::pool::{Pool, Visit, servers, state, turned_away, visits};
use crate::kit::*;

/// A server that is checked on a port of its own, which can be closed.
struct Checked {
    service: [Listener; 1],
    checks: Option<Listener>,
}

/// Two of them; the number of the port on which both are checked.
fn checked(network: u8) -> ([Checked; 2], u16) {
    let listener = |host, port| {
        let address = SocketAddr::from(([127, 0, network, host], port));
        Listener::with(address, 1024, None)
    };
    let first = listener(1, 0);
    let port = first.address().port();
    let pair = [(1, first), (2, listener(2, port))].map(|(host, checks)| Checked {
        service: [listener(host, 0)],
        checks: Some(checks),
    });
    (pair, port)
}

/// Engines are tested side by side: each on a network of its own.
fn network(case: Case, test: u8) -> u8 {
    2 * test + u8::from(case.engine == "epoll")
}

impl Checked {
    fn address(&self) -> SocketAddr {
        self.service[0].address()
    }

    /// Checks fail from now on.
    fn fails(&mut self) -> SocketAddr {
        // Asked already: or its very first answer would be the one that takes it down.
        let checks = self.checks.take().unwrap();
        assert!(
            checks.accept_within(PATIENCE).is_some(),
            "it is not checked"
        );
        checks.address()
    }
}

fn check(port: u16, more: &str) -> String {
    format!("{{ type = \"tcp\", port = {port}, interval = \"150ms\", rise = 2, fall = 2{more} }}")
}

#[test]
fn b31_down_gets_no_new_sessions_and_keeps_its_own_and_up_is_used_again() {
    on_every_engine(|case| {
        let ([mut one, two], port) = checked(network(case, 31));
        let pair = [one.address(), two.address()];
        let forwarder = Pool::of(&pair)
            .text("balance", "first")
            .key("check", check(port, ""))
            .start(case);
        let mut living = Visit::new(&forwarder, &one.service);
        let checks = one.fails();
        let down = forwarder.wait_for_line(&format!("server {} of pool is down", pair[0]));
        assert!(down.message().contains("refused"), "why: {down:?}");
        assert!(down.message().contains("2 of 2 checks failed"), "{down:?}");
        wait_until("it is down", PATIENCE, || {
            state(&forwarder, pair[0]) == "down"
        });
        for _ in 0..5 {
            Visit::new(&forwarder, &two.service).end();
        }
        living.talk();

        one.checks = Some(Listener::with(checks, 1024, None));
        let up = forwarder.wait_for_line(&format!("server {} of pool is up", pair[0]));
        assert!(up.message().contains("2 of 2 checks passed"), "{up:?}");
        wait_until("it is up", PATIENCE, || state(&forwarder, pair[0]) == "up");
        Visit::new(&forwarder, &one.service).end();
        living.end();
        for record in forwarder.wait_for_sessions(7) {
            assert_eq!((record.code(), record.attempts()), ("--", 1), "{record:?}");
        }
        let lines = forwarder.lines_with(&format!("server {} of pool is ", pair[0]));
        assert_eq!(lines.len(), 2, "each change once: {lines:?}");
    });
}

#[test]
fn b31_down_ends_its_sessions_when_configured_so() {
    on_every_engine(|case| {
        let ([mut one, two], port) = checked(network(case, 32));
        let pair = [one.address(), two.address()];
        let forwarder = Pool::of(&pair)
            .key("check", check(port, ", on_down = \"close\""))
            .setup(case)
            .reactors(2)
            .start();
        let mut lost = Vec::new();
        let mut kept = Vec::new();
        // On both reactors, as the kernel spreads them.
        while lost.len() < 6 || kept.len() < 2 {
            let both = [&one.service[0], &two.service[0]];
            let client = forwarder.connect();
            let accept = |server: &&Listener| server.accept_within(Duration::ZERO);
            let upstream = poll(PATIENCE, || both.iter().find_map(accept)).unwrap();
            let of = upstream.local() == pair[0];
            let mut visit = Visit {
                client,
                upstream,
                server: usize::from(!of),
            };
            visit.talk();
            if of {
                lost.push(visit);
            } else {
                kept.push(visit);
            }
        }
        one.fails();
        let count = lost.len();
        for mut visit in lost {
            assert_eq!(visit.client.receive_until_end(), End::Reset);
            assert_eq!(visit.upstream.receive_until_end(), End::Reset);
        }
        for record in forwarder.wait_for_sessions(count) {
            assert_eq!((record.code(), record.cause()), ("DD", "server_down"));
            assert_eq!(record.text("server"), pair[0].to_string());
        }
        for mut visit in kept {
            visit.talk();
            visit.end();
        }
        assert_eq!(
            forwarder
                .sessions()
                .iter()
                .filter(|r| r.code() == "DD")
                .count(),
            count
        );
    });
}

#[test]
fn b31_the_only_server_is_down_and_clients_are_closed_at_once() {
    on_every_engine(|case| {
        let ([mut one, _], port) = checked(network(case, 33));
        let forwarder = Pool::of(&[one.address()])
            .key("check", check(port, ""))
            .start(case);
        Visit::new(&forwarder, &one.service).end();
        one.fails();
        forwarder.wait_for_line("is down");
        wait_until("it is down", PATIENCE, || {
            state(&forwarder, one.address()) == "down"
        });
        for _ in 0..20 {
            assert_eq!(turned_away(&forwarder), End::Reset);
        }
        for record in &forwarder.wait_for_sessions(21)[1..] {
            assert_eq!((record.code(), record.cause()), ("SC", "no_server"));
            assert_eq!(record.attempts(), 0);
        }
        assert_eq!(forwarder.lines_with("no server is up").len(), 1);
    });
}

/// There is nothing to wait for any more: not for `queue_timeout`.
#[test]
fn b31_who_waits_for_a_server_that_goes_down_is_told() {
    on_every_engine(|case| {
        let ([mut one, _], port) = checked(network(case, 35));
        let forwarder = Pool::default()
            .server(one.address(), "max_connections = 1")
            .text("queue_timeout", "1h")
            .key("check", check(port, ""))
            .start(case);
        let mut served = Visit::new(&forwarder, &one.service);
        let mut waiting = forwarder.connect();
        wait_until("it waits", PATIENCE, || {
            forwarder.counters().of("queued") == 1
        });
        one.fails();
        assert_eq!(waiting.receive_until_end(), End::Reset);
        let record = forwarder.wait_for_session();
        assert_eq!((record.code(), record.cause()), ("SC", "no_server"));
        served.talk();
        served.end();
        forwarder.wait_for_sessions(2);
    });
}

#[test]
fn b31_drain_and_maintenance_get_no_sessions_and_only_one_is_checked() {
    on_every_engine(|case| {
        let ([drained, kept_out], port) = checked(network(case, 34));
        let active = servers::<1>();
        let checks = Listener::with(SocketAddr::from(([127, 0, 0, 1], port)), 1024, None);
        let forwarder = Pool::default()
            .server(drained.address(), "state = \"drain\"")
            .server(kept_out.address(), "state = \"maintenance\"")
            .server(active[0].address(), "")
            .key("check", check(port, ""))
            .start(case);
        assert_eq!(visits(&forwarder, &active, 6), [0; 6]);
        assert_eq!(state(&forwarder, drained.address()), "drain");
        assert_eq!(state(&forwarder, kept_out.address()), "maintenance");
        assert_eq!(state(&forwarder, active[0].address()), "up");
        let asked = drained.checks.as_ref().unwrap();
        assert!(asked.accept_within(PATIENCE).is_some());
        // Each of the others twice: by then the third would have been, too.
        for _ in 0..3 {
            assert!(asked.accept_within(PATIENCE).is_some());
            assert!(checks.accept_within(PATIENCE).is_some());
        }
        let unasked = kept_out.checks.as_ref().unwrap();
        assert!(unasked.accept_within(Duration::ZERO).is_none());
        for server in [&drained, &kept_out] {
            assert!(server.service[0].accept_within(Duration::ZERO).is_none());
        }
    });
}
