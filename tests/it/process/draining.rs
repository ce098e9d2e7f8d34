//! The end of the process: behaviour 65.

use std::io::ErrorKind;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::kit::crowd::{connections_that_fit, receive, send};
use crate::kit::log::Counters;
use crate::kit::*;

/// Behaviour 65: thousands of flows finish what they are at.
#[test]
fn b65_transfers_finish() {
    for engine in engines() {
        let flows = connections_that_fit(5_000);
        let server = Listener::new();
        let setup = Setup::new(server.address()).engine(engine);
        // Nobody is cut: whoever stays keeps the process.
        let setup = setup.set("defaults.drain_timeout", "\"1h\"");
        let mut forwarder = setup.reactors(2).start();
        let crowd = Crowd::through(&forwarder, &server, flows);
        let address = forwarder.address();
        forwarder.process().signal(Signal::SIGTERM);
        // Refused, not left in a queue that nobody looks after.
        wait_until("nobody is let in any more", PATIENCE, || {
            let connected = Peer::try_connect(address);
            connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
        crowd.ping();
        let mut clients = crowd.clients;
        for (client, mut upstream) in clients.iter_mut().zip(crowd.servers) {
            client.send(1_000);
            client.half_close();
            upstream.expect_then_eof(1_000);
            upstream.send(1_000);
            upstream.close();
            client.expect_then_eof(1_000);
        }
        let status = poll(PATIENCE, || {
            // Those who were let in while the listeners closed have left already.
            while server.accept_within(Duration::ZERO).is_some() {}
            forwarder.wait_for_exit(Duration::ZERO)
        });
        assert_eq!(status.and_then(|status| status.code()), Some(0));
        let total = forwarder.wait_for_line("counters");
        let counters = Counters::of_line(&total);
        assert_eq!(counters.of("accepted"), counters.of("ended"));
        assert!(counters.of("ended_well") >= flows as u64);
        assert_eq!(counters.of("bytes_lost"), 0);
        let cut = |record: &Record| record.code().starts_with('K');
        assert_eq!(forwarder.sessions().iter().filter(|r| cut(r)).count(), 0);
    }
}

/// Behaviour 65: who is in the accept queue when the signal comes is served.
#[test]
fn b65_who_waits_to_be_let_in_is_let_in() {
    on_every_engine(|case| {
        let server = Listener::new();
        let mut forwarder = Setup::new(server.address()).case(case).reactors(2).start();
        forwarder.process().stop();
        let clients: Vec<Peer> = (0..100).map(|_| forwarder.connect()).collect();
        forwarder.process().signal(Signal::SIGTERM);
        forwarder.process().signal(Signal::SIGCONT);
        for client in &clients {
            send(client.stream(), 1);
        }
        for _ in 0..clients.len() {
            let upstream = server.accept();
            assert_eq!(receive(upstream.stream()), 1);
            send(upstream.stream(), 2);
        }
        for client in &clients {
            assert_eq!(receive(client.stream()), 2);
        }
        drop(clients);
        let status = forwarder.wait_for_exit(PATIENCE);
        assert_eq!(status.and_then(|status| status.code()), Some(0));
    });
}

/// Behaviour 65.
#[test]
fn b65_stragglers_are_cut_at_the_drain_timeout() {
    on_every_engine(|case| {
        let server = Listener::new();
        let setup = Setup::new(server.address()).case(case);
        let mut forwarder = setup.set("defaults.drain_timeout", "\"1s\"").start();
        let mut crowd = Crowd::through(&forwarder, &server, 3);
        // One of them in the middle of a transfer.
        crowd.servers[0].send_until_stuck(Duration::from_millis(200));
        let watch = Stopwatch::start();
        forwarder.process().signal(Signal::SIGTERM);
        let status = forwarder.wait_for_exit(PATIENCE);
        let (took, allowing) = (watch.elapsed(), watch.allowing());
        assert_eq!(status.and_then(|status| status.code()), Some(0));
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(4));
        assert!(took >= least && allowing < most, "{took:?}");
        // A transfer that was cut must not look complete.
        assert_eq!(crowd.clients[0].receive_until_end(), End::Reset);
        assert_eq!(crowd.clients[1].receive_until_end(), End::Eof);
        let records = forwarder.wait_for_sessions(3);
        let cut = |r: &Record| r.code() == "KD" && r.cause() == "drain_timeout";
        assert!(records.iter().all(cut), "{records:?}");
    });
}

/// Behaviour 65, and SIGINT is as good as SIGTERM.
#[test]
fn b65_a_second_signal_ends_at_once() {
    on_every_engine(|case| {
        let server = Listener::new();
        let setup = Setup::new(server.address()).case(case);
        let mut forwarder = setup.set("defaults.drain_timeout", "\"1h\"").start();
        let mut crowd = Crowd::through(&forwarder, &server, 3);
        forwarder.process().signal(Signal::SIGINT);
        forwarder.wait_for_line("draining: 3 sessions");
        crowd.ping();
        forwarder.process().signal(Signal::SIGTERM);
        let status = forwarder.wait_for_exit(PATIENCE);
        assert_eq!(status.and_then(|status| status.code()), Some(0));
        for client in &mut crowd.clients {
            client.receive_until_end();
        }
        let records = forwarder.wait_for_sessions(3);
        assert!(records.iter().all(|r| r.cause() == "stopped"));
    });
}
