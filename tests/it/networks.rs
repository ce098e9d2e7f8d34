//! What needs a network of its own: behaviours 20, 26, 28, 29 and 30 on the real
//! binary, each in a namespace in which lines are cut and ports are few.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::kit::namespace::{Firewall, ip, sysctl};
use crate::kit::peer::{transfer, unless_reset};
use crate::kit::*;

/// The first port of clients, outside of the ports that a test leaves to the kernel.
const CLIENT_PORTS: u16 = 20_000;

/// Runs a behaviour on every engine, each in a namespace of its own.
fn in_a_namespace(behaviour: impl Fn(Case) + Sync) {
    on_every_engine(|case| {
        if let Some(namespace) = Namespace::new() {
            namespace.run(|| behaviour(case));
        }
    });
}

/// The local ports that the kernel hands out in this namespace from now on.
fn leave_ports(first: u16, last: u16) {
    sysctl("net.ipv4.ip_local_port_range", &format!("{first} {last}"));
}

#[test]
fn b20_unreachable_and_forbidden_servers_are_passed_over() {
    // Where `ip route` says so, connect(2) answers at once: EHOSTUNREACH, EACCES,
    // EINVAL, and ENETUNREACH for what has no route. A rejected SYN is answered by
    // ICMP, and the error comes by way of epoll.
    const DEAD: [&str; 6] = [
        "10.1.0.1:5000",
        "10.1.0.2:5000",
        "10.1.0.3:5000",
        "10.1.0.4:5000",
        "127.0.0.5:5000",
        "127.0.0.6:5000",
    ];
    const AT_ONCE: Duration = Duration::from_millis(50);
    in_a_namespace(|case| {
        ip("route add unreachable 10.1.0.1");
        ip("route add prohibit 10.1.0.2");
        ip("route add blackhole 10.1.0.3");
        let Some(firewall) = Firewall::new() else {
            return;
        };
        for (address, answer) in [
            ("127.0.0.5", "host-unreachable"),
            ("127.0.0.6", "admin-prohibited"),
        ] {
            firewall.add(&format!("ip daddr {address} reject with icmp {answer}"));
        }
        let alive = Listener::new();
        for dead in DEAD {
            let servers = format!("{dead},{}", alive.address());
            let both = Setup::new(servers).case(case).start();
            // The balancer begins with each of the two in turn.
            for _ in 0..2 {
                let (mut client, mut upstream) = (both.connect(), alive.accept());
                transfer(&mut client, &mut upstream, 1000);
            }
            let records = both.wait_for_sessions(2);
            assert!(records.iter().any(|r| r.attempts() == 2), "{dead}");
            both.check_idle();

            let alone = Setup::new(dead).case(case).start();
            let took = best_of(3, AT_ONCE, || {
                let start = Instant::now();
                if let Some(mut client) = unless_reset(Peer::try_connect(alone.address())) {
                    client.receive_until_end();
                }
                start.elapsed()
            });
            assert!(took <= AT_ONCE, "{dead}: closed only after {took:?}");
            for record in alone.wait_for_sessions(1) {
                assert_eq!(record.code(), "SC", "{dead}: {record:?}");
                assert_ne!(record.cause(), "connect_timeout", "{dead}");
            }
            alone.check_idle();
        }
    });
}

/// A forwarder to a server that will vanish: at 127.0.0.2, from which and to which
/// not one packet gets through any more.
struct Vanishing {
    forwarder: Forwarder,
    client: Peer,
    upstream: Peer,
    firewall: Firewall,
}

impl Vanishing {
    fn new(case: Case, options: &[(&str, &str)]) -> Option<Self> {
        let firewall = Firewall::new()?;
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
        let server = Listener::with(address, 16, Some(4096));
        let setup = Setup::new(server.address()).case(case);
        let setup = options.iter().fold(setup, |setup, (k, v)| setup.set(k, v));
        let forwarder = setup.start();
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        transfer(&mut client, &mut upstream, 1000);
        transfer(&mut upstream, &mut client, 1000);
        Some(Self {
            forwarder,
            client,
            upstream,
            firewall,
        })
    }

