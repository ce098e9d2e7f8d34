//! Every value of every kind of pool, for what must hold of all of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::config::connect_rate::{Period, WrittenRate};
use crate::config::*;
use crate::net::address::Address;
use crate::net::address::UnixName;
use crate::proto::proxy::Version;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

fn time(low: Duration, high: Duration) -> impl Strategy<Value = Duration> + Clone {
    (low.as_micros() as u64..=high.as_micros() as u64).prop_map(Duration::from_micros)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn address() -> impl Strategy<Value = Address> {
    let inet = |ip: IpAddr, port| Address::Inet(SocketAddr::new(ip, port));
    // The lowest bit keeps them from being the unspecified address.
    prop_oneof![
        (any::<u32>(), 1u16..)
            .prop_map(move |(ip, port)| { inet(Ipv4Addr::from(ip | 1).into(), port) }),
        (any::<u128>(), 1u16..)
            .prop_map(move |(ip, port)| { inet(Ipv6Addr::from(ip | 1 << 127 | 1).into(), port) }),
        (r"[a-z][a-z0-9_]{0,8}(\.[a-z]{1,5})?", 1u16..)
            .prop_map(|(host, port)| Address::Name { host, port }),
        vec(any::<u8>(), 1..20).prop_map(|name| Address::Unix(UnixName::Abstract(name))),
        r"_[a-z]{1,15}\._tcp(\.[a-z0-9]{1,9}){0,2}\.[a-z]{2,5}".prop_map(Address::Srv),
    ]
}

fn server() -> impl Strategy<Value = Server> {
    let states = [
        AdminState::Active,
        AdminState::Drain,
        AdminState::Maintenance,
    ];
    (
        address(),
        0u32..=1000,
        any::<bool>(),
        (option::of(1u32..), any::<u64>()),
        select(states.to_vec()),
        option::of(any::<u32>()),
        option::of(time(millis(1), DAY)),
    )
        .prop_map(
            |(
                address,
                weight,
                backup,
                (max_connections, limits),
                state,
                max_fails,
                fail_timeout,
            )| {
                Server {
                    address,
                    weight,
                    backup,
                    max_connections,
                    state,
                    max_fails,
                    fail_timeout,
                    ..limited(limits)
                }
            },
        )
}

/// A server with some of the limits that few have.
fn limited(number: u64) -> Server {
    let pick = number as usize % 3;
    let rate = |count, per| Some(WrittenRate { count, per });
    Server {
        max_per_client: [None, Some(1), Some(u32::MAX)][pick],
        connect_rate: [None, rate(7, Period::Minute), rate(1, Period::Hour)][pick],
        connect_burst: [Some(3), None, Some(1_000_000)][pick],
        rate: [
            None,
            Some(ByteRate {
                up: Some(1),
                down: Some(1 << 50),
            }),
            Some(ByteRate {
                up: None,
                down: Some(7),
            }),
        ][pick],
        rate_burst: Duration::from_millis(10 + number % 9_990),
        send_proxy: [None, Some(None), Some(Some(SendProxy::of(Version::V2)))][pick],
        ..Server::default()
    }
}

fn kind() -> impl Strategy<Value = CheckKind> {
    let bytes = |least| {
        prop_oneof![
            vec(any::<u8>(), least..40),
            r"(hex:)?\PC{1,9}".prop_map(String::into_bytes),
        ]
    };
    let status = (100u16..=599, 100u16..=599).prop_map(|(a, b)| a.min(b)..=a.max(b));
    prop_oneof![
        Just(CheckKind::Tcp),
        (bytes(0), bytes(1)).prop_map(|(send, expect)| CheckKind::Exchange { send, expect }),
        (bytes(0), bytes(1)).prop_map(|(send, expect)| CheckKind::Udp { send, expect }),
        (
            "/[!-~]{0,20}",
            option::of("[a-z0-9.:]{1,20}"),
            vec(status, 1..4)
        )
            .prop_map(|(path, host, statuses)| CheckKind::Http {
                path,
                host,
                statuses
            }),
        option::of(r"[a-z][a-z0-9]{0,8}(\.[a-z]{1,5})?")
            .prop_map(|server_name| CheckKind::Tls { server_name }),
        (r"/[^\x00]{0,12}", vec(r"[^\x00]{0,12}", 0..3)).prop_map(|(program, arguments)| {
            let argv = std::iter::once(program).chain(arguments).collect();
            CheckKind::Command { argv }
        }),
    ]
}

fn check() -> impl Strategy<Value = Check> {
    let times = time(millis(10), DAY);
    let times = (times.clone(), option::of(times.clone()), times);
    let on_down = select(vec![OnDown::Keep, OnDown::Close]);
    let counts = (1u32..=1000, 1u32..=1000, 0u8..=50, option::of(1u16..));
    (kind(), times, counts, on_down).prop_map(
        |(kind, (interval, fast, timeout), (rise, fall, jitter, port), on_down)| {
            let fast_interval = fast.map(|fast| fast.min(interval));
            Check {
                kind,
                interval,
                fast_interval,
                timeout: timeout.min(fast_interval.unwrap_or(interval)),
                rise,
                fall,
                jitter,
                on_down,
                port,
            }
        },
    )
}

/// Addresses of both families or none, so that they suit every server.
fn sources() -> impl Strategy<Value = Vec<IpAddr>> {
    let v4 = any::<u32>().prop_map(|ip| IpAddr::from(Ipv4Addr::from(10 << 24 | ip >> 8)));
    let v6 = any::<u128>().prop_map(|ip| IpAddr::from(Ipv6Addr::from(0xfd << 120 | ip >> 8)));
    prop_oneof![
        Just(Vec::new()),
        (vec(v4, 1..5), vec(v6, 1..5)).prop_map(|(v4, v6)| [v4, v6].concat()),
    ]
}

/// Everything but the servers, the check and the local end.
fn policy() -> impl Strategy<Value = Pool> {
    let balances = [
        Balance::RoundRobin,
        Balance::LeastConn,
        Balance::PowerOfTwo,
        Balance::Random,
        Balance::Hash(HashKey::Address),
        Balance::Hash(HashKey::AddressPort),
        Balance::First,
    ];
    let timeout = prop_oneof![Just(Duration::MAX), time(millis(1), DAY * 365)];
    let failing = (
        option::of(any::<u8>()),
        timeout,
        any::<u32>(),
        time(millis(1), DAY),
    );
    let waiting = (
        time(Duration::ZERO, DAY),
        0u32..=1_000_000,
        time(millis(1), DAY),
    );
    let names = (
        select(vec![Resolve::All, Resolve::First]),
        time(millis(10), DAY),
        time(millis(10), DAY * 7),
        time(millis(10), millis(2000)),
    );
    (select(balances.to_vec()), failing, waiting, names).prop_map(
        |(balance, failing, waiting, (resolve, ttl_min, ttl_max, attempt_delay))| {
            let (retries, retry_timeout, max_fails, fail_timeout) = failing;
            let (slow_start, queue, queue_timeout) = waiting;
            Pool {
                balance,
                retries,
                retry_timeout,
                max_fails,
                fail_timeout,
                slow_start,
                queue,
                queue_timeout,
                resolve,
                ttl_min,
                ttl_max: ttl_max.max(ttl_min),
                attempt_delay,
                ..Pool::new(Vec::new())
            }
        },
    )
}

/// Any pool that is valid.
pub(super) fn any_pool() -> impl Strategy<Value = Pool> {
    let local = (
        sources(),
        option::of("[a-z]{1,15}"),
        any::<bool>(),
        0u32..=1024,
        time(millis(100), DAY),
    );
    (
        option::of(r"[^:,\pC]{1,12}"),
        vec(server(), 1..5),
        option::of(check()),
        policy(),
        local,
    )
        .prop_map(|(name, mut servers, check, policy, local)| {
            let (sources, interface, transparent, warm, warm_max_age) = local;
            servers[0].backup = false;
            servers[0].weight = servers[0].weight.max(1);
            let transparent = transparent && sources.is_empty();
            Pool {
                name,
                servers,
                check,
                sources,
                interface,
                transparent,
                warm: if transparent { 0 } else { warm },
                warm_max_age,
                ..policy
            }
        })
}
