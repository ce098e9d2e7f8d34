//! What is known of servers and clients, and what an operator set, outlives a reload:
//! behaviour 114, and forwards that were drained.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;

use nix::sys::signal::Signal;

use super::kit::*;
use super::steered::{ctl, said};
use crate::kit::admin::Admin;
use crate::kit::directory::Directory;
use crate::kit::peer::{Refusing, unless_reset};
use crate::kit::*;

/// What a client reads first; `None` if it was turned away.
fn greeted(port: u16) -> Option<u8> {
    let client = unless_reset(Peer::try_connect(([127, 0, 0, 1], port).into()))?;
    let mut letter = [0];
    match (&mut client.stream()).read(&mut letter) {
        Ok(0) => None,
        Ok(_) => Some(letter[0]),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("{error}"),
    }
}

/// A client that was greeted and stays.
fn stays(port: u16) -> Peer {
    let client = Peer::connect(([127, 0, 0, 1], port).into());
    let mut letter = [0];
    (&mut client.stream()).read_exact(&mut letter).unwrap();
    client
}

fn server_of(admin: &Directory, address: SocketAddr) -> serde_json::Value {
    let listed = Admin::at(&admin.join("admin.sock"))
        .get("/v1/servers")
        .json();
    let mut listed = listed.as_array().unwrap().iter();
    let found = listed.find(|it| it["address"] == address.to_string());
    found.unwrap().clone()
}

/// Behaviour 114: weights, limits and drains that an operator set hold until the file
/// changes that very key.
#[test]
fn b114_what_an_operator_set_holds_until_the_file_changes_it() {
    on_every_engine(|case| {
        let servers = [Echo::new(b'a'), Echo::new(b'b'), Echo::new(b'c')];
        let [a, b, c] = [0, 1, 2].map(|at: usize| servers[at].address);
        let (port, admin) = (free_port(), Directory::new());
        let text = |seconds: u32, weight: u32, state: &str| {
            format!(
                "[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"pool\"\n\
                 idle_timeout = \"{seconds}s\"\n[upstream.pool]\nretries = {}\nservers = [\n\
                 {{ address = \"{a}\", weight = {weight} }}, {{ address = \"{b}\"{state} }}, \"{c}\" ]\n",
                seconds % 5
            )
        };
        let start = text(100, 1, "");
        let it = Reloadable::with(case, &start, 1, Some(2), |setup| setup.admin(&admin));
        said(
            admin.path(),
            &["server", &format!("pool/{a}"), "weight", "3"],
        );
        said(admin.path(), &["server", &format!("pool/{b}"), "drain"]);
        said(
            admin.path(),
            &["server", &format!("pool/{c}"), "limit", "77"],
        );
        let seen = |of: SocketAddr, key: &str| server_of(&admin, of)[key].clone();
        for turn in 1..=10 {
            it.reloads(&text(100 + turn, 1, ""));
            assert_eq!(seen(a, "weight"), 3, "{turn}");
            assert_eq!(seen(b, "state"), "drain", "{turn}");
            assert_eq!(seen(c, "max_connections"), 77, "{turn}");
        }
        // Three to one, and none for the one that drains.
        let went: Vec<char> = (0..16).map(|_| greeted(port).unwrap().into()).collect();
        let count = |letter| went.iter().filter(|it| **it == letter).count();
        assert_eq!((count('a'), count('b'), count('c')), (12, 0, 4));
        // The file says something of one key: that holds, the others are still the operator's.
        it.reloads(&text(200, 2, ""));
        assert_eq!(seen(a, "weight"), 2);
        assert_eq!(seen(b, "state"), "drain");
        it.reloads(&text(201, 2, ", state = \"maintenance\""));
        assert_eq!(seen(b, "state"), "maintenance");
        it.reloads(&text(202, 2, ""));
        assert_eq!(
            (seen(b, "state"), seen(a, "weight")),
            ("up".into(), 2.into())
        );
        assert_eq!(seen(c, "max_connections"), 77);
    });
}

