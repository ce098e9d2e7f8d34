//! The whole of the configuration, from text to [`Config`] and back.

mod again;
mod any_pool;
mod connect;
mod diff;
mod included;
mod pools;
mod properties;
mod refused;
mod routes;
mod tables;
mod taps;
mod udp;

use std::path::PathBuf;
use std::time::Duration;

use crate::config::*;
use crate::net::address::Address;
use crate::net::options::SocketOptions;

const BASE: &str = "[[forward]]\nlisten = \":5000\"\nupstream = \"a:1\"\n";

fn load(text: &str, pairs: &[(&str, &str)], sets: &[&str]) -> Result<Config, ConfigErrors> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Config::load(&Inputs {
        file: some(text).map(|text| FileText {
            name: "t.toml".to_owned(),
            bytes: text.into_bytes(),
        }),
        pairs: pairs
            .iter()
            .map(|(listen, upstream)| Pair {
                listen: some(listen),
                upstream: some(upstream),
            })
            .collect(),
        overrides: sets
            .iter()
            .map(|text| Override {
                flag: "--set".to_owned(),
                key: None,
                text: (*text).to_owned(),
            })
            .collect(),
    })
}

fn good(text: &str) -> Config {
    load(text, &[], &[]).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

/// The errors as `place: message (remedy)`, one a line.
fn errors(text: &str, pairs: &[(&str, &str)], sets: &[&str]) -> Vec<String> {
    match load(text, pairs, sets) {
        Ok(config) => panic!("accepted:\n{text}\nas {config:?}"),
        Err(errors) => errors
            .problems()
            .iter()
            .map(|p| {
                let remedy = p.remedy.as_deref().unwrap_or_default();
                format!("{}: {} ({remedy})", p.place, p.message)
            })
            .collect(),
    }
}

/// One error, at this place and with these words.
#[track_caller]
fn expect(text: &str, place: &str, words: &[&str]) {
    let errors = errors(text, &[], &[]);
    assert_eq!(errors.len(), 1, "{text}\n{errors:#?}");
    assert!(
        errors[0].starts_with(&format!("t.toml:{place}: ")),
        "{errors:#?}"
    );
    for word in words {
        assert!(errors[0].contains(word), "no `{word}` in {errors:#?}");
    }
}

#[track_caller]
fn expect_in_profile(line: &str, words: &[&str]) {
    let text = format!("{BASE}[profile.wan]\n{line}\n");
    let column = 1 + line.find('=').map_or(0, |at| at + 2);
    let errors = errors(&text, &[], &[]);
    assert_eq!(errors.len(), 1, "{text}\n{errors:#?}");
    let place = format!("t.toml:5:{column}: ");
    assert!(errors[0].starts_with(&place), "{place} {errors:#?}");
    for word in words {
        assert!(errors[0].contains(word), "no `{word}` in {errors:#?}");
    }
}

#[test]
fn a_pair_of_the_command_line_is_a_configuration() {
    let config = load("", &[(":5000", "10.0.0.1:443,[::1]:80")], &[]).expect("valid");
    assert_eq!(config.global, Global::default());
    assert_eq!(config.log, Log::default());
    let forward = &config.forwards[0];
    assert_eq!(forward.name, ":5000");
    assert_eq!(forward.listen, [Address::Any { port: 5000 }]);
    assert_eq!(forward.pool.servers.len(), 2);
    assert_eq!(forward.timeouts, Timeouts::default());
    assert_eq!(forward.client.nodelay, Some(true));
    assert_eq!(forward.client.quickack, None);
    assert_eq!(forward.upstream.quickack, Some(false));
    assert_eq!(forward.client_profile, "default");
}

#[test]
fn defaults_stand_in_for_what_a_forward_leaves_out() {
    let config = good(
        "[defaults]\nidle_timeout = \"5s\"\ndata_path = \"copy\"\nmax_connections = 7\n\
         connect_timeout = \"off\"\nclient_profile = \"wan\"\n[profile.wan]\nmss = 1400\n\
         [[forward]]\nlisten = \":1\"\nupstream = \"a:1\"\n\
         [[forward]]\nname = \"x\"\nlisten = \":2\"\nupstream = \"a:1\"\n\
         idle_timeout = \"1m30s\"\ndata_path = \"splice\"\nmax_connections = \"auto\"\n\
         client_profile = \"default\"\nwrite_stall_timeout = 0\n",
    );
    let [one, two] = &config.forwards[..] else {
        panic!("{config:?}");
    };
    assert_eq!(one.timeouts.idle, Duration::from_secs(5));
    assert_eq!(one.timeouts.connect, Duration::MAX);
    assert_eq!(one.data_path, DataPath::Copy);
    assert_eq!(one.max_connections, Some(7));
    assert_eq!(one.client.mss, Some(1400));
    assert_eq!(one.upstream.mss, None);
    assert_eq!(two.timeouts.idle, Duration::from_secs(90));
    assert_eq!(two.timeouts.write_stall, Duration::MAX);
    assert_eq!(two.timeouts.connect, Duration::MAX);
    assert_eq!(two.data_path, DataPath::Splice);
    assert_eq!(two.max_connections, None);
    assert_eq!(two.client.mss, None);
}

#[test]
fn every_socket_option_is_read() {
    let config = good(&format!(
        "{BASE}client_profile = \"all\"\n[profile.all]\nnodelay = false\nquickack = true\n\
         send_buffer = \"4MiB\"\nreceive_buffer = 65536\nmss = 1400\nwindow_clamp = \"1MB\"\n\
         notsent_lowat = \"128KiB\"\ncongestion = \"bbr\"\nuser_timeout = \"30s\"\n\
         keepalive = {{ idle = \"60s\", interval = \"10s\", probes = 3 }}\nsyn_retries = 2\n\
         fastopen_queue = 256\nfastopen_connect = true\ndefer_accept = \"3s\"\ndscp = \"ef\"\n\
         mark = 0x10\npriority = 6\nmax_pacing_rate = \"2Gbit\"\nbusy_poll = \"50us\"\n\
         incoming_cpu = true\nlinger = \"0s\"\nsource = \"::1\"\ninterface = \"eth0\"\n\
         free_bind = true\nmptcp = true\nbacklog = 1024\n\
         raw = [{{ level = 6, name = -12, value = 1 }}]\n"
    ));
    let expected = SocketOptions {
        nodelay: Some(false),
        quickack: Some(true),
        send_buffer: Some(4 << 20),
        receive_buffer: Some(65_536),
        mss: Some(1400),
        window_clamp: Some(1_000_000),
        notsent_lowat: Some(128 << 10),
        congestion: Some("bbr".to_owned()),
        user_timeout: Some(Duration::from_secs(30)),
        keepalive: Some(crate::net::options::Keepalive {
            idle: Some(Duration::from_secs(60)),
            interval: Some(Duration::from_secs(10)),
            probes: Some(3),
        }),
        syn_retries: Some(2),
        fastopen_queue: Some(256),
        fastopen_connect: Some(true),
        defer_accept: Some(Duration::from_secs(3)),
        tos: Some(46 << 2),
        mark: Some(16),
        priority: Some(6),
        max_pacing_rate: Some(250_000_000),
        busy_poll: Some(Duration::from_micros(50)),
        incoming_cpu: Some(true),
        linger: Some(Duration::ZERO),
        source: "::1".parse().ok(),
        interface: Some("eth0".to_owned()),
        free_bind: Some(true),
        mptcp: Some(true),
        backlog: Some(1024),
        raw: vec![crate::net::options::RawOption {
            level: 6,
            name: -12,
            value: 1,
        }],
    };
    assert_eq!(config.forwards[0].client, expected);
    assert_eq!(config.profiles["all"], expected);
    assert_eq!(Config::parse(&config.to_toml()), Ok(config));
}

#[test]
fn keepalive_is_a_switch_a_duration_or_a_table() {
    let keepalive = |line: &str| {
        let text = format!("{BASE}[profile.default]\nkeepalive = {line}\n");
        good(&text).forwards[0].client.keepalive
    };
    let idle = |seconds| crate::net::options::Keepalive {
        idle: Some(Duration::from_secs(seconds)),
        ..Default::default()
    };
    assert_eq!(keepalive("false"), None);
    assert_eq!(
        keepalive("true"),
        Some(crate::net::options::Keepalive::default())
    );
    assert_eq!(keepalive("\"60s\""), Some(idle(60)));
    assert_eq!(keepalive("{ idle = \"7s\" }"), Some(idle(7)));
    expect_in_profile("keepalive = \"500ms\"", &["`keepalive`", "from 1s"]);
    expect_in_profile("keepalive = \"1500ms\"", &["steps of 1s"]);
    expect_in_profile("keepalive = 60", &["unit", "60s"]);
}

#[test]
fn ranges_pair_up_and_a_single_upstream_serves_all() {
    let config = load("", &[(":5000-5009", "a:6000-6009,b:7000")], &[]).expect("valid");
    assert_eq!(config.forwards.len(), 10);
    let last = &config.forwards[9];
    assert_eq!(last.name, ":5009");
    assert_eq!(last.listen, [Address::Any { port: 5009 }]);
    let servers: Vec<_> = last
        .pool
        .servers
        .iter()
        .map(|s| s.address.to_string())
        .collect();
    assert_eq!(servers, ["a:6009", "b:7000"]);

    let config = load("", &[("127.0.0.1:5000-5009", "a:6000")], &[]).expect("valid");
    assert_eq!(config.forwards.len(), 1);
    assert_eq!(config.forwards[0].listen.len(), 10);

    let config = good(
        "[[forward]]\nname=\"r\"\nlisten=\":1-2\"\nupstream=\"p\"\n[upstream.p]\nservers=[\"a:8-9\"]",
    );
    let names: Vec<_> = config.forwards.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["r:1", "r:2"]);

    let errors = errors("", &[(":5000-5009", "a:6000-6010"), (":1", "a:1-2")], &[]);
    assert!(errors[0].starts_with("-l :5000-5009: "), "{errors:#?}");
    assert!(errors[0].contains("10 ports cannot pair up with the 11 ports"));
    assert!(errors[1].contains("1 port cannot pair up with the 2 ports"));
    expect(
        "[[forward]]\nlisten = [\":1-60000\", \"unix:/x\"]\nupstream = \"a:1-60000\"",
        "2:24",
        &["cannot pair"],
    );
    expect(
        "[[forward]]\nlisten = [\":1-60000\", \"1.1.1.1:1-60000\"]\nupstream = \"a:1\"",
        "2:12",
        &["too many"],
    );
}

