//! Connecting upstream, as far as loopback alone can show it: behaviours 18, 22, 23,
//! 25 and 27 on the real binary. What needs a network of its own is in `networks.rs`.

use std::thread;
use std::time::{Duration, Instant};

use crate::kit::directory::Directory;
use crate::kit::peer::{Refusing, transfer, unless_reset};
use crate::kit::*;
use nix::sys::signal::Signal;

/// Passes bytes both ways through a forwarder, and ends.
#[track_caller]
fn dialogue(mut client: Peer, mut upstream: Peer) {
    transfer(&mut client, &mut upstream, 100_000);
    transfer(&mut upstream, &mut client, 100_000);
    client.half_close();
    upstream.expect_then_eof(0);
    upstream.close();
    client.expect_then_eof(0);
}

#[test]
fn b18_refused_and_the_next_server_is_tried() {
    const NEXT: Duration = Duration::from_millis(10);
    on_every_engine(|case| {
        let (dead, alive) = (Refusing::new(), Listener::new());
        let servers = [dead.address(), alive.address(), dead.address()];
        let forwarder = Setup::to_all(&servers).case(case).start();
        let mut tried = Vec::new();
        let connect = best_of(5, NEXT, || {
            // The balancer begins with each of the three in turn.
            for _ in 0..servers.len() {
                dialogue(forwarder.connect(), alive.accept());
            }
            let sessions = forwarder.wait_for_sessions(tried.len() + servers.len());
            let last = &sessions[tried.len()..];
            let longest = last.iter().filter_map(|r| r.number("connect_us")).max();
            tried = sessions.iter().map(Record::attempts).collect();
            Duration::from_micros(longest.unwrap())
        });
        assert!(connect <= NEXT, "connecting took {connect:?}");
        tried.truncate(3);
        tried.sort_unstable();
        // Each of the dead ones costs one session an attempt, and is marked then.
        assert_eq!(tried, [1, 2, 2]);
        forwarder.check_idle();
    });
}

#[test]
fn b18_the_only_server_refuses_and_the_client_is_closed_at_once() {
    const AT_ONCE: Duration = Duration::from_millis(20);
    on_every_engine(|case| {
        let dead = Refusing::new();
        let forwarder = Setup::new(dead.address()).case(case).start();
        let took = best_of(5, AT_ONCE, || {
            let start = Instant::now();
            if let Some(mut client) = unless_reset(Peer::try_connect(forwarder.address())) {
                client.receive_until_end();
            }
            start.elapsed()
        });
        assert!(took <= AT_ONCE, "closed only after {took:?}");
        let records = forwarder.wait_for_sessions(1);
        assert!(records.iter().all(|r| r.code() == "SC"), "{records:?}");
        assert!(records.iter().all(|r| r.cause() == "refused"));
        assert!(records.iter().all(|r| r.attempts() == 1));
        forwarder.check_idle();
    });
}

/// What the kernel of a stopped forwarder accepts is there before anything is dialled:
/// its first 64 KiB meet a server that refuses.
#[test]
fn b22_early_bytes_reach_the_second_server_once() {
    on_every_path(|case| {
        let (dead, alive) = (Refusing::new(), Listener::new());
        let servers = [dead.address(), alive.address()];
        let forwarder = Setup::to_all(&servers).case(case).start();
        for _ in 0..servers.len() {
            forwarder.process().stop();
            let mut client = forwarder.connect();
            client.send(64 * KIB);
            forwarder.process().signal(Signal::SIGCONT);
            let mut upstream = alive.accept();
            upstream.expect(64 * KIB);
            dialogue(client, upstream);
        }
        let records = forwarder.wait_for_sessions(2);
        assert!(records.iter().any(|record| record.attempts() == 2));
        assert!(records.iter().all(|record| record.lost() == 0));
        forwarder.check_idle();
    });
}

/// As above, with a first server that keeps the forwarder waiting while bytes arrive.
#[test]
fn b22_bytes_that_arrive_while_connecting_reach_the_second_server_once() {
    on_every_path(|case| {
        let (mute, alive) = (Listener::without_backlog(), Listener::new());
        let fillers = mute.fill_accept_queue();
        let forwarder = Setup::to_all(&[mute.address(), alive.address()])
            .case(case)
            .set("defaults.connect_timeout", "300ms")
            .start();
        for _ in 0..2 {
            let mut client = forwarder.connect();
            client.send(64 * KIB);
            let mut upstream = alive.accept();
            upstream.expect(64 * KIB);
            dialogue(client, upstream);
        }
        let records = forwarder.wait_for_sessions(2);
        assert!(records.iter().any(|record| record.attempts() == 2));
        forwarder.check_idle();
        drop(fillers);
    });
}

