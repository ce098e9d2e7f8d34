//! The reactors that clients are spread over (`spread = "least"`): how many sessions each has,
//! and the way to each.
//!
//! One is made for each set of reactors and never changed; reactors learn of another one by an
//! order. Whoever has carried that order out passes nobody on to a reactor that is not among
//! them any more, so a reactor that is to leave is told last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::Incoming;
use crate::observe::counters::Counters;
use crate::reactor::{Admitted, Neighbours};

use super::wire::{Coming, Wire};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Neighbourhood(Vec<Neighbour>);

#[derive(Debug)]
struct Neighbour {
    number: u16,
    counters: Arc<Counters>,
    wire: Wire,
    /// Clients that are on their way to it.
    coming: Arc<AtomicU64>,
}

impl Neighbour {
    /// Sessions that it has, or is about to have. Its counters are written by itself alone and
    /// may be read in the middle of a change: off by a few, and right a moment later.
    fn sessions(&self) -> u64 {
        let it = &self.counters;
        let came = it.accepted.get() + it.adopted.get() + it.moved_in.get();
        let gone = it.ended.get() + it.released.get();
        came.saturating_sub(gone) + self.coming.load(Ordering::Relaxed)
    }
}

impl Neighbourhood {
    /// Of these reactors.
    pub(super) fn new(reactors: impl Iterator<Item = (u16, Arc<Counters>, Wire)>) -> Self {
        let each = reactors.map(|(number, counters, wire)| Neighbour {
            number,
            counters,
            wire,
            coming: Arc::default(),
        });
        Self(each.collect())
    }

    /// As a reactor sees it.
    pub(super) fn of(self: Arc<Self>, number: u16) -> Box<dyn Neighbours<Incoming>> {
        Box::new(Around { all: self, number })
    }
}

#[derive(Debug)]
struct Around {
    all: Arc<Neighbourhood>,
    number: u16,
}

impl Neighbours<Incoming> for Around {
    fn pass(&self, guest: Admitted<Incoming>) -> Option<Admitted<Incoming>> {
        let all = &self.all.0;
        let own = all.iter().find(|it| it.number == self.number);
        let Some(own) = own.map(Neighbour::sessions) else {
            return Some(guest);
        };
        let loads = all.iter().map(Neighbour::sessions).enumerate();
        let Some((at, least)) = loads.min_by_key(|(_, sessions)| *sessions) else {
            return Some(guest);
        };
        if least >= own {
            return Some(guest);
        }
        let to = &all[at];
        let coming = Coming::counted(&to.coming);
        // A reactor that has ended gives it back.
        to.wire.pass(guest, coming)
    }
}
