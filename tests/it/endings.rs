//! How connections end in good order: behaviours 1 to 8 on the real binary.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use crate::kit::peer::transfer;
use crate::kit::*;

/// Runs `behaviour` where no other test sends a packet, and checks that no host of
/// it sent a reset. Without root the resets are not counted; what the peers see is
/// checked all the same.
fn without_any_reset(behaviour: impl FnOnce() + Send) {
    let Some(namespace) = Namespace::new() else {
        return behaviour();
    };
    namespace.run(|| {
        behaviour();
        let snmp = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut pairs = names.split(' ').zip(values.split(' '));
        let resets = pairs.find(|(name, _)| *name == "OutRsts");
        assert_eq!(resets, Some(("OutRsts", "0")));
    });
}

#[test]
fn b01_client_half_closes_then_downloads() {
    on_every_path(|case| {
        without_any_reset(|| {
            let server = Listener::new();
            let forwarder = Setup::new(server.address()).case(case).start();
            let mut client = forwarder.connect();
            let mut upstream = server.accept();
            client.send(1_234_567);
            client.half_close();
            upstream.expect_then_eof(1_234_567);
            // Long after any timeout that an end on one side might have started.
            thread::sleep(Duration::from_secs(2));
            transfer(&mut upstream, &mut client, 50 * MIB);
            upstream.close();
            client.expect_then_eof(0);
            client.close();
            let record = forwarder.wait_for_session();
            assert_eq!(record.code(), "--");
            assert_eq!(record.bytes(), (1_234_567, 50 * MIB));
            forwarder.check_idle();
        });
    });
}

#[test]
fn b02_upstream_half_closes_then_client_uploads() {
    on_every_path(|case| {
        without_any_reset(|| {
            let server = Listener::new();
            let forwarder = Setup::new(server.address()).case(case).start();
            let mut client = forwarder.connect();
            let mut upstream = server.accept();
            upstream.send(1_234_567);
            upstream.half_close();
            client.expect_then_eof(1_234_567);
            transfer(&mut client, &mut upstream, 50 * MIB);
            client.close();
            upstream.expect_then_eof(0);
            upstream.close();
            let record = forwarder.wait_for_session();
            assert_eq!(record.code(), "--");
            assert_eq!(record.bytes(), (50 * MIB, 1_234_567));
            forwarder.check_idle();
        });
    });
}

/// The server takes so little, and the forwarder's kernel keeps so little, that most
/// of each upload lies in the forwarder itself when the client's end arrives.
#[test]
fn b03_client_ends_while_upstream_is_not_reading() {
    on_every_path(|case| {
        let server = Listener::small(4096);
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("profile.default.send_buffer", "16KiB")
            .start();
        for len in [1, 20_000, 100_000, 200_000, 300_000, 700_001] {
            let mut client = forwarder.connect();
            let mut upstream = server.accept();
            // The sizes that fit in the client's kernel and the forwarder do not
            // block; a larger one goes on while the server reads.
            thread::scope(|scope| {
                scope.spawn(|| {
                    client.send(len);
                    client.half_close();
                });
                thread::sleep(Duration::from_millis(100));
                upstream.expect_then_eof(len);
            });
            upstream.close();
            client.expect_then_eof(0);
        }
        assert!(
            forwarder
                .wait_for_sessions(6)
                .iter()
                .all(|r| r.code() == "--")
        );
        forwarder.check_idle();
    });
}

/// Nothing else is sent in such a connection: an engine that stops at a short read,
/// or takes the hang-up for all there is, stalls or truncates it.
#[test]
fn b04_data_and_end_in_one_segment_ten_thousand_times() {
    const ROUNDS: u64 = 10_000;
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let mut upstream = server.accept();
                    assert_eq!(upstream.receive_until_end(), End::Eof);
                    upstream.send_with_end(upstream.received());
                }
            });
            for round in 0..ROUNDS {
                let mut client = forwarder.connect();
                let len = 1 + round * 7 % 5000;
                client.send_with_end(len);
                client.expect_then_eof(len);
            }
        });
        let counters = forwarder.counters();
        assert_eq!(counters.of("accepted"), ROUNDS);
        assert_eq!(counters.of("ended_well"), ROUNDS);
        forwarder.check_idle();
    });
}

