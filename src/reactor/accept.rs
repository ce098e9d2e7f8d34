//! Taking connections in: which listeners have some waiting, and whether there is
//! room for them.
//!
//! Who is not let in yet waits in the kernel's accept queue, in order, and sees
//! nothing but a slow answer. A reactor that is out of descriptors looks again
//! when a session of its own ends, and otherwise ten times a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::proxying::Proxying;
use super::{Entry, Forward, Listener, Reactor};
use crate::balance::health::Admission;
use crate::config::SessionLog;
use crate::engine::{AcceptError, Engine, ListenerId};
use crate::net::address::Endpoint;
use crate::net::dial::Local;
use crate::net::limits;
use crate::net::options::Family;
use crate::net::options::plan::Stage;
use crate::observe::notice::{Kind, Notice, Subject};
use crate::relay::probe::{self, Mutation};
use crate::relay::session::{Event as SessionEvent, Session};
use crate::relay::time::Time;

/// Connections taken off one listener in one turn.
const ACCEPTS_PER_TURN: u32 = 32;

/// Until the next try after running out of descriptors or memory.
const STARVED_RETRY: Duration = Duration::from_millis(100);

/// Until the next try at `max_connections`; another reactor may have made room.
const LIMIT_RETRY: Duration = Duration::from_millis(50);

/// How many sessions there may be; shared by reactors, touched once an accept
/// and once an end.
#[derive(Debug)]
pub struct Gate {
    live: AtomicU32,
    max: AtomicU32,
    configured: u32,
    /// `None`: not bound to descriptors.
    reserve: Option<Reserve>,
}

/// Descriptors that are no session's.
#[derive(Debug, Clone, Copy)]
struct Reserve {
    /// Those that were open before the first session.
    taken: u32,
    /// Those for pipes and the like, which it is better to have and which can be
    /// done without.
    spare: u32,
}

impl Reserve {
    /// Sessions that fit, two descriptors each. Of a small limit the spares get at
    /// most an eighth: the estimate must not keep clients out whom the kernel
    /// would let in (behaviour 33).
    fn sessions(self, limit: u64) -> u32 {
        let limit = limit.min(u64::from(u32::MAX)) as u32;
        let left = limit.saturating_sub(self.taken);
        (left - self.spare.min(left / 8)) / 2
    }
}

impl Gate {
    /// A gate for `max` sessions.
    pub const fn new(max: u32) -> Self {
        Self {
            live: AtomicU32::new(0),
            max: AtomicU32::new(max),
            configured: max,
            reserve: None,
        }
    }

    /// A gate for `max` sessions or as many as descriptors allow, two for each,
    /// beside those that are `taken` already and some to `spare`.
    pub const fn by_descriptors(max: u32, taken: u32, spare: u32) -> Self {
        Self {
            live: AtomicU32::new(0),
            max: AtomicU32::new(max),
            configured: max,
            reserve: Some(Reserve { taken, spare }),
        }
    }

    /// Sessions now.
    pub fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Sessions at the most, as of now.
    pub fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// Reads the descriptor limit again: an operator may have changed it.
    pub fn review(&self) {
        if let Some(reserve) = self.reserve
            && let Ok(limit) = limits::descriptor_limit()
        {
            let fit = reserve.sessions(limit);
            self.max
                .store(fit.clamp(1, self.configured), Ordering::Relaxed);
        }
    }

    fn enter(&self) -> bool {
        let entered = self.live.fetch_add(1, Ordering::Relaxed) < self.max();
        if !entered {
            self.leave();
        }
        entered
    }

