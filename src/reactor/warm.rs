//! Connections made ahead: what becomes of them, and the spares that stand ready for
//! the next client (`warm`), so that a distant upstream's round trip is over before
//! anybody waits for it.
//!
//! ```text
//!   connecting ──► ready ──► handed to a client
//!       │            └─────► ended by the server, or too old: closed, replaced
//!       └─ failed: after a pause that doubles
//! ```
//! Invariants: a spare that the server has ended is never handed out (it is looked at
//! right before); what a server said first is still in its socket then. Spares that do
//! not live long pause their replacement, so that a server which ends idle connections
//! at once is not stormed.

use std::sync::Arc;
use std::time::Duration;

use super::context::{Ctx, Effect};
use super::destination::Destination;
use super::dialling::Dialler;
use super::sessions::{Ahead, Purpose};
use super::upstream::server::{Server, add};
use super::verdict;
use crate::balance::health::Admission;
use crate::balance::spares::PER_LOOK;
use crate::engine::{Engine, SessionKey, Start};
use crate::relay::Side;
use crate::relay::ending::Cause;
use crate::relay::id::{PoolId, ServerId};
use crate::relay::time::Time;

/// Between looks at spares that nobody takes.
const LOOK: Duration = Duration::from_secs(1);

/// Servers whose spares are looked at in one turn.
const LOOKS_PER_TURN: usize = 64;

/// A spare that has not connected by then is given up.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

impl Dialler {
    // Connections made ahead, rivals of a race among them.

    /// A connection made ahead stands.
    pub(super) fn ahead_connected<E: Engine>(&mut self, ctx: &mut Ctx<E>, key: SessionKey) {
        let now = ctx.engine.now();
        let Some(ahead) = ctx.sessions.ahead_mut(key).filter(|it| !it.closing) else {
            return;
        };
        match &mut ahead.purpose {
            Purpose::Rival { of, .. } => {
                let of = *of;
                match self.rival_won(ctx, key) {
                    Some((session, event)) => ctx.out.push_back(Effect::Concluded(session, event)),
                    None => ctx.out.push_back(Effect::Arm(of)),
                }
            }
            Purpose::Spare {
                upstream,
                connected,
            } => {
                *connected = true;
                // A server does not learn of the connection before: no client's bytes
                // come along for the ACK to ride on.
                ctx.engine.acknowledge(key, Side::Upstream);
                let index = *upstream;
                let Some(server) = ahead.destination.account().cloned() else {
                    return;
                };
                server.tally.connected(now.since(ahead.since));
                ahead.since = now;
                if let Some(list) = self.pools[index].spares.list(&server) {
                    list.connecting.retain(|it| *it != key);
                    list.ready.push(key);
                }
            }
        }
    }

