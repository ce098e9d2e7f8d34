//! The listeners, watched through an epoll instance that the ring polls.
//!
//! Not polled by the ring itself: an operation in flight holds the socket. After a
//! crash or a SIGKILL the kernel takes a ring down at its leisure, and until then
//! the dead process would go on listening: a restart would find the address in
//! use, and connections would be made that nobody accepts. epoll holds nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::engine::{Listener, ListenerId};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Doors {
    poll: Poll,
    events: Events,
}

impl Doors {
    pub(super) fn new(listeners: &[Listener]) -> io::Result<Self> {
        let poll = Poll::new()?;
        for (index, listener) in listeners.iter().enumerate() {
            poll.registry().register(
                &mut SourceFd(&listener.fd.as_raw_fd()),
                Token(index),
                Interest::READABLE,
            )?;
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(listeners.len().max(1)),
        })
    }

    /// What the ring polls.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }

    /// The listeners at which somebody has knocked since the last call.
    pub(super) fn knocked(&mut self) -> impl Iterator<Item = ListenerId> + '_ {
        // Does not wait; without events there is nothing to report.
        if self
            .poll
            .poll(&mut self.events, Some(Duration::ZERO))
            .is_err()
        {
            self.events.clear();
        }
        self.events
            .iter()
            .map(|event| ListenerId(event.token().0 as u32))
    }

    /// Watches none of them any more. The socket of a unix listener is shared by
    /// reactors: closing its descriptor alone would leave it registered.
    pub(super) fn close(&self, listeners: &[Listener]) {
        for listener in listeners {
            let _ = self
                .poll
                .registry()
                .deregister(&mut SourceFd(&listener.fd.as_raw_fd()));
        }
    }
}
