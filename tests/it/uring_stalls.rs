//! Dialogues into a sink that is full: messages too short for bulk, so that they go
//! the way of completions, towards a peer that does not read. Behaviours 10, 12, 42
//! and 63 there, on every engine.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use crate::kit::peer::transfer;
use crate::kit::shortage::Fault;
use crate::kit::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, send};

/// Bytes of a message: below what counts as bulk.
const MESSAGE: u64 = 3000;

/// Messages after which every buffer on the way is full, and more wait at the
/// client.
const MANY: u64 = 60;

/// Sessions of which each says one message more than the one before: the buffers on
/// the way take what half of them say.
const SESSIONS: u64 = 30;

/// Behaviour 12: how soon a peer learns that the other has failed.
const TOLD_MAX: Duration = Duration::from_secs(1);

/// Short messages to and fro, after which a side may be read in another way.
fn converse(client: &mut Peer, upstream: &mut Peer) {
    for _ in 0..12 {
        transfer(client, upstream, 64);
        transfer(upstream, client, 64);
    }
}

/// Messages that arrive one by one.
fn say(client: &mut Peer, messages: u64) {
    for _ in 0..messages {
        client.send(MESSAGE);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Towards a server with small buffers.
fn setup(case: Case, server: &Listener) -> Setup {
    Setup::new(server.address())
        .case(case)
        .set("profile.small.send_buffer", "16KiB")
        .set("defaults.upstream_profile", "small")
}

/// Whether the connection's end, by whichever means, is known to the kernel within
/// `patience`; without reading what came before it.
fn is_told_within(peer: &Peer, patience: Duration) -> bool {
    let timeout = PollTimeout::try_from(patience).unwrap();
    let flags = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let mut fds = [PollFd::new(peer.stream().as_fd(), flags)];
    poll(&mut fds, timeout).unwrap() > 0
}

/// Whatever of the messages fits: an upstream that is told of an orderly end has
/// got all of them.
#[test]
fn b10_an_orderly_end_means_that_everything_arrived() {
    on_every_engine(|case| {
        let server = Listener::small(4096);
        let forwarder = setup(case, &server)
            .set("defaults.half_close_timeout", "1s")
            .start();
        let pairs: Vec<_> = (1..=SESSIONS)
            .map(|messages| {
                let mut client = forwarder.connect();
                let mut upstream = server.accept();
                converse(&mut client, &mut upstream);
                say(&mut client, messages);
                (client.sent(), client, upstream)
            })
            .collect();
        let upstreams: Vec<_> = pairs
            .into_iter()
            .map(|(sent, client, upstream)| {
                client.reset();
                (sent, upstream)
            })
            .collect();
        let records = forwarder.wait_for_sessions(SESSIONS as usize);
        for (sent, mut upstream) in upstreams {
            let end = upstream.receive_until_end();
            assert!(
                end != End::Eof || upstream.received() == sent,
                "{} of {sent} bytes, and an orderly end",
                upstream.received()
            );
        }
        assert!(records.iter().all(|record| record.cause() == "reset"));
        // Some of them were held when their time was up.
        assert!(records.iter().any(|record| record.lost() > 0));
        forwarder.check_idle();
    });
}

#[test]
fn b12_a_reset_is_told_although_the_sink_is_full() {
    on_every_engine(|case| {
        let server = Listener::small(4096);
        let forwarder = setup(case, &server).start();
        let told = best_of(3, TOLD_MAX, || {
            let mut client = forwarder.connect();
            let mut upstream = server.accept();
            converse(&mut client, &mut upstream);
            say(&mut client, MANY);
            client.reset();
            let since = Instant::now();
            assert!(is_told_within(&upstream, PATIENCE), "never told");
            since.elapsed()
        });
        assert!(told <= TOLD_MAX, "told after {told:?}");
    });
}

#[test]
fn b42_a_sink_that_takes_nothing_is_a_write_stall() {
    on_every_engine(|case| {
        let server = Listener::small(4096);
        let forwarder = setup(case, &server)
            .set("defaults.write_stall_timeout", "1s")
            .start();
        // Some of them end with the first message that does not fit.
        let pairs: Vec<_> = (1..=SESSIONS)
            .map(|messages| {
                let mut client = forwarder.connect();
                let mut upstream = server.accept();
                converse(&mut client, &mut upstream);
                say(&mut client, messages);
                (client, upstream)
            })
            .collect();
        // Held bytes are those of stalled sessions.
        wait_until("every stall is noticed", PATIENCE, || {
            forwarder.counters().of("held_bytes") == 0
        });
        let stalled = forwarder.sessions();
        assert!(!stalled.is_empty() && stalled.len() < SESSIONS as usize);
        for record in stalled {
            assert_eq!(record.cause(), "write_stall");
            assert!(record.lost() > 0);
        }
        drop(pairs);
        forwarder.wait_for_sessions(SESSIONS as usize);
        forwarder.check_idle();
    });
}

/// More arrives at once than there are buffers, for sinks that are almost full:
/// nothing spins, and every byte arrives once there is room.
#[test]
fn b63_no_buffer_and_a_full_sink_do_not_spin() {
    const CROWD: u64 = 100;
    on_every_engine(|case| {
        let server = Listener::small(4096);
        let forwarder = setup(case, &server).start();
        let mut pairs: Vec<_> = (0..CROWD)
            .map(|n| {
                let mut client = forwarder.connect().numbered_client(n);
                let mut upstream = server.accept().numbered_server(n);
                converse(&mut client, &mut upstream);
                (client, upstream)
            })
            .collect();
        for _ in 0..8 {
            for (client, _) in &mut pairs {
                client.send(MESSAGE);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        forwarder.process().stop();
        for (client, _) in &mut pairs {
            client.send(20_000);
        }
        forwarder.process().signal(Signal::SIGCONT);
        forwarder.check_quiet();
        for (client, upstream) in &mut pairs {
            client.half_close();
            upstream.expect_then_eof(client.sent() - upstream.received());
            upstream.half_close();
            assert_eq!(client.receive_until_end(), End::Eof);
        }
        drop(pairs);
        let records = forwarder.wait_for_sessions(CROWD as usize);
        assert!(records.iter().all(|record| record.cause() == "finished"));
        forwarder.check_idle();
    });
}

/// Urgent data is not passed on; what comes behind it is, whichever way a side is
/// read.
#[test]
fn urgent_data_keeps_nothing_up() {
    on_every_path(|case| {
        for dialogue in [false, true] {
            for len in [100, 3000, 200_000] {
                let server = Listener::new();
                let forwarder = Setup::new(server.address()).case(case).start();
                let mut client = forwarder.connect();
                let mut upstream = server.accept();
                if dialogue {
                    converse(&mut client, &mut upstream);
                }
                for _ in 0..3 {
                    transfer(&mut client, &mut upstream, len);
                    let urgent = send(client.stream().as_raw_fd(), b"!", MsgFlags::MSG_OOB);
                    assert_eq!(urgent, Ok(1));
                    transfer(&mut client, &mut upstream, len);
                }
                client.half_close();
                upstream.expect_then_eof(0);
                upstream.half_close();
                assert_eq!(client.receive_until_end(), End::Eof);
                assert_eq!(forwarder.wait_for_session().cause(), "finished");
                drop((client, upstream));
                forwarder.check_idle();
            }
        }
    });
}

/// While TCP memory is exhausted a socket says that it has room and takes nothing: a poll
/// for room must not be asked over and over (87,000 sends in four seconds).
#[test]
fn a_sink_that_says_it_has_room_and_takes_nothing_is_left_alone() {
    if !engines().contains(&"io_uring") {
        return skip(&test_name(), "no io_uring");
    }
    let server = Listener::new();
    let forwarder = Setup::new(server.address()).engine("io_uring").start();
    let mut client = forwarder.connect();
    client.send(1);
    let mut upstream = server.accept();
    upstream.expect(1);
    let Some(refused) = Fault::always(forwarder.process(), "sendto", "EAGAIN") else {
        return;
    };
    client.send(10_000);
    wait_until("it is refused", PATIENCE, || refused.injected() > 0);
    let before = refused.injected();
    std::thread::sleep(Duration::from_secs(2));
    let tries = refused.injected() - before;
    // Ten a second, and what a machine does that was busy elsewhere meanwhile.
    assert!(tries < 200, "{tries} tries in two seconds");
    drop(refused);
    upstream.expect(10_000);
    client.close();
    upstream.close();
    forwarder.check_idle();
}
