//! Sessions that wait because every server has as many as it may.
//!
//! First come, first served, on each reactor; reactors that share servers compete.

use std::time::Duration;

use super::Reactor;
use crate::engine::{Engine, SessionKey};
use crate::relay::ending::Cause;
use crate::relay::id::PoolId;
use crate::relay::session::Event as SessionEvent;
use crate::relay::time::Time;

/// A session's queue is served so often while somebody waits and no session of this
/// reactor ends: other reactors share the servers.
const QUEUE_LOOK: Duration = Duration::from_millis(5);

impl<E: Engine> Reactor<E> {
    /// Whether a session that has not waited yet has to: others did before it.
    pub(super) fn must_line_up(&mut self, key: SessionKey, upstream: PoolId) -> bool {
        let now = self.ctx.engine.now();
        let waited = self
            .ctx
            .sessions
            .get(key)
            .is_some_and(|entry| entry.session.has_waited());
        let upstream = &self.pools[upstream];
        let overtakes = !waited && !upstream.waiting.is_empty() && upstream.is_worth_a_try(now);
        if overtakes {
            // They all have their turn within this one.
            self.queue_due = now;
        }
        overtakes
    }

    pub(super) fn enqueue(&mut self, key: SessionKey, upstream: PoolId) -> SessionEvent {
        let now = self.ctx.engine.now();
        let sessions = &self.ctx.sessions;
        let upstream = &mut self.pools[upstream];
        let max = upstream.setup.queue as usize;
        if upstream.waiting.len() >= max {
            let waits =
                |key: &SessionKey| sessions.get(*key).is_some_and(|it| it.session.is_queued());
            upstream.waiting.retain(waits);
        }
        if upstream.waiting.len() >= max {
            self.ctx.counters.queue_full.add(1);
            return SessionEvent::NoServer(Cause::QueueFull);
        }
        upstream.waiting.push_back(key);
        let waited = sessions.get(key).is_some_and(|it| it.session.has_waited());
        self.ctx.counters.queued.add(u64::from(!waited));
        self.queue_due = self.queue_due.min(now + QUEUE_LOOK);
        SessionEvent::Queued
    }

    /// Whoever left the line while it stood still: nobody looks for room for him.
    fn forget_who_left(&mut self, upstream: PoolId) {
        let (sessions, upstream) = (&self.ctx.sessions, &mut self.pools[upstream]);
        while let Some(key) = upstream.waiting.front() {
            if sessions.get(*key).is_some_and(|it| it.session.is_queued()) {
                break;
            }
            upstream.waiting.pop_front();
        }
    }

    /// Lets sessions that wait have servers with room, in order.
    pub(super) fn serve_queues(&mut self) {
        let now = self.ctx.engine.now();
        if self.queue_due > now {
            return;
        }
        self.queue_due = Time::NEVER;
        for index in self.pools.ids() {
            // Who goes back in line, since another reactor was faster or he has tried
            // the one server with room, stands before those who had no turn.
            let mut waiting = std::mem::take(&mut self.pools[index].waiting);
            while self.pools[index].is_worth_a_try(now)
                && let Some(key) = waiting.pop_front()
            {
                let entry = self.ctx.sessions.get(key);
                if entry.is_some_and(|entry| entry.session.is_queued()) {
                    self.deliver(key, SessionEvent::Dequeued);
                }
            }
            let back = &mut self.pools[index].waiting;
            if back.is_empty() {
                // Nothing is copied.
                std::mem::swap(back, &mut waiting);
            }
            back.append(&mut waiting);
            self.forget_who_left(index);
            if !self.pools[index].waiting.is_empty() {
                self.queue_due = self.queue_due.min(now + QUEUE_LOOK);
            }
        }
    }
}
