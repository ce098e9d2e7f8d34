//! Who may come in: access lists and limits by client, behaviours 74 to 88.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::kit::directory::Directory;
use crate::kit::peer::{transfer, unless_reset};
use crate::kit::*;

/// A client of another address of this host.
fn from(last: u8, to: SocketAddr) -> io::Result<Peer> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let address = SocketAddr::new(Ipv4Addr::new(127, 0, 0, last).into(), 0);
    socket.bind(&address.into())?;
    socket.connect(&to.into())?;
    Ok(Peer::client(TcpStream::from(socket)))
}

/// How it ended for a client that was turned away.
fn end(client: io::Result<Peer>) -> End {
    unless_reset(client).map_or(End::Reset, |mut client| client.receive_until_end())
}

/// Behaviours 74 and 77: nothing of it reaches the server.
#[test]
fn b77_a_denied_client_is_turned_away_before_a_dial() {
    on_every_engine(|case| {
        for (on_deny, expected) in [("reset", End::Reset), ("close", End::Eof)] {
            let server = Listener::new();
            let access = "[\"allow 127.0.0.3\", \"deny 127.0.0.0/30\", \"allow all\"]";
            let forwarder = Setup::new(server.address())
                .case(case)
                .set("defaults.access", access)
                .set("defaults.on_deny", format!("\"{on_deny}\""))
                .start();
            let to = forwarder.address();
            assert_eq!(end(from(2, to)), expected, "{on_deny}");
            // By a rule before it, and by none that denies.
            for last in [3, 4] {
                let mut client = from(last, to).unwrap();
                let mut upstream = server.accept();
                transfer(&mut client, &mut upstream, 1000);
                client.close();
                upstream.close();
            }
            forwarder.wait_for_sessions(2);
            assert!(
                server.accept_within(Duration::ZERO).is_none(),
                "it was dialled"
            );
            let counters = forwarder.counters();
            assert_eq!(counters.of("accepted"), 3);
            assert_eq!(counters.of("ended"), 3);
            assert_eq!(counters.of("connects"), 2);
            assert_eq!(counters.of("denied_access"), 1);
            let line = forwarder.wait_for_line("turned away");
            assert_eq!((line.code(), line.cause()), ("PR", "access"));
            assert!(
                line.text("reason").contains("deny 127.0.0.0/30"),
                "{line:?}"
            );
            let rule = forwarder.wait_for_line("denied=1");
            assert_eq!(rule.number("denied"), Some(1), "{rule:?}");
            forwarder.check_idle();
        }
    });
}

/// Behaviour 77: no packet, and the descriptor is free at once.
#[test]
fn b77_a_dropped_client_hears_nothing() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("defaults.access", "[\"deny all\"]")
            .set("defaults.on_deny", "\"drop\"")
            .start();
        let client = from(2, forwarder.address());
        wait_until("it is counted", PATIENCE, || {
            forwarder.counters().of("denied_access") == 1
        });
        forwarder.check_idle();
        if !nix::unistd::geteuid().is_root() {
            skip(&test_name(), "a drop without a packet needs CAP_NET_ADMIN");
            assert_eq!(end(client), End::Reset);
            return;
        }
        let client = client.unwrap();
        assert!(
            !client.is_readable_within(Duration::from_secs(10)),
            "it heard"
        );
        // Whoever sends learns that nobody is there.
        let mut client = client;
        let _ = client.try_send(1);
        assert_eq!(client.receive_until_end(), End::Reset);
    });
}

