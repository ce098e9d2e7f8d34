//! Socket options, end to end: what the configuration says is what the sockets of
//! each leg have, as `ss` and the peers see them; what the kernel does not grant is
//! said at start.

use std::net::SocketAddr;
use std::time::Duration;

use crate::kit::namespace::{run, sysctl};
use crate::kit::peer::transfer;
use crate::kit::shortage::Nobody;
use crate::kit::*;
use nix::sys::signal::Signal;

/// The socket at `local` that is connected to `remote`, as `ss` shows it.
fn socket(local: SocketAddr, remote: SocketAddr) -> Option<String> {
    let filter = format!("sport = :{} and dport = :{}", local.port(), remote.port());
    match run("ss", &["-tnmoieHO", "--tos", &filter]) {
        Ok(shown) => Some(shown),
        Err(why) => {
            skip(&test_name(), &why);
            None
        }
    }
}

/// The number after `key` in what `ss` shows.
#[track_caller]
fn number(shown: &str, key: &str) -> u64 {
    let word = shown.split(' ').find_map(|word| word.strip_prefix(key));
    let number = word.and_then(|number| number.trim().parse().ok());
    number.unwrap_or_else(|| panic!("no {key}: {shown}"))
}

/// Every option of a profile that can be seen from outside, so that the two legs
/// have different values.
struct Expected {
    profile: &'static str,
    options: [(&'static str, &'static str); 10],
    words: [&'static str; 8],
    mss: u64,
    window: u64,
}

const NEAR: Expected = Expected {
    profile: "near",
    options: [
        ("mss", "1200"),
        (
            "keepalive",
            "{ idle = \"77s\", interval = \"9s\", probes = 3 }",
        ),
        ("send_buffer", "\"64KiB\""),
        ("receive_buffer", "\"96KiB\""),
        ("max_pacing_rate", "\"100Mbit\""),
        ("dscp", "46"),
        ("mark", "7"),
        ("priority", "3"),
        ("congestion", "\"reno\""),
        ("window_clamp", "\"32KiB\""),
    ],
    words: [
        "timer:(keepalive,1min1",
        "tb131072",
        "rb196608",
        "/100000000bps",
        "tos:0xb8",
        "fwmark:0x7",
        "class_id:0x3",
        " reno ",
    ],
    mss: 1200,
    window: 32 * KIB,
};

const FAR: Expected = Expected {
    profile: "far",
    options: [
        ("mss", "1300"),
        ("keepalive", "\"190s\""),
        ("send_buffer", "\"80KiB\""),
        ("receive_buffer", "\"72KiB\""),
        ("max_pacing_rate", "\"200Mbit\""),
        ("tos", "0x20"),
        ("mark", "9"),
        ("raw", "[{ level = 1, name = 12, value = 5 }]"),
        ("congestion", "\"reno\""),
        ("window_clamp", "\"24KiB\""),
    ],
    words: [
        "timer:(keepalive,3min",
        "tb163840",
        "rb147456",
        "/200000000bps",
        "tos:0x20",
        "fwmark:0x9",
        "class_id:0x5",
        " reno ",
    ],
    mss: 1300,
    window: 24 * KIB,
};

impl Expected {
    fn set(&self, setup: Setup) -> Setup {
        let set = |setup: Setup, (option, value): &(&str, &str)| {
            setup.set(&format!("profile.{}.{option}", self.profile), value)
        };
        self.options.iter().fold(setup, set)
    }

