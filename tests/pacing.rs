//! Bytes that come in the wrong sizes: behaviours 16 and 17 on the real binary.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod kit;

use std::thread;
use std::time::{Duration, Instant};

use kit::peer::transfer;
use kit::*;

/// Below Nagle's and the delayed ACK's 40 ms.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(30);

/// Below the 200 ms for which the kernel holds back a segment that was promised more.
const TAIL_MAX: Duration = Duration::from_millis(150);

/// Bulk both ways, then a dialogue of single bytes, again and again in one
/// connection. A stall that the data path causes is there in each of the rounds, so
/// the best of them tells.
#[test]
fn b16_ping_pong_after_bulk() {
    const BULK: u64 = 8 * MIB + 1;
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        let tail = best_of(5, TAIL_MAX, || {
            transfer(&mut upstream, &mut client, BULK);
            transfer(&mut client, &mut upstream, BULK);
            // What a transfer ends with is not held back.
            let start = Instant::now();
            transfer(&mut upstream, &mut client, MIB + 1);
            transfer(&mut client, &mut upstream, MIB + 1);
            start.elapsed()
        });
        assert!(tail <= TAIL_MAX, "the end of a transfer took {tail:?}");
        let slowest = best_of(5, ROUND_TRIP_MAX, || {
            transfer(&mut upstream, &mut client, BULK);
            transfer(&mut client, &mut upstream, BULK);
            let trips = (0..40).map(|_| round_trip(&mut client, &mut upstream));
            trips.max().unwrap()
        });
        assert!(slowest <= ROUND_TRIP_MAX, "a byte took {slowest:?}");
        client.close();
        upstream.close();
        let record = forwarder.wait_for_session();
        let spliced = ["path_up", "path_down"].map(|path| record.text(path) == "splice");
        assert_eq!(spliced, [case.path != "copy"; 2], "{record:?}");
        forwarder.check_idle();
    });
}

fn round_trip(client: &mut Peer, upstream: &mut Peer) -> Duration {
    let start = Instant::now();
    client.send_byte();
    upstream.expect(1);
    upstream.send_byte();
    client.expect(1);
    start.elapsed()
}

/// Each byte is a segment, and takes a slot of a pipe: the pipe is full long before
/// its bytes are. Then the reader reads on.
#[test]
fn b17_one_byte_segments_towards_a_stalled_reader() {
    const SEGMENTS: u64 = 10_000;
    const DONE: Duration = Duration::from_secs(1);
    on_every_path(|case| {
        let server = Listener::small(4096);
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("profile.default.send_buffer", "4KiB")
            .start();
        for (uploading, full) in [(true, true), (true, false), (false, true), (false, false)] {
            let took = best_of(3, DONE, || {
                let client = Peer::connect_small(forwarder.address(), 4096);
                let upstream = server.accept();
                let (mut sender, mut reader) = if uploading {
                    (client, upstream)
                } else {
                    (upstream, client)
                };
                // Either the way is full already, and they wait as a crowd, or the
                // forwarder takes them one by one until it is.
                let stuck = if full {
                    sender.send_until_stuck(Duration::from_millis(50))
                } else {
                    0
                };
                resumes(&mut sender, &mut reader, stuck, SEGMENTS)
            });
            assert!(took <= DONE, "{SEGMENTS} bytes took {took:?}");
        }
        forwarder.wait_for_sessions(4);
        forwarder.check_idle();
    });
}

/// Sends single bytes until the way is full of them, or all are sent; then the
/// reader takes everything. Returns how long that took.
fn resumes(sender: &mut Peer, reader: &mut Peer, stuck: u64, segments: u64) -> Duration {
    let sent = std::sync::atomic::AtomicU64::new(0);
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            for _ in 0..segments {
                sender.send_byte();
                sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        });
        let mut before = u64::MAX;
        wait_until("the sender is stuck or done", PATIENCE, || {
            let now = sent.load(std::sync::atomic::Ordering::Relaxed);
            let still = now == before || sending.is_finished();
            before = now;
            thread::sleep(Duration::from_millis(20));
            still
        });
        let start = Instant::now();
        reader.expect(stuck + segments);
        start.elapsed()
    })
}
