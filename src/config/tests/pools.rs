//! Pools: what is read, what it defaults to, and what is shared.

mod refused;

use std::net::IpAddr;

use super::{good, load};
use crate::config::connect_rate::{Period, WrittenRate};
use crate::config::*;
use crate::net::address::Address;
use crate::proto::proxy::Version;
use std::sync::Arc;
use std::time::Duration;

/// One forward to the pool `p`, which has these lines, the first of them line 5.
fn with_pool(lines: &str) -> String {
    format!("[[forward]]\nlisten = \":1\"\nupstream = \"p\"\n[upstream.p]\n{lines}\n")
}

fn pool(lines: &str) -> Pool {
    (*good(&with_pool(lines)).forwards[0].pool).clone()
}

/// The check of a pool that has this one.
fn check(text: &str) -> Option<Check> {
    pool(&format!("servers = \"a:1\"\ncheck = {text}")).check
}

#[test]
fn what_is_left_out_has_its_documented_default() {
    let name = |host: &str| Address::Name {
        host: host.to_owned(),
        port: 1,
    };
    let expected = Pool {
        name: Some("p".to_owned()),
        ..Pool::new(vec![Server::new(name("a")), Server::new(name("b"))])
    };
    assert_eq!(pool("servers = [\"a:1\", { address = \"b:1\" }]"), expected);
    assert_eq!(expected.balance, Balance::RoundRobin);
    assert_eq!(expected.retries, None);
    assert_eq!(expected.retry_timeout, Duration::from_secs(30));
    assert_eq!(expected.max_fails, 1);
    assert_eq!(expected.fail_timeout, Duration::from_secs(10));
    assert_eq!(expected.slow_start, Duration::ZERO);
    assert_eq!(expected.queue, 1024);
    assert_eq!(expected.queue_timeout, Duration::from_secs(5));
    assert_eq!(expected.check, None);
    assert_eq!(expected.resolve, Resolve::All);
    assert_eq!(expected.ttl_min, Duration::from_secs(1));
    assert_eq!(expected.ttl_max, Duration::from_secs(300));
    assert_eq!(expected.attempt_delay, Duration::from_millis(250));
    assert_eq!((expected.transparent, expected.warm), (false, 0));
    assert_eq!(expected.warm_max_age, Duration::from_secs(60));
    let server = &expected.servers[0];
    assert_eq!((server.weight, server.backup), (1, false));
    assert_eq!(server.state, AdminState::Active);
}

#[test]
fn every_key_of_a_pool_and_of_a_server_is_read() {
    let pool = pool(
        "balance = \"hash_address_port\"\nretries = 2\nretry_timeout = \"off\"\nmax_fails = 0\n\
         fail_timeout = \"3s\"\nslow_start = \"30s\"\nqueue = 5\nqueue_timeout = \"20ms\"\n\
         resolve = \"first\"\nresolve_ttl_min = \"2s\"\nresolve_ttl_max = \"2s\"\n\
         resolve_empty = \"obey\"\n\
         attempt_delay = \"10ms\"\nsource = [\"10.0.0.1\", \"::ffff:10.0.0.2\", \"fd00::1\"]\n\
         interface = \"eth0\"\nsend_proxy = { version = \"v2\", tlvs = [\"crc32c\", \"authority\"] }\nwarm = 3\nwarm_max_age = \"5s\"\n\
         servers = [{ address = \"[::1]:2\", weight = 7, backup = true, max_connections = 9,\n\
         state = \"drain\", max_fails = 4, fail_timeout = \"1m\", max_per_client = 3,\n\
         connect_rate = \"600/m\", connect_burst = 5, rate = \"1MB/s\", rate_burst = \"1s\",\n\
         send_proxy = \"off\" }, \"srv:_a._tcp.b\"]",
    );
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let expected = Pool {
        name: Some("p".to_owned()),
        servers: vec![
            Server {
                address: Address::Inet("[::1]:2".parse().expect("an address")),
                weight: 7,
                backup: true,
                max_connections: Some(9),
                state: AdminState::Drain,
                max_fails: Some(4),
                fail_timeout: Some(Duration::from_secs(60)),
                max_per_client: Some(3),
                connect_rate: Some(WrittenRate {
                    count: 600,
                    per: Period::Minute,
                }),
                connect_burst: Some(5),
                rate: Some(ByteRate {
                    up: Some(1_000_000),
                    down: Some(1_000_000),
                }),
                rate_burst: Duration::from_secs(1),
                send_proxy: Some(None),
            },
            Server::new(Address::Srv("_a._tcp.b".to_owned())),
        ],
        balance: Balance::Hash(HashKey::AddressPort),
        retries: Some(2),
        retry_timeout: Duration::MAX,
        max_fails: 0,
        fail_timeout: Duration::from_secs(3),
        slow_start: Duration::from_secs(30),
        queue: 5,
        queue_timeout: Duration::from_millis(20),
        check: None,
        resolve: Resolve::First,
        ttl_min: Duration::from_secs(2),
        ttl_max: Duration::from_secs(2),
        on_empty: OnEmpty::Obey,
        attempt_delay: Duration::from_millis(10),
        sources: vec![ip("10.0.0.1"), ip("10.0.0.2"), ip("fd00::1")],
        interface: Some("eth0".to_owned()),
        transparent: false,
        send_proxy: Some(SendProxy {
            version: Version::V2,
            authority: true,
            alpn: false,
            unique_id: false,
            crc32c: true,
            datagrams: ProxyDatagrams::Each,
        }),
        warm: 3,
        warm_max_age: Duration::from_secs(5),
    };
    assert_eq!(pool, expected);
}

