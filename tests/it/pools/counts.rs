//! What is told of each server (SIGUSR1) adds up.

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