/// Behaviour 78: exact counters, and a bounded number of lines.
#[test]
fn b78_a_storm_of_denied_clients_is_a_line_for_each_rule() {
    const STORM: u64 = 2_000;
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set(
                "defaults.access",
                "[\"deny 127.0.0.2\", \"deny 127.0.0.3\"]",
            )
            .start();
        let (mut client, to) = (from(9, forwarder.address()).unwrap(), forwarder.address());
        let mut upstream = server.accept();
        let watch = Stopwatch::start();
        for n in 0..STORM {
            drop(from(2 + (n % 2) as u8, to));
            if n % 100 == 0 {
                transfer(&mut client, &mut upstream, 10);
                transfer(&mut upstream, &mut client, 10);
            }
        }
        wait_until("all are counted", PATIENCE, || {
            forwarder.counters().of("denied_access") == STORM
        });
        let lines = forwarder.lines_with("turned away").len() as u64;
        let most = 2 * (1 + watch.elapsed().as_secs() / 10);
        assert!((2..=most).contains(&lines), "{lines} lines");
        client.close();
        upstream.close();
        forwarder.wait_for_sessions(1);
        forwarder.check_idle();
    });
}

/// Behaviours 79 and 81, over two reactors.
#[test]
fn b79_one_client_has_so_many_connections_and_others_are_not_touched() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .reactors(2)
            .set("defaults.max_per_client", 10)
            .start();
        let to = forwarder.address();
        let mut held: Vec<_> = (0..10).map(|_| from(2, to).unwrap()).collect();
        let mut upstreams: Vec<_> = (0..10).map(|_| server.accept()).collect();
        assert_eq!(end(from(2, to)), End::Reset);
        let other = from(3, to).unwrap();
        drop(server.accept());
        drop(other);
        // A place is free after an end.
        held.pop().unwrap().close();
        for upstream in upstreams.drain(..) {
            upstream.close();
        }
        drop(held);
        forwarder.wait_for_sessions(11);
        let again: Vec<_> = (0..10).map(|_| from(2, to).unwrap()).collect();
        for _ in 0..10 {
            drop(server.accept());
        }
        drop(again);
        forwarder.wait_for_sessions(21);
        let counters = forwarder.counters();
        assert_eq!(counters.of("denied_max_per_client"), 1);
        let line = forwarder.wait_for_line("turned away");
        assert_eq!((line.code(), line.cause()), ("PR", "max_per_client"));
        forwarder.check_idle();
    });
}

/// Behaviour 79: places are given back once, however a session ends. If one were kept, or
/// given back twice, another number than the limit would come in afterwards.
#[test]
fn b79_places_are_exact_after_every_kind_of_ending() {
    const MAX: usize = 5;
    on_every_engine(|case| {
        let (server, dead) = (Listener::new(), peer::Refusing::new());
        let directory = Directory::new();
        let file = directory.join("clients.toml");
        let forward = |server: SocketAddr| {
            format!(
                "[[forward]]\nlisten = \"127.0.0.1:0\"\nupstream = \"{server}\"\n\
                 max_per_client = {MAX}\nidle_timeout = \"1s\"\naccess = [\"deny 127.0.0.9\"]\n"
            )
        };
        std::fs::write(&file, forward(server.address()) + &forward(dead.address())).unwrap();
        let forwarder = Setup::configured(&file, 2).engine(case.engine).start();
        let addresses = forwarder.addresses();
        let (to, nowhere): (SocketAddr, SocketAddr) =
            (addresses[0].parse().unwrap(), addresses[1].parse().unwrap());
        for round in 0..40 {
            // Refused by the server, and by a rule.
            end(from(2, nowhere));
            end(from(9, to));
            // Reset while it is dialled, or soon after.
            if let Ok(client) = from(2, nowhere) {
                client.reset();
            }
            if let Ok(client) = from(2, to) {
                match round % 3 {
                    0 => client.reset(),
                    1 => client.close(),
                    // Its time is up.
                    _ if round < 6 => assert_eq!(end(Ok(client)), End::Eof),
                    _ => client.half_close(),
                }
                // Who resets early is not dialled for.
                drop(server.accept_within(Duration::from_millis(50)));
            }
        }
        while server.accept_within(Duration::from_millis(100)).is_some() {}
        wait_until("all have ended", PATIENCE, || {
            let counters = forwarder.counters();
            counters.of("live") == 0 && counters.of("accepted") == counters.of("ended")
        });
        for to in [to, nowhere] {
            let before = forwarder.counters().of("denied_max_per_client");
            let clients: Vec<_> = (0..MAX + 3).map(|_| from(2, to)).collect();
            if to == nowhere {
                drop(clients);
                continue;
            }
            wait_until("three are turned away", PATIENCE, || {
                forwarder.counters().of("denied_max_per_client") == before + 3
            });
            let upstreams: Vec<_> = (0..MAX).map(|_| server.accept()).collect();
            assert!(server.accept_within(Duration::from_millis(100)).is_none());
            drop((clients, upstreams));
        }
        wait_until("all have ended again", PATIENCE, || {
            forwarder.counters().of("live") == 0
        });
        forwarder.check_idle();
    });
}

