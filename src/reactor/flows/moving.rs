//! Flows that leave for another process, and flows that come from the one before: each with
//! its socket, so that its server sees the same port, and with whatever waits in that socket.
//!
//! ```text
//!  Flows::release ─► MovedFlow ────────────────────► Expected ─┐ (this process)
//!                       │ manifest, socket                     ├─► settled in when its port is here
//!                       ▼                                      │
//!                   FlowArrival ◄─ a place by names ► Expected ─┘ (the next process)
//! ```
//! A flow answers from the port that its client asked at. So those that have come wait for
//! that port, and are here before the first datagram of it is read: no client of theirs is
//! taken for a new one.
//!
//! Invariants: between two turns nothing of a flow is anywhere but in its sockets; what it
//! counts by is given back once, here when it has ended or has left for good.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Flows;
use super::announced;
use super::calling::settle;
use super::heading::{Client, Heading};
use super::homes::FlowName;
use super::table::{FlowEntry, Owner};
use crate::balance::health::Admission;
use crate::engine::{DatagramKey, Datagrams};
use crate::net::address::Endpoint;
use crate::net::datagram::LocalAddress;
use crate::reactor::context::Ctx;
use crate::reactor::gate::Gate;
use crate::reactor::hand_over::CameIn;
use crate::reactor::setup::Listener;
use crate::reactor::upstream::Pools;
use crate::reactor::upstream::pass::Comer;
use crate::reactor::upstream::server::Server;
use crate::relay::flow::Flow;
use crate::relay::flow::frozen::FlowState;
use crate::relay::time::Time;

/// What one process tells another of a flow that moves, as plain data; see `Manifest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowManifest {
    /// Where, and as what.
    #[serde(flatten)]
    pub came_in: CameIn,
    /// The kernel's name of the socket that it came in by, the same in every process.
    #[serde(default)]
    pub port: u64,
    /// Who sends, and to which address of this host.
    pub client: SocketAddr,
    /// See `client`.
    #[serde(default)]
    pub local: Option<LocalAddress>,
    /// Who a PROXY header said the client is, if one did.
    #[serde(default)]
    announced: Option<Client>,
    /// A PROXY header that the first datagram has: whether that has left.
    #[serde(default)]
    headed: Option<bool>,
    /// Where its socket is connected to, and in which pool that server is.
    pub server: Endpoint,
    /// See `server`.
    pub pool: String,
    /// The server has got its verdict for it.
    #[serde(default)]
    proven: bool,
    /// Datagrams each way leave singly.
    #[serde(default)]
    singly: [bool; 2],
    /// How it is.
    state: FlowState,
    /// The kernel's name of its own socket.
    #[serde(default)]
    pub cookie: u64,
    /// Of the datagrams that its receive queue lost, those that were counted.
    #[serde(default)]
    drops: Option<u32>,
}

/// A flow without a reactor. Dropped, it has left this process for good.
#[derive(Debug)]
pub struct MovedFlow<C = OwnedFd> {
    /// What is told of it to another process.
    pub manifest: FlowManifest,
    /// Its socket.
    pub call: C,
    kept: KeptFlow,
}

impl<C> MovedFlow<C> {
    /// The listening socket that it came in by.
    pub const fn at(&self) -> &Arc<Listener> {
        &self.kept.at
    }
}

/// What a flow counts by in this process. Dropped, it counts no more.
#[derive(Debug)]
struct KeptFlow {
    /// `None`: it is in a reactor again.
    entry: Option<FlowEntry>,
    at: Arc<Listener>,
    gate: Arc<Gate>,
    when: Time,
}

impl Drop for KeptFlow {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            entry.count_out(&self.gate, self.when);
        }
    }
}

/// A flow of another process, with the place that it has in this one.
#[derive(Debug)]
pub struct FlowArrival<C = OwnedFd> {
    /// What was told of it.
    pub manifest: FlowManifest,
    /// Its socket.
    pub call: C,
    /// The listening socket that it came in by.
    pub at: Arc<Listener>,
    /// The forward that it goes by: that one, or one of its ways.
    pub by: Arc<Listener>,
    /// Its server.
    pub server: Arc<Server>,
}

/// What has come of letting flows go.
#[derive(Debug)]
pub struct ReleasedFlows<C = OwnedFd> {
    /// Those that have left.
    pub moved: Vec<MovedFlow<C>>,
    /// Flows that are still in the reactor.
    pub left: usize,
    /// The highest number that a flow of it has had.
    pub last_id: u64,
}

