//! Servers that are names, on the real binary: behaviours 58, 59 and 60 against a
//! name server of the test's own.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::kit::directory::Directory;
use crate::kit::namespace::Firewall;
use crate::kit::peer::{transfer, unless_reset};
use crate::kit::*;
use hickory_proto::rr::RecordType;

/// A name server, and files that name no other.
struct Names {
    dns: Dns,
    directory: Directory,
}

impl Names {
    fn new() -> Self {
        let directory = Directory::new();
        let options = "options timeout:1 attempts:1\n";
        std::fs::write(directory.join("resolv.conf"), options).unwrap();
        std::fs::write(directory.join("hosts"), "").unwrap();
        Self {
            dns: Dns::start(),
            directory,
        }
    }

    /// From a free port to a pool with this server, whose name is asked for often.
    fn setup(&self, case: Case, server: &str) -> Setup {
        let path = |file| format!("\"{}\"", self.directory.join(file).display());
        Setup::new("pool")
            .case(case)
            .set("global.dns_servers", format!("\"{}\"", self.dns.address()))
            .set("global.resolv_conf", path("resolv.conf"))
            .set("global.hosts", path("hosts"))
            .set("upstream.pool.servers", format!("[\"{server}\"]"))
            .set("upstream.pool.resolve_ttl_min", "\"100ms\"")
            .set("upstream.pool.resolve_ttl_max", "\"300ms\"")
    }
}

/// A server at an address of its own on the loopback network, with this port or one
/// from the kernel.
fn server(last: u8, port: u16) -> Listener {
    let address = SocketAddr::from(([127, 0, 58, last], port));
    Listener::with(address, 16, None)
}

fn ip(listener: &Listener) -> String {
    listener.address().ip().to_string()
}

/// A new session through the forwarder, there and back.
#[track_caller]
fn session(forwarder: &Forwarder, to: &Listener) -> (Peer, Peer) {
    let mut client = forwarder.connect();
    let mut upstream = to.accept();
    transfer(&mut client, &mut upstream, 1000);
    transfer(&mut upstream, &mut client, 1000);
    (client, upstream)
}

/// Whether a new session comes to `one` rather than to `other`.
#[track_caller]
fn comes_to(forwarder: &Forwarder, one: &Listener, other: &Listener) -> bool {
    let _client = forwarder.connect();
    let short = Duration::from_millis(2);
    let came = poll(PATIENCE, || {
        let to_one = one.accept_within(short).map(|_| true);
        to_one.or_else(|| other.accept_within(short).map(|_| false))
    });
    came.expect("the session comes to neither")
}

#[test]
fn b58_the_last_good_set_and_the_port_stay_in_use() {
    let failures = [
        ("NXDOMAIN", Says::NX_DOMAIN),
        ("SERVFAIL", Says::SERV_FAIL),
        ("in time", Says::Silence),
        ("no A or AAAA", Says::Nothing),
        ("a loop", Says::alias(1, "other.test")),
        ("in time", Says::Truncated(Box::new(Says::Silence))),
    ];
    on_every_engine(|case| {
        for (reason, failure) in failures.clone() {
            let names = Names::new();
            let alive = server(1, 0);
            let good = Says::addresses(1, &[&ip(&alive)]);
            names.dns.set("db.test", good.clone());
            names.dns.set("other.test", Says::alias(1, "db.test"));
            let name = format!("db.test:{}", alive.address().port());
            let forwarder = names.setup(case, &name).start();
            session(&forwarder, &alive);

            names.dns.set("db.test", failure);
            let line = forwarder.wait_for_line("name db.test: ");
            assert!(line.message().contains(reason), "{line:?}");
            for _ in 0..20 {
                session(&forwarder, &alive);
            }
            names.dns.set("db.test", good);
            forwarder.wait_for_line("name db.test resolves again");
            assert_eq!(forwarder.lines_with("name db.test: ").len(), 1);
        }
    });
}