/// Behaviour 76: the client is whom the header announces, and for LOCAL who connects. The
/// balancer itself is never limited.
#[test]
fn b76_behind_a_proxy_header_the_announced_client_is_asked_about() {
    on_every_engine(|case| {
        let server = Listener::new();
        let directory = Directory::new();
        let file = directory.join("behind.toml");
        let text = format!(
            "[[forward]]\nlisten = \"127.0.0.1:0\"\nupstream = \"{}\"\n\
             accept_proxy = [\"127.0.0.0/8\"]\nmax_per_client = 1\n\
             access = [\"deny 192.0.2.0/24\", \"deny 127.0.0.3\"]\n",
            server.address()
        );
        std::fs::write(&file, text).unwrap();
        let forwarder = Setup::configured(&file, 1).case(case).start();
        let say = |from_last: u8, header: &[u8]| {
            let client = from(from_last, forwarder.address()).unwrap();
            std::io::Write::write_all(&mut client.stream(), header).unwrap();
            client
        };
        let announce = |ip: &str| format!("PROXY TCP4 {ip} 127.0.0.1 1000 2000\r\n").into_bytes();
        let local = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        // Two clients behind one balancer, and a second connection of the first.
        let held = [
            say(2, &announce("198.51.100.1")),
            say(2, &announce("198.51.100.2")),
        ];
        let upstreams = [server.accept(), server.accept()];
        let mut turned_away = vec![
            say(2, &announce("198.51.100.1")),
            say(2, &announce("192.0.2.9")),
            say(3, &local),
        ];
        for client in &mut turned_away {
            assert_eq!(client.receive_until_end(), End::Reset);
        }
        // By the real address, which stands in no rule.
        let checked = say(2, &local);
        drop((checked, server.accept(), held, upstreams));
        let records = forwarder.wait_for_sessions(6);
        let denied = records.iter().filter(|it| it.cause() == "denied");
        assert_eq!(denied.clone().count(), 3, "{records:?}");
        assert!(denied.clone().all(|it| it.code() == "PR"), "{records:?}");
        let counters = forwarder.counters();
        assert_eq!(counters.of("denied_access"), 2);
        assert_eq!(counters.of("denied_max_per_client"), 1);
        forwarder.check_idle();
    });
}

/// Behaviours 76 and 77: what becomes of it is told to the connection of who sent the header.
#[test]
fn b77_who_is_denied_behind_a_header_is_turned_away_as_on_deny_says() {
    on_every_engine(|case| {
        for on_deny in ["reset", "close", "drop"] {
            let server = Listener::new();
            let directory = Directory::new();
            let file = directory.join("behind.toml");
            let text = format!(
                "[[forward]]\nlisten = \"127.0.0.1:0\"\nupstream = \"{}\"\n\
                 accept_proxy = [\"127.0.0.0/8\"]\non_deny = \"{on_deny}\"\n\
                 access = [\"deny 192.0.2.0/24\"]\n",
                server.address()
            );
            std::fs::write(&file, text).unwrap();
            let forwarder = Setup::configured(&file, 1).case(case).start();
            let mut client = from(2, forwarder.address()).unwrap();
            // With payload behind it, which nobody reads.
            let said = b"PROXY TCP4 192.0.2.7 127.0.0.1 1000 2000\r\npayload";
            std::io::Write::write_all(&mut client.stream(), said).unwrap();
            let silent = on_deny == "drop" && nix::unistd::geteuid().is_root();
            if silent {
                assert!(
                    !client.is_readable_within(Duration::from_secs(2)),
                    "it heard"
                );
            } else {
                let expected = if on_deny == "close" {
                    End::Eof
                } else {
                    End::Reset
                };
                assert_eq!(client.receive_until_end(), expected, "{on_deny}");
            }
            drop(client);
            let record = forwarder.wait_for_session();
            assert_eq!(
                (record.code(), record.cause()),
                ("PR", "denied"),
                "{on_deny}"
            );
            assert!(
                server.accept_within(Duration::ZERO).is_none(),
                "it was dialled"
            );
            forwarder.check_idle();
        }
    });
}

