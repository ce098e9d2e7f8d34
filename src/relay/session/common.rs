//! What every stage of a session has: its lanes, its clocks, how it ended, which sides
//! are open. A stage changes it through a [`Context`].

use std::time::Duration;

use crate::relay::ending::{Cause, Ending, Stage, Who};
use crate::relay::lane::{Lane, Next};
use crate::relay::probe::{self, Mutation};
use crate::relay::time::{Lapse, Time};
use crate::relay::{Direction, Side};

use super::{Action, Close, Readiness, Rules};

/// How long a client may take none of a short answer.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) lanes: [Lane; 2],
    pub(super) started: Time,
    /// Since `started`.
    pub(super) connected: Lapse,
    /// Likewise.
    pub(super) first_byte: Lapse,
    pub(super) ending: Option<Ending>,
    pub(super) attempts: u8,
    pub(super) marks: Marks,
}

/// Which sides have a descriptor, of which a close was asked for, and whether the session has
/// waited in a line: in one byte, for three make a session eight larger.
///
/// | bits | |
/// | --- | --- |
/// | 0, 1 | open: by side |
/// | 2, 3 | hung up: by side |
/// | 4 | it waits, or has waited, for a server with room |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Marks(u8);

/// What a stage is given with an event.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) common: &'a mut Common,
    pub(super) now: Time,
    pub(super) rules: &'a Rules,
    pub(super) actions: &'a mut Vec<Action>,
}

impl Common {
    pub(super) fn new(rules: &Rules, now: Time) -> Self {
        Self {
            lanes: rules.fill_limits.map(|limit| Lane::new(rules.path, limit)),
            started: now,
            connected: Lapse::NEVER,
            first_byte: Lapse::NEVER,
            ending: None,
            attempts: 0,
            marks: Marks::default().opened(Side::Client),
        }
    }

    pub(super) const fn lane_mut(&mut self, direction: Direction) -> &mut Lane {
        &mut self.lanes[direction.index()]
    }

    pub(super) const fn lane(&self, direction: Direction) -> &Lane {
        &self.lanes[direction.index()]
    }

    pub(super) const fn is_open(&self, side: Side) -> bool {
        self.marks.is_open(side)
    }

    /// A side has no descriptor any more.
    pub(super) const fn gone(&mut self, side: Side) {
        self.marks.0 &= !(side.bit() | side.bit() << Marks::HUNG_UP);
    }

    /// What a side is ready for is known to its lanes, whichever stage is on.
    pub(super) fn note(&mut self, side: Side, readiness: Readiness) {
        if readiness.readable || readiness.failed {
            self.lane_mut(side.outgoing()).source_ready();
        }
        if readiness.writable || readiness.failed {
            self.lane_mut(side.incoming()).sink_ready();
        }
    }

    /// The first reason is the reason; what follows is its echo.
    pub(super) fn end(&mut self, stage: Stage, who: Who, cause: Cause) {
        let stage = if cause.is_refusal() {
            Stage::Request
        } else {
            stage
        };
        self.ending.get_or_insert(Ending { who, stage, cause });
    }

    /// The stage of an end while bytes could flow.
    pub(super) fn data_stage(&self) -> Stage {
        if self.lanes.iter().any(Lane::source_finished) {
            Stage::HalfClosed
        } else {
            Stage::Data
        }
    }
}

impl Marks {
    /// The place of the sides that were hung up.
    const HUNG_UP: u8 = 2;
    const WAITED: u8 = 1 << 4;
    const SIDES: u8 = 0b11;

    /// With a descriptor on this side.
    pub(super) const fn opened(self, side: Side) -> Self {
        Self(self.0 | side.bit())
    }

    /// Of one that has waited for a server with room.
    pub(super) const fn having_waited(self) -> Self {
        Self(self.0 | Self::WAITED)
    }

    const fn is_open(self, side: Side) -> bool {
        self.0 & side.bit() != 0
    }

    const fn is_hung_up(self, side: Side) -> bool {
        self.hung_up() & side.bit() != 0
    }

    /// Sides with a descriptor, bit by side.
    pub(super) const fn open(self) -> u8 {
        self.0 & Self::SIDES
    }

    /// Sides whose close was asked for, bit by side.
    pub(super) const fn hung_up(self) -> u8 {
        self.0 >> Self::HUNG_UP & Self::SIDES
    }

    /// Whether it waits, or has waited, for a server with room.
    pub(super) const fn has_waited(self) -> bool {
        self.0 & Self::WAITED != 0
    }
}

impl Context<'_> {
    /// Asks for a pump of a lane, if it has anything to do.
    pub(super) fn pump(&mut self, direction: Direction) -> bool {
        let wanted = !matches!(self.common.lane(direction).next(), Next::Park | Next::Done);
        if wanted {
            self.actions.push(Action::Pump(direction));
        }
        wanted
    }

    /// The sink of a lane is gone, and what is held for it.
    pub(super) fn lose_sink(&mut self, direction: Direction) {
        self.common.lane_mut(direction).sink_failed();
        if !probe::mutated(Mutation::BufferLeakedOnReset) {
            self.actions.push(Action::Drop(direction));
        }
    }

    /// Asks for the close of a side, unless it has none or was asked already.
    pub(super) fn hang_up(&mut self, side: Side, how: Close) {
        let again = probe::mutated(Mutation::DoubleClose);
        let marks = &mut self.common.marks;
        if marks.is_open(side) && (!marks.is_hung_up(side) || again) {
            marks.0 |= side.bit() << Marks::HUNG_UP;
            self.actions.push(Action::Close { side, how });
        }
    }
}

/// Who is to blame for a failure on the way to a peer.
pub(super) const fn culprit(cause: Cause, peer: Side) -> Who {
    if cause.is_local_shortage() || cause.is_refusal() {
        Who::Forwarder
    } else {
        Who::Peer(peer)
    }
}
