//! What quick ACKs that are off until the first write cost nobody: an answer in two
//! writes, and a server that speaks first.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::kit::*;

/// Whether the kernel delays the ACKs of an established connection: the lowest bit of
/// `quick << 1 | pingpong` in `/proc/net/tcp`. `None`: there is no such connection.
pub(crate) fn delays_acks(local: SocketAddr, remote: SocketAddr) -> Option<bool> {
    const QUICK: usize = 14;
    let hex = |address: SocketAddr| match address {
        SocketAddr::V4(it) => {
            let ip = u32::from_ne_bytes(it.ip().octets());
            format!("{ip:08X}:{:04X}", it.port())
        }
        SocketAddr::V6(_) => unreachable!("the tests of this file are on 127.0.0.1"),
    };
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (local, remote) = (hex(local), hex(remote));
    table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // sl local remote st tx:rx tr:tm retrnsmt uid timeout inode ref ptr rto ato quick
        let of_it = fields.get(1) == Some(&&*local) && fields.get(2) == Some(&&*remote);
        let quick = fields.get(QUICK).filter(|_| of_it)?;
        Some(quick.parse::<u32>().unwrap() & 1 == 1)
    })
}

/// A server that answers in two writes, a head and a body, with Nagle's algorithm on
/// (JDK's HttpServer, Python's http.server) sends the second once the first is
/// acknowledged: 40 ms later where the kernel delays the ACK.
#[test]
fn the_first_answer_is_acknowledged_at_once() {
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        // The second one comes while the pool is known to have clients that speak first.
        for _ in 0..2 {
            let mut client = forwarder.connect();
            client.send(64);
            let mut upstream = server.accept();
            upstream.expect(64);
            let delays = || delays_acks(upstream.remote(), upstream.local());
            wait_until("ACKs are quick again", PATIENCE, || delays() == Some(false));
            client.close();
        }
    });
}

/// A client that comes to speak only once its server has spoken, by when the kernel
/// would delay again.
#[test]
fn the_first_answer_to_a_late_client_is_acknowledged_at_once() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        for _ in 0..2 {
            let mut client = forwarder.connect();
            let mut upstream = server.accept();
            upstream.send(10);
            client.expect(10);
            client.send(64);
            upstream.expect(64);
            let delays = || delays_acks(upstream.remote(), upstream.local());
            wait_until("ACKs are quick again", PATIENCE, || delays() == Some(false));
            client.close();
        }
    });
}

/// The handshake's last ACK waits for a client's bytes; where servers speak first, only
/// once.
#[test]
fn a_server_that_speaks_first_learns_of_its_second_connection_at_once() {
    const PATIENCE_OF_AN_ACK: Duration = Duration::from_millis(2);
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        let best = best_of(200, PATIENCE_OF_AN_ACK / 2, || {
            let started = Instant::now();
            let mut client = forwarder.connect();
            let mut upstream = server.accept();
            upstream.send(10);
            client.expect(10);
            started.elapsed()
        });
        assert!(best < PATIENCE_OF_AN_ACK, "the greeting takes {best:?}");
    });
}

/// A check by HTTP asks a server of the same kind.
#[test]
fn the_answer_to_a_check_is_acknowledged_at_once() {
    let server = Listener::new();
    let check = "{ type = \"http\", interval = \"10s\", timeout = \"10s\" }";
    let _forwarder = Setup::new(server.address())
        .set("defaults.upstream.check", check)
        .start();
    let upstream = server.accept();
    let delays = || delays_acks(upstream.remote(), upstream.local());
    // The request may come somewhat later than the connection.
    assert!(upstream.is_readable_within(PATIENCE), "no request comes");
    wait_until("ACKs are quick again", PATIENCE, || delays() == Some(false));
}
