//! Addresses that cannot be had: behaviour 69.

use std::io::Read;
use std::net::TcpListener;
use std::process::Stdio;

use crate::kit::shortage::Nobody;
use crate::kit::*;

/// Starts what cannot start: exit code 1, and a message.
#[track_caller]
fn message(setup: &Setup) -> String {
    let mut command = setup.command();
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let ended = poll(PATIENCE, || child.try_wait().unwrap());
    let _ = child.kill();
    let _ = child.wait();
    let mut said = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert!(ended.is_some(), "it runs: {said}");
    assert_eq!(ended.and_then(|status| status.code()), Some(1), "{said}");
    said
}

#[test]
fn b69_the_port_is_taken() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(other) = TcpListener::bind(address) else {
            skip(&test_name(), &format!("no {address} here"));
            continue;
        };
        let taken = other.local_addr().unwrap();
        for reactors in [1, 2] {
            let setup = Setup::between(taken, "127.0.0.1:1").reactors(reactors);
            let said = message(&setup);
            let port = format!(":{}'", taken.port());
            assert!(
                said.contains(&taken.to_string()) && said.contains("in use"),
                "{said}"
            );
            assert!(said.contains(&port), "no command to find out: {said}");
        }
    }
}

/// The second of two forwards fails: the first must not serve on.
#[test]
fn b69_one_listener_of_several_is_taken() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let setup = Setup::new("127.0.0.1:1").and(taken, "127.0.0.1:1");
    assert!(message(&setup).contains(&taken.to_string()));
}

#[test]
fn b69_a_second_instance_does_not_share_the_port() {
    for reactors in [1, 2] {
        let server = Listener::new();
        let first = Setup::new(server.address()).reactors(reactors).start();
        let address = first.address();
        let second = Setup::between(address, "127.0.0.1:1").reactors(reactors);
        assert!(message(&second).contains(&address.to_string()));
        // Everybody gets to the first.
        for _ in 0..20 {
            Crowd::through(&first, &server, 1).finish();
        }
        first.wait_for_sessions(20);
        first.check_idle();
    }
}

#[test]
fn b69_no_such_address() {
    // TEST-NET-1 and the documentation prefix: nobody has these.
    for address in ["192.0.2.1:0", "[2001:db8::1]:0"] {
        let said = message(&Setup::between(address, "127.0.0.1:1"));
        assert!(said.contains(address), "{said}");
        assert!(said.contains("ip address"), "no remedy: {said}");
    }
}

#[test]
fn b69_a_privileged_port() {
    let Some(nobody) = Nobody::new() else { return };
    let sysctl = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let first_free: u16 = std::fs::read_to_string(sysctl)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024);
    if first_free < 2 {
        skip(&test_name(), "no port is privileged here");
        return;
    }
    // Port 1 (tcpmux) is as privileged as any, and free everywhere.
    let setup = nobody.runs(Setup::between("127.0.0.1:1", "127.0.0.1:2"));
    let said = message(&setup);
    assert!(
        said.contains("127.0.0.1:1") && said.contains("CAP_NET_BIND_SERVICE"),
        "{said}"
    );
}

/// Which of this host's addresses a client has reached: a listener on all of them does
/// not tell.
#[test]
fn the_record_of_a_listener_on_all_addresses_says_which_was_reached() {
    on_every_engine(|case| {
        let server = Listener::new();
        for (listen, every) in [("0.0.0.0:0", true), ("127.0.0.1:0", false)] {
            let setup = Setup::between(listen, server.address()).case(case);
            let forwarder = setup.set("log.sessions", "all").start();
            let port = port_of(&forwarder.addresses()[0]);
            let reached = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            let client = Peer::connect(reached);
            server.accept().close();
            client.close();
            let end = forwarder.wait_for_session();
            let mut records = forwarder.records();
            records.retain(|it| it.text("kind") == "session_start");
            assert_eq!(records.len(), 1);
            records.push(end);
            let expected = if every {
                reached.to_string()
            } else {
                String::new()
            };
            for record in records {
                assert_eq!(record.text("reached"), expected, "{record:?}");
            }
        }
    });
}

fn port_of(address: &str) -> u16 {
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}
