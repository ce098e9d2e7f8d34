//! The loop of one core: it takes events from its engine, hands them to
//! sessions, and carries out what these ask for.
//!
//! Owns: the slab of sessions, the timer wheel, the run queue, the state of its
//! listeners. Shares with other reactors only the admission [`Gate`]s and the state
//! of servers, touched once an accept, a connect and an end.
//! Deliberately not here: any decision about a connection (`relay`), any system
//! call on a connection (`engine`). This is glue.
//!
//! A turn: wait, deliver events, a share of those with much to move, sessions that wait for
//! a server, accept a bounded number, fire timers, look after spares. Established sessions come before new ones, so a storm of
//! connects does not starve them (behaviour 44).
//!
//! Invariants: a session with runnable work is on the run queue or has an event
//! coming; the key of a session is freed in exactly one place (`Reactor::finish`);
//! the clock is read once a turn, by the engine.

mod accept;
mod acks;
mod aside;
mod attempts;
mod change;
mod clients;
mod context;
mod course;
mod deadlines;
mod decider;
mod destination;
mod dialling;
mod ends;
mod flows;
mod gate;
mod hand_over;
pub mod inspect;
mod let_in;
mod listen_queue;
mod loops;
mod metered;
mod neighbours;
mod opened;
mod openings;
mod outlets;
mod packed;
mod prefix;
mod pressure;
mod pumping;
mod queue;
mod quic;
mod races;
mod rates;
mod routing;
pub mod run_queue;
mod sessions;
mod setup;
mod shortage;
mod spares;
mod stock;
mod stopping;
mod survival;
mod timers;
pub mod upstream;
mod verdict;
mod warm;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub use change::{Change, ChangedListener};
pub use clients::{
    ByteRates, ClientPolicy, ClientTable, ForwardRate, Full, Limits, TableSettings, WrittenRule,
};
pub use course::{Caller, Course, Decide, Pilot};
pub use decider::{Decider, Decision, Ruling};
pub use destination::{ADDRESSES_MAX, Destination, Destinations};
pub use flows::{FlowArrival, FlowManifest, Homes, MovedFlow, ReleasedFlows};
pub use gate::Gate;
pub use hand_over::{
    Adopted, Arrival, Berth, Berths, CameIn, Manifest, MovedSession, MovedSpare, Parcel, Refusal,
    Release, ReleaseReply, Released, SpareManifest,
};
pub use listen_queue::Admitted;
pub use neighbours::Neighbours;
pub use quic::Quic;
pub use setup::{DatagramRules, Forward, Listener, Routing, Setup, Way};
pub use survival::{KeptSession, OldSession, SessionStore};
pub use upstream::UpstreamSetup;

use crate::balance::health::Admission;
use crate::engine::wheel::Wheel;
use crate::engine::{Datagrams, Engine, Event, SessionKey, Start};
use crate::net::address::{CompactEndpoint, Transport};
use crate::relay::Side;
use crate::relay::ending::Cause;
use crate::relay::id::{ListenerId, PoolId};
use crate::relay::session::{Action, Event as SessionEvent, Session};
use crate::relay::time::Time;

use aside::Aside;
use clients::ClientGrant;
use context::{Ctx, Effect};
use deadlines::{COARSENESS, due};
use dialling::Dialler;
use flows::Flows;
use hand_over::Leaving;
use listen_queue::ListenQueue;
use openings::Openings;
use outlets::Outlets;
use packed::{Booked, PackedId};
use run_queue::RunQueue;
use survival::OldSessions;
use upstream::server::{Server, ServerSet};