#[test]
fn every_kind_of_check_is_read() {
    let defaults = check("\"tcp\"").expect("a check");
    assert_eq!(defaults.kind, CheckKind::Tcp);
    assert_eq!(defaults.interval, Duration::from_secs(2));
    assert_eq!(defaults.fast_interval, None);
    assert_eq!(defaults.timeout, Duration::from_secs(1));
    assert_eq!((defaults.rise, defaults.fall), (2, 3));
    assert_eq!((defaults.jitter, defaults.port), (10, None));
    assert_eq!(defaults.on_down, OnDown::Keep);
    assert_eq!(check("{ type = \"tcp\" }"), Some(defaults));
    assert_eq!(check("\"off\""), None);
    let kind = |text: &str| check(text).expect("a check").kind;
    let exchange = |send: &[u8], expect: &[u8]| CheckKind::Exchange {
        send: send.to_vec(),
        expect: expect.to_vec(),
    };
    let text = "{ type = \"exchange\", send = \"PING\\r\\n\", expect = \"hex:2bFF\" }";
    assert_eq!(kind(text), exchange(b"PING\r\n", b"+\xff"));
    let text = "{ type = \"exchange\", expect = \"220\" }";
    assert_eq!(kind(text), exchange(b"", b"220"));
    let http = |path: &str, host: Option<&str>, statuses| CheckKind::Http {
        path: path.to_owned(),
        host: host.map(str::to_owned),
        statuses,
    };
    assert_eq!(kind("\"http\""), http("/", None, vec![200..=399]));
    let text =
        "{ type = \"http\", path = \"/x?y\", host = \"h:8\", status = \"200, 204,300-302\" }";
    let statuses = vec![200..=200, 204..=204, 300..=302];
    assert_eq!(kind(text), http("/x?y", Some("h:8"), statuses));
    let text = "{ type = \"http\", status = 204 }";
    assert_eq!(kind(text), http("/", None, vec![204..=204]));
    assert_eq!(kind("\"tls\""), CheckKind::Tls { server_name: None });
    let server_name = Some("unix".to_owned());
    let text = "{ type = \"tls\", server_name = \"UNIX.\" }";
    assert_eq!(kind(text), CheckKind::Tls { server_name });
    let argv = vec!["/bin/x".to_owned(), "a b".to_owned()];
    let text = "{ type = \"command\", command = [\"/bin/x\", \"a b\"] }";
    assert_eq!(kind(text), CheckKind::Command { argv });
}

#[test]
fn a_timeout_that_is_left_out_fits_into_a_short_interval() {
    let times = |text: &str| {
        let check = check(&format!("{{ type = \"tcp\", {text} }}")).expect("a check");
        (check.interval, check.fast_interval, check.timeout)
    };
    let millis = Duration::from_millis;
    let expected = (millis(500), None, millis(500));
    assert_eq!(times("interval = \"500ms\""), expected);
    let expected = (millis(2000), Some(millis(100)), millis(100));
    assert_eq!(times("fast_interval = \"100ms\""), expected);
    let expected = (millis(3000), None, millis(3000));
    assert_eq!(times("interval = \"3s\", timeout = \"3s\""), expected);
}

