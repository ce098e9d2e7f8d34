//! System calls that fail once, a few times, now and then: by strace's fault
//! injection on the live process. The calls are those of the epoll engine.

use std::time::{Duration, Instant};

use super::{Echo, Went, echo};
use crate::kit::shortage::Fault;
use crate::kit::*;

/// Which of the calls from now on fail: the first, each third from the second on, a
/// row of them.
const POSITIONS: [&str; 3] = ["1", "2+3", "3..6"];

/// Bytes of the sessions that run while calls fail: within one read, in several, and
/// enough to be spliced.
const LENGTHS: [u64; 5] = [1, 5_000, 100_000, 600_000, 2_000];

/// One reactor, one tracer: forwarders for each errno, one after the other.
fn faults_of(call: &str, path: &'static str, errnos: &[&str], positions: &[&str]) {
    let server = Echo::new();
    let case = Case {
        engine: "epoll",
        path,
    };
    for errno in errnos {
        let forwarder = Setup::new(server.address).case(case).start();
        let mut injected = 0;
        for position in positions {
            let Some(fault) = Fault::when(forwarder.process(), call, errno, position) else {
                return;
            };
            let mut failed = 0;
            for (n, len) in LENGTHS.into_iter().enumerate() {
                let went = echo(forwarder.address(), n as u64, len);
                failed += usize::from(went == Went::Failed);
            }
            // Not one session fails without a call that did.
            assert!(
                failed <= fault.injected(),
                "{call} {errno} {position}: {failed} failed"
            );
            assert!(
                *errno != "EINTR" || call == "connect" || failed == 0,
                "{call}: an interrupted call cost a session"
            );
            rests(&forwarder, &format!("{call} {errno} {position}"));
            injected += fault.injected();
            drop(fault);
            // It is over, and nothing of it is left.
            for len in [3, 300_000] {
                assert_eq!(echo(forwarder.address(), len, len), Went::Exact, "{errno}");
            }
        }
        assert!(
            injected >= positions.len(),
            "{call} {errno}: {injected} failed"
        );
        wait_until("every session has ended", PATIENCE, || {
            let counters = forwarder.counters();
            counters.of("accepted") == counters.of("ended")
        });
        let counters = forwarder.counters();
        assert_eq!(
            counters.of("bytes_read"),
            counters.of("bytes_up") + counters.of("bytes_down") + counters.of("bytes_lost")
        );
        forwarder.check_idle();
    }
}

/// It sleeps, told by the turns of its loop: strace hides what it uses of a core.
fn rests(forwarder: &Forwarder, what: &str) {
    let start = Instant::now();
    let before = forwarder.counters().of("turns");
    std::thread::sleep(Duration::from_millis(60));
    let turns = forwarder.counters().of("turns") - before;
    let allowed = 10 + start.elapsed().as_millis() / 10;
    assert!(u128::from(turns) <= allowed, "{what}: {turns} turns, idle");
}

#[test]
fn b35_accept4_fails_now_and_then() {
    let errnos = ["EMFILE", "ENOMEM", "EINTR", "ENOBUFS", "EINVAL"];
    faults_of("accept4", "auto", &errnos, &POSITIONS);
}

#[test]
fn b34_socket_fails_now_and_then() {
    let errnos = ["EMFILE", "ENOMEM", "ENOBUFS", "EINVAL"];
    faults_of("socket", "auto", &errnos, &POSITIONS);
}

#[test]
fn b34_connect_fails_now_and_then() {
    let errnos = ["ENOMEM", "EINTR", "ENOBUFS", "EINVAL", "EADDRNOTAVAIL"];
    faults_of("connect", "auto", &errnos, &POSITIONS);
}

#[test]
fn b34_epoll_ctl_fails_now_and_then() {
    faults_of(
        "epoll_ctl",
        "auto",
        &["ENOMEM", "EINVAL", "ENOSPC"],
        &POSITIONS,
    );
}

#[test]
fn b36_pipe2_fails_now_and_then() {
    // Pipes are used again: only the first of them is opened for certain.
    let errnos = ["EMFILE", "ENOMEM", "EINVAL"];
    faults_of("pipe2", "splice", &errnos, &["1"]);
}

#[test]
fn b38_splice_fails_now_and_then() {
    faults_of(
        "splice",
        "splice",
        &["EINTR", "ENOMEM", "ENOBUFS", "EINVAL"],
        &POSITIONS,
    );
}

#[test]
fn b34_sendto_fails_now_and_then() {
    let errnos = ["EINTR", "ENOMEM", "ENOBUFS", "EINVAL"];
    faults_of("sendto", "copy", &errnos, &POSITIONS);
}

#[test]
fn b34_recvfrom_fails_now_and_then() {
    let errnos = ["EINTR", "ENOMEM", "ENOBUFS", "EINVAL"];
    faults_of("recvfrom", "copy", &errnos, &POSITIONS);
}
