//! Sessions that outlive a process that was killed (160): what was clean goes on, byte for byte;
//! what was not is reset, and never looks complete.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use super::manager::Manager;
use crate::kit::pattern::Pattern;
use crate::kit::*;

/// A service whose process is killed and started again with what its manager has kept.
struct Service {
    manager: Manager,
    setup: Setup,
    forwarder: Forwarder,
    address: SocketAddr,
}

impl Service {
    /// On epoll, with room for so many descriptors.
    fn start(setup: Setup, room: usize) -> Self {
        let manager = Manager::new();
        let setup = manager.of(setup.set("global.survive_crash", true));
        let setup = setup.env("FDSTORE", room);
        let forwarder = setup.start();
        manager.wait_for("READY=1", 1);
        Self {
            address: forwarder.address(),
            manager,
            setup,
            forwarder,
        }
    }

    /// What is kept of sessions: a name for each of their descriptors.
    fn sessions(&self) -> Vec<String> {
        let kept = self.manager.kept().into_iter();
        let names = kept.map(|(name, _)| name);
        names
            .filter(|it| it.starts_with("thalweg-session."))
            .collect()
    }

    /// Waits until so many sessions are kept.
    #[track_caller]
    fn keeps(&self, sessions: usize) {
        wait_until("sessions are kept", PATIENCE, || {
            self.sessions().len() == 2 * sessions
        });
        // The reactor is told after the manager.
        self.settles();
    }

    /// Everything that was begun before this is done: control's thread and every reactor answer
    /// in the order in which they are told.
    fn settles(&self) {
        self.forwarder.counters();
    }

    fn kill(&mut self) {
        self.forwarder.process().signal(Signal::SIGKILL);
        self.forwarder.wait_for_exit(PATIENCE).unwrap();
        // RestartSec=100ms.
        std::thread::sleep(Duration::from_millis(100));
    }

    /// Starts the next one; what it says of sessions: how many go on, how many are reset.
    fn start_again(&mut self, setup: &Setup) -> (u64, u64) {
        let mut again = setup.clone();
        // In another order than they came, as systemd has them.
        for (name, socket) in self.manager.kept().iter().rev() {
            again = again.passing(name, socket);
        }
        self.forwarder = again.start();
        assert_eq!(self.forwarder.address(), self.address);
        let line = self
            .forwarder
            .wait_for_line("the process before was killed");
        let number = |key| line.number(key).unwrap();
        (number("sessions"), number("reset"))
    }

    fn restart(&mut self) -> (u64, u64) {
        self.start_again(&self.setup.clone())
    }
}

/// A client and what its server has of it.
struct Pair {
    client: TcpStream,
    server: TcpStream,
}

/// A server that takes one connection after the other.
struct Upstream(TcpListener);

impl Upstream {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    fn pair(&self, forwarder: SocketAddr) -> Pair {
        self.pair_from("127.0.0.1", forwarder)
    }

    /// Of a client with this address.
    fn pair_from(&self, client: &str, forwarder: SocketAddr) -> Pair {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let own: SocketAddr = format!("{client}:0").parse().unwrap();
        socket.bind(&own.into()).unwrap();
        socket.connect(&forwarder.into()).unwrap();
        let client = TcpStream::from(socket);
        let (server, _) = self.0.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
        }
        Pair { client, server }
    }
}

/// What an end sends and expects.
struct Ends {
    up: [Pattern; 2],
    down: [Pattern; 2],
    bytes: [u64; 2],
}

impl Ends {
    fn new(seed: u64) -> Self {
        Self {
            up: [Pattern::new(seed), Pattern::new(seed)],
            down: [Pattern::new(!seed), Pattern::new(!seed)],
            bytes: [0; 2],
        }
    }

    fn ask(&mut self, pair: &mut Pair, len: u64) {
        send(&mut pair.client, &mut self.up[0], len);
        self.bytes[0] += len;
    }

    fn hear(&mut self, pair: &mut Pair, len: u64) {
        receive(&mut pair.server, &mut self.up[1], len);
    }

    fn answer(&mut self, pair: &mut Pair, len: u64) {
        send(&mut pair.server, &mut self.down[0], len);
        receive(&mut pair.client, &mut self.down[1], len);
        self.bytes[1] += len;
    }