/// No socket has this key.
const NOWHERE: DatagramKey = DatagramKey {
    slot: u32::MAX,
    generation: u32::MAX,
};

/// One that waits for its port.
#[expect(
    clippy::large_enum_variant,
    reason = "they live no longer than an upgrade"
)]
#[derive(Debug)]
pub(in crate::reactor) enum Expected<C> {
    Arrival(FlowArrival<C>),
    Back(MovedFlow<C>),
}

impl<C> Expected<C> {
    const fn at(&self) -> &Arc<Listener> {
        match self {
            Self::Arrival(it) => &it.at,
            Self::Back(it) => &it.kept.at,
        }
    }

    const fn drops(&self) -> Option<u32> {
        match self {
            Self::Arrival(it) => it.manifest.drops,
            Self::Back(it) => it.manifest.drops,
        }
    }
}

impl Flows {
    /// Lets flows go, so many at the most: some microseconds each.
    pub(in crate::reactor) fn release<E: Datagrams>(
        &mut self,
        at_most: usize,
        ctx: &mut Ctx<E>,
    ) -> ReleasedFlows<E::Call> {
        // What was posted leaves by the sockets that are still here.
        self.flush(ctx);
        let mut moved = Vec::new();
        for slot in self.table.slots().into_iter().take(at_most) {
            moved.extend(self.take_out(slot, ctx));
        }
        ReleasedFlows {
            moved,
            left: self.table.len(),
            last_id: self.started,
        }
    }

    fn take_out<E: Datagrams>(
        &mut self,
        slot: u32,
        ctx: &mut Ctx<E>,
    ) -> Option<MovedFlow<E::Call>> {
        let entry = self.table.get(slot)?;
        let (port, socket) = (entry.port, entry.socket);
        let at = self.owners.port_mut(port)?.at.clone();
        self.count_queue_drops(socket, ctx);
        let drops = self.owners.get_mut(socket).map(|it| it.drops);
        let call = ctx.engine.let_go(socket)?;
        self.owners.remove(socket);
        let entry = self.forget(slot)?;
        if let Some(port) = self.owners.port_mut(port) {
            port.flows = port.flows.saturating_sub(1);
        }
        self.close_if_done(port, ctx);
        let now = ctx.now();
        Some(MovedFlow {
            manifest: FlowManifest {
                drops,
                ..entry.manifest(now)
            },
            call,
            kept: KeptFlow {
                entry: Some(entry),
                at,
                gate: self.gate.clone(),
                when: now,
            },
        })
    }

    /// Nobody finds it any more. What it counts by is the caller's matter.
    pub(super) fn forget(&mut self, slot: u32) -> Option<FlowEntry> {
        let entry = self.table.remove(slot)?;
        self.forget_home(&entry.name);
        self.wheel.disarm(slot);
        self.crowd.leave(slot);
        if self.last.is_some_and(|(_, last)| last == slot) {
            self.last = None;
        }
        Some(entry)
    }

    /// The numbers of flows to come are above this one.
    pub(in crate::reactor) fn number_from(&mut self, last_id: u64) {
        self.started = self.started.max(last_id);
    }

    /// A port is here, and those that wait for it.
    pub(in crate::reactor) fn settle_in<E: Datagrams>(
        &mut self,
        at: &Listener,
        expected: &mut Vec<Expected<E::Call>>,
        ctx: &mut Ctx<E>,
        pools: &mut Pools,
    ) {
        let is_its =
            |it: &mut Expected<E::Call>| (it.at().id, it.at().socket) == (at.id, at.socket);
        let its: Vec<_> = expected.extract_if(.., is_its).collect();
        let any = !its.is_empty();
        for one in its {
            let Some(port) = self.port_of(at) else {
                return;
            };
            let drops = one.drops();
            let (entry, call) = match one {
                Expected::Arrival(arrival) => self.entry(arrival, pools, ctx.now()),
                Expected::Back(mut moved) => match moved.kept.entry.take() {
                    Some(entry) => (entry, moved.call),
                    None => continue,
                },
            };
            self.settle_one(port, entry, (call, drops), ctx);
        }
        if any {
            // Another number of reactors may have its datagrams come elsewhere.
            self.note_homes(&[at.id]);
        }
    }

