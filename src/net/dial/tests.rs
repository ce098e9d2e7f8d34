use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use crate::net::errno::{Obstacle, Resource};
use crate::net::options::{Leg, RawOption, SocketOptions};

/// `IP_LOCAL_PORT_RANGE` of linux/in.h (Linux 6.3), which libc lacks.
const IP_LOCAL_PORT_RANGE: i32 = 51;

fn defaults() -> OptionPlan {
    SocketOptions::default().plan(Leg::Upstream)
}

fn inet(address: &str) -> Endpoint {
    Endpoint::Inet(address.parse().unwrap())
}

fn listener() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::Inet(listener.local_addr().unwrap());
    (listener, endpoint)
}

/// Waits for the outcome of a connect.
fn outcome(fd: BorrowedFd<'_>) -> Option<Failure> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut ready = [PollFd::new(fd, PollFlags::POLLOUT)];
        if poll(&mut ready, PollTimeout::from(1000_u16)).unwrap() > 0 {
            return pending_error(fd, Operation::Connect);
        }
        assert!(Instant::now() < deadline, "the connect does not end");
    }
}

fn dial(endpoint: &Endpoint, plan: &OptionPlan) -> Result<OwnedFd, Failure> {
    let opened = open_for_connect(endpoint, plan, Early::Nothing)?;
    if connect(opened.fd.as_fd(), endpoint)? == Connecting::InProgress {
        outcome(opened.fd.as_fd()).map_or(Ok(()), Err)?;
    }
    Ok(opened.fd)
}

fn local_port(fd: &OwnedFd) -> u16 {
    let local = SockRef::from(fd).local_addr().unwrap();
    local.as_socket().unwrap().port()
}

