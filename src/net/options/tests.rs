use std::net::IpAddr;
use std::time::Duration;

use crate::net::address::Endpoint;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::errno::Errno;
use socket2::SockRef;

use super::plan::{Stage, Value, send_delayed_ack};
use super::*;
use crate::net::address::{Address, UnixName};
use crate::net::dial::{connect, open_for_connect};
use crate::net::listener::{self, Bound, ListenSocket};
use crate::net::sys;

/// Everything that needs no privilege and that accepted sockets must have.
fn rich() -> SocketOptions {
    SocketOptions {
        nodelay: Some(true),
        send_buffer: Some(50_000),
        receive_buffer: Some(60_000),
        window_clamp: Some(30_000),
        notsent_lowat: Some(16_384),
        congestion: Some("reno".to_owned()),
        user_timeout: Some(Duration::from_secs(7)),
        keepalive: Some(Keepalive {
            idle: Some(Duration::from_secs(33)),
            interval: Some(Duration::from_secs(11)),
            probes: Some(4),
        }),
        tos: Some(0x28),
        priority: Some(5),
        max_pacing_rate: Some(10_000_000),
        linger: Some(Duration::ZERO),
        ..SocketOptions::default()
    }
}

fn bind(address: &Address, options: &SocketOptions) -> (Bound, ListenSocket) {
    let mut bound = listener::bind(address, options, 1).unwrap();
    let share = bound.take_share(0).remove(0);
    (bound, share)
}

fn loopback() -> Address {
    Address::Inet((Ipv4Addr::LOCALHOST, 0).into())
}

fn accept(listener: &ListenSocket, plan: &OptionPlan) -> listener::Accepted {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Ok(accepted) = listener::accept(listener.fd.as_fd()) {
            plan.apply(accepted.fd.as_fd(), Stage::Accepted, listener.family)
                .unwrap();
            return accepted;
        }
        assert!(Instant::now() < deadline, "nothing to accept");
        std::thread::yield_now();
    }
}

fn int(fd: BorrowedFd<'_>, level: i32, name: i32) -> i32 {
    let mut bytes = [0; 4];
    sys::option_bytes(fd, level, name, &mut bytes).unwrap();
    i32::from_ne_bytes(bytes)
}

#[test]
fn accepted_sockets_have_every_option_on_each_kind_of_listener() {
    let options = rich();
    let plan = options.plan(Leg::Client);
    let mut cases = vec![(loopback(), IpAddr::from(Ipv4Addr::LOCALHOST))];
    let any = Address::Any { port: 0 };
    cases.push((any.clone(), Ipv4Addr::LOCALHOST.into()));
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        cases.push((any, Ipv6Addr::LOCALHOST.into()));
    } else {
        println!("skipped: the IPv6 case, this host has no IPv6");
    }
    for (address, target) in cases {
        let (_bound, listener) = bind(&address, &options);
        let Endpoint::Inet(local) = listener.local else {
            panic!("{}", listener.local);
        };
        let client = TcpStream::connect((target, local.port())).unwrap();
        let accepted = accept(&listener, &plan);
        let mut checked = 0;
        for step in plan.steps(Stage::Listener, listener.family) {
            let difference = step.difference(accepted.fd.as_fd());
            assert_eq!(difference, None, "{address:?} {target} {}", step.option);
            checked += 1;
        }
        assert!(checked >= 15, "only {checked} options were compared");
        drop(client);
    }
}

#[test]
fn the_segment_size_reaches_accepted_sockets() {
    let options = SocketOptions {
        mss: Some(1000),
        ..SocketOptions::default()
    };
    let (_bound, listener) = bind(&loopback(), &options);
    let Endpoint::Inet(local) = listener.local else {
        panic!("{}", listener.local);
    };
    let _client = TcpStream::connect(local).unwrap();
    let accepted = accept(&listener, &options.plan(Leg::Client));
    // Less the twelve bytes of the timestamp option, if it is in use.
    let mss = int(accepted.fd.as_fd(), libc::IPPROTO_TCP, libc::TCP_MAXSEG);
    assert!((988..=1000).contains(&mss), "{mss}");
}