/// Behaviour 114: a server that sessions marked stays marked.
#[test]
fn b114_marks_survive() {
    on_every_engine(|case| {
        let (dead, alive, port) = (Refusing::new(), Echo::new(b'a'), free_port());
        let admin = Directory::new();
        let text = |seconds: u32| {
            format!(
                "[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nidle_timeout = \"{seconds}s\"\n\
                 [forward.upstream]\nservers = [\"{}\", \"{}\"]\nbalance = \"first\"\n\
                 max_fails = 1\nfail_timeout = \"1h\"\nqueue_timeout = \"{seconds}s\"\n",
                dead.address(),
                alive.address
            )
        };
        let it = Reloadable::with(case, &text(100), 1, Some(2), |setup| setup.admin(&admin));
        assert_eq!(greeted(port), Some(b'a'));
        it.forwarder.wait_for_line("is marked");
        for turn in 1..=10 {
            it.reloads(&text(100 + turn));
            assert_eq!(greeted(port), Some(b'a'));
        }
        let server = server_of(&admin, dead.address());
        assert_eq!(
            (&server["state"], &server["connects"]),
            (&"marked".into(), &1.into())
        );
        assert_eq!(it.forwarder.lines_with("is marked").len(), 1);
    });
}

/// Behaviour 114: a server that has just come back goes on slowly.
#[test]
fn b114_a_slow_start_goes_on() {
    on_every_engine(|case| {
        let (first, port, later) = (Echo::new(b'a'), free_port(), free_port());
        let admin = Directory::new();
        let back = SocketAddr::from(([127, 0, 0, 1], later));
        let text = |seconds: u32| {
            format!(
                "[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nidle_timeout = \"{seconds}s\"\n\
                 [forward.upstream]\nservers = [\"{}\", \"{back}\"]\nslow_start = \"10h\"\n\
                 queue_timeout = \"{seconds}s\"\n\
                 check = {{ type = \"tcp\", interval = \"100ms\", fast_interval = \"50ms\" }}\n",
                first.address
            )
        };
        let it = Reloadable::with(case, &text(100), 1, Some(1), |setup| setup.admin(&admin));
        let state = || server_of(&admin, back)["state"].clone();
        until("one is down", || state() == "down");
        let second = Echo::at(back, b'b');
        until("it is back", || state() == "up");
        for turn in 1..=8 {
            it.reloads(&text(100 + turn));
            for _ in 0..8 {
                greeted(port).unwrap();
            }
        }
        // A 17th of 64; without a slow start it would be half.
        let went = it.forwarder.counters().of("accepted");
        let to_it = server_of(&admin, back)["connects"].as_u64().unwrap();
        assert!((1..=8).contains(&to_it), "{to_it} of {went}");
        drop(second);
    });
}

/// Behaviour 114: who is in stays counted against the limit of its client, and what rules
/// have counted goes on.
#[test]
fn b114_counts_of_clients_and_rules_survive() {
    on_every_engine(|case| {
        let (server, port) = (Echo::new(b'a'), free_port());
        let text = |seconds: u32, rules: &str| {
            format!(
                "[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"{}\"\n\
                 idle_timeout = \"{seconds}s\"\nmax_per_client = 3\naccess = [{rules}]\n",
                server.address
            )
        };
        let rules = "\"deny 127.0.0.9\", \"deny 127.0.0.8\", \"allow all\"";
        let it = Reloadable::with(case, &text(100, rules), 1, Some(2), |setup| setup);
        let mut held: Vec<Peer> = (0..3).map(|_| stays(port)).collect();
        let denied = || {
            let to = ([127, 0, 0, 1], port).into();
            let client = unless_reset(client_of(9, to));
            client.map(|mut it| it.receive_until_end());
        };
        denied();
        for turn in 1..=5 {
            it.reloads(&text(100 + turn, rules));
            assert_eq!(greeted(port), None, "a fourth one of three");
            denied();
        }
        drop(held.pop());
        until("there is room for one", || greeted(port).is_some());
        // Another rule in front: those that are written as before go on.
        it.reloads(&text(200, &format!("\"deny 127.0.0.7\", {rules}")));
        denied();
        it.forwarder.process().signal(Signal::SIGUSR1);
        let line = it.forwarder.wait_for_line("denied=7");
        assert!(line.message().contains("127.0.0.9"), "{line:?}");
    });
}

