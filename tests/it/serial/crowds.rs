//! Many against few: behaviours 44 and 46.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use super::alone;
use crate::kit::crowd::{connections_that_fit, receive, send};
use crate::kit::*;

/// Connects without waiting for an answer.
fn knock(forwarder: &Forwarder) -> TcpStream {
    let address = forwarder.address();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    // EINPROGRESS on every kernel that matters; a refusal would show as a count
    // that stays behind.
    let _ = socket.connect(&address.into());
    socket.into()
}

/// Behaviour 44: thousands wait to be let in, and those who are in are served all
/// the while.
#[test]
fn b44_a_storm_of_connects_does_not_starve_established_flows() {
    let _alone = alone();
    on_every_engine(|case| {
        let storm = connections_that_fit(3_000);
        let server = Listener::with("127.0.0.1:0".parse().unwrap(), 4096, None);
        let forwarder = Setup::new(server.address()).case(case).start();
        let flows = Crowd::through(&forwarder, &server, 4);
        forwarder.process().stop();
        let waiting: Vec<TcpStream> = (0..storm).map(|_| knock(&forwarder)).collect();
        let inside = AtomicBool::new(false);
        let pings = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for (client, upstream) in flows.clients.iter().zip(&flows.servers) {
                let (inside, pings) = (&inside, &pings);
                scope.spawn(move || {
                    while !inside.load(Ordering::Relaxed) {
                        send(client.stream(), 1);
                        receive(upstream.stream());
                        send(upstream.stream(), 1);
                        receive(client.stream());
                        pings.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            forwarder.process().signal(Signal::SIGCONT);
            let all = (storm + flows.len()) as u64;
            wait_until("all are let in", PATIENCE, || {
                std::thread::sleep(Duration::from_millis(10));
                forwarder.counters().of("accepted") >= all
            });
            inside.store(true, Ordering::Relaxed);
        });
        // A reactor that took everybody in before it looked after its flows would
        // get to them once or twice.
        let pings = pings.into_inner();
        assert!(pings >= 20, "{pings} pings while {storm} were let in");
        drop((waiting, flows));
        wait_until("all have ended", PATIENCE, || {
            while server.accept_within(Duration::from_millis(10)).is_some() {}
            // Not records: so many at once are more than the log takes.
            forwarder.counters().of("ended") == storm as u64 + 4
        });
        forwarder.check_idle();
    });
}

/// Behaviour 44: more than the accept queue holds.
#[test]
fn b44_overflows_and_spread_are_reported() {
    let _alone = alone();
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .reactors(2)
            .set("profile.narrow.backlog", 8)
            .set("defaults.client_profile", "narrow")
            .start();
        assert_eq!(forwarder.counters().of("accept_overflows"), 0);
        forwarder.process().stop();
        let waiting: Vec<TcpStream> = (0..200).map(|_| knock(&forwarder)).collect();
        forwarder.process().signal(Signal::SIGCONT);
        wait_until("those who got a place are let in", PATIENCE, || {
            forwarder.counters().of("accepted") >= 16
        });
        let counters = forwarder.counters();
        assert!(counters.of("accept_overflows") >= 100, "{counters:?}");
        let spread = forwarder.wait_for_line("spread of accepted connections");
        let each = spread.message().split_whitespace();
        let each: Vec<(u32, u64)> = each
            .filter_map(|word| word.split_once('='))
            .filter_map(|(reactor, count)| Some((reactor.parse().ok()?, count.parse().ok()?)))
            .collect();
        assert_eq!(each.len(), 2, "{}", spread.message());
        assert!(each.iter().all(|(_, count)| *count >= 8), "{each:?}");
        drop(waiting);
        forwarder.check_quiet();
    });
}

/// What a round of small flows may take beside a bulk flow, in quiet rounds. The aim
/// is 2, with a core for each who takes part; here they share what there is.
const BESIDE_BULK_MAX: u32 = 10;

/// Behaviour 46: a bulk flow takes its share, the small ones keep theirs.
#[test]
fn b46_a_bulk_flow_beside_a_thousand_small_ones() {
    let _alone = alone();
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        let small = Crowd::through(&forwarder, &server, connections_that_fit(1_000));
        let mut bulk = Crowd::through(&forwarder, &server, 1);
        let (mut receiver, mut sender) = (bulk.clients.remove(0), bulk.servers.remove(0));
        let round = || {
            let start = Instant::now();
            small.ping();
            start.elapsed()
        };
        let mut quiet: Vec<Duration> = (0..5).map(|_| round()).collect();
        quiet.sort();
        let stop = AtomicBool::new(false);
        let beside_bulk = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    sender.send(MIB);
                }
                sender.half_close();
            });
            let reading = scope.spawn(|| receiver.receive_until_end_within(10 * PATIENCE));
            let best = best_of(20, BESIDE_BULK_MAX * quiet[2], round);
            stop.store(true, Ordering::Relaxed);
            assert_eq!(reading.join().unwrap(), Some(End::Eof));
            best
        });
        assert!(
            beside_bulk <= BESIDE_BULK_MAX * quiet[2],
            "{beside_bulk:?} beside bulk, {quiet:?} without"
        );
        let sessions = small.len() + 1;
        small.finish();
        receiver.half_close();
        sender.expect_then_eof(0);
        forwarder.wait_for_sessions(sessions);
        forwarder.check_idle();
    });
}

/// Behaviour 46: however much could be moved at once, others get their turn in
/// between.
#[test]
fn b46_every_pump_has_a_budget() {
    let _alone = alone();
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("profile.wide.send_buffer", "\"4MiB\"")
            .set("profile.wide.receive_buffer", "\"4MiB\"")
            .set("defaults.client_profile", "wide")
            .set("defaults.upstream_profile", "wide")
            .start();
        let mut crowd = Crowd::through(&forwarder, &server, 1);
        let (client, upstream) = (&mut crowd.clients[0], &mut crowd.servers[0]);
        for _ in 0..3 {
            let ends = forwarder.counters().of("budget_ends");
            // All of it lies in the forwarder's receive buffer, and fits into its
            // send buffer: nothing but the budget ends a pump.
            forwarder.process().stop();
            upstream.send(3 * MIB);
            let arrived = poll(Duration::from_secs(5), || {
                (upstream.unacknowledged() == 0).then_some(())
            });
            forwarder.process().signal(Signal::SIGCONT);
            client.expect(3 * MIB);
            if arrived.is_none() {
                skip(&test_name(), "net.core.rmem_max is less than 4 MiB");
                return;
            }
            let ends = forwarder.counters().of("budget_ends") - ends;
            // Two, unless the client is so slow that its full window ends a pump.
            assert!(ends >= 1, "no pause in 3 MiB");
        }
        crowd.finish();
        forwarder.wait_for_session();
        forwarder.check_idle();
    });
}
