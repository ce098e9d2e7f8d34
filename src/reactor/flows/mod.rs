//! Datagrams: the part of a reactor that has flows instead of sessions.
//!
//! ```text
//!  clients ─► port (listener's socket) ─► flow ─► its own socket, connected ─► server
//!          ◄──── from the address asked ◄────── its answers, and nobody else's ◄──┘
//! ```
//! Owns the ports, the flows and their sockets, who of them is to be read next, their timers,
//! and sockets that outlive their flows a little, so that a late answer finds nobody else.
//! Shares with sessions: forwards, access lists and limits, pools and what is known of their
//! servers, records, metrics.
//!
//! A turn's share of it is bounded, each socket has a share of that, and what has more stands
//! behind the others: neither a flood nor one fast flow keeps anybody waiting.
//!
//! Invariants: a flow has one socket, and is counted as active at one server; whatever is
//! not passed on is counted once, by [`why::Why`].

mod announced;
mod calling;
mod ending;
mod heading;
pub(super) mod homes;
mod inspecting;
mod moving;
mod opening;
mod passing;
mod ports;
mod resting;
mod strayed;
mod table;
mod why;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::engine::datagrams::Outcome;
use crate::engine::wheel::Wheel;
use crate::engine::{DatagramKey, Datagrams};
use crate::net::own::OwnListeners;
use crate::observe::record::Records;
use crate::relay::flow::crowd::Crowd;
use crate::relay::time::Time;

use super::context::Ctx;
use super::gate::Gate;
use super::loops::Loops;
use super::upstream::Pools;
use homes::FlowName;
pub use homes::Homes;
use homes::Mailbox;
pub(super) use inspecting::FlowSeen;
pub(super) use moving::Expected;
pub use moving::{FlowArrival, FlowManifest, MovedFlow, ReleasedFlows};
use opening::Looks;
use resting::Resting;
use table::{FlowTable, Owner, Owners, QUIET_FLOW_TRAINS};

/// Trains that are received in one turn, over all sockets: a third of a millisecond of
/// datagrams, or of trains somewhat more. Sessions wait for no more than that.
const TURN_TRAINS: usize = 256;

/// Of them from one port before the next socket has its turn.
const PORT_TRAINS: usize = 64;

/// With less room what was received is sent on first.
const ROOM_LEAST: usize = 16;

/// Timers of flows fire late by at most this part of their time, and this long.
const COARSENESS: u32 = 32;
const COARSE_MAX: std::time::Duration = std::time::Duration::from_millis(50);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Flows {
    table: FlowTable,
    owners: Owners,
    /// Every port, in the order they came.
    ports: Vec<DatagramKey>,
    /// Who of the unanswered makes room, by forward.
    crowd: Crowd,
    wheel: Wheel,
    /// Sockets to be read, in turn.
    ready: VecDeque<DatagramKey>,
    /// Sockets of flows that are over.
    resting: Resting,
    /// Over all forwards and reactors: flows that descriptors allow.
    gate: Arc<Gate>,
    /// Where the flows of clients are whose datagrams come to other reactors.
    homes: Arc<Homes>,
    mailbox: Option<Arc<Mailbox>>,
    reactor: u16,
    loops: Loops,
    records: Records,
    draining: bool,
    started: u64,
    /// The flow that the last datagram of a client belonged to: the next one often does.
    last: Option<(FlowName, u32)>,
    // Reused from turn to turn.
    outcomes: Vec<Outcome>,
    fired: Vec<u32>,
    openings: Looks,
    /// A datagram with its header.
    scratch: Vec<u8>,
    /// Flows that are complete once what is posted has left.
    complete: Vec<u32>,
}

impl Flows {
    pub(super) fn new(
        (gate, homes, reactor): (Arc<Gate>, Arc<Homes>, u16),
        own: Arc<OwnListeners>,
        records: Records,
    ) -> Self {
        Self {
            table: FlowTable::default(),
            owners: Owners::default(),
            ports: Vec::new(),
            crowd: Crowd::default(),
            wheel: Wheel::new(),
            ready: VecDeque::new(),
            resting: Resting::default(),
            gate,
            mailbox: homes.mailbox(reactor),
            homes,
            reactor,
            loops: Loops::new(own),
            records,
            draining: false,
            started: 0,
            last: None,
            outcomes: Vec::new(),
            fired: Vec::new(),
            openings: Looks::default(),
            scratch: Vec::new(),
            complete: Vec::new(),
        }
    }

    /// Flows that live.
    pub(super) const fn len(&self) -> usize {
        self.table.len()
    }

    /// Other records from now on.
    pub(super) const fn set_records(&mut self, records: Records) {
        self.records = records;
    }

    /// A socket has something to read.
    pub(super) fn is_ready(&mut self, key: DatagramKey) {
        if let Some(socket) = self.owners.get_mut(key)
            && !std::mem::replace(&mut socket.queued, true)
        {
            self.ready.push_back(key);
        }
    }

    /// When it has something to do by itself; a time that has passed is now.
    pub(super) fn due(&self) -> Time {
        if !self.ready.is_empty() || self.has_mail() {
            return Time::ZERO;
        }
        let opening = self.openings.due();
        self.wheel.next().min(opening).min(self.resting.due())
    }

    /// A share of what there is to read, and what is due.
    pub(super) fn serve<E: Datagrams>(&mut self, ctx: &mut Ctx<E>, pools: &mut Pools) {
        if self.has_mail() {
            self.take_mail(ctx, pools);
        }
        let mut left = TURN_TRAINS;
        while left > 0
            && let Some(key) = self.ready.pop_front()
        {
            let Some(socket) = self.owners.get_mut(key) else {
                continue;
            };
            socket.queued = false;
            if ctx.engine.room() < ROOM_LEAST {
                self.flush_all(ctx);
            }
            let Some(socket) = self.owners.get_mut(key) else {
                continue;
            };
            let (most, was_busy) = (left.min(ctx.engine.room()), socket.is_busy());
            let (asked, received) = match socket.owner {
                Owner::Port(_) => {
                    let asked = most.min(PORT_TRAINS);
                    (asked, self.read_port(ctx, pools, key, asked))
                }
                Owner::Flow(slot) => {
                    let asked = most.min(socket.share());
                    (asked, self.read_flow(ctx, pools, (key, slot), asked))
                }
                Owner::Over => (QUIET_FLOW_TRAINS, self.read_retired(ctx, key)),
            };
            left = left.saturating_sub(received.count.max(1));
            if let Some(socket) = self.owners.get_mut(key) {
                socket.came(asked, received.count);
                // Of those that are never full it is asked when they are closed.
                let was_full = was_busy || socket.is_busy();
                if was_full && !received.more && matches!(socket.owner, Owner::Flow(_)) {
                    self.count_queue_drops(key, ctx);
                }
                if received.more {
                    self.is_ready(key);
                }
            }
        }
        self.flush_all(ctx);
        self.fire_timers(ctx);
        self.give_up_openings(ctx);
        self.close_retired(ctx);
    }

    /// Arms the timer of a flow, unless it fires soon enough.
    fn arm(&mut self, slot: u32, due: Time, now: Time) {
        let slack = (due.since(now) / COARSENESS).min(COARSE_MAX);
        if due != Time::NEVER && due < self.wheel.armed_for(slot).unwrap_or(Time::NEVER) {
            self.wheel.arm(slot, due + slack);
        }
    }
}
