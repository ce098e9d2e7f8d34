//! Receive queues that overflow, and what is said of them.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

const MANY: u64 = 3000;

#[test]
fn b97_what_a_listeners_queue_lost_is_counted_exactly() {
    on_every_engine(|case| {
        let server = Server::silent();
        let forwarder = forwarder(case, &[server.address()])
            .set("profile.default.receive_buffer", "64KiB")
            .start();
        let client = client(forwarder.address());
        for round in 1..=2 {
            forwarder.process().stop();
            for _ in 0..MANY {
                client.send(&[0; 500]).unwrap();
            }
            forwarder.process().signal(Signal::SIGCONT);
            wait_until("each is told of", PATIENCE, || {
                let counters = forwarder.counters();
                counters.of("udp_received_up") + counters.of("udp_dropped_receive_queue")
                    == round * MANY
            });
            let lost = forwarder.counters().of("udp_dropped_receive_queue");
            assert!(lost > 1000, "{lost}");
            assert_eq!(lost, lost_by_the_kernel(forwarder.address().port()));
        }
    });
}

#[test]
fn b97_what_a_flows_queue_lost_is_counted_exactly() {
    on_every_engine(|case| {
        let (goes, told) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (gate, count) = (goes.clone(), told.clone());
        let server = Server::new(move |_| {
            while !gate.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            count.fetch_add(1, Ordering::Relaxed);
            vec![vec![0; 500]; MANY as usize]
        });
        let forwarder = forwarder(case, &[server.address()])
            .set("profile.default.receive_buffer", "64KiB")
            .start();
        client(forwarder.address()).send(b"all of it").unwrap();
        wait_until("it is asked", PATIENCE, || server.heard() == 1);
        forwarder.process().stop();
        goes.store(true, Ordering::Relaxed);
        wait_until("all of it is sent", PATIENCE, || {
            let flow = server.senders()[0].port();
            told.load(Ordering::Relaxed) == 1 && lost_by_the_kernel(flow) > 1000
        });
        forwarder.process().signal(Signal::SIGCONT);
        wait_until("each is told of", PATIENCE, || {
            let counters = forwarder.counters();
            counters.of("udp_received_down") + counters.of("udp_dropped_receive_queue") == MANY
        });
        let lost = forwarder.counters().of("udp_dropped_receive_queue");
        assert_eq!(lost, lost_by_the_kernel(server.senders()[0].port()));
    });
}

/// A socket whose queue was never seen full lost something all the same: it is told when
/// the flow ends.
#[test]
fn b97_what_a_flow_lost_is_told_when_it_ends_at_the_latest() {
    on_every_engine(|case| {
        let server = Server::new(|_| vec![vec![0; 60_000]; 5]);
        let forwarder = forwarder(case, &[server.address()])
            .set("profile.default.receive_buffer", "64KiB")
            .set("defaults.udp_idle_timeout", "300ms")
            .start();
        let client = client(forwarder.address());
        let setup = setsockopt(&client, sockopt::RcvBuf, &(4 << 20));
        assert!(setup.is_ok());
        client.send(b"five large ones").unwrap();
        wait_until("each is told of", PATIENCE, || {
            let counters = forwarder.counters();
            counters.of("udp_received_down") + counters.of("udp_dropped_receive_queue") == 5
        });
    });
}

#[test]
fn b97_doctor_names_the_limit_of_receive_queues() {
    let limit = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
    let limit: u64 = limit.trim().parse().unwrap();
    for (listen, server, is_udp) in [
        ("udp:127.0.0.1:0", "udp:127.0.0.1:9", true),
        ("127.0.0.1:0", "127.0.0.1:9", false),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
            .args(["doctor", "--json", "-l", listen, "-r", server])
            .output()
            .unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        let finding = findings.iter().find(|it| it["name"] == "net.core.rmem_max");
        let remedy = finding.unwrap()["remedy"].as_str().unwrap_or("").to_owned();
        let is_advised = remedy.contains("net.core.rmem_max=8388608");
        assert_eq!(is_advised, is_udp && limit < 8 << 20, "{listen}: {remedy}");
    }
}
