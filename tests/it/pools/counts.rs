//! What is told of each server (SIGUSR1) adds up.

use std::net::SocketAddr;
use std::time::Duration;

use super::pool::{Pool, Visit, addresses, servers, tell};
use crate::kit::peer::Refusing;
use crate::kit::*;

#[test]
fn the_line_of_each_server_adds_up() {
    const SESSIONS: usize = 10;
    on_every_engine(|case| {
        let dead = Refusing::new();
        let servers = servers::<2>();
        let at = addresses(&servers);
        // Connect times are those of whoever was dialled first: each once, at least.
        let forwarder = Pool::of(&[at[0], at[1], dead.address()])
            .key("max_fails", 0)
            .setup(case)
            .reactors(2)
            .start();
        let mut held: Vec<_> = (0..SESSIONS)
            .map(|_| Visit::new(&forwarder, &servers))
            .collect();
        for (server, address) in at.iter().enumerate() {
            let here = held.iter().filter(|visit| visit.server == server).count() as u64;
            let told = tell(&forwarder, *address);
            assert_eq!((told.of("active"), told.of("connects")), (here, here));
            assert_eq!(told.word("state"), "up");
        }
        for visit in &mut held {
            visit.talk();
        }
        for visit in held {
            visit.end();
        }
        let records = forwarder.wait_for_sessions(SESSIONS);
        let mut connects = 0;
        for address in &at {
            let told = tell(&forwarder, *address);
            let here = records
                .iter()
                .filter(|it| it.text("server") == address.to_string());
            let bytes = here.clone().map(Record::bytes);
            let (up, down) = bytes.fold((0, 0), |sum, (up, down)| (sum.0 + up, sum.1 + down));
            assert_eq!((told.of("bytes_up"), told.of("bytes_down")), (up, down));
            assert_eq!(up, 2000 * here.count() as u64);
            assert_eq!(told.of("active"), 0);
            assert!(told.of("connect_p50_us") <= told.of("connect_p99_us"));
            assert!(told.of("connect_p99_us") > 0);
            assert_eq!((told.of("warm_used"), told.of("warm_stale")), (0, 0));
            for kind in ["refused", "unreachable", "timeout", "reset", "other"] {
                assert_eq!(told.of(&format!("failures_{kind}")), 0, "{kind}");
            }
            connects += told.of("connects");
        }
        let told = tell(&forwarder, dead.address());
        let failures: u64 = records.iter().map(|it| it.attempts() - 1).sum();
        assert!(failures > 0, "the one that refuses was tried");
        assert_eq!(told.of("failures_refused"), failures);
        assert_eq!(told.of("connects"), failures);
        let counters = forwarder.counters();
        assert_eq!(counters.of("connects"), connects + failures);
        assert_eq!(counters.of("connect_failures"), failures);
        forwarder.check_idle();
    });
}

/// More servers than the log's queue has room for: each is told, and nothing else is
/// lost for it.
#[test]
fn a_report_of_thousands_of_servers_is_whole() {
    const SERVERS: usize = 2_500;
    let port = |n: usize| ([127, 0, 0, 1], 10_000 + n as u16).into();
    let at: Vec<SocketAddr> = (0..SERVERS).map(port).collect();
    let case = Case {
        engine: "epoll",
        path: "auto",
    };
    let forwarder = Pool::of(&at).start(case);
    for report in 1..=2 {
        assert_eq!(forwarder.counters().of("log_dropped"), 0);
        let told = || {
            let mut records = forwarder.records();
            records.retain(|record| record.text("kind") == "server");
            records.len()
        };
        wait_until("every server was told", PATIENCE, || {
            told() == report * SERVERS
        });
    }
    assert_eq!(forwarder.counters().of("log_dropped"), 0);
    assert!(forwarder.terminate().success());
}

/// Two forwards whose servers refuse: the log says so of both, once.
#[test]
fn the_trouble_of_one_server_hides_no_others() {
    on_every_engine(|case| {
        let dead = [Refusing::new(), Refusing::new()];
        let [one, other] = [0, 1].map(|it| dead[it].address());
        let forwarder = Setup::new(one).and("127.0.0.1:0", other).case(case).start();
        let at = forwarder.addresses().to_vec();
        for _ in 0..3 {
            for address in &at {
                // It may be reset before the client has looked.
                let _ = Peer::try_connect(address.parse().unwrap());
            }
        }
        forwarder.wait_for_sessions(6);
        for server in dead.iter().map(|it| it.address().to_string()) {
            let mut lines = forwarder.records();
            lines.retain(|line| line.text("kind") == "connect_failed");
            lines.retain(|line| line.text("server") == server);
            assert_eq!(lines.len(), 1, "{server}: {lines:?}");
            assert_eq!(lines[0].cause(), "refused");
            assert_eq!(lines[0].text("level"), "warn");
        }
        forwarder.check_idle();
    });
}

/// A server in two pools, or twice in one, is counted by its place.
#[test]
fn two_forwards_share_the_servers_of_a_pool() {
    on_every_engine(|case| {
        let servers = servers::<1>();
        let pool = Pool::default().server(servers[0].address(), "max_connections = 1");
        let forwarder = pool
            .key("queue", 0)
            .setup(case)
            .and("127.0.0.1:0", "pool")
            .start();
        let held = Visit::new(&forwarder, &servers);
        let other = forwarder.addresses()[1].parse().unwrap();
        if let Some(mut client) = peer::unless_reset(Peer::try_connect(other)) {
            assert_eq!(client.receive_until_end(), End::Reset);
        }
        assert_eq!(forwarder.wait_for_session().cause(), "queue_full");
        assert_eq!(tell(&forwarder, servers[0].address()).of("active"), 1);
        held.end();
        forwarder.wait_for_sessions(2);
        Visit::of(Peer::connect(other), &servers).end();
        assert!(servers[0].accept_within(Duration::ZERO).is_none());
    });
}
