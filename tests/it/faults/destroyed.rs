//! Sockets that an operator takes away (`ss -K`): the kernel resets the peer and the
//! owner gets ECONNABORTED.

use std::net::SocketAddr;

use crate::kit::namespace::run;
use crate::kit::*;

/// Destroys the sockets of this namespace that match; whether there were any that
/// the kernel was able to destroy. Says that the test is skipped if not.
fn destroy(matching: &str) -> bool {
    let words = format!("-Htn -K {matching}");
    let words: Vec<_> = words.split_whitespace().collect();
    match run("ss", &words) {
        Ok(killed) if !killed.trim().is_empty() => true,
        Ok(_) => {
            skip(&test_name(), "the kernel has no CONFIG_INET_DIAG_DESTROY");
            false
        }
        Err(why) => {
            skip(&test_name(), &why);
            false
        }
    }
}

/// Runs it on every path, where no socket of anybody else can match.
fn in_a_namespace(behaviour: impl Fn(Case) + Sync) {
    on_every_path(|case| {
        if let Some(namespace) = Namespace::new() {
            namespace.run(|| behaviour(case));
        }
    });
}

/// Two sessions, of which one loses a socket: the forwarder's own, on either side.
#[test]
fn a_socket_of_a_session_is_destroyed() {
    in_a_namespace(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        let mut other = Crowd::through(&forwarder, &server, 1);
        for on_client_side in [true, false] {
            let mut hit = Crowd::through(&forwarder, &server, 1);
            hit.servers[0].send(100_000);
            hit.clients[0].expect(100_000);
            // The forwarder's end of it.
            let (local, remote): (SocketAddr, SocketAddr) = if on_client_side {
                (forwarder.address(), hit.clients[0].local())
            } else {
                (hit.servers[0].remote(), server.address())
            };
            let (local, remote) = (local.port(), remote.port());
            if !destroy(&format!("sport = :{local} dport = :{remote}")) {
                return;
            }
            for end in [&mut hit.clients[0], &mut hit.servers[0]] {
                assert_eq!(end.receive_until_end(), End::Reset, "{on_client_side}");
            }
            other.ping();
        }
        let (client, upstream) = (&mut other.clients[0], &mut other.servers[0]);
        peer::transfer(client, upstream, 5 * MIB);
        other.finish();
        forwarder.wait_for_sessions(3);
        forwarder.check_idle();
    });
}

/// Nobody new can come, and those who are there notice nothing.
#[test]
fn a_listening_socket_is_destroyed() {
    in_a_namespace(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        let mut old = Crowd::through(&forwarder, &server, 1);
        let listener = forwarder.address().port();
        if !destroy(&format!("-l sport = :{listener}")) {
            return;
        }
        assert!(Peer::try_connect(forwarder.address()).is_err());
        old.ping();
        forwarder.check_quiet();
        let (client, upstream) = (&mut old.clients[0], &mut old.servers[0]);
        peer::transfer(upstream, client, 5 * MIB);
        old.finish();
        forwarder.wait_for_session();
        forwarder.check_quiet();
    });
}