/// Behaviour 114: flows of datagrams go on from the same port, and a client that is known by
/// its address keeps its server; one more server takes from each a share and nothing else.
#[test]
fn b114_flows_and_the_table_of_hashes_survive() {
    on_every_engine(|case| {
        let servers = [b'a', b'b', b'c', b'd'].map(Echo::new);
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
        let [web, dns] = [free_port(), free_port()];
        let text = |seconds: u32, count: usize| {
            let listed = servers[..count].iter();
            let listed: Vec<String> = listed.map(|it| format!("\"{}\"", it.address)).collect();
            format!(
                "[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{web}\"\nidle_timeout = \"{seconds}s\"\n\
                 [forward.upstream]\nbalance = \"hash_address\"\nservers = [{}]\n\
                 [[forward]]\nname = \"dns\"\nprotocol = \"udp\"\nlisten = \"127.0.0.1:{dns}\"\n\
                 idle_timeout = \"{seconds}s\"\nupstream = \"{}\"\n",
                listed.join(", "),
                datagrams.local_addr().unwrap()
            )
        };
        let it = Reloadable::with(case, &text(100, 3), 2, Some(2), |setup| setup);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let flow = || {
            let to = SocketAddr::from(([127, 0, 0, 1], dns));
            client.send_to(b"x", to).unwrap();
            datagrams.recv_from(&mut [0; 8]).unwrap().1
        };
        let places = || -> Vec<u8> {
            let to = ([127, 0, 0, 1], web).into();
            let one = |last| {
                let mut letter = [0];
                let client = client_of(last, to).unwrap();
                client.stream().read_exact(&mut letter).unwrap();
                letter[0]
            };
            (10..40).map(one).collect()
        };
        let (from, before) = (flow(), places());
        it.reloads(&text(101, 3));
        assert_eq!((flow(), places()), (from, before.clone()));
        it.reloads(&text(102, 4));
        let after = places();
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before != after);
        let (to_new, others): (Vec<_>, Vec<_>) = moved.partition(|(_, after)| **after == b'd');
        // A table of Maglev moves a few beside those that the new one takes.
        assert!(
            !to_new.is_empty() && to_new.len() <= 15,
            "{before:?} {after:?}"
        );
        assert!(others.len() <= 5, "{before:?} {after:?}");
        assert_eq!(flow(), from);
        it.reloads(&text(103, 3));
        assert_eq!((flow(), places()), (from, before));
    });
}

/// Who is in when a rule comes that denies him stays until he goes; who comes is denied.
#[test]
fn sessions_of_a_client_that_is_denied_by_now_go_on() {
    on_every_engine(|case| {
        let (server, port, admin) = (Echo::new(b'a'), free_port(), Directory::new());
        let text = |rules: &str| {
            format!(
                "[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"{}\"\n{rules}",
                server.address
            )
        };
        let it = Reloadable::with(case, &text(""), 1, Some(2), |setup| setup.admin(&admin));
        let mut inside = stays(port);
        it.reloads(&text("access = [\"deny 127.0.0.1\", \"allow all\"]\n"));
        assert_eq!(greeted(port), None);
        inside.send(100);
        assert_eq!(
            it.forwarder.counters().of("ended"),
            1,
            "the one that was denied"
        );
        // Whoever wants them gone says so.
        said(admin.path(), &["kill", "--client", "127.0.0.1/32"]);
        // What was echoed, and then a reset.
        let end = (&mut inside.stream()).read_to_end(&mut Vec::new());
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        it.reloads(&text(""));
        assert_eq!(greeted(port), Some(b'a'));
    });
}