#[test]
fn b58_a_name_that_does_not_resolve_holds_nobody_up() {
    on_every_engine(|case| {
        for failure in [Says::NX_DOMAIN, Says::Silence] {
            let names = Names::new();
            // Far longer than the start waits.
            let options = "options timeout:30 attempts:1\n";
            std::fs::write(names.directory.join("resolv.conf"), options).unwrap();
            names.dns.set("db.test", failure.clone());
            let (other, late) = (Listener::new(), server(1, 0));
            let name = format!("db.test:{}", late.address().port());
            let setup = names.setup(case, &name);
            let forwarder = setup.and("127.0.0.1:0", other.address()).start();

            // Whoever wants the name is told at once that nobody is there.
            let client = unless_reset(Peer::try_connect(forwarder.address()));
            if let Some(mut client) = client {
                client.receive_until_end();
            }
            let record = forwarder.wait_for_session();
            assert_eq!((record.code(), record.attempts()), ("SC", 0), "{record:?}");

            // Meanwhile the other forward does not notice.
            let address = forwarder.addresses()[1].parse().unwrap();
            for _ in 0..50 {
                let mut client = Peer::connect(address);
                let mut upstream = other.accept();
                transfer(&mut client, &mut upstream, 1000);
                transfer(&mut upstream, &mut client, 1000);
            }

            // The silent one is asked again only when its time is up.
            if matches!(failure, Says::Silence) {
                continue;
            }
            names.dns.set("db.test", Says::addresses(1, &[&ip(&late)]));
            forwarder.wait_for_line("name db.test resolves again");
            wait_until("a session", PATIENCE, || {
                let client = unless_reset(Peer::try_connect(forwarder.address()));
                client.is_some() && late.accept_within(Duration::from_millis(100)).is_some()
            });
        }
    });
}

/// A dot at the end says that the name is whole: the search list does not count, be it of
/// a cluster where most of the names that people write have few dots.
#[test]
fn a_final_dot_keeps_the_search_list_out() {
    on_every_engine(|case| {
        let names = Names::new();
        let list = "search corp.test\noptions ndots:5 timeout:1 attempts:1\n";
        std::fs::write(names.directory.join("resolv.conf"), list).unwrap();
        let (right, wrong) = (server(1, 0), server(2, 0));
        let good = Says::addresses(300, &[&ip(&right)]);
        names.dns.set("api.example.test", good.clone());
        let other = Says::addresses(300, &[&ip(&wrong)]);
        names.dns.set("api.example.test.corp.test", other);
        let port = right.address().port();
        let services = Says::services(300, &[(0, 1, port, "api.example.test")]);
        names.dns.set("_api._tcp.example.test", services);
        let name = format!("API.example.test.:{port}");
        for name in [name.as_str(), "srv:_api._tcp.example.test."] {
            let forwarder = names.setup(case, name).start();
            session(&forwarder, &right);
        }
        let asked = names.dns.asked();
        assert!(
            asked.iter().all(|it| it.name.ends_with("example.test")),
            "{asked:?}"
        );
    });
}

/// A slow name server holds nobody up: who has an address begins at once, and who has a name
/// is served when the name is known.
#[test]
fn b58_a_slow_name_server_delays_no_start_and_nobody_is_turned_away() {
    on_every_engine(|case| {
        let names = Names::new();
        let options = "options timeout:30 attempts:1\n";
        std::fs::write(names.directory.join("resolv.conf"), options).unwrap();
        let (alive, other) = (server(1, 0), Listener::new());
        let late = Box::new(Says::addresses(300, &[&ip(&alive)]));
        names
            .dns
            .set("db.test", Says::Late(Duration::from_secs(2), late));
        let name = format!("db.test:{}", alive.address().port());
        let setup = names.setup(case, &name);
        let forwarder = setup.and("127.0.0.1:0", other.address()).start();
        let (mut waiting, mut client) = (
            forwarder.connect(),
            Peer::connect(forwarder.addresses()[1].parse().unwrap()),
        );
        let mut upstream = other.accept();
        transfer(&mut client, &mut upstream, 1000);
        let mut upstream = alive.accept();
        transfer(&mut waiting, &mut upstream, 1000);
        forwarder.wait_for_line("name db.test is");
        let records = forwarder.records();
        let at = |kind| records.iter().position(|it| it.text("kind") == kind);
        assert!(at("starting") < at("name_resolved"), "{records:?}");
    });
}

#[test]
fn names_of_listeners_come_from_where_those_of_servers_do() {
    on_every_engine(|case| {
        let (names, alive) = (Names::new(), server(1, 0));
        names
            .dns
            .set("front.test", Says::addresses(300, &["127.0.58.8"]));
        std::fs::write(names.directory.join("hosts"), "127.0.58.9 box.test\n").unwrap();
        let to = alive.address();
        let forwarder = names
            .setup(case, &to.to_string())
            .and("front.test:0", to)
            .and("box.test:0", to)
            .start();
        let addresses = forwarder.addresses();
        for (at, ip) in [(1, "127.0.58.8:"), (2, "127.0.58.9:")] {
            assert!(addresses[at].starts_with(ip), "{addresses:?}");
            let mut client = Peer::connect(addresses[at].parse().unwrap());
            let mut upstream = alive.accept();
            transfer(&mut client, &mut upstream, 1000);
        }
    });
}

