//! Too few descriptors: behaviours 33 and 36.

use std::io::Write as _;
use std::time::Duration;

use crate::kit::crowd::is_turned_away;
use crate::kit::peer::unless_reset;
use crate::kit::shortage::{leave_descriptors, limit_descriptors};
use crate::kit::*;

/// What a forwarder that starves may use of a core.
const STARVED_SHARE_MAX: f64 = 0.05;

/// Connections that come while it starves.
const STORM: usize = 200;

/// Behaviour 33, whether the client or the connection to its server is what the last
/// descriptor goes to.
#[test]
fn b33_runs_out_of_descriptors_and_recovers() {
    on_every_engine(|case| {
        b33(case, 64);
        b33(case, 65);
    });
}

fn b33(case: Case, limit: u64) {
    let server = Listener::new();
    let forwarder = Setup::new(server.address()).case(case).start();
    let old = Crowd::through(&forwarder, &server, 10);
    limit_descriptors(forwarder.process(), limit);
    // Whoever gets the last descriptor is told so, perhaps before he knows that he is
    // connected: none is left for a server.
    // They all say something: whoever is silent makes room when places are few.
    let knock = || {
        let peer = unless_reset(Peer::try_connect(forwarder.address()))?;
        let _ = peer.stream().write(b"!");
        Some(peer)
    };
    let waiting: Vec<Peer> = (0..STORM).filter_map(|_| knock()).collect();
    wait_until("it notices", PATIENCE, || pauses(&forwarder) > 0);
    // Whoever was let in first used up the rest.
    let mut let_in = Vec::new();
    while let Some(peer) = server.accept_within(Duration::from_millis(300)) {
        let_in.push(peer);
    }
    assert!(let_in.len() < 32, "{} let in", let_in.len());
    let starved = poll(Duration::from_secs(5), || {
        let window = Duration::from_millis(500);
        let share = forwarder.process().processor_share(window);
        (share <= STARVED_SHARE_MAX).then_some(())
    });
    assert!(starved.is_some(), "it burns CPU while it starves");
    old.ping();
    // The rest waits, and is not turned away one by one.
    let turned_away = forwarder.sessions().len();
    assert!(turned_away <= 2, "{turned_away} turned away");

    // Sessions end: whoever waits is let in instead, and soon. The limit of a quiet
    // machine is 200 ms.
    old.finish();
    let freed = Stopwatch::start();
    server.accept();
    let waited = freed.allowing();
    assert!(waited < Duration::from_secs(1), "it took {waited:?}");

    // An operator raises the limit: everybody is let in.
    limit_descriptors(forwarder.process(), 4096);
    drop((waiting, let_in));
    wait_until("everybody is let in", PATIENCE, || {
        while server.accept_within(Duration::ZERO).is_some() {}
        forwarder.sessions().len() == 10 + STORM
    });
    forwarder.check_idle();
    // Rate-limited: not one for each connection that had to wait.
    assert!(forwarder.complaints().len() < 10);
}

fn pauses(forwarder: &Forwarder) -> u64 {
    let counters = forwarder.counters();
    counters.of("accept_pauses") + counters.of("limit_pauses")
}

/// Behaviour 36: the last descriptor goes to the client, none is left for the server.
#[test]
fn b36_no_descriptor_is_left_for_the_connection_to_the_server() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        leave_descriptors(forwarder.process(), 1);
        is_turned_away(&forwarder);
        let record = forwarder.wait_for_session();
        assert_eq!(record.code(), "RC");
        assert_eq!(record.cause(), "no_descriptors");
        assert!(server.accept_within(Duration::ZERO).is_none());
        forwarder.check_quiet();

        limit_descriptors(forwarder.process(), 1024);
        let next = Crowd::through(&forwarder, &server, 1);
        next.ping();
        next.finish();
        forwarder.wait_for_sessions(2);
        forwarder.check_idle();
    });
}

/// Behaviour 36: both connections stand, but a pipe cannot be had.
#[test]
fn b36_no_descriptors_are_left_for_a_pipe() {
    on_every_engine(|case| {
        let server = Listener::new();
        let setup = Setup::new(server.address()).case(case);
        let forwarder = setup.set("defaults.data_path", "splice").start();
        leave_descriptors(forwarder.process(), 2);
        let mut crowd = Crowd::through(&forwarder, &server, 1);
        let (client, upstream) = (&mut crowd.clients[0], &mut crowd.servers[0]);
        for len in [1, 100_000, 1] {
            client.send(len);
            upstream.expect(len);
            upstream.send(len);
            client.expect(len);
        }
        crowd.finish();
        let record = forwarder.wait_for_session();
        assert_eq!(record.code(), "--");
        assert_eq!(record.text("fallback_up"), "no_pipe");
        assert_eq!(record.text("path_down"), "copy");
        limit_descriptors(forwarder.process(), 1024);
        forwarder.check_idle();
    });
}
