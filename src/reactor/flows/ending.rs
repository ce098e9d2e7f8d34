//! The end of a flow: what it adds to the books, its record, and what becomes of its socket.

use std::time::SystemTime;

use super::Flows;
use super::table::FlowEntry;
use crate::engine::Datagrams;
use crate::net::address::Endpoint;
use crate::observe::books::Ended;
use crate::observe::record::{FlowRecord, LaneRecord, SessionRecord};
use crate::reactor::context::Ctx;
use crate::relay::Direction;
use crate::relay::ending::{Cause, Ending, Stage, Who};
use crate::relay::id::ForwardId;
use crate::relay::time::Time;

impl Flows {
    /// Ends these forwards' flows.
    pub(in crate::reactor) fn cut_forwards<E: Datagrams>(
        &mut self,
        forwards: &[ForwardId],
        cause: Cause,
        ctx: &mut Ctx<E>,
    ) {
        for slot in self.table.slots() {
            let entry = self.table.get(slot);
            if entry.is_some_and(|it| forwards.contains(&it.at.forward.id)) {
                self.cut(ctx, slot, cause);
            }
        }
        self.close_leaving_ports(forwards, ctx);
    }

    /// Ends every flow.
    pub(in crate::reactor) fn cut_all<E: Datagrams>(&mut self, cause: Cause, ctx: &mut Ctx<E>) {
        for slot in self.table.slots() {
            self.cut(ctx, slot, cause);
        }
    }

    /// Ends a flow.
    pub(in crate::reactor) fn cut<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        slot: u32,
        cause: Cause,
    ) {
        let ending = Ending {
            who: Who::Forwarder,
            stage: Stage::Data,
            cause,
        };
        self.end(ctx, slot, ending);
    }

    pub(super) fn fire_timers<E: Datagrams>(&mut self, ctx: &mut Ctx<E>) {
        let now = ctx.now();
        let mut fired = std::mem::take(&mut self.fired);
        fired.clear();
        self.wheel.advance(now, &mut fired);
        for slot in &fired {
            let Some(entry) = self.table.get(*slot) else {
                continue;
            };
            let rules = entry.at.forward.datagrams.as_ref();
            let due = rules.map_or(Time::ZERO, |rules| entry.flow.deadline(&rules.flow));
            if due <= now {
                let ending = entry.flow.silence();
                self.end(ctx, *slot, ending);
            } else {
                self.arm(*slot, due, now);
            }
        }
        self.fired = fired;
    }

    /// The one place where a flow ends.
    pub(super) fn end<E: Datagrams>(&mut self, ctx: &mut Ctx<E>, slot: u32, ending: Ending) {
        let now = ctx.now();
        let Some(entry) = self.forget(slot) else {
            return;
        };
        entry.count_out(&self.gate, now);
        let forward = &entry.at.forward;
        let rules = forward.datagrams.as_ref();
        let [up, down] = Direction::BOTH.map(|it| entry.flow.traffic(it));
        ctx.counters.udp_flows_ended.add(1);
        forward.books.of(ctx.reactor).end(&Ended {
            ending: Some(ending),
            connect: None,
            first_byte: entry.flow.first_answer_time(),
            length: now.since(entry.flow.started()),
            bytes: [up.bytes, down.bytes],
        });
        let until = rules.map_or(Time::ZERO, |it| entry.flow.lingers_until(&it.flow, now));
        self.retire(entry.socket, until, now, ctx);
        if let Some(port) = self.owners.port_mut(entry.port) {
            port.flows = port.flows.saturating_sub(1);
        }
        if self.records.end(entry.id, Some(ending), true) {
            ctx.log.session(record(&entry, ending, ctx));
        }
        self.close_if_done(entry.port, ctx);
        if self.draining && self.table.len() == 0 {
            self.close_ports(ctx);
        }
    }
}

fn record<E: Datagrams>(entry: &FlowEntry, ending: Ending, ctx: &Ctx<E>) -> SessionRecord {
    let forward = &entry.at.forward;
    let flow = &entry.flow;
    let traffic = Direction::BOTH.map(|it| flow.traffic(it));
    let lane = |bytes| LaneRecord {
        bytes,
        ..LaneRecord::default()
    };
    let reached = entry.name.local.map(|local| {
        let port = match &entry.at.address {
            Endpoint::Inet(address) => address.port(),
            Endpoint::Unix(_) | Endpoint::Unnamed => 0,
        };
        Endpoint::Inet((local.ip, port).into())
    });
    SessionRecord {
        at: SystemTime::now(),
        forward: forward.name.clone(),
        reactor: entry.reactor,
        id: entry.id,
        client: Endpoint::Inet(entry.client()),
        peer: entry
            .announced
            .as_ref()
            .map(|_| Endpoint::Inet(entry.name.client)),
        listener: entry.at.address.clone(),
        reached,
        route: None,
        sni: None,
        target: None,
        user: None,
        status: None,
        server: Some(entry.server.endpoint().clone()),
        tried: Vec::new(),
        warm: false,
        attempts: 1,
        ending: Some(ending),
        connect: None,
        first_byte: flow.first_answer_time(),
        total: Some(ctx.now().since(flow.started())),
        up: lane(traffic[0].bytes),
        down: lane(traffic[1].bytes),
        client_tcp: None,
        upstream_tcp: None,
        held_back: None,
        flow: Some(FlowRecord {
            datagrams: traffic.map(|it| it.datagrams),
            dropped: traffic.map(|it| it.lost),
        }),
    }
}
