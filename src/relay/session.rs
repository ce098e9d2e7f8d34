//! The life of one forwarded connection, as a pure state machine.
//!
//! Purpose: given what happened and when, say what the engine does next.
//! Owns: what all stages have in common (`Common`: the lanes, the clocks of the
//! record, the ending, which sides are open), and the stage that is on, one of four
//! small machines that are handed on by value: what an earlier one knew is gone with
//! it. Never a descriptor or a byte.
//! Deliberately not here: which server is dialled (the caller counts attempts
//! off against its balancer), and the timer wheel ([`Session::deadline`] is
//! asked after each event).
//!
//! ```text
//!  Opening ───► Dialling ───► Relaying ───► Closing
//!     │             └─────────────────────────▲
//!     └───────────────────────────────────────┘
//! ```
//! | stage | its phases | file |
//! | --- | --- | --- |
//! | what a client says first, and what is decided by it | Reading, Deciding | `opening.rs` |
//! | getting a server | Dialing, Redialing, Queued, Greeting | `dialling.rs` |
//! | bytes flow, or what is left of them | Relaying, Flushing, Lingering | `relaying.rs` |
//! | the end | Refusing, Parting, Closing | `closing.rs` |
//!
//! Invariants: a session ends in exactly one place ([`Action::End`], once, with
//! no side open); every phase but `Relaying` without timeouts has a deadline; a
//! peer learns of a failure as a reset, and only after it was given all that had
//! arrived for it; as an orderly end only if it did not take that in time.

mod clock;
mod closing;
mod common;
mod dialling;
mod events;
mod frozen;
mod opening;
mod relaying;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use events::{
    Action, Close, Deadlines, Decided, Event, Failure, Pumped, Read, Readiness, Rules, Said,
};
pub use frozen::{Found, SessionState};

use super::ending::Ending;
use super::lane::{Lane, Next};
use super::time::Time;
use super::{Direction, Side};

use closing::Closing;
use common::{Common, Context};
use dialling::Dialling;
use opening::Opening;
use relaying::Relaying;

/// A forwarded connection. See the module's documentation.
#[derive(Debug, Clone)]
pub struct Session {
    common: Common,
    stage: Stage,
}

/// The machine that is on. Each takes an event by value and returns what comes of it,
/// itself or the next one.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Opening(Opening),
    Dialling(Dialling),
    Relaying(Relaying),
    Closing(Closing),
}

impl Session {
    /// A session whose client was accepted at `now`; the first action is pushed.
    pub fn new(rules: &Rules, now: Time, actions: &mut Vec<Action>) -> Self {
        let mut common = Common::new(rules, now);
        let cx = &mut Context {
            common: &mut common,
            now,
            rules,
            actions,
        };
        let stage = match rules.opening {
            Some(patience) => Opening::begin(patience, cx),
            None => Dialling::first(cx),
        };
        Self { common, stage }
    }

    /// Takes what happened, pushes what is to be done.
    pub fn on(&mut self, event: Event, now: Time, rules: &Rules, actions: &mut Vec<Action>) {
        let cx = &mut Context {
            common: &mut self.common,
            now,
            rules,
            actions,
        };
        self.stage = match self.stage {
            Stage::Opening(opening) => opening.on(event, cx),
            Stage::Dialling(dialling) => dialling.on(event, cx),
            Stage::Relaying(relaying) => relaying.on(event, cx),
            Stage::Closing(closing) => closing.on(event, cx),
        };
    }

    /// When [`Event::Looked`] is due. It moves away with every byte: a caller may
    /// keep an earlier timer and ask again when that fires.
    pub fn deadline(&self, rules: &Rules) -> Time {
        match &self.stage {
            Stage::Opening(opening) => opening.deadline(),
            Stage::Dialling(dialling) => dialling.deadline(),
            Stage::Relaying(relaying) => relaying.deadline(&self.common, rules),
            Stage::Closing(closing) => closing.deadline(),
        }
    }

    /// A lane, for the engine to pump.
    pub const fn lane_mut(&mut self, direction: Direction) -> &mut Lane {
        self.common.lane_mut(direction)
    }

    /// Both, up and down.
    pub const fn lanes(&self) -> &[Lane; 2] {
        &self.common.lanes
    }

