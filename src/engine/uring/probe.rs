//! Whether this kernel permits what the engine needs, found out by doing it.
//!
//! A list of opcodes does not tell: multishot receive came without a new one, and
//! a seccomp filter or a security module refuses what the kernel has. So each kind
//! of operation is carried out once, on a pair of unix sockets.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::buffers::Piece;
use super::op::{At, Op, Tag};
use super::ring::{Completion, Ring};
use crate::engine::SessionKey;
use crate::relay::Side;

/// How long an operation may take that completes at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sends of a few bytes after which every unix socket is full.
const SENDS_MAX: u32 = 100_000;

/// Carries out each kind of operation once. The error says which was refused.
pub fn probe() -> Result<(), String> {
    let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let refused = |error: io::Error| match (error.raw_os_error(), &switch) {
        (Some(libc::EPERM), Ok(value)) if value.trim() != "0" => {
            format!("kernel.io_uring_disabled is {}", value.trim())
        }
        (Some(libc::ENOSYS), _) => "this kernel has no io_uring, or one older than 6.0".into(),
        _ => format!("cannot make a ring: {error}"),
    };
    let mut ring = Ring::new(2).map_err(refused)?;
    let (near, far) = UnixStream::pair().map_err(|error| format!("socketpair: {error}"))?;
    near.set_nonblocking(true)
        .map_err(|error| format!("fcntl: {error}"))?;
    let tag = |op| {
        let key = SessionKey {
            slot: 0,
            generation: 0,
        };
        let side = Side::Client;
        Tag::Side(At { key, side }, op)
    };

    ring.recv(near.as_fd(), tag(Op::Recv));
    ring.poll(near.as_fd(), libc::POLLIN, tag(Op::WatchIn));
    ring.enter(0, None)
        .map_err(|error| format!("io_uring_enter: {error}"))?;
    nix::unistd::write(&far, b"ping").map_err(|error| format!("write: {error}"))?;
    let received = one(&mut ring, tag(Op::Recv), "multishot receive")?;
    let piece = ring
        .piece(&received)
        .filter(|piece| ring.buffers().bytes(piece) == b"ping")
        .ok_or("multishot receive: no provided buffer was used")?;
    if !received.more() {
        return Err("multishot receive ends after one message".into());
    }
    one(&mut ring, tag(Op::WatchIn), "poll")?;
    probe_send(&mut ring, &near, &far, &piece, tag(Op::Send))?;
    ring.buffers().recycle(piece);
    ring.cancel(tag(Op::Recv));
    let cancelled = next(&mut ring, tag(Op::Recv), "cancel")?;
    if cancelled.result != -libc::ECANCELED {
        return Err("cancel: the operation ended otherwise".into());
    }
    Ok(())
}

/// A send that is taken says nothing, one that is not says so at once.
fn probe_send(
    ring: &mut Ring,
    near: &UnixStream,
    far: &UnixStream,
    piece: &Piece,
    tag: Tag,
) -> Result<(), String> {
    let mut taken = 0;
    let mut completions = Vec::new();
    for _ in 0..SENDS_MAX {
        ring.send(near.as_fd(), piece, tag);
        ring.enter(0, None)
            .map_err(|error| format!("io_uring_enter: {error}"))?;
        ring.take(&mut completions);
        if !completions.is_empty() {
            break;
        }
        taken += piece.len() as usize;
    }
    match completions.first() {
        Some(full) if full.tag == tag && full.result == -libc::EAGAIN => {}
        Some(other) => return Err(format!("send: completed with {}", other.result)),
        None => return Err("send: a full socket goes unnoticed".into()),
    }
    let mut bytes = vec![0; taken];
    let mut far = far;
    far.read_exact(&mut bytes)
        .map_err(|error| format!("send: what was taken did not arrive: {error}"))
}

/// The next completion of an operation, which succeeded.
fn one(ring: &mut Ring, tag: Tag, name: &str) -> Result<Completion, String> {
    let completion = next(ring, tag, name)?;
    if completion.result < 0 {
        let error = io::Error::from_raw_os_error(-completion.result);
        return Err(format!("{name}: {error}"));
    }
    Ok(completion)
}

fn next(ring: &mut Ring, tag: Tag, name: &str) -> Result<Completion, String> {
    let mut completions = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        ring.take(&mut completions);
        if let Some(index) = completions.iter().position(|found| found.tag == tag) {
            let found = completions.remove(index);
            ring.put_back(completions);
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(format!("{name}: no completion"));
        }
        ring.enter(1, Some(PATIENCE / 10))
            .map_err(|error| format!("io_uring_enter: {error}"))?;
    }
}