    /// Checks the forwarder's socket, and what its peer knows of it.
    #[track_caller]
    fn check(&self, ours: &str, peers: &str) {
        for word in self.words {
            assert!(ours.contains(word), "{}: no {word}: {ours}", self.profile);
        }
        // The configured size includes the option for timestamps.
        for shown in [number(ours, "advmss:"), number(peers, "mss:")] {
            let expected = self.mss - 12..=self.mss;
            assert!(expected.contains(&shown), "{}: mss {shown}", self.profile);
        }
        let window = number(peers, "snd_wnd:");
        assert!(
            window > 0 && window <= self.window,
            "{}: window {window}",
            self.profile
        );
    }
}

#[test]
fn options_of_each_leg_are_in_force() {
    // Marks and raw priorities are for root.
    if !nix::unistd::geteuid().is_root() {
        skip(&test_name(), "needs root");
        return;
    }
    on_every_engine(|case| {
        let server = Listener::new();
        let setup = FAR.set(NEAR.set(Setup::new(server.address()).case(case)));
        let forwarder = setup
            .set("profile.near.backlog", 77)
            .set("defaults.client_profile", "near")
            .set("defaults.upstream_profile", "far")
            .start();
        let mut crowd = Crowd::through(&forwarder, &server, 1);
        let (client, upstream) = (&crowd.clients[0], &crowd.servers[0]);
        for (peer, expected) in [(client, NEAR), (upstream, FAR)] {
            let Some(ours) = socket(peer.remote(), peer.local()) else {
                return;
            };
            let peers = socket(peer.local(), peer.remote()).unwrap();
            expected.check(&ours, &peers);
        }
        let listener = format!("sport = :{}", forwarder.address().port());
        let listener = run("ss", &["-tlnHO", &listener]).unwrap();
        let backlog = listener.split_whitespace().nth(2);
        assert_eq!(backlog, Some("77"), "{listener}");
        // And with all of that it still forwards.
        let (client, upstream) = (&mut crowd.clients[0], &mut crowd.servers[0]);
        peer::transfer(client, upstream, 200_000);
        peer::transfer(upstream, client, 200_000);
        crowd.finish();
        assert_eq!(forwarder.wait_for_session().code(), "--");
        assert_eq!(forwarder.counters().of("options_refused"), 0);
        forwarder.check_idle();
    });
}

#[test]
fn the_source_address_and_the_interface_of_a_connect() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("profile.far.source", "\"127.9.8.7\"")
            .set("profile.far.interface", "\"lo\"")
            .set("defaults.upstream_profile", "far")
            .start();
        let crowd = Crowd::through(&forwarder, &server, 1);
        let upstream = &crowd.servers[0];
        assert_eq!(upstream.remote().ip().to_string(), "127.9.8.7");
        if let Some(ours) = socket(upstream.remote(), upstream.local()) {
            assert!(ours.contains("127.9.8.7%lo:"), "{ours}");
        }
        crowd.finish();
        forwarder.wait_for_session();
        forwarder.check_idle();
    });
}

/// With `defer_accept` a client that says nothing is not there yet.
#[test]
fn defer_accept_waits_for_the_first_byte() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("profile.near.defer_accept", "\"30s\"")
            .set("defaults.client_profile", "near")
            .start();
        let client = forwarder.connect();
        assert!(server.accept_within(Duration::from_millis(300)).is_none());
        crowd::send(client.stream(), 1);
        assert_eq!(crowd::receive(server.accept().stream()), 1);
        drop(client);
        forwarder.wait_for_session();
        forwarder.check_idle();
    });
}

/// Data in the SYN, once a cookie was given: from one forwarder to another.
#[test]
fn fast_open_on_both_legs() {
    on_every_engine(|case| {
        // A cookie is remembered for as long as the namespace lives.
        let Some(namespace) = Namespace::new() else {
            return;
        };
        namespace.run(|| fast_open(case));
    });
}

