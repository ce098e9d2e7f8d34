//! Moving bytes: a lane at once when an event says that it can, or in its turn. What bulk
//! waits for is the run queue's to say; what a client may still move, that of its rates.

use super::destination::Destination;
use super::ends::RESET_SOON;
use super::run_queue::EVENT_BYTES;
use super::{Reactor, rates, verdict};
use crate::engine::{Datagrams, SessionKey};
use crate::observe::notice::Notice;
use crate::relay::Direction;
use crate::relay::lane::Fallback;
use crate::relay::probe::{self, Mutation};
use crate::relay::session::{Action, Event as SessionEvent, Session};
use crate::relay::time::Time;

impl<E: Datagrams> Reactor<E> {
    /// Moves what a lane can, unless others go first.
    pub(super) fn pump(&mut self, key: SessionKey, direction: Direction) -> Option<SessionEvent> {
        let now = self.ctx.engine.now();
        let entry = self.ctx.sessions.get_mut(key)?;
        if !entry.session.wants_pump(direction) {
            return None;
        }
        let queued = 1 << direction.index();
        let lane = entry.session.lane_mut(direction);
        let has_turn = self.run_queue.takes_turn(key, direction);
        if !has_turn && (entry.queued & queued != 0 || lane.is_bulk()) {
            // Those with little to say go first.
            if entry.queued & queued == 0 {
                entry.queued |= queued;
                self.run_queue.push(key, direction);
            }
            return None;
        }
        let budget = if has_turn {
            self.run_queue.lane_bytes()
        } else {
            self.run_queue.passed_by();
            EVENT_BYTES
        };
        let (read, written) = (lane.bytes_in(), lane.bytes_out());
        let (budget, metered) = rates::allowance(entry, direction, budget, now, &self.ctx.counters);
        let engine = &self.ctx.engine;
        let spare = self.ctx.pressure.may_hold(key, entry, || engine.holdings());
        self.ctx.engine.may_hold(spare);
        let lane = entry.session.lane_mut(direction);
        let pumped = self.ctx.engine.pump(key, direction, lane, budget);
        let filled = lane.bytes_in() - read;
        if has_turn {
            let drained = lane.bytes_out().saturating_sub(written);
            self.run_queue.has_moved(drained.max(filled));
        }
        self.ctx.pressure.note(key, entry);
        if metered {
            rates::flowed(entry, direction, filled, now, &self.ctx.counters);
        }
        let lane = entry.session.lane(direction);
        self.ctx.counters.bytes_read.add(lane.bytes_in() - read);
        let bytes = match direction {
            Direction::Up => &self.ctx.counters.bytes_up,
            Direction::Down => &self.ctx.counters.bytes_down,
        };
        // An engine may take back what it reported as written: see `Lane::undrained`.
        bytes.add(lane.bytes_out().wrapping_sub(written));
        if lane.fallback() == Some(Fallback::Unsupported) && !self.splice_given_up {
            self.splice_given_up = true;
            let reactor = self.ctx.reactor;
            self.ctx.log.notice(Notice::SpliceRefused { reactor });
        }
        let has_begun = match direction {
            Direction::Up => written == 0 && lane.bytes_out() > 0,
            Direction::Down => read == 0 && lane.bytes_in() > 0,
        };
        let arrived = direction == Direction::Down && lane.bytes_in() > 0;
        let listens = direction == Direction::Up
            && lane.bytes_out() > written
            && pumped.failure.is_none()
            && is_settled(&entry.session, now);
        let proves = entry.unproven && (arrived || listens);
        entry.unproven &= !proves;
        let dropped = probe::mutated(Mutation::DroppedEdgeAfterBudget);
        if pumped.more && entry.queued & queued == 0 && !dropped {
            entry.queued |= queued;
            self.run_queue.push(key, direction);
            self.ctx.counters.budget_ends.add(1);
        }
        let server = entry.destination.as_ref().and_then(Destination::account);
        if proves && let Some(server) = server.cloned() {
            let admission = entry.admission;
            verdict::praise(&mut self.ctx, &server, admission);
        }
        if has_begun {
            self.has_begun(key, direction);
        }
        Some(SessionEvent::Pumped { direction, pumped })
    }

    /// Lanes that wait have their turns, as many as a share of all of them allows.
    pub(super) fn run_queued(&mut self) {
        if self.run_queue.is_empty() {
            return;
        }
        self.ctx.engine.pass_on();
        self.run_queue.start_turn(self.ctx.engine.since_wait());
        while let Some((key, direction)) = self.run_queue.next(|| self.ctx.engine.since_wait()) {
            let Some(entry) = self.ctx.sessions.get_mut(key) else {
                continue;
            };
            entry.queued &= !(1 << direction.index());
            let mut actions = std::mem::take(&mut self.actions);
            actions.clear();
            actions.push(Action::Pump(direction));
            self.carry_out(key, &mut actions);
            self.actions = actions;
            self.run_queue.end_of_turn();
        }
    }
}

/// Whether the connect is some time ago: a server that only listens, and takes bytes
/// then, has no other way to show that it is well.
fn is_settled(session: &Session, now: Time) -> bool {
    let connected = session.connect_time().map(|it| session.started() + it);
    connected.is_some_and(|at| now.since(at) >= RESET_SOON)
}
