//! Bytes that come in the wrong sizes: behaviours 16 and 17 on the real binary.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::alone;
use crate::kit::peer::transfer;
use crate::kit::*;

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
    let _alone = alone();
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
            let trip = (0..40)
                .map(|_| round_trip(&mut client, &mut upstream))
                .max();
            // After a dialogue the peers' kernels delay their ACKs; a byte that is
            // held back for one is late.
            let up = (0..20).map(|_| passage(&mut client, &mut upstream)).max();
            let down = (0..20).map(|_| passage(&mut upstream, &mut client)).max();
            trip.max(up).max(down).unwrap()
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

fn passage(from: &mut Peer, to: &mut Peer) -> Duration {
    let start = Instant::now();
    from.send_byte();
    to.expect(1);
    start.elapsed()
}

/// Each byte is a segment, and takes a slot of a pipe: the pipe is full long before
/// its bytes are. They arrive while the forwarder holds what the reader does not
/// take; then the reader reads on. A thousand fit into the forwarder's receive buffer:
/// nothing more arrives that could wake up a lane that took a full pipe for an empty
/// socket.
#[test]
fn b17_one_byte_segments_towards_a_stalled_reader() {
    const DONE: Duration = Duration::from_secs(1);
    let _alone = alone();
    on_every_path(|case| {
        let server = Listener::small(4096);
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("profile.default.send_buffer", "4KiB")
            .start();
        for (uploading, segments) in [(true, 10_000), (true, 1000), (false, 10_000), (false, 1000)]
        {
            let took = best_of(3, DONE, || {
                let client = Peer::connect_small(forwarder.address(), 4096);
                let upstream = server.accept();
                let (mut sender, mut reader) = if uploading {
                    (client, upstream)
                } else {
                    (upstream, client)
                };
                send_until_held(&mut sender, &forwarder);
                resumes(&mut sender, &mut reader, segments)
            });
            assert!(took <= DONE, "{segments} bytes took {took:?}");
        }
        forwarder.wait_for_sessions(4);
        forwarder.check_idle();
    });
}

/// Sends little by little until the forwarder holds bytes that the reader does not
/// take, and reads no more.
fn send_until_held(sender: &mut Peer, forwarder: &Forwarder) {
    wait_until("the forwarder holds bytes", PATIENCE, || {
        sender.send(4 * KIB);
        sender.wait_until_acknowledged();
        forwarder.counters().of("held_bytes") > 0
    });
}

/// Sends single bytes until the way is full of them, or all are sent; then the
/// reader takes everything. Returns how long that took.
fn resumes(sender: &mut Peer, reader: &mut Peer, segments: u64) -> Duration {
    let (before, sent) = (sender.sent(), AtomicU64::new(0));
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut aside = Aside::new();
            for _ in 0..segments {
                sender.send_byte();
                aside.send_byte();
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut seen = u64::MAX;
        wait_until("the sender is stuck or done", PATIENCE, || {
            thread::sleep(Duration::from_millis(30));
            let now = sent.load(Ordering::Relaxed);
            let still = now == seen;
            seen = now;
            still || sending.is_finished()
        });
        let start = Instant::now();
        reader.expect(before + segments);
        start.elapsed()
    })
}

/// Another connection of the same thread. The kernel takes the memory of what a
/// thread sends from one page after the other, and bytes that lie side by side share
/// a slot of a pipe: a byte sent aside keeps them apart.
struct Aside(Peer, Peer);

impl Aside {
    fn new() -> Self {
        let listener = Listener::new();
        let client = Peer::connect(listener.address());
        Self(client, listener.accept())
    }

    fn send_byte(&mut self) {
        self.0.send_byte();
        self.1.expect(1);
    }
}
