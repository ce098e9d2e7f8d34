use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};

use socket2::Socket;

use super::*;

fn passed(name: &str) -> Origin {
    Origin::Passed {
        name: name.to_owned(),
    }
}

fn tcp() -> (OwnedFd, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = listener.local_addr().unwrap().to_string();
    (listener.into(), local)
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

#[test]
fn each_is_claimed_by_name_or_by_address_and_in_any_order() {
    let mut inherited = Inherited::default();
    let (first, at_first) = tcp();
    let (second, at_second) = tcp();
    let (third, _) = tcp();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at_udp = udp.local_addr().unwrap().to_string();
    let directory = std::env::temp_dir().join(format!("thalweg-inherited-{}", std::process::id()));
    let unix = UnixListener::bind(&directory).unwrap();
    inherited.add(unix.into(), passed("unix"), 3).unwrap();
    inherited.add(udp.into(), passed("dns"), 4).unwrap();
    inherited.add(first, passed("web"), 5).unwrap();
    inherited.add(second, passed("web"), 6).unwrap();
    inherited.add(third, passed("other"), 7).unwrap();

    let at = |inherited: &mut Inherited, text: &str, carries| {
        let taken = inherited.claim("f", &address(text), carries);
        taken
            .iter()
            .map(|it| it.local.to_string())
            .collect::<Vec<_>>()
    };
    let streams = Carries::Streams;
    // A datagram socket is nothing for whoever wants streams, by name or by address.
    assert!(at(&mut inherited, "systemd:dns", streams).is_empty());
    assert!(at(&mut inherited, &at_udp, streams).is_empty());
    assert_eq!(at(&mut inherited, &at_udp, Carries::Datagrams), [at_udp]);
    let both = at(&mut inherited, "systemd:web", streams);
    assert_eq!(both, [at_first, at_second]);
    assert!(at(&mut inherited, "systemd:web", streams).is_empty());
    let path = format!("unix:{}", directory.display());
    assert_eq!(at(&mut inherited, &path, streams).join(" "), path);
    assert_eq!(inherited.sockets().len(), 1);
    let left = inherited.sockets()[0].to_string();
    assert!(
        left.starts_with("the stream socket other on 127.0.0.1:"),
        "{left}"
    );
    std::fs::remove_file(directory).unwrap();
}

#[test]
fn what_cannot_be_listened_on_is_named() {
    let mut inherited = Inherited::default();
    let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    bound.bind(&any.into()).unwrap();
    let packets = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    let loose = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    for (fd, problem) in [
        (file, "not a socket"),
        (bound.into(), "does not listen"),
        (packets.into(), "neither a stream nor a datagram"),
        (loose.into(), "not bound to a port"),
    ] {
        let error = inherited.add(fd, passed("x"), "descriptor 3 (x)");
        let error = error.unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
        assert!(error.starts_with("descriptor 3 (x)"), "{error}");
    }
    assert!(inherited.is_empty());
    // A unix socket for datagrams is one.
    let (one, _) = UnixDatagram::pair().unwrap();
    inherited.add(one.into(), passed("x"), 3).unwrap();
}

#[test]
fn both_flags_are_set_and_a_label_tells_forwards_with_a_chosen_port_apart() {
    let mut inherited = Inherited::default();
    for forward in ["a", "b"] {
        let label = Label::of(forward, &address("127.0.0.1:0"));
        inherited
            .add(tcp().0, Origin::HandedOver(label), forward)
            .unwrap();
    }
    let second = inherited.sockets()[1].local.clone();
    let taken = inherited.claim("b", &address("127.0.0.1:0"), Carries::Streams);
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].local, second);
    let socket = SockRef::from(&taken[0].fd);
    assert!(socket.nonblocking().unwrap());
    let flags = nix::fcntl::fcntl(&taken[0].fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    // Where the address says it all, another name of the forward does not matter.
    let label = Label::of("a", &address("127.0.0.1:80"));
    assert_eq!(label, Label::of("b", &address("127.0.0.1:80")));
}

#[test]
fn a_dual_socket_is_every_address_and_one_of_ipv6_alone_is_not() {
    let mut inherited = Inherited::default();
    let mut open = |only_v6| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).ok()?;
        socket.set_only_v6(only_v6).ok()?;
        let any: std::net::SocketAddr = "[::]:0".parse().unwrap();
        socket.bind(&any.into()).ok()?;
        socket.listen(1).ok()?;
        let port = socket.local_addr().ok()?.as_socket()?.port();
        inherited.add(socket.into(), passed("x"), 3).ok()?;
        let address = Address::Any { port };
        Some(inherited.claim("f", &address, Carries::Streams).len())
    };
    let (Some(dual), Some(alone)) = (open(false), open(true)) else {
        eprintln!("SKIPPED: this host has no IPv6");
        return;
    };
    assert_eq!((dual, alone), (1, 0));
}
