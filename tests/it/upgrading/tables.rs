//! What is known besides sockets and sessions: behaviour 132.

use std::collections::BTreeMap;
use std::time::Duration;

use super::kit::*;
use crate::kit::*;
use crate::reloading::kit::{Echo, Load};

/// What only grows on /metrics, but for what is the process's own: its time on the CPU, and
/// lines that its log lost.
fn totals(admin: &Admin) -> BTreeMap<String, f64> {
    let answer = admin.get("/metrics");
    let body = &answer.body;
    let counters: Vec<&str> = body
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| {
            line.strip_suffix(" counter")
                .or(line.strip_suffix(" histogram"))
        })
        .collect();
    let own = ["process_", "reactor_cpu", "log_dropped", "helper_panics"];
    let grows = |name: &str| {
        let of = |it: &str| {
            let rest = name.strip_prefix(it);
            rest.is_some_and(|it| ["", "_bucket", "_sum", "_count"].contains(&it))
        };
        counters.iter().any(|it| of(it)) && !own.iter().any(|it| name.contains(it))
    };
    let samples = body.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let name = series.split('{').next()?;
        Some((
            series.to_owned(),
            value.parse().ok().filter(|_| grows(name))?,
        ))
    });
    samples.collect()
}

/// Behaviour 132: ten upgrades with sessions that come and go.
#[test]
fn b132_no_total_falls_over_ten_upgrades() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let it = Upgradable::start(Setup::new(server.address).case(case).reactors(2));
        let address = it.forwarder.address();
        let mut held: Vec<Held> = (0..5).map(|_| Held::open(address)).collect();
        let load = Load::begin(&[address], 2);
        std::thread::sleep(Duration::from_millis(50));
        let mut before = totals(&it.admin());
        assert!(before.len() > 100, "{}", before.len());
        let mut process = it.serving();
        for round in 1..=10 {
            let next = it.upgrade();
            let now = totals(&it.admin());
            for (series, was) in &before {
                let is = now.get(series).copied().unwrap_or(0.0);
                assert!(
                    is >= *was,
                    "round {round}: {series} falls from {was} to {is}"
                );
            }
            is_gone(process);
            (before, process) = (now, next);
            let generation = it.admin().get("/metrics").sum("thalweg_config_generation");
            assert!(generation > f64::from(round), "{generation}");
            held.iter_mut().for_each(Held::ping);
            // Sessions that were moved go by it.
            let sessions = it.admin().get("/v1/sessions").json();
            let sessions = sessions["sessions"].as_array().unwrap();
            assert!(sessions.len() >= held.len(), "{sessions:?}");
            for session in sessions {
                assert_eq!(
                    session["generation"].as_f64(),
                    Some(generation),
                    "{session}"
                );
            }
        }
        load.end();
        drop(held);
        // All of them are in the last one's books.
        let sessions = server.served.load(std::sync::atomic::Ordering::Relaxed);
        wait_until("all sessions are counted", PATIENCE, || {
            let metrics = it.admin().get("/metrics");
            let ended = metrics.sum("thalweg_forward_ended_total");
            ended >= sessions as f64 && metrics.sum("thalweg_accepted_total") >= sessions as f64
        });
        // And none is counted by two processes.
        let metrics = it.admin().get("/metrics");
        for total in ["thalweg_forward_ended_total", "thalweg_accepted_total"] {
            let counted = metrics.sum(total);
            assert!(
                counted <= sessions as f64,
                "{total}: {counted} of {sessions}"
            );
        }
    });
}

/// Behaviour 132: what an operator has said of servers.
#[test]
fn b132_drains_weights_and_limits_stay() {
    on_every_engine(|case| {
        let servers = [Echo::new(b'a'), Echo::new(b'b')];
        let [a, b] = servers.each_ref().map(|it| it.address);
        let it = Upgradable::start(Setup::new(format!("{a},{b}")).case(case));
        let name = |address: std::net::SocketAddr| address.to_string();
        for words in [
            vec!["server", &*name(a), "drain"],
            vec!["server", &*name(b), "weight", "7"],
            vec!["server", &*name(b), "limit", "99"],
        ] {
            let said = it.ctl(&words);
            assert!(said.status.success(), "{said:?}");
        }
        let shown = || {
            let servers = it.admin().get("/v1/servers").json();
            let shown = servers.as_array().unwrap().iter().map(|it| {
                let word = |key: &str| it[key].to_string();
                ["address", "state", "weight", "max_connections"].map(word)
            });
            shown.collect::<Vec<_>>()
        };
        let before = shown();
        assert!(
            before.iter().flatten().any(|it| it == "\"drain\""),
            "{before:?}"
        );
        for _ in 0..2 {
            it.upgrade();
            assert_eq!(shown(), before);
        }
        for _ in 0..6 {
            it.exchange();
        }
        let served = |at: usize| {
            servers[at]
                .served
                .load(std::sync::atomic::Ordering::Relaxed)
        };
        assert_eq!((served(0), served(1)), (0, 6));
    });
}

