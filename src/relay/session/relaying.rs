//! The stage of a session in which bytes flow, and what is left of them after one side
//! has failed.
//!
//! ```text
//!  Relaying ──both lanes finished──────────────► Closing
//!     │ one side failed                             ▲
//!     ▼                                             │
//!  Flushing: what the failed side had delivered     │
//!     │      still goes to the other, while it      │
//!     ▼      moves                                  │
//!  Lingering: one leg left; it is reset only when ──┘
//!             the kernel has delivered every byte
//! ```
//! Silence and stalled writes are in `clock.rs`.

use std::time::Duration;

use super::closing::Closing;
use super::common::{Common, Context, culprit};
use super::{Action, Close, Event, Failure, Pumped, Readiness, Rules, Stage};
use crate::relay::ending::{Cause, Who};
use crate::relay::lane::{Lane, Progress};
use crate::relay::probe::{self, Mutation};
use crate::relay::time::{Lapse, Time};
use crate::relay::{Direction, Side};

/// How long bytes of a client that failed may wait for an upstream that takes
/// none: half of the second within which behaviour 12 wants it told. Bytes of an
/// upstream that failed wait for a slow client as long as any other silence
/// after an end, `half_close_timeout`: what was delivered is not thrown away
/// because an error followed it (behaviour 10).
const FLUSH_PATIENCE: Duration = Duration::from_millis(500);

/// First interval in milliseconds between looks at what the kernel has still to deliver to the
/// leg that is left; doubles up to [`LINGER_LOOK_MAX`].
const LINGER_LOOK: u16 = 5;

/// Longest interval between such looks, milliseconds.
pub(super) const LINGER_LOOK_MAX: u16 = 500;

/// See the module's documentation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relaying {
    pub(super) phase: Phase,
    pub(super) delivery: Delivery,
    /// When the kernel was last asked what it has still to deliver.
    pub(super) looked: Time,
    pub(super) last_activity: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Relaying,
    Flushing {
        gone: Side,
    },
    Lingering {
        left: Side,
        /// Milliseconds from one look to the next.
        step: u16,
    },
}

/// What the kernel had still to deliver to each side, and when a side last took bytes, as far
/// as it told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Delivery {
    pub(super) unsent: [u32; 2],
    pub(super) since: [Time; 2],
}

impl Relaying {
    /// Both sides stand: bytes may flow.
    pub(super) fn begin(from: &'static str, cx: &mut Context<'_>) -> Stage {
        let begun = Self {
            phase: Phase::Relaying,
            delivery: Delivery::default(),
            looked: cx.now,
            last_activity: cx.now,
        };
        probe::visit(from, begun.name());
        for direction in Direction::BOTH {
            cx.pump(direction);
        }
        begun.stay()
    }

    pub(super) fn deadline(&self, common: &Common, rules: &Rules) -> Time {
        match self.phase {
            Phase::Relaying => self
                .silence_deadline(common, rules)
                .min(self.stall_deadline(common, rules)),
            Phase::Flushing { gone } => {
                self.looked.max(self.last_activity) + flush_patience(gone, rules) / 4
            }
            Phase::Lingering { .. } => self.lingers_until(),
        }
    }

    /// When a leg that is left is looked at next.
    pub(super) fn lingers_until(&self) -> Time {
        match self.phase {
            Phase::Relaying | Phase::Flushing { .. } => Time::NEVER,
            Phase::Lingering { step, .. } => self.looked + millis(step),
        }
    }

    pub(super) const fn pumps(&self, direction: Direction) -> bool {
        match self.phase {
            Phase::Relaying => true,
            Phase::Flushing { gone: side } | Phase::Lingering { left: side, .. } => {
                direction.index() == side.outgoing().index()
            }
        }
    }

    pub(super) fn check_invariants(&self, common: &Common) {
        if let Phase::Lingering { left, .. } = self.phase {
            assert!(common.is_open(left), "lingering for a side that is closed");
        }
        let ended = common.ending.is_some();
        assert!(
            ended || !matches!(self.phase, Phase::Lingering { .. }),
            "lingering without a reason"
        );
    }

    pub(super) fn on(self, event: Event, cx: &mut Context<'_>) -> Stage {
        match event {
            Event::Ready { side, readiness } => self.ready(side, readiness, cx),
            Event::Pumped { direction, pumped } => self.pumped(direction, pumped, cx),
            Event::Looked { unsent } => self.look(unsent, cx),
            Event::Cut { cause, unsent } => self.cut(Who::Forwarder, cause, unsent, cx),
            Event::Closed(side) => {
                cx.common.gone(side);
                self.stay()
            }
            Event::ConnectFailed(_) => unreachable!("a connect failed that was not being made"),
            // Answers to what an earlier stage asked.
            Event::Read(_)
            | Event::Decided(_)
            | Event::Said(_)
            | Event::Prefixed(_)
            | Event::Connected
            | Event::Queued
            | Event::Dequeued
            | Event::NoServer(_) => self.stay(),
        }
    }