#[test]
fn connects_without_blocking() {
    let (_listener, target) = listener();
    let opened = open_for_connect(&target, &defaults(), Early::Nothing).unwrap();
    assert_eq!(opened.refusal, None);
    let connecting = connect(opened.fd.as_fd(), &target).unwrap();
    assert_eq!(connecting, Connecting::InProgress);
    assert_eq!(outcome(opened.fd.as_fd()), None);
    let flags = nix::fcntl::fcntl(&opened.fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_ne!(flags & libc::FD_CLOEXEC, 0);
}

#[test]
fn b18_nobody_there_is_refused_for_ports_and_for_paths() {
    let (gone, target) = listener();
    drop(gone);
    assert_eq!(dial(&target, &defaults()).unwrap_err(), Failure::Refused);
    let path = Endpoint::Unix(UnixName::Path("/nonexistent/thalweg".into()));
    assert_eq!(dial(&path, &defaults()).unwrap_err(), Failure::Refused);
    let name = Endpoint::Unix(UnixName::Abstract(b"thalweg-nobody".to_vec()));
    assert_eq!(dial(&name, &defaults()).unwrap_err(), Failure::Refused);
}

#[test]
fn b61_a_full_unix_backlog_is_exhausted_and_not_would_block() {
    let name = format!("thalweg-dial-{}", std::process::id()).into_bytes();
    let target = Endpoint::Unix(UnixName::Abstract(name));
    let address = sockaddr(&target).unwrap();
    let (listener, _) = make_socket(Family::Unix, false).unwrap();
    listener.bind(&address).unwrap();
    listener.listen(0).unwrap();
    let first = open_for_connect(&target, &defaults(), Early::Nothing).unwrap();
    assert_eq!(connect(first.fd.as_fd(), &target), Ok(Connecting::Done));
    let second = open_for_connect(&target, &defaults(), Early::Nothing).unwrap();
    assert_eq!(
        connect(second.fd.as_fd(), &target),
        Err(Failure::Exhausted(Resource::Backlog))
    );
}

#[test]
fn b61_unix_paths_too_long_or_malformed_are_errors() {
    let path = |text: String| Endpoint::Unix(UnixName::Path(text.into()));
    assert_eq!(
        sockaddr(&path("/x".repeat(54))).unwrap_err(),
        Errno::ENAMETOOLONG
    );
    assert_eq!(sockaddr(&path(String::new())).unwrap_err(), Errno::EINVAL);
    assert_eq!(
        sockaddr(&path("/a\0b".to_owned())).unwrap_err(),
        Errno::EINVAL
    );
    let long = Endpoint::Unix(UnixName::Abstract(vec![b'x'; 108]));
    assert_eq!(sockaddr(&long).unwrap_err(), Errno::ENAMETOOLONG);
    assert_eq!(sockaddr(&Endpoint::Unnamed).unwrap_err(), Errno::EINVAL);
}

#[test]
fn endpoints_survive_the_way_through_the_kernels_form() {
    for known in [
        inet("127.0.0.1:80"),
        inet("[2001:db8::1]:443"),
        Endpoint::Unix(UnixName::Path("/run/a socket".into())),
        Endpoint::Unix(UnixName::Abstract(vec![b'x'; 107])),
        Endpoint::Unix(UnixName::Abstract(b"a\0b".to_vec())),
    ] {
        assert_eq!(endpoint(&sockaddr(&known).unwrap()), known);
    }
    let mapped = sockaddr(&inet("[::ffff:192.0.2.7]:80")).unwrap();
    assert_eq!(endpoint(&mapped), inet("192.0.2.7:80"));
    let scratch =
        UnixListener::bind_addr(&std::os::unix::net::SocketAddr::from_pathname("").unwrap());
    // The kernel chose an abstract name of five hexadecimal digits.
    let autobound = SockRef::from(&scratch.unwrap()).local_addr().unwrap();
    assert!(
        matches!(endpoint(&autobound), Endpoint::Unix(UnixName::Abstract(name)) if name.len() == 5)
    );
}

#[test]
fn b28_self_connect_is_recognised() {
    let plan = defaults();
    // A free port of the ephemeral range, which nobody listens on.
    let (socket, _) = make_socket(Family::V4, false).unwrap();
    let any_port = SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    socket.bind(&any_port).unwrap();
    let target = endpoint(&socket.local_addr().unwrap());
    let port = may_self_connect(&target, &crate::net::limits::ephemeral_ports()).unwrap();
    connect(socket.as_fd(), &target).unwrap();
    assert_eq!(outcome(socket.as_fd()), None, "the kernel allows it");
    assert!(is_self_connect(socket.as_fd(), port));

    let (_listener, honest) = listener();
    let fd = dial(&honest, &plan).unwrap();
    let Endpoint::Inet(address) = &honest else {
        panic!("a listener of the internet")
    };
    assert!(!is_self_connect(fd.as_fd(), address.port()));
    // A port outside the range is not even looked at.
    assert_eq!(may_self_connect(&target, &(1..=2)), None);
}

#[test]
fn b28_self_connect_is_recognised_on_ipv6() {
    let Ok((socket, _)) = make_socket(Family::V6, false) else {
        println!("skipped: this host has no IPv6");
        return;
    };
    if socket.bind(&sockaddr(&inet("[::1]:0")).unwrap()).is_err() {
        println!("skipped: this host has no ::1");
        return;
    }
    let target = endpoint(&socket.local_addr().unwrap());
    connect(socket.as_fd(), &target).unwrap();
    assert_eq!(outcome(socket.as_fd()), None);
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    assert!(is_self_connect(socket.as_fd(), port));
}

/// Options that leave a connect from `source` a few ports only, or `None` on a
/// kernel that cannot (before 6.3).
fn few_ports(source: Ipv4Addr) -> Option<(SocketOptions, u32)> {
    // Somewhere in the range, apart from what other test processes take.
    let ports = crate::net::limits::ephemeral_ports();
    let count = 16;
    let room = u32::from(ports.end() - ports.start()) - count;
    let first = u32::from(*ports.start()) + std::process::id().wrapping_mul(97) % room;
    let range = RawOption {
        level: libc::IPPROTO_IP,
        name: IP_LOCAL_PORT_RANGE,
        value: ((first + count - 1) << 16 | first) as i32,
    };
    let options = SocketOptions {
        source: Some(source.into()),
        raw: vec![range],
        ..SocketOptions::default()
    };
    let probe = open_for_connect(
        &inet("127.0.0.1:1"),
        &options.plan(Leg::Upstream),
        Early::Nothing,
    )
    .unwrap();
    if let Some(refusal) = probe.refusal {
        println!("skipped: no IP_LOCAL_PORT_RANGE: {}", refusal.errno);
        return None;
    }
    Some((options, count))
}

#[test]
fn b29_no_free_port_fails_at_once_and_says_so() {
    let Some((options, count)) = few_ports(Ipv4Addr::new(127, 0, 29, 1)) else {
        return;
    };
    let plan = options.plan(Leg::Upstream);
    let (_listener, target) = listener();
    let mut held = Vec::new();
    let failure = loop {
        match dial(&target, &plan) {
            Ok(fd) => held.push(fd),
            Err(failure) => break failure,
        }
        assert!(held.len() <= count as usize, "more connections than ports");
    };
    assert_eq!(failure, Failure::Exhausted(Resource::Ports));
    assert!(!failure.blames_server());
    assert!(!held.is_empty());
}

#[test]
fn b30_source_bound_connects_share_ports_between_destinations() {
    let source = Ipv4Addr::new(127, 0, 30, 1);
    let Some((options, count)) = few_ports(source) else {
        return;
    };
    let plan = options.plan(Leg::Upstream);
    let destinations: Vec<_> = (0..10).map(|_| listener()).collect();
    let mut held = Vec::new();
    for (_, target) in &destinations {
        // Half of the ports, since others may hold some of them.
        for _ in 0..count / 2 {
            held.push(dial(target, &plan).unwrap());
        }
    }
    let local = SockRef::from(&held[0]).local_addr().unwrap();
    assert_eq!(local.as_socket().unwrap().ip(), IpAddr::from(source));
    let ports: HashSet<u16> = held.iter().map(local_port).collect();
    assert!(ports.len() <= count as usize && held.len() > count as usize);
}

#[test]
fn a_source_of_the_other_family_or_of_another_host_is_refused() {
    let with = |source: &str, free_bind| {
        let options = SocketOptions {
            source: Some(source.parse().unwrap()),
            free_bind: Some(free_bind),
            ..SocketOptions::default()
        };
        open_for_connect(
            &inet("127.0.0.1:1"),
            &options.plan(Leg::Upstream),
            Early::Nothing,
        )
        .map(drop)
    };
    assert_eq!(
        with("::1", false),
        Err(Failure::Unreachable(Obstacle::Family))
    );
    assert_eq!(
        with("198.51.100.1", false),
        Err(Failure::Unreachable(Obstacle::Source))
    );
    assert_eq!(with("198.51.100.1", true), Ok(()));
}

#[test]
fn an_interface_that_is_gone_stops_the_connect() {
    let options = SocketOptions {
        interface: Some("nosuch0".to_owned()),
        ..SocketOptions::default()
    };
    let failure = open_for_connect(
        &inet("127.0.0.1:1"),
        &options.plan(Leg::Upstream),
        Early::Nothing,
    );
    assert_eq!(
        failure.unwrap_err(),
        Failure::Unreachable(Obstacle::Interface)
    );
}

#[test]
fn other_refused_options_do_not_stop_it_and_are_counted() {
    let refused = RawOption {
        level: libc::IPPROTO_TCP,
        name: 9999,
        value: 1,
    };
    let options = SocketOptions {
        raw: vec![refused, refused],
        ..SocketOptions::default()
    };
    let (_listener, target) = listener();
    let opened = open_for_connect(&target, &options.plan(Leg::Upstream), Early::Nothing).unwrap();
    let refusal = opened.refusal.unwrap();
    assert_eq!(refusal.option, OptionName::Raw(refused));
    assert_eq!((refusal.errno, refusal.count), (Errno::ENOPROTOOPT, 2));
    connect(opened.fd.as_fd(), &target).unwrap();
    assert_eq!(outcome(opened.fd.as_fd()), None);
}

#[test]
fn mptcp_falls_back_to_tcp_towards_a_plain_listener() {
    let options = SocketOptions {
        mptcp: Some(true),
        ..SocketOptions::default()
    };
    let (_listener, target) = listener();
    let plan = options.plan(Leg::Upstream);
    if let Some(refusal) = open_for_connect(&target, &plan, Early::Nothing)
        .unwrap()
        .refusal
    {
        assert_eq!(refusal.option, OptionName::Mptcp);
        println!("skipped: MPTCP is refused here: {}", refusal.errno);
    }
    dial(&target, &plan).unwrap();
}