/// Behaviour 114: a forward that an operator drained stays so through reloads, until he
/// wants it back.
#[test]
fn b114_a_drained_forward_stays_drained_and_comes_back_by_ctl() {
    on_every_engine(|case| {
        let (server, admin) = (Echo::new(b'a'), Directory::new());
        let [web, other] = [free_port(), free_port()];
        let path = admin.join("web.sock");
        let text = |seconds: u32| {
            format!(
                "[[forward]]\nname = \"web\"\nlisten = [\"127.0.0.1:{web}\", \"unix:{}\"]\n\
                 upstream = \"{}\"\nidle_timeout = \"{seconds}s\"\n\
                 [[forward]]\nname = \"other\"\nlisten = \"127.0.0.1:{other}\"\nupstream = \"{}\"\n",
                path.display(),
                server.address,
                server.address
            )
        };
        let it = Reloadable::with(case, &text(100), 2, Some(2), |setup| setup.admin(&admin));
        let mut inside = stays(web);
        let is_there = || std::os::unix::net::UnixStream::connect(&path).is_ok();
        assert!(is_there());
        let ready = || ctl(admin.path(), &["forward", "web", "ready"]);
        // Nothing to do.
        assert!(ready().status.success());
        for turn in 1..=2 {
            said(admin.path(), &["forward", "web", "drain"]);
            until("it refuses", || {
                Peer::try_connect(([127, 0, 0, 1], web).into()).is_err()
            });
            assert!(!is_there());
            it.reloads(&text(100 + turn));
            assert!(Peer::try_connect(([127, 0, 0, 1], web).into()).is_err());
            assert!(!is_there());
            // Somebody else has the port: it stays as it is.
            let thief = std::net::TcpListener::bind(("127.0.0.1", web)).unwrap();
            let refused = ready();
            let why = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(1), "{why}");
            assert!(why.contains(&web.to_string()), "{why}");
            drop(thief);
            let text = said(admin.path(), &["forward", "web", "ready"]);
            assert!(text.contains("web: serving"), "{text}");
            assert_eq!(greeted(web), Some(b'a'));
            assert!(is_there());
            inside.send(100);
            assert_eq!(greeted(other), Some(b'a'));
        }
        // It is like any other again.
        let sockets = it.listening();
        it.reloads(&text(200));
        assert_eq!(it.listening(), sockets);
        assert!(server.served.load(Ordering::Relaxed) > 4);
    });
}

/// Routes: what changes is that route; sessions of the others, and their counts, go on.
#[test]
fn routes_change_by_their_names() {
    on_every_engine(|case| {
        let servers = [Echo::new(b'a'), Echo::new(b'b'), Echo::new(b'c')];
        let (port, admin) = (free_port(), Directory::new());
        let text = |eight: usize, more: &str| {
            format!(
                "[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"{}\"\n\
                 [[forward.route]]\nname = \"nine\"\nclient = \"127.0.0.9\"\nupstream = \"{}\"\n\
                 [[forward.route]]\nname = \"eight\"\nclient = \"127.0.0.8\"\nupstream = \"{}\"\n{more}",
                servers[0].address, servers[1].address, servers[eight].address
            )
        };
        let it = Reloadable::with(case, &text(1, ""), 1, Some(2), |setup| setup.admin(&admin));
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        let came = |last: u8| {
            let client = client_of(last, to).unwrap();
            let mut letter = [0];
            (&mut client.stream()).read_exact(&mut letter).unwrap();
            (client, letter[0])
        };
        let (mut one, mut nine, mut eight) = (came(1), came(9), came(8));
        assert_eq!((one.1, nine.1, eight.1), (b'a', b'b', b'b'));
        it.reloads(&text(2, ""));
        assert_eq!((came(1).1, came(9).1, came(8).1), (b'a', b'b', b'c'));
        for (client, _) in [&mut one, &mut nine, &mut eight] {
            client.send(100);
        }
        // One more in front of nobody, and one less.
        let seven = format!(
            "[[forward.route]]\nname = \"seven\"\nclient = \"127.0.0.7\"\nupstream = \"{}\"\n",
            servers[2].address
        );
        it.reloads(&text(2, &seven));
        assert_eq!((came(7).1, came(9).1), (b'c', b'b'));
        it.reloads(&text(2, ""));
        assert_eq!((came(7).1, came(9).1), (b'a', b'b'));
        for (client, _) in [&mut one, &mut nine, &mut eight] {
            client.send(100);
        }
        it.forwarder.process().signal(Signal::SIGUSR1);
        let taken = it.forwarder.wait_for_line("route=nine");
        assert_eq!(taken.number("sessions"), Some(4), "{taken:?}");
    });
}