#[test]
fn pools_and_lists_are_the_same_servers() {
    let servers = |upstream: &str| {
        let text = format!(
            "[[forward]]\nlisten=\":1\"\nupstream={upstream}\n[upstream.p]\n\
             balance=\"round_robin\"\nservers=[\"a:1\", {{ address=\"b:2\" }}]"
        );
        good(&text).forwards[0].pool.servers.clone()
    };
    let expected = servers("\"p\"");
    assert_eq!(expected.len(), 2);
    assert_eq!(servers("\"a:1, b:2\""), expected);
    assert_eq!(servers("[\"a:1\", \"b:2\"]"), expected);
    assert_eq!(servers("[\"a:1\", { address=\"b:2\" }]"), expected);
}

#[test]
fn overrides_replace_any_value() {
    let text =
        "[[forward]]\nname = \"web\"\nlisten = \":1\"\nupstream = \"a:1\"\nidle_timeout = \"1s\"\n";
    let sets = [
        "defaults.connect_timeout=2s",
        "forward.web.idle_timeout=3s",
        "forward.\":2\".data_path=splice",
        "global.reactors=2",
        "global.engine=\"epoll\"",
        "profile.wan.mss=1400",
        "profile.wan.keepalive.idle=9s",
        "defaults.upstream_profile=wan",
        "forward.web.listen=[\":8\", \":9\"]",
        "log.to=/tmp/a b=c.log",
    ];
    let config = load(text, &[(":2", "b:2")], &sets).expect("valid");
    assert_eq!(config.forwards[0].timeouts.idle, Duration::from_secs(3));
    assert_eq!(config.forwards[0].listen.len(), 2);
    assert_eq!(config.forwards[1].timeouts.connect, Duration::from_secs(2));
    assert_eq!(config.forwards[1].data_path, DataPath::Splice);
    assert_eq!(config.global.reactors, Reactors::Count(2));
    assert_eq!(config.global.engine, EngineChoice::Epoll);
    assert_eq!(config.forwards[1].upstream.mss, Some(1400));
    assert!(config.forwards[1].upstream.keepalive.is_some());
    assert_eq!(config.log.to, LogTarget::File("/tmp/a b=c.log".into()));
}

