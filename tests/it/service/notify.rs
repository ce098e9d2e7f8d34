//! What a service manager is told: ready, reloading, ending (153), alive (155).

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::manager::Manager;
use crate::kit::directory::Directory;
use crate::kit::*;

/// A forward to `server`, as a file.
fn text(server: impl std::fmt::Display) -> String {
    format!("[[forward]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{server}\"\n")
}

#[test]
fn b153_ready_then_reloading_then_ready_again_also_when_it_failed() {
    on_every_engine(|case| {
        let (manager, server) = (Manager::new(), Listener::new());
        let directory = Directory::new();
        let file = directory.join("thalweg.toml");
        std::fs::write(&file, text(server.address())).unwrap();
        let setup = manager.of(Setup::configured(&file, 1).engine(case.engine));
        let forwarder = setup.start();
        let ready = manager.wait_for("READY=1", 1);
        assert_eq!(
            ready.value("STATUS"),
            Some("forwarding: 1 listener, configuration 1")
        );
        // A good one and a bad one: each is told of, and over.
        for (nth, (text, told)) in [
            (
                text(server.address()) + "\n[log]\nlevel = \"debug\"\n",
                "reloaded",
            ),
            ("listen = 1".to_owned(), "not reloaded"),
        ]
        .into_iter()
        .enumerate()
        {
            std::fs::write(&file, text).unwrap();
            let before = thalweg::net::notify::monotonic_micros();
            forwarder.process().signal(Signal::SIGHUP);
            let reloading = manager.wait_for("RELOADING=1", nth + 1);
            let at: u64 = reloading.value("MONOTONIC_USEC").unwrap().parse().unwrap();
            let after = thalweg::net::notify::monotonic_micros();
            assert!((before..=after).contains(&at), "{before} {at} {after}");
            let ready = manager.wait_for("READY=1", nth + 2);
            assert!(ready.at >= reloading.at);
            forwarder.wait_for_line(told);
        }
        forwarder.process().signal(Signal::SIGTERM);
        manager.wait_for("STOPPING=1", 1);
    });
}

/// A forwarder with a check that takes so many seconds.
fn checked(manager: &Manager, directory: &Directory, seconds: &str) -> Forwarder {
    let file = directory.join(&format!("checked-{seconds}.toml"));
    let command = format!("[\"/bin/sleep\", \"{seconds}\"]");
    let check = format!(
        "{{ type = \"command\", timeout = \"60s\", interval = \"60s\", command = {command} }}"
    );
    let text = format!(
        "[[forward]]\nlisten = \"127.0.0.1:0\"\n\
         upstream = {{ servers = \"127.0.0.1:9\", check = {check} }}\n"
    );
    std::fs::write(&file, text).unwrap();
    manager.of(Setup::configured(&file, 1)).start()
}

#[test]
fn b153_it_is_ready_once_checks_are_known_or_after_five_seconds() {
    let directory = Directory::new();
    let started = |seconds: &str| {
        let manager = Manager::new();
        let begun = Instant::now();
        let _forwarder = checked(&manager, &directory, seconds);
        manager.wait_for("READY=1", 1).at - begun
    };
    assert!(
        started("0.5") >= Duration::from_millis(500),
        "before the check"
    );
    assert!(started("100") >= Duration::from_secs(5), "before the time");
}

#[test]
fn b153_one_that_waits_for_no_name_and_no_check_is_ready_at_once() {
    on_every_engine(|case| {
        let directory = Directory::new();
        let (waits, plain) = (Manager::new(), Manager::new());
        // One that waits in vain stands first, and is ready last.
        let _waiting = checked(&waits, &directory, "100");
        let setup = Setup::new("127.0.0.1:9").case(case);
        let _forwarder = plain.of(setup).start();
        let ready = plain.wait_for("READY=1", 1);
        assert!(ready.at < waits.wait_for("READY=1", 1).at);
    });
}

#[test]
fn b153_an_absent_or_a_full_one_holds_up_nobody() {
    let server = Listener::new();
    let name = format!("thalweg-full-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let full = UnixDatagram::bind_addr(&address).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to_addr(b"WATCHDOG=1", &address).is_ok() {}
    for socket in ["/nonexistent/notify".to_owned(), format!("@{name}")] {
        let setup = Setup::new(server.address()).env("NOTIFY_SOCKET", &socket);
        let forwarder = setup.start();
        for _ in 0..5 {
            forwarder.process().signal(Signal::SIGHUP);
        }
        Crowd::through(&forwarder, &server, 1).finish();
        forwarder.wait_for_sessions(1);
        assert!(forwarder.lines_with("service manager").is_empty());
    }
    drop(full);
    let setup = Setup::new(server.address()).env("NOTIFY_SOCKET", "vsock:2:1");
    setup
        .start()
        .wait_for_line("the service manager is told nothing");
}

/// A thread of a forwarder that stands still, as under a debugger, until this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn reactor(forwarder: &Forwarder, number: u16) -> Option<Self> {
        let thread = forwarder.process().thread(&format!("reactor-{number}"));
        let thread = Pid::from_raw(thread.expect("there is no such reactor"));
        if let Err(errno) = ptrace::attach(thread) {
            skip(
                &test_name(),
                &format!("a thread cannot be stopped: {errno}"),
            );
            return None;
        }
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Some(Self(thread))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

#[test]
fn b155_signs_of_life_end_with_one_reactor_and_not_with_its_work() {
    on_every_engine(|case| {
        let (manager, server) = (Manager::new(), Listener::new());
        let setup = Setup::new(server.address()).reactors(2).case(case);
        let setup = manager.of(setup).env("WATCHDOG_USEC", 400_000);
        let forwarder = setup.start();
        // As many as are wanted, and more, while it works.
        let crowd = Crowd::through(&forwarder, &server, 4);
        manager.wait_for("WATCHDOG=1", 8);
        crowd.finish();
        // One thread of several stands still: a debugger would do the same.
        let Some(stopped) = Stopped::reactor(&forwarder, 0) else {
            return;
        };
        std::thread::sleep(Duration::from_millis(300));
        let before = manager.with("WATCHDOG=1").len();
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(manager.with("WATCHDOG=1").len(), before, "{}", case.engine);
        drop(stopped);
        manager.wait_for("WATCHDOG=1", before + 2);
    });
}

#[test]
fn b155_a_drain_takes_more_time_and_ends_well() {
    let (manager, server) = (Manager::new(), Listener::new());
    let setup = Setup::new(server.address()).set("defaults.drain_timeout", "60s");
    let mut forwarder = manager.of(setup).start();
    let client = forwarder.connect();
    let upstream = server.accept();
    manager.wait_for("READY=1", 1);
    forwarder.process().signal(Signal::SIGTERM);
    let stopping = manager.wait_for("STOPPING=1", 1);
    let extension = stopping.value("EXTEND_TIMEOUT_USEC").unwrap();
    assert!(extension.parse::<u64>().unwrap() >= 10_000_000);
    manager.wait_for(&format!("EXTEND_TIMEOUT_USEC={extension}"), 2);
    drop((client, upstream));
    let ended = forwarder.wait_for_exit(PATIENCE);
    assert!(ended.expect("it ends").success());
}