    fn ready(self, side: Side, readiness: Readiness, cx: &mut Context<'_>) -> Stage {
        cx.common.note(side, readiness);
        match self.phase {
            Phase::Relaying if readiness.failed => return self.flush(side, cx),
            Phase::Relaying => {
                for direction in Direction::BOTH {
                    cx.pump(direction);
                }
            }
            Phase::Flushing { gone } if readiness.failed && side != gone => {
                return self.abort(gone, cx);
            }
            Phase::Flushing { gone } => {
                cx.pump(gone.outgoing());
            }
            Phase::Lingering { left, .. } if side == left => {
                if readiness.failed && cx.common.lane(left.outgoing()).source_ended() {
                    // Nobody is left to deliver to.
                    return Closing::close_all(self.name(), Close::Reset, cx);
                }
                cx.pump(left.outgoing());
            }
            Phase::Lingering { .. } => {}
        }
        self.stay()
    }

    fn pumped(mut self, direction: Direction, pumped: Pumped, cx: &mut Context<'_>) -> Stage {
        let lane = cx.common.lane(direction);
        if pumped.moved {
            let refreshes =
                !(probe::mutated(Mutation::IdleTimerNotRefreshed) && direction == Direction::Down);
            if refreshes {
                self.last_activity = cx.now;
            }
        }
        // A stall begins with the fill that comes to it. A look that finds nothing to do tells
        // nothing of a peer: spurious readiness must not keep a silent session alive.
        if pumped.moved {
            self.delivery.since[direction.sink().index()] = cx.now;
        }
        if pumped.moved
            && direction == Direction::Down
            && cx.common.first_byte == Lapse::NEVER
            && lane.bytes_out() > 0
        {
            cx.common.first_byte = Lapse::between(cx.common.started, cx.now);
        }
        if let Some(Failure { side, cause }) = pumped.failure {
            end(culprit(cause, side), cause, cx);
            let lane = cx.common.lane_mut(side.outgoing());
            // A peer that takes no more (EPIPE) may still have bytes for us, and
            // an orderly end; after any other error an end is only its echo. One
            // that lives on has no end to wait for: nothing more is read from it.
            if side == direction.sink() && !cause.is_fatal() {
                lane.source_failed();
            } else if side == direction.sink() && cause != Cause::BrokenPipe {
                lane.doom();
                lane.source_ready();
            }
        }
        self.settle(pumped, cx)
    }

    /// The one place that judges whether a session is finished, half-open or
    /// aborted; called after each pump.
    fn settle(self, pumped: Pumped, cx: &mut Context<'_>) -> Stage {
        match self.phase {
            Phase::Relaying => {
                let failed = pumped
                    .failure
                    .filter(|f| f.cause != Cause::BrokenPipe)
                    .map(|f| f.side);
                let progress = cx.common.lanes.each_ref().map(Lane::progress);
                match (failed, progress) {
                    (Some(side), _) => self.flush(side, cx),
                    (None, [Progress::Finished, Progress::Finished]) => self.finish(cx),
                    (None, [up, down]) => {
                        if probe::mutated(Mutation::HalfCloseAsFullClose)
                            && (up == Progress::Finished || down == Progress::Finished)
                        {
                            return self.finish(cx);
                        }
                        // A side that takes no more and has said all: done with it.
                        if up == Progress::SinkFailed && over(down) {
                            self.leave(Side::Upstream, cx)
                        } else if down == Progress::SinkFailed && over(up) {
                            self.leave(Side::Client, cx)
                        } else {
                            self.stay()
                        }
                    }
                }
            }
            Phase::Flushing { gone } => self.settle_flushing(gone, cx),
            Phase::Lingering { left, .. } => {
                if cx.common.lane(left.outgoing()).source_ended() && pumped.failure.is_some() {
                    return Closing::close_all(self.name(), Close::Reset, cx);
                }
                self.stay()
            }
        }
    }

    fn finish(self, cx: &mut Context<'_>) -> Stage {
        end(Who::Both, Cause::Finished, cx);
        Closing::close_all(self.name(), Close::Orderly, cx)
    }

    /// `gone` has failed: nothing more goes to it, what it had delivered still
    /// goes to the other side.
    fn flush(self, gone: Side, cx: &mut Context<'_>) -> Stage {
        cx.lose_sink(gone.incoming());
        let mut flushing = self.enter(Phase::Flushing { gone });
        flushing.last_activity = cx.now;
        cx.common.lane_mut(gone.outgoing()).source_ready();
        if cx.pump(gone.outgoing()) {
            flushing.stay()
        } else {
            flushing.settle_flushing(gone, cx)
        }
    }

