//! The stage of a session that gets its server: attempts, and the wait for room.
//!
//! ```text
//!  Queued: every server is full
//!   ▲  ▼
//!  Dialing ──connected──► Prefixing: what the upstream is told first, if
//!   │  ▲  │                   │      it does not take it at once
//!   │  │  │                   ▼
//!   │  │  ├──connected────► Greeting: what the client is owed first ──► Relaying
//!   │  │  └─── connected, and nothing is owed ────────────────────────────▲
//!   ▼  │ the old side is closed
//!  Redialing                     no server could be had ──► Closing
//! ```

use super::closing::Closing;
use super::common::{ANSWER_PATIENCE, Context, culprit};
use super::relaying::Relaying;
use super::{Action, Close, Event, Said, Stage};
use crate::relay::Side;
use crate::relay::ending::{self, Cause, Who};
use crate::relay::probe;
use crate::relay::time::{Lapse, Time};

/// See the module's documentation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialling {
    phase: Phase,
    /// Which attempt is being made or comes next, from 0.
    attempt: u8,
    /// Of the phase that is on; `NEVER` for `Redialing`.
    deadline: Time,
    /// When waiting for a server with room ends; `NEVER` before it began.
    queue_end: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Dialing,
    /// The connect that came to nothing is being closed.
    Redialing,
    Queued,
    /// The upstream stands, and has not taken all of what it is told first.
    Prefixing,
    /// The upstream stands, and the client is being told.
    Greeting,
}

impl Dialling {
    /// The first attempt, of a session that begins with it.
    pub(super) fn first(cx: &mut Context<'_>) -> Stage {
        Self::NEW.dial_now(cx)
    }

    /// The first attempt, of a session whose opening is over.
    pub(super) fn decided(from: &'static str, cx: &mut Context<'_>) -> Stage {
        probe::visit(from, Phase::Dialing.name());
        Self::NEW.dial_now(cx)
    }

    const NEW: Self = Self {
        phase: Phase::Dialing,
        attempt: 0,
        deadline: Time::NEVER,
        queue_end: Time::NEVER,
    };

    pub(super) const fn deadline(&self) -> Time {
        self.deadline
    }

    pub(super) const fn is_connecting(&self) -> bool {
        matches!(self.phase, Phase::Dialing)
    }

    pub(super) const fn is_queued(&self) -> bool {
        matches!(self.phase, Phase::Queued)
    }

    pub(super) fn on(self, event: Event, cx: &mut Context<'_>) -> Stage {
        match (event, self.phase) {
            (Event::Connected, Phase::Dialing) => self.connected(cx),
            (Event::Prefixed(said), Phase::Dialing | Phase::Prefixing) => self.prefixed(said, cx),
            (Event::ConnectFailed(cause), _) => self.connect_failed(cause, cx),
            (Event::Queued, Phase::Dialing) => self.queued(cx),
            (Event::Dequeued, Phase::Queued) => self.dial(self.attempt, cx),
            (Event::NoServer(cause), Phase::Dialing) => {
                self.not_dialled(cx);
                self.give_up(cause, cx)
            }
            (Event::Said(said), Phase::Greeting) => self.said(said, cx),
            (Event::Ready { side, readiness }, phase) => {
                cx.common.note(side, readiness);
                if side == Side::Client && readiness.failed {
                    self.end(Who::Peer(Side::Client), Cause::Reset, cx);
                    return Closing::close_all(self.name(), Close::Reset, cx);
                }
                if side == Side::Client && readiness.writable && phase == Phase::Greeting {
                    cx.actions.push(Action::Say);
                }
                if side == Side::Upstream && readiness.writable && phase == Phase::Prefixing {
                    cx.actions.push(Action::Prefix);
                }
                self.stay()
            }
            (Event::Looked { .. }, _) => self.look(cx),
            (Event::Cut { cause, unsent }, _) => {
                self.end(Who::Forwarder, cause, cx);
                Closing::cut(self.name(), cause, unsent, cx)
            }
            (Event::Closed(side), phase) => {
                cx.common.gone(side);
                if side == Side::Upstream && phase == Phase::Redialing {
                    return self.dial(self.attempt, cx);
                }
                self.stay()
            }
            // What was asked for crossed a change of the phase on its way.
            (
                Event::Connected | Event::Queued | Event::NoServer(_),
                Phase::Redialing | Phase::Queued | Phase::Prefixing | Phase::Greeting,
            )
            | (
                Event::Dequeued,
                Phase::Dialing | Phase::Redialing | Phase::Prefixing | Phase::Greeting,
            )
            | (
                Event::Said(_),
                Phase::Dialing | Phase::Redialing | Phase::Queued | Phase::Prefixing,
            )
            | (Event::Prefixed(_), Phase::Redialing | Phase::Queued | Phase::Greeting)
            | (Event::Read(_) | Event::Decided(_) | Event::Pumped { .. }, _) => self.stay(),
        }
    }

    /// The next connect, after another phase.
    fn dial(self, attempt: u8, cx: &mut Context<'_>) -> Stage {
        probe::visit(self.name(), Phase::Dialing.name());
        Self { attempt, ..self }.dial_now(cx)
    }

    fn dial_now(self, cx: &mut Context<'_>) -> Stage {
        cx.common.attempts = self.attempt + 1;
        cx.common.marks = cx.common.marks.opened(Side::Upstream);
        cx.actions.push(Action::Dial {
            attempt: self.attempt,
        });
        Stage::Dialling(Self {
            phase: Phase::Dialing,
            deadline: cx.now + cx.rules.deadlines.connect,
            ..self
        })
    }

