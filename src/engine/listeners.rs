//! The listeners of a real engine: added and removed while it runs.
//!
//! Owns their sockets. Each has a slot and a generation ([`ListenerKey`]): the event of
//! one that was removed is recognised, whoever has its slot by then. How an engine is
//! told that somebody waits is its own; it tells the kernel to stop before it removes
//! a listener here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::common::{Incoming, Listener};
use super::key::ListenerKey;
use super::slab::Slab;
use super::{AcceptError, common::Common};
use crate::net::address::Endpoint;
use crate::net::listener::{self, AcceptQueue};
use crate::net::options::{OptionPlan, plan};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    slots: Slab<Slot, ListenerKey>,
    /// Connections the kernel dropped, as far as listeners were asked.
    overflows: u64,
}

#[derive(Debug)]
struct Slot {
    listener: Listener,
    /// Connections it had dropped when it was asked last; at first, when it came here.
    dropped: u32,
}

impl Listeners {
    pub(super) fn add(&mut self, listener: Listener) -> io::Result<ListenerKey> {
        let slot = Slot {
            // Not known of a unix socket.
            dropped: listener::drops(listener.fd.as_fd()).unwrap_or(0),
            listener,
        };
        let key = self.slots.insert(slot);
        key.ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    pub(super) fn remove(&mut self, key: ListenerKey) -> Option<Listener> {
        self.accept_queue(key)?;
        Some(self.slots.remove(key)?.listener)
    }

    /// The socket of one that is there.
    pub(super) fn fd(&self, key: ListenerKey) -> Option<BorrowedFd<'_>> {
        let slot = self.slots.get(key)?;
        Some(slot.listener.fd.as_fd())
    }

    /// Other options of accepted sockets from now on.
    pub(super) fn set_options(&mut self, key: ListenerKey, options: Arc<OptionPlan>) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.listener.options = options;
        }
    }

    /// See [`super::Engine::hold_acks`].
    pub(super) fn hold_acks(&self, key: ListenerKey, hold: bool) {
        if let Some(fd) = self.fd(key) {
            // A listener whose kernel has no such option goes without.
            let _ = plan::hold_acks(fd, hold);
        }
    }

    /// Takes a connection and sets what it did not inherit.
    pub(super) fn accept(
        &self,
        key: ListenerKey,
        common: &mut Common,
    ) -> Result<(Incoming, Endpoint), AcceptError> {
        let slot = self.slots.get(key).ok_or(AcceptError::Empty)?;
        let accepted = listener::accept(slot.listener.fd.as_fd())?;
        let incoming = Incoming {
            fd: accepted.fd,
            family: slot.listener.family,
        };
        common.apply_accepted(&slot.listener.options, &incoming);
        Ok((incoming, accepted.peer))
    }

    pub(super) fn has_waiting(&self, key: ListenerKey) -> bool {
        self.fd(key).is_some_and(listener::has_waiting)
    }

    /// See [`super::Engine::accept_queue`].
    pub(super) fn accept_queue(&mut self, key: ListenerKey) -> Option<AcceptQueue> {
        let slot = self.slots.get_mut(key)?;
        let queue = listener::accept_queue(slot.listener.fd.as_fd());
        if let Some(dropped) = queue.dropped {
            let before = std::mem::replace(&mut slot.dropped, dropped);
            self.overflows += u64::from(dropped.wrapping_sub(before));
        }
        Some(queue)
    }

    /// See [`super::Engine::accept_overflows`].
    pub(super) const fn overflows(&self) -> u64 {
        self.overflows
    }
}
