//! Properties: any text gives a configuration or errors with places, and what is
//! printed reads back.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::any_pool::any_pool;
use super::{BASE, load};
use crate::config::clients::{ClientAccess, ClientMemory, OnDeny, WhenFull};
use crate::config::connect_rate::{Period, WrittenRate};
use crate::config::*;
use crate::net::address::Address;
use crate::net::address::UnixName;
use crate::net::listener::Who;
use crate::net::options::SocketOptions;
use crate::policy::route::{Conditions, Pattern, Protocol};
use std::sync::Arc;
use std::time::Duration;

/// How many errors a text has; checks what must hold for any text on the way.
pub(super) fn errors_of(text: &str) -> usize {
    match Config::parse(text) {
        Ok(config) => {
            let printed = config.to_toml();
            assert_eq!(Config::parse(&printed).as_ref(), Ok(&config), "{printed}");
            0
        }
        Err(errors) => {
            assert!(!errors.problems().is_empty());
            for problem in errors.problems() {
                let place = problem.place.position;
                assert!(place.is_some_and(|(line, column)| line > 0 && column > 0));
                assert!(!problem.message.is_empty());
            }
            let shown = errors.to_string();
            assert!(
                !shown.chars().any(|c| c.is_control() && c != '\n'),
                "{shown:?}"
            );
            errors.count()
        }
    }
}

/// A text that uses every key.
const EVERY_KEY: &str = include_str!("../../../examples/thalweg.toml");

/// A text that uses every policy and every check.
const POOLS: &str = include_str!("../../../examples/pools.toml");

#[test]
fn the_examples_are_valid_and_what_check_prints_of_them_reads_back() {
    assert_eq!(errors_of(EVERY_KEY), 0);
    assert_eq!(errors_of(include_str!("../../../examples/minimal.toml")), 0);
    assert_eq!(errors_of(POOLS), 0);
}

/// Fragments that are likely to meet code paths.
fn fragment() -> impl Strategy<Value = String> {
    let words = [
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ",",
        "\"",
        "'",
        "\"\"\"",
        "\n",
        "#",
        ".",
        ":",
        "\u{0}",
        "global",
        "log",
        "defaults",
        "profile",
        "forward",
        "upstream",
        "name",
        "listen",
        "servers",
        "address",
        "weight",
        "backup",
        "check",
        "type",
        "source",
        "balance",
        "\"hash_address\"",
        "\"exchange\"",
        "\"srv:_a._tcp.b\"",
        "mss",
        "keepalive",
        "raw",
        "\"10s\"",
        "10",
        "\"64KiB\"",
        "true",
        "\":1-9\"",
        "\"a:1\"",
        "\"unix:@x\"",
        "[[forward]]\n",
        "[upstream.p]\n",
        "= \"p\"\n",
        "ü",
        "\u{feff}",
        "\r\n",
        "1979-05-27",
        "-1",
        "9223372036854775807",
        "1e400",
        "nan",
        "\\u0000",
        " ",
        "\t",
    ];
    prop_oneof![
        8 => prop::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => ".{0,12}",
    ]
}

proptest! {
    #[test]
    fn b70_any_text_is_a_configuration_or_errors_with_places(text in r"[\s\S]{0,200}") {
        errors_of(&text);
    }

    #[test]
    fn b70_any_text_of_likely_pieces(pieces in prop::collection::vec(fragment(), 0..60)) {
        errors_of(&pieces.concat());
    }

    #[test]
    fn b70_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let file = FileText { name: "x".to_owned(), bytes };
        let _ = Config::load(&Inputs { file: Some(file), ..Inputs::default() });
    }

    #[test]
    fn b70_any_text_near_a_valid_one(
        valid in prop::sample::select(vec![EVERY_KEY, POOLS]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..30, fragment()), 1..5),
    ) {
        let mut text: Vec<char> = valid.chars().collect();
        for (at, remove, insert) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + remove).min(text.len());
            text.splice(at..end, insert.chars());
        }
        errors_of(&text.into_iter().collect::<String>());
    }

    #[test]
    fn b70_any_argument(set in r".{0,40}|[a-z.]{0,20}=.{0,20}", listen in ".{0,20}", upstream in ".{0,20}") {
        for sets in [vec![], vec![set.as_str()]] {
            if let Err(errors) = load(BASE, &[(&listen, &upstream)], &sets) {
                prop_assert!(!errors.problems().is_empty());
            }
        }
    }
}

