//! Getting a session its server: the choice, the connect or the race of several, what
//! failed so far, and the wait for a server that has room.
//!
//! ```text
//! Action::Dial ─► choose ─┬─► spare at hand ───────────────► Connected
//!                         ├─► one address: connect ────────► Connected | ConnectFailed
//!                         ├─► several: race them ──────────► Connected | ConnectFailed
//!                         ├─► all full: wait in the queue ─► Queued … Dequeued
//!                         └─► nobody left ─────────────────► NoServer
//! ```
//! Invariants: a session counts as active at one server at the most, and each rival
//! of its race at that rival's; what was counted is given back exactly once
//! ([`Worker::release_server`]). A rival outlives neither its race nor its session.

use std::sync::Arc;

use super::sessions::{Ahead, Purpose};
use super::upstream::Choice;
use super::upstream::server::{Server, add};
use super::{Complaint, Worker};
use crate::balance::health::{Admission, Change};
use crate::config::LogLevel;
use crate::engine::{Engine, SessionKey, Start, Target};
use crate::net::address::Endpoint;
use crate::relay::Side;
use crate::relay::ending::Cause;
use crate::relay::race::{ATTEMPT_FLOOR, Race, RaceRules, Step};
use crate::relay::session::{Close, Event as SessionEvent};
use crate::relay::time::Time;

/// A session's queue is served so often while somebody waits and no session of this
/// reactor ends: other reactors share the servers.
pub(super) const QUEUE_LOOK: std::time::Duration = std::time::Duration::from_millis(5);

/// What a session remembers of being connected, if it did not go smoothly.
#[derive(Debug, Default)]
pub(super) struct Dialling {
    /// Servers that were tried, and why they could not be had.
    pub(super) failures: Vec<(Arc<Server>, Cause)>,
    race: Option<Heat>,
}

/// A race under way.
#[derive(Debug)]
struct Heat {
    race: Race,
    /// Its addresses, in order; the first is the one that was chosen and admitted.
    servers: Vec<Arc<Server>>,
    admission: Admission,
    /// Connects under way.
    rivals: Vec<SessionKey>,
    /// When the schedule has its next step.
    wake: Time,
    last: Cause,
}

impl Dialling {
    /// When a race has its next step.
    pub(super) fn wake(&self) -> Time {
        self.race.as_ref().map_or(Time::NEVER, |heat| heat.wake)
    }

    fn last_cause(&self) -> Option<Cause> {
        self.failures.last().map(|(_, cause)| *cause)
    }
}

