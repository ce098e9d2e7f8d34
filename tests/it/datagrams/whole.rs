//! Datagrams pass whole, one for one, from and to the right addresses.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::*;

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at * 31 + seed * 7 + (at >> 8)) as u8)
        .collect()
}

#[test]
fn b89_datagrams_of_every_size_pass_whole_both_ways() {
    on_every_engine(|case| {
        for (ip, most) in [("127.0.0.1", 65_507), ("[::1]", 65_527)] {
            let server = Server::at(format!("{ip}:0").parse().unwrap(), |it| vec![it.to_vec()]);
            let forwarder =
                Setup::between(format!("udp:{ip}:0"), format!("udp:{}", server.address()));
            let forwarder = forwarder.engine(case.engine).start();
            let client = client(forwarder.address());
            for len in [0, 1, 1472, 1473, 9000, most] {
                let question = bytes(len, len);
                assert_eq!(ask(&client, &question), question, "{ip} {len}");
            }
            let counters = forwarder.counters();
            assert_eq!(counters.of("udp_sent_up"), 6);
            assert_eq!(counters.of("udp_sent_down"), 6);
            assert_eq!(server.heard(), 6);
        }
    });
}

/// A datagram that IPv6 carries and IPv4 does not.
#[test]
fn b89_what_cannot_be_passed_whole_is_dropped_and_counted() {
    on_every_engine(|case| {
        let server = Server::echo();
        let servers = format!("udp:{}", server.address());
        let forwarder = Setup::between("udp:[::1]:0", servers);
        let forwarder = forwarder.engine(case.engine).start();
        let client = client(forwarder.address());
        client.send(&bytes(65_527, 1)).unwrap();
        wait_for_counter(&forwarder, "udp_dropped_too_big", 1);
        assert_eq!(ask(&client, b"whole"), b"whole");
        assert_eq!(server.heard(), 1);
    });
}

#[test]
fn b90_boundaries_stay_whatever_is_joined_on_the_way() {
    on_every_engine(|case| {
        let server = Server::echo();
        let forwarder = forwarder(case, &[server.address()]).start();
        let client = client(forwarder.address());
        let (mut random, mut sent) = (12_345_u64, 0);
        // Runs of equal ones, shorter and longer ones, empty ones between; few at a time, so
        // that no receive queue is too small for them.
        while sent < 20_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let len = match random >> 60 {
                0 => 0,
                1..8 => 700,
                _ => (random >> 33) as usize % 1400,
            };
            let run = 1 + (random >> 20) as usize % 12;
            let questions: Vec<Vec<u8>> = (0..run)
                .map(|at| bytes(if at + 1 == run { len / 2 } else { len }, sent + at))
                .collect();
            for question in &questions {
                client.send(question).unwrap();
            }
            for (at, question) in questions.iter().enumerate() {
                let got = answer(&client);
                assert_eq!(got.as_ref(), Some(question), "datagram {}", sent + at);
            }
            sent += run;
        }
    });
}

/// A sender that joins datagrams itself: they come to the forwarder as one, and leave it as
/// what they were.
#[test]
fn b90_a_burst_that_comes_in_one_piece_is_never_cut() {
    on_every_engine(|case| {
        let server = Server::echo();
        let forwarder = forwarder(case, &[server.address()]).start();
        let client = client(forwarder.address());
        let segment = 1400_i32;
        nix::sys::socket::setsockopt(&client, nix::sys::socket::sockopt::UdpGsoSegment, &segment)
            .unwrap();
        let burst = bytes(46 * 1400, 3);
        client.send(&burst).unwrap();
        for (at, datagram) in burst.chunks(1400).enumerate() {
            assert_eq!(answer(&client).as_deref(), Some(datagram), "datagram {at}");
        }
        let counters = forwarder.counters();
        assert_eq!(counters.of("udp_received_up"), 46);
        assert_eq!(counters.of("udp_sent_down"), 46);
    });
}

#[test]
fn b91_the_answer_comes_from_the_address_that_was_asked() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    namespace.run(|| {
        namespace::ip("address add 10.9.9.1/32 dev lo");
        namespace::ip("address add 10.9.9.2/32 dev lo");
        namespace::ip("address add fd00::9/128 dev lo nodad");
        namespace::ip("link add v0 type veth peer name v1");
        namespace::ip("address add fe80::1/64 dev v0 nodad");
        namespace::ip("link set v0 up");
        namespace::ip("link set v1 up");
    });
    on_every_engine(|case| {
        namespace.run(|| {
            let server = Server::echo();
            for listener in ["udp::0", "udp:0.0.0.0:0", "udp:[::]:0"] {
                let servers = format!("udp:{}", server.address());
                let forwarder = Setup::between(listener, servers);
                let forwarder = forwarder.engine(case.engine).start();
                let port = forwarder.address().port();
                namespace::ip("address replace 10.9.9.3/32 dev lo");
                let asked = [
                    "127.0.0.1",
                    "127.0.0.9",
                    "10.9.9.1",
                    "10.9.9.2",
                    "10.9.9.3",
                    "::1",
                    "fd00::9",
                    "fe80::1",
                ];
                for ip in asked {
                    let ip: IpAddr = ip.parse().unwrap();
                    let takes_v4 = listener != "udp:[::]:0";
                    let takes_v6 = listener != "udp:0.0.0.0:0";
                    if !(if ip.is_ipv4() { takes_v4 } else { takes_v6 }) {
                        continue;
                    }
                    answers_from(ip, port);
                }
            }
        });
    });
}

/// An unconnected client, which sees from where it is answered.
#[track_caller]
fn answers_from(ip: IpAddr, port: u16) {
    let mut to = SocketAddr::new(ip, port);
    if let SocketAddr::V6(to) = &mut to
        && to.ip().is_unicast_link_local()
    {
        to.set_scope_id(nix::net::if_::if_nametoindex("v0").unwrap());
    }
    let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = UdpSocket::bind(any).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"from where?", to).unwrap();
    let (len, from) = client.recv_from(&mut [0; 64]).unwrap();
    assert_eq!((len, from.ip(), from.port()), (11, to.ip(), to.port()));
}
