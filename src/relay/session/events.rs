//! What a session is told and what it asks for: the vocabulary between the pure
//! state machine and whoever carries its actions out.

use std::time::Duration;

use crate::relay::ending::Cause;
use crate::relay::lane::PathPolicy;
use crate::relay::{Direction, Side};

/// Deadlines of a session; [`Duration::MAX`] is "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For each attempt to connect.
    pub connect: Duration,
    /// Silence both ways, with nothing on its way out of the kernel.
    pub idle: Duration,
    /// Silence after one side ended.
    pub half_close: Duration,
    /// A sink takes no byte although some are due to it.
    pub write_stall: Duration,
}

/// What does not change during a session and is shared by many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Deadlines.
    pub deadlines: Deadlines,
    /// Attempts to connect at the most, each to another server; at least 1.
    pub attempts_max: u8,
    /// No attempt but the first begins later than this after the accept.
    pub retry: Duration,
    /// How long a session waits for a server that has room.
    pub queue: Duration,
    /// How long the first step of what the client says before its payload may take;
    /// `None`: it says nothing, and is connected at once.
    pub opening: Option<Duration>,
    /// Which data path the lanes may take.
    pub path: PathPolicy,
    /// How a client is turned away that gets no server.
    pub turn_away: Close,
    /// Bytes that one fill may read, of each direction.
    pub fill_limits: [u32; 2],
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// What came of [`Action::Read`].
    Read(Read),
    /// What came of [`Action::Decide`].
    Decided(Decided),
    /// What came of [`Action::Say`].
    Said(Said),
    /// The connect that was asked for last succeeded.
    Connected,
    /// What came of [`Action::Prefix`], or of what the reactor said to the upstream by
    /// itself, in place of [`Event::Connected`].
    Prefixed(Said),
    /// It failed, and nothing of it is left.
    ConnectFailed(Cause),
    /// No connect was started: every server has as many sessions as it may.
    /// [`Event::Dequeued`] follows if one has room in time.
    Queued,
    /// A server may have room now: dial again.
    Dequeued,
    /// No connect was started, and none will be: no server is left.
    NoServer(Cause),
    /// A side can be read or written, or has failed.
    Ready {
        /// Which.
        side: Side,
        /// What it is ready for.
        readiness: Readiness,
    },
    /// A pump of a lane returned.
    Pumped {
        /// Which lane.
        direction: Direction,
        /// What came of it.
        pumped: Pumped,
    },
    /// The deadline passed, or [`Action::Look`] was carried out: so many bytes
    /// the kernel has still to deliver to each side (unsent or unacknowledged).
    Looked {
        /// By side.
        unsent: [u32; 2],
    },
    /// End now, for this reason.
    Cut {
        /// The reason.
        cause: Cause,
        /// As in [`Event::Looked`].
        unsent: [u32; 2],
    },
    /// A close that was asked for is complete; last event of that side.
    Closed(Side),
}

/// What was read of what a client says before its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// All of it.
    Whole,
    /// A step of it; the next one has so long.
    Step(Duration),
    /// It is not served, by this cause.
    Refused(Cause),
    /// The client that it announces may not come in: it is closed so, and told nothing.
    Denied(Close),
    /// The client ended or failed before it had said all.
    Ended(Cause),
}

/// What becomes of a session whose opening was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// It is connected; where to is known.
    Dial,
    /// It is not, by this cause.
    Refused(Cause),
}

/// How much of what a side is owed was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Nothing is owed.
    Nothing,
    /// All of it.
    Whole,
    /// Some; readiness says when to go on.
    Part,
    /// The side takes none.
    Failed(Cause),
}

/// What a side is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness {
    /// Bytes, an end or an error can be read.
    pub readable: bool,
    /// Bytes can be written.
    pub writable: bool,
    /// The connection has failed; what it had delivered may still be read.
    pub failed: bool,
}

/// What came of pumping a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pumped {
    /// Bytes were read or written.
    pub moved: bool,
    /// The budget ended before the lane parked: pump again soon.
    pub more: bool,
    /// An end of the lane failed.
    pub failure: Option<Failure>,
}

/// An end of a lane failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The side whose connection it was.
    pub side: Side,
    /// How.
    pub cause: Cause,
}

/// How a side is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// In good order: what is unsent is still delivered, then the end.
    Orderly,
    /// By a reset: what is unsent is thrown away.
    Reset,
}

/// What is to be done, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Look what the client says before its payload, and take it; report
    /// [`Event::Read`] once it is known, and nothing while more is needed.
    Read,
    /// Find out what becomes of the session by what was read; report
    /// [`Event::Decided`], at once or later.
    Decide,
    /// Write what the client is owed, or go on with it: that the upstream stands, or,
    /// once [`Session::ending`](super::Session::ending) is known, why not. Report
    /// [`Event::Said`].
    Say,
    /// Go on with what the upstream is told before the payload; report
    /// [`Event::Prefixed`].
    Prefix,
    /// End the client's side for writing: what was said was the last word.
    Conclude,
    /// Connect to the next server; `attempt` counts from 0.
    Dial {
        /// Which attempt.
        attempt: u8,
    },
    /// Pump this lane, then report [`Event::Pumped`].
    Pump(Direction),
    /// Drop whatever bytes are held for this lane; its sink is gone.
    Drop(Direction),
    /// Look how much the kernel has still to deliver, then report [`Event::Looked`].
    Look,
    /// Close this side, then report [`Event::Closed`].
    Close {
        /// Which.
        side: Side,
        /// How.
        how: Close,
    },
    /// Nothing is left: write the record, free the slot.
    End,
}