    fn settle_flushing(self, gone: Side, cx: &mut Context<'_>) -> Stage {
        match cx.common.lane(gone.outgoing()).progress() {
            Progress::Open | Progress::Ending | Progress::Flushing => self.stay(),
            Progress::SinkFailed => self.abort(gone, cx),
            Progress::Finished | Progress::SourceFailed => self.leave(gone, cx),
        }
    }

    /// Resets both sides because `gone` failed and the other cannot be served.
    fn abort(self, gone: Side, cx: &mut Context<'_>) -> Stage {
        end(Who::Peer(gone), Cause::Reset, cx);
        Closing::close_all(self.name(), Close::Reset, cx)
    }

    /// Closes one side for good and lingers over the other.
    fn leave(self, gone: Side, cx: &mut Context<'_>) -> Stage {
        end(Who::Peer(gone), Cause::Reset, cx);
        let left = gone.other();
        cx.lose_sink(left.outgoing());
        // To a peer that is there yet, an orderly end would claim completeness.
        let how = match cx.common.ending {
            Some(ending) if !ending.cause.is_fatal() => Close::Reset,
            _ => Close::Orderly,
        };
        cx.hang_up(gone, how);
        let mut lingering = self.enter(Phase::Lingering {
            left,
            step: LINGER_LOOK,
        });
        lingering.looked = cx.now;
        lingering.delivery.unsent[left.index()] = u32::MAX;
        lingering.delivery.since[left.index()] = cx.now;
        cx.pump(left.outgoing());
        cx.actions.push(Action::Look);
        lingering.stay()
    }

    fn look(mut self, unsent: [u32; 2], cx: &mut Context<'_>) -> Stage {
        self.take_note(unsent, cx.now);
        match self.phase {
            Phase::Relaying => self.expire(unsent, cx),
            Phase::Flushing { gone } => {
                let delivered = self.delivery.since[gone.other().index()];
                let patience = flush_patience(gone, cx.rules);
                let held_back = cx.common.lane(gone.outgoing()).is_held_back();
                if !held_back && cx.now >= self.last_activity.max(delivered) + patience {
                    return self.abort(gone, cx);
                }
                self.stay()
            }
            Phase::Lingering { left, step, .. } => {
                if self.delivery.unsent[left.index()] == 0 {
                    let how = linger_close(left, cx.common);
                    return Closing::close_all(self.name(), how, cx);
                }
                if cx.now >= self.delivery.since[left.index()] + cx.rules.deadlines.half_close {
                    return Closing::close_all(self.name(), Close::Orderly, cx);
                }
                let step = (step * 2).min(LINGER_LOOK_MAX);
                self.phase = Phase::Lingering { left, step };
                self.stay()
            }
        }
    }

    /// Ends a session that did not end by itself.
    pub(super) fn cut(
        self,
        who: Who,
        cause: Cause,
        unsent: [u32; 2],
        cx: &mut Context<'_>,
    ) -> Stage {
        end(who, cause, cx);
        Closing::cut(self.name(), cause, unsent, cx)
    }

    fn enter(self, phase: Phase) -> Self {
        let entered = Self { phase, ..self };
        probe::visit(self.name(), entered.name());
        entered
    }

    pub(super) const fn stay(self) -> Stage {
        Stage::Relaying(self)
    }

    pub(super) const fn name(self) -> &'static str {
        match self.phase {
            Phase::Relaying => "Relaying",
            Phase::Flushing { .. } => "Flushing",
            Phase::Lingering { .. } => "Lingering",
        }
    }
}

fn end(who: Who, cause: Cause, cx: &mut Context<'_>) {
    let stage = cx.common.data_stage();
    cx.common.end(stage, who, cause);
}

/// A leg that had both ends in good order is closed so; any other is told
/// by a reset that its peer failed.
fn linger_close(left: Side, common: &Common) -> Close {
    let told = common.lane(left.incoming()).progress() == Progress::Finished;
    if told && common.lane(left.outgoing()).source_ended() {
        Close::Orderly
    } else {
        Close::Reset
    }
}

fn flush_patience(gone: Side, rules: &Rules) -> Duration {
    match gone {
        Side::Client => FLUSH_PATIENCE.min(rules.deadlines.half_close),
        Side::Upstream => rules.deadlines.half_close,
    }
}

const fn over(progress: Progress) -> bool {
    matches!(
        progress,
        Progress::Finished | Progress::SourceFailed | Progress::SinkFailed
    )
}

const fn millis(count: u16) -> Duration {
    Duration::from_millis(count as u64)
}
