//! What other threads may see of a reactor, and do to it: by visits, each within one of
//! its turns.
//!
//! A visit is short. What grows with sessions or listeners is done in slices, one a turn, each
//! of which says where the next one begins, so that a reactor is never held for long by
//! whoever looks (behaviour 143). Slots keep their order: a session that lives through
//! all slices is in exactly one of them.

use std::time::Duration;

use super::destination::Destination;
use super::ends::settle;
use super::flows::FlowSeen;
use super::{Entry, Reactor};
use super::{metered, rates};
use crate::engine::{Datagrams, SessionKey};
use crate::net::word::Word;
use crate::observe::counters::Snapshot;
use crate::observe::tap::Source;
use crate::relay::ending::Cause;
use crate::relay::id::{ForwardId, ListenerId};
use crate::relay::{Direction, Side};

mod filter;
mod seen;

pub use super::outlets::Onlooker;
pub use filter::SessionFilter;
pub use seen::{Depth, LaneView, ListenerView, SessionView, Slice};

/// Slots that a visit looks at: some 15 µs. Whoever has more to see comes again in the next
/// turn, which costs two or three: far less than a session should wait.
const SLOTS: u32 = 256;

/// Flows of datagrams have the slots from here on.
const FLOWS: u32 = 1 << 31;

/// Sessions that a visit asks the kernel about: some 4 µs each, with both legs.
const ASKED: usize = 8;

/// Sessions that a visit ends: some 10 µs each.
const CUT: usize = 4;

/// Sessions that a visit begins to show: some 3 µs each.
const SHOWN: usize = 8;

/// Listeners that a visit asks the kernel about: some 1.7 µs each.
const LISTENERS: usize = 8;

/// Where listeners begin for [`Inspect::settle`].
const QUEUES: u32 = 1 << 31;

/// Where ports for datagrams begin, behind listeners.
const PORTS: u32 = 3 << 30;

/// Between two times that visitors have every listener asked what it dropped.
const QUEUES_EVERY: Duration = Duration::from_secs(1);

/// What a visitor has before it. See the module's documentation.
pub trait Inspect {
    /// The counters of this moment, consistent in themselves, the gauges up to date.
    fn counters(&mut self) -> Snapshot;

    /// Enters what live sessions have moved in the books of their forwards and servers,
    /// from this slot on, and then what queues of listeners have dropped; where the next
    /// visit goes on.
    fn settle(&mut self, from: u32) -> Option<u32>;

    /// Sessions from this slot on.
    fn sessions(&mut self, from: u32, filter: &SessionFilter, depth: Depth) -> Slice<SessionView>;

    /// These sessions, those of them that live yet; [`SESSIONS_MAX`] at the most.
    fn these(&mut self, keys: &[SessionKey]) -> Vec<SessionView>;

    /// Ends sessions from this slot on with a reset to both sides; the numbers of those
    /// that were ended.
    fn kill(&mut self, from: u32, filter: &SessionFilter) -> Slice<u64>;

    /// Shows sessions to come to somebody; `false`: that is done already.
    fn look_on(&mut self, onlooker: Onlooker) -> bool;

    /// Shows sessions that run, from this slot on, to somebody from now on; their numbers.
    fn look_at(&mut self, from: u32, filter: &SessionFilter, source: &Source) -> Slice<u64>;

    /// Forgets those who look no more.
    fn look_away(&mut self);

    /// Listeners from this slot on, and behind them ports for datagrams.
    fn listeners(&mut self, from: u32) -> Slice<ListenerView>;

    /// Lets nobody in at the listeners of a forward any more. Its sessions go on.
    fn stop_listening(&mut self, forward: ForwardId);
}

/// How many sessions [`Inspect::these`] looks at.
pub const SESSIONS_MAX: usize = ASKED;

impl<E: Datagrams> Inspect for Reactor<E> {
    fn counters(&mut self) -> Snapshot {
        self.publish_gauges();
        self.ctx.counters.snapshot()
    }

    fn settle(&mut self, from: u32) -> Option<u32> {
        if let Some(from) = from.checked_sub(QUEUES) {
            return self.ask_queues(from).map(|next| QUEUES + next);
        }
        let reactor = self.ctx.reactor;
        let (until, next) = self.session_slots(from);
        for slot in from..until {
            if let Some(key) = self.ctx.sessions.key_of(slot)
                && let Some(entry) = self.ctx.sessions.get_mut(key)
            {
                settle(entry, reactor);
            }
        }
        next.or_else(|| {
            let now = self.ctx.now();
            let asked = self.queues_asked;
            let due = asked.is_none_or(|at| now.since(at) >= QUEUES_EVERY);
            due.then(|| {
                self.queues_asked = Some(now);
                QUEUES
            })
        })
    }

