//! The last stage of a session: a client that is turned away is told why, both sides
//! are closed, and when neither is open the session is over.
//!
//! ```text
//!  Refusing ──nothing is owed─────────────────────► Closing
//!     └──────told──► Parting ──the client ended──► Closing ──no side is open──► End
//!  no server, and told by an end ──┘
//! ```
//! Invariant: [`Action::End`] is pushed once, here and nowhere else.

use std::time::Duration;

use super::common::{ANSWER_PATIENCE, Common, Context};
use super::{Action, Close, Event, Pumped, Said, Stage};
use crate::relay::ending::{self, Cause, Ending};
use crate::relay::probe;
use crate::relay::time::Time;
use crate::relay::{Direction, Side};

/// How long a client that was turned away may go on sending before it is cut off.
/// nginx gives `lingering_timeout` 5 s; a client that has read its answer ends at once.
const PARTING_PATIENCE: Duration = Duration::from_secs(2);

/// See the module's documentation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing {
    phase: Phase,
    /// Of the phase that is on; `NEVER` for `Closing`: a close that was asked for comes.
    deadline: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The client is being told why it gets no upstream.
    Refusing,
    /// It was told; what it still sends is dropped until it ends: bytes that nobody
    /// read would make the close a reset, and that may cost the answer.
    Parting,
    /// Every side that is open was asked to close.
    Closing,
    /// None is.
    Over,
}

impl Closing {
    /// The client is told why not; the reason is known by now.
    pub(super) fn refuse(from: &'static str, cx: &mut Context<'_>) -> Stage {
        cx.hang_up(Side::Upstream, Close::Reset);
        cx.actions.push(Action::Say);
        Self::enter(from, Phase::Refusing, cx.now + ANSWER_PATIENCE).stay()
    }

    /// The client gets no server: it is reset, or sees an orderly end. For that it is read
    /// from until it ends, since bytes that nobody read would make the close a reset.
    pub(super) fn turn_away(from: &'static str, cx: &mut Context<'_>) -> Stage {
        Self::deny(from, cx.rules.turn_away, cx)
    }

    /// Closes the client in this way, and tells it nothing; see [`Closing::turn_away`].
    pub(super) fn deny(from: &'static str, how: Close, cx: &mut Context<'_>) -> Stage {
        match how {
            Close::Reset => Self::close_all(from, Close::Reset, cx),
            Close::Orderly => {
                cx.hang_up(Side::Upstream, Close::Reset);
                Self::part(from, cx)
            }
        }
    }

    /// Closes both sides.
    pub(super) fn close_all(from: &'static str, how: Close, cx: &mut Context<'_>) -> Stage {
        for side in Side::BOTH {
            cx.hang_up(side, how);
        }
        for direction in Direction::BOTH {
            if cx.common.lane(direction).held() > 0 {
                cx.lose_sink(direction);
            }
        }
        Self::enter(from, Phase::Closing, Time::NEVER)
            .finish_if_closed(cx)
            .stay()
    }

    /// Ends a session that did not end by itself. An orderly end must not claim
    /// completeness: with bytes still on their way (`unsent`, by side), it is a reset.
    pub(super) fn cut(
        from: &'static str,
        cause: Cause,
        unsent: [u32; 2],
        cx: &mut Context<'_>,
    ) -> Stage {
        let complete = unsent == [0, 0] && cx.common.lanes.iter().all(|lane| lane.held() == 0);
        // That a server is down is a failure, and told as one; so is that an operator
        // picked out this session, that others need its place, or that bytes are lost.
        let told = matches!(
            cause,
            Cause::ServerDown | Cause::Killed | Cause::MadeRoom | Cause::Crashed
        );
        let orderly = complete && !told;
        let how = if orderly {
            Close::Orderly
        } else {
            Close::Reset
        };
        Self::close_all(from, how, cx)
    }

    pub(super) const fn deadline(&self) -> Time {
        self.deadline
    }

    pub(super) const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    pub(super) const fn pumps(&self, direction: Direction) -> bool {
        matches!((self.phase, direction), (Phase::Parting, Direction::Up))
    }

    pub(super) fn check_invariants(&self, common: &Common) {
        assert!(common.ending.is_some(), "closing without a reason");
        match self.phase {
            Phase::Refusing | Phase::Parting => {
                assert!(common.is_open(Side::Client), "nobody is there to be told");
            }
            Phase::Closing => {
                assert_eq!(
                    common.marks.hung_up(),
                    common.marks.open(),
                    "closing, but a side was left open"
                );
            }
            Phase::Over => assert_eq!(common.marks.open(), 0, "over with an open side"),
        }
    }