/// A server that took a byte and died may have acted on it.
#[test]
fn b23_not_retried_once_a_byte_was_written() {
    on_every_path(|case| {
        let servers = [Listener::new(), Listener::new()];
        let forwarder = Setup::to_all(&servers.each_ref().map(Listener::address))
            .case(case)
            .start();
        for round in 0..4 {
            let mut client = forwarder.connect();
            client.send(1 + round * 40_000);
            let accept = |server: &Listener| server.accept_within(Duration::from_millis(1));
            let upstream = poll(PATIENCE, || servers.iter().find_map(accept));
            let mut upstream = upstream.expect("no server was called");
            upstream.expect(1);
            upstream.reset();
            assert_eq!(client.receive_until_end(), End::Reset);
        }
        for record in forwarder.wait_for_sessions(4) {
            assert_eq!((record.code(), record.attempts()), ("SD", 1));
        }
        assert_eq!(forwarder.counters().of("connects"), 4);
        for server in &servers {
            assert!(server.accept_within(Duration::ZERO).is_none());
        }
        forwarder.check_idle();
    });
}

/// The server that is killed is a process of its own: another forwarder, in the
/// middle of a transfer. To a client that downloads its kernel says nothing but the
/// end of the stream; to one that uploads it says a reset.
#[test]
fn b25_upstream_is_killed_in_the_middle() {
    const TOLD: Duration = Duration::from_millis(100);
    on_every_path(|case| {
        for uploading in [false, true] {
            let took = best_of(3, TOLD, || killed_in_the_middle(case, uploading));
            assert!(took <= TOLD, "told only after {took:?}");
        }
    });
}

/// How long after the server's death the client is told.
fn killed_in_the_middle(case: Case, uploading: bool) -> Duration {
    let origin = Listener::new();
    let victim = Setup::new(origin.address()).start();
    let forwarder = Setup::new(victim.address()).case(case).start();
    let mut client = forwarder.connect();
    let mut upstream = origin.accept();
    transfer(&mut client, &mut upstream, MIB);
    let send_on = |peer: &mut Peer| while peer.try_send(64 * KIB).is_ok() {};
    let told = thread::scope(|scope| {
        if uploading {
            let sending = scope.spawn(|| {
                send_on(&mut client);
                Instant::now()
            });
            upstream.expect(4 * MIB);
            let killed = Instant::now();
            victim.process().signal(Signal::SIGKILL);
            sending.join().unwrap().duration_since(killed)
        } else {
            scope.spawn(move || send_on(&mut upstream));
            client.expect(4 * MIB);
            let killed = Instant::now();
            victim.process().signal(Signal::SIGKILL);
            client.receive_until_end();
            killed.elapsed()
        }
    });
    client.close();
    forwarder.wait_for_session();
    forwarder.check_idle();
    told
}

/// Errors and hang-ups that come while a connect is under way, or at the moment at
/// which it succeeds: the server stops listening with handshakes half done and done,
/// and with its queue full. Each of the sessions ends, once, and nothing spins.
///
/// What no peer can bring about from outside is an event before the outcome is known
/// that says nothing: no error in `SO_ERROR`, and not writable. The epoll engine
/// ignores it; being edge-triggered it cannot loop on it, and `connect_timeout` is
/// still armed.
#[test]
fn b27_errors_before_the_outcome_of_a_connect_is_known() {
    const ROUNDS: usize = 20;
    const CLIENTS: usize = 10;
    on_every_engine(|case| {
        let port = Refusing::new();
        let forwarder = Setup::new(port.address())
            .case(case)
            .set("defaults.connect_timeout", "5s")
            .start();
        for round in 0..ROUNDS {
            let server = Listener::with(port.address(), round as i32 % 4, None);
            let clients =
                (0..CLIENTS).map(|_| unless_reset(Peer::try_connect(forwarder.address())));
            let mut clients: Vec<_> = clients.flatten().collect();
            // Every other time when some are connected, otherwise at any moment.
            if round % 2 == 0 {
                let connects = (round * CLIENTS) as u64;
                wait_until("it dials", PATIENCE, || {
                    forwarder.counters().of("connects") > connects
                });
            }
            drop(server);
            for client in &mut clients {
                let _ = client.try_send(1);
                client.receive_until_end();
            }
            forwarder.check_quiet();
        }
        let records = forwarder.wait_for_sessions(ROUNDS * CLIENTS);
        let causes = ["refused", "reset"];
        for record in &records {
            assert!(causes.contains(&record.cause()), "{record:?}");
        }
        assert!(records.iter().any(|record| record.code() == "SC"));
        forwarder.check_idle();
        assert_eq!(forwarder.sessions().len(), ROUNDS * CLIENTS);
    });
}