    fn exchange(&mut self, pair: &mut Pair, len: u64) {
        self.ask(pair, len);
        self.hear(pair, len);
        self.answer(pair, 2 * len);
    }
}

fn send(stream: &mut TcpStream, pattern: &mut Pattern, len: u64) {
    let mut left = len;
    while left > 0 {
        let some = pattern.upcoming(left);
        stream.write_all(some).unwrap();
        left -= some.len() as u64;
        pattern.advance(some.len() as u64);
    }
}

fn receive(stream: &mut TcpStream, pattern: &mut Pattern, len: u64) {
    let mut bytes = vec![0; len as usize];
    stream.read_exact(&mut bytes).unwrap();
    pattern.check(&bytes);
}

fn on_every_epoll_path(behaviour: impl Fn(Case) + Sync) {
    on_every_path(|case| {
        if case.engine == "epoll" {
            behaviour(case);
        }
    });
}

#[test]
fn b160_sessions_that_hold_nothing_go_on_after_a_kill() {
    on_every_epoll_path(|case| {
        let upstream = Upstream::new();
        let setup = Setup::new(upstream.address()).reactors(2).case(case);
        let mut service = Service::start(setup, 64);
        let mut pairs: Vec<_> = (0..6).map(|_| upstream.pair(service.address)).collect();
        let mut ends: Vec<_> = (0..6).map(Ends::new).collect();
        for (pair, ends) in pairs.iter_mut().zip(&mut ends).skip(1) {
            ends.exchange(pair, 3_000);
        }
        // One that has said nothing so far, one of which one direction has ended, the others.
        pairs[1].client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(pairs[1].server.read(&mut [0]).unwrap(), 0);
        service.keeps(6);
        for round in 0..3 {
            for (pair, ends) in pairs.iter_mut().zip(&mut ends).skip(2) {
                ends.exchange(pair, 1_000 + round);
                // As much as is spliced where that is asked for.
                ends.exchange(pair, 600_000);
            }
            service.settles();
            service.kill();
            // Nobody is there, and nobody is told so.
            ends[2].ask(&mut pairs[2], 5_000);
            assert_eq!(service.restart(), (6, 0));
            ends[2].hear(&mut pairs[2], 5_000);
            ends[1].answer(&mut pairs[1], 70_000);
            assert_eq!(service.sessions().len(), 12);
        }
        ends[0].exchange(&mut pairs[0], 10);
        // One record a session, with all that it moved and all of its time.
        for (nth, (pair, ends)) in pairs.into_iter().zip(ends).enumerate() {
            drop(pair.server);
            let Pair { mut client, .. } = pair;
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            drop(client);
            let record = service.forwarder.wait_for_sessions(nth + 1).pop().unwrap();
            assert_eq!(record.code(), "--", "{record:?}");
            assert_eq!(record.bytes(), (ends.bytes[0], ends.bytes[1]), "{record:?}");
            assert!(record.number("total_us").unwrap() > 5_000_000, "{record:?}");
        }
        wait_until("nothing is kept of them", PATIENCE, || {
            service.sessions().is_empty()
        });
        service.forwarder.process().signal(Signal::SIGTERM);
        assert!(service.forwarder.wait_for_exit(PATIENCE).unwrap().success());
        wait_until("nor anything else", PATIENCE, || {
            service.manager.kept().is_empty()
        });
    });
}

/// What a bulk transfer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Whole,
    Reset,
}

const BULK: u64 = 48 << 20;