    pub(super) fn on(self, event: Event, cx: &mut Context<'_>) -> Stage {
        match (event, self.phase) {
            (Event::Said(said), Phase::Refusing) => self.said(said, cx),
            (Event::Ready { side, readiness }, phase) => {
                cx.common.note(side, readiness);
                if phase == Phase::Closing || phase == Phase::Over {
                    return self.stay();
                }
                if side == Side::Client && readiness.failed {
                    return Self::close_all(self.name(), Close::Reset, cx);
                }
                if phase == Phase::Parting {
                    cx.pump(Direction::Up);
                } else if side == Side::Client && readiness.writable {
                    cx.actions.push(Action::Say);
                }
                self.stay()
            }
            (Event::Pumped { pumped, .. }, Phase::Parting) => self.pumped(pumped, cx),
            (Event::Looked { .. }, Phase::Refusing) if cx.now >= self.deadline => {
                Self::close_all(self.name(), Close::Reset, cx)
            }
            (Event::Looked { .. }, Phase::Parting) if cx.now >= self.deadline => {
                Self::close_all(self.name(), Close::Orderly, cx)
            }
            (Event::Cut { cause, unsent }, Phase::Refusing | Phase::Parting) => {
                Self::cut(self.name(), cause, unsent, cx)
            }
            (Event::Closed(side), _) => {
                cx.common.gone(side);
                self.finish_if_closed(cx).stay()
            }
            // It crossed the close that was asked for.
            (Event::ConnectFailed(_), _) => {
                cx.common.gone(Side::Upstream);
                self.finish_if_closed(cx).stay()
            }
            (Event::Said(_), Phase::Parting | Phase::Closing | Phase::Over)
            | (Event::Pumped { .. }, Phase::Refusing | Phase::Closing | Phase::Over)
            | (Event::Cut { .. }, Phase::Closing | Phase::Over)
            | (
                Event::Looked { .. }
                | Event::Read(_)
                | Event::Decided(_)
                | Event::Prefixed(_)
                | Event::Connected
                | Event::Queued
                | Event::Dequeued
                | Event::NoServer(_),
                _,
            ) => self.stay(),
        }
    }

    fn said(self, said: Said, cx: &mut Context<'_>) -> Stage {
        match said {
            Said::Whole => Self::part(self.name(), cx),
            Said::Nothing => match cx.common.ending {
                Some(Ending {
                    stage: ending::Stage::Connect | ending::Stage::Queue,
                    ..
                }) => Self::turn_away(self.name(), cx),
                _ => Self::close_all(self.name(), Close::Reset, cx),
            },
            // Readiness says when to go on.
            Said::Part => self.stay(),
            Said::Failed(_) => Self::close_all(self.name(), Close::Reset, cx),
        }
    }

    /// Ends towards the client, and drops what it still sends.
    fn part(from: &'static str, cx: &mut Context<'_>) -> Stage {
        cx.actions.push(Action::Conclude);
        let up = cx.common.lane_mut(Direction::Up);
        up.sink_failed();
        up.source_ready();
        cx.pump(Direction::Up);
        Self::enter(from, Phase::Parting, cx.now + PARTING_PATIENCE).stay()
    }

    fn pumped(self, pumped: Pumped, cx: &mut Context<'_>) -> Stage {
        if cx.common.lane(Direction::Up).source_ended() || pumped.failure.is_some() {
            return Self::close_all(self.name(), Close::Orderly, cx);
        }
        self.stay()
    }

    fn finish_if_closed(self, cx: &mut Context<'_>) -> Self {
        if self.phase == Phase::Closing && cx.common.marks.open() == 0 {
            cx.actions.push(Action::End);
            return Self {
                phase: Phase::Over,
                ..self
            };
        }
        self
    }

    fn enter(from: &'static str, phase: Phase, deadline: Time) -> Self {
        let entered = Self { phase, deadline };
        probe::visit(from, entered.name());
        entered
    }

    const fn stay(self) -> Stage {
        Stage::Closing(self)
    }

    pub(super) const fn name(self) -> &'static str {
        match self.phase {
            Phase::Refusing => "Refusing",
            Phase::Parting => "Parting",
            Phase::Closing | Phase::Over => "Closing",
        }
    }
}
