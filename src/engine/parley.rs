//! What a session and a peer say to each other before a lane starts: the only bytes
//! that cross from an engine to whoever drives it, a header and an answer.
//!
//! A header is peeked at, and exactly its bytes are taken: what the peer sent behind
//! it stays in the socket, where the lanes find it, copied or spliced. Whatever was
//! seen and is not the last of the header is taken at once. So a header that drips is
//! read once and not over and over, and neither an edge nor a poll tells twice of the
//! same bytes.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};

use super::pump::transmit;
use crate::net::errno::{Failure, Operation};
use crate::net::options::plan;
use crate::relay::ending::Cause;

/// What a side has sent so far and nobody has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peeked {
    /// So many bytes are there, copied to the front of the buffer.
    Bytes(usize),
    /// None; an event follows when there are.
    Empty,
    /// None will come: the peer has ended its side.
    Ended,
    /// The connection has failed.
    Failed(Cause),
}

pub(super) fn peek(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Peeked {
    loop {
        match recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_PEEK) {
            Ok(0) => return Peeked::Ended,
            Ok(n) => return Peeked::Bytes(n),
            Err(Errno::EINTR) => {}
            Err(errno) => {
                return match Failure::of(Operation::Transfer, errno) {
                    Failure::WouldBlock => Peeked::Empty,
                    failure => Peeked::Failed(failure.into()),
                };
            }
        }
    }
}

/// Whether the peer has ended its side, or the connection has failed.
pub(super) fn has_ended(fd: BorrowedFd<'_>) -> bool {
    // nix has no name for it. Besides it the kernel tells of a failure, asked or not.
    let hangup = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let mut polled = [PollFd::new(fd, hangup)];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Takes exactly `len` bytes, which were seen before and so are there.
pub(super) fn take(fd: BorrowedFd<'_>, len: usize) -> Result<(), Cause> {
    // Most headers are shorter; of a long one each part costs a system call.
    let mut dropped = [0; 2048];
    let mut left = len;
    while left > 0 {
        let max = left.min(dropped.len());
        match recv(fd.as_raw_fd(), &mut dropped[..max], MsgFlags::empty()) {
            // Seen and gone: only a reset takes bytes back.
            Ok(0) => return Err(Cause::Reset),
            // Fewer than are there: urgent data stands in between.
            Ok(n) => left -= n,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Failure::of(Operation::Transfer, errno).into()),
        }
    }
    Ok(())
}

/// As [`say`]; what follows may ride in the same segment.
pub(super) fn say_first(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Cause> {
    // nix has no name for it. A socket that is no TCP socket takes no notice of it.
    let more = MsgFlags::from_bits_retain(libc::MSG_MORE);
    loop {
        match send(fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL | more) {
            Ok(taken) => return Ok(taken),
            Err(Errno::EINTR) => {}
            Err(errno) => {
                return match Failure::of(Operation::Transfer, errno) {
                    Failure::WouldBlock => Ok(0),
                    failure => Err(failure.into()),
                };
            }
        }
    }
}

/// Sends what waits for more to ride with it.
pub(super) fn flush(fd: BorrowedFd<'_>) {
    // A unix socket keeps nothing back, and a socket that failed says so itself.
    let _ = plan::send_held_back(fd);
}

/// Writes as much as the socket takes now.
pub(super) fn say(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Cause> {
    match transmit(fd, bytes) {
        Ok(taken) => Ok(taken),
        Err(Failure::WouldBlock) => Ok(0),
        Err(failure) => Err(failure.into()),
    }
}

/// Ends the side for writing.
pub(super) fn conclude(fd: BorrowedFd<'_>) {
    // A connection that is gone says so to whoever reads from it next.
    let _ = shutdown(fd.as_raw_fd(), Shutdown::Write);
}
