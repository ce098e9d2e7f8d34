//! What others may see of a flow.

use std::sync::Arc;
use std::time::Duration;

use super::Flows;
use crate::engine::SessionKey;
use crate::net::address::Endpoint;
use crate::policy::meter::Level;
use crate::reactor::metered;
use crate::reactor::setup::Listener;
use crate::reactor::upstream::server::Server;
use crate::relay::Direction;
use crate::relay::flow::Traffic;
use crate::relay::time::Time;

/// A flow that lives.
#[derive(Debug)]
pub(in crate::reactor) struct FlowSeen {
    /// Its slot among flows.
    pub(in crate::reactor) key: SessionKey,
    pub(in crate::reactor) id: u64,
    pub(in crate::reactor) client: Endpoint,
    pub(in crate::reactor) at: Arc<Listener>,
    pub(in crate::reactor) server: Arc<Server>,
    pub(in crate::reactor) started: Time,
    pub(in crate::reactor) answered: bool,
    pub(in crate::reactor) first_answer: Option<Duration>,
    /// Up and down.
    pub(in crate::reactor) traffic: [Traffic; 2],
    /// What its datagrams must not exceed.
    pub(in crate::reactor) rates: Vec<(Level, [u64; 2])>,
}

impl Flows {
    /// Slots that flows may be in.
    pub(in crate::reactor) const fn slots(&self) -> u32 {
        self.table.slots_count()
    }

    /// The flow in a slot.
    pub(in crate::reactor) fn seen(&self, slot: u32) -> Option<FlowSeen> {
        let key = self.table.key(slot)?;
        let entry = self.table.get(slot)?;
        let flow = &entry.flow;
        Some(FlowSeen {
            key,
            id: entry.id,
            client: Endpoint::Inet(entry.client()),
            at: entry.at.clone(),
            server: entry.server.clone(),
            started: flow.started(),
            answered: flow.is_answered(),
            first_answer: flow.first_answer_time(),
            traffic: Direction::BOTH.map(|direction| flow.traffic(direction)),
            rates: metered::listed(entry.permit.as_deref()),
        })
    }
}