#[test]
fn b58_a_thousand_answers_are_no_thousand_servers() {
    on_every_engine(|case| {
        let names = Names::new();
        let alive = Listener::on(Ipv4Addr::UNSPECIFIED.into());
        let thousand = (0..1000_u32).map(|n| IpAddr::from(Ipv4Addr::from(0x7f3a_0100 + n)));
        names.dns.set("db.test", Says::all(1, thousand));
        let name = format!("db.test:{}", alive.address().port());
        let forwarder = names.setup(case, &name).start();
        forwarder.wait_for_line("it has 1000 addresses; 256 of them are used");
        for _ in 0..20 {
            session(&forwarder, &alive);
        }
    });
}

#[test]
fn b58_silent_names_take_a_bounded_number_of_descriptors() {
    // As `control::resolve::descriptors` says of very many names.
    const BOUND: usize = 3 * 32 + 16;
    let epoll = Case {
        engine: "epoll",
        path: "auto",
    };
    let names = Names::new();
    let many: Vec<String> = (0..150).map(|n| format!("silent{n}.test")).collect();
    for name in &many {
        names.dns.set(name, Says::Silence);
    }
    let servers: Vec<String> = many.iter().map(|name| format!("\"{name}:1\"")).collect();
    let setup = names.setup(epoll, "placeholder.test:1");
    let forwarder = setup
        .set("upstream.pool.servers", format!("[{}]", servers.join(",")))
        .start();
    let mut most = 0;
    wait_until("most of the names were asked for", PATIENCE, || {
        most = most.max(forwarder.process().descriptors().sockets);
        let asked = names.dns.asked();
        let asked: BTreeSet<_> = asked.iter().map(|it| &it.name).collect();
        asked.len() > 120
    });
    // One socket is the listener's.
    assert!(most > 32 && most <= BOUND + 1, "{most} sockets");
}

/// Lists of names to block have a hundred thousand lines and more.
#[test]
fn a_long_hosts_file_costs_little_memory() {
    let epoll = Case {
        engine: "epoll",
        path: "auto",
    };
    let names = Names::new();
    let alive = server(1, 0);
    let line = |n| format!("192.0.2.{} host{n}.of.a.long.list.test\n", n % 256);
    let long = (0..150_000).map(line).collect::<Vec<_>>().concat();
    let long = format!("{long}{} db.test\n", ip(&alive));
    let write = |text: &str| std::fs::write(names.directory.join("hosts"), text).unwrap();
    let name = format!("db.test:{}", alive.address().port());
    write(&format!("{} db.test\n", ip(&alive)));
    let short = names.setup(epoll, &name).start();
    session(&short, &alive);
    // Not what is resident: of the program's own pages there are as many as the machine had room for.
    let memory = |forwarder: &Forwarder| forwarder.process().memory().anonymous;
    let bound = memory(&short) + (8 << 20);
    drop(short);

    write(&long);
    let forwarder = names.setup(epoll, &name).start();
    session(&forwarder, &alive);
    assert!(memory(&forwarder) < bound, "{}", memory(&forwarder));
    write(&format!("# changed\n{long}"));
    forwarder.wait_for_line("has changed");
    session(&forwarder, &alive);
    assert!(memory(&forwarder) < bound, "{}", memory(&forwarder));
}

#[test]
fn b59_new_sessions_follow_a_change_and_old_ones_stay() {
    on_every_engine(|case| {
        let names = Names::new();
        let before = server(1, 0);
        let port = before.address().port();
        let after = server(2, port);
        names
            .dns
            .set("db.test", Says::addresses(1, &[&ip(&before)]));
        let forwarder = names.setup(case, &format!("db.test:{port}")).start();
        let (mut client, mut upstream) = session(&forwarder, &before);

        names.dns.set("db.test", Says::addresses(1, &[&ip(&after)]));
        // Whoever connects before the change is there still reaches the old one.
        wait_until("sessions go to the new address", PATIENCE, || {
            comes_to(&forwarder, &after, &before)
        });
        for _ in 0..10 {
            session(&forwarder, &after);
        }
        assert!(before.accept_within(Duration::ZERO).is_none());
        transfer(&mut client, &mut upstream, 100_000);
        transfer(&mut upstream, &mut client, 100_000);
    });
}

/// Two servers of one name with the same port, and their checks on a port of their own.
struct Checked {
    names: Names,
    servers: [Listener; 2],
    checks: [Option<Listener>; 2],
}