/// nginx, HAProxy and realm end the connection of whom they have no server for.
#[test]
fn b18_whoever_gets_no_server_is_reset_or_sees_an_end_as_it_is_configured() {
    on_every_engine(|case| {
        let dead = Refusing::new();
        let start = |how: &str| {
            Setup::new(dead.address())
                .case(case)
                .set("defaults.on_no_server", how)
                .start()
        };
        let forwarder = start("close");
        for bytes in [0, 1, 100_000] {
            // Never a reset, though nobody reads what it sends.
            let mut client = forwarder.connect();
            client.send(bytes);
            assert_eq!(client.receive_until_end(), End::Eof);
            client.close();
        }
        // One that does not end is not waited for.
        let mut silent = forwarder.connect();
        assert_eq!(silent.receive_until_end(), End::Eof);
        let records = forwarder.wait_for_sessions(4);
        let refused = |it: &Record| (it.code(), it.cause()) == ("SC", "refused");
        assert!(records.iter().all(refused), "{records:?}");
        forwarder.check_idle();
        let forwarder = start("reset");
        if let Some(mut client) = unless_reset(Peer::try_connect(forwarder.address())) {
            assert_eq!(client.receive_until_end(), End::Reset);
        }
    });
}

/// Likewise of one that has said who it is and what it asks for, before anything was dialled.
#[test]
fn b18_whoever_is_looked_at_first_sees_the_same_end() {
    on_every_engine(|case| {
        let (dead, directory) = (Refusing::new(), Directory::new());
        let file = directory.join("dead.toml");
        let text = format!(
            "[[forward]]\nlisten = \"127.0.0.1:0\"\non_no_server = \"close\"\nupstream = \"{dead}\"\n\
             accept_proxy = \"127.0.0.0/8\"\n\
             [[forward.route]]\nhost = \"a.example\"\nupstream = \"{dead}\"\n",
            dead = dead.address()
        );
        std::fs::write(&file, text).unwrap();
        let forwarder = Setup::configured(&file, 1).case(case).start();
        let header = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
        for said in ["GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "SSH-2.0-x\r\n"] {
            let mut client = forwarder.connect();
            let bytes = format!("{header}{said}");
            std::io::Write::write_all(&mut client.stream(), bytes.as_bytes()).unwrap();
            // What it said is read by nobody, and is no reason for a reset.
            assert_eq!(client.receive_until_end(), End::Eof, "{said}");
        }
        let records = forwarder.wait_for_sessions(2);
        let refused = |it: &Record| (it.code(), it.cause()) == ("SC", "refused");
        assert!(records.iter().all(refused), "{records:?}");
        forwarder.check_idle();
    });
}

/// A queue that is full, and one that has waited too long.
#[test]
fn whoever_gets_no_place_at_a_server_sees_an_end_as_it_is_configured() {
    on_every_engine(|case| {
        let (server, directory) = (Listener::new(), Directory::new());
        let file = directory.join("queue.toml");
        let text = format!(
            "[[forward]]\nlisten = \"127.0.0.1:0\"\non_no_server = \"close\"\n[forward.upstream]\n\
             servers = [{{ address = \"{}\", max_connections = 1 }}]\n\
             queue = 1\nqueue_timeout = \"300ms\"\n",
            server.address()
        );
        std::fs::write(&file, text).unwrap();
        let forwarder = Setup::configured(&file, 1).case(case).start();
        let _first = forwarder.connect();
        let _upstream = server.accept();
        let mut others = [forwarder.connect(), forwarder.connect()];
        for other in &mut others {
            assert_eq!(other.receive_until_end(), End::Eof);
        }
        drop(others);
        let mut causes: Vec<_> = forwarder.wait_for_sessions(2);
        causes.sort_by_key(|it| it.cause().to_owned());
        let causes: Vec<_> = causes.iter().map(Record::cause).collect();
        assert_eq!(causes, ["queue_full", "queue_timeout"]);
    });
}