    fn sessions(&mut self, from: u32, filter: &SessionFilter, depth: Depth) -> Slice<SessionView> {
        if from >= FLOWS {
            return self.flows_seen(from - FLOWS, filter);
        }
        let now = self.ctx.now();
        let (until, mut next) = self.slots(from);
        let mut items = Vec::new();
        for slot in from..until {
            if depth == Depth::Kernel && items.len() == ASKED {
                next = Some(slot);
                break;
            }
            let key = self.ctx.sessions.key_of(slot);
            let entry = key.and_then(|key| Some((key, self.ctx.sessions.get(key)?)));
            if let Some((key, entry)) = entry
                && filter.takes(entry, now)
            {
                items.push(self.view(key, entry, depth));
            }
        }
        Slice { items, next }
    }

    fn these(&mut self, keys: &[SessionKey]) -> Vec<SessionView> {
        let keys = keys.iter().take(SESSIONS_MAX);
        let seen = keys.filter_map(|key| {
            if key.slot >= FLOWS {
                let flow = self.flows.seen(key.slot - FLOWS)?;
                return (flow.key.generation == key.generation).then(|| self.flow_view(flow));
            }
            let entry = self.ctx.sessions.get(*key)?;
            Some(self.view(*key, entry, Depth::Kernel))
        });
        seen.collect()
    }

    fn kill(&mut self, from: u32, filter: &SessionFilter) -> Slice<u64> {
        if from >= FLOWS {
            return self.kill_flows(from - FLOWS, filter);
        }
        let now = self.ctx.now();
        let (until, mut next) = self.slots(from);
        let mut items = Vec::new();
        for slot in from..until {
            if items.len() == CUT {
                next = Some(slot);
                break;
            }
            let key = self.ctx.sessions.key_of(slot);
            let entry = key.and_then(|key| Some((key, self.ctx.sessions.get(key)?)));
            if let Some((key, entry)) = entry
                // One that is ending already has its cause.
                && entry.session.ending().is_none()
                && filter.takes(entry, now)
            {
                items.push(entry.id.id());
                self.cut(key, Cause::Killed);
            }
        }
        self.settle();
        Slice { items, next }
    }

    fn look_on(&mut self, onlooker: Onlooker) -> bool {
        self.outlets.look_on(onlooker)
    }

    fn look_at(&mut self, from: u32, filter: &SessionFilter, source: &Source) -> Slice<u64> {
        let now = self.ctx.now();
        let (until, mut next) = self.session_slots(from);
        let mut items = Vec::new();
        for slot in from..until {
            if items.len() == SHOWN {
                next = Some(slot);
                break;
            }
            let key = self.ctx.sessions.key_of(slot);
            let entry = key.and_then(|key| Some((key, self.ctx.sessions.get(key)?)));
            if let Some((key, entry)) = entry
                && entry.session.ending().is_none()
                && filter.takes(entry, now)
            {
                items.push(entry.id.id());
                self.outlets.look_at(key, source, &mut self.ctx);
            }
        }
        Slice { items, next }
    }

    fn look_away(&mut self) {
        self.outlets.look_away();
    }

    fn listeners(&mut self, from: u32) -> Slice<ListenerView> {
        if let Some(from) = from.checked_sub(PORTS) {
            return self.ports(from as usize);
        }
        let (listen_queue, engine) = (&self.listen_queue, &mut self.ctx.engine);
        let mut sockets = listen_queue.sockets(from);
        let seen = sockets.by_ref().take(LISTENERS).map(|(key, listener)| {
            let queue = engine.accept_queue(key).unwrap_or_default();
            ListenerView {
                listener: listener.clone(),
                queued: queue.queued,
                backlog: queue.backlog,
                dropped: queue.dropped,
            }
        });
        let items = seen.collect();
        let next = sockets.next().map(|(key, _)| key.slot);
        let ports = (self.flows.ports_count() > 0).then_some(PORTS);
        Slice {
            items,
            next: next.or(ports),
        }
    }

    fn stop_listening(&mut self, forward: ForwardId) {
        let listeners = self.listen_queue.sockets(0).map(|(_, listener)| listener);
        let of_it = listeners.filter(|it| it.forward.id == forward);
        let ids: Vec<ListenerId> = of_it.map(|it| it.id).collect();
        for id in ids {
            drop(self.remove_listener(id));
        }
        // Flows answer from the socket that their clients ask at.
        self.flows.leave_forward(forward, &mut self.ctx);
    }
}

impl<E: Datagrams> Reactor<E> {
    /// Somebody was here, for so much CPU time.
    pub fn was_visited(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.ctx.counters.visit_cpu.record(micros);
    }

    /// Where the visit that begins at this slot ends, and where the next one begins: behind
    /// the last session come the flows, where there are any.
    fn slots(&self, from: u32) -> (u32, Option<u32>) {
        let (until, next) = self.session_slots(from);
        let flows = (self.flows.len() > 0).then_some(FLOWS);
        (until, next.or(flows))
    }

    /// Ports for datagrams from the `from`-th on.
    fn ports(&mut self, from: usize) -> Slice<ListenerView> {
        let ports = self.flows.listeners(&self.ctx, (from, LISTENERS));
        let seen = ports.into_iter().map(|(listener, dropped)| ListenerView {
            listener,
            queued: None,
            backlog: None,
            dropped: Some(dropped),
        });
        let end = from + LISTENERS;
        let next = (end < self.flows.ports_count()).then(|| PORTS + end as u32);
        Slice {
            items: seen.collect(),
            next,
        }
    }

