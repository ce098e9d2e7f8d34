//! The first stage of a session whose client says something before its payload: it is
//! read, and what becomes of the session is decided by it.
//!
//! ```text
//!  Reading ──read──► Deciding ──may go──► Dialling
//!     └──────────┬───────┴── not, or not in time ──► Closing: Refusing
//!                └── the client gave up ───────────► Closing
//! ```
//! What was said is taken off the client's socket to its last byte and no further: what
//! follows is payload, and waits there for the lanes. It may have several steps; each has
//! a deadline of its own, for all of it.

use std::time::Duration;

use super::closing::Closing;
use super::common::Context;
use super::dialling::Dialling;
use super::{Action, Close, Decided, Event, Read, Stage};
use crate::relay::Side;
use crate::relay::ending::{self, Cause, Who};
use crate::relay::probe;
use crate::relay::time::Time;

/// How long a decision may take: the resolver has a deadline of ten seconds of its own,
/// and says by then which it is.
const DECISION_PATIENCE: Duration = Duration::from_secs(12);

/// See the module's documentation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    phase: Phase,
    deadline: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// What the client says first is awaited.
    Reading,
    /// What becomes of it is being found out.
    Deciding,
}

impl Opening {
    /// Waits for what the client says first, `patience` in all.
    pub(super) fn begin(patience: Duration, cx: &mut Context<'_>) -> Stage {
        // It may have come with the connection.
        cx.actions.push(Action::Read);
        Stage::Opening(Self {
            phase: Phase::Reading,
            deadline: cx.now + patience,
        })
    }

    pub(super) const fn deadline(&self) -> Time {
        self.deadline
    }

    pub(super) const fn is_deciding(&self) -> bool {
        matches!(self.phase, Phase::Deciding)
    }

    pub(super) fn on(self, event: Event, cx: &mut Context<'_>) -> Stage {
        match (event, self.phase) {
            (Event::Read(read), Phase::Reading) => self.read(read, cx),
            (Event::Decided(Decided::Dial), Phase::Deciding) => Dialling::decided(self.name(), cx),
            (Event::Decided(Decided::Refused(cause)), Phase::Deciding) => self.refuse(cause, cx),
            (Event::Ready { side, readiness }, phase) => {
                cx.common.note(side, readiness);
                if side == Side::Client && readiness.failed {
                    self.end(Who::Peer(Side::Client), Cause::Reset, cx);
                    return Closing::close_all(self.name(), Close::Reset, cx);
                }
                if side == Side::Client && readiness.readable && phase == Phase::Reading {
                    cx.actions.push(Action::Read);
                }
                self.stay()
            }
            (Event::Looked { .. }, _) => self.look(cx),
            (Event::Cut { cause, unsent }, _) => {
                self.end(Who::Forwarder, cause, cx);
                Closing::cut(self.name(), cause, unsent, cx)
            }
            (Event::Closed(side), _) => {
                cx.common.gone(side);
                self.stay()
            }
            (Event::ConnectFailed(_), _) => {
                unreachable!("a connect failed that was not being made")
            }
            // An answer to what is asked no more.
            (Event::Read(_), Phase::Deciding)
            | (Event::Decided(_), Phase::Reading)
            | (
                Event::Said(_)
                | Event::Prefixed(_)
                | Event::Connected
                | Event::Queued
                | Event::Dequeued
                | Event::NoServer(_)
                | Event::Pumped { .. },
                _,
            ) => self.stay(),
        }
    }

    fn read(self, read: Read, cx: &mut Context<'_>) -> Stage {
        match read {
            Read::Whole => {
                let next = Self {
                    phase: Phase::Deciding,
                    deadline: cx.now + DECISION_PATIENCE,
                };
                probe::visit(self.name(), next.name());
                cx.actions.push(Action::Decide);
                next.stay()
            }
            Read::Step(patience) => {
                let deadline = cx.now + patience;
                Self { deadline, ..self }.stay()
            }
            Read::Refused(cause) => self.refuse(cause, cx),
            Read::Denied(how) => {
                self.end(Who::Forwarder, Cause::Denied, cx);
                Closing::deny(self.name(), how, cx)
            }
            Read::Ended(cause) => {
                self.end(Who::Peer(Side::Client), cause, cx);
                Closing::close_all(self.name(), Close::Orderly, cx)
            }
        }
    }

    fn refuse(self, cause: Cause, cx: &mut Context<'_>) -> Stage {
        let who = match cause {
            Cause::NameFailed | Cause::NameTimeout => Who::Peer(Side::Upstream),
            _ => Who::Forwarder,
        };
        self.end(who, cause, cx);
        Closing::refuse(self.name(), cx)
    }

    fn look(self, cx: &mut Context<'_>) -> Stage {
        if cx.now < self.deadline {
            return self.stay();
        }
        match self.phase {
            Phase::Reading => self.end(Who::Peer(Side::Client), Cause::RequestTimeout, cx),
            Phase::Deciding => self.end(Who::Peer(Side::Upstream), Cause::NameTimeout, cx),
        }
        Closing::refuse(self.name(), cx)
    }

    fn end(self, who: Who, cause: Cause, cx: &mut Context<'_>) {
        let stage = match self.phase {
            Phase::Reading => ending::Stage::Request,
            Phase::Deciding => ending::Stage::Connect,
        };
        cx.common.end(stage, who, cause);
    }

    const fn stay(self) -> Stage {
        Stage::Opening(self)
    }

    pub(super) const fn name(self) -> &'static str {
        match self.phase {
            Phase::Reading => "Reading",
            Phase::Deciding => "Deciding",
        }
    }
}
