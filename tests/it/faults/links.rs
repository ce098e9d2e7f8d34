//! Networks as they are: packets get lost, a line is slow and has a queue, segments
//! are small and come one by one. Each in namespaces of the test's own.

use std::net::SocketAddr;
use std::process::Command;

use super::{Echo, Went, echo};
use crate::kit::namespace::{Firewall, ip, run};
use crate::kit::*;

/// Sessions through a forwarder, several at the same time; all must be exact.
fn sessions_are_exact(forwarder: &Forwarder, lengths: &[u64]) {
    let address = forwarder.address();
    std::thread::scope(|scope| {
        let sessions: Vec<_> = lengths
            .iter()
            .enumerate()
            .map(|(n, len)| scope.spawn(move || echo(address, n as u64, *len)))
            .collect();
        for session in sessions {
            assert!(session.join().is_ok_and(|went| went == Went::Exact));
        }
    });
    for record in forwarder.wait_for_sessions(lengths.len()) {
        assert_eq!((record.code(), record.lost()), ("--", 0), "{record:?}");
    }
    forwarder.check_idle();
}

/// Every twentieth packet is lost, whatever it is.
#[test]
fn packets_are_lost() {
    on_every_path(|case| {
        let Some(namespace) = Namespace::new() else {
            return;
        };
        namespace.run(|| {
            let Some(firewall) = Firewall::new() else {
                return;
            };
            let server = Echo::new();
            let forwarder = Setup::new(server.address).case(case).start();
            firewall.drop_packets("meta l4proto tcp numgen random mod 20 == 0 counter");
            sessions_are_exact(&forwarder, &[1, 40_000, 400_000, 2 * MIB]);
            firewall.open();
        });
    });
}

/// 100 Mbit/s both ways, with a queue of 50 ms in front of it.
#[test]
fn the_line_is_slow_and_has_a_queue() {
    on_every_path(|case| {
        let Some(namespace) = Namespace::new() else {
            return;
        };
        namespace.run(|| {
            // A packet larger than the bucket would never get through.
            ip("link set lo mtu 9000");
            let line = "qdisc add dev lo root tbf rate 100mbit burst 64kb latency 50ms";
            let words: Vec<_> = line.split_whitespace().collect();
            if let Err(why) = run("tc", &words) {
                return skip(&test_name(), &why);
            }
            let server = Echo::new();
            let forwarder = Setup::new(server.address).case(case).start();
            sessions_are_exact(&forwarder, &[1, 40_000, 400_000, 2 * MIB]);
        });
    });
}

/// The sender cuts each segment itself, and the receiver joins none: an Ethernet
/// without help from its cards.
fn without_offloads(device: &str) -> Result<(), String> {
    if Command::new("ethtool").arg("--version").output().is_ok() {
        let line = format!("-K {device} tso off gso off gro off sg off");
        let words: Vec<_> = line.split_whitespace().collect();
        run("ethtool", &words)?;
        return Ok(());
    }
    let line = format!("link set dev {device} gso_max_segs 1 gso_max_size 1500 gro_max_size 1500");
    let words: Vec<_> = line.split_whitespace().collect();
    run("ip", &words).map(drop)
}

/// The forwarder and its client on one host, the server on another.
#[test]
fn segments_are_small_and_come_one_by_one() {
    const SERVER: &str = "10.77.0.2:0";
    on_every_path(|case| {
        let (Some(here), Some(there)) = (Namespace::new(), Namespace::new()) else {
            return;
        };
        let made = here.run(|| {
            let there = there.path();
            let link = ["link", "add", "v0", "mtu", "1500", "type", "veth", "peer"];
            let peer = ["name", "v1", "mtu", "1500", "netns", there.as_str()];
            run("ip", &[link.as_slice(), peer.as_slice()].concat())?;
            ip("addr add 10.77.0.1/24 dev v0");
            ip("link set v0 up");
            without_offloads("v0")
        });
        let made = made.and_then(|()| {
            there.run(|| {
                ip("addr add 10.77.0.2/24 dev v1");
                ip("link set v1 up");
                without_offloads("v1")
            })
        });
        if let Err(why) = made {
            return skip(&test_name(), &why);
        }
        let address: SocketAddr = SERVER.parse().unwrap();
        let server = there.run(|| Echo::on(address));
        here.run(|| {
            let forwarder = Setup::new(server.address).case(case).start();
            sessions_are_exact(&forwarder, &[1, 1_448, 1_449, 400_000, 20 * MIB]);
        });
    });
}