/// Behaviour 82; how many come in over time is a matter of the table's own tests.
#[test]
fn b82_a_burst_is_let_in_and_no_more_of_it() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("defaults.connect_rate", "\"1/h\"")
            .set("defaults.connect_burst", 20)
            .start();
        let to = forwarder.address();
        for _ in 0..100 {
            if let Ok(client) = from(2, to) {
                client.reset();
            }
        }
        wait_until("the rest is turned away", PATIENCE, || {
            let counters = forwarder.counters();
            counters.of("denied_connect_rate") == 80 && counters.of("live") == 0
        });
        // Another client has a burst of its own.
        let (client, upstream) = (from(3, to).unwrap(), server.accept());
        drop((client, upstream));
        while server.accept_within(Duration::from_millis(50)).is_some() {}
    });
}

/// Behaviour 88: it counts, and turns nobody away.
#[test]
fn b88_a_dry_run_counts_and_lets_everybody_in() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("defaults.access", "[\"deny 127.0.0.2\"]")
            .set("defaults.max_per_client", 1)
            .set("defaults.dry_run", true)
            .start();
        let to = forwarder.address();
        // They stay, so that the last is one too many.
        let mut held = Vec::new();
        for last in [2, 3, 3] {
            let mut client = from(last, to).unwrap();
            let mut upstream = server.accept();
            transfer(&mut client, &mut upstream, 100);
            held.push((client, upstream));
        }
        let counters = forwarder.counters();
        assert_eq!(counters.of("denied_access"), 1);
        assert_eq!(counters.of("denied_max_per_client"), 1);
        assert_eq!(counters.of("connects"), 3);
        let line = forwarder.wait_for_line("would be turned away");
        assert_eq!(line.text("level"), "info");
    });
}