/// Every value of every kind, so that what `check` prints is read as what it was.
fn any_config() -> impl Strategy<Value = Config> {
    let time = prop_oneof![
        Just(Duration::MAX),
        (1u64..31_536_000_000_000).prop_map(Duration::from_micros)
    ];
    let timeouts = [time.clone(), time.clone(), time.clone(), time.clone(), time];
    let timeouts = timeouts.prop_map(|[connect, idle, half_close, write_stall, drain]| Timeouts {
        connect,
        idle,
        half_close,
        write_stall,
        drain,
    });
    let global = (
        1u16..=1024,
        1u32..,
        4096u32..=16 << 20,
        4096u32..=1 << 30,
        0u64..1_000_000,
    );
    let names = (r"\PC{1,20}", r"\PC{1,20}", r"(/\PC{0,20}/\PC{0,8}[a-z])");
    let listen = Address::Unix(UnixName::Abstract(b"\0 listener of no server".to_vec()));
    (timeouts, global, names, any_pool(), 0usize..3, any::<u64>()).prop_map(
        move |(timeouts, global, (name, profile, path), pool, pick, number)| {
            let options = SocketOptions {
                nodelay: Some(number & 1 == 0),
                quickack: [None, Some(true), Some(false)][pick],
                max_pacing_rate: Some(number.max(1)),
                notsent_lowat: Some(number as u32),
                ..SocketOptions::default()
            };
            let proxy = number % 5 == 0;
            // Where the process itself listens is not where clients are.
            let port = number as u16;
            let port = if listen.port() == Some(port) {
                port ^ 1
            } else {
                port
            };
            let own_ports = [[127, 0, 0, 1], [127, 0, 0, 2]]
                .map(|ip| Address::Inet(SocketAddr::from((ip, port))));
            let own_unix = Address::Unix(UnixName::Abstract(b"the admin's own, \0".to_vec()));
            let forward = Forward {
                unix_file: UnixFile {
                    mode: [None, Some(0o600), Some(0o777)][pick],
                    owner: [None, Some(Who::Id(7)), Some(Who::Name("root".to_owned()))][pick]
                        .clone(),
                    group: [None, Some(Who::Id(0)), Some(Who::Name("a b".to_owned()))][pick]
                        .clone(),
                },
                on_no_server: [OnNoServer::Reset, OnNoServer::Close][pick % 2],
                says_of_udp: crate::config::forward::InItsTable::default(),
                name,
                listen: vec![listen.clone()],
                mode: if proxy {
                    Mode::HttpConnect(Arc::new(any_connect(number, &path)))
                } else {
                    Mode::Tcp
                },
                routes: any_routes(number, &path),
                accept_proxy: (pick == 1).then(|| AcceptProxy {
                    from: vec!["10.0.0.0/8".parse().expect("a network")],
                    unix: number & 4 == 0,
                    v1: number & 8 == 0,
                    v2: true,
                    timeout: Duration::from_millis(10 + number % 10_000),
                }),
                sniff_timeout: Duration::from_millis(10 + number % 3_000_000),
                pool: Arc::new(if proxy { Pool::new(Vec::new()) } else { pool }),
                max_connections: [None, Some(1), Some(u32::MAX)][pick],
                timeouts,
                data_path: [DataPath::Auto, DataPath::Copy, DataPath::Splice][pick],
                tap: [None, Some(a_tap(number)), Some(a_tap(!number))][pick].clone(),
                client: options.clone(),
                client_profile: profile.clone(),
                upstream: profile::upstream_leg(&options),
                upstream_profile: profile.clone(),
                clients: any_clients(number),
                // Its listener is a unix socket.
                protocol: crate::config::Protocol::Tcp,
                udp: Udp {
                    idle: timeouts.idle,
                    unanswered: timeouts.connect,
                    requests: [None, Some(1), Some(u32::MAX)][pick],
                    responses: [Some(0), None, Some(u32::MAX)][pick],
                    max_flows: [Some(1), Some(u32::MAX), None][pick],
                    fragment: [Fragment::Allow, Fragment::Never][pick % 2],
                    on_down: [OnServerDown::Move, OnServerDown::Keep][pick % 2],
                    max_reply_factor: [None, Some(1), Some(1_000_000)][pick],
                    quic: pick == 1,
                },
            };
            let default = ("default".to_owned(), profile::built_in());
            Config {
                global: Global {
                    watch: pick == 1,
                    drain_delay: Duration::from_millis(number % 3_600_000),
                    rebalance: [Rebalance::Off, Rebalance::Auto][pick % 2],
                    spread: [Spread::Kernel, Spread::Least][pick % 2],
                    reactors: Reactors::Count(global.0),
                    engine: [EngineChoice::IoUring, EngineChoice::Epoll][pick % 2],
                    survive_crash: pick == 1,
                    max_connections: Some(global.1),
                    scratch_buffer: global.2,
                    pipe_size: global.3,
                    buffer_limit: (number >> 16).clamp(1 << 20, 1 << 50),
                    busy_poll: [
                        BusyPoll::Auto,
                        BusyPoll::For(Duration::from_micros(global.4)),
                    ][usize::from(pick > 0)],
                    names: NameSources {
                        dns_servers: vec![
                            ([10, 0, 0, pick as u8 + 1], number as u16 | 1).into();
                            pick
                        ],
                        resolv_conf: path.clone().into(),
                        hosts: format!("{path}.hosts").into(),
                    },
                    clients: ClientMemory {
                        entries_max: 16 + u32::from(number as u16),
                        full: [WhenFull::LetIn, WhenFull::TurnAway][usize::from(proxy)],
                        prefix_v4: pick as u8 * 16,
                        prefix_v6: number as u8 & 127,
                    },
                    confine: Confine {
                        user: [None, Some(Who::Id(7)), Some(Who::Name("a b".to_owned()))][pick]
                            .clone(),
                        group: [None, Some(Who::Name("root".to_owned())), Some(Who::Id(0))][pick]
                            .clone(),
                        sandbox: [Sandbox::Off, Sandbox::Auto, Sandbox::On][pick],
                        sandbox_paths: vec![format!("/{path}").into(); pick],
                        sandbox_ports: vec![(443, 443), (number as u16 | 1, u16::MAX)],
                    },
                },
                log: Log {
                    level: LogLevel::Debug,
                    format: LogFormat::Json,
                    sessions: SessionLog::All,
                    sample: Sample { part: 3, of: 7 },
                    to: LogTarget::File(path.clone().into()),
                    mode: 0o640,
                },
                admin: Admin {
                    listen: match pick {
                        0 => AdminListen::Auto,
                        1 => AdminListen::At(Vec::new()),
                        _ => AdminListen::At(vec![own_unix.clone()]),
                    },
                    token_file: [None, Some(path.clone().into()), None][pick].clone(),
                    hosts: vec!["gate.example".to_owned(); pick],
                },
                metrics: Metrics {
                    listen: own_ports[..pick].to_vec(),
                },
                profiles: BTreeMap::from([default, (profile, options)]),
                forwards: vec![Arc::new(forward)],
                remembered: crate::config::remembered::Recollection::default(),
            }
        },
    )
}

