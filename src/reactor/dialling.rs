//! Getting a session its server: the choice, the connect or the race of several, what
//! failed so far, and the wait for a server that has room.
//!
//! ```text
//! Action::Dial ─► the addresses of a request: connect or race them
//!              └► choose ─┬─► spare at hand ───────────────► Connected
//!                         ├─► one address: connect ────────► Connected | ConnectFailed
//!                         ├─► several: race them ──────────► Connected | ConnectFailed
//!                         ├─► all full: wait in the queue ─► Queued … Dequeued
//!                         └─► nobody left ─────────────────► NoServer
//! ```
//! Invariants: a session counts as active at one server at the most, and each rival
//! of its race at that rival's; what was counted is given back exactly once
//! ([`Reactor::release`]). A rival outlives neither its race nor its session.

use std::sync::Arc;
use std::time::Duration;

use super::Reactor;
use super::context::Effect;
use super::races::Heat;
use super::upstream::Choice;
use super::upstream::server::{Server, add};
use crate::balance::health::{Admission, Change};
use crate::engine::{Engine, SessionKey, Start, Target};
use crate::net::address::Endpoint;
use crate::observe::notice::{Kind, Notice, Subject};
use crate::relay::ending::Cause;
use crate::relay::id::PoolId;
use crate::relay::session::Event as SessionEvent;
use crate::relay::time::Time;

/// What a session remembers of being connected, if it did not go smoothly.
#[derive(Debug, Default)]
pub(super) struct Dialling {
    /// Servers that were tried, and why they could not be had.
    pub(super) failures: Vec<(Arc<Server>, Cause)>,
    pub(super) race: Option<Heat>,
}

impl Dialling {
    /// When a race has its next step.
    pub(super) fn wake(&self) -> Time {
        self.race.as_ref().map_or(Time::NEVER, Heat::wake)
    }

    fn last_cause(&self) -> Option<Cause> {
        self.failures.last().map(|(_, cause)| *cause)
    }
}

impl<E: Engine> Reactor<E> {
    /// Carries out `Action::Dial`.
    pub(super) fn dial(&mut self, key: SessionKey) -> Option<SessionEvent> {
        let now = self.ctx.engine.now();
        let entry = self.ctx.sessions.get_mut(key)?;
        let index = entry.listener.forward.pool;
        if let Some(proxying) = &mut entry.proxying {
            let servers = proxying.take_servers();
            return self.dial_all(key, index, servers);
        }
        if self.must_line_up(key, index) {
            return Some(self.enqueue(key, index));
        }
        let entry = self.ctx.sessions.get_mut(key)?;
        let upstream = &mut self.pools[index];
        let failures = entry.dialling.as_ref().map(|it| it.failures.as_slice());
        let tried: Vec<Arc<Server>> = failures
            .unwrap_or_default()
            .iter()
            .map(|(server, _)| server.clone())
            .collect();
        match upstream.choose(&entry.client, &tried, now) {
            Choice::Member(at, admission) => {
                let server = upstream.setup.set.members[usize::from(at)].server.clone();
                let raced = upstream.setup.set.is_raced(at);
                let rivals = if raced {
                    upstream.setup.set.rivals(at, &tried, now)
                } else {
                    Vec::new()
                };
                self.go_to(key, index, server, admission, rivals)
            }
            Choice::Full => Some(self.enqueue(key, index)),
            Choice::Nowhere => {
                let last = entry.dialling.as_ref().and_then(|it| it.last_cause());
                if last.is_none() {
                    let forward = entry.listener.forward.clone();
                    let subject = Subject::Forward(forward.id);
                    self.ctx
                        .complain(Kind::NoServer, subject, || Notice::NoServer {
                            forward: forward.name.clone(),
                        });
                }
                Some(SessionEvent::NoServer(last.unwrap_or(Cause::NoServer)))
            }
        }
    }

    fn go_to(
        &mut self,
        key: SessionKey,
        upstream: PoolId,
        server: Arc<Server>,
        admission: Admission,
        rivals: Vec<Arc<Server>>,
    ) -> Option<SessionEvent> {
        if self.take_spare(key, upstream, &server) {
            self.settle_on(key, server, admission, true);
            self.apply_connected(key);
            return Some(SessionEvent::Connected);
        }
        if rivals.len() > 1 {
            return self.start_race(key, rivals, admission);
        }
        self.connect_alone(key, upstream, &server, admission)
    }

    /// Dials servers that are this session's alone, of which each is an address of the
    /// same target: the first that connects is taken.
    fn dial_all(
        &mut self,
        key: SessionKey,
        upstream: PoolId,
        servers: Vec<Arc<Server>>,
    ) -> Option<SessionEvent> {
        let Some(first) = servers.first().cloned() else {
            return Some(SessionEvent::NoServer(Cause::NoServer));
        };
        // Whoever is first counts as chosen.
        first.enter();
        if servers.len() > 1 {
            return self.start_race(key, servers, Admission::Free);
        }
        self.connect_alone(key, upstream, &first, Admission::Free)
    }