    fn leave(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which limit keeps a client out.
#[derive(Debug, Clone, Copy)]
enum Full {
    /// That of its forward.
    Forward { live: u32, max: u32 },
    /// That of the whole process: `max_connections`, or its descriptors.
    Process { live: u32, max: u32 },
}

/// The listeners of a reactor.
#[derive(Debug)]
pub(super) struct Doors {
    listeners: Vec<Door>,
    gate: Arc<Gate>,
    /// Nobody is let in before.
    starved_until: Time,
}

#[derive(Debug)]
struct Door {
    setup: Arc<Listener>,
    /// Somebody may be waiting.
    knocked: bool,
    /// This forward is full; look again then.
    full_until: Time,
}

impl Doors {
    pub(super) fn new(listeners: Vec<Arc<Listener>>, gate: Arc<Gate>) -> Self {
        let door = |setup| Door {
            setup,
            knocked: false,
            full_until: Time::ZERO,
        };
        Self {
            listeners: listeners.into_iter().map(door).collect(),
            gate,
            starved_until: Time::ZERO,
        }
    }

    /// Somebody may wait at any listener.
    pub(super) fn knock_all(&mut self) {
        for door in &mut self.listeners {
            door.knocked = true;
        }
    }

    /// Somebody waits at a listener.
    pub(super) fn knock(&mut self, listener: ListenerId) {
        if let Some(door) = self.listeners.get_mut(listener.0 as usize) {
            door.knocked = true;
        }
    }

    /// When somebody who waits can be let in: a time that has passed is now.
    pub(super) fn next_try(&self) -> Time {
        let knocked = self.listeners.iter().filter(|door| door.knocked);
        knocked
            .map(|door| door.full_until.max(self.starved_until))
            .min()
            .unwrap_or(Time::NEVER)
    }

    /// Nobody is let in for want of descriptors or memory.
    pub(super) fn is_starved(&self, now: Time) -> bool {
        now < self.starved_until
    }

    pub(super) fn address(&self, listener: u32) -> Endpoint {
        self.listeners
            .get(listener as usize)
            .map_or(Endpoint::Unnamed, |door| door.setup.address.clone())
    }

    /// A session has ended: there is room, and if it had both sides, there are two
    /// descriptors. One that never got its second leaves none to spare: letting the
    /// next client in at once would only turn that one away too.
    fn make_room(&mut self, forward_gate: Option<&Gate>, had_both: bool) {
        self.gate.leave();
        if let Some(gate) = forward_gate {
            gate.leave();
        }
        if had_both {
            self.starved_until = Time::ZERO;
        }
        for door in &mut self.listeners {
            door.full_until = Time::ZERO;
        }
    }
}

impl<E: Engine> Reactor<E> {
    /// Takes a bounded number of connections off each listener.
    pub(super) fn accept(&mut self) {
        if self.draining {
            return;
        }
        let now = self.ctx.engine.now();
        for index in 0..self.doors.listeners.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                let door = &self.doors.listeners[index];
                if !door.knocked || now < door.full_until.max(self.doors.starved_until) {
                    break;
                }
                self.accept_one(index, now);
            }
        }
    }

    fn accept_one(&mut self, index: usize, now: Time) {
        let at = self.doors.listeners[index].setup.clone();
        if let Err(full) = self.enter(&at.forward) {
            return self.pause_at_limit(index, full, now);
        }
        let listener = ListenerId(index as u32);
        match self.ctx.engine.accept(listener) {
            Ok((incoming, client)) => {
                self.doors.listeners[index].full_until = Time::ZERO;
                self.start(listener, at, incoming, client);
            }
            Err(error) => {
                self.leave(&at.forward);
                self.accept_failed(index, error, now);
            }
        }
    }

    /// Nobody is let in; whether somebody waits decides whether that is worth
    /// another look, a line, and a count (one for each time the limit is hit).
    fn pause_at_limit(&mut self, index: usize, full: Full, now: Time) {
        if !self.ctx.engine.has_waiting(ListenerId(index as u32)) {
            // The next to come is an event of its own.
            self.doors.listeners[index].knocked = false;
            return;
        }
        let door = &mut self.doors.listeners[index];
        let first = door.full_until == Time::ZERO;
        door.full_until = now + LIMIT_RETRY;
        self.doors.gate.review();
        if first {
            self.ctx.counters.limit_pauses.add(1);
            let forward = &self.doors.listeners[index].setup.forward;
            let name = || forward.name.clone();
            match full {
                Full::Forward { live, max } => {
                    let subject = Subject::Forward(forward.id);
                    self.ctx.complain(Kind::ForwardFull, subject, || {
                        let forward = name();
                        Notice::ForwardFull { forward, live, max }
                    });
                }
                Full::Process { live, max } => {
                    self.ctx.complain(Kind::ProcessFull, Subject::Process, || {
                        let forward = name();
                        Notice::ProcessFull { forward, live, max }
                    });
                }
            }
        }
    }

    fn accept_failed(&mut self, index: usize, error: AcceptError, now: Time) {
        match error {
            AcceptError::Empty => self.doors.listeners[index].knocked = false,
            AcceptError::Lost => self.ctx.counters.accept_lost.add(1),
            AcceptError::Exhausted(cause) => {
                if probe::mutated(Mutation::LostWakeUpAfterExhaustion) {
                    self.doors.listeners[index].knocked = false;
                }
                self.starve(now);
                let reactor = self.ctx.reactor;
                self.ctx.complain(Kind::AcceptPaused, Subject::Process, || {
                    Notice::AcceptPaused { reactor, cause }
                });
            }
            AcceptError::Broken(errno) => {
                self.starve(now);
                let doors = &self.doors;
                let subject = Subject::Listener(doors.listeners[index].setup.id);
                self.ctx.complain(Kind::AcceptFailed, subject, || {
                    let error = std::io::Error::from_raw_os_error(errno);
                    let listener = doors.address(index as u32);
                    Notice::AcceptFailed { listener, error }
                });
            }
        }
    }

