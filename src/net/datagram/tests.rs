use std::collections::HashSet;
use std::net::UdpSocket;
use std::time::Duration;

use super::*;
use crate::net::limits;
use crate::net::options::{Leg, RawOption, SocketOptions};

fn server(ip: &str) -> (UdpSocket, SocketAddr) {
    let server = UdpSocket::bind((ip, 0)).unwrap();
    let patience = Some(Duration::from_secs(10));
    server.set_read_timeout(patience).unwrap();
    let address = server.local_addr().unwrap();
    (server, address)
}

fn call(server: SocketAddr, options: &SocketOptions, ports: Option<(u16, u16)>) -> Connected {
    let plan = options.plan(Leg::Upstream);
    let call = Call {
        server,
        options: &plan,
        local: Local::Plan,
        never_fragment: false,
        ports,
    };
    connect(&call).unwrap()
}

/// A few ports of the kernel's, apart from what other test processes take.
fn few() -> (u16, u16) {
    let all = limits::ephemeral_ports();
    let room = u32::from(all.end() - all.start()) - 64;
    let first = *all.start() + (std::process::id().wrapping_mul(89) % room) as u16;
    (first, first + 63)
}

fn local(fd: &OwnedFd) -> SocketAddr {
    let address = SockRef::from(fd).local_addr().unwrap();
    address.as_socket().unwrap()
}

/// An answer to who has asked before finds nobody when its socket serves somebody else.
#[test]
fn b92_a_socket_that_is_connected_anew_has_another_port_and_nothing_of_before() {
    for ip in ["127.0.0.1", "::1"] {
        let (server, address) = server(ip);
        let fd = call(address, &SocketOptions::default(), None).fd;
        let source = local(&fd).ip();
        keep_source(fd.as_fd()).unwrap();
        assert_eq!(connect_anew(fd.as_fd(), &address), Ok(0));
        let mut ports = HashSet::new();
        for round in 0..50u8 {
            let before = local(&fd);
            ports.insert(before.port());
            server.send_to(&[round, 1], before).unwrap();
            server.send_to(&[round, 2], before).unwrap();
            assert_eq!(connect_anew(fd.as_fd(), &address), Ok(2), "unread ones");
            let now = local(&fd);
            assert_eq!(now.ip(), source);
            // Of those that the kernel draws at random it may be the same again.
            if now.port() != before.port() {
                let _ = server.send_to(&[round, 3], before);
            }
            server.send_to(&[round, 4], now).unwrap();
            let mut got = [0; 8];
            assert_eq!(sys::receive_now(fd.as_fd(), &mut got), Ok(2));
            assert_eq!(got[..2], [round, 4]);
            assert_eq!(sys::receive_now(fd.as_fd(), &mut got), Err(Errno::EAGAIN));
            assert_eq!(send_at_once(fd.as_fd(), b"?"), Ok(()));
            assert_eq!(server.recv_from(&mut got).unwrap(), (1, now));
        }
        assert!(ports.len() > 45, "{} ports in 50 rounds", ports.len());
    }
}

/// What the kernel has of ICMP for an earlier datagram is told in the place of the next one, once.
#[test]
fn b93_a_datagram_that_meets_a_pending_refusal_is_sent_again() {
    for ip in ["127.0.0.1", "::1"] {
        let (gone, address) = server(ip);
        let fd = call(address, &SocketOptions::default(), None).fd;
        drop(gone);
        assert_eq!(send_at_once(fd.as_fd(), b"refused"), Ok(()));
        // Over loopback the refusal is there by now.
        let server = UdpSocket::bind(address).unwrap();
        let patience = Some(Duration::from_secs(10));
        server.set_read_timeout(patience).unwrap();
        assert_eq!(send_at_once(fd.as_fd(), b"sent"), Ok(()));
        let mut got = [0; 8];
        assert_eq!(server.recv_from(&mut got).unwrap(), (4, local(&fd)));
        assert_eq!(&got[..4], b"sent");
    }
}

#[test]
fn b102_a_socket_keeps_to_its_ports_however_often_it_is_connected() {
    for ip in ["127.0.0.1", "::1"] {
        let (_server, address) = server(ip);
        let ports = few();
        let options = SocketOptions::default();
        let Connected { fd, has_ports } = call(address, &options, Some(ports));
        if !has_ports {
            println!("skipped: no IP_LOCAL_PORT_RANGE");
            return;
        }
        keep_source(fd.as_fd()).unwrap();
        for _ in 0..100 {
            connect_anew(fd.as_fd(), &address).unwrap();
            let port = local(&fd).port();
            assert!((ports.0..=ports.1).contains(&port), "{port} of {ports:?}");
        }
    }
}

#[test]
fn who_says_which_ports_a_socket_may_have_is_not_overruled() {
    let (_server, address) = server("127.0.0.1");
    let own = few();
    let range = RawOption {
        level: libc::IPPROTO_IP,
        name: IP_LOCAL_PORT_RANGE,
        value: (i32::from(own.1) << 16) | i32::from(own.0),
    };
    let options = SocketOptions {
        raw: vec![range],
        ..SocketOptions::default()
    };
    let called = call(address, &options, Some((1, 2)));
    assert!(!called.has_ports);
    let ports = call(address, &SocketOptions::default(), Some(own));
    if ports.has_ports {
        let port = local(&called.fd).port();
        assert!((own.0..=own.1).contains(&port), "{port} of {own:?}");
    }
}

#[test]
fn ports_beside_a_server_are_all_but_its_own_and_each_side_has_its_share() {
    let all = 1000..=1099;
    for server in 1000..=1099 {
        let mut below = 0;
        for nth in 0..10_000 {
            let (first, last) = ports_beside(server, &all, nth).unwrap();
            assert!(first <= last && (last < server || first > server));
            assert!(all.contains(&first) && all.contains(&last));
            assert!([first - 1, last + 1].contains(&server));
            below += i32::from(last < server);
        }
        let share = i32::from(server - 1000) * 10_000 / 99;
        assert!((below - share).abs() < 20, "{server}: {below} of {share}");
    }
    assert_eq!(ports_beside(999, &all, 1), None, "not one of them");
    assert_eq!(ports_beside(1100, &all, 1), None);
    assert_eq!(ports_beside(7, &(7..=7), 1), None, "there is no other");
}
