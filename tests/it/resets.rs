//! How connections end by force: behaviours 9 to 15 on the real binary.

use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::pattern::Pattern;
use crate::kit::peer::transfer;
use crate::kit::*;

/// How long a peer may wait to be told (behaviour 9).
const TOLD: Duration = Duration::from_millis(100);

/// How long a side may outlive the reset of the other (behaviour 12).
const TORN_DOWN: Duration = Duration::from_secs(1);

#[test]
fn b09_a_reset_while_idle_is_passed_on_as_a_reset() {
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        for client_resets in [true, false] {
            let took = best_of(5, TOLD, || {
                let mut client = forwarder.connect();
                let mut upstream = server.accept();
                // Both lanes have been used, and are idle now.
                transfer(&mut client, &mut upstream, 1000);
                transfer(&mut upstream, &mut client, 1000);
                let (resetting, mut other) = if client_resets {
                    (client, upstream)
                } else {
                    (upstream, client)
                };
                let start = Instant::now();
                resetting.reset();
                assert_eq!(other.receive_until_end(), End::Reset);
                start.elapsed()
            });
            assert!(took <= TOLD, "told only after {took:?}");
        }
        let records = forwarder.wait_for_sessions(2);
        assert!(records.iter().all(|record| record.cause() == "reset"));
        assert!(records.iter().any(|record| record.code() == "CD"));
        assert!(records.iter().any(|record| record.code() == "SD"));
        forwarder.check_idle();
    });
}

/// How a client reads that is owed bytes by a server that has reset.
#[derive(Debug, Clone, Copy)]
enum Reader {
    /// All the time.
    Eager,
    /// Not before the server has reset.
    Late,
    /// A little at a time, for longer than any patience of the forwarder.
    Slow,
}

#[test]
fn b10_what_was_delivered_before_a_reset_arrives() {
    on_every_path(|case| {
        for reader in [Reader::Eager, Reader::Late, Reader::Slow] {
            delivers_before_reset(case, reader);
        }
    });
}

fn delivers_before_reset(case: Case, reader: Reader) {
    let reply = match reader {
        Reader::Eager => MIB,
        // More than the client takes, and little enough to be acknowledged all the same:
        // by what the forwarder's two kernel buffers have room for at the least (64 KiB
        // each), and the half of its send buffer that it holds itself.
        Reader::Late | Reader::Slow => 150_000,
    };
    let server = Listener::new();
    let forwarder = Setup::new(server.address())
        .case(case)
        .set("profile.default.send_buffer", "64KiB")
        .start();
    let mut client = match reader {
        Reader::Eager => forwarder.connect(),
        // Its window stays small, so that the forwarder holds the rest.
        Reader::Late | Reader::Slow => Peer::connect_small(forwarder.address(), 32 * 1024),
    };
    let mut upstream = server.accept();
    thread::scope(|scope| {
        if matches!(reader, Reader::Eager) {
            scope.spawn(|| client.expect(reply));
        }
        upstream.send(reply);
        // The kernel of a server whose bytes are not yet acknowledged throws them
        // away when it resets: that loss is its own.
        upstream.wait_until_acknowledged();
        upstream.reset();
    });
    if matches!(reader, Reader::Slow) {
        while client.received() < reply {
            client.expect(reply / 16);
            thread::sleep(Duration::from_millis(100));
        }
    }
    let end = client.receive_until_end();
    assert_eq!(client.received(), reply, "{reader:?} {end:?}");
    let record = forwarder.wait_for_session();
    assert_eq!((record.code(), record.cause()), ("SD", "reset"));
    assert_eq!((record.bytes(), record.lost()), ((0, reply), 0));
    forwarder.check_idle();
}

/// Bytes are stuck on their way to a peer that does not read when one of the sides
/// resets. Afterwards connections with payload of their own run over whatever was
/// put back in the pool: a foreign byte is a wrong byte. What `check_idle` finds in
/// a pooled pipe would be one, too.
#[test]
fn b11_bytes_of_a_reset_connection_never_reach_another() {
    on_every_path(|case| {
        let server = Listener::small(4096);
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("profile.default.send_buffer", "16KiB")
            .start();
        for round in 0..8 {
            let client = Peer::connect_small(forwarder.address(), 4096);
            let mut client = client.numbered_client(2 * round);
            let mut upstream = server.accept().numbered_server(2 * round);
            let sender_resets = round % 2 == 0;
            let uploading = round % 4 < 2;
            let sender = if uploading {
                &mut client
            } else {
                &mut upstream
            };
            let stuck = sender.send_until_stuck(Duration::from_millis(50));
            assert!(stuck > 64 * KIB, "only {stuck} bytes were sent");
            if sender_resets == uploading {
                client.reset();
                upstream.receive_until_end();
            } else {
                upstream.reset();
                client.receive_until_end();
            }
            let next = 2 * round + 1;
            let mut client = forwarder.connect().numbered_client(next);
            let mut upstream = server.accept().numbered_server(next);
            transfer(&mut client, &mut upstream, 2 * MIB);
            transfer(&mut upstream, &mut client, 2 * MIB);
        }
        forwarder.wait_for_sessions(16);
        forwarder.check_idle();
    });
}