impl Checked {
    /// `checks` makes the place where the second is checked.
    fn new(checks: impl Fn(SocketAddr) -> Listener) -> Self {
        let first = server(1, 0);
        let second = server(2, first.address().port());
        let check = server(1, 0);
        let port = check.address().port();
        Self {
            names: Names::new(),
            servers: [first, second],
            checks: [Some(check), Some(checks(([127, 0, 58, 2], port).into()))],
        }
    }

    fn setup(&self, case: Case, check: &str) -> Setup {
        let port = |listener: &Listener| listener.address().port();
        let name = format!("db.test:{}", port(&self.servers[0]));
        let check_port = self.checks[0].as_ref().map(port).unwrap();
        let check = format!("{{ type = \"tcp\", port = {check_port}, {check} }}");
        self.names
            .setup(case, &name)
            .set("upstream.pool.resolve", "\"all\"")
            .set("upstream.pool.check", check)
    }

    /// The name has these of the two from now on.
    fn list(&self, servers: &[usize]) {
        let all: Vec<String> = servers.iter().map(|it| ip(&self.servers[*it])).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        self.names.dns.set("db.test", Says::addresses(1, &all));
    }
}

/// A server that hangs is not tried anew by clients each time that its name lists it again,
/// as it does where each answer is some of many addresses.
#[test]
fn a_server_that_comes_back_is_what_checks_found_before() {
    on_every_engine(|case| {
        // Nothing is ever answered there: a check takes its whole time.
        let pool = Checked::new(|at| Listener::with(at, 0, None));
        let full = pool.checks[1].as_ref().map(Listener::fill_accept_queue);
        pool.list(&[0, 1]);
        let forwarder = pool
            .setup(case, "interval = \"60s\", timeout = \"2s\"")
            .start();
        forwarder.wait_for_line(&format!(
            "server {} of pool is down",
            pool.servers[1].address()
        ));
        let lines = |servers: u8| {
            let line = format!("upstream pool: {servers} servers");
            forwarder.lines_with(&line).len()
        };
        for round in 1..4 {
            pool.list(&[0]);
            wait_until("it leaves", PATIENCE, || lines(1) >= round);
            pool.list(&[0, 1]);
            wait_until("it comes back", PATIENCE, || lines(2) > round);
            for _ in 0..20 {
                session(&forwarder, &pool.servers[0]);
            }
        }
        assert!(pool.servers[1].accept_within(Duration::ZERO).is_none());
        drop(full);
    });
}

/// Who has left its name is checked for the sessions that it has yet.
#[test]
fn a_server_that_has_left_is_checked_while_it_has_sessions() {
    on_every_engine(|case| {
        let mut pool = Checked::new(|at| Listener::with(at, 16, None));
        pool.list(&[1]);
        let check = "interval = \"100ms\", fall = 1, on_down = \"close\"";
        let forwarder = pool.setup(case, check).start();
        let (mut client, mut upstream) = session(&forwarder, &pool.servers[1]);
        pool.list(&[0]);
        wait_until("it has left", PATIENCE, || {
            comes_to(&forwarder, &pool.servers[0], &pool.servers[1])
        });
        transfer(&mut client, &mut upstream, 1000);
        transfer(&mut upstream, &mut client, 1000);
        // Its check finds nobody any more.
        pool.checks[1] = None;
        client.receive_until_end();
        upstream.receive_until_end();
    });
}

/// An address that joins others gets its share little by little.
#[test]
fn a_new_address_has_a_slow_start() {
    let epoll = Case {
        engine: "epoll",
        path: "auto",
    };
    let pool = Checked::new(|at| Listener::with(at, 16, None));
    pool.list(&[0]);
    let forwarder = pool
        .setup(epoll, "interval = \"60s\"")
        .set("upstream.pool.slow_start", "\"1h\"")
        .start();
    session(&forwarder, &pool.servers[0]);
    pool.list(&[0, 1]);
    forwarder.wait_for_line("upstream pool: 2 servers");
    let mut to_new = 0;
    for _ in 0..60 {
        to_new += u32::from(!comes_to(&forwarder, &pool.servers[0], &pool.servers[1]));
    }
    // Half of them without.
    assert!(to_new < 15, "{to_new} of 60");
}