    /// Asks the kernel what queues of listeners dropped, from this one on; which is next. Ports
    /// for datagrams stand behind the others.
    pub(super) fn ask_queues(&mut self, from: u32) -> Option<u32> {
        const FIRST_PORT: u32 = PORTS - QUEUES;
        if let Some(from) = from.checked_sub(FIRST_PORT) {
            let part = (from as usize, LISTENERS);
            let next = self.flows.count_drops(part, &self.ctx)?;
            return Some(FIRST_PORT + next as u32);
        }
        let (listen_queue, engine) = (&self.listen_queue, &mut self.ctx.engine);
        let mut sockets = listen_queue.sockets(from);
        for (key, _) in sockets.by_ref().take(LISTENERS) {
            engine.accept_queue(key);
        }
        let next = sockets.next().map(|(key, _)| key.slot);
        Some(next.unwrap_or(FIRST_PORT))
    }

    fn session_slots(&self, from: u32) -> (u32, Option<u32>) {
        let slots = self.ctx.sessions.slots();
        let until = from.saturating_add(SLOTS).min(slots);
        (until, (until < slots).then_some(until))
    }

    fn flow_slots(&self, from: u32) -> (u32, Option<u32>) {
        let slots = self.flows.slots();
        let until = from.saturating_add(SLOTS).min(slots);
        (until, (until < slots).then_some(until + FLOWS))
    }

    fn flows_seen(&self, from: u32, filter: &SessionFilter) -> Slice<SessionView> {
        let now = self.ctx.now();
        let (until, next) = self.flow_slots(from);
        let flows = (from..until).filter_map(|slot| self.flows.seen(slot));
        let taken = flows.filter(|flow| filter.takes_flow(flow, now));
        let items = taken.map(|flow| self.flow_view(flow)).collect();
        Slice { items, next }
    }

    fn kill_flows(&mut self, from: u32, filter: &SessionFilter) -> Slice<u64> {
        let now = self.ctx.now();
        let (until, mut next) = self.flow_slots(from);
        let mut items = Vec::new();
        for slot in from..until {
            if items.len() == CUT {
                next = Some(slot + FLOWS);
                break;
            }
            if let Some(flow) = self.flows.seen(slot)
                && filter.takes_flow(&flow, now)
            {
                items.push(flow.id);
                self.flows.cut(&mut self.ctx, slot, Cause::Killed);
            }
        }
        self.settle();
        Slice { items, next }
    }

    fn flow_view(&self, flow: FlowSeen) -> SessionView {
        let now = self.ctx.now();
        SessionView {
            key: SessionKey {
                slot: flow.key.slot + FLOWS,
                ..flow.key
            },
            reactor: self.ctx.reactor,
            id: flow.id,
            phase: if flow.answered {
                "Relaying"
            } else {
                "Unanswered"
            },
            client: flow.client,
            listener: flow.at,
            destination: Some(Destination::Server(flow.server)),
            target: None,
            user: None,
            sni: None,
            route: None,
            now,
            age: now.since(flow.started),
            connect: None,
            first_byte: flow.first_answer,
            lanes: flow.traffic.map(|it| LaneView {
                bytes: it.bytes,
                ..LaneView::default()
            }),
            rates: flow.rates,
            held_back: None,
            tcp: [None; 2],
            datagrams: Some(flow.traffic),
        }
    }

    fn view(&self, key: SessionKey, entry: &Entry, depth: Depth) -> SessionView {
        let session = &entry.session;
        let now = self.ctx.now();
        let opened = entry.aside.opened();
        let text = |text: Option<&str>| text.map(str::to_owned);
        let asked = depth == Depth::Kernel;
        let meters = rates::meters(entry);
        let tcp = |side| asked.then(|| self.ctx.engine.tcp_info(key, side)).flatten();
        SessionView {
            key,
            reactor: self.ctx.reactor,
            id: entry.id.id(),
            phase: session.phase(),
            client: entry.client.get(),
            listener: entry.listener.clone(),
            destination: entry.destination.clone(),
            target: opened.and_then(|it| text(it.target.as_deref())),
            user: opened.and_then(|it| text(it.user.as_deref())),
            sni: opened
                .and_then(|it| it.sniffed()?.server_name.as_deref())
                .map(|name| Word(name.as_bytes()).to_string()),
            route: opened.and_then(|it| it.route(entry)),
            now,
            age: now.since(session.started()),
            connect: session.connect_time(),
            first_byte: session.first_byte_time(),
            lanes: Direction::BOTH.map(|direction| {
                let lane = session.lane(direction);
                LaneView {
                    bytes: lane.bytes_out(),
                    held: lane.held(),
                    spliced: lane.has_spliced(),
                    ended: lane.source_ended(),
                    stalled: lane.is_stalled(),
                }
            }),
            rates: metered::listed(entry.grant.as_deref()),
            held_back: meters.map(|it| it.held(now)),
            tcp: [tcp(Side::Client), tcp(Side::Upstream)],
            datagrams: None,
        }
    }
}