impl<E: Engine> Worker<E> {
    /// Carries out `Action::Dial`.
    pub(super) fn dial(&mut self, key: SessionKey) -> Option<SessionEvent> {
        let now = self.engine.now();
        let entry = self.sessions.get_mut(key)?;
        let index = self.forwards[usize::from(entry.forward)].upstream;
        let upstream = &mut self.upstreams[usize::from(index)];
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
                self.go_to(key, index, at, server, admission, raced)
            }
            Choice::Full => Some(self.enqueue(key, index)),
            Choice::Nowhere => {
                let last = entry.dialling.as_ref().and_then(|it| it.last_cause());
                if last.is_none() {
                    let name = self.forwards[usize::from(entry.forward)].name.clone();
                    self.complain(Complaint::Connect, || {
                        format!("forward {name}: no server is up")
                    });
                }
                Some(SessionEvent::NoServer(last.unwrap_or(Cause::NoServer)))
            }
        }
    }

    fn go_to(
        &mut self,
        key: SessionKey,
        upstream: u16,
        at: u16,
        server: Arc<Server>,
        admission: Admission,
        raced: bool,
    ) -> Option<SessionEvent> {
        if self.take_spare(key, upstream, &server) {
            self.settle_on(key, server, admission, true);
            self.apply_connected(key);
            return Some(SessionEvent::Connected);
        }
        if raced {
            let now = self.engine.now();
            let set = &self.upstreams[usize::from(upstream)].setup.set;
            let rivals = set.rivals(at, now);
            if rivals.len() > 1 {
                return self.start_race(key, rivals, admission);
            }
        }
        self.settle_on(key, server.clone(), admission, false);
        let start = self.connect(upstream, &server, Some(key), |engine, target| {
            engine.connect(key, target)
        });
        match start {
            Start::Pending => None,
            Start::Done(Ok(())) => Some(SessionEvent::Connected),
            Start::Done(Err(cause)) => {
                self.connect_failed_at(key, cause);
                Some(SessionEvent::ConnectFailed(cause))
            }
        }
    }

    /// The server that a session is on, and how it was admitted there.
    fn settle_on(
        &mut self,
        key: SessionKey,
        server: Arc<Server>,
        admission: Admission,
        warm: bool,
    ) {
        let now = self.engine.now();
        if let Some(entry) = self.sessions.get_mut(key) {
            entry.server = Some(server);
            entry.admission = admission;
            entry.dialled = now;
            entry.warm = warm;
        }
    }

    /// Starts one connect for a client, if it is for any, from each of the local
    /// addresses in turn while they have no port left.
    pub(super) fn connect(
        &mut self,
        upstream: u16,
        server: &Server,
        session: Option<SessionKey>,
        start: impl Fn(&mut E, Target<'_>) -> Start<Result<(), Cause>>,
    ) -> Start<Result<(), Cause>> {
        self.counters.connects.add(1);
        add(&server.tally.connects, 1);
        let client = session.and_then(|key| self.sessions.get(key));
        let client = client.map_or(&Endpoint::Unnamed, |entry| &entry.client);
        let upstream = &mut self.upstreams[usize::from(upstream)];
        for _ in 1..upstream.sources() {
            let local = upstream.local(server.endpoint(), client);
            let started = start(&mut self.engine, upstream.target(server, local));
            let short = |it| started == Start::Done(Err(it));
            if !short(Cause::PortsExhausted) && !short(Cause::NoSource) {
                return started;
            }
        }
        let local = upstream.local(server.endpoint(), client);
        start(&mut self.engine, upstream.target(server, local))
    }

    // Failures.

    /// The connect of a session failed, by `cause`.
    pub(super) fn connect_failed_at(&mut self, key: SessionKey, cause: Cause) {
        let Some(entry) = self.sessions.get_mut(key) else {
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
    fn count_connect_failure(
        &mut self,
        key: SessionKey,
        server: &Arc<Server>,
        admission: Admission,
        cause: Cause,
    ) {
        self.counters.connect_failures.add(1);
        if let Some(entry) = self.sessions.get_mut(key) {
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
        let now = self.engine.now();
        self.counters.connect_shortages.add(1);
        server.marks.abandoned(admission, now);
        if matches!(cause, Cause::NoDescriptors | Cause::NoMemory) {
            // Whoever is let in now would be turned away as well.
            self.starve(now);
        }
        self.complain(Complaint::Shortage, || {
            format!(
                "cannot connect to {} from here: {}",
                server.endpoint(),
                cause.name()
            )
        });
    }

    /// A server failed: it is marked if that was one failure too many.
    pub(super) fn blame(&mut self, server: &Server, admission: Admission, cause: Cause) {
        let change = server.failed(admission, self.engine.now());
        let settings = server.settings();
        if change == Some(Change::Down) {
            self.log.line(
                LogLevel::Warn,
                format!(
                    "server {} of {} is marked for {:?}: {} (max_fails {})",
                    settings.endpoint,
                    settings.pool,
                    settings.fail_timeout,
                    cause.name(),
                    settings.max_fails
                ),
            );
        } else {
            self.complain(Complaint::Connect, || {
                format!(
                    "connecting to {} of {} failed: {}",
                    settings.endpoint,
                    settings.pool,
                    cause.name()
                )
            });
        }
    }

    /// A session got through to its server: a mark that it was to try goes.
    pub(super) fn praise(&mut self, server: &Server, admission: Admission) {
        if server.marks.succeeded(admission) == Some(Change::Up) {
            server.came_back(self.engine.now());
            let settings = server.settings();
            self.log.line(
                LogLevel::Info,
                format!(
                    "server {} of {} is used again: a session got through",
                    settings.endpoint, settings.pool
                ),
            );
        }
    }

    /// A session is on this server no more: whoever waits for room is next.
    pub(super) fn release(&mut self, server: &Server) {
        server.leave();
        if server.settings().max_connections.is_some() {
            self.queue_due = Time::ZERO;
        }
    }

    // Races.

    fn start_race(
        &mut self,
        key: SessionKey,
        servers: Vec<Arc<Server>>,
        admission: Admission,
    ) -> Option<SessionEvent> {
        let now = self.engine.now();
        let entry = self.sessions.get_mut(key)?;
        let forward = &self.forwards[usize::from(entry.forward)];
        let rules = RaceRules {
            attempt_delay: self.upstreams[usize::from(forward.upstream)]
                .setup
                .attempt_delay,
            total: forward.rules.deadlines.connect,
            floor: ATTEMPT_FLOOR,
        };
        entry.dialling.get_or_insert_default().race = Some(Heat {
            race: Race::new(servers.len() as u16, now, &rules),
            servers,
            admission,
            rivals: Vec::new(),
            wake: now,
            last: Cause::ConnectTimeout,
        });
        self.step_race(key)
    }

    fn heat(&mut self, key: SessionKey) -> Option<&mut Heat> {
        let entry = self.sessions.get_mut(key)?;
        entry.dialling.as_mut()?.race.as_mut()
    }

    /// Does what the schedule of a race has for now. The event is for the session.
    pub(super) fn step_race(&mut self, key: SessionKey) -> Option<SessionEvent> {
        let now = self.engine.now();
        loop {
            let heat = self.heat(key)?;
            match heat.race.next(now) {
                Step::Start(index) => {
                    if let Some(event) = self.start_rival(key, index) {
                        return Some(event);
                    }
                }
                Step::Abandon(index) => {
                    let late = self.rival(key, index);
                    if let Some(late) = late {
                        self.rival_failed(late, Cause::ConnectTimeout);
                        self.close_ahead(late);
                    }
                }
                Step::Wait(until) => {
                    heat.wake = until;
                    return None;
                }
                Step::Lost => {
                    let last = heat.last;
                    self.end_race(key);
                    return Some(SessionEvent::ConnectFailed(last));
                }
            }
        }
    }

    fn rival(&mut self, key: SessionKey, place: u16) -> Option<SessionKey> {
        let rivals = self.heat(key)?.rivals.clone();
        rivals.into_iter().find(|rival| {
            let ahead = self.sessions.ahead(*rival);
            ahead.is_some_and(
                |it| matches!(it.purpose, Purpose::Rival { index, .. } if index == place),
            )
        })
    }

    fn start_rival(&mut self, key: SessionKey, index: u16) -> Option<SessionEvent> {
        let now = self.engine.now();
        let entry = self.sessions.get_mut(key)?;
        let upstream = self.forwards[usize::from(entry.forward)].upstream;
        let heat = entry.dialling.as_mut()?.race.as_mut()?;
        let server = heat.servers[usize::from(index)].clone();
        // The first was admitted and counted when it was chosen.
        let admission = if index == 0 {
            std::mem::replace(&mut heat.admission, Admission::Free)
        } else {
            let admission = server.marks.admit(now);
            if admission == Admission::Marked || !server.enter() {
                heat.race.failed(index);
                return None;
            }
            admission
        };
        let purpose = Purpose::Rival {
            of: key,
            index,
            admission,
        };
        let ahead = Ahead {
            purpose,
            server: server.clone(),
            since: now,
            closing: false,
        };
        let Some(rival) = self.sessions.insert_ahead(ahead) else {
            self.release(&server);
            self.heat(key)?.race.failed(index);
            return None;
        };
        self.heat(key)?.rivals.push(rival);
        let start = self.connect(upstream, &server, Some(key), |engine, target| {
            engine.connect_ahead(rival, target)
        });
        match start {
            Start::Pending => None,
            Start::Done(Ok(())) => self.rival_won(rival).map(|(_, event)| event),
            Start::Done(Err(cause)) => {
                self.rival_failed(rival, cause);
                self.sessions.remove_ahead(rival);
                None
            }
        }
    }

    /// A rival connected: its connection becomes the session's, the others are closed.
    pub(super) fn rival_won(&mut self, rival: SessionKey) -> Option<(SessionKey, SessionEvent)> {
        let ahead = self.sessions.ahead(rival)?;
        let Purpose::Rival { of, admission, .. } = ahead.purpose else {
            return None;
        };
        let (server, since) = (ahead.server.clone(), ahead.since);
        if !self.engine.hand_over(rival, of) {
            self.rival_failed(rival, Cause::NoMemory);
            self.sessions.remove_ahead(rival);
            return self.step_race(of).map(|event| (of, event));
        }
        self.sessions.remove_ahead(rival);
        if let Some(heat) = self.heat(of) {
            heat.rivals.retain(|it| *it != rival);
        }
        self.end_race(of);
        self.settle_on(of, server, admission, false);
        if let Some(entry) = self.sessions.get_mut(of) {
            entry.dialled = since;
        }
        Some((of, SessionEvent::Connected))
    }

    /// A rival is out: counted, and the next one may start. Its slot is the caller's.
    pub(super) fn rival_failed(&mut self, rival: SessionKey, cause: Cause) -> Option<SessionKey> {
        let ahead = self.sessions.ahead(rival)?;
        let Purpose::Rival {
            of,
            index,
            admission,
        } = ahead.purpose
        else {
            return None;
        };
        let server = ahead.server.clone();
        self.count_connect_failure(of, &server, admission, cause);
        self.release(&server);
        let heat = self.heat(of)?;
        heat.race.failed(index);
        heat.rivals.retain(|it| *it != rival);
        heat.last = cause;
        Some(of)
    }

    /// The race of a session is over, one way or the other: no rival is left.
    pub(super) fn end_race(&mut self, key: SessionKey) {
        let now = self.engine.now();
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(heat) = entry.dialling.as_mut().and_then(|it| it.race.take()) else {
            return;
        };
        for rival in heat.rivals {
            if let Some(ahead) = self.sessions.ahead(rival) {
                let server = ahead.server.clone();
                if let Purpose::Rival { admission, .. } = ahead.purpose {
                    server.marks.abandoned(admission, now);
                }
                self.release(&server);
            }
            self.close_ahead(rival);
        }
    }

    /// Rivals that have not answered by the end of the session's own patience.
    pub(super) fn race_timed_out(&mut self, key: SessionKey) -> bool {
        let Some(heat) = self.heat(key) else {
            return false;
        };
        for rival in heat.rivals.clone() {
            self.rival_failed(rival, Cause::ConnectTimeout);
            self.close_ahead(rival);
        }
        self.end_race(key);
        true
    }

    /// Closes a connection made ahead; its slot is free once nothing is in flight.
    pub(super) fn close_ahead(&mut self, key: SessionKey) {
        let Some(ahead) = self.sessions.ahead_mut(key) else {
            return;
        };
        if std::mem::replace(&mut ahead.closing, true) {
            return;
        }
        // By a reset: nobody will ever read what the server may have said.
        if self.engine.close(key, Side::Upstream, Close::Reset) == Start::Done(()) {
            self.sessions.remove_ahead(key);
        }
    }

    // The queue.

    fn enqueue(&mut self, key: SessionKey, upstream: u16) -> SessionEvent {
        let now = self.engine.now();
        let sessions = &self.sessions;
        let upstream = &mut self.upstreams[usize::from(upstream)];
        let max = upstream.setup.queue as usize;
        if upstream.waiting.len() >= max {
            let waits =
                |key: &SessionKey| sessions.get(*key).is_some_and(|it| it.session.is_queued());
            upstream.waiting.retain(waits);
        }
        if upstream.waiting.len() >= max {
            self.counters.queue_full.add(1);
            return SessionEvent::NoServer(Cause::QueueFull);
        }
        upstream.waiting.push_back(key);
        self.counters.queued.add(1);
        self.queue_due = self.queue_due.min(now + QUEUE_LOOK);
        SessionEvent::Queued
    }

    /// Lets sessions that wait have servers with room, in order.
    pub(super) fn serve_queues(&mut self) {
        let now = self.engine.now();
        if self.queue_due > now {
            return;
        }
        self.queue_due = Time::NEVER;
        for index in 0..self.upstreams.len() {
            // Nobody who is put back at the end has another turn now.
            for _ in 0..self.upstreams[index].waiting.len() {
                if !self.upstreams[index].has_room(now) {
                    break;
                }
                let Some(key) = self.upstreams[index].waiting.pop_front() else {
                    break;
                };
                let entry = self.sessions.get(key);
                if entry.is_some_and(|entry| entry.session.is_queued()) {
                    self.deliver(key, SessionEvent::Dequeued);
                }
            }
            if !self.upstreams[index].waiting.is_empty() {
                self.queue_due = now + QUEUE_LOOK;
            }
        }
    }
}
