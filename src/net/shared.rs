//! Sockets of which another process may have a copy: one that hands its sessions over
//! keeps its descriptors until it is told that they have arrived, and a while longer on
//! trial.
//!
//! While there is another copy a close tells the peer nothing, whatever `SO_LINGER` says.
//! What ends the connection itself does: a shutdown sends the FIN, and a connect to
//! `AF_UNSPEC` the RST (tcp_disconnect; both measured).

use std::io;
use std::net::Shutdown;
use std::os::fd::BorrowedFd;

use socket2::SockRef;

use super::sys;

/// The kernel's name of a socket (`SO_COOKIE`): the same through every copy, and never
/// used again while the machine runs.
pub fn cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    SockRef::from(&fd).cookie()
}

/// Ends a connection in good order, whoever has a copy of its descriptor. One that has
/// ended already stays so.
pub fn tell_end(fd: BorrowedFd<'_>) {
    let _ = SockRef::from(&fd).shutdown(Shutdown::Both);
}

/// Ends it by a reset. A unix socket knows none: its peer sees an end.
pub fn tell_reset(fd: BorrowedFd<'_>) {
    if sys::disconnect(fd).is_err() {
        tell_end(fd);
    }
}

/// Bytes that wait in a pipe.
pub fn piped(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let waiting = sys::ioctl_int(fd, libc::FIONREAD as libc::c_ulong)?;
    Ok(waiting.max(0) as u32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn an_end_and_a_reset_are_told_though_there_is_a_copy() {
        let (near, mut far) = pair();
        let _copy = near.try_clone().unwrap();
        tell_end(near.as_fd());
        drop(near);
        assert_eq!(far.read(&mut [0]).unwrap(), 0);

        let (near, mut far) = pair();
        let _copy = near.try_clone().unwrap();
        tell_reset(near.as_fd());
        drop(near);
        let error = far.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_copy_has_the_same_cookie_and_another_socket_has_another() {
        let (near, far) = pair();
        let copy = near.try_clone().unwrap();
        let of = |it: &TcpStream| cookie(it.as_fd()).unwrap();
        assert_eq!(of(&near), of(&copy));
        assert_ne!(of(&near), of(&far));
    }
}