#[test]
fn a_pool_is_written_apart_or_in_its_forward() {
    let forward = |upstream: &str| {
        let text = format!("[[forward]]\nlisten = \":1\"\nupstream = {upstream}\n");
        (*good(&text).forwards[0].pool).clone()
    };
    let keys = "servers = [\"a:1\", \"b:2\"], balance = \"first\"";
    let apart = pool("servers = [\"a:1\", \"b:2\"]\nbalance = \"first\"");
    assert_eq!(apart.name.as_deref(), Some("p"));
    assert_eq!(forward(&format!("{{ name = \"p\", {keys} }}")), apart);
    let nameless = Pool {
        name: None,
        ..apart
    };
    assert_eq!(forward(&format!("{{ {keys} }}")), nameless);
    assert_eq!(forward("\"a:1,b:2\"").servers, nameless.servers);
    let table = "{ address = \"a:1\", weight = 3 }";
    assert_eq!(forward(table).servers[0].weight, 3);
    assert_eq!(forward(&format!("[{table}]")), forward(table));
}

#[test]
fn forwards_share_a_named_pool_and_no_other() {
    let text = |upstream: &str| {
        let forward = |port| format!("[[forward]]\nlisten = \":{port}\"\nupstream = {upstream}\n");
        format!(
            "{}{}[upstream.p]\nservers = \"a:9\"\n",
            forward(1),
            forward(2)
        )
    };
    let shared = |config: &Config| Arc::ptr_eq(&config.forwards[0].pool, &config.forwards[1].pool);
    let config = good(&text("\"p\""));
    assert!(shared(&config));
    assert!(shared(&good(&config.to_toml())));
    assert!(!shared(&good(&text("\"a:9\""))));
    assert!(!shared(&good(&text("{ servers = \"a:9\" }"))));
}

#[test]
fn each_port_of_a_range_has_a_pool_of_its_own() {
    let config = good(
        "[[forward]]\nlisten = \":11-13\"\nupstream = \"p\"\n[upstream.p]\n\
         servers = [{ address = \"a:21-23\", weight = 2 }, { address = \"b:5\", backup = true }]\n\
         balance = \"least_conn\"\ncheck = \"http\"\nmax_fails = 7\n",
    );
    assert_eq!(config.forwards.len(), 3);
    for (index, forward) in config.forwards.iter().enumerate() {
        let pool = &forward.pool;
        let shown = pool.servers.iter().map(|server| server.address.to_string());
        let expected = [format!("a:{}", 21 + index), "b:5".to_owned()];
        assert!(shown.eq(expected), "{pool:?}");
        assert_eq!((pool.servers[0].weight, pool.servers[1].backup), (2, true));
        assert_eq!(pool.balance, Balance::LeastConn);
        assert_eq!((pool.max_fails, pool.name.as_deref()), (7, Some("p")));
        assert!(pool.check.is_some());
    }
    assert_eq!(Config::parse(&config.to_toml()), Ok(config));
}

#[test]
fn an_override_changes_a_pool() {
    let text = with_pool("servers = \"a:1\"\ncheck = { type = \"tcp\", interval = \"5s\" }");
    let sets = [
        "upstream.p.balance=least_conn",
        "upstream.p.check.interval=7s",
        "upstream.p.warm=2",
        "upstream.p.source=[\"10.0.0.1\"]",
        "upstream.p.servers=[\"b:1\", { address = \"c:1\", weight = 5 }]",
    ];
    let config = load(&text, &[], &sets).expect("valid");
    let pool = &config.forwards[0].pool;
    assert_eq!(pool.balance, Balance::LeastConn);
    let interval = pool.check.as_ref().map(|check| check.interval);
    assert_eq!(interval, Some(Duration::from_secs(7)));
    assert_eq!((pool.warm, pool.sources.len()), (2, 1));
    assert_eq!((pool.servers.len(), pool.servers[1].weight), (2, 5));
    // What is printed has its pool in the forward, where it can be changed, too.
    let printed = good(&text.replace("[[forward]]", "[[forward]]\nname = \"f\"")).to_toml();
    let sets = ["forward.f.upstream.balance=first"];
    let config = load(&printed, &[], &sets).expect("valid");
    assert_eq!(config.forwards[0].pool.balance, Balance::First);
    let made = ["upstream.q.servers=[\"d:1\"]", "forward.\":1\".upstream=q"];
    let config = load(&text, &[], &made).expect("valid");
    assert_eq!(config.forwards[0].pool.name.as_deref(), Some("q"));
}