    fn vanish(&self) {
        self.firewall.drop_packets("ip saddr 127.0.0.2");
        self.firewall.drop_packets("ip daddr 127.0.0.2");
    }

    /// The session ends for this cause, the client is told by a reset, after `least`
    /// and not much later than `most`.
    #[track_caller]
    fn ends(mut self, cause: &str, least: Duration, most: Duration) {
        let watch = Stopwatch::start();
        let end = self.client.receive_until_end();
        let (took, allowing) = (watch.elapsed(), watch.allowing());
        assert!(took >= least, "given up after {took:?}");
        assert!(allowing <= most, "given up only after {took:?}");
        let record = self.forwarder.wait_for_session();
        assert_eq!(record.cause(), cause, "{record:?}");
        assert_eq!(end, End::Reset);
        self.forwarder.check_idle();
    }
}

#[test]
fn b26_vanished_while_idle_is_found_by_keepalive() {
    in_a_namespace(|case| {
        let keepalive = r#"{ idle = "1s", interval = "1s", probes = 1 }"#;
        let options = [
            ("profile.server.keepalive", keepalive),
            ("defaults.upstream_profile", "server"),
        ];
        let Some(vanishing) = Vanishing::new(case, &options) else {
            return;
        };
        vanishing.vanish();
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(8));
        vanishing.ends("peer_timeout", least, most);
    });
}

#[test]
fn b26_vanished_while_busy_is_found_by_user_timeout() {
    in_a_namespace(|case| {
        let options = [
            ("profile.server.user_timeout", "1s"),
            ("defaults.upstream_profile", "server"),
        ];
        let Some(mut vanishing) = Vanishing::new(case, &options) else {
            return;
        };
        vanishing.vanish();
        // On its way when the line is cut, and never acknowledged.
        vanishing.client.send(1000);
        let (least, most) = (Duration::from_millis(800), Duration::from_secs(8));
        vanishing.ends("peer_timeout", least, most);
    });
}

#[test]
fn b26_vanished_with_a_closed_window_is_found_by_the_idle_timeout() {
    in_a_namespace(|case| {
        let options = [("defaults.idle_timeout", "1500ms")];
        let Some(mut vanishing) = Vanishing::new(case, &options) else {
            return;
        };
        vanishing
            .client
            .send_until_stuck(Duration::from_millis(300));
        assert!(vanishing.upstream.is_readable_within(PATIENCE));
        vanishing.vanish();
        let (least, most) = (Duration::from_millis(500), Duration::from_secs(8));
        vanishing.ends("idle_timeout", least, most);
    });
}

/// With one ephemeral port, which is the server's, the kernel has no choice but to
/// connect the forwarder to itself.
#[test]
fn b28_a_connect_of_the_forwarder_to_itself_counts_as_refused() {
    const PORT: u16 = 40_000;
    in_a_namespace(|case| {
        let down = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let forwarder = Setup::new(down).case(case).start();
        leave_ports(PORT, PORT);
        let client = Peer::try_connect_from(CLIENT_PORTS, forwarder.address());
        if let Some(mut client) = unless_reset(client) {
            let _ = client.try_send(1000);
            client.receive_until_end();
            assert_eq!(client.received(), 0, "its own bytes came back");
        }
        let record = forwarder.wait_for_session();
        assert_eq!((record.code(), record.cause()), ("SC", "self_connect"));
        assert_eq!(record.bytes(), (0, 0));
        forwarder.check_idle();
    });
}

#[test]
fn b28_after_a_connect_to_itself_the_next_server_is_tried() {
    const PORT: u16 = 40_001;
    in_a_namespace(|case| {
        let down = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let alive = Listener::new();
        let servers = [down, alive.address()];
        let forwarder = Setup::to_all(&servers).case(case).start();
        leave_ports(PORT, PORT);
        let mut client = Peer::connect_from(CLIENT_PORTS, forwarder.address());
        let mut upstream = alive.accept();
        transfer(&mut client, &mut upstream, 1000);
        transfer(&mut upstream, &mut client, 1000);
        client.reset();
        upstream.receive_until_end();
        assert_eq!(forwarder.wait_for_session().attempts(), 2);
        assert_eq!(forwarder.lines_with("self_connect").len(), 1);
        forwarder.check_idle();
    });
}

