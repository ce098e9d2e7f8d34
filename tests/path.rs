//! The emulated path: is it what was asked for, and is nothing of it left behind?
//!
//! The arithmetic of rate, queue, loss and order is tested with virtual time, beside
//! the model. Here packets cross a live link, on whatever the machine has to spare: a
//! round trip or a rate is taken several times, and the best must be right. That it
//! is not better than asked is checked on every attempt.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod kit;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use thalweg::bench::path::{Link, PathError};

/// How far a measured figure may be from what was asked.
const WITHIN: f64 = 0.05;

/// Attempts at a figure that a busy machine can spoil.
const ATTEMPTS: usize = 6;

/// A link as described, or the test is skipped aloud.
fn link(spec: &str) -> Option<Link> {
    match Link::start(&spec.parse().unwrap()) {
        Ok(link) => Some(link),
        Err(why @ (PathError::NotPermitted | PathError::Tun { .. })) => {
            kit::skip(&kit::test_name(), &why.to_string());
            None
        }
        Err(other) => panic!("{other}"),
    }
}

/// A socket for datagrams at each end.
fn datagrams(link: &Link) -> (UdpSocket, UdpSocket) {
    let [near, far] = [link.near(), link.far()].map(|end| {
        let address = SocketAddr::from((end.address(), 0));
        let socket = end.run(|| UdpSocket::bind(address).unwrap()).unwrap();
        socket.set_read_timeout(Some(kit::PATIENCE)).unwrap();
        socket
    });
    near.connect(far.local_addr().unwrap()).unwrap();
    far.connect(near.local_addr().unwrap()).unwrap();
    (near, far)
}

/// A connection across the path: the near end and the far end of it.
fn connection(link: &Link) -> (TcpStream, TcpStream) {
    let address = SocketAddr::from((link.far().address(), 0));
    let listener = link.far().run(|| TcpListener::bind(address).unwrap());
    let listener = listener.unwrap();
    let address = listener.local_addr().unwrap();
    let near = link.near().run(|| TcpStream::connect(address).unwrap());
    let (far, _) = listener.accept().unwrap();
    let near = near.unwrap();
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

/// The median round trip of small datagrams that are answered at once.
fn round_trip(link: &Link, count: usize) -> Duration {
    let (near, far) = datagrams(link);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut byte = [0; 8];
            for _ in 0..count {
                far.recv(&mut byte).unwrap();
                far.send(&byte).unwrap();
            }
        });
        let mut times: Vec<Duration> = (0..count)
            .map(|_| {
                let sent = Instant::now();
                near.send(&[0; 8]).unwrap();
                near.recv(&mut [0; 8]).unwrap();
                sent.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[count / 2]
    })
}

fn share(found: Duration, asked: Duration) -> f64 {
    found.as_secs_f64() / asked.as_secs_f64() - 1.0
}

#[test]
fn a_round_trip_takes_what_was_asked() {
    for asked in [5, 20, 40, 80] {
        let Some(link) = link(&format!("rtt={asked}ms,rate=200Mbit")) else {
            return;
        };
        let asked = Duration::from_millis(asked);
        let mut found = Vec::new();
        for _ in 0..ATTEMPTS {
            let off = share(round_trip(&link, 9), asked);
            assert!(off > -WITHIN, "{asked:?}: faster than asked by {off}");
            found.push(off);
            if off < WITHIN {
                break;
            }
        }
        assert!(
            found.iter().any(|off| *off < WITHIN),
            "{asked:?}: {found:?}"
        );
    }
}

/// Bytes a second that the far end of a connection takes in for a while.
fn bulk_rate(link: &Link, warm_up: Duration, time: Duration) -> f64 {
    let (mut near, mut far) = connection(link);
    thread::scope(|scope| {
        scope.spawn(move || {
            near.set_write_timeout(Some(kit::PATIENCE)).unwrap();
            let chunk = vec![0; 256 * 1024];
            while near.write_all(&chunk).is_ok() {}
        });
        let mut buffer = vec![0; 256 * 1024];
        let take = |far: &mut TcpStream, buffer: &mut [u8], time: Duration| {
            let begin = Instant::now();
            let mut bytes = 0;
            while begin.elapsed() < time {
                bytes += far.read(buffer).unwrap();
            }
            bytes as f64 / begin.elapsed().as_secs_f64()
        };
        take(&mut far, &mut buffer, warm_up);
        let rate = take(&mut far, &mut buffer, time);
        // Ends the writer too.
        far.shutdown(Shutdown::Both).unwrap();
        rate
    })
}

#[test]
fn bulk_moves_at_the_rate_that_was_asked() {
    for (rtt, rate) in [(10, 50), (20, 200), (40, 100)] {
        let Some(link) = link(&format!("rtt={rtt}ms,rate={rate}Mbit")) else {
            return;
        };
        // 20 bytes of IP, 32 of TCP with timestamps.
        let payload = (1500.0 - 52.0) / 1500.0;
        let asked = f64::from(rate) * 1e6 / 8.0 * payload;
        let mut found = Vec::new();
        for _ in 0..ATTEMPTS {
            let rate = bulk_rate(
                &link,
                Duration::from_millis(500),
                Duration::from_millis(700),
            );
            let off = rate / asked - 1.0;
            assert!(
                off < WITHIN,
                "faster than asked by {off}: {:?}",
                link.spec()
            );
            found.push(off);
            if off > -WITHIN {
                break;
            }
        }
        assert!(
            found.iter().any(|off| *off > -WITHIN),
            "{}: {found:?}",
            link.spec()
        );
    }
}