#[test]
fn nothing_is_set_on_accepted_sockets_that_they_inherit() {
    let inherited = SocketOptions {
        priority: None,
        ..rich()
    };
    let plan = inherited.plan(Leg::Client);
    for family in [Family::V4, Family::V6] {
        assert!(plan.is_empty(Stage::Accepted, family));
    }
    let not_inherited = SocketOptions {
        priority: Some(1),
        quickack: Some(true),
        ..inherited
    };
    let plan = not_inherited.plan(Leg::Client);
    let names: Vec<_> = plan
        .steps(Stage::Accepted, Family::V6)
        .iter()
        .map(|step| step.option)
        .collect();
    assert_eq!(names, [OptionName::Priority, OptionName::Quickack]);
}

#[test]
fn unset_means_no_nagle_on_both_legs_and_no_quick_ack_upstream() {
    let options = SocketOptions::default();
    let set = |plan: &OptionPlan, stage| -> Vec<(OptionName, Value)> {
        let steps = plan.steps(stage, Family::V4).iter();
        steps.map(|it| (it.option, it.value.clone())).collect()
    };
    let on = (OptionName::Nodelay, Value::Int(1));
    let client = options.plan(Leg::Client);
    assert_eq!(set(&client, Stage::Listener), std::slice::from_ref(&on));
    assert_eq!(set(&client, Stage::Accepted), []);
    let upstream = options.plan(Leg::Upstream);
    let quick_off = (OptionName::Quickack, Value::Int(0));
    assert_eq!(set(&upstream, Stage::BeforeConnect), [on, quick_off]);
    assert_eq!(set(&upstream, Stage::AfterConnect), []);
}

#[test]
fn an_explicit_value_wins_over_the_default() {
    let options = SocketOptions {
        nodelay: Some(false),
        quickack: Some(true),
        ..SocketOptions::default()
    };
    let plan = options.plan(Leg::Upstream);
    let before = plan.steps(Stage::BeforeConnect, Family::V4);
    assert_eq!(before.len(), 1);
    assert_eq!(before[0].value, Value::Int(0));
    let after = plan.steps(Stage::AfterConnect, Family::V4);
    assert_eq!(after.len(), 1);
    assert_eq!(
        (after[0].option, &after[0].value),
        (OptionName::Quickack, &Value::Int(1))
    );
}

#[test]
fn connecting_sockets_have_every_option() {
    let options = SocketOptions {
        syn_retries: Some(2),
        mss: Some(1000),
        source: Some(Ipv4Addr::LOCALHOST.into()),
        free_bind: Some(true),
        ..rich()
    };
    let plan = options.plan(Leg::Upstream);
    let (_bound, listener) = bind(&loopback(), &SocketOptions::default());
    let opened =
        open_for_connect(&listener.local, &plan, crate::net::dial::Early::Nothing).unwrap();
    assert_eq!(opened.refusal, None);
    connect(opened.fd.as_fd(), &listener.local).unwrap();
    for step in plan.steps(Stage::BeforeConnect, Family::V4) {
        // Once connected, TCP_MAXSEG tells the size in use, and the SYN-ACK put
        // the kernel back into quick ACKs.
        if !matches!(step.option, OptionName::Mss | OptionName::Quickack) {
            let difference = step.difference(opened.fd.as_fd());
            assert_eq!(difference, None, "{}", step.option);
        }
    }
}