#[test]
fn b12_client_resets_while_the_forwarder_has_stopped_reading() {
    on_every_path(|case| {
        let server = Listener::small(4096);
        let forwarder = Setup::new(server.address()).case(case).start();
        let took = best_of(3, TORN_DOWN, || {
            let before = forwarder.sessions().len();
            let mut client = forwarder.connect();
            let mut upstream = server.accept();
            client.send_until_stuck(Duration::from_millis(300));
            forwarder.check_quiet();
            let start = Instant::now();
            client.reset();
            forwarder.wait_for_sessions(before + 1);
            let took = start.elapsed();
            assert_eq!(upstream.receive_until_end(), End::Reset);
            took
        });
        assert!(took <= TORN_DOWN, "torn down only after {took:?}");
        for record in forwarder.sessions() {
            assert_eq!((record.code(), record.cause()), ("CD", "reset"));
        }
        forwarder.check_idle();
    });
}

/// A server whose accept queue is full answers no SYN: the connect neither succeeds
/// nor fails.
#[test]
fn b13_client_resets_while_the_upstream_is_being_connected() {
    const CLIENTS: usize = 20;
    on_every_engine(|case| {
        let server = Listener::without_backlog();
        let fillers = server.fill_accept_queue();
        let forwarder = Setup::new(server.address()).case(case).start();
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| forwarder.connect()).collect();
        for client in &mut clients {
            client.send(1000);
        }
        wait_until("every upstream is being connected", PATIENCE, || {
            forwarder.counters().of("connects") == CLIENTS as u64
        });
        forwarder.check_quiet();
        assert_eq!(forwarder.sessions().len(), 0);
        for client in clients {
            client.reset();
        }
        for record in forwarder.wait_for_sessions(CLIENTS) {
            assert_eq!((record.code(), record.cause()), ("CC", "reset"));
        }
        forwarder.check_idle();
        drop(fillers);
    });
}

#[test]
fn b14_an_end_and_then_a_reset_from_the_same_side() {
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        for (round, client_ends) in [true, false].into_iter().enumerate() {
            let (client, upstream) = (forwarder.connect(), server.accept());
            let (mut ended, mut other) = if client_ends {
                (client, upstream)
            } else {
                (upstream, client)
            };
            ended.send(1000);
            ended.half_close();
            other.expect_then_eof(1000);
            other.send(1000);
            ended.expect(1000);
            ended.reset();
            let records = forwarder.wait_for_sessions(round + 1);
            assert_eq!(records[round].cause(), "reset");
            assert_eq!(records[round].code(), if client_ends { "CL" } else { "SL" });
            // The other side is told, too: it cannot go on sending.
            let told = poll(PATIENCE, || other.try_send(1).err());
            assert!(told.is_some(), "it may send for ever");
        }
        forwarder.check_idle();
    });
}

/// The server sends, never reads, and is stuck in that for a while; then its
/// connection dies while the forwarder writes to it.
#[test]
fn b15_upstream_stops_reading_and_resets() {
    const REPLY: u64 = 500_000;
    on_every_path(|case| {
        let server = Listener::small(4096);
        let forwarder = Setup::new(server.address()).case(case).start();
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        client.send_until_stuck(Duration::from_millis(200));
        upstream.send(REPLY);
        upstream.wait_until_acknowledged();
        upstream.reset();
        client.receive_until_end();
        assert_eq!(client.received(), REPLY);
        let record = forwarder.wait_for_session();
        assert_eq!(record.code(), "SD");
        forwarder.check_idle();
    });
}

/// A unix socket can be shut for reading alone: writing to it is EPIPE, and raises
/// SIGPIPE where that is not seen to, while its owner goes on sending.
#[test]
fn b15_upstream_that_takes_no_more_is_still_heard() {
    const REPLY: u64 = 5 * MIB;
    on_every_path(|case| {
        let path = std::env::temp_dir().join(format!(
            "thalweg-b15-{}-{}-{}.sock",
            std::process::id(),
            case.engine,
            case.path
        ));
        let server = UnixListener::bind(&path).unwrap();
        let to = format!("unix:{}", path.display());
        let forwarder = Setup::new(to).case(case).start();
        let mut client = forwarder.connect();
        client.send(1);
        let (upstream, _) = server.accept().unwrap();
        std::fs::remove_file(&path).unwrap();
        upstream.shutdown(std::net::Shutdown::Read).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| send_down(upstream, REPLY));
            // The forwarder runs into EPIPE with these.
            client.send(1_000_000);
            client.receive_until_end();
        });
        assert_eq!(client.received(), REPLY);
        forwarder.wait_for_session();
        forwarder.check_idle();
    });
}

/// What the server of connection 0 sends, over a unix socket; then it closes.
fn send_down(mut upstream: UnixStream, len: u64) {
    use std::io::Write;
    let mut pattern = Pattern::new(2);
    while pattern.position() < len {
        let sent = upstream.write(pattern.upcoming(len - pattern.position()));
        pattern.advance(sent.unwrap() as u64);
    }
}