/// One reactor. Generic over its engine: the simulator drives this very code.
#[derive(Debug)]
pub struct Reactor<E: Engine> {
    ctx: Ctx<E>,
    wheel: Wheel,
    dialler: Dialler,
    listen_queue: ListenQueue,
    /// Only where clients are spread over reactors.
    neighbours: Option<Box<dyn Neighbours<E::Incoming>>>,
    run_queue: RunQueue,
    /// Upstreams whose handshake ACK waits for data, oldest first.
    acks_owed: VecDeque<(SessionKey, Time)>,
    outlets: Outlets,
    openings: Openings,
    flows: Flows,
    /// Flows that have come and wait for the ports that they came in by.
    expected: Vec<flows::Expected<E::Call>>,
    leaving: Leaving<E::Detached>,
    old: OldSessions,
    sessions_started: u64,
    /// The log has it that splice does not work here.
    splice_given_up: bool,
    draining: bool,
    /// When a visitor last had the accept queues' losses summed up.
    overflows_read: Option<Time>,
    // Reused from turn to turn, so that a turn allocates nothing.
    events: Vec<Event>,
    actions: Vec<Action>,
    fired: Vec<u32>,
}

/// A session and what the reactor knows of it: 224 bytes, for thousands of idle ones are kept.
#[derive(Debug)]
struct Entry {
    session: Session,
    client: CompactEndpoint,
    id: PackedId,
    /// Where it came in, and the forward that it goes by.
    listener: Arc<Listener>,
    /// Lanes on the run queue, bit by direction.
    queued: u8,
    /// It stands in the line of its pool.
    in_line: bool,
    /// The server did not get a verdict yet: it has said nothing.
    unproven: bool,
    /// Its connection to the server stood before it came.
    warm: bool,
    /// How it was let to the server.
    admission: Admission,
    /// Where it is or is being connected to; counted there as active.
    destination: Option<Destination>,
    /// What few have.
    aside: Aside,
    /// Its place among its client's connections, and what holds its bytes back; only
    /// where there are limits.
    grant: Option<Box<ClientGrant>>,
    /// Bytes written up and down that its forward and its server have in their books.
    settled: [Booked; 2],
}

impl<E: Datagrams> Reactor<E> {
    /// A reactor that has done nothing yet.
    pub fn new(engine: E, setup: Setup) -> Self {
        let reactor = setup.reactor;
        Self {
            ctx: Ctx::new(
                engine,
                (setup.counters, setup.log),
                setup.gate.clone(),
                reactor,
            ),
            wheel: Wheel::new(),
            expected: Vec::new(),
            flows: Flows::new(
                (setup.flows, setup.homes, reactor),
                setup.own.of(Transport::Udp).clone(),
                setup.session_log,
            ),
            dialler: Dialler::new(setup.pools, setup.own, setup.gate.clone(), reactor),
            listen_queue: ListenQueue::new(setup.gate),
            neighbours: None,
            run_queue: RunQueue::default(),
            acks_owed: VecDeque::new(),
            outlets: Outlets::new(setup.session_log, setup.taps),
            openings: Openings::new(setup.decider),
            leaving: Leaving::new(),
            old: OldSessions::default(),
            sessions_started: 0,
            splice_given_up: false,
            draining: false,
            overflows_read: None,
            events: Vec::new(),
            actions: Vec::new(),
            fired: Vec::new(),
        }
    }