/// Behaviour 75: every mistake at once, each with its place.
#[test]
fn b75_what_is_no_network_is_named_with_its_place() {
    let directory = Directory::new();
    let file = directory.join("wrong.toml");
    let rules = [
        "deny 10.0.0.1/8",
        "deny 10.0.0.0/33",
        "deny fe80::1%eth0",
        "permit 10.0.0.0/8",
        "deny",
        "allow 192.0.2.0/24",
        "deny 192.0.2.7",
    ];
    let lines: Vec<_> = rules
        .iter()
        .map(|rule| format!("  \"{rule}\",\n"))
        .collect();
    let text = format!(
        "[[forward]]\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:9\"\naccess = [\n{}]\n\
         connect_rate = \"fast\"\n",
        lines.concat()
    );
    std::fs::write(&file, text).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["check", "-c", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    for line in 5..=13 {
        let place = format!("wrong.toml:{line}:");
        let is_wrong = !matches!(line, 10 | 12);
        assert_eq!(said.contains(&place), is_wrong, "line {line}: {said}");
    }
}

/// A file of networks: a wrong line is named, and so is a pipe, which is not waited for.
#[test]
fn b74_a_file_of_networks_decides_and_its_mistakes_are_named() {
    let directory = Directory::new();
    let list = directory.join("partners.txt");
    let server = Listener::new();
    let setup = Setup::new(server.address()).set(
        "defaults.access",
        format!("[\"allow @{}\", \"deny all\"]", list.display()),
    );
    assert!(setup.try_start().unwrap_err().contains("partners.txt"));
    nix::unistd::mkfifo(&list, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(setup.try_start().unwrap_err().contains("no regular file"));
    std::fs::remove_file(&list).unwrap();
    std::fs::write(&list, "10.0.0.0/8\n127.0.0.x\n").unwrap();
    let why = setup.try_start().unwrap_err();
    assert!(why.contains("partners.txt:2: "), "{why}");
    std::fs::write(&list, "# ours\n127.0.0.3 # the gate\n").unwrap();
    let forwarder = setup.start();
    assert_eq!(end(from(2, forwarder.address())), End::Reset);
    drop((from(3, forwarder.address()).unwrap(), server.accept()));
    forwarder.wait_for_sessions(1);
}

/// All wrong lines of all files at once, and a file that is not here is no mistake of the text.
#[test]
fn b75_wrong_lines_of_every_list_are_named_at_once() {
    let directory = Directory::new();
    let [clients, targets] = ["clients.txt", "targets.txt"].map(|it| directory.join(it));
    std::fs::write(&clients, "10.0.0.0/8\n10.0.0.1/8\n# fine\nnobody\n").unwrap();
    std::fs::write(&targets, "*.example:443\n*.*.x\n").unwrap();
    let file = directory.join("lists.toml");
    let text = format!(
        "[[forward]]\nname = \"in\"\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:9\"\n\
         access = [\"deny @{}\", \"deny @/not/here.txt\"]\n\
         [[forward]]\nname = \"out\"\nlisten = \"127.0.0.1:0\"\nmode = \"http-connect\"\n\
         connect = {{ access = [\"allow @{}\", \"deny all\"] }}\n",
        clients.display(),
        targets.display()
    );
    std::fs::write(&file, &text).unwrap();
    let run = |arguments: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_thalweg"))
            .args(arguments)
            .args(["-c", file.to_str().unwrap()])
            .output()
            .unwrap()
    };
    let check = || run(&["check", "-q"]);
    let output = check();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    for words in [
        "error: forward in: ",
        "clients.txt:2: ",
        "write 10.0.0.0/8",
        "clients.txt:4: ",
        "warning: forward in: access: cannot read /not/here.txt",
        "error: forward out: ",
        "targets.txt:2: ",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // Beside mistakes of the configuration itself, by whoever reads it.
    std::fs::write(&file, text.replace("name = \"in\"", "nmae = \"in\"")).unwrap();
    for arguments in [&["check"][..], &["run"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        for words in [
            "`nmae`",
            "clients.txt:2: ",
            "clients.txt:4: ",
            "targets.txt:2: ",
            "1 error in the configuration",
        ] {
            assert!(said.contains(words), "{arguments:?}, {words}: {said}");
        }
        assert!(!said.contains("/not/here.txt"), "{arguments:?}: {said}");
    }
    std::fs::write(&file, text).unwrap();
    std::fs::write(&clients, "10.0.0.0/8\n").unwrap();
    std::fs::write(&targets, "*.example:443\n").unwrap();
    assert_eq!(check().status.code(), Some(0));
}

/// Behaviour 88: while the list changes, each decision is that of the one or of the other as a
/// whole; once a reload has said so it is that of the new one; sessions stay.
#[test]
fn b88_a_list_that_changes_under_clients_decides_as_a_whole() {
    const RELOADS: usize = 10;
    on_every_engine(|case| {
        let (server, directory) = (Listener::new(), Directory::new());
        let file = directory.join("lists.toml");
        // Of the first rule of one and the second of the other, both or none would come in.
        let lists = [
            "[\"allow 127.0.0.2\", \"deny all\"]",
            "[\"deny 127.0.0.2\", \"allow all\"]",
        ];
        let write = |list: &str| {
            let text = format!(
                "[[forward]]\nname = \"f\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{}\"\naccess = {list}\n",
                server.address()
            );
            std::fs::write(&file, text).unwrap();
        };
        write(lists[0]);
        let forwarder = Setup::configured(&file, 1).case(case).reactors(2).start();
        let to = forwarder.address();
        let mut stays = from(2, to).unwrap();
        let mut upstream = server.accept();
        transfer(&mut stays, &mut upstream, 100);
        // No client is left without somebody who takes it.
        let [stop, stop_server] = [(); 2].map(|()| AtomicBool::new(false));
        let (let_in, denied) = thread::scope(|scope| {
            let accepts = scope.spawn(|| {
                let mut count = 0_u64;
                while !stop_server.load(Relaxed) {
                    count += u64::from(server.accept_within(Duration::from_millis(20)).is_some());
                }
                count
            });
            let clients = [2, 3].map(|last| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut denied = 0_u64;
                    while !stop.load(Relaxed) {
                        thread::sleep(Duration::from_millis(1));
                        let mut client = unless_reset(from(last, to));
                        // Who is let in hears of the server's end, and the others of a reset.
                        let end = client.as_mut().map_or(End::Reset, Peer::receive_until_end);
                        denied += u64::from(end == End::Reset);
                    }
                    denied
                })
            });
            for turn in 1..=RELOADS {
                write(lists[turn % 2]);
                let before = forwarder.lines_with("reloaded").len();
                forwarder.process().signal(nix::sys::signal::Signal::SIGHUP);
                wait_until("it reloads", PATIENCE, || {
                    forwarder.lines_with("reloaded").len() > before
                });
            }
            stop.store(true, Relaxed);
            let denied = clients.map(|it| it.join().unwrap());
            stop_server.store(true, Relaxed);
            (accepts.join().unwrap(), denied.iter().sum::<u64>())
        });
        // Nobody was let in and denied, nor neither.
        wait_until("all of them are counted", PATIENCE, || {
            let counters = forwarder.counters();
            counters.of("denied_access") == denied && counters.of("connects") > let_in
        });
        // The list of the start is in force again.
        assert_eq!(end(from(3, to)), End::Reset);
        transfer(&mut stays, &mut upstream, 100);
        drop((from(2, to).unwrap(), stays, upstream));
    });
}