fn fast_open(case: Case) {
    // Connects (1) and listeners (2) may.
    sysctl("net.ipv4.tcp_fastopen", "3");
    let server = Listener::new();
    let back = Setup::new(server.address())
        .case(case)
        .set("profile.near.fastopen_queue", 5)
        .set("defaults.client_profile", "near")
        .start();
    let front = Setup::new(back.address())
        .case(case)
        .set("profile.far.fastopen_connect", "true")
        .set("defaults.upstream_profile", "far")
        .start();
    for _ in 0..3 {
        // The client's first byte is there when the server is dialled.
        front.process().stop();
        let client = front.connect();
        crowd::send(client.stream(), 7);
        front.process().signal(Signal::SIGCONT);
        let upstream = server.accept();
        assert_eq!(crowd::receive(upstream.stream()), 7);
    }
    // The first of them got the cookie.
    assert_eq!(fast_opens(), 2);
    for forwarder in [front, back] {
        forwarder.wait_for_sessions(3);
        forwarder.check_idle();
    }
}

/// From one forwarder to another: each side falls back to TCP by itself.
#[test]
fn multipath_on_both_legs() {
    on_every_engine(|case| {
        let server = Listener::new();
        let back = Setup::new(server.address())
            .case(case)
            .set("profile.near.mptcp", "true")
            .set("defaults.client_profile", "near")
            .start();
        if let Some(complaint) = back.complaints().pop() {
            return skip(&test_name(), complaint.message());
        }
        let front = Setup::new(back.address())
            .case(case)
            .set("profile.far.mptcp", "true")
            .set("defaults.upstream_profile", "far")
            .start();
        let mut crowd = Crowd::through(&front, &server, 1);
        let to = format!("dport = :{}", back.address().port());
        let shown = run("ss", &["-tniHO", &to]).unwrap();
        assert!(shown.contains("mptcp"), "{shown}");
        let (client, upstream) = (&mut crowd.clients[0], &mut crowd.servers[0]);
        peer::transfer(client, upstream, 3 * MIB);
        peer::transfer(upstream, client, 3 * MIB);
        crowd.finish();
        for forwarder in [front, back] {
            assert_eq!(forwarder.wait_for_session().code(), "--");
            forwarder.check_idle();
        }
    });
}

/// Connections of this namespace that were accepted with data in their SYN.
fn fast_opens() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let found = pairs.find(|(name, _)| *name == "TCPFastOpenPassive");
    found.unwrap().1.parse().unwrap()
}

/// What was said at start about one leg's options.
fn complaints(forwarder: &Forwarder, leg: &str) -> Vec<String> {
    let lines = forwarder.complaints().into_iter();
    let lines = lines.map(|line| line.message().to_owned());
    lines
        .filter(|line| line.contains(&format!("{leg} leg:")))
        .collect()
}

fn with_profile(options: &[(&str, &str)]) -> Setup {
    let setup = Setup::new("127.0.0.1:1").set("defaults.upstream_profile", "p");
    options.iter().fold(setup, |setup, (option, value)| {
        setup.set(&format!("profile.p.{option}"), value)
    })
}

#[track_caller]
fn check_complaint(options: &[(&str, &str)], words: &[&str]) {
    let forwarder = with_profile(options).start();
    let said = complaints(&forwarder, "upstream");
    assert_eq!(said.len(), 1, "{said:?}");
    for word in words {
        assert!(said[0].contains(word), "no {word:?} in {said:?}");
    }
    assert_eq!(complaints(&forwarder, "client").len(), 0);
}

#[test]
fn a_fixed_buffer_is_told_its_ceiling() {
    // 256 KiB in 80 ms are 26 Mbit/s.
    let words = [
        "receive_buffer of 256 KiB",
        "autotuning off",
        "80 ms",
        "26 Mbit/s",
        "net.ipv4.tcp_rmem",
    ];
    check_complaint(&[("receive_buffer", "\"256KiB\"")], &words);
    let words = ["send_buffer of 64 KiB", "6.6 Mbit/s", "net.ipv4.tcp_wmem"];
    check_complaint(&[("send_buffer", "\"64KiB\"")], &words);
}

#[test]
fn a_congestion_control_that_this_kernel_does_not_have() {
    let words = [
        "congestion: asked for nosuch",
        "granted ",
        "modprobe tcp_nosuch",
    ];
    check_complaint(&[("congestion", "\"nosuch\"")], &words);
}

