//! Sessions that leave a reactor, and sessions that come to one: from another reactor, or
//! from the process before.
//!
//! ```text
//!  Reactor::release ─► quiesce ─► detach ─► MovedSession ──────────────────────► Reactor::take_back
//!                                             │ manifest, descriptors,        (this process)
//!                                             ▼ bytes
//!                          Parcel::open ─► Arrival ─► Berths::find ─────► Reactor::adopt
//!                                                                          (the next process)
//! ```
//! A [`MovedSession`] is all of a session: whoever has it may put it into any reactor of this
//! process, or tell another process of it and drop it once that one has it. Until then it
//! counts where it counted: at its forward, its server, its client.
//!
//! Invariants: a session is in one reactor at the most; what it counts by is given back
//! once, here when it has ended or has left for good; only a session between its two sides
//! is moved, the others finish what they are at first.

mod ahead;
mod arriving;
mod berths;
mod leaving;
mod manifest;
mod refusal;

use std::sync::Arc;

pub use ahead::{MovedSpare, SpareManifest};
pub use arriving::{Adopted, Arrival};
pub use berths::{Berth, Berths};
pub(super) use leaving::{Leaving, manifest};
pub use leaving::{Release, ReleaseReply, Released};
pub use manifest::{CameIn, Manifest, Parcel};
pub use refusal::Refusal;

use super::Entry;
use super::gate::Gate;
use crate::engine;
use crate::relay::Direction;
use crate::relay::time::Time;

/// A session without a reactor. Dropped, it has left this process for good; nothing is
/// told to its peers unless these were the last descriptors.
#[derive(Debug)]
pub struct MovedSession<D = engine::Detached> {
    /// What is told of it to another process.
    pub manifest: Manifest,
    /// Its descriptors, and what its lanes held.
    pub detached: D,
    kept: Kept,
}

impl MovedSession {
    /// Another process has it now: here it counts no more, and whoever looked at it is told.
    pub fn leave_for(mut self, process: u32) {
        let session = self.kept.entry.as_ref().map(|it| &it.session);
        let read = |it| session.map_or(0, |session| session.lane(it).bytes_in());
        self.detached.tell_taps(process, Direction::BOTH.map(read));
    }
}

/// What a session counts by in this process. Dropped, it counts no more.
#[derive(Debug)]
struct Kept {
    /// `None`: it is in a reactor again.
    entry: Option<Entry>,
    gate: Arc<Gate>,
    /// When it left its reactor.
    at: Time,
}

impl Kept {
    fn take(mut self) -> Option<Entry> {
        self.entry.take()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Some(entry) = self.entry.take() else {
            return;
        };
        self.gate.leave();
        let forward = &entry.listener.forward;
        if let Some(gate) = &forward.gate {
            gate.leave();
        }
        if let Some(destination) = &entry.destination {
            if entry.unproven {
                destination.abandoned(entry.admission, self.at);
            }
            if let Some(server) = destination.account() {
                server.standing.leave(self.at);
            }
        }
    }
}