    fn connected(self, cx: &mut Context<'_>) -> Stage {
        cx.common.connected = Lapse::between(cx.common.started, cx.now);
        if cx.rules.opening.is_none() {
            return Relaying::begin(self.name(), cx);
        }
        // The client is told before a byte of the upstream arrives.
        cx.actions.push(Action::Say);
        self.enter(Phase::Greeting, cx.now + ANSWER_PATIENCE)
    }

    /// From the first byte of it on no other server is tried.
    fn prefixed(self, said: Said, cx: &mut Context<'_>) -> Stage {
        match said {
            Said::Nothing | Said::Whole => self.connected(cx),
            Said::Part if self.phase == Phase::Prefixing => self.stay(),
            Said::Part => self.enter(Phase::Prefixing, cx.now + cx.rules.deadlines.connect),
            Said::Failed(cause) => {
                self.end(Who::Peer(Side::Upstream), cause, cx);
                self.part(cx)
            }
        }
    }

    fn said(self, said: Said, cx: &mut Context<'_>) -> Stage {
        match said {
            Said::Nothing | Said::Whole => Relaying::begin(self.name(), cx),
            // Readiness says when to go on.
            Said::Part => self.stay(),
            Said::Failed(cause) => {
                self.end(Who::Peer(Side::Client), cause, cx);
                Closing::close_all(self.name(), Close::Reset, cx)
            }
        }
    }

    fn connect_failed(self, cause: Cause, cx: &mut Context<'_>) -> Stage {
        cx.common.gone(Side::Upstream);
        match self.phase {
            // Another server may have ports left; descriptors and memory are no
            // more plentiful for it.
            Phase::Dialing
                if self.may_retry(cx)
                    && !matches!(cause, Cause::NoDescriptors | Cause::NoMemory) =>
            {
                self.dial(self.attempt + 1, cx)
            }
            Phase::Dialing => self.give_up(cause, cx),
            Phase::Redialing => self.dial(self.attempt, cx),
            Phase::Queued | Phase::Prefixing | Phase::Greeting => {
                unreachable!("a connect failed that was not being made")
            }
        }
    }

    fn may_retry(self, cx: &Context<'_>) -> bool {
        self.attempt + 1 < cx.rules.attempts_max && cx.now < cx.common.started + cx.rules.retry
    }

    fn queued(self, cx: &mut Context<'_>) -> Stage {
        self.not_dialled(cx);
        cx.common.marks = cx.common.marks.having_waited();
        // Whoever is sent back to the queue keeps the time he has waited.
        let queue_end = self.queue_end.min(cx.now + cx.rules.queue);
        Self { queue_end, ..self }.enter(Phase::Queued, queue_end)
    }

    /// No connect came of this attempt.
    const fn not_dialled(self, cx: &mut Context<'_>) {
        cx.common.attempts = self.attempt;
        cx.common.gone(Side::Upstream);
    }

    fn look(self, cx: &mut Context<'_>) -> Stage {
        if cx.now < self.deadline {
            return self.stay();
        }
        match self.phase {
            Phase::Dialing if self.may_retry(cx) => {
                let next = Self {
                    attempt: self.attempt + 1,
                    ..self
                };
                cx.hang_up(Side::Upstream, Close::Reset);
                next.enter(Phase::Redialing, Time::NEVER)
            }
            Phase::Dialing => self.give_up(Cause::ConnectTimeout, cx),
            // It has no deadline of its own: a close that was asked for comes.
            Phase::Redialing => self.stay(),
            Phase::Queued => self.give_up(Cause::QueueTimeout, cx),
            Phase::Prefixing => self.give_up(Cause::WriteStall, cx),
            Phase::Greeting => {
                self.end(Who::Peer(Side::Client), Cause::WriteStall, cx);
                Closing::close_all(self.name(), Close::Reset, cx)
            }
        }
    }

    /// No server could be had.
    fn give_up(self, cause: Cause, cx: &mut Context<'_>) -> Stage {
        self.end(culprit(cause, Side::Upstream), cause, cx);
        self.part(cx)
    }

    /// The client learns that it gets none.
    fn part(self, cx: &mut Context<'_>) -> Stage {
        if cx.rules.opening.is_some() {
            Closing::refuse(self.name(), cx)
        } else {
            Closing::turn_away(self.name(), cx)
        }
    }

    fn end(self, who: Who, cause: Cause, cx: &mut Context<'_>) {
        let stage = match self.phase {
            Phase::Queued => ending::Stage::Queue,
            Phase::Dialing | Phase::Redialing | Phase::Prefixing | Phase::Greeting => {
                ending::Stage::Connect
            }
        };
        cx.common.end(stage, who, cause);
    }

    fn enter(self, phase: Phase, deadline: Time) -> Stage {
        probe::visit(self.name(), phase.name());
        Stage::Dialling(Self {
            phase,
            deadline,
            ..self
        })
    }

    const fn stay(self) -> Stage {
        Stage::Dialling(self)
    }

    pub(super) const fn name(self) -> &'static str {
        self.phase.name()
    }
}

impl Phase {
    const fn name(self) -> &'static str {
        match self {
            Self::Dialing => "Dialing",
            Self::Redialing => "Redialing",
            Self::Queued => "Queued",
            Self::Prefixing => "Prefixing",
            Self::Greeting => "Greeting",
        }
    }
}