#[test]
fn listener_options_are_not_set_on_connects_nor_the_other_way_round() {
    let options = SocketOptions {
        defer_accept: Some(Duration::from_secs(5)),
        fastopen_queue: Some(16),
        syn_retries: Some(2),
        fastopen_connect: Some(true),
        source: Some(Ipv4Addr::LOCALHOST.into()),
        ..SocketOptions::default()
    };
    let names = |leg, stage| -> Vec<_> {
        let plan = options.plan(leg);
        let steps = plan.steps(stage, Family::V4).iter();
        steps.map(|it| it.option).collect()
    };
    let listening = names(Leg::Client, Stage::Listener);
    assert_eq!(
        listening,
        [
            OptionName::Nodelay,
            OptionName::FastopenQueue,
            OptionName::DeferAccept
        ]
    );
    let connecting = names(Leg::Upstream, Stage::BeforeConnect);
    assert!(!connecting.contains(&OptionName::DeferAccept));
    assert!(connecting.contains(&OptionName::SynRetries));
    assert!(connecting.contains(&OptionName::FastopenConnect));
}

#[test]
fn b61_unix_sockets_get_no_tcp_options_but_their_send_buffer() {
    let name = format!("thalweg-options-{}", std::process::id()).into_bytes();
    let address = Address::Unix(UnixName::Abstract(name));
    let options = rich();
    let (bound, listener) = bind(&address, &options);
    assert_eq!(bound.refusal(), None);
    let upstream = options.plan(Leg::Upstream);
    let opened =
        open_for_connect(&listener.local, &upstream, crate::net::dial::Early::Nothing).unwrap();
    assert_eq!(opened.refusal, None);
    connect(opened.fd.as_fd(), &listener.local).unwrap();
    let accepted = accept(&listener, &options.plan(Leg::Client));
    for fd in [&opened.fd, &accepted.fd] {
        let buffer = int(fd.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF);
        assert_eq!(buffer, 100_000);
        let keepalive = int(fd.as_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE);
        assert_eq!(keepalive, 0);
    }
    let (near, _far) = UnixStream::pair().unwrap();
    for stage in [Stage::Accepted, Stage::BeforeConnect, Stage::AfterConnect] {
        assert_eq!(upstream.apply(near.as_fd(), stage, Family::Unix), Ok(()));
    }
}

#[test]
fn marks_are_inherited_where_they_are_permitted() {
    let options = SocketOptions {
        mark: Some(0xffff_fff0),
        ..SocketOptions::default()
    };
    let shortfalls = options.granted(Leg::Client);
    if !shortfalls.is_empty() {
        assert_eq!(shortfalls[0].granted, "0x0");
        assert!(shortfalls[0].remedy.contains("CAP_NET_ADMIN"));
        println!("skipped: SO_MARK itself: {}", shortfalls[0]);
        return;
    }
    let (_bound, listener) = bind(&loopback(), &options);
    let Endpoint::Inet(local) = listener.local else {
        panic!("{}", listener.local);
    };
    let _client = TcpStream::connect(local).unwrap();
    let accepted = accept(&listener, &options.plan(Leg::Client));
    assert_eq!(SockRef::from(&accepted.fd).mark().unwrap(), 0xffff_fff0);
}

#[test]
fn what_is_granted_in_full_is_not_mentioned() {
    for family in [Family::V4, Family::V6, Family::Unix] {
        for leg in [Leg::Client, Leg::Upstream] {
            let shortfalls = rich().granted_on(leg, family);
            assert_eq!(shortfalls, [], "{leg:?} {family:?}");
        }
    }
}

