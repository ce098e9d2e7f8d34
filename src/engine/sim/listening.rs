//! Listeners of the simulator, and the accept queues behind them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::peer::Script;
use super::{Incoming, Sim};
use crate::engine::slab::Slab;
use crate::engine::{AcceptError, Event, ListenerKey};
use crate::net::address::Endpoint;
use crate::relay::ending::Cause;

/// An accept queue, in the order in which clients came.
#[derive(Debug, Default, Clone)]
pub(super) struct Backlog(Rc<RefCell<VecDeque<Incoming>>>);

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}

/// A listening socket of a simulated world. Dropped as one is closed: whoever waits in
/// its accept queue is reset.
#[derive(Debug)]
pub struct Listener {
    at: usize,
    backlog: Backlog,
}

impl Listener {
    /// The address that it listens at.
    pub(super) const fn index(&self) -> usize {
        self.at
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.backlog.0.borrow_mut().clear();
    }
}

/// Those that the engine looks after.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    slots: Slab<Listener, ListenerKey>,
    /// The last that was removed.
    removed: Option<ListenerKey>,
}

impl Listeners {
    fn get(&self, key: ListenerKey) -> Option<&Listener> {
        self.slots.get(key)
    }

    pub(super) fn remove(&mut self, key: ListenerKey) -> Option<Listener> {
        let listener = self.slots.remove(key)?;
        self.removed = Some(key);
        Some(listener)
    }

    pub(super) fn has_waiting(&self, key: ListenerKey) -> bool {
        self.get(key).is_some_and(|it| !it.backlog.is_empty())
    }

    /// The key of one that was removed, for events that come too late.
    pub(super) const fn removed(&self) -> Option<ListenerKey> {
        self.removed
    }
}

impl Sim {
    /// A listener at an address, by index below [`super::LISTENERS`].
    pub fn listener(&self, at: usize) -> Listener {
        Listener {
            at,
            backlog: self.backlogs[at].clone(),
        }
    }

    /// A client connects to an address, by index; both peers will do as scripted.
    /// While nobody listens there it waits: a listener is given away with its queue.
    pub fn client_connects(&mut self, at: usize, client: Script, upstream: Script) {
        self.tally.connections += 1;
        let incoming = Incoming { client, upstream };
        self.backlogs[at].0.borrow_mut().push_back(incoming);
        let slots = &self.listeners.slots;
        let listens = |key: &ListenerKey| slots.get(*key).is_some_and(|it| it.at == at);
        if let Some(key) = slots.keys().find(listens) {
            self.queue.push(Event::Acceptable(key));
        }
    }

    pub(super) fn add_listener(&mut self, listener: Listener) -> ListenerKey {
        let waits = !listener.backlog.is_empty();
        let Some(key) = self.listeners.slots.insert(listener) else {
            panic!("a billion listeners")
        };
        if waits {
            self.queue.push(Event::Acceptable(key));
        }
        key
    }

    pub(super) fn accept_at(
        &mut self,
        key: ListenerKey,
    ) -> Result<(Incoming, Endpoint), AcceptError> {
        let listener = self.listeners.get(key).ok_or(AcceptError::Empty)?;
        let mut backlog = listener.backlog.0.borrow_mut();
        if !backlog.is_empty() && self.dice.percent(self.nastiness.accept_failure) {
            return Err(if self.dice.percent(50) {
                AcceptError::Exhausted(Cause::NoDescriptors)
            } else {
                AcceptError::Lost
            });
        }
        let incoming = backlog.pop_front().ok_or(AcceptError::Empty)?;
        Ok((incoming, Endpoint::Unnamed))
    }
}
