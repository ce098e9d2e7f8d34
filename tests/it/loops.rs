//! Forwards that lead back to where they come from: behaviour 28. One client must not
//! become as many sessions as there are descriptors.

use std::io::Write;
use std::net::SocketAddr;

use crate::kit::directory::Directory;
use crate::kit::peer::{transfer, unless_reset};
use crate::kit::*;

/// Sessions that one client may become on its way round.
const TURNS_MAX: u64 = 3;

/// A client of `forwarder`; it is told that nobody is there.
#[track_caller]
fn turned_away(address: SocketAddr) {
    if let Some(mut client) = unless_reset(Peer::try_connect(address)) {
        client.receive_until_end();
    }
}

/// One client comes to `address`, and what becomes of it is no crowd; the log names it.
#[track_caller]
fn is_bounded(forwarder: &Forwarder, address: SocketAddr) {
    turned_away(address);
    forwarder.wait_for_line("listens there, and leads back");
    wait_until("all sessions have ended", PATIENCE, || {
        forwarder.counters().of("live") == 0
    });
    let accepted = forwarder.counters().of("accepted");
    assert!(accepted <= TURNS_MAX, "one client became {accepted}");
    let sessions = forwarder.sessions();
    assert!(
        sessions.iter().any(|it| it.cause() == "self_connect"),
        "{sessions:?}"
    );
    forwarder.check_idle();
}

/// The name is the listener's own address.
#[test]
fn b28_a_name_that_leads_back_is_no_server() {
    on_every_engine(|case| {
        let at = free_address();
        let own = format!("localhost:{}", at.port());
        let forwarder = Setup::between(at, own).case(case).start();
        is_bounded(&forwarder, at);
    });
}

/// A listener on all addresses has each of this host's, by whatever name or number.
#[test]
fn b28_a_listener_on_all_addresses_is_no_server_at_any_of_them() {
    let Some(namespace) = namespace::Namespace::new() else {
        return;
    };
    namespace.run(|| {
        namespace::ip("link set lo up");
        namespace::ip("address add 10.9.9.9/32 dev lo");
    });
    on_every_engine(|case| {
        namespace.run(|| {
            for (every, one) in [
                ("0.0.0.0", "localhost"),
                ("", "localhost"),
                ("", "10.9.9.9"),
            ] {
                let port = free_port();
                let listen = format!("{every}:{port}");
                let forwarder = Setup::between(listen, format!("{one}:{port}"))
                    .case(case)
                    .start();
                is_bounded(&forwarder, SocketAddr::from(([127, 0, 0, 1], port)));
            }
        });
    });
}

#[test]
fn b28_a_ring_of_forwards_is_no_server() {
    on_every_engine(|case| {
        let [a, b, c] = [(); 3].map(|()| free_address());
        let forwarder = Setup::between(a, b)
            .and(b, c)
            .and(c, a)
            .case(case)
            .reactors(2)
            .start();
        is_bounded(&forwarder, a);
    });
}

/// Routed by what it asks for, a session comes back to where it is routed so again; the others
/// of the same forward are served.
#[test]
fn b28_a_route_that_leads_back_is_no_server() {
    on_every_engine(|case| {
        let (server, directory) = (Listener::new(), Directory::new());
        let at = free_address();
        let file = directory.join("ring.toml");
        let text = format!(
            "[[forward]]\nlisten = \"{at}\"\nupstream = \"{}\"\n\
             [[forward.route]]\nhost = \"ring.example\"\nupstream = \"localhost:{}\"\n",
            server.address(),
            at.port()
        );
        std::fs::write(&file, text).unwrap();
        let forwarder = Setup::configured(&file, 1).case(case).start();
        let request = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let mut ring = forwarder.connect();
        ring.stream()
            .write_all(request("ring.example").as_bytes())
            .unwrap();
        ring.receive_until_end();
        forwarder.wait_for_line("listens there, and leads back");
        let other = forwarder.connect();
        other
            .stream()
            .write_all(request("a.example").as_bytes())
            .unwrap();
        drop((server.accept(), other));
        wait_until("all sessions have ended", PATIENCE, || {
            forwarder.counters().of("live") == 0
        });
        let accepted = forwarder.counters().of("accepted");
        assert!(accepted <= TURNS_MAX, "two clients became {accepted}");
        let causes = forwarder.wait_for_sessions(2);
        assert!(
            causes.iter().any(|it| it.cause() == "self_connect"),
            "{causes:?}"
        );
    });
}

/// Connections made ahead go round as well as others.
#[test]
fn b28_spare_connections_do_not_go_round() {
    on_every_engine(|case| {
        let [a, b] = [(); 2].map(|()| free_address());
        let forwarder = Setup::between(a, b)
            .and(b, a)
            .case(case)
            .set("defaults.upstream.warm", 2)
            .start();
        forwarder.wait_for_line("listens there");
        turned_away(a);
        let accepted = forwarder.counters().of("accepted");
        // A spare a second, and what a client makes.
        assert!(accepted <= 40, "spares became {accepted}");
        forwarder.check_quiet();
    });
}

/// One forward behind another is a way of using them.
#[test]
fn a_chain_of_forwards_is_no_loop() {
    on_every_engine(|case| {
        let server = Listener::new();
        let middle = free_address();
        let forwarder = Setup::new(middle)
            .and(middle, server.address())
            .case(case)
            .start();
        for _ in 0..2 {
            let mut client = forwarder.connect();
            client.send(1);
            let mut upstream = server.accept();
            upstream.expect(1);
            transfer(&mut upstream, &mut client, 100_000);
            client.close();
        }
        assert_eq!(forwarder.counters().of("connect_failures"), 0);
    });
}

/// The same port of another host is no loop: the ordinary case, for which a listener on
/// all addresses must not be taken.
#[test]
fn the_same_port_elsewhere_is_no_loop() {
    let Some(namespace) = namespace::Namespace::new() else {
        return;
    };
    on_every_engine(|case| {
        namespace.run(|| {
            // Nobody answers at an address without a host; but it is dialled.
            namespace::ip("link set lo up");
            namespace::ip("route replace unreachable 192.0.2.0/24");
            let port = free_port();
            let forwarder = Setup::between(format!(":{port}"), format!("192.0.2.1:{port}"))
                .case(case)
                .start();
            turned_away(SocketAddr::from(([127, 0, 0, 1], port)));
            assert_eq!(forwarder.wait_for_session().cause(), "unreachable");
        });
    });
}