/// Behaviour 81: threads race for places on two reactors.
#[test]
fn b81_no_more_than_the_limit_ever_get_through() {
    const MAX: usize = 20;
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .reactors(2)
            .set("defaults.max_per_client", MAX)
            .start();
        let to = forwarder.address();
        let clients: Vec<_> = thread::scope(|scope| {
            let race = || (0..50).map(|_| from(2, to)).collect::<Vec<_>>();
            let racing: Vec<_> = (0..4).map(|_| scope.spawn(race)).collect();
            racing
                .into_iter()
                .flat_map(|it| it.join().unwrap())
                .collect()
        });
        let upstreams: Vec<_> = (0..MAX).map(|_| server.accept()).collect();
        wait_until("the others are turned away", PATIENCE, || {
            forwarder.counters().of("denied_max_per_client") == (200 - MAX) as u64
        });
        assert!(server.accept_within(Duration::from_millis(100)).is_none());
        drop((clients, upstreams));
        forwarder.wait_for_sessions(MAX);
        forwarder.check_idle();
    });
}

/// A client of a unix listener is in no network, and has no limit.
#[test]
fn b75_a_unix_client_is_in_no_network() {
    let directory = Directory::new();
    let path = directory.join("in.sock");
    let server = Listener::new();
    let forwarder = Setup::between(format!("unix:{}", path.display()), server.address())
        .set("defaults.access", "[\"deny 0.0.0.0/0\", \"deny ::/0\"]")
        .set("defaults.max_per_client", 1)
        .start();
    let clients: Vec<_> = (0..3)
        .map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap())
        .collect();
    let upstreams: Vec<_> = (0..3).map(|_| server.accept()).collect();
    drop((clients, upstreams));
    forwarder.wait_for_sessions(3);
}
