//! Sessions that wait because every server has as many as it may.
//!
//! First come, first served, on each reactor; reactors that share servers compete.

use std::collections::BTreeSet;
use std::time::Duration;

use super::context::Ctx;
use super::dialling::Dialler;
use crate::balance::line;
use crate::engine::{Engine, SessionKey};

use crate::relay::ending::Cause;
use crate::relay::id::PoolId;
use crate::relay::session::Event as SessionEvent;
use crate::relay::time::Time;

/// A session's queue is served so often while somebody waits and no session of this
/// reactor ends: other reactors share the servers.
const QUEUE_LOOK: Duration = Duration::from_millis(5);

impl Dialler {
    /// Whether a session that has not waited yet has to: others did before it.
    pub(super) fn must_line_up<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        key: SessionKey,
        upstream: PoolId,
    ) -> bool {
        let now = ctx.engine.now();
        let waited = ctx
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

    pub(super) fn enqueue<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        key: SessionKey,
        upstream: PoolId,
    ) -> SessionEvent {
        let now = ctx.engine.now();
        let sessions = &mut ctx.sessions;
        let pool = &mut self.pools[upstream];
        let max = pool.setup.queue as usize;
        let waits = |key: &SessionKey| sessions.get(*key).is_some_and(|it| it.in_line);
        if !pool.line.join(key, max, waits) {
            ctx.counters.queue_full.add(1);
            return SessionEvent::NoServer(Cause::QueueFull);
        }
        if let Some(entry) = sessions.get_mut(key) {
            entry.in_line = true;
            let waited = entry.session.has_waited();
            ctx.counters.queued.add(u64::from(!waited));
        }
        self.pools.with_line.insert(upstream);
        self.queue_due = self.queue_due.min(now + QUEUE_LOOK);
        SessionEvent::Queued
    }

    /// The pools where somebody may wait, if it is time to look at them.
    pub(super) fn lines_due(&mut self, now: Time) -> BTreeSet<PoolId> {
        if self.queue_due > now {
            return BTreeSet::new();
        }
        self.queue_due = Time::NEVER;
        std::mem::take(&mut self.pools.with_line)
    }

    /// Begins to let those who wait at a pool have servers with room, in order.
    pub(super) fn begin_line(&mut self, pool: PoolId) -> line::Turn<SessionKey> {
        self.pools[pool].line.begin()
    }

    /// Who is next to ask again; nobody while no server has room.
    pub(super) fn next_in_line<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        pool: PoolId,
        turn: &mut line::Turn<SessionKey>,
    ) -> Option<SessionKey> {
        let upstream = &mut self.pools[pool];
        if !upstream.is_worth_a_try(ctx.now()) {
            return None;
        }
        // Who is leaving is in line until he is gone.
        let waits = |key: &SessionKey| {
            let entry = ctx.sessions.get(*key);
            entry.is_some_and(|it| it.in_line && it.session.is_queued())
        };
        let key = upstream.line.next(turn, waits)?;
        if let Some(entry) = ctx.sessions.get_mut(key) {
            entry.in_line = false;
        }
        Some(key)
    }

    /// Who went back in line, since another reactor was faster or he has tried the one
    /// server with room, stands before those who had no turn.
    pub(super) fn end_line(&mut self, pool: PoolId, turn: line::Turn<SessionKey>, now: Time) {
        let line = &mut self.pools[pool].line;
        line.end(turn);
        if !line.is_empty() {
            self.pools.with_line.insert(pool);
            self.queue_due = self.queue_due.min(now + QUEUE_LOOK);
        }
    }
}
