//! Senders that say they are somebody else.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use super::*;

/// Writes whole packets.
struct Forger(OwnedFd);

impl Forger {
    fn new() -> Option<Self> {
        let raw = socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Raw,
        );
        match raw {
            Ok(raw) => Some(Self(raw)),
            Err(errno) => {
                skip(test_name().as_str(), &format!("no raw socket: {errno}"));
                None
            }
        }
    }

    fn send(&self, (from, port): (Ipv4Addr, u16), to: SocketAddr, payload: &[u8]) {
        let SocketAddr::V4(to) = to else {
            panic!("of IPv4")
        };
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend(from.octets());
        packet.extend(to.ip().octets());
        packet.extend(port.to_be_bytes());
        packet.extend(to.port().to_be_bytes());
        packet.extend((8 + payload.len() as u16).to_be_bytes());
        // Without a checksum.
        packet.extend([0, 0]);
        packet.extend(payload);
        let len = (packet.len() as u16).to_be_bytes();
        packet[2..4].copy_from_slice(&len);
        let to = SockaddrIn::from(to);
        sendto(self.0.as_raw_fd(), &packet, &to, MsgFlags::empty()).unwrap();
    }
}

/// Packets of UDP that this network's hosts have sent.
fn packets_sent() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let line = text
        .lines()
        .filter(|it| it.starts_with("Udp: "))
        .nth(1)
        .unwrap();
    line.split_whitespace().nth(4).unwrap().parse().unwrap()
}

#[test]
fn b101_forged_senders_bring_nothing_forth() {
    const FORGED: u64 = 10_000;
    on_every_engine(|case| {
        let Some(namespace) = Namespace::new() else {
            return;
        };
        namespace.run(|| {
            let Some(forger) = Forger::new() else { return };
            let server = Server::silent();
            let forwarder = forwarder(case, &[server.address()])
                .set("defaults.max_flows", 500)
                .set("log.sessions", "off")
                .start();
            let before = packets_sent();
            let mut random = 88_172_645_463_325_252_u64;
            for sent in 1..=FORGED {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let bytes = random.to_be_bytes();
                let address = Ipv4Addr::new(127, bytes[1], bytes[2], bytes[3] | 2);
                let port = u16::from_be_bytes([bytes[4], bytes[5]]).max(1);
                let payload = vec![bytes[0]; usize::from(bytes[6])];
                forger.send((address, port), forwarder.address(), &payload);
                if sent % 200 == 0 {
                    wait_until("they are taken", PATIENCE, || server.heard() == sent);
                }
            }
            // Each went to the server, and nothing else went anywhere.
            let counters = forwarder.counters();
            assert_eq!(counters.of("udp_sent_up"), FORGED);
            assert_eq!(counters.of("udp_sent_down"), 0);
            assert_eq!(packets_sent() - before, FORGED);
            assert!(counters.of("udp_live") <= 500);
        });
    });
}

#[test]
fn b101_who_cannot_be_answered_is_dropped_and_counted() {
    on_every_engine(|case| {
        let Some(namespace) = Namespace::new() else {
            return;
        };
        namespace.run(|| {
            let Some(forger) = Forger::new() else { return };
            let server = Server::silent();
            let forwarder = forwarder(case, &[server.address()]).start();
            for _ in 0..10 {
                forger.send(
                    (Ipv4Addr::LOCALHOST, 0),
                    forwarder.address(),
                    b"from nowhere",
                );
            }
            wait_for_counter(&forwarder, "udp_dropped_bad_source", 10);
            for from in [Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1)] {
                forger.send((from, 4000), forwarder.address(), b"from all");
            }
            wait_for_counter(&forwarder, "udp_dropped_bad_source", 12);
            client(forwarder.address()).send(b"a good one").unwrap();
            wait_until("a good one is heard", PATIENCE, || server.heard() > 0);
            let counters = forwarder.counters();
            assert_eq!((server.heard(), counters.of("udp_flows")), (1, 1));
        });
    });
}