    /// A connection made ahead could not be made.
    pub(super) fn ahead_failed<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        key: SessionKey,
        cause: Cause,
    ) {
        let Some(ahead) = ctx.sessions.ahead(key) else {
            return;
        };
        if ahead.closing {
            ctx.sessions.remove_ahead(key);
            return;
        }
        match ahead.purpose {
            Purpose::Rival { .. } => {
                let session = self.rival_failed(ctx, key, cause);
                ctx.sessions.remove_ahead(key);
                if let Some(session) = session
                    && let Some(event) = self.step_race(ctx, session)
                {
                    ctx.out.push_back(Effect::Concluded(session, event));
                } else if let Some(session) = session {
                    ctx.out.push_back(Effect::Arm(session));
                }
            }
            Purpose::Spare { upstream, .. } => {
                let server = ahead.destination.account().cloned();
                ctx.sessions.remove_ahead(key);
                if let Some(server) = server {
                    self.spare_failed(ctx, upstream, key, &server, cause);
                }
            }
        }
    }

    /// A connection made ahead is closed for good.
    pub(super) fn ahead_closed<E: Engine>(ctx: &mut Ctx<E>, key: SessionKey) {
        ctx.sessions.remove_ahead(key);
    }

    /// Something happened on a connection made ahead: its server may have ended it.
    pub(super) fn ahead_ready<E: Engine>(&mut self, ctx: &mut Ctx<E>, key: SessionKey) {
        let Some(ahead) = ctx.sessions.ahead(key) else {
            return;
        };
        if let Purpose::Spare {
            upstream,
            connected: true,
        } = ahead.purpose
            && !ahead.closing
            && !ctx.engine.is_fresh(key)
        {
            self.discard_spare(ctx, upstream, key);
        }
    }

    // Spares.

    /// Gives a session a connection to this server that stands already.
    pub(super) fn take_spare<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        session: SessionKey,
        upstream: PoolId,
        server: &Arc<Server>,
    ) -> bool {
        let (index, now) = (upstream, ctx.engine.now());
        if self.pools[index].setup.warm == 0 {
            return false;
        }
        loop {
            let list = self.pools[index].spares.list(server);
            let Some(spare) = list.and_then(|list| list.ready.pop()) else {
                return false;
            };
            self.warm.set((index, server.settings().id), now);
            if self.is_worn(ctx, index, spare) {
                self.discard_spare(ctx, index, spare);
                continue;
            }
            let handed_over = ctx.engine.hand_over(spare, session);
            ctx.sessions.remove_ahead(spare);
            if handed_over {
                if let Some(list) = self.pools[index].spares.list(server) {
                    list.plan.used();
                }
                add(&server.tally.warm_used, 1);
                return true;
            }
        }
    }

    /// Too old, or ended by its server.
    fn is_worn<E: Engine>(&self, ctx: &Ctx<E>, upstream: PoolId, spare: SessionKey) -> bool {
        let max_age = self.pools[upstream].setup.warm_max_age;
        let ahead = ctx.sessions.ahead(spare);
        let young = ahead.is_some_and(|it| ctx.engine.now().since(it.since) < max_age);
        !young || !ctx.engine.is_fresh(spare)
    }

    /// A ready spare is of no use any more.
    fn discard_spare<E: Engine>(&mut self, ctx: &mut Ctx<E>, upstream: PoolId, spare: SessionKey) {
        let now = ctx.engine.now();
        let max_age = self.pools[upstream].setup.warm_max_age;
        if let Some(ahead) = ctx.sessions.ahead(spare)
            && let Some(server) = ahead.destination.account().cloned()
        {
            let age = now.since(ahead.since);
            add(&server.tally.warm_stale, 1);
            if let Some(list) = self.pools[upstream].spares.list(&server) {
                list.forget(spare);
                list.plan.worn(age, max_age, now);
            }
            self.warm.set((upstream, server.settings().id), now);
        }
        Self::close_ahead(ctx, spare);
    }

    fn spare_failed<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        upstream: PoolId,
        spare: SessionKey,
        server: &Arc<Server>,
        cause: Cause,
    ) {
        let now = ctx.engine.now();
        ctx.counters.connect_failures.add(1);
        if let Some(list) = self.pools[upstream].spares.list(server) {
            list.forget(spare);
            list.plan.failed(now);
        }
        if cause.is_local_shortage() {
            let destination = Destination::Server(server.clone());
            Self::short_of(ctx, cause, &destination, None, Admission::Free);
        } else {
            server.tally.failed(cause);
            verdict::blame(ctx, server, Admission::Free, cause);
        }
    }

    /// Replaces what was taken or has worn out, of those servers whose time has come.
    pub(super) fn keep_warm<E: Engine>(&mut self, ctx: &mut Ctx<E>, starved: bool) {
        let now = ctx.engine.now();
        if now < self.warm_due() {
            return;
        }
        if starved {
            // Descriptors are for clients first.
            self.warm_pause = now + LOOK;
            return;
        }
        for _ in 0..LOOKS_PER_TURN {
            let Some((pool, server)) = self.warm.pop(now) else {
                return;
            };
            self.look_at_spares(ctx, pool, server, now);
        }
    }

    /// When spares are looked at next.
    pub(super) fn warm_due(&self) -> Time {
        self.warm.next().max(self.warm_pause)
    }

    /// The spares of a pool's servers are looked at soon.
    pub(super) fn warm_up(&mut self, pool: PoolId) {
        for server in self.pools[pool].spares.servers() {
            self.warm.set((pool, server), Time::ZERO);
        }
    }

    fn look_at_spares<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        pool: PoolId,
        id: ServerId,
        now: Time,
    ) {
        // One that is in the pool no more is looked at no more.
        let upstream = self.pools.get_mut(pool);
        let Some(list) = upstream.and_then(|it| it.spares.lists.get(&id)) else {
            return;
        };
        let (server, ready) = (list.server.clone(), list.ready.clone());
        let late = |key: &SessionKey| {
            let ahead = ctx.sessions.ahead(*key);
            ahead.is_none_or(|it| now.since(it.since) >= CONNECT_PATIENCE)
        };
        let late: Vec<_> = list.connecting.iter().copied().filter(late).collect();
        for spare in late {
            self.spare_failed(ctx, pool, spare, &server, Cause::ConnectTimeout);
            Self::close_ahead(ctx, spare);
        }
        // A host that has lost its power ends nothing: what stood before it was
        // found to be down is worth nothing after.
        let doubtful = !server.standing.is_up() || server.standing.is_marked();
        for spare in ready {
            if doubtful || self.is_worn(ctx, pool, spare) {
                self.discard_spare(ctx, pool, spare);
            }
        }
        let more = self.fill_up(ctx, pool, &server, now);
        // More are for the next turn: clients wait meanwhile.
        let next = if more { now } else { now + LOOK };
        self.warm.put_off((pool, id), next);
    }

    /// Makes as many spares as are missing, as far as one turn goes; whether more are.
    fn fill_up<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        pool: PoolId,
        server: &Arc<Server>,
        now: Time,
    ) -> bool {
        let wanted = self.pools[pool].setup.warm as usize;
        for _ in 0..PER_LOOK {
            let Some(list) = self.pools[pool].spares.list(server) else {
                return false;
            };
            let there_are = list.ready.len() + list.connecting.len();
            let standing = &server.standing;
            let usable = standing.is_up() && !standing.is_marked() && !standing.is_full(now);
            if !usable || list.plan.missing(wanted, there_are, now) == 0 {
                return false;
            }
            let ahead = Ahead {
                purpose: Purpose::Spare {
                    upstream: pool,
                    connected: false,
                },
                destination: Destination::Server(server.clone()),
                since: now,
                closing: false,
                seat: None,
                _place: None,
            };
            let Some(spare) = ctx.sessions.insert_ahead(ahead) else {
                return false;
            };
            list.connecting.push(spare);
            let destination = Destination::Server(server.clone());
            let start = self.connect(ctx, pool, &destination, None, |engine, target| {
                engine.connect_ahead(spare, target)
            });
            match start {
                Start::Pending => {}
                Start::Done(Ok(())) => self.ahead_connected(ctx, spare),
                Start::Done(Err(cause)) => {
                    ctx.sessions.remove_ahead(spare);
                    self.spare_failed(ctx, pool, spare, server, cause);
                }
            }
        }
        true
    }

    /// Closes every spare: their descriptors are wanted, or the end is near.
    pub(super) fn drop_spares<E: Engine>(&mut self, ctx: &mut Ctx<E>) {
        for id in self.pools.ids() {
            for spare in self.pools[id].spares.take_all() {
                Self::close_ahead(ctx, spare);
            }
        }
        self.warm_pause = ctx.engine.now() + LOOK;
    }
}
