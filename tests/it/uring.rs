//! What only completions can get wrong: behaviours 62 to 64 on the real binary,
//! with `engine = "io_uring"`. Queues that overflow and buffers that run out are
//! also in `tests/conformance` and in the unit tests of the ring.
#![allow(unsafe_code, reason = "a seccomp filter is set between fork and exec")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::kit::peer::transfer;
use crate::kit::*;

/// Behaviour 62: from the deadline that ends a session to its end at the peers.
const END_MAX: Duration = Duration::from_millis(100);

/// Short messages after which a side is read by multishot receives; more than
/// enough of them.
const WARM_UP: u64 = 12;

fn is_permitted() -> bool {
    engines().contains(&"io_uring")
}

/// Both sides have said something often enough to be received from, not watched.
fn converse(client: &mut Peer, upstream: &mut Peer) {
    for n in 1..=WARM_UP {
        transfer(client, upstream, n);
        transfer(upstream, client, n);
    }
}

/// Both sides are cut by a timeout while a receive is in flight on each.
#[test]
fn b62_closing_with_a_receive_in_flight() {
    if !is_permitted() {
        return;
    }
    let idle = Duration::from_millis(300);
    let server = Listener::new();
    let forwarder = Setup::new(server.address())
        .engine("io_uring")
        .set("defaults.idle_timeout", "300ms")
        .start();
    let late = best_of(5, END_MAX, || {
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        converse(&mut client, &mut upstream);
        let silent_since = Instant::now();
        let ended = client.receive_until_end_within(PATIENCE);
        let told = silent_since.elapsed();
        assert!(ended.is_some(), "the client was never told");
        assert!(upstream.receive_until_end_within(END_MAX).is_some());
        told.saturating_sub(idle)
    });
    assert!(late <= END_MAX, "the end came {late:?} after the deadline");
    forwarder.wait_for_sessions(1);
    forwarder.check_idle();
}

/// One session after the other on the same descriptors and the same slot, the last
/// bytes of each on their way when it is reset.
#[test]
fn b62_a_descriptor_used_again_gets_nobody_elses_bytes() {
    const SESSIONS: u64 = 300;
    if !is_permitted() {
        return;
    }
    let server = Listener::new();
    let forwarder = Setup::new(server.address()).engine("io_uring").start();
    for n in 0..SESSIONS {
        let mut client = forwarder.connect().numbered_client(n);
        let mut upstream = server.accept().numbered_server(n);
        // Checks every byte: the pattern is this session's own.
        converse(&mut client, &mut upstream);
        client.send(3000);
        upstream.send(3000);
        if n % 2 == 0 {
            client.reset();
            drop(upstream);
        } else {
            upstream.reset();
            drop(client);
        }
    }
    forwarder.wait_for_sessions(SESSIONS as usize);
    forwarder.check_idle();
}

/// More sides get bytes in one turn than there are buffers.
#[test]
fn b63_more_arrives_at_once_than_there_are_buffers() {
    const SESSIONS: u64 = 400;
    if !is_permitted() {
        return;
    }
    let server = Listener::new();
    let forwarder = Setup::new(server.address()).engine("io_uring").start();
    let mut sessions: Vec<(Peer, Peer)> = (0..SESSIONS)
        .map(|n| {
            let client = forwarder.connect().numbered_client(n);
            (client, server.accept().numbered_server(n))
        })
        .collect();
    for (client, upstream) in &mut sessions {
        converse(client, upstream);
    }
    for _ in 0..3 {
        stop(&forwarder, true);
        for (client, upstream) in &mut sessions {
            client.send(6000);
            upstream.send(20_000);
        }
        stop(&forwarder, false);
        for (client, upstream) in &mut sessions {
            upstream.expect(6000);
            client.expect(20_000);
        }
        // The sides that found no buffer are received from again.
        for (client, upstream) in &mut sessions {
            converse(client, upstream);
        }
    }
    for (client, upstream) in sessions {
        client.close();
        upstream.close();
    }
    let records = forwarder.wait_for_sessions(SESSIONS as usize);
    assert!(records.iter().all(|record| record.cause() == "finished"));
    forwarder.check_idle();
}

/// Stops the process where it stands, or lets it go on.
fn stop(forwarder: &Forwarder, stop: bool) {
    let signal = if stop { libc::SIGSTOP } else { libc::SIGCONT };
    // SAFETY: a plain system call; the process is this test's child.
    assert_eq!(
        unsafe { libc::kill(forwarder.process().0 as i32, signal) },
        0
    );
}

#[test]
fn b64_forbidden_by_a_filter() {
    // With or without io_uring on this machine: the filter comes first.
    falls_back(libc::SYS_io_uring_setup, libc::EPERM);
}

#[test]
fn b64_unknown_to_the_kernel() {
    falls_back(libc::SYS_io_uring_setup, libc::ENOSYS);
}

#[test]
fn b64_a_ring_is_made_but_cannot_be_entered() {
    if is_permitted() {
        falls_back(libc::SYS_io_uring_enter, libc::EPERM);
    }
}

/// `auto` forwards by epoll and says so in one warning; `io_uring` does not start,
/// and says why.
fn falls_back(call: libc::c_long, errno: i32) {
    let server = Listener::new();
    let mut child = filtered("auto", &server, call, errno).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut warnings = Vec::new();
    let mut address = None;
    while let Some(Ok(line)) = lines.next() {
        if line.contains("\"warn\"") {
            warnings.push(line.clone());
        }
        if let Some((_, rest)) = line.split_once("listening on ") {
            address = rest.split(' ').next().map(str::to_owned);
        }
        if line.contains("reactors, engine ") {
            assert!(line.contains("engine epoll"), "{line}");
            break;
        }
    }
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("engine epoll: io_uring is not to be had"));
    let mut client = Peer::connect(address.unwrap().parse().unwrap());
    let mut upstream = server.accept();
    transfer(&mut client, &mut upstream, 100_000);
    child.kill().unwrap();
    child.wait().unwrap();

    let refused = filtered("io_uring", &server, call, errno).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(why.contains("io_uring"), "{why}");
}

/// The forwarder under a filter in which one system call fails.
fn filtered(
    engine: &str,
    server: &Listener,
    call: libc::c_long,
    errno: i32,
) -> std::process::Command {
    let mut command = Setup::new(server.address()).engine(engine).command();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let statement = |code: u32, k: u32, skip: u8| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: skip,
        k,
    };
    let program = [
        // The number of the call is the first word of `struct seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32, 1),
        statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | errno as u32,
            0,
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let install = move || {
        let program = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_ptr().cast_mut(),
        };
        // SAFETY: plain system calls; the program lives until they return.
        let installed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::SECCOMP_MODE_FILTER,
                    &raw const program,
                ) == 0
        };
        if installed {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    // SAFETY: between fork and exec the closure makes two system calls and touches
    // nothing that another thread of the parent may have locked.
    unsafe { command.pre_exec(install) };
    command
}