/// As many pools as a range of ports has: one name, one line for all.
#[test]
fn many_pools_of_one_name_are_one_line() {
    let epoll = Case {
        engine: "epoll",
        path: "auto",
    };
    let (names, alive) = (Names::new(), server(1, 0));
    names.dns.set("db.test", Says::addresses(1, &[&ip(&alive)]));
    let name = format!("db.test:{}", alive.address().port());
    let mut setup = names.setup(epoll, &name);
    for _ in 0..30 {
        setup = setup.and("127.0.0.1:0", &name);
    }
    let forwarder = setup.start();
    session(&forwarder, &alive);
    forwarder.wait_for_line("upstream pool: 1 servers; so have 30 others of the same name");
    assert_eq!(forwarder.lines_with("name db.test is").len(), 1);
    // Those with lives of their own are asked for with the others.
    let asked = names.dns.asked_for("db.test");
    wait_until("it is asked for again", PATIENCE, || {
        names.dns.asked_for("db.test") >= asked + 4
    });
    let after = names.dns.asked_for("db.test");
    assert!(after < asked + 31, "{after} questions after {asked}");
}

#[test]
fn b59_a_service_moves_to_another_port() {
    on_every_engine(|case| {
        let names = Names::new();
        let (one, two) = (server(1, 0), server(1, 0));
        let services = |listener: &Listener| {
            Says::services(1, &[(0, 1, listener.address().port(), "db.test")])
        };
        names.dns.set("db.test", Says::addresses(1, &[&ip(&one)]));
        names.dns.set("_db._tcp.test", services(&one));
        let forwarder = names.setup(case, "srv:_db._tcp.test").start();
        session(&forwarder, &one);
        names.dns.set("_db._tcp.test", services(&two));
        forwarder.wait_for_line(&format!("srv:_db._tcp.test is {}", two.address()));
        wait_until("sessions go to the new port", PATIENCE, || {
            comes_to(&forwarder, &two, &one)
        });
    });
}

#[test]
fn b60_a_dead_family_costs_one_attempt_delay() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    namespace.run(|| {
        let Some(firewall) = Firewall::new() else {
            return;
        };
        namespace::ip("addr add 2001:db8::1/128 dev lo nodad");
        // Dropped, so that neither a refusal nor a missing route tells.
        firewall.drop_packets("ip6 daddr 2001:db8::1 tcp flags syn");
        let epoll = Case {
            engine: "epoll",
            path: "auto",
        };
        let names = Names::new();
        let alive = server(1, 0);
        let both = [ip(&alive), "2001:db8::1".to_owned()];
        let both: Vec<&str> = both.iter().map(String::as_str).collect();
        names.dns.set("db.test", Says::addresses(1, &both));
        let name = format!("db.test:{}", alive.address().port());
        for resolve in ["\"first\"", "\"all\""] {
            let setup = |case| {
                names
                    .setup(case, &name)
                    .set("upstream.pool.resolve", resolve)
                    .set("defaults.connect_timeout", "\"60s\"")
            };
            // Two sessions: with "all" one of them begins with the dead address.
            let forwarder = setup(epoll).start();
            session(&forwarder, &alive);
            session(&forwarder, &alive);
            for record in forwarder.wait_for_sessions(2) {
                let took = Duration::from_micros(record.number("connect_us").unwrap());
                // An attempt delay and not the connect time-out.
                assert!(took < Duration::from_secs(20), "{resolve}: {took:?}");
            }
        }
        assert!(
            names
                .dns
                .asked()
                .iter()
                .any(|it| it.kind == RecordType::AAAA)
        );
    });
}

/// Two attempts are under way when the client leaves: both are given up.
#[test]
fn b13_a_client_that_leaves_takes_its_race_with_it() {
    on_every_engine(|case| {
        let Some(namespace) = Namespace::new() else {
            return;
        };
        namespace.run(|| {
            let Some(firewall) = Firewall::new() else {
                return;
            };
            firewall.drop_packets("ip daddr 127.0.60.0/24 tcp flags syn");
            let names = Names::new();
            let mute = Says::addresses(60, &["127.0.60.1", "127.0.60.2"]);
            names.dns.set("db.test", mute);
            let forwarder = names
                .setup(case, "db.test:5000")
                .set("upstream.pool.resolve", "\"first\"")
                .set("upstream.pool.attempt_delay", "\"50ms\"")
                .set("defaults.connect_timeout", "\"60s\"")
                .start();
            let sockets = || forwarder.process().descriptors().sockets;
            let idle = sockets();
            let client = forwarder.connect();
            wait_until("both are dialled", PATIENCE, || sockets() >= idle + 3);
            client.reset();
            let record = forwarder.wait_for_session();
            assert_eq!((record.code(), record.cause()), ("CC", "reset"));
            wait_until("nothing is left", PATIENCE, || sockets() <= idle);
            forwarder.check_quiet();
        });
    });
}
