//! The listeners, watched through an epoll instance that the ring polls.
//!
//! Not polled by the ring itself: an operation in flight holds the socket. After a
//! crash or a SIGKILL the kernel takes a ring down at its leisure, and until then
//! the dead process would go on listening: a restart would find the address in
//! use, and connections would be made that nobody accepts. epoll holds nothing. And so
//! a listener is removed with one call, with nothing to cancel and to wait for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};

use crate::engine::ListenerKey;
use crate::engine::key::Token;

/// Events taken with one call. What is left is taken with the next.
const EVENTS: usize = 64;

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

    /// No event of it is reported after this. Before its descriptor is closed: the
    /// socket of a unix listener is shared by reactors, and would stay registered.
    pub(super) fn remove(&self, fd: BorrowedFd<'_>) {
        let _ = self
            .poll
            .registry()
            .deregister(&mut SourceFd(&fd.as_raw_fd()));
    }

    /// Passes on each listener at which somebody has come since the last call.
    pub(super) fn acceptable(&mut self, mut report: impl FnMut(ListenerKey)) {
        loop {
            // Does not wait; without events there is nothing to report.
            let polled = self.poll.poll(&mut self.events, Some(Duration::ZERO));
            if polled.is_err() {
                return;
            }
            let mut count = 0;
            for event in &self.events {
                count += 1;
                if let Token::Listener(key) = Token::decode(event.token().0 as u64) {
                    report(key);
                }
            }
            // The ring tells of what comes from now on; what was there must be taken.
            if count < EVENTS {
                return;
            }
        }
    }
}