    /// Out of descriptors or memory: give up what can be spared, pause.
    pub(super) fn starve(&mut self, now: Time) {
        self.ctx.counters.accept_pauses.add(1);
        self.ctx.engine.release_spares();
        self.drop_spares();
        self.doors.gate.review();
        self.doors.starved_until = now + STARVED_RETRY;
    }

    fn start(
        &mut self,
        listener: ListenerId,
        at: Arc<Listener>,
        incoming: E::Incoming,
        client: Endpoint,
    ) {
        let now = self.ctx.engine.now();
        self.ctx.counters.accepted.add(1);
        let key = self.ctx.sessions.reserve();
        let adopted = key.map(|key| self.ctx.engine.adopt(key, incoming, listener));
        if !matches!(adopted, Some(Ok(()))) {
            self.ctx.counters.refused.add(1);
            self.ctx.counters.ended.add(1);
            self.leave(&at.forward);
            self.starve(now);
            return;
        }
        let mut actions = std::mem::take(&mut self.actions);
        actions.clear();
        let rules = at.forward.rules;
        let session = Session::new(&rules, now, &mut actions);
        self.sessions_started += 1;
        let entry = Entry {
            session,
            client,
            id: self.sessions_started,
            queued: 0,
            unproven: true,
            warm: false,
            admission: Admission::Free,
            server: None,
            dialling: None,
            proxying: at.forward.proxy.as_ref().map(|_| Box::new(Proxying::new())),
            listener: at,
            legs: None,
        };
        if self.session_log == SessionLog::All {
            let record = self.record(&entry);
            self.ctx.log.session(record);
        }
        if let Some(key) = self.ctx.sessions.insert(entry) {
            self.tap(key);
            self.carry_out(key, &mut actions);
        }
        self.actions = actions;
    }

    fn enter(&self, forward: &Forward) -> Result<(), Full> {
        let process = &self.doors.gate;
        if !process.enter() {
            let (live, max) = (process.live(), process.max());
            return Err(Full::Process { live, max });
        }
        match &forward.gate {
            Some(gate) if !gate.enter() => {
                process.leave();
                let (live, max) = (gate.live(), gate.max());
                Err(Full::Forward { live, max })
            }
            _ => Ok(()),
        }
    }

    fn leave(&self, forward: &Forward) {
        self.doors.gate.leave();
        if let Some(gate) = &forward.gate {
            gate.leave();
        }
    }

    /// A session of this forward has ended; whether it ever had both its sides.
    pub(super) fn make_room(&mut self, forward: &Forward, had_both: bool) {
        self.doors.make_room(forward.gate.as_deref(), had_both);
    }

    pub(super) fn apply_connected(&mut self, key: crate::engine::SessionKey) {
        let Some(entry) = self.ctx.sessions.get(key) else {
            return;
        };
        let forward = &entry.listener.forward;
        let upstream = &self.pools[forward.pool];
        let Some(server) = &entry.server else { return };
        let options = &upstream.setup.options;
        if !options.is_empty(Stage::AfterConnect, Family::of(server.endpoint())) {
            let target = upstream.target(server, Local::Plan);
            self.ctx.engine.apply_connected(key, target);
        }
    }

    /// How long the connect took, of a session whose first server answered and that
    /// did not wait for it: nothing else is in the time since its accept.
    pub(super) fn time_connect(&self, key: crate::engine::SessionKey) {
        if let Some(entry) = self.ctx.sessions.get(key)
            && entry.dialling.is_none()
            && !entry.session.has_waited()
            && entry.proxying.is_none()
            && let (Some(server), Some(took)) = (&entry.server, entry.session.connect_time())
        {
            server.tally.connected(took);
        }
    }

    /// The outcome of a connect, told to its session; the handshake's last ACK
    /// is remembered if no data went along with it.
    pub(super) fn connected(&mut self, key: crate::engine::SessionKey) {
        self.apply_connected(key);
        self.deliver(key, SessionEvent::Connected);
        self.owe_ack(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b33_a_small_limit_is_for_sessions_first() {
        let reserve = Reserve {
            taken: 10,
            spare: 56,
        };
        assert_eq!(reserve.sessions(64), 24);
        assert_eq!(reserve.sessions(1_024), (1_024 - 10 - 56) / 2);
        assert_eq!(reserve.sessions(10), 0);
        assert_eq!(reserve.sessions(0), 0);
    }
}
