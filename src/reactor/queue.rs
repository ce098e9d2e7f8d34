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
        let overtakes = !waited && !upstream.line.is_empty() && upstream.is_worth_a_try(now);
        if overtakes {
            // They all have their turn within this one.
            self.queue_due = now;
        }
        overtakes
    }

    pub(super) fn enqueue(&mut self, key: SessionKey, upstream: PoolId) -> SessionEvent {
        let now = self.ctx.engine.now();
        let sessions = &mut self.ctx.sessions;
        let pool = &mut self.pools[upstream];
        let max = pool.setup.queue as usize;
        let waits = |key: &SessionKey| sessions.get(*key).is_some_and(|it| it.in_line);
        if !pool.line.join(key, max, waits) {
            self.ctx.counters.queue_full.add(1);
            return SessionEvent::NoServer(Cause::QueueFull);
        }
        if let Some(entry) = sessions.get_mut(key) {
            entry.in_line = true;
            let waited = entry.session.has_waited();
            self.ctx.counters.queued.add(u64::from(!waited));
        }
        self.pools.with_line.insert(upstream);
        self.queue_due = self.queue_due.min(now + QUEUE_LOOK);
        SessionEvent::Queued
    }

    /// Lets sessions that wait have servers with room, in order. Looks at those pools
    /// only where somebody waits.
    pub(super) fn serve_queues(&mut self) {
        let now = self.ctx.engine.now();
        if self.queue_due > now {
            return;
        }
        self.queue_due = Time::NEVER;
        for id in std::mem::take(&mut self.pools.with_line) {
            let mut turn = self.pools[id].line.begin();
            while self.pools[id].is_worth_a_try(now) {
                let sessions = &self.ctx.sessions;
                // Who is leaving is in line until he is gone.
                let waits = |key: &SessionKey| {
                    let entry = sessions.get(*key);
                    entry.is_some_and(|it| it.in_line && it.session.is_queued())
                };
                let Some(key) = self.pools[id].line.next(&mut turn, waits) else {
                    break;
                };
                if let Some(entry) = self.ctx.sessions.get_mut(key) {
                    entry.in_line = false;
                }
                // Who goes back in line, since another reactor was faster or he has tried
                // the one server with room, stands before those who had no turn.
                self.deliver(key, SessionEvent::Dequeued);
            }
            let line = &mut self.pools[id].line;
            line.end(turn);
            if !line.is_empty() {
                self.pools.with_line.insert(id);
                self.queue_due = self.queue_due.min(now + QUEUE_LOOK);
            }
        }
    }
}