/// Sends all of it, or until it is reset.
fn pour(mut stream: TcpStream, seed: u64) -> JoinHandle<Came> {
    std::thread::spawn(move || {
        let mut pattern = Pattern::new(seed);
        let mut left = BULK;
        while left > 0 {
            let some = pattern.upcoming(left.min(64 << 10));
            match stream.write(some) {
                Ok(len) => {
                    assert!(len > 0, "nothing was taken");
                    pattern.advance(len as u64);
                    left -= len as u64;
                }
                Err(error) => {
                    let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                    assert!(reset.contains(&error.kind()), "{error}");
                    return Came::Reset;
                }
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
        Came::Whole
    })
}

/// Every byte is the one that was sent; an end comes behind the last one only. `writer`: who
/// writes to the same socket: the error of a reset is told once, to one of both.
fn drink(mut stream: TcpStream, seed: u64, writer: Option<JoinHandle<Came>>) -> JoinHandle<Came> {
    std::thread::spawn(move || {
        let mut pattern = Pattern::new(seed);
        let mut buffer = vec![0; 256 << 10];
        let came = loop {
            match stream.read(&mut buffer) {
                Ok(0) if pattern.position() == BULK => break Came::Whole,
                Ok(0) => {
                    let told = writer.map(|it| it.join().unwrap());
                    let at = pattern.position();
                    assert_eq!(told, Some(Came::Reset), "an end in the middle, at {at}");
                    return Came::Reset;
                }
                Ok(len) => pattern.check(&buffer[..len]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                    break Came::Reset;
                }
            }
        };
        if let Some(writer) = writer {
            writer.join().unwrap();
        }
        came
    })
}

#[test]
fn b160_bulk_that_is_killed_is_reset_or_goes_on_and_never_has_a_gap() {
    const ROUNDS: u64 = 8;
    on_every_epoll_path(|case| {
        let upstream = Upstream::new();
        let setup = Setup::new(upstream.address()).reactors(2).case(case);
        let mut service = Service::start(setup, 128);
        let mut pairs: Vec<_> = (0..4 * ROUNDS)
            .map(|_| upstream.pair(service.address))
            .collect();
        let mut idle = upstream.pair(service.address);
        let mut ends = Ends::new(1);
        ends.exchange(&mut idle, 100);
        service.keeps(pairs.len() + 1);
        let (mut resets, mut told) = (0, 0);
        for round in 0..ROUNDS {
            let (mut writers, mut readers, mut open) = (Vec::new(), Vec::new(), Vec::new());
            for nth in 0..4 {
                let Pair { client, server } = pairs.pop().unwrap();
                let seed = 10 * round + nth;
                // Two in one direction each, two in both.
                let copy = |it: &TcpStream| it.try_clone().unwrap();
                let up = (nth != 0).then(|| pour(copy(&client), seed));
                let down = (nth != 1).then(|| pour(copy(&server), !seed));
                match (up, down) {
                    (Some(up), Some(down)) => {
                        readers.push(drink(copy(&server), seed, Some(down)));
                        readers.push(drink(copy(&client), !seed, Some(up)));
                    }
                    (Some(up), None) => {
                        readers.push(drink(copy(&server), seed, None));
                        writers.push(up);
                    }
                    (None, down) => {
                        readers.push(drink(copy(&client), !seed, None));
                        writers.extend(down);
                    }
                }
                // A direction that nobody pours into stays open.
                open.push(Pair { client, server });
            }
            std::thread::sleep(Duration::from_millis(3 * round));
            service.kill();
            let (_, reset) = service.restart();
            told += reset;
            for writer in writers {
                writer.join().unwrap();
            }
            for reader in readers {
                resets += u64::from(reader.join().unwrap() == Came::Reset);
            }
            ends.exchange(&mut idle, 100);
            let records = service.forwarder.wait_for_sessions(reset as usize);
            let mut records = records.iter().take(reset as usize);
            assert!(records.all(|it| it.cause() == "crashed" && ["KD", "KL"].contains(&it.code())));
            drop(open);
            service.keeps(pairs.len() + 1);
        }
        println!(
            "{}: {told} sessions reset, {resets} streams of them",
            case.path
        );
        // Killed in the middle of it: nearly all of them.
        assert!(resets >= ROUNDS && told >= ROUNDS, "{resets} {told}");
    });
}

#[test]
fn b160_who_ends_is_told_at_once_though_the_manager_has_copies() {
    on_every_epoll_path(|case| {
        let upstream = Upstream::new();
        let setup = Setup::new(upstream.address()).case(case);
        let service = Service::start(setup, 64);
        let mut pairs: Vec<_> = (0..3).map(|_| upstream.pair(service.address)).collect();
        service.keeps(3);
        let Pair { client, mut server } = pairs.pop().unwrap();
        drop(client);
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        drop(server);
        service.keeps(2);
        let Pair { client, mut server } = pairs.pop().unwrap();
        let reset = Some(Duration::ZERO);
        socket2::SockRef::from(&client).set_linger(reset).unwrap();
        drop(client);
        let error = server.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        service.keeps(1);
        // And the other way round, after a kill.
        let mut service = service;
        service.kill();
        assert_eq!(service.restart(), (1, 0));
        let Pair { mut client, server } = pairs.pop().unwrap();
        socket2::SockRef::from(&server).set_linger(reset).unwrap();
        drop(server);
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        service.keeps(0);
        let record = service.forwarder.wait_for_session();
        assert_eq!(record.code(), "SD");
    });
}

/// Both ends of a session are reset.
#[track_caller]
fn are_reset(mut pair: Pair) {
    for stream in [&mut pair.client, &mut pair.server] {
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn b160_sessions_that_the_next_process_cannot_have_are_reset() {
    let upstream = Upstream::new();
    let directory = directory::Directory::new();
    let file = directory.join("thalweg.toml");
    let forward = |name: &str| {
        format!(
            "[[forward]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{}\"\n",
            upstream.address()
        )
    };
    std::fs::write(&file, forward("a") + &forward("b")).unwrap();
    let setup = Setup::configured(&file, 2).engine("epoll");
    let mut service = Service::start(setup, 64);
    let of_b: SocketAddr = service.forwarder.addresses()[1].parse().unwrap();
    let mut pairs = [service.address, of_b].map(|address| upstream.pair(address));
    Ends::new(6).exchange(&mut pairs[0], 500);
    service.keeps(2);
    // There is one forward less.
    std::fs::write(&file, forward("b")).unwrap();
    service.kill();
    service.address = of_b;
    let one = Setup::configured(&file, 1);
    let one = service.manager.of(one).env("FDSTORE", 64);
    let survives = one.clone().set("global.survive_crash", true);
    assert_eq!(
        service.start_again(&survives.clone().engine("epoll")),
        (1, 1)
    );
    let told = service
        .forwarder
        .wait_for_line("the process before was killed");
    assert!(
        told.text("reasons").contains("not in the configuration"),
        "{told:?}"
    );
    let [of_a, mut of_b] = pairs;
    are_reset(of_a);
    // It has its record, though nothing of its forward is left.
    let record = service.forwarder.wait_for_session();
    assert_eq!((record.code(), record.cause()), ("KD", "crashed"));
    assert_eq!(record.text("forward"), "a");
    assert_eq!(record.bytes(), (500, 1_000));
    service.keeps(1);
    Ends::new(7).exchange(&mut of_b, 1_000);
    service.settles();
    // And now they are not to go on any more, on whichever engine.
    service.kill();
    assert_eq!(service.start_again(&one), (0, 1));
    are_reset(of_b);
    let record = service.forwarder.wait_for_session();
    assert_eq!((record.code(), record.cause()), ("KD", "crashed"));
    assert_eq!(record.bytes(), (1_000, 2_000));
    wait_until("nothing is kept of them", PATIENCE, || {
        let kept = service.manager.kept();
        kept.iter().all(|(name, _)| !name.starts_with("thalweg-"))
    });
}

/// Behaviours 157, 158 and 160: what it takes is let through, in the process that is killed and in
/// the next one.
#[test]
fn b158_sessions_go_on_after_a_kill_inside_the_sandbox() {
    on_every_epoll_path(|case| {
        let upstream = Upstream::new();
        let setup = Setup::new(upstream.address()).reactors(2).case(case);
        let setup = setup.set("global.sandbox", "auto");
        let mut service = Service::start(setup, 64);
        service.forwarder.wait_for_line("no_new_privs");
        let mut pairs: Vec<_> = (0..3).map(|_| upstream.pair(service.address)).collect();
        let mut ends: Vec<_> = (0..3).map(Ends::new).collect();
        service.keeps(3);
        for _ in 0..2 {
            for (pair, ends) in pairs.iter_mut().zip(&mut ends) {
                ends.exchange(pair, 100_000);
            }
            service.settles();
            service.kill();
            assert_eq!(service.restart(), (3, 0));
            service.forwarder.wait_for_line("no_new_privs");
        }
        for (pair, ends) in pairs.iter_mut().zip(&mut ends) {
            ends.exchange(pair, 10);
        }
        drop(pairs);
        service.keeps(0);
    });
}

#[test]
fn b160_a_place_that_is_free_again_is_for_who_has_found_none() {
    let upstream = Upstream::new();
    // A quarter is for listeners, one has the journal: two sessions.
    let setup = Setup::new(upstream.address()).engine("epoll");
    let mut service = Service::start(setup, 8);
    let mut pairs: Vec<_> = (0..3).map(|_| upstream.pair(service.address)).collect();
    service
        .forwarder
        .wait_for_line("sessions do not outlive a crash: there is no room");
    service.keeps(2);
    // Those that came first have the places.
    pairs.drain(..2);
    service.keeps(1);
    service.kill();
    assert_eq!(service.restart(), (1, 0));
    Ends::new(3).exchange(&mut pairs[0], 100);
    // And its place is its own in the next process as well.
    let mut more: Vec<_> = (0..3).map(|_| upstream.pair(service.address)).collect();
    service
        .forwarder
        .wait_for_line("sessions do not outlive a crash: there is no room");
    service.keeps(2);
    more.truncate(2);
    let before = service.sessions();
    drop(pairs);
    wait_until("the other one is kept", PATIENCE, || {
        let now = service.sessions();
        now.len() == 4 && now != before
    });
    service.settles();
    service.kill();
    assert_eq!(service.restart(), (2, 0));
    for (pair, seed) in more.iter_mut().zip(0..) {
        Ends::new(seed).exchange(pair, 100);
    }
    // It knows of them, though it has counted no accept.
    service.forwarder.process().signal(Signal::SIGTERM);
    service.forwarder.wait_for_line("draining: 2 sessions");
}

#[test]
fn b160_one_client_makes_room_for_another_one() {
    let upstream = Upstream::new();
    let setup = Setup::new(upstream.address()).engine("epoll").reactors(2);
    // A quarter is for listeners, which have two; one has the journal: six sessions.
    let mut service = Service::start(setup, 20);
    let first: Vec<_> = (0..8).map(|_| upstream.pair(service.address)).collect();
    service
        .forwarder
        .wait_for_line("sessions do not outlive a crash: there is no room");
    service.keeps(6);
    let mut others: Vec<_> = (0..2)
        .map(|_| upstream.pair_from("127.0.0.2", service.address))
        .collect();
    others.push(upstream.pair_from("127.0.0.3", service.address));
    // Each has one of six in the end, and the first one what is left.
    let before = service.sessions();
    wait_until("others are kept", PATIENCE, || {
        let now = service.sessions();
        let same = now.iter().filter(|it| before.contains(it)).count();
        now.len() == 12 && same == 6
    });
    service.settles();
    service.kill();
    assert_eq!(service.restart(), (6, 0));
    for (pair, seed) in others.iter_mut().zip(0..) {
        Ends::new(seed).exchange(pair, 100);
    }
    let lives = |pair: &&Pair| {
        let wait = Some(Duration::from_millis(100));
        pair.client.set_read_timeout(wait).unwrap();
        (&pair.client)
            .read(&mut [0])
            .is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    assert_eq!(first.iter().filter(lives).count(), 3);
}

#[test]
fn b160_young_sessions_are_not_kept_and_what_has_no_room_is_told() {
    let upstream = Upstream::new();
    let setup = Setup::new(upstream.address()).engine("epoll");
    // A quarter is for listeners, one has the journal: two sessions.
    let mut service = Service::start(setup.clone(), 8);
    let old: Vec<_> = (0..3).map(|_| upstream.pair(service.address)).collect();
    service
        .forwarder
        .wait_for_line("sessions do not outlive a crash: there is no room");
    service.keeps(2);
    let young = upstream.pair(service.address);
    service.kill();
    assert_eq!(service.restart(), (2, 0));
    // Of those that were not kept nobody has a copy: they end as with any process.
    let mut ended = 0;
    for mut pair in old.into_iter().chain([young]) {
        let wait = Some(Duration::from_millis(300));
        pair.client.set_read_timeout(wait).unwrap();
        ended += usize::from(pair.client.read(&mut [0]).is_ok_and(|len| len == 0));
    }
    assert_eq!(ended, 2);
    // Without a manager that keeps something it is told.
    let forwarder = setup.set("global.survive_crash", true).start();
    forwarder.wait_for_line("sessions do not outlive a crash: no service manager");
}