    /// One turn: waits for something to happen and handles it. `true` if the
    /// waker was used.
    pub fn turn(&mut self) -> std::io::Result<bool> {
        let until = self.sleep_until();
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let waited = self.ctx.engine.wait(until, &mut events);
        self.ctx.counters.turns.add(1);
        let mut woken = false;
        for event in &events {
            match *event {
                Event::Woken => woken = true,
                Event::Acceptable(listener) => self.listen_queue.acceptable(listener),
                Event::Connected(key) if self.is_ahead(key) => {
                    self.dialler.ahead_connected(&mut self.ctx, key);
                    self.settle();
                }
                Event::Connected(key) => {
                    self.connected(key);
                    Dialler::time_connect(&mut self.ctx, key);
                }
                Event::ConnectFailed(key, cause) if self.is_ahead(key) => {
                    self.dialler.ahead_failed(&mut self.ctx, key, cause);
                    self.settle();
                }
                Event::ConnectFailed(key, cause) => self.connect_failed(key, cause),
                Event::Ready(key, _, _) if self.is_ahead(key) => {
                    self.dialler.ahead_ready(&mut self.ctx, key);
                }
                Event::Ready(key, side, readiness) => {
                    self.deliver(key, SessionEvent::Ready { side, readiness });
                }
                Event::Closed(key, _) if self.is_ahead(key) => {
                    Dialler::ahead_closed(&mut self.ctx, key);
                }
                Event::Closed(key, side) => self.deliver(key, SessionEvent::Closed(side)),
                Event::Datagrams(key) => self.flows.is_ready(key),
                Event::Quiet(key) => self.leaving.is_quiet(key),
            }
        }
        self.events = events;
        self.let_go_some();
        self.serve_datagrams();
        self.run_queued();
        self.serve_queues();
        self.settle();
        self.ctx.take_stock();
        self.accept();
        self.fire_timers();
        self.send_owed_acks();
        self.keep_warm();
        self.keep_old();
        self.settle();
        waited.map(|()| woken)
    }

    /// Lets clients in at one more socket.
    pub fn add_listener(&mut self, socket: E::Listener, at: Arc<Listener>) -> std::io::Result<()> {
        if at.transport == Transport::Udp {
            self.flows.listen(socket, at.clone(), &mut self.ctx)?;
            let (expected, pools) = (&mut self.expected, &mut self.dialler.pools);
            self.flows.settle_in(&at, expected, &mut self.ctx, pools);
            return Ok(());
        }
        self.listen_queue.listen(socket, at, &mut self.ctx)
    }

    /// Lets nobody in at an address any more, and gives its sockets back: dropped, they
    /// are closed. Sessions that came in there go on.
    pub fn remove_listener(&mut self, id: ListenerId) -> Vec<E::Listener> {
        let mut given = self.listen_queue.unlisten(id, &mut self.ctx);
        given.extend(self.flows.close_listener(id, &mut self.ctx));
        given
    }

    /// Sessions and flows that live, those that are about to leave included.
    pub const fn live(&self) -> usize {
        self.ctx.sessions.len() + self.flows.len() + self.leaving.held()
    }

    /// Another set of servers for a pool; running sessions stay where they are.
    pub fn replace_servers(&mut self, pool: PoolId, set: Arc<ServerSet>) {
        self.dialler.replace_servers(&mut self.ctx, pool, set);
    }

    /// Ends the sessions of a server, because it is down.
    pub fn cut_server(&mut self, server: &Arc<Server>) {
        let of_server = |key: &SessionKey| {
            let entry = self.ctx.sessions.get(*key);
            let on = entry.and_then(|entry| entry.destination.as_ref()?.account());
            // Who is still being connected goes to another one if this one fails.
            let dials = entry.is_some_and(|entry| entry.session.is_dialing());
            !dials && on.is_some_and(|on| Arc::ptr_eq(on, server))
        };
        let keys: Vec<SessionKey> = self.ctx.sessions.keys().filter(of_server).collect();
        for key in keys {
            self.cut(key, Cause::ServerDown);
        }
    }

    /// Takes the decision about a session that the [`Decider`] was asked about.
    pub fn decided(&mut self, key: SessionKey, ruling: Ruling) {
        if let Some(event) = Openings::decided(&mut self.ctx, key, ruling) {
            self.deliver(key, event);
        }
    }

    /// The engine.
    pub const fn engine(&self) -> &E {
        &self.ctx.engine
    }

    /// The engine.
    pub const fn engine_mut(&mut self) -> &mut E {
        &mut self.ctx.engine
    }

    /// Brings the gauges among the counters up to date.
    pub fn publish(&mut self) {
        self.publish_gauges();
        self.flows.publish(&self.ctx);
        self.ctx
            .counters
            .accept_overflows
            .follow(self.ctx.engine.accept_overflows());
    }

