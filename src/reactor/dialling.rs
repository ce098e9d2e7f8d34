//! Getting a session its server: the choice, the connect or the race of several, what
//! failed so far, and the wait for a server that has room.
//!
//! ```text
//! Action::Dial ─► decided upon: connect to the destinations, or race them
//!              └► choose ─┬─► spare at hand ───────────────► Connected
//!                         ├─► one address: connect ────────► Connected | ConnectFailed
//!                         ├─► several: race them ──────────► Connected | ConnectFailed
//!                         ├─► all full: wait in the queue ─► Queued … Dequeued
//!                         └─► nobody left ─────────────────► NoServer
//! ```
//! Invariants: a session counts as active at one server at the most, and each rival
//! of its race at that rival's; what was counted is given back exactly once
//! ([`Dialler::release`]). A rival outlives neither its race nor its session.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Forward;
use super::attempts::Dialling;
use super::clients::ClientGrant;
use super::context::{Ctx, Effect};
use super::destination::Destination;
use super::gate::Gate;
use super::let_in::denied_at_servers;
use super::loops::Loops;
use super::upstream::pass::{Comer, Pass};
use super::upstream::server::{Server, ServerSet, add};
use super::upstream::{Choice, Pools, UpstreamSetup};
use super::verdict;
use crate::balance::agenda::Agenda;
use crate::balance::health::Admission;
use crate::engine::{Engine, SessionKey, Start, Target};
use crate::net::address::Endpoint;
use crate::net::dial::Local;
use crate::net::options::Family;
use crate::net::options::plan::Stage;
use crate::net::own::OwnListeners;
use crate::observe::notice::{Kind, Notice, ServerName, Subject};
use crate::relay::ending::Cause;
use crate::relay::id::{PoolId, ServerId};
use crate::relay::session::Event as SessionEvent;
use crate::relay::time::Time;

/// The part of a reactor that gets sessions their servers: its pools, who waits for one of
/// their servers, and the connections that are made ahead.
#[derive(Debug)]
pub(super) struct Dialler {
    pub(super) pools: Pools,
    /// When sessions that wait for a server with room are looked at.
    pub(super) queue_due: Time,
    /// Whose spares are looked at when.
    pub(super) warm: Agenda<(PoolId, ServerId)>,
    /// But none before.
    pub(super) warm_pause: Time,
    /// The header that was written last; reused, so that none allocates.
    pub(super) header: Vec<u8>,
    loops: Loops,
    /// Who has the descriptors of rivals.
    pub(super) gate: Arc<Gate>,
}

impl Dialler {
    pub(super) fn new(
        pools: BTreeMap<PoolId, UpstreamSetup>,
        own: Arc<OwnListeners>,
        gate: Arc<Gate>,
        reactor: u16,
    ) -> Self {
        let mut dialler = Self {
            pools: Pools::new(pools, reactor),
            queue_due: Time::NEVER,
            warm: Agenda::new(),
            warm_pause: Time::ZERO,
            header: Vec::new(),
            loops: Loops::new(own),
            gate,
        };
        for pool in dialler.pools.ids() {
            dialler.warm_up(pool);
        }
        dialler
    }