/// Behaviour 132: how fast a client has connected, and which servers its sessions' failures
/// have marked.
#[test]
fn b132_rates_of_clients_and_marks_of_servers_stay() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        // Nobody listens there, so each that goes there first marks it for long.
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dead = gone.local_addr().unwrap();
        drop(gone);
        let directory = directory::Directory::new();
        let file = directory.join("thalweg.toml");
        let text = format!(
            "[[forward]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\nupstream = \"p\"\n\
             connect_rate = \"1/h\"\nconnect_burst = 3\n[upstream.p]\n\
             servers = [\"{dead}\", \"{}\"]\nmax_fails = 1\nfail_timeout = \"1h\"\n",
            server.address
        );
        std::fs::write(&file, text).unwrap();
        let setup = Setup::configured(&file, 1).engine(case.engine);
        let it = Upgradable::start_in(setup, directory);
        it.exchange();
        it.exchange();
        let state = || {
            let servers = it.admin().get("/v1/servers").json();
            let mut servers = servers.as_array().unwrap().clone();
            servers.retain(|it| it["address"] == dead.to_string());
            servers[0]["state"].clone()
        };
        let before = state();
        assert_eq!(before, "marked", "{}", it.admin().get("/v1/servers").body);
        it.upgrade();
        assert_eq!(state(), before);
        it.exchange();
        // The fourth of three an hour, whichever process has seen them.
        let mut fourth = std::net::TcpStream::connect(it.forwarder.address()).unwrap();
        fourth.set_read_timeout(Some(PATIENCE)).unwrap();
        let said = std::io::Read::read(&mut fourth, &mut [0; 1]);
        assert!(matches!(said, Ok(0) | Err(_)), "{said:?}");
        let denied = it
            .admin()
            .get("/metrics")
            .sum("thalweg_clients_denied_total");
        assert!((denied - 1.0).abs() < 0.5, "{denied}");
    });
}

/// A forwarder to the first of two servers, which has a limit, and to the second one else.
fn to_a_limited_server(case: Case, servers: &[Echo; 2], limit: &str) -> Upgradable {
    let directory = directory::Directory::new();
    let file = directory.join("thalweg.toml");
    let text = format!(
        "[[forward]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\nupstream = {{ balance = \"first\", \
         servers = [{{ address = \"{}\", {limit} }}, \"{}\"] }}\n",
        servers[0].address, servers[1].address
    );
    std::fs::write(&file, text).unwrap();
    let setup = Setup::configured(&file, 1).engine(case.engine);
    Upgradable::start_in(setup, directory)
}

/// How many sessions each server was given.
fn served(servers: &[Echo; 2]) -> [u64; 2] {
    [0, 1].map(|at: usize| {
        let served = &servers[at].served;
        served.load(std::sync::atomic::Ordering::Relaxed)
    })
}

/// Behaviour 132: sessions that are handed over are counted with their client at the server that
/// they are on, and no more when they end.
#[test]
fn b132_what_clients_have_of_a_server_stays_counted() {
    on_every_engine(|case| {
        let servers = [Echo::new(b'a'), Echo::new(b'b')];
        let it = to_a_limited_server(case, &servers, "max_per_client = 2");
        let mut held = [(); 2].map(|()| Held::open(it.forwarder.address()));
        it.exchange();
        assert_eq!(served(&servers), [2, 1], "a third one of two");
        for others in [2, 3] {
            it.upgrade();
            for held in &mut held {
                held.ping();
            }
            it.exchange();
            assert_eq!(served(&servers), [2, others]);
        }
        let [first, _second] = held;
        drop(first);
        wait_until("there is room for one", PATIENCE, || {
            it.exchange();
            served(&servers)[0] == 3
        });
    });
}

/// Behaviour 132: how fast a server was given sessions.
#[test]
fn b132_the_connect_rate_of_a_server_goes_on() {
    on_every_engine(|case| {
        let servers = [Echo::new(b'a'), Echo::new(b'b')];
        let limit = "connect_rate = \"1/h\", connect_burst = 3";
        let it = to_a_limited_server(case, &servers, limit);
        it.exchange();
        it.exchange();
        it.upgrade();
        it.exchange();
        assert_eq!(served(&servers), [3, 0]);
        it.upgrade();
        it.exchange();
        assert_eq!(served(&servers), [3, 1], "the fourth of three an hour");
    });
}

/// Sends so many bytes, and how many of them have come back by then.
fn echoed_by(end: std::time::Instant, to: std::net::SocketAddr, len: usize) -> usize {
    use std::io::{Read as _, Write as _};
    let mut client = std::net::TcpStream::connect(to).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.read_exact(&mut [0]).unwrap();
    let mut sender = client.try_clone().unwrap();
    // Its writes fail once the connection is shut.
    let sent = std::thread::spawn(move || sender.write_all(&vec![7; len]));
    let (mut came, mut room) = (0, vec![0; 64 << 10]);
    while came < len {
        let left = end.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            break;
        }
        client.set_read_timeout(Some(left)).unwrap();
        came += client.read(&mut room).unwrap_or(0);
    }
    let _ = client.shutdown(std::net::Shutdown::Both);
    let _ = sent.join();
    came
}

