use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::net::address::UnixName;
use crate::net::tcp_info::TcpInfo;

fn loopback(port: u16) -> Address {
    Address::Inet((Ipv4Addr::LOCALHOST, port).into())
}

fn bind_default(address: &Address, reactors: usize) -> Result<Bound, BindError> {
    bind(address, &SocketOptions::default(), reactors)
}

fn port_of(bound: &Bound) -> u16 {
    match &bound.locals()[0] {
        Endpoint::Inet(local) => local.port(),
        other => panic!("not a port: {other}"),
    }
}

fn all_shares(bound: &mut Bound, reactors: usize) -> Vec<ListenSocket> {
    (0..reactors).flat_map(|it| bound.take_share(it)).collect()
}

/// Accepts everything that waits on a listener.
fn drain(listener: &ListenSocket) -> Vec<Accepted> {
    let mut accepted = Vec::new();
    loop {
        match accept(listener.fd.as_fd()) {
            Ok(connection) => accepted.push(connection),
            Err(Failure::WouldBlock) => return accepted,
            Err(other) => panic!("accept: {other}"),
        }
    }
}

/// A path in a directory of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("thalweg-listener-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    fn path(&self) -> PathBuf {
        self.0.join("socket")
    }

    fn address(&self) -> Address {
        Address::Unix(UnixName::Path(self.path()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_reactor_of_a_group_gets_its_share() {
    let mut bound = bind_default(&loopback(0), 4).unwrap();
    let port = port_of(&bound);
    let listeners = all_shares(&mut bound, 4);
    assert_eq!(listeners.len(), 4);
    let clients: Vec<_> = (0..200)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    let spread: Vec<usize> = listeners.iter().map(|it| drain(it).len()).collect();
    assert_eq!(spread.iter().sum::<usize>(), clients.len());
    // A fair hash leaves one of four without any of 200 with probability 1e-25.
    assert!(spread.iter().all(|count| *count > 0), "{spread:?}");
    assert!(bound.take_share(0).is_empty(), "a share is taken once");
}

#[test]
fn b69_a_second_instance_does_not_share_the_port() {
    for reactors in [1, 4] {
        let first = bind_default(&loopback(0), reactors).unwrap();
        let port = port_of(&first);
        let error = bind_default(&loopback(port), reactors).unwrap_err();
        assert_eq!(error.cause, BindCause::PortTaken { port });
        let text = error.to_string();
        assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
    }
}

#[test]
fn b69_of_two_instances_that_race_one_loses() {
    // Both have bound, neither listens: the kernel allows that much.
    let options = SocketOptions::default();
    let plan = options.plan(Leg::Client);
    let binder = Binder {
        options: &options,
        plan: &plan,
        reactors: 2,
        transport: Transport::Tcp,
    };
    let (first, _) = binder
        .socket((Family::V4, false), Stack::OwnFamily, 0)
        .unwrap();
    first
        .bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
        .unwrap();
    let local = first.local_addr().unwrap();
    let (second, _) = binder
        .socket((Family::V4, false), Stack::OwnFamily, 0)
        .unwrap();
    second.bind(&local).unwrap();
    first.listen(8).unwrap();
    first.set_reuse_port(true).unwrap();
    let error = second.listen(8).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
}

#[test]
fn a_restart_binds_over_time_wait() {
    let mut bound = bind_default(&loopback(0), 2).unwrap();
    let port = port_of(&bound);
    let listeners = all_shares(&mut bound, 2);
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let accepted: Vec<_> = listeners.iter().flat_map(drain).collect();
    assert_eq!(accepted.len(), 1);
    // The side that closes first keeps the TIME_WAIT.
    drop(accepted);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    drop(client);
    drop((listeners, bound));
    assert_eq!(port_of(&bind_default(&loopback(port), 2).unwrap()), port);
}

#[test]
fn b60_any_is_both_families_and_the_wildcards_are_one_each() {
    let mut any = bind_default(&Address::Any { port: 0 }, 1).unwrap();
    let port = port_of(&any);
    let listener = all_shares(&mut any, 1).remove(0);
    let _v4 = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let peer = drain(&listener).remove(0).peer;
    let Endpoint::Inet(peer) = peer else {
        panic!("{peer}");
    };
    assert!(peer.is_ipv4(), "a mapped address is shown as IPv4: {peer}");
    if listener.family == Family::V4 {
        println!("skipped: the IPv6 half, this host has no IPv6");
        return;
    }
    let _v6 = TcpStream::connect(("::1", port)).unwrap();
    assert_eq!(drain(&listener).len(), 1);

    let only_v6 = bind_default(&Address::Inet((Ipv6Addr::UNSPECIFIED, 0).into()), 1).unwrap();
    let refused = TcpStream::connect(("127.0.0.1", port_of(&only_v6)));
    assert!(refused.is_err(), "[::] must not take IPv4");
    // And so both wildcards fit beside each other on one port.
    let v4 = Address::Inet((Ipv4Addr::UNSPECIFIED, port_of(&only_v6)).into());
    bind_default(&v4, 1).unwrap();
}

#[test]
fn a_name_stands_for_its_addresses_and_one_port() {
    let name = Address::Name {
        host: "localhost".to_owned(),
        port: 0,
    };
    let mut bound = bind_default(&name, 2).unwrap();
    let locals = bound.locals().to_vec();
    assert!(!locals.is_empty());
    for local in &locals {
        let Endpoint::Inet(local) = local else {
            panic!("{local}");
        };
        assert_eq!(local.port(), port_of(&bound));
        drop(TcpStream::connect(local).unwrap());
    }
    assert_eq!(bound.take_share(1).len(), locals.len());
}

#[test]
fn b69_a_name_that_does_not_resolve_is_named() {
    let name = Address::Name {
        host: "no-such-host.invalid".to_owned(),
        port: 80,
    };
    let error = bind_default(&name, 1).unwrap_err();
    assert!(matches!(error.cause, BindCause::NameNotFound(_)), "{error}");
    assert!(error.to_string().contains("no-such-host.invalid:80"));
}

#[test]
fn b69_an_address_of_another_host_is_refused_unless_free_bind() {
    // TEST-NET-2 of RFC 5737.
    let elsewhere = Address::Inet(([198, 51, 100, 1], 0).into());
    let error = bind_default(&elsewhere, 2).unwrap_err();
    assert_eq!(error.cause, BindCause::NoSuchAddress);
    assert!(error.to_string().contains("free_bind"), "{error}");
    let options = SocketOptions {
        free_bind: Some(true),
        ..SocketOptions::default()
    };
    bind(&elsewhere, &options, 2).unwrap();
}

#[test]
fn b69_an_interface_that_does_not_exist_is_named() {
    let options = SocketOptions {
        interface: Some("nosuch0".to_owned()),
        ..SocketOptions::default()
    };
    let error = bind(&loopback(0), &options, 1).unwrap_err();
    let cause = BindCause::Interface {
        name: "nosuch0".to_owned(),
        errno: Errno::ENODEV,
    };
    assert_eq!(error.cause, cause, "{error}");
}

#[test]
fn b69_a_privileged_port_tells_what_is_needed() {
    // As an unprivileged user would see it; whoever runs the tests may be root.
    let error = std::io::Error::from_raw_os_error(libc::EACCES);
    let cause = BindCause::binding(&error, 443);
    assert!(matches!(cause, BindCause::Privileged { port: 443, .. }));
    let text = BindError::new(&loopback(443), cause).to_string();
    for part in [
        "127.0.0.1:443",
        "CAP_NET_BIND_SERVICE",
        "net.ipv4.ip_unprivileged_port_start=443",
    ] {
        assert!(text.contains(part), "{text}");
    }
    if nix::unistd::geteuid().is_root() || limits::first_unprivileged_port() < 2 {
        println!("skipped: the kernel's own refusal, this user may bind any port");
        return;
    }
    let error = bind_default(&loopback(1), 1).unwrap_err();
    assert!(matches!(error.cause, BindCause::Privileged { port: 1, .. }));
}

#[test]
fn mptcp_listeners_form_a_group_too() {
    let options = SocketOptions {
        mptcp: Some(true),
        ..SocketOptions::default()
    };
    let mut bound = bind(&loopback(0), &options, 2).unwrap();
    if let Some(refusal) = bound.refusal() {
        println!("skipped: MPTCP is refused here: {}", refusal.errno);
    }
    let port = port_of(&bound);
    let listeners = all_shares(&mut bound, 2);
    let clients: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    let spread: Vec<usize> = listeners.iter().map(|it| drain(it).len()).collect();
    assert_eq!(spread.iter().sum::<usize>(), clients.len());
    assert!(spread.iter().all(|count| *count > 0), "{spread:?}");
    assert!(bind(&loopback(port), &options, 2).is_err());
}

#[test]
fn accepted_sockets_are_non_blocking_and_close_on_exec() {
    let mut bound = bind_default(&loopback(0), 1).unwrap();
    let listener = bound.take_share(0).remove(0);
    let client = TcpStream::connect(("127.0.0.1", port_of(&bound))).unwrap();
    let accepted = drain(&listener).remove(0);
    assert_eq!(accepted.peer, Endpoint::Inet(client.local_addr().unwrap()));
    for fd in [&listener.fd, &accepted.fd] {
        let status = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert_ne!(status & libc::O_NONBLOCK, 0);
        let flags = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_ne!(flags & libc::FD_CLOEXEC, 0);
    }
}

#[test]
fn b44_a_full_accept_queue_shows_in_backlog_and_drops() {
    let options = SocketOptions {
        backlog: Some(2),
        ..SocketOptions::default()
    };
    let mut bound = bind(&loopback(0), &options, 1).unwrap();
    let listener = bound.take_share(0).remove(0);
    let target = bound.locals()[0].clone();
    assert_eq!(drops(listener.fd.as_fd()).unwrap(), 0);
    // Those that wait to be accepted, and how many may.
    let queue = || {
        let info = TcpInfo::read(listener.fd.as_fd()).unwrap();
        (info.unacked, info.sacked)
    };
    assert_eq!(queue(), (0, 2));

    let plan = SocketOptions::default().plan(Leg::Upstream);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let client = crate::net::dial::open_for_connect(
                &target,
                &plan,
                crate::net::dial::Early::Nothing,
            )
            .unwrap();
            crate::net::dial::connect(client.fd.as_fd(), &target).unwrap();
            // The third ACK is delayed until there is something to send.
            crate::net::options::plan::send_delayed_ack(client.fd.as_fd()).unwrap();
            client
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    while drops(listener.fd.as_fd()).unwrap() == 0 {
        assert!(Instant::now() < deadline, "no drop was counted");
        std::thread::yield_now();
    }
    // Linux admits one more than the backlog.
    assert_eq!(queue().0, 3);
    drop(clients);
}

#[test]
fn b61_a_unix_path_carries_data_and_is_removed_at_the_end() {
    let scratch = Scratch::new();
    let mut bound = bind_default(&scratch.address(), 2).unwrap();
    let mut shares = all_shares(&mut bound, 2);
    assert_eq!(shares.len(), 2);
    let mut client = UnixStream::connect(scratch.path()).unwrap();
    client.write_all(b"x").unwrap();
    // Either duplicate can accept it.
    let accepted = drain(&shares.remove(1)).remove(0);
    assert_eq!(accepted.peer, Endpoint::Unnamed);
    assert!(drain(&shares[0]).is_empty());
    let mut server = UnixStream::from(accepted.fd);
    server.set_nonblocking(false).unwrap();
    server.read_exact(&mut [0; 1]).unwrap();
    assert!(TcpInfo::read(shares[0].fd.as_fd()).is_err());
    drop(bound);
    assert!(!scratch.path().exists());
}

#[test]
fn b61_a_stale_path_is_replaced() {
    let scratch = Scratch::new();
    drop(UnixListener::bind(scratch.path()).unwrap());
    assert!(scratch.path().exists());
    let bound = bind_default(&scratch.address(), 1).unwrap();
    UnixStream::connect(scratch.path()).unwrap();
    drop(bound);
}

#[test]
fn b61_a_live_path_is_in_use_even_with_a_full_backlog() {
    let scratch = Scratch::new();
    let options = SocketOptions {
        backlog: Some(0),
        ..SocketOptions::default()
    };
    let _bound = bind(&scratch.address(), &options, 1).unwrap();
    for round in 0..2 {
        let error = bind_default(&scratch.address(), 1).unwrap_err();
        assert_eq!(error.cause, BindCause::UnixInUse, "round {round}");
        assert!(error.to_string().contains("unix:/"), "{error}");
    }
    assert!(
        scratch.path().exists(),
        "the refused one must not remove it"
    );
}

/// Between `bind` and `listen` a connect is refused as it is behind the last close.
#[test]
fn b61_a_path_that_is_bound_and_not_listened_on_yet_is_in_use() {
    use socket2::{Domain, SockAddr, Socket, Type};
    for kind in [Type::STREAM, Type::DGRAM, Type::SEQPACKET] {
        let scratch = Scratch::new();
        let other = Socket::new(Domain::UNIX, kind, None).unwrap();
        other
            .bind(&SockAddr::unix(scratch.path()).unwrap())
            .unwrap();
        let error = bind_default(&scratch.address(), 1).unwrap_err();
        assert_eq!(error.cause, BindCause::UnixInUse, "{kind:?}");
        assert!(scratch.path().exists());
        drop(other);
        bind_default(&scratch.address(), 1).unwrap();
    }
}

#[test]
fn b61_a_path_that_is_no_socket_is_left_alone() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path(), "precious").unwrap();
    let error = bind_default(&scratch.address(), 1).unwrap_err();
    assert_eq!(error.cause, BindCause::NotASocket);
    assert_eq!(std::fs::read(scratch.path()).unwrap(), b"precious");
}

#[test]
fn b61_a_path_of_107_bytes_is_bound_and_one_of_108_is_too_long() {
    let scratch = Scratch::new();
    let room = 107 - scratch.0.as_os_str().len() - 1;
    let longest = scratch.0.join("x".repeat(room));
    let bound = bind_default(&Address::Unix(UnixName::Path(longest.clone())), 1).unwrap();
    UnixStream::connect(&longest).unwrap();
    drop(bound);
    let longer = scratch.0.join("x".repeat(room + 1));
    let error = bind_default(&Address::Unix(UnixName::Path(longer)), 1).unwrap_err();
    assert_eq!(error.cause, BindCause::UnixTooLong { len: 108 });
    assert!(error.to_string().contains("107"), "{error}");
}

#[test]
fn b61_abstract_names_work_and_are_not_shared() {
    let name = format!("thalweg-test-{}", std::process::id()).into_bytes();
    let address = Address::Unix(UnixName::Abstract(name.clone()));
    let mut bound = bind_default(&address, 2).unwrap();
    let listener = bound.take_share(1).remove(0);
    let _client = UnixStream::connect_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
    assert_eq!(drain(&listener).len(), 1);
    let error = bind_default(&address, 1).unwrap_err();
    assert_eq!(error.cause, BindCause::UnixInUse);
    let too_long = Address::Unix(UnixName::Abstract(vec![b'x'; 108]));
    let error = bind_default(&too_long, 1).unwrap_err();
    assert_eq!(error.cause, BindCause::UnixTooLong { len: 108 });
}

#[test]
fn b61_a_path_that_another_took_over_is_not_removed() {
    let scratch = Scratch::new();
    let bound = bind_default(&scratch.address(), 1).unwrap();
    // Kept under another name, so that its inode number is not given out again.
    std::fs::rename(scratch.path(), scratch.0.join("old")).unwrap();
    let other = UnixListener::bind(scratch.path()).unwrap();
    drop(bound);
    assert!(scratch.path().exists());
    drop(other);
}

#[test]
fn b61_of_instances_that_start_together_one_gets_the_path() {
    let scratch = Scratch::new();
    drop(UnixListener::bind(scratch.path()).unwrap());
    let address = scratch.address();
    let bound: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| bind_default(&address, 1)))
            .collect();
        starts
            .into_iter()
            .filter_map(|it| it.join().unwrap().ok())
            .collect()
    });
    assert_eq!(bound.len(), 1);
    UnixStream::connect(scratch.path()).unwrap();
}

#[test]
fn b69_a_foreign_listener_is_respected() {
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = foreign.local_addr().unwrap().port();
    let error = bind_default(&loopback(port), 2).unwrap_err();
    assert_eq!(error.cause, BindCause::PortTaken { port });
    // Also by a wildcard that would cover it.
    let error = bind_default(&Address::Any { port }, 2).unwrap_err();
    assert_eq!(error.cause, BindCause::PortTaken { port });
}
