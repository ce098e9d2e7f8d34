//! What a session remembers of being connected: what was tried, and the race under way.

use super::destination::Destination;
use super::upstream::pass::Pass;
use crate::engine::SessionKey;
use crate::relay::ending::Cause;
use crate::relay::race::Race;
use crate::relay::time::Time;

/// What a session remembers of being connected, if it did not go smoothly.
#[derive(Debug, Default)]
pub(super) struct Dialling {
    /// What was tried, and why it could not be had.
    pub(super) failures: Vec<(Destination, Cause)>,
    pub(super) race: Option<Attempts>,
    /// What the upstream is still to be told before the payload.
    pub(super) unsaid: Vec<u8>,
}

impl Dialling {
    /// When a race has its next step.
    pub(super) fn wake(&self) -> Time {
        self.race.as_ref().map_or(Time::NEVER, Attempts::wake)
    }

    pub(super) fn last_cause(&self) -> Option<Cause> {
        self.failures.last().map(|(_, cause)| *cause)
    }
}

/// A race under way.
#[derive(Debug)]
pub(super) struct Attempts {
    pub(super) race: Race,
    /// Its addresses, in order; the first is the one that was chosen and admitted, see `first`.
    pub(super) destinations: Vec<Destination>,
    pub(super) first: Option<Pass>,
    /// Connects under way.
    pub(super) rivals: Vec<SessionKey>,
    /// When the schedule has its next step.
    pub(super) wake: Time,
    pub(super) last: Cause,
}

impl Attempts {
    /// When the schedule has its next step.
    pub(super) const fn wake(&self) -> Time {
        self.wake
    }
}