/// Behaviour 132: how fast bytes went to a server. In any time no more of them flow than the burst and what the rate
/// lets through, whichever process has seen them.
#[test]
fn b132_the_bytes_of_a_server_go_on() {
    const RATE: f64 = 20e3;
    // Of ten seconds.
    const BURST: f64 = 10.0 * RATE;
    // A share, and what a ring had received of each session before it was held back.
    const AHEAD: f64 = 48.0 * 1024.0;
    on_every_engine(|case| {
        let servers = [Echo::new(b'a'), Echo::new(b'b')];
        let limit = "rate = { up = \"20kB/s\" }, rate_burst = \"10s\"";
        let it = to_a_limited_server(case, &servers, limit);
        let start = std::time::Instant::now();
        let at_once = (BURST * 0.9) as usize;
        let address = it.forwarder.address();
        let first = echoed_by(start + PATIENCE, address, at_once);
        assert_eq!(first, at_once, "it is within the burst");
        it.upgrade();
        let soon = std::time::Instant::now() + Duration::from_secs(1);
        let second = echoed_by(soon, address, at_once);
        let most = BURST + RATE * start.elapsed().as_secs_f64() + AHEAD;
        let all = (first + second) as f64;
        assert!(
            all <= most,
            "{first} and {second} bytes in {:?}",
            start.elapsed()
        );
        assert!(second > 0, "the rest of the burst flows");
    });
}

/// Behaviour 132: what a name resolves to, for as long as that would have been good. A name
/// server that fails meanwhile takes no server away, and is not asked again so soon.
#[test]
fn b132_what_names_resolve_to_goes_along() {
    on_every_engine(|case| {
        let (server, dns) = (Echo::new(b'a'), dns::Dns::start());
        dns.set("db.test", dns::Says::addresses(3600, &["127.0.0.1"]));
        let setup = Setup::new(format!("db.test:{}", server.address.port()));
        let setup = setup.set("global.dns_servers", format!("\"{}\"", dns.address()));
        let it = Upgradable::start(setup.case(case));
        it.exchange();
        let asked = dns.asked_for("db.test");
        dns.set("db.test", dns::Says::SERV_FAIL);
        let before = it.serving();
        // What the second one has it has from the first, not from a name server.
        for _ in 0..2 {
            it.upgrade();
            it.exchange();
        }
        is_gone(before);
        assert_eq!(dns.asked_for("db.test"), asked);
    });
}

/// Behaviour 132: connections that stand ready go along, and no other is made beside them.
#[test]
fn b132_spare_connections_go_along() {
    on_every_engine(|case| {
        let server = Listener::new();
        let setup = Setup::new(server.address()).set("defaults.upstream.warm", 2);
        let it = Upgradable::start(setup.case(case));
        let mut ready = vec![server.accept(), server.accept()];
        // One that comes to nothing leaves them where they are.
        let fake = super::fake::Fake::new_process(&it.entrance());
        let mut able = super::fake::hello();
        able["features"] = serde_json::json!(["tables", "spares"]);
        let (labels, sockets) = fake.prepare_with(&able);
        fake.say(&serde_json::json!({ "kind": "ready", "taken": labels }));
        let spares = fake.hear("spares");
        assert_eq!(spares.descriptors.len(), 2);
        drop((fake, sockets, spares));
        it.forwarder.wait_for_line("no upgrade: ");
        for _ in 0..2 {
            let before = it.serving();
            it.upgrade();
            is_gone(before);
        }
        assert!(server.accept_within(Duration::from_millis(100)).is_none());
        // The server sees no end of them, and a client gets one.
        let mut client = it.forwarder.connect();
        client.send(1000);
        let now = Duration::from_millis(1);
        let at = poll(PATIENCE, || {
            ready.iter().position(|it| it.is_readable_within(now))
        });
        let mut upstream = ready.swap_remove(at.expect("a spare is used"));
        upstream.expect(1000);
        upstream.send(1000);
        client.expect(1000);
        // It is replaced, by one.
        let _replaced = server.accept();
        assert!(server.accept_within(Duration::from_millis(100)).is_none());
        assert!(!ready[0].is_readable_within(now), "the other one stands");
    });
}

/// A tap shows nothing of what goes on in another process, and says in which.
#[test]
fn a_tap_says_where_its_session_goes_on() {
    on_every_engine(|case| {
        let (server, directory) = (Echo::new(b'a'), directory::Directory::new());
        let shown = directory.join("tap");
        let setup = Setup::new(server.address)
            .set("defaults.tap.format", "text")
            .set("defaults.tap.to", shown.display());
        let it = Upgradable::start(setup.case(case));
        let mut held = Held::open(it.forwarder.address());
        held.ping();
        let before = it.serving();
        let process = it.upgrade();
        held.ping();
        is_gone(before);
        drop(held);
        let wanted = format!("moved process={} up=4 down=5 ", process.0);
        wait_until("the tap says so", PATIENCE, || {
            std::fs::read_to_string(&shown).unwrap().contains(&wanted)
        });
    });
}
