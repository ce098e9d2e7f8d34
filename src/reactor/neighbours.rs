//! Other reactors, to which a client may be passed on right after its accept: the kernel spreads
//! connections by a hash, and a handful of long ones may all come to one reactor.
//!
//! ```text
//!  accept ─► does another one have fewer? ─no─► a session here
//!                     │ yes
//!                     └─► Neighbours::pass ─► Reactor::welcome of that one
//! ```
//! A client is passed on once at the most, before anything was read, and counts at its limits
//! already; nothing of it is known here afterwards. Who has no neighbours pays one test an accept.

use std::fmt;

use super::Reactor;
use super::listen_queue::Admitted;
use crate::engine::{Datagrams, Engine};

/// Who else may take a client.
pub trait Neighbours<I>: fmt::Debug + Send {
    /// Passes a client on to a reactor that has fewer sessions; given back, it stays here.
    fn pass(&self, guest: Admitted<I>) -> Option<Admitted<I>>;
}

impl<E: Datagrams> Reactor<E> {
    /// These are the reactors beside this one; `None`: whoever is accepted here stays here.
    pub fn set_neighbours(&mut self, neighbours: Option<Box<dyn Neighbours<E::Incoming>>>) {
        self.neighbours = neighbours;
    }

    /// Takes in a client that another reactor has accepted.
    pub fn welcome(&mut self, guest: Admitted<<E as Engine>::Incoming>) {
        self.start(guest);
        self.settle();
    }

    /// The client, if it stays here.
    pub(super) fn keep_or_pass(
        &mut self,
        guest: Admitted<E::Incoming>,
    ) -> Option<Admitted<E::Incoming>> {
        let Some(neighbours) = &self.neighbours else {
            return Some(guest);
        };
        let kept = neighbours.pass(guest);
        if kept.is_none() {
            self.ctx.counters.passed_on.add(1);
        }
        kept
    }
}
