//! A session whose client says where to go: the phases before it dials, the answer,
//! and how it parts from a client that it turns away.
//!
//! The request is taken off the client's socket to its last byte and no further: what
//! follows is payload, and waits there for the lanes.

use std::time::Duration;

use super::{Action, Answered, Close, Phase, Rules, Session};
use crate::relay::ending::{Cause, Who};
use crate::relay::time::Time;
use crate::relay::{Direction, Side};

/// How long finding out where a request may go may take: the resolver has a deadline
/// of ten seconds of its own, and says by then which it is.
const CONSULT_PATIENCE: Duration = Duration::from_secs(12);

/// How long a client may take none of a short answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// How long a client that was turned away may go on sending before it is cut off.
/// nginx gives `lingering_timeout` 5 s; a client that has read its answer ends at once.
const PARTING_PATIENCE: Duration = Duration::from_secs(2);

impl Session {
    /// Waits for the request, `patience` in all.
    pub(super) fn sniff(&mut self, patience: Duration, now: Time, actions: &mut Vec<Action>) {
        self.phase = Phase::Sniffing {
            deadline: now + patience,
        };
        // It may have come with the connection.
        actions.push(Action::Listen);
    }

    pub(super) fn requested(&mut self, now: Time, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Sniffing { .. }) {
            self.enter(Phase::Consulting {
                deadline: now + CONSULT_PATIENCE,
            });
            actions.push(Action::Consult);
        }
    }

    /// The client gave up before it had asked for anything.
    pub(super) fn vanished(&mut self, cause: Cause, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Sniffing { .. }) {
            self.end(Who::Peer(Side::Client), cause);
            self.close_all(Close::Orderly, actions);
        }
    }

    pub(super) fn admitted(&mut self, now: Time, rules: &Rules, actions: &mut Vec<Action>) {
        if self.is_consulting() {
            self.dial(0, rules, now, actions);
        }
    }

    pub(super) fn rejected(&mut self, cause: Cause, now: Time, actions: &mut Vec<Action>) {
        if matches!(
            self.phase,
            Phase::Sniffing { .. } | Phase::Consulting { .. }
        ) {
            let who = match cause {
                Cause::NameFailed | Cause::NameTimeout => Who::Peer(Side::Upstream),
                _ => Who::Forwarder,
            };
            self.end(who, cause);
            self.refuse(now, actions);
        }
    }

    /// The upstream stands: the client is told before a byte of it arrives.
    pub(super) fn greet(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.enter(Phase::Greeting {
            deadline: now + ANSWER_PATIENCE,
        });
        actions.push(Action::Answer);
    }

    /// The client is told why not; the reason is known by now.
    pub(super) fn refuse(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.hang_up(Side::Upstream, Close::Reset, actions);
        self.enter(Phase::Refusing {
            deadline: now + ANSWER_PATIENCE,
        });
        actions.push(Action::Answer);
    }

    pub(super) fn answered(&mut self, answered: Answered, now: Time, actions: &mut Vec<Action>) {
        match (self.phase, answered) {
            (Phase::Greeting { .. }, Answered::Whole) => self.relay(now, actions),
            (Phase::Refusing { .. }, Answered::Whole) => self.part(now, actions),
            (Phase::Greeting { .. } | Phase::Refusing { .. }, Answered::Failed(cause)) => {
                self.end(Who::Peer(Side::Client), cause);
                self.close_all(Close::Reset, actions);
            }
            // Readiness says when to go on; in any other phase it came too late.
            _ => {}
        }
    }

    /// Ends towards the client, and drops what it still sends.
    fn part(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.enter(Phase::Parting {
            deadline: now + PARTING_PATIENCE,
        });
        actions.push(Action::Conclude);
        self.lane_mut(Direction::Up).sink_failed();
        self.lane_mut(Direction::Up).source_ready();
        self.pump_if_wanted(Direction::Up, actions);
    }

    /// The deadline of a phase before or instead of relaying has passed.
    pub(super) fn request_expired(&mut self, now: Time, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Sniffing { .. } => {
                self.end(Who::Peer(Side::Client), Cause::RequestTimeout);
                self.refuse(now, actions);
            }
            Phase::Consulting { .. } => {
                self.end(Who::Peer(Side::Upstream), Cause::NameTimeout);
                self.refuse(now, actions);
            }
            Phase::Parting { .. } => self.close_all(Close::Orderly, actions),
            _ => {
                self.end(Who::Peer(Side::Client), Cause::WriteStall);
                self.close_all(Close::Reset, actions);
            }
        }
    }
}