    /// Connects to one server, without a rival.
    fn connect_alone(
        &mut self,
        key: SessionKey,
        upstream: PoolId,
        server: &Arc<Server>,
        admission: Admission,
    ) -> Option<SessionEvent> {
        self.settle_on(key, server.clone(), admission, false);
        let start = self.connect(upstream, server, Some(key), |engine, target| {
            engine.connect(key, target)
        });
        match start {
            Start::Pending => None,
            Start::Done(Ok(())) => {
                server.tally.connected(Duration::ZERO);
                self.apply_connected(key);
                Some(SessionEvent::Connected)
            }
            Start::Done(Err(cause)) => {
                self.connect_failed_at(key, cause);
                Some(SessionEvent::ConnectFailed(cause))
            }
        }
    }

    /// The server that a session is on, and how it was admitted there.
    pub(super) fn settle_on(
        &mut self,
        key: SessionKey,
        server: Arc<Server>,
        admission: Admission,
        warm: bool,
    ) {
        if let Some(entry) = self.ctx.sessions.get_mut(key) {
            entry.server = Some(server);
            entry.admission = admission;
            entry.warm = warm;
        }
    }

    /// Starts one connect for a client, if it is for any, from each of the local
    /// addresses in turn while they have no port left.
    pub(super) fn connect(
        &mut self,
        upstream: PoolId,
        server: &Server,
        session: Option<SessionKey>,
        start: impl Fn(&mut E, Target<'_>) -> Start<Result<(), Cause>>,
    ) -> Start<Result<(), Cause>> {
        self.ctx.counters.connects.add(1);
        add(&server.tally.connects, 1);
        let client = session.and_then(|key| self.ctx.sessions.get(key));
        let client = client.map_or(&Endpoint::Unnamed, |entry| &entry.client);
        let upstream = &mut self.pools[upstream];
        let mut started = Start::Done(Err(Cause::NoSource));
        for _ in 0..upstream.sources(server.endpoint()) {
            let Some(local) = upstream.local(server.endpoint(), client) else {
                break;
            };
            started = start(&mut self.ctx.engine, upstream.target(server, local));
            let short = |it| started == Start::Done(Err(it));
            if !short(Cause::PortsExhausted) && !short(Cause::NoSource) {
                break;
            }
        }
        started
    }

    // Failures.

    /// The connect of a session failed, by `cause`.
    pub(super) fn connect_failed_at(&mut self, key: SessionKey, cause: Cause) {
        let Some(entry) = self.ctx.sessions.get_mut(key) else {
            return;
        };
        let (Some(server), admission) = (entry.server.take(), entry.admission) else {
            return;
        };
        self.count_connect_failure(key, &server, admission, cause);
        self.release(&server);
    }

    /// Counts a failed attempt, blames the server unless this machine is short of
    /// something, and remembers it for the session.
    pub(super) fn count_connect_failure(
        &mut self,
        key: SessionKey,
        server: &Arc<Server>,
        admission: Admission,
        cause: Cause,
    ) {
        self.ctx.counters.connect_failures.add(1);
        if let Some(entry) = self.ctx.sessions.get_mut(key) {
            let dialling = entry.dialling.get_or_insert_default();
            dialling.failures.push((server.clone(), cause));
        }
        if cause.is_local_shortage() {
            self.short_of(cause, server, admission);
        } else {
            server.tally.failed(cause);
            self.blame(server, admission, cause);
        }
    }

    /// A connect failed for want of something here: never the server's fault.
    pub(super) fn short_of(&mut self, cause: Cause, server: &Server, admission: Admission) {
        let now = self.ctx.engine.now();
        self.ctx.counters.connect_shortages.add(1);
        server.marks.abandoned(admission, now);
        if matches!(cause, Cause::NoDescriptors | Cause::NoMemory) {
            // Whoever is let in now would be turned away as well.
            self.ctx.out.push_back(Effect::Starved);
        }
        let subject = Subject::Server(server.settings().id);
        self.ctx
            .complain(Kind::ConnectShortage, subject, || Notice::ConnectShortage {
                server: server.name(),
                cause,
            });
    }

    /// A server failed: it is marked if that was one failure too many.
    pub(super) fn blame(&mut self, server: &Server, admission: Admission, cause: Cause) {
        let change = server.failed(admission, self.ctx.engine.now());
        let settings = server.settings();
        if change == Some(Change::Down) {
            self.ctx.log.notice(Notice::ServerMarked {
                server: server.name(),
                cause,
                fail_timeout: settings.fail_timeout,
                max_fails: settings.max_fails,
            });
        } else {
            let subject = Subject::Server(settings.id);
            self.ctx
                .complain(Kind::ConnectFailed, subject, || Notice::ConnectFailed {
                    server: server.name(),
                    cause,
                });
        }
    }

    /// A session got through to its server: a mark that it was to try goes.
    pub(super) fn praise(&mut self, server: &Server, admission: Admission) {
        if server.marks.succeeded(admission) == Some(Change::Up) {
            server.came_back(self.ctx.engine.now());
            self.ctx.log.notice(Notice::ServerUnmarked {
                server: server.name(),
            });
        }
    }

    /// A session is on this server no more: whoever waits for room is next.
    pub(super) fn release(&mut self, server: &Server) {
        server.leave();
        if server.settings().max_connections.is_some() {
            self.queue_due = Time::ZERO;
        }
    }
}