    /// Both, up and down.
    pub const fn lanes_mut(&mut self) -> &mut [Lane; 2] {
        &mut self.common.lanes
    }

    /// A lane.
    pub const fn lane(&self, direction: Direction) -> &Lane {
        self.common.lane(direction)
    }

    /// How it ended, once it is ending.
    pub const fn ending(&self) -> Option<Ending> {
        self.common.ending
    }

    /// Attempts to connect that were made.
    pub const fn attempts(&self) -> u8 {
        self.common.attempts
    }

    /// Whether the next event of interest is the outcome of a connect.
    pub const fn is_dialing(&self) -> bool {
        matches!(&self.stage, Stage::Dialling(dialling) if dialling.is_connecting())
    }

    /// Whether it waits to be told what becomes of it.
    pub const fn is_deciding(&self) -> bool {
        matches!(&self.stage, Stage::Opening(opening) if opening.is_deciding())
    }

    /// Whether it waits for a server that has room.
    pub const fn is_queued(&self) -> bool {
        matches!(&self.stage, Stage::Dialling(dialling) if dialling.is_queued())
    }

    /// Whether its end is under way.
    pub const fn is_closing(&self) -> bool {
        matches!(&self.stage, Stage::Closing(_))
    }

    /// Whether it waits or has waited for a server that has room.
    pub const fn has_waited(&self) -> bool {
        self.common.marks.has_waited()
    }

    /// Whether pumping this lane is of use: its sides are open and it would not
    /// just park. What was queued a moment ago may have lost its point.
    pub fn wants_pump(&self, direction: Direction) -> bool {
        let allowed = match &self.stage {
            Stage::Opening(_) | Stage::Dialling(_) => false,
            Stage::Relaying(relaying) => relaying.pumps(direction),
            Stage::Closing(closing) => closing.pumps(direction),
        };
        allowed && !matches!(self.lane(direction).next(), Next::Park | Next::Done)
    }

    /// What it is about, in a word for people: `Relaying`.
    pub const fn phase(&self) -> &'static str {
        match &self.stage {
            Stage::Opening(opening) => opening.name(),
            Stage::Dialling(dialling) => dialling.name(),
            Stage::Relaying(relaying) => relaying.name(),
            Stage::Closing(closing) => closing.name(),
        }
    }

    /// When the client was accepted.
    pub const fn started(&self) -> Time {
        self.common.started
    }

    /// From accept to upstream connected; `None` before.
    pub const fn connect_time(&self) -> Option<Duration> {
        self.common.connected.get()
    }

    /// From accept to the first byte of the upstream handed to the client; as exact as a
    /// [`Lapse`](super::time::Lapse) is.
    pub const fn first_byte_time(&self) -> Option<Duration> {
        self.common.first_byte.get()
    }

    /// From accept to the end, which is `now`; `None` while it lives.
    pub fn total_time(&self, now: Time) -> Option<Duration> {
        let over = matches!(&self.stage, Stage::Closing(closing) if closing.is_over());
        over.then(|| now.since(self.common.started))
    }

    /// Panics when a state is inconsistent. For tests and the simulator.
    pub fn check_invariants(&self) {
        let common = &self.common;
        assert_eq!(
            common.marks.hung_up() & !common.marks.open(),
            0,
            "a closed side was hung up again"
        );
        for lane in &common.lanes {
            assert_eq!(
                lane.bytes_in(),
                lane.bytes_out() + u64::from(lane.held()) + lane.bytes_lost(),
                "bytes of a lane do not add up"
            );
        }
        match &self.stage {
            Stage::Opening(_) | Stage::Dialling(_) => {
                assert!(common.ending.is_none(), "ended, but not closing");
                let moved = common.lanes.iter().any(|lane| lane.bytes_in() > 0);
                assert!(!moved, "bytes were moved before there was an upstream");
            }
            Stage::Relaying(relaying) => relaying.check_invariants(common),
            Stage::Closing(closing) => closing.check_invariants(common),
        }
    }
}

impl Side {
    /// A set of sides has a bit for each.
    const fn bit(self) -> u8 {
        1 << self.index()
    }
}