#[test]
fn a_buffer_beyond_the_limit_is_told_the_sysctl() {
    for (option, limit) in [
        ("send_buffer", "net.core.wmem_max"),
        ("receive_buffer", "net.core.rmem_max"),
    ] {
        let path = format!("/proc/sys/{}", limit.replace('.', "/"));
        let granted: u64 = std::fs::read_to_string(path)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let asked = granted + MIB;
        let forwarder = with_profile(&[(option, &format!("\"{asked}B\""))]).start();
        let said = complaints(&forwarder, "upstream");
        let words = [
            format!("{option}: asked for "),
            "granted ".to_owned(),
            format!("sysctl -w {limit}={asked}"),
        ];
        let told = said
            .iter()
            .find(|line| words.iter().all(|word| line.contains(word)));
        assert!(told.is_some(), "{said:?}");
    }
}

#[test]
fn a_backlog_beyond_the_limit_is_told_the_sysctl() {
    let forwarder = Setup::new("127.0.0.1:1")
        .set("profile.p.backlog", 100_000_000)
        .set("defaults.client_profile", "p")
        .start();
    let said = complaints(&forwarder, "client");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("asked for 100000000, granted "));
    assert!(said[0].contains("sysctl -w net.core.somaxconn=100000000"));
}

/// What needs a privilege is named with it, and everything else works on.
#[test]
fn options_that_need_a_privilege() {
    let Some(nobody) = Nobody::new() else { return };
    let server = Listener::new();
    let mut setup = Setup::new(server.address())
        .set("profile.p.mark", 7)
        .set("profile.p.priority", 7)
        .set("defaults.upstream_profile", "p");
    let restricted = restricted_congestion();
    if let Some(name) = &restricted {
        setup = setup.set("profile.p.congestion", format!("{name:?}"));
    }
    let forwarder = nobody.runs(setup).start();
    let said = complaints(&forwarder, "upstream").join("\n");
    assert!(said.contains("mark: asked for 0x7") && said.contains("CAP_NET_ADMIN"));
    assert!(said.contains("priority: asked for 7"), "{said}");
    if let Some(name) = restricted {
        let words = format!("congestion: asked for {name}");
        let remedy = "sysctl -w net.ipv4.tcp_allowed_congestion_control";
        assert!(said.contains(&words) && said.contains(remedy), "{said}");
    }
    let crowd = Crowd::through(&forwarder, &server, 1);
    crowd.ping();
    crowd.finish();
    assert_eq!(forwarder.wait_for_session().code(), "--");
}

/// One that is loaded and not for everybody.
fn restricted_congestion() -> Option<String> {
    let read = |which: &str| {
        let path = format!("/proc/sys/net/ipv4/tcp_{which}_congestion_control");
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let (available, allowed) = (read("available"), read("allowed"));
    let mut available = available.split_whitespace();
    let found = available.find(|name| !allowed.split_whitespace().any(|other| other == *name));
    if found.is_none() {
        skip(&test_name(), "every congestion control is for everybody");
    }
    found.map(str::to_owned)
}

/// A segment that fills the send buffer is not acknowledged before a second one comes,
/// which has no room: 16 MiB took five seconds over loopback.
#[test]
fn a_send_buffer_below_a_segment_holds_several_smaller_ones() {
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("profile.default.send_buffer", "16KiB")
            .start();
        let mut client = forwarder.connect();
        client.send(1);
        let mut upstream = server.accept();
        upstream.expect(1);
        transfer(&mut client, &mut upstream, MIB);
        transfer(&mut upstream, &mut client, MIB);
        for end in [&client, &upstream] {
            let Some(shown) = socket(end.local(), end.remote()) else {
                return;
            };
            let largest = number(&shown, "rcvmss:");
            // Two of them fit into what the kernel makes of 16 KiB; it was 65483.
            assert!(largest <= 16 * KIB, "segments of {largest} bytes");
        }
        forwarder.check_quiet();
    });
}