#[test]
fn b29_more_clients_than_free_ports() {
    const PORTS: u16 = 50;
    const CLIENTS: u16 = 200;
    in_a_namespace(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        leave_ports(40_000, 40_000 + PORTS - 1);
        let watch = Stopwatch::start();
        let connect = |n| Peer::try_connect_from(CLIENT_PORTS + n, forwarder.address());
        let clients = (0..CLIENTS).map(|n| unless_reset(connect(n)));
        let mut clients: Vec<_> = clients.flatten().collect();
        let refused = usize::from(CLIENTS - PORTS);
        let records = forwarder.wait_for_sessions(refused);
        let took = watch.allowing();
        assert!(
            took < Duration::from_secs(4),
            "it failed only after {took:?}"
        );
        // The kernel's search may miss a port that is being given up just now.
        let lucky = usize::from(CLIENTS) - records.len();
        assert!(
            (usize::from(PORTS) - 2..=usize::from(PORTS)).contains(&lucky),
            "{lucky} clients got one of {PORTS} ports"
        );
        for record in &records {
            assert_eq!((record.code(), record.cause()), ("RC", "ports_exhausted"));
        }
        assert_eq!(forwarder.complaints().len(), 1, "one line, not {refused}");
        assert_eq!(forwarder.counters().of("live"), lucky as u64);
        forwarder.check_quiet();

        // The others work, and once they have gone so do new ones.
        clients.retain(|client| !client.is_readable_within(Duration::from_millis(1)));
        assert_eq!(clients.len(), lucky);
        for client in &mut clients {
            client.send(1000);
        }
        let mut upstreams: Vec<_> = clients.iter().map(|_| server.accept()).collect();
        for upstream in &mut upstreams {
            upstream.expect(1000);
        }
        for client in clients {
            client.reset();
        }
        forwarder.wait_for_sessions(usize::from(CLIENTS));
        let mut client = connect(CLIENTS).unwrap();
        let mut upstream = server.accept();
        transfer(&mut upstream, &mut client, 1000);
        drop((client, upstream, upstreams));
        forwarder.check_idle();
    });
}

/// Each of twenty ports is used towards each of ten servers, all at the same time:
/// more connections than ports.
#[test]
fn b30_source_bound_connects_share_ports_between_destinations() {
    const PORTS: u16 = 20;
    const SERVERS: u8 = 10;
    const CLIENTS: u16 = 150;
    in_a_namespace(|case| {
        let source = Ipv4Addr::new(127, 0, 0, 100);
        let servers = (1..=SERVERS).map(|n| Listener::on(Ipv4Addr::new(127, 0, 1, n).into()));
        let servers: Vec<_> = servers.collect();
        let addresses: Vec<_> = servers.iter().map(Listener::address).collect();
        let forwarder = Setup::to_all(&addresses)
            .case(case)
            .set("profile.bound.source", source)
            .set("defaults.upstream_profile", "bound")
            .start();
        leave_ports(40_000, 40_000 + PORTS - 1);
        let connect = |n| Peer::connect_from(CLIENT_PORTS + n, forwarder.address());
        let clients: Vec<_> = (0..CLIENTS).map(connect).collect();
        let share = usize::from(CLIENTS) / usize::from(SERVERS);
        let mut upstreams = Vec::new();
        for server in &servers {
            for _ in 0..share {
                let mut upstream = server.accept();
                assert_eq!(upstream.remote().ip(), source);
                upstream.send(100);
                upstreams.push(upstream);
            }
        }
        for mut client in clients {
            client.expect(100);
            client.reset();
        }
        for record in forwarder.wait_for_sessions(usize::from(CLIENTS)) {
            assert_eq!(record.attempts(), 1, "{record:?}");
        }
        assert_eq!(forwarder.counters().of("connect_failures"), 0);
        drop(upstreams);
        forwarder.check_idle();
    });
}
