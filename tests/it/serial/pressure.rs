//! What an innocent bulk transfer costs while others hold as much as may be held. Not a test:
//! it tells a figure, and takes a while for it.
//!
//! ```text
//! cargo test --release --all-features --test it serial::pressure -- --ignored --nocapture
//! ```

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::alone;
use crate::kit::*;

/// As many readers that stall, and so much that may be held for them.
const READERS: usize = 120;
const LIMIT: u64 = 4 * MIB;

/// What one transfer moves, and how often each is done.
const BULK: u64 = 1024 * MIB;
const ROUNDS: usize = 9;

/// Takes what one connection after another sends, and says when it is all there.
fn sink() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut buffer = vec![0; 256 * KIB as usize];
            let mut left = BULK;
            while left > 0 {
                match client.read(&mut buffer) {
                    Ok(len @ 1..) => left -= len as u64,
                    _ => return,
                }
            }
            client.write_all(b"!").unwrap();
        }
    });
    address
}

/// A client of an address of its own, so that each has a share, which reads nothing.
fn stalls_from(last: u8, to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let own = SocketAddr::from(([127, 0, 66, last], 0));
    socket.bind(&own.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket
}

/// The forwarder's CPU for one transfer through it.
fn costs(forwarder: &Forwarder, to: SocketAddr) -> Duration {
    let before = forwarder.process().processor_time();
    let mut client = TcpStream::connect(to).unwrap();
    let chunk = vec![b'x'; 256 * KIB as usize];
    for _ in 0..BULK / chunk.len() as u64 {
        client.write_all(&chunk).unwrap();
    }
    client.read_exact(&mut [0]).unwrap();
    forwarder.process().processor_time().saturating_sub(before)
}

#[test]
#[ignore = "measures, and asserts nothing"]
fn a_bulk_transfer_beside_readers_that_stall() {
    let _alone = alone();
    let (stalls, sink) = (Listener::new(), sink());
    for engine in engines() {
        let start = || {
            Setup::new(sink)
                .and("127.0.0.1:0", stalls.address())
                .engine(engine)
                .set("global.buffer_limit", LIMIT)
                .set("profile.default.receive_buffer", "256KiB")
                .set("profile.default.send_buffer", "64KiB")
                .start()
        };
        let [free, pressed] = [start(), start()];
        let crowded: SocketAddr = pressed.addresses()[1].parse().unwrap();
        let stalled: Vec<_> = (0..READERS)
            .map(|n| {
                let reader = stalls_from(n as u8, crowded);
                let mut server = stalls.accept();
                server.send_until_stuck(Duration::from_millis(20));
                (reader, server)
            })
            .collect();
        let held = pressed.counters().of("held_bytes");
        println!("{engine}: {held} bytes of {LIMIT} are held for {READERS} readers");
        let mut ratios = Vec::new();
        for round in 0..ROUNDS {
            let pair = |it: &Forwarder| costs(it, it.address());
            // Whoever is second finds another machine: in turn.
            let (without, with) = if round % 2 == 0 {
                let without = pair(&free);
                (without, pair(&pressed))
            } else {
                let with = pair(&pressed);
                (pair(&free), with)
            };
            println!("{engine}: {without:?} of CPU for a GiB, {with:?} under pressure");
            ratios.push(with.as_secs_f64() / without.as_secs_f64());
        }
        ratios.sort_by(f64::total_cmp);
        println!(
            "{engine}: {:.2} times, {:.2} to {:.2}",
            ratios[ROUNDS / 2],
            ratios[0],
            ratios[ROUNDS - 1]
        );
        drop(stalled);
    }
}