/// Of these a part, in this order: none is covered by one before it.
fn any_clients(number: u64) -> ClientAccess {
    let rules = [
        "deny 10.0.0.0/8",
        "allow 2001:db8::/32",
        "deny @bad addresses.txt",
        "allow 0.0.0.0/0",
        "deny all",
    ];
    let rules = rules.map(|text| text.parse().expect("a rule"));
    let pick = number as usize % 3;
    ClientAccess {
        access: rules.into_iter().skip(number as usize % 6).collect(),
        on_deny: [OnDeny::Reset, OnDeny::Close, OnDeny::Drop][pick],
        max_per_client: [None, Some(1), Some(u32::MAX)][pick],
        connect_rate: [None, Some((7, Period::Minute)), Some((1, Period::Hour))][pick]
            .map(|(count, per)| WrittenRate { count, per }),
        connect_burst: [Some(3), None, Some(1_000_000)][pick],
        rate: [
            None,
            Some(byte_rate(Some(1), Some(1 << 50))),
            Some(byte_rate(None, Some(7))),
        ][pick],
        rate_per_client: [Some(byte_rate(Some(125_000), Some(125_000))), None, None][pick],
        rate_per_session: [None, None, Some(byte_rate(Some(3), None))][pick],
        rate_burst: Duration::from_millis(10 + number % 9_990),
        dry_run: number.is_multiple_of(2),
    }
}