    /// Those of which no listener has to be asked.
    fn publish_gauges(&self) {
        let holdings = self.ctx.engine.holdings();
        self.ctx.counters.live.set(self.ctx.sessions.len() as u64);
        self.ctx.counters.held_bytes.set(holdings.held_bytes);
        self.ctx.counters.pipes.set(u64::from(holdings.pipes));
        self.ctx
            .counters
            .options_refused
            .follow(holdings.options_refused);
        self.outlets.publish(&self.ctx);
    }

    /// Panics when any state is inconsistent. For tests and the simulator.
    pub fn check_invariants(&self) {
        for key in self.ctx.sessions.keys() {
            let Some(entry) = self.ctx.sessions.get(key) else {
                continue;
            };
            entry.session.check_invariants();
            let due = due(entry);
            let armed = self.wheel.armed_for(key.slot).unwrap_or(Time::NEVER);
            // The wheel rounds up to a tick and fires at least one tick ahead.
            let ahead = due.since(entry.session.started());
            let slack = Duration::from_millis(2) + ahead / COARSENESS;
            assert!(
                armed <= due.max(self.ctx.engine.now()) + slack,
                "a deadline without a timer: {due:?}, {armed:?}"
            );
        }
        self.listen_queue.check_invariants();
        self.ctx.pressure.check_invariants(&self.ctx.sessions);
        let live = |key: &SessionKey| self.ctx.sessions.get(*key).is_some();
        let queued = self.run_queue.keys().filter(live);
        assert!(
            queued.count() <= self.ctx.sessions.len() * 2,
            "a lane is queued twice"
        );
        self.dialler.pools.check_invariants(self.ctx.engine.now());
    }

    fn sleep_until(&self) -> Time {
        let has_more = self.ctx.has_more_to_enter();
        if !self.run_queue.is_empty() || has_more || self.leaving.is_busy() {
            return Time::ZERO;
        }
        let ack = self.acks_owed.front().map_or(Time::NEVER, |(_, due)| *due);
        let accept = if self.draining {
            Time::NEVER
        } else {
            self.listen_queue.next_try()
        };
        let warm = if self.draining {
            Time::NEVER
        } else {
            self.dialler.warm_due()
        };
        let due = self.wheel.next().min(ack).min(accept).min(self.flows.due());
        let old = self.old.due();
        due.min(warm).min(self.dialler.queue_due).min(old)
    }

    /// Carries out what parts left for others.
    fn settle(&mut self) {
        while let Some(effect) = self.ctx.out.pop_front() {
            match effect {
                Effect::Concluded(key, SessionEvent::Connected) => self.connected(key),
                Effect::Concluded(key, event) => self.deliver(key, event),
                Effect::Arm(key) => self.arm(key),
                Effect::Starved => self.starve(self.ctx.now()),
                Effect::MakeRoom(key) => {
                    self.ctx.counters.made_room.add(1);
                    self.ctx.engine.forsake(key);
                    self.cut(key, Cause::MadeRoom);
                }
            }
        }
    }

    // Sessions.

    fn is_ahead(&self, key: SessionKey) -> bool {
        self.ctx.sessions.ahead_count() > 0 && self.ctx.sessions.ahead(key).is_some()
    }

    /// Hands an event to a session and carries out what it asks for, until it
    /// asks for nothing more.
    fn deliver(&mut self, key: SessionKey, event: SessionEvent) {
        let now = self.ctx.engine.now();
        let Some(entry) = self.ctx.sessions.get_mut(key) else {
            self.ctx.counters.stale_events.add(1);
            return;
        };
        let rules = entry.listener.forward.rules;
        let mut actions = std::mem::take(&mut self.actions);
        actions.clear();
        entry.session.on(event, now, &rules, &mut actions);
        self.carry_out(key, &mut actions);
        self.actions = actions;
    }