fn shortfall(options: &SocketOptions, leg: Leg) -> Shortfall {
    let mut all = options.granted(leg);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn a_buffer_above_the_limit_names_the_sysctl() {
    for (leg, name) in [(Leg::Client, "rmem_max"), (Leg::Upstream, "wmem_max")] {
        let sysctl = crate::net::limits::sysctl(&format!("net.core.{name}"));
        let Some(limit) = sysctl.and_then(|text| text.parse::<u32>().ok()) else {
            println!("skipped: net.core.{name} cannot be read here");
            continue;
        };
        let asked = limit.checked_mul(2).filter(|it| i32::try_from(*it).is_ok());
        let Some(asked) = asked else {
            println!("skipped: net.core.{name} cannot be exceeded");
            continue;
        };
        let mut options = SocketOptions::default();
        match leg {
            Leg::Client => options.receive_buffer = Some(asked),
            Leg::Upstream => options.send_buffer = Some(asked),
        }
        let found = shortfall(&options, leg);
        assert_eq!(found.granted, readback::bytes(i128::from(limit)));
        let remedy = format!("sysctl -w net.core.{name}={asked}");
        assert!(found.to_string().contains(&remedy), "{found}");
    }
}

#[test]
fn an_unknown_congestion_control_says_what_there_is() {
    let options = SocketOptions {
        congestion: Some("nosuchcc".to_owned()),
        ..SocketOptions::default()
    };
    let found = shortfall(&options, Leg::Upstream);
    assert_eq!(found.option, OptionName::Congestion);
    assert_eq!(found.asked, "nosuchcc");
    assert!(!found.granted.is_empty() && found.granted != "nosuchcc");
    assert!(found.remedy.contains("modprobe tcp_nosuchcc"), "{found}");
    assert!(found.remedy.contains("reno"), "{found}");
}

#[test]
fn values_the_kernel_refuses_or_changes_are_told() {
    let told = |change: &dyn Fn(&mut SocketOptions), leg| {
        let mut options = SocketOptions::default();
        change(&mut options);
        shortfall(&options, leg).to_string()
    };
    let text = told(&|it| it.mss = Some(10), Leg::Upstream);
    assert!(text.contains("mss: asked for 10, granted 536"), "{text}");
    assert!(text.contains("88 to 32767"), "{text}");
    let text = told(&|it| it.tos = Some(0xff), Leg::Upstream);
    assert!(
        text.contains("asked for 0xff, granted 0xfc") && text.contains("ECN"),
        "{text}"
    );
    let text = told(&|it| it.send_buffer = Some(1), Leg::Client);
    assert!(text.contains("the kernel allows no less"), "{text}");
    let text = told(&|it| it.backlog = Some(u32::MAX), Leg::Client);
    assert!(text.contains("net.core.somaxconn"), "{text}");
    let text = told(&|it| it.interface = Some("nosuch0".to_owned()), Leg::Client);
    assert!(
        text.contains("asked for nosuch0, granted none; there is no such"),
        "{text}"
    );
    let text = told(&|it| it.linger = Some(Duration::from_secs(5)), Leg::Client);
    assert!(
        text.contains("asked for 5s") && text.contains("block"),
        "{text}"
    );
    let text = told(
        &|it| it.source = Some("198.51.100.1".parse().unwrap()),
        Leg::Upstream,
    );
    assert!(text.contains("free_bind"), "{text}");
    let options = SocketOptions {
        source: Some("::1".parse().unwrap()),
        ..SocketOptions::default()
    };
    let found = options.granted_on(Leg::Upstream, Family::V4);
    assert!(found[0].remedy.contains("the other family"), "{}", found[0]);
    let raw = RawOption {
        level: libc::IPPROTO_TCP,
        name: 9999,
        value: 1,
    };
    let text = told(&|it| it.raw = vec![raw], Leg::Client);
    assert!(text.contains("raw { level = 6, name = 9999 }"), "{text}");
}

#[test]
fn fast_open_names_the_bit_that_is_missing() {
    let bits = crate::net::limits::sysctl("net.ipv4.tcp_fastopen");
    let bits: u32 = bits.and_then(|text| text.parse().ok()).unwrap_or(0);
    let options = SocketOptions {
        fastopen_connect: Some(true),
        fastopen_queue: Some(16),
        ..SocketOptions::default()
    };
    for (leg, bit) in [(Leg::Upstream, 1), (Leg::Client, 2)] {
        let found = options.granted(leg);
        if bits & bit == 0 {
            let remedy = format!("net.ipv4.tcp_fastopen={}", bits | bit);
            assert!(found[0].remedy.contains(&remedy), "{}", found[0]);
        } else {
            assert_eq!(found, []);
        }
    }
}

#[test]
fn a_fixed_receive_buffer_is_warned_of_with_its_ceiling() {
    assert_eq!(SocketOptions::default().advice(), []);
    let options = SocketOptions {
        receive_buffer: Some(256 << 10),
        ..SocketOptions::default()
    };
    let advice = options.advice()[0];
    assert_eq!(advice.ceiling(Duration::from_millis(80)), 26_214_400);
    let text = advice.to_string();
    assert!(text.contains("256 KiB at 80 ms is 26 Mbit/s"), "{text}");
    assert!(text.contains("autotuning"), "{text}");
    // At no distance at all nothing is divided by zero.
    assert!(advice.ceiling(Duration::ZERO) > 0);
}

#[test]
fn refusals_are_counted_and_do_not_stop_the_rest() {
    let options = SocketOptions {
        mss: Some(10),
        congestion: Some("nosuchcc".to_owned()),
        notsent_lowat: Some(4096),
        ..SocketOptions::default()
    };
    let (bound, listener) = bind(&loopback(), &options);
    let refusal = bound.refusal().unwrap();
    assert_eq!((refusal.option, refusal.count), (OptionName::Mss, 2));
    assert_eq!(refusal.errno, Errno::EINVAL);
    let lowat = int(
        listener.fd.as_fd(),
        libc::IPPROTO_TCP,
        libc::TCP_NOTSENT_LOWAT,
    );
    assert_eq!(lowat, 4096);
}

#[test]
fn a_server_that_speaks_first_need_not_wait_for_the_delayed_ack() {
    let (_bound, listener) = bind(&loopback(), &SocketOptions::default());
    let plan = SocketOptions::default().plan(Leg::Upstream);
    // The timer that would send the ACK anyway takes 200 ms. A busy machine may
    // be slower than that once, but not each time.
    let quick = (0..20).any(|_| {
        let started = Instant::now();
        let opened =
            open_for_connect(&listener.local, &plan, crate::net::dial::Early::Nothing).unwrap();
        connect(opened.fd.as_fd(), &listener.local).unwrap();
        send_delayed_ack(opened.fd.as_fd()).unwrap();
        drop(accept(
            &listener,
            &SocketOptions::default().plan(Leg::Client),
        ));
        started.elapsed() < Duration::from_millis(100)
    });
    assert!(quick, "the ACK was not sent");
}

#[test]
fn durations_are_rounded_up_and_quantities_clamped() {
    let options = SocketOptions {
        user_timeout: Some(Duration::from_micros(1)),
        keepalive: Some(Keepalive {
            idle: Some(Duration::from_millis(1)),
            ..Keepalive::default()
        }),
        send_buffer: Some(u32::MAX),
        mark: Some(u32::MAX),
        ..SocketOptions::default()
    };
    let plan = options.plan(Leg::Upstream);
    let value = |option| {
        let mut steps = plan.steps(Stage::BeforeConnect, Family::V4).iter();
        steps.find(|it| it.option == option).unwrap().value.clone()
    };
    assert_eq!(value(OptionName::UserTimeout), Value::Int(1));
    assert_eq!(value(OptionName::KeepaliveIdle), Value::Int(1));
    assert_eq!(value(OptionName::SendBuffer), Value::Int(i32::MAX));
    assert_eq!(value(OptionName::Mark), Value::Int(-1));
}

#[test]
fn the_family_is_that_of_the_socket() {
    let inet = |text: &str| Endpoint::Inet(text.parse::<SocketAddr>().unwrap());
    assert_eq!(Family::of(&inet("127.0.0.1:1")), Family::V4);
    assert_eq!(Family::of(&inet("[::1]:1")), Family::V6);
    assert_eq!(Family::of(&Endpoint::Unnamed), Family::Unix);
}