#[test]
fn b05_both_sides_end_at_the_same_moment() {
    const ROUNDS: usize = 100;
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        let moment = Barrier::new(2);
        for _ in 0..ROUNDS {
            let mut client = forwarder.connect();
            let mut upstream = server.accept();
            client.send(10);
            upstream.expect(10);
            thread::scope(|scope| {
                scope.spawn(|| {
                    moment.wait();
                    upstream.half_close();
                    upstream.expect_then_eof(0);
                });
                moment.wait();
                client.half_close();
                client.expect_then_eof(0);
            });
        }
        let records = forwarder.wait_for_sessions(ROUNDS);
        assert!(records.iter().all(|record| record.code() == "--"));
        forwarder.check_idle();
        assert_eq!(forwarder.sessions().len(), ROUNDS, "one record each");
    });
}

#[test]
fn b06_connects_and_ends_at_once() {
    const ROUNDS: usize = 200;
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        for round in 0..ROUNDS {
            let mut client = forwarder.connect();
            client.half_close();
            // Every other client does not wait for an answer.
            let waiting = (round % 2 == 0).then_some(&mut client);
            let mut upstream = server.accept();
            upstream.expect_then_eof(0);
            upstream.close();
            if let Some(client) = waiting {
                client.expect_then_eof(0);
            }
        }
        let records = forwarder.wait_for_sessions(ROUNDS);
        assert!(records.iter().all(|record| record.bytes() == (0, 0)));
        assert!(records.iter().all(|record| record.code() == "--"));
        forwarder.check_idle();
        assert_eq!(forwarder.complaints().len(), 0);
    });
}

/// Each side in turn ends, and the other goes on for longer than the timeout, a byte
/// at a time; then it falls silent.
#[test]
fn b07_half_closed_then_silent() {
    const TIMEOUT: Duration = Duration::from_millis(800);
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("defaults.half_close_timeout", "800ms")
            .start();
        for client_ends in [true, false] {
            let (client, upstream) = (forwarder.connect(), server.accept());
            let (mut ended, mut talker) = if client_ends {
                (client, upstream)
            } else {
                (upstream, client)
            };
            ended.half_close();
            talker.expect_then_eof(0);
            for _ in 0..5 {
                thread::sleep(TIMEOUT / 3);
                talker.send_byte();
                ended.expect(1);
            }
            let silent_since = Stopwatch::start();
            ended.receive_until_end();
            let (silence, allowing) = (silent_since.elapsed(), silent_since.allowing());
            // The forwarder's last byte moved a little before the test saw it.
            assert!(silence > TIMEOUT * 3 / 4, "cut after {silence:?}");
            assert!(allowing < TIMEOUT * 3, "cut only after {silence:?}");
        }
        let records = forwarder.wait_for_sessions(2);
        let codes: Vec<_> = records.iter().map(Record::code).collect();
        assert_eq!(codes, ["sL", "cL"]);
        assert!(records.iter().all(|r| r.cause() == "half_close_timeout"));
        forwarder.check_idle();
    });
}

/// The server answers without reading the upload to its end, and ends; the client
/// looks at the answer only when its upload is through.
#[test]
fn b08_upstream_replies_and_ends_while_client_uploads() {
    const REPLY: u64 = 300_000;
    const UPLOAD: u64 = 20 * MIB;
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        for reads_on in [true, false] {
            let mut client = forwarder.connect();
            let mut upstream = server.accept();
            thread::scope(|scope| {
                scope.spawn(|| {
                    upstream.expect(100_000);
                    upstream.send(REPLY);
                    upstream.half_close();
                    if reads_on {
                        upstream.expect_then_eof(UPLOAD - 100_000);
                    } else {
                        // Closing a socket with unread bytes makes the kernel reset;
                        // what was acknowledged is the forwarder's to deliver.
                        upstream.wait_until_acknowledged();
                        upstream.close();
                    }
                });
                // Cut short by a reset if the server reads no more.
                let sent = client.try_send(UPLOAD);
                assert!(sent.is_ok() || !reads_on, "{sent:?}");
                let _ = client.stream().shutdown(std::net::Shutdown::Write);
                let end = client.receive_until_end();
                assert_eq!(client.received(), REPLY);
                assert!(end == End::Eof || !reads_on);
            });
        }
        forwarder.wait_for_sessions(2);
        forwarder.check_idle();
    });
}