/// A forward to the first of two servers, which has a limit, and to the second one else.
fn limited(name: &str, port: u16, servers: &[Echo; 2], limit: &str, seconds: u32) -> String {
    format!(
        "[[forward]]\nname = \"{name}\"\nlisten = \"127.0.0.1:{port}\"\nidle_timeout = \"{seconds}s\"\n\
         upstream = {{ balance = \"first\", servers = [{{ address = \"{}\", {limit} }}, \"{}\"] }}\n",
        servers[0].address, servers[1].address
    )
}

/// Behaviour 114: what a server's own limits have counted stays counted, and a limit that the
/// file changes holds for those who come.
#[test]
fn b114_limits_of_a_server_count_on() {
    on_every_engine(|case| {
        let servers = [Echo::new(b'a'), Echo::new(b'b')];
        let [web, paced] = [free_port(), free_port()];
        let text = |seconds: u32, most: u32| {
            let of_client = format!("max_per_client = {most}");
            let rate = "connect_rate = \"1/h\", connect_burst = 3";
            limited("web", web, &servers, &of_client, seconds)
                + &limited("paced", paced, &servers, rate, seconds)
        };
        let it = Reloadable::with(case, &text(100, 2), 2, Some(2), |setup| setup);
        let mut held = vec![stays(web), stays(web)];
        assert_eq!(servers[0].served.load(Ordering::Relaxed), 2);
        assert_eq!(greeted(web), Some(b'b'), "a third one of two");
        assert_eq!([greeted(paced), greeted(paced)], [Some(b'a'); 2]);
        it.reloads(&text(101, 2));
        assert_eq!(greeted(web), Some(b'b'), "after a reload as well");
        assert_eq!(greeted(paced), Some(b'a'), "the third of three an hour");
        it.reloads(&text(102, 3));
        let third = stays(web);
        assert_eq!(servers[0].served.load(Ordering::Relaxed), 6);
        assert_eq!(greeted(web), Some(b'b'), "a fourth one of three");
        assert_eq!(greeted(paced), Some(b'b'), "the fourth of three an hour");
        it.reloads(&text(103, 3));
        held.push(third);
        drop(held.pop());
        until("there is room for one", || greeted(web) == Some(b'a'));
    });
}

/// Behaviour 114: bytes that a server was given stay given. A reload is no pause in which a
/// burst is earned anew.
#[test]
fn b114_a_rate_of_a_server_goes_on() {
    const BURST: usize = 100_000;
    on_every_engine(|case| {
        let servers = [Echo::new(b'a'), Echo::new(b'b')];
        let port = free_port();
        let rate = "rate = { up = \"100kB/s\" }, rate_burst = \"1s\"";
        let text = |seconds: u32| limited("web", port, &servers, rate, seconds);
        let it = Reloadable::with(case, &text(100), 1, Some(1), |setup| setup);
        let began = std::time::Instant::now();
        let passes = || {
            let client = stays(port);
            let mut stream = client.stream();
            stream.write_all(&vec![1; BURST]).unwrap();
            stream.read_exact(&mut vec![0; BURST]).unwrap();
        };
        passes();
        it.reloads(&text(101));
        passes();
        // The last share of it is an eighth, and is had before it is paid for.
        let took = began.elapsed();
        assert!(
            took.as_millis() >= 800,
            "twice what flows in a second: {took:?}"
        );
        assert_eq!(servers[0].served.load(Ordering::Relaxed), 2);
    });
}