    fn settle_one<E: Datagrams>(
        &mut self,
        port: DatagramKey,
        mut entry: FlowEntry,
        (call, drops): (E::Call, Option<u32>),
        ctx: &mut Ctx<E>,
    ) {
        let now = ctx.now();
        let Ok(socket) = ctx.engine.take_up(call) else {
            // Its client's next datagram begins another one.
            ctx.counters.udp_flows_ended.add(1);
            return entry.count_out(&self.gate, now);
        };
        entry.port = port;
        entry.socket = socket;
        let forward = entry.at.forward.id.number();
        let rules = entry.at.forward.datagrams.as_ref();
        let deadline = rules.map_or(now, |rules| entry.flow.deadline(&rules.flow));
        let answered = entry.proven;
        let Some(slot) = self.table.insert(entry) else {
            return ctx.engine.hang_up(socket);
        };
        self.owners.insert(socket, Owner::Flow(slot));
        // Whoever had it does not always say what was counted so far.
        let drops = drops.unwrap_or_else(|| ctx.engine.queue_drops(socket));
        if let Some(its) = self.owners.get_mut(socket) {
            its.drops = drops;
        }
        if let Some(port) = self.owners.port_mut(port) {
            port.flows += 1;
        }
        if !answered {
            self.crowd.enter(forward, slot);
        }
        self.arm(slot, deadline, now);
        // What came meanwhile raises no event with every kernel.
        self.is_ready(socket);
    }

    /// A flow of another process as one of this one. None is refused for a limit: they were
    /// let in.
    fn entry<C>(&self, arrival: FlowArrival<C>, pools: &mut Pools, now: Time) -> (FlowEntry, C) {
        let FlowArrival {
            manifest,
            call,
            at,
            by,
            server,
        } = arrival;
        let name = FlowName {
            listener: at.id,
            client: manifest.client,
            local: manifest.local,
        };
        let whom = manifest
            .announced
            .unwrap_or_else(|| announced::sender(&by, &name));
        let forward = &by.forward;
        self.gate.take_in();
        if let Some(gate) = &forward.gate {
            gate.take_in();
        }
        let rules = forward.datagrams.as_ref();
        if let Some(gate) = rules.and_then(|it| it.gate.as_ref()) {
            gate.take_in();
        }
        server.standing.take_in(now);
        let policy = forward.clients.as_ref();
        let mut permit = policy.and_then(|it| it.readmit(Some(whom.source.ip()), None, now));
        let clients = pools.get_mut(forward.pool);
        let clients = clients.and_then(|it| it.setup.clients.clone());
        let client = Endpoint::Inet(whom.source);
        let place = Comer::new(&client).place_again(&server, clients.as_ref());
        settle(&mut permit, &server, place, forward);
        let heading = heading(&server, &manifest, &whom);
        let entry = FlowEntry {
            flow: Flow::thaw(&manifest.state, now),
            name,
            id: manifest.came_in.id,
            reactor: manifest.came_in.reactor,
            port: NOWHERE,
            socket: NOWHERE,
            server,
            admission: Admission::Free,
            // Whatever set it was chosen from: it is looked at with the next datagram.
            version: u32::MAX,
            proven: manifest.proven,
            singly: manifest.singly,
            announced: manifest.announced.map(Box::new),
            heading,
            permit,
            at: by,
        };
        (entry, call)
    }
}

/// What the datagrams of a flow that has come begin with, by the pool that it has here.
fn heading(server: &Server, manifest: &FlowManifest, whom: &Client) -> Option<Box<Heading>> {
    let place = (manifest.came_in.reactor, manifest.came_in.id);
    let mut heading = Heading::of(server, whom, place)?;
    if let (Some(said), Some(was)) = (&mut heading.said, manifest.headed) {
        *said = was;
    }
    Some(heading)
}

impl FlowEntry {
    fn manifest(&self, now: Time) -> FlowManifest {
        FlowManifest {
            came_in: CameIn::at(&self.at, (self.reactor, self.id)),
            port: 0,
            client: self.name.client,
            local: self.name.local,
            announced: self.announced.as_deref().copied(),
            headed: self.heading.as_ref().and_then(|it| it.said),
            server: self.server.endpoint().clone(),
            pool: self.server.settings().pool.to_string(),
            proven: self.proven,
            singly: self.singly,
            state: self.flow.freeze(now),
            cookie: 0,
            drops: None,
        }
    }

    /// It counts no more where it was let in.
    pub(super) fn count_out(&self, gate: &Gate, now: Time) {
        let forward = &self.at.forward;
        gate.leave();
        if let Some(gate) = &forward.gate {
            gate.leave();
        }
        let rules = forward.datagrams.as_ref();
        if let Some(gate) = rules.and_then(|rules| rules.gate.as_ref()) {
            gate.leave();
        }
        if !self.proven {
            self.server.standing.abandoned(self.admission, now);
        }
        self.server.standing.leave(now);
    }
}
