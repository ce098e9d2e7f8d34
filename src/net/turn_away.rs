//! Ways to be rid of a connection that was accepted and is nobody's.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use socket2::SockRef;

use super::sys::set_int;

/// How a client is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnAway {
    /// By a reset.
    Reset,
    /// By the end of the connection. What the client has sent meanwhile makes the kernel
    /// send a reset behind it.
    Close,
    /// Without a packet: the client is left to wait, and learns of it by a reset when it
    /// sends. Needs CAP_NET_ADMIN; where that is missing, by a reset at once.
    Drop,
}

/// Has a connection end without a packet when it is closed, in whatever way; whether that
/// is permitted.
pub fn silence(fd: BorrowedFd<'_>) -> bool {
    // A socket under repair is closed without a word (tcp(7) has nothing of it; see
    // tcp_close() in net/ipv4/tcp.c).
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR, 1).is_ok()
}

/// Turns a connection away; its descriptor is free when this returns.
pub fn turn_away(fd: OwnedFd, how: TurnAway) {
    // Whatever fails, fails because the connection is gone.
    match how {
        TurnAway::Close => {
            let _ = shutdown(fd.as_raw_fd(), Shutdown::Write);
        }
        TurnAway::Drop if silence(fd.as_fd()) => {}
        TurnAway::Reset | TurnAway::Drop => {
            let _ = SockRef::from(&fd).set_linger(Some(Duration::ZERO));
        }
    }
    drop(fd);
}
