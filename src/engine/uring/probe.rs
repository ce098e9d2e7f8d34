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
use super::ring::{Completion, Ring, Sizes};
use crate::engine::SessionKey;
use crate::relay::Side;

/// How long an operation may take that completes at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sends of a few bytes after which every unix socket is full.
const SENDS_MAX: u32 = 100_000;

/// Carries out each kind of operation once. The error says which was refused.
pub fn probe() -> Result<(), String> {
    let sizes = Sizes {
        submissions: 8,
        completions: 16,
        buffers: 2,
    };
    let mut ring = Ring::new(sizes).map_err(|error| {
        let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        refusal(&error, switch.ok().as_deref())
    })?;
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

/// Why there is no ring, in an operator's words.
fn refusal(error: &io::Error, switch: Option<&str>) -> String {
    match (error.raw_os_error(), switch.map(str::trim)) {
        (Some(libc::EPERM), Some(value)) if value != "0" => {
            format!("kernel.io_uring_disabled is {value}")
        }
        (Some(libc::EPERM), _) => "a seccomp filter or a security module forbids it".into(),
        (Some(libc::ENOSYS), _) => {
            "this kernel has no io_uring, one older than 6.0, or a filter that says so".into()
        }
        _ => format!("cannot make a ring: {error}"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b64_the_reason_names_the_switch() {
        let refused = |errno, switch| refusal(&io::Error::from_raw_os_error(errno), switch);
        assert_eq!(
            refused(libc::EPERM, Some("2\n")),
            "kernel.io_uring_disabled is 2"
        );
        assert!(refused(libc::EPERM, Some("0\n")).contains("seccomp"));
        assert!(refused(libc::EPERM, None).contains("seccomp"));
        assert!(refused(libc::ENOSYS, None).contains("no io_uring"));
        assert!(refused(libc::ENOMEM, Some("0")).contains("cannot make a ring"));
    }
}
