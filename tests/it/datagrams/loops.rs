//! Datagrams that would come back.

use std::process::Command;

use super::*;

#[test]
fn b102_a_server_that_is_the_forwarder_is_refused_by_check() {
    for (listen, server) in [
        ("udp:127.0.0.1:5300", "udp:127.0.0.1:5300"),
        ("udp::5300", "udp:127.0.0.1:5300"),
        ("udp:[::1]:5300", "udp:[::1]:5300"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
            .args(["check", "-l", listen, "-r", server])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{listen} {server}");
        assert!(said.contains("dials itself"), "{said}");
    }
    // The same number is another port for the other protocol.
    let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args([
            "check",
            "-l",
            "udp:127.0.0.1:5300",
            "-r",
            "udp:127.0.0.2:5300",
        ])
        .output()
        .unwrap();
    assert!(output.status.success());
}

/// Sends some, waits until all of them are counted, and sees that nothing goes round.
#[track_caller]
fn goes_nowhere(forwarder: &Forwarder, flows: u64) {
    const SOME: u64 = 20;
    let client = client(forwarder.address());
    for _ in 0..SOME {
        client.send(b"round and round").unwrap();
    }
    wait_until("each is counted once", PATIENCE, || {
        forwarder.counters().of("udp_dropped_loop") == SOME
    });
    hears_nothing(&client, Duration::from_millis(50));
    let counters = forwarder.counters();
    assert_eq!(counters.of("udp_flows"), flows);
    assert!(counters.of("udp_received_up") <= 2 * SOME, "they go round");
    forwarder.check_quiet();
}

#[test]
fn b102_a_name_that_leads_back_is_dropped_and_counted() {
    on_every_engine(|case| {
        let Some(namespace) = Namespace::new() else {
            return;
        };
        namespace.run(|| {
            let forwarder = Setup::between("udp:127.0.0.1:5300", "udp:localhost:5300");
            let forwarder = forwarder.engine(case.engine).start();
            goes_nowhere(&forwarder, 0);
        });
    });
}

#[test]
fn b102_two_forwards_that_lead_to_each_other_are_no_loop_of_datagrams() {
    on_every_engine(|case| {
        let Some(namespace) = Namespace::new() else {
            return;
        };
        namespace.run(|| {
            let forwarder = Setup::between("udp:127.0.0.1:5300", "udp:127.0.0.1:5301")
                .and("udp:127.0.0.1:5301", "udp:127.0.0.1:5300")
                .engine(case.engine)
                .start();
            // The first leads to the second, which leads back.
            goes_nowhere(&forwarder, 1);
        });
    });
}

/// The only port that the kernel gives is the server's, which nobody has.
#[test]
fn b102_a_socket_that_would_be_its_own_server_is_given_up() {
    on_every_engine(|case| {
        let Some(namespace) = Namespace::new() else {
            return;
        };
        namespace.run(|| {
            namespace::sysctl("net.ipv4.ip_local_port_range", "40000 40001");
            let forwarder = Setup::between("udp:127.0.0.1:5300", "udp:127.0.0.1:40000");
            let forwarder = forwarder.engine(case.engine).start();
            let client = UdpSocket::bind("127.0.0.1:40001").unwrap();
            client.connect(forwarder.address()).unwrap();
            for _ in 0..5 {
                client.send(b"to itself?").unwrap();
            }
            wait_for_counter(&forwarder, "udp_dropped_loop", 5);
            hears_nothing(&client, Duration::from_millis(50));
            assert_eq!(forwarder.counters().of("udp_sent_up"), 0);
            forwarder.check_quiet();
        });
    });
}
