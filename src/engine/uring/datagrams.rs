//! Datagrams: the same sockets and batches as with epoll, told of by the epoll instance of the
//! listeners.
//!
//! A multishot receive would save the system calls and pay with a completion and a provided buffer
//! for each datagram. It does not win (`benches/receiving.rs`, figures in docs/udp.md), so it is not
//! built.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;

use super::Uring;
use crate::engine::DatagramKey;
use crate::engine::sockets::{Sockets, WithSockets};
use crate::net::address::Endpoint;

impl WithSockets for Uring {
    fn sockets(&self) -> &Sockets {
        &self.datagrams
    }

    fn sockets_mut(&mut self) -> &mut Sockets {
        &mut self.datagrams
    }

    fn watch_port(&self, key: DatagramKey, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.listen_poll.add_port(key, fd)
    }

    fn watch_flow(&self, key: DatagramKey, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.listen_poll.add_flow(key, fd)
    }

    fn unwatch(&self, fd: BorrowedFd<'_>) {
        self.listen_poll.remove(fd);
    }

    fn suspect_ports(&self, endpoint: &Endpoint) -> Option<RangeInclusive<u16>> {
        self.common.suspect_ports(endpoint)
    }
}
