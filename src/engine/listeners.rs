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
use crate::net::listener;
use crate::net::options::{OptionPlan, plan};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    slots: Slab<Slot, ListenerKey>,
    /// Connections dropped, of listeners that were removed.
    overflows: u64,
}

#[derive(Debug)]
struct Slot {
    listener: Listener,
    /// Connections it had dropped before it came here.
    dropped_before: u32,
}

impl Slot {
    /// Connections the kernel dropped since it came here.
    fn overflows(&self) -> u64 {
        let dropped = listener::drops(self.listener.fd.as_fd()).unwrap_or(0);
        u64::from(dropped.wrapping_sub(self.dropped_before))
    }
}

impl Listeners {
    pub(super) fn add(&mut self, listener: Listener) -> io::Result<ListenerKey> {
        let slot = Slot {
            // Not known of a unix socket.
            dropped_before: listener::drops(listener.fd.as_fd()).unwrap_or(0),
            listener,
        };
        let key = self.slots.insert(slot);
        key.ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    pub(super) fn remove(&mut self, key: ListenerKey) -> Option<Listener> {
        let slot = self.slots.remove(key)?;
        self.overflows += slot.overflows();
        Some(slot.listener)
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

    /// Connections the kernel dropped because an accept queue was full. Asks for each
    /// listener.
    pub(super) fn overflows(&self) -> u64 {
        let slots = self.slots.keys().filter_map(|key| self.slots.get(key));
        self.overflows + slots.map(Slot::overflows).sum::<u64>()
    }
}