    /// Carries out a session's actions; what comes of them may add more.
    fn carry_out(&mut self, key: SessionKey, actions: &mut Vec<Action>) {
        let now = self.ctx.engine.now();
        let mut next = 0;
        while let Some(action) = actions.get(next).copied() {
            next += 1;
            let event = match action {
                Action::Read => self.openings.read(&mut self.ctx, key),
                Action::Decide => {
                    self.introduce(key);
                    self.openings.decide(&mut self.ctx, key)
                }
                Action::Say => Openings::say(&mut self.ctx, key),
                Action::Conclude => {
                    self.ctx.engine.conclude(key, Side::Client);
                    None
                }
                Action::Dial { .. } => match self.dialler.dial(&mut self.ctx, key) {
                    Some(SessionEvent::Connected) => Some(self.told_first(key)),
                    event => event,
                },
                Action::Prefix => Dialler::prefix(&mut self.ctx, key),
                Action::Pump(direction) => self.pump(key, direction),
                Action::Drop(direction) => {
                    self.ctx.engine.drop_held(key, direction);
                    None
                }
                Action::Look => Some(SessionEvent::Looked {
                    unsent: self.ctx.engine.unsent(key),
                }),
                Action::Close { side, how } => self.close(key, side, how),
                Action::End => return self.finish(key),
            };
            let Some(entry) = self.ctx.sessions.get_mut(key) else {
                return;
            };
            if let Some(event) = event {
                let rules = &entry.listener.forward.rules;
                entry.session.on(event, now, rules, actions);
            }
        }
        self.arm(key);
    }

    fn connect_failed(&mut self, key: SessionKey, cause: Cause) {
        self.dialler.connect_failed_at(&mut self.ctx, key, cause);
        self.deliver(key, SessionEvent::ConnectFailed(cause));
    }

    fn close(
        &mut self,
        key: SessionKey,
        side: Side,
        how: crate::relay::session::Close,
    ) -> Option<SessionEvent> {
        self.outlets.leg_closes(key, side, &mut self.ctx);
        if side == Side::Upstream {
            self.dialler.end_race(&mut self.ctx, key);
        }
        match self.ctx.engine.close(key, side, how) {
            Start::Done(()) => Some(SessionEvent::Closed(side)),
            Start::Pending => None,
        }
    }

    /// Datagrams before bulk, and both before who is new: a share of them takes less than a
    /// millisecond.
    fn serve_datagrams(&mut self) {
        if self.flows.due() <= self.ctx.now() {
            self.flows.serve(&mut self.ctx, &mut self.dialler.pools);
            self.settle();
        }
    }

    /// Lets sessions that wait have servers with room, in order. Looks at those pools
    /// only where somebody waits.
    fn serve_queues(&mut self) {
        let now = self.ctx.now();
        for pool in self.dialler.lines_due(now) {
            let mut turn = self.dialler.begin_line(pool);
            while let Some(key) = self.dialler.next_in_line(&mut self.ctx, pool, &mut turn) {
                self.deliver(key, SessionEvent::Dequeued);
            }
            self.dialler.end_line(pool, turn, now);
        }
    }

    /// Replaces spares that were taken or have worn out.
    fn keep_warm(&mut self) {
        if !self.draining {
            let starved = self.listen_queue.is_starved(self.ctx.now());
            self.dialler.keep_warm(&mut self.ctx, starved);
        }
    }

    /// Who the client is was announced: only now the session is shown.
    fn introduce(&mut self, key: SessionKey) {
        let entry = self.ctx.sessions.get(key);
        if entry.is_some_and(|it| it.listener.forward.announced) {
            self.outlets.begin(key, &mut self.ctx);
        }
    }

    /// A connection stands before its connect returned: what the session is told of it. No
    /// ACK waits, but what the upstream is told first may.
    fn told_first(&mut self, key: SessionKey) -> SessionEvent {
        let event = self.dialler.connected(&mut self.ctx, key);
        if event != SessionEvent::Connected {
            self.owe_ack(key);
        }
        event
    }
}
