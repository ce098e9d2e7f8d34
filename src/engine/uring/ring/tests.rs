//! Queues that overflow, buffers that run out, a ring that is dropped while
//! operations fly.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::*;
use crate::engine::SessionKey;
use crate::engine::uring::op::{At, Op};
use crate::relay::Side;

const CRAMPED: Sizes = Sizes {
    submissions: 4,
    completions: 8,
    buffers: 2,
};

fn ring() -> Option<Ring> {
    match Ring::new(CRAMPED) {
        Ok(ring) => Some(ring),
        Err(error) => {
            println!("skipped: no io_uring: {error}");
            None
        }
    }
}

fn tag(slot: u32, op: Op) -> Tag {
    let key = SessionKey {
        slot,
        generation: 9,
    };
    let side = Side::Upstream;
    Tag::Side(At { key, side }, op)
}

fn pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    (near, far)
}

/// Behaviour 158: seccomp does not see what a ring does, so it can do little.
#[test]
fn b158_an_operation_that_it_is_not_for_is_refused() {
    let Some(mut ring) = ring() else { return };
    let nop = opcode::Nop::new().build();
    ring.flying += 1;
    ring.push(&nop.user_data(tag(1, Op::WatchIn).encode()));
    ring.enter(1, Some(Duration::from_secs(10))).unwrap();
    let mut completions = Vec::new();
    ring.take(&mut completions);
    let results: Vec<i32> = completions.iter().map(|it| it.result).collect();
    assert_eq!(results, [-libc::EACCES]);
}

#[test]
fn b63_more_submissions_and_completions_than_the_queues_hold() {
    const POLLS: u32 = 500;
    let Some(mut ring) = ring() else { return };
    let pairs: Vec<_> = (0..POLLS).map(|_| pair()).collect();
    for (slot, (near, _)) in (0..).zip(&pairs) {
        ring.poll(near.as_fd(), libc::POLLIN, tag(slot, Op::WatchIn));
    }
    ring.enter(0, None).unwrap();
    for (_, far) in &pairs {
        (&*far).write_all(b"x").unwrap();
    }
    let mut seen = vec![0; POLLS as usize];
    let mut completions = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while ring.flying() > 0 {
        assert!(Instant::now() < deadline, "completions were lost");
        ring.enter(1, Some(Duration::from_millis(100))).unwrap();
        ring.take(&mut completions);
        for completion in completions.drain(..) {
            let Tag::Side(at, Op::WatchIn) = completion.tag else {
                panic!("not asked for: {completion:?}");
            };
            seen[at.key.slot as usize] += 1;
        }
    }
    assert_eq!(seen, vec![1; POLLS as usize]);
}

#[test]
fn b63_a_receive_without_a_buffer_ends_and_one_with_goes_on() {
    let Some(mut ring) = ring() else { return };
    let (near, mut far) = pair();
    ring.recv(near.as_fd(), tag(1, Op::Recv));
    ring.enter(0, None).unwrap();
    let mut pieces = Vec::new();
    let mut completions = Vec::new();
    for byte in [b"a", b"b", b"c"] {
        far.write_all(byte).unwrap();
        ring.enter(1, Some(Duration::from_secs(5))).unwrap();
        ring.take(&mut completions);
        let completion = completions.pop().expect("a completion");
        assert!(completions.is_empty());
        if pieces.len() < 2 {
            assert!(completion.more());
            pieces.push(ring.piece(&completion).expect("a buffer"));
        } else {
            assert!(!completion.more());
            assert_eq!(completion.result, -libc::ENOBUFS);
        }
    }
    let bytes: Vec<_> = pieces.iter().map(|p| ring.buffers().bytes(p)[0]).collect();
    assert_eq!(bytes, b"ab");
    // Buffers come back: the next receive finds what waited.
    for piece in pieces {
        ring.buffers().recycle(piece);
    }
    ring.recv(near.as_fd(), tag(1, Op::Recv));
    ring.enter(1, Some(Duration::from_secs(5))).unwrap();
    ring.take(&mut completions);
    let piece = ring.piece(&completions[0]).expect("a buffer");
    assert_eq!(ring.buffers().bytes(&piece), b"c");
}

#[test]
fn a_dropped_ring_has_let_go_of_its_descriptors() {
    let Some(mut ring) = ring() else { return };
    let (near, far) = pair();
    ring.recv(near.as_fd(), tag(1, Op::Recv));
    ring.poll(
        near.as_fd(),
        libc::POLLOUT | libc::POLLIN,
        tag(1, Op::WatchIn),
    );
    ring.poll(near.as_fd(), 0, tag(1, Op::Vigil));
    ring.enter(0, None).unwrap();
    drop(near);
    drop(ring);
    // Had an operation still held the socket, this would block or succeed.
    let sent = (&far).write_all(b"x");
    assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}