const fn byte_rate(up: Option<u64>, down: Option<u64>) -> ByteRate {
    ByteRate { up, down }
}

/// A proxy's keys, none of them as by default where `number` has it so.
/// Routes of which none takes what another would.
fn any_routes(number: u64, path: &str) -> Vec<Route> {
    let name = |at: usize| format!("{at}.example");
    let conditions = [
        Conditions {
            sni: vec![
                Pattern::Exact("a.example".to_owned()),
                Pattern::Below(name(1)),
            ],
            alpn: vec!["h2".to_owned(), "a \"b\\".to_owned()],
            client: vec!["2001:db8::/32".parse().expect("a network")],
            ..Conditions::default()
        },
        Conditions {
            host: vec![Pattern::Below(name(2))],
            share: Some(1 + (number % 10_000) as u16),
            ..Conditions::default()
        },
        Conditions {
            protocol: vec![Protocol::Ssh, Protocol::Other],
            ..Conditions::default()
        },
        Conditions {
            no_sni: true,
            ..Conditions::default()
        },
    ];
    let routes = conditions.into_iter().enumerate();
    let routes = routes.map(|(at, conditions)| Route {
        name: format!("route {at}"),
        conditions,
        to: match (at as u64 + number) % 3 {
            0 => RouteTo::Reject,
            1 => RouteTo::HttpConnect(Arc::new(any_connect(number, path))),
            _ => {
                let server = Address::Inet("192.0.2.1:443".parse().expect("an address"));
                RouteTo::Pool(Arc::new(Pool::new(vec![Server::new(server)])))
            }
        },
    });
    routes.take((number >> 20) as usize % 5).collect()
}

fn any_connect(number: u64, path: &str) -> HttpConnect {
    let rules = [
        ":443",
        "*.a.example",
        "10.0.0.0/8:1-9",
        "[2001:db8::/32]:*",
        "b",
        "::1",
    ];
    let rules = rules.map(|text| text.parse().expect("a rule"));
    let some = |skipped| rules.iter().skip(skipped).cloned().collect();
    let lists = AccessRules::Lists {
        allow: some(number as usize % 7),
        deny: some((number >> 8) as usize % 7),
    };
    let ordered = ["deny all", "allow @/a b.txt", "allow :443", "deny [::1]:*"];
    let ordered = ordered.map(|text| text.parse().expect("a rule"));
    let ordered = ordered.into_iter().skip((number >> 12) as usize % 4);
    HttpConnect {
        access: if number & 4 == 0 {
            lists
        } else {
            AccessRules::Ordered(ordered.collect())
        },
        users: (number & 2 == 0).then(|| path.into()),
        realm: "a \"realm\" \\".to_owned(),
        header_timeout: Duration::from_millis(100 + number % 3_000_000),
        header_max: 256 + (number >> 16) as u32 % 65_000,
    }
}

proptest! {
    #[test]
    fn what_is_printed_reads_back(config in any_config()) {
        let text = config.to_toml();
        let read = Config::parse(&text);
        prop_assert_eq!(read, Ok(config), "{}", text);
    }
}

/// A tap with every key, none of them the default.
fn a_tap(number: u64) -> Tap {
    let formats = [
        TapFormat::Hex,
        TapFormat::Text,
        TapFormat::Http,
        TapFormat::Pcapng,
    ];
    let of = (number % 1_000_000 + 1) as u32;
    let v6 = IpAddr::V6(Ipv6Addr::from_bits(u128::from(number as u16) << 112));
    Tap {
        format: formats[(number % 4) as usize],
        to: TapTarget::File(format!("./{number}").into()),
        max_bytes_per_session: number % (1 << 50) + 1,
        filter: TapFilter {
            client: vec![
                IpNet::new_assert(v6, 16),
                IpNet::from(IpAddr::V4((number as u32).into())),
            ],
            direction: TapDirection::Down,
            sample: Sample {
                part: of.div_ceil(2),
                of,
            },
        },
        rotate: Some(Rotate {
            size: number % (1 << 40) + 4096,
            keep: (number % 1000 + 1) as u16,
        }),
        mode: 0o600 | (number & 0o77) as u32,
        mask: vec![format!("X-{number}"), "ticket".to_owned()],
        unmask: number & 1 == 1,
    }
}
