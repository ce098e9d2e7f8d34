//! What one process tells another of a session that moves, as plain data.
//!
//! Written as text that names its fields: one that a reader does not know is passed over,
//! one that it lacks has a default where there is a sensible one. Identities are names:
//! numbers mean nothing in another process.

use std::io;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::refusal::Refusal;
use crate::engine::detached::{Baggage, Detached, HeldNote, SideNote};
use crate::net::address::Endpoint;
use crate::reactor::opened::OpenedNote;
use crate::reactor::setup::Listener;
use crate::relay::Side;
use crate::relay::ending::Cause;
use crate::relay::lane::LaneState;
use crate::relay::session::SessionState;

/// How a session or a flow of datagrams came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameIn {
    /// On which reactor it began, and its number there: so it is called in records.
    pub reactor: u16,
    /// See `reactor`.
    pub id: u64,
    /// Its forward, by name.
    pub forward: String,
    /// The forward's route that it took, by name.
    #[serde(default)]
    pub route: Option<String>,
    /// Where it came in.
    pub listener: Endpoint,
}

impl CameIn {
    /// At this listener, or by the way that its route makes of it; by reactor and number.
    pub(in crate::reactor) fn at(listener: &Listener, (reactor, id): (u16, u64)) -> Self {
        let forward = &listener.forward;
        Self {
            reactor,
            id,
            forward: forward.name.to_string(),
            route: forward.route.as_ref().map(|(_, name)| name.to_string()),
            listener: listener.address.clone(),
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Where, and as what.
    #[serde(flatten)]
    pub came_in: CameIn,
    /// Which address of this host it reached there, if that is known already.
    #[serde(default)]
    pub reached: Option<Endpoint>,
    /// Who came.
    pub client: Endpoint,
    /// Where it is connected to.
    pub server: Endpoint,
    /// The pool whose server that is; `None`: nobody keeps an account of it.
    #[serde(default)]
    pub pool: Option<String>,
    /// How far it is ahead of its own rate, up and down, in microseconds.
    #[serde(default)]
    pub debts: Option<[i64; 2]>,
    /// Its connection to the server stood before it came.
    #[serde(default)]
    pub warm: bool,
    /// The server did not get a verdict yet.
    #[serde(default)]
    pub unproven: bool,
    /// Servers that were tried before.
    #[serde(default)]
    pub tried: Vec<(Endpoint, Cause)>,
    /// What its client said before the payload.
    #[serde(default)]
    pub opened: Option<OpenedNote>,
    /// How it is.
    pub state: SessionState,
    /// Its connections.
    pub sides: [Option<SideNote>; 2],
    /// What its lanes hold, up and down.
    pub held: [HeldNote; 2],
}

impl Manifest {
    /// How many descriptors go with it.
    pub fn descriptors(&self) -> usize {
        let sides = self.sides.iter().flatten().count();
        let pipes = self.held.iter().filter(|it| it.is_piped()).count();
        sides + 2 * pipes
    }

    /// How many bytes go with it: its tails, one behind the other.
    pub fn tail_bytes(&self) -> usize {
        self.held.iter().map(|it| it.tail() as usize).sum()
    }

    /// What holds for every manifest that is true.
    pub(super) fn check(&self, baggage: &impl Baggage) -> Result<(), Refusal> {
        let sides = Side::BOTH.map(|side| self.state.has(side));
        let held = self.state.lanes().each_ref().map(LaneState::held);
        if baggage.sides().map(|it| it.is_some()) != sides
            || baggage.held().map(HeldNote::len) != held
        {
            return Err(Refusal::Inconsistent("what came along is not what it says"));
        }
        Ok(())
    }
}

/// A session as it has come from another process, before anything is believed.
#[derive(Debug)]
pub struct Parcel {
    /// What is told of it.
    pub manifest: Manifest,
    /// [`Manifest::descriptors`] of them, in the order of `Detached::descriptors`.
    pub descriptors: Vec<OwnedFd>,
    /// [`Manifest::tail_bytes`] of them.
    pub bytes: Vec<u8>,
}

impl Parcel {
    /// Puts its parts together. Each socket is the one that was sent, by its cookie; an
    /// error closes them here, and nowhere else.
    pub fn open(self) -> Result<(Manifest, Detached), Refusal> {
        let Self {
            manifest,
            descriptors,
            bytes,
        } = self;
        let amiss = |_: io::Error| Refusal::Inconsistent("a descriptor cannot be looked at");
        let detached = Detached::put_together(manifest.sides, manifest.held, descriptors, &bytes)
            .map_err(amiss)?
            .ok_or(Refusal::Inconsistent("what came along is not what it says"))?;
        manifest.check(&detached)?;
        Ok((manifest, detached))
    }
}