    /// Another set of servers for a pool; running sessions stay where they are.
    pub(super) fn replace_servers<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        pool: PoolId,
        set: Arc<ServerSet>,
    ) {
        let Some(replaced) = self.pools.get_mut(pool) else {
            return;
        };
        for spare in replaced.replace(set) {
            Self::close_ahead(ctx, spare);
        }
        self.queue_due = Time::ZERO;
        self.warm_up(pool);
    }

    /// A pool that is new, or another one in its place: its line and its spares stay.
    pub(super) fn change_pool<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        id: PoolId,
        setup: UpstreamSetup,
    ) {
        if let Some(pool) = self.pools.get_mut(id) {
            for spare in pool.change(setup) {
                Self::close_ahead(ctx, spare);
            }
        } else {
            self.pools.insert(id, setup, ctx.reactor);
        }
        self.queue_due = Time::ZERO;
        self.warm_up(id);
    }

    /// No forward and no session has any use for a pool any more.
    pub(super) fn forget_pool<E: Engine>(&mut self, ctx: &mut Ctx<E>, id: PoolId) {
        for spare in self.pools.remove(id) {
            Self::close_ahead(ctx, spare);
        }
    }

    /// Carries out `Action::Dial`.
    pub(super) fn dial<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        key: SessionKey,
    ) -> Option<SessionEvent> {
        let now = ctx.engine.now();
        let entry = ctx.sessions.get_mut(key)?;
        let index = entry.listener.forward.pool;
        if let Some(opened) = entry.aside.opened_mut()
            && opened.is_aimed(&entry.listener.forward)
        {
            let destinations = opened.take_destinations().into_vec();
            return self.dial_all(ctx, key, index, destinations);
        }
        if self.must_line_up(ctx, key, index) {
            return Some(self.enqueue(ctx, key, index));
        }
        let entry = ctx.sessions.get_mut(key)?;
        let client = entry.client.get();
        let upstream = &mut self.pools[index];
        let failures = entry.aside.dialling().map(|it| it.failures.as_slice());
        let tried = upstream.tried(failures.unwrap_or_default());
        let mut choice = upstream.choose(Comer::new(&client), &tried, now);
        if matches!(choice, Choice::Enough) {
            let at = entry.listener.clone();
            denied_at_servers(ctx, &at.forward, &client);
            if !at.forward.is_dry_run() {
                return Some(SessionEvent::NoServer(Cause::ClientLimit));
            }
            choice = upstream.choose(Comer::unlimited(&client), &tried, now);
        }
        match choice {
            Choice::Member(at, pass) => {
                let server = upstream.setup.set.members[usize::from(at)].server.clone();
                let raced = upstream.setup.set.is_raced(at);
                let rivals = if raced {
                    upstream.setup.set.rivals(at, &tried, now)
                } else {
                    Vec::new()
                };
                self.go_to(ctx, key, index, server, pass, rivals)
            }
            Choice::Full => Some(self.enqueue(ctx, key, index)),
            // Nobody is limited who is not.
            Choice::Nowhere | Choice::Enough => {
                let entry = ctx.sessions.get_mut(key)?;
                let last = entry.aside.dialling().and_then(Dialling::last_cause);
                if last.is_none() {
                    let forward = entry.listener.forward.clone();
                    let subject = Subject::Forward(forward.id);
                    ctx.complain(Kind::NoServer, subject, || Notice::NoServer {
                        forward: forward.name.clone(),
                    });
                }
                Some(SessionEvent::NoServer(last.unwrap_or(Cause::NoServer)))
            }
        }
    }

    fn go_to<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        key: SessionKey,
        upstream: PoolId,
        server: Arc<Server>,
        pass: Pass,
        rivals: Vec<Arc<Server>>,
    ) -> Option<SessionEvent> {
        if self.take_spare(ctx, key, upstream, &server) {
            Self::settle_on(ctx, key, Destination::Server(server), pass, true);
            self.apply_connected(ctx, key);
            return Some(SessionEvent::Connected);
        }
        if rivals.len() > 1 {
            let rivals = rivals.into_iter().map(Destination::Server).collect();
            return self.start_race(ctx, key, rivals, pass);
        }
        self.connect_alone(ctx, key, upstream, &Destination::Server(server), pass)
    }

    /// Dials what was decided upon, of which each is an address of the same target: the
    /// first that connects is taken.
    fn dial_all<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        key: SessionKey,
        upstream: PoolId,
        destinations: Vec<Destination>,
    ) -> Option<SessionEvent> {
        match destinations.as_slice() {
            [] => Some(SessionEvent::NoServer(Cause::NoServer)),
            [only] => self.connect_alone(ctx, key, upstream, only, Pass::FREE),
            _ => self.start_race(ctx, key, destinations, Pass::FREE),
        }
    }

    /// Connects to one destination, without a rival.
    fn connect_alone<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        key: SessionKey,
        upstream: PoolId,
        destination: &Destination,
        pass: Pass,
    ) -> Option<SessionEvent> {
        Self::settle_on(ctx, key, destination.clone(), pass, false);
        let start = self.connect(ctx, upstream, destination, Some(key), |engine, target| {
            engine.connect(key, target)
        });
        match start {
            Start::Pending => None,
            Start::Done(Ok(())) => {
                if let Some(server) = destination.account() {
                    server.tally.connected(Duration::ZERO);
                }
                self.apply_connected(ctx, key);
                Some(SessionEvent::Connected)
            }
            Start::Done(Err(cause)) => {
                self.connect_failed_at(ctx, key, cause);
                Some(SessionEvent::ConnectFailed(cause))
            }
        }
    }

    /// Where a session is, and how it was admitted there.
    pub(super) fn settle_on<E: Engine>(
        ctx: &mut Ctx<E>,
        key: SessionKey,
        destination: Destination,
        pass: Pass,
        warm: bool,
    ) {
        if let Some(entry) = ctx.sessions.get_mut(key) {
            let buckets = destination.account().and_then(|it| it.buckets());
            let dry_run = entry.listener.forward.is_dry_run();
            ClientGrant::settle_at(&mut entry.grant, pass.place, buckets, dry_run);
            entry.destination = Some(destination);
            entry.admission = pass.admission;
            entry.warm = warm;
        }
    }

    /// Starts one connect for a client, if it is for any, from each of the local
    /// addresses in turn while they have no port left.
    pub(super) fn connect<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        upstream: PoolId,
        destination: &Destination,
        session: Option<SessionKey>,
        start: impl Fn(&mut E, Target<'_>) -> Start<Result<(), Cause>>,
    ) -> Start<Result<(), Cause>> {
        ctx.counters.connects.add(1);
        if let Some(server) = destination.account() {
            add(&server.tally.connects, 1);
        }
        let endpoint = destination.endpoint();
        let client = session.and_then(|key| ctx.sessions.get(key));
        if let Some(owner) = self.loops.closed_by(upstream, endpoint, ctx.engine.now()) {
            let forward = client.map(|entry| entry.listener.forward.clone());
            let forward = forward.as_deref();
            let subject = subject(destination, forward);
            ctx.complain(Kind::ForwardLoop, subject, || Notice::ForwardLoop {
                server: name(destination, forward),
                forward: owner.forward.clone(),
            });
            return Start::Done(Err(Cause::SelfConnect));
        }
        let client = &client.map_or(Endpoint::Unnamed, |entry| entry.client.get());
        let upstream = &mut self.pools[upstream];
        let mut started = Start::Done(Err(Cause::NoSource));
        for _ in 0..upstream.sources(endpoint) {
            let Some(local) = upstream.local(endpoint, client) else {
                break;
            };
            started = start(&mut ctx.engine, upstream.target(endpoint, local));
            let short = |it| started == Start::Done(Err(it));
            if !short(Cause::PortsExhausted) && !short(Cause::NoSource) {
                break;
            }
        }
        started
    }

    pub(super) fn apply_connected<E: Engine>(&mut self, ctx: &mut Ctx<E>, key: SessionKey) {
        let Some(entry) = ctx.sessions.get(key) else {
            return;
        };
        let forward = &entry.listener.forward;
        let upstream = &self.pools[forward.pool];
        let Some(destination) = &entry.destination else {
            return;
        };
        let options = &upstream.setup.options;
        if !options.is_empty(Stage::AfterConnect, Family::of(destination.endpoint())) {
            let target = upstream.target(destination.endpoint(), Local::Plan);
            ctx.engine.apply_connected(key, target);
        }
    }

    /// How long the connect took, of a session whose first server answered and that
    /// did not wait for it: nothing else is in the time since its accept.
    pub(super) fn time_connect<E: Engine>(ctx: &mut Ctx<E>, key: SessionKey) {
        if let Some(entry) = ctx.sessions.get(key)
            && entry.aside.dialling().is_none()
            && !entry.session.has_waited()
            && entry.aside.opened().is_none()
            && let Some(server) = entry.destination.as_ref().and_then(Destination::account)
            && let Some(took) = entry.session.connect_time()
        {
            server.tally.connected(took);
        }
    }

    // Failures.

    /// The connect of a session failed, by `cause`.
    pub(super) fn connect_failed_at<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        key: SessionKey,
        cause: Cause,
    ) {
        let Some(entry) = ctx.sessions.get_mut(key) else {
            return;
        };
        let (Some(destination), admission) = (entry.destination.take(), entry.admission) else {
            return;
        };
        ClientGrant::settle_at(&mut entry.grant, None, None, false);
        Self::count_connect_failure(ctx, key, &destination, admission, cause);
        self.release(ctx, &destination);
    }

    /// Counts a failed attempt, blames the server unless this machine is short of
    /// something, and remembers it for the session.
    pub(super) fn count_connect_failure<E: Engine>(
        ctx: &mut Ctx<E>,
        key: SessionKey,
        destination: &Destination,
        admission: Admission,
        cause: Cause,
    ) {
        ctx.counters.connect_failures.add(1);
        let mut listener = None;
        if let Some(entry) = ctx.sessions.get_mut(key) {
            let dialling = entry.aside.dialling_or_new();
            dialling.failures.push((destination.clone(), cause));
            listener = Some(entry.listener.clone());
        }
        let forward = listener.as_deref().map(|it| &*it.forward);
        if cause.is_local_shortage() {
            Self::short_of(ctx, cause, destination, forward, admission);
        } else if let Some(server) = destination.account() {
            server.tally.failed(cause);
            verdict::blame(ctx, server, admission, cause);
        } else {
            let subject = subject(destination, forward);
            ctx.complain(Kind::ConnectFailed, subject, || Notice::ConnectFailed {
                server: name(destination, forward),
                cause,
            });
        }
    }

    /// A connect failed for want of something here: never the server's fault.
    pub(super) fn short_of<E: Engine>(
        ctx: &mut Ctx<E>,
        cause: Cause,
        destination: &Destination,
        forward: Option<&Forward>,
        admission: Admission,
    ) {
        let now = ctx.engine.now();
        ctx.counters.connect_shortages.add(1);
        destination.abandoned(admission, now);
        if matches!(cause, Cause::NoDescriptors | Cause::NoMemory) {
            // Whoever is let in now would be turned away as well.
            ctx.out.push_back(Effect::Starved);
        }
        let subject = subject(destination, forward);
        ctx.complain(Kind::ConnectShortage, subject, || Notice::ConnectShortage {
            server: name(destination, forward),
            cause,
        });
    }

    /// A session is there no more: whoever waits for room is next.
    pub(super) fn release<E: Engine>(&mut self, ctx: &mut Ctx<E>, destination: &Destination) {
        let Some(server) = destination.account() else {
            return;
        };
        server.standing.leave(ctx.engine.now());
        if server.standing.is_limited() {
            self.queue_due = Time::ZERO;
        }
    }
}

/// Whom trouble with a destination is about: an address without an account is its
/// forward's.
fn subject(destination: &Destination, forward: Option<&Forward>) -> Subject {
    match (destination.account(), forward) {
        (Some(server), _) => Subject::Server(server.settings().id),
        (None, Some(forward)) => Subject::Forward(forward.id),
        (None, None) => Subject::Process,
    }
}

/// What a destination is called.
fn name(destination: &Destination, forward: Option<&Forward>) -> ServerName {
    match destination.account() {
        Some(server) => server.name(),
        None => ServerName {
            endpoint: destination.endpoint().clone(),
            pool: forward.map_or_else(|| "".into(), |it| it.name.clone()),
        },
    }
}
