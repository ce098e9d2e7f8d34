//! The listeners, watched through an epoll instance that the ring polls.
//!
//! Not polled by the ring itself: an operation in flight holds the socket. After a
//! crash or a SIGKILL the kernel takes a ring down at its leisure, and until then
//! the dead process would go on listening: a restart would find the address in
//! use, and connections would be made that nobody accepts. epoll holds nothing. And so
//! a listener is removed with one call, with nothing to cancel and to wait for.
//!
//! Clients are watched here as well whose first bytes are looked at and left where they
//! are: a poll by the ring would complete over and over, for bytes that are known. epoll
//! tells of new ones only.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};

use super::READABLE;
use crate::engine::key::Token;
use crate::engine::{DatagramKey, Event, ListenerKey, SessionKey};
use crate::net::datagram;
use crate::relay::Side;

/// Events taken with one call. What is left is taken with the next.
const EVENTS: usize = 64;

/// Calls for one report. Flows in which something is left are told of again by each.
const REPORTS_MAX: usize = 8;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct ListenPoll {
    poll: Poll,
    events: Events,
}

impl ListenPoll {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
        })
    }

    /// What the ring polls.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }

    pub(super) fn add(&self, key: ListenerKey, fd: BorrowedFd<'_>) -> io::Result<()> {
        let token = mio::Token(Token::Listener(key).encode() as usize);
        self.poll
            .registry()
            .register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)
    }

    /// Watches a listener's datagram socket. A poll of the ring for each would be an operation for
    /// each datagram; here many that are ready cost one.
    pub(super) fn add_port(&self, key: DatagramKey, fd: BorrowedFd<'_>) -> io::Result<()> {
        let token = mio::Token(Token::Datagrams(key).encode() as usize);
        self.poll
            .registry()
            .register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)
    }

    /// Watches a flow's. The ring is told when something comes to it, and whoever asks for a report
    /// whether something is left in it.
    pub(super) fn add_flow(&self, key: DatagramKey, fd: BorrowedFd<'_>) -> io::Result<()> {
        let number = Token::Datagrams(key).encode();
        datagram::watch(self.as_fd(), fd, number)
    }

    /// Watches a side whose bytes stay where they are; again does no harm.
    pub(super) fn watch(&self, key: SessionKey, side: Side, fd: BorrowedFd<'_>) -> io::Result<()> {
        let token = mio::Token(Token::Side(key, side).encode() as usize);
        match self.poll.registry().register(
            &mut SourceFd(&fd.as_raw_fd()),
            token,
            Interest::READABLE,
        ) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    }

    /// No event of it is reported after this. Before its descriptor is closed: the
    /// socket of a unix listener is shared by reactors, and would stay registered.
    pub(super) fn remove(&self, fd: BorrowedFd<'_>) {
        let _ = self
            .poll
            .registry()
            .deregister(&mut SourceFd(&fd.as_raw_fd()));
    }

    /// Passes on each listener at which somebody has come since the last call, and each
    /// side that has more to look at; the second is whether it has failed.
    /// Whether that was all of them.
    pub(super) fn report(&mut self, mut report: impl FnMut(Event, bool)) -> bool {
        for _ in 0..REPORTS_MAX {
            // Does not wait; without events there is nothing to report.
            let polled = self.poll.poll(&mut self.events, Some(Duration::ZERO));
            if polled.is_err() {
                return true;
            }
            let mut count = 0;
            for event in &self.events {
                count += 1;
                let failed = event.is_error();
                match Token::decode(event.token().0 as u64) {
                    Token::Listener(key) => report(Event::Acceptable(key), failed),
                    Token::Side(key, side) => report(Event::Ready(key, side, READABLE), failed),
                    Token::Datagrams(key) => report(Event::Datagrams(key), failed),
                    Token::Waker => {}
                }
            }
            // The ring tells of what comes from now on; what was there must be taken.
            if count < EVENTS {
                return true;
            }
        }
        false
    }
}