#[test]
fn a_flag_stands_for_its_key() {
    let flag = |flag: &str, key: &str, text: &str| Override {
        flag: flag.to_owned(),
        key: Some(key.to_owned()),
        text: text.to_owned(),
    };
    let load = |overrides| {
        Config::load(&Inputs {
            pairs: vec![Pair {
                listen: Some(":1".to_owned()),
                upstream: Some("a:1".to_owned()),
            }],
            overrides,
            ..Inputs::default()
        })
    };
    let config = load(vec![
        flag("--reactors", "global.reactors", "2"),
        flag("--log-level", "log.level", "debug"),
    ]);
    let config = config.expect("valid");
    assert_eq!(config.global.reactors, Reactors::Count(2));
    assert_eq!(config.log.level, LogLevel::Debug);
    let errors = load(vec![flag("--reactors", "global.reactors", "0")]).expect_err("zero");
    assert_eq!(errors.problems()[0].place.to_string(), "--reactors 0");
    assert!(errors.to_string().contains("1 to 1024"), "{errors}");
}

#[test]
fn name_servers_have_port_53_unless_given() {
    let text = format!(
        "{BASE}[global]\ndns_servers = [\"10.0.0.2\", \"[::1]:5353\", \"fe80::1\"]\nhosts = \"/h\"\n"
    );
    let names = good(&text).global.names;
    let servers = names.dns_servers.iter().map(ToString::to_string);
    assert_eq!(
        servers.collect::<Vec<_>>(),
        ["10.0.0.2:53", "[::1]:5353", "[fe80::1]:53"]
    );
    assert_eq!(names.hosts, PathBuf::from("/h"));
    assert_eq!(names.resolv_conf, PathBuf::from("/etc/resolv.conf"));
}

#[test]
fn pools_start_from_the_defaults() {
    let config = Config::parse(
        r#"
        [defaults.upstream]
        balance = "least_conn"
        warm = 4
        check = "tcp"

        [upstream.web]
        servers = ["10.0.0.1:443"]
        warm = 0
        check = "off"

        [[forward]]
        listen = ":1"
        upstream = "web"

        [[forward]]
        listen = ":2"
        upstream = "10.0.0.1:443,10.0.0.2:443"
        "#,
    )
    .unwrap();
    let pools: Vec<_> = config.forwards.iter().map(|it| &it.pool).collect();
    assert!(pools.iter().all(|it| it.balance == Balance::LeastConn));
    assert_eq!((pools[0].warm, pools[1].warm), (0, 4));
    assert_eq!(
        (pools[0].check.is_some(), pools[1].check.is_some()),
        (false, true)
    );
    assert_eq!(Config::parse(&config.to_toml()).unwrap(), config);

    let text = "[defaults.upstream]\nservers = []\nfluff = 1\n";
    let errors = Config::parse(text).unwrap_err().to_string();
    assert!(errors.contains("`servers` is a key of a pool"), "{errors}");
    assert!(errors.contains("fluff"), "{errors}");
}
