//! Another configuration for a reactor at work: what differs, and nothing else. Sessions
//! that run keep what they began with.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Reactor;
use super::decider::Decider;
use super::outlets::Onlooker;
use super::setup::Listener;
use super::upstream::UpstreamSetup;
use crate::engine::Datagrams;
use crate::net::options::OptionPlan;
use crate::observe::record::Records;
use crate::observe::tap::Source;
use crate::relay::id::{ForwardId, ListenerId, PoolId};

/// What is different from now on. Empty fields change nothing.
#[derive(Debug, Default)]
pub struct Change {
    /// Pools that are new or have other settings.
    pub pools: Vec<(PoolId, UpstreamSetup)>,
    /// What the sockets of an address are for now.
    pub listeners: Vec<ChangedListener>,
    /// Addresses where nobody is let in any more but those who wait already.
    pub leave: Vec<ListenerId>,
    /// Which records are logged.
    pub records: Option<Records>,
    /// What is shown of the sessions to come.
    pub taps: Option<BTreeMap<ForwardId, Source>>,
    /// Who looks at sessions for a time.
    pub onlookers: Vec<Onlooker>,
    /// Who decides about openings.
    pub decider: Option<Box<dyn Decider>>,
}

/// A listener whose sockets stay.
#[derive(Debug)]
pub struct ChangedListener {
    /// The address, and the forward that clients come to from now on.
    pub at: Arc<Listener>,
    /// Options of accepted connections, if they are others.
    pub options: Option<Arc<OptionPlan>>,
}

impl<E: Datagrams> Reactor<E> {
    /// Goes by another configuration from now on. Cannot fail.
    pub fn change(&mut self, change: Change) {
        let Change {
            pools,
            listeners,
            leave,
            records,
            taps,
            onlookers,
            decider,
        } = change;
        // Pools first: the forwards of listeners name them.
        for (id, setup) in pools {
            self.dialler.change_pool(&mut self.ctx, id, setup);
        }
        if decider.is_some() {
            self.openings.set_decider(decider);
        }
        if let Some(records) = records {
            self.outlets.set_records(records);
            self.flows.set_records(records);
        }
        if let Some(taps) = taps {
            self.outlets.set_taps(taps);
        }
        for onlooker in onlookers {
            self.outlets.look_on(onlooker);
        }
        for ChangedListener { at, options } in listeners {
            if !self.flows.change_port(&at) {
                self.listen_queue
                    .change(&at, options.as_ref(), &mut self.ctx);
            }
        }
        for id in leave {
            self.listen_queue.begin_to_leave(id);
            self.flows.leave_port(id, &mut self.ctx);
        }
        self.settle();
    }

    /// Lets clients in at a socket, unless it does so already: then the socket stays, with
    /// another forward.
    pub fn listen_or_change(
        &mut self,
        socket: E::Listener,
        at: Arc<Listener>,
    ) -> std::io::Result<()> {
        if self.listen_queue.change(&at, None, &mut self.ctx) || self.flows.change_port(&at) {
            return Ok(());
        }
        self.add_listener(socket, at)
    }

    /// The sockets of these addresses are about to be others, or others': flows that there are stay here,
    /// wherever their datagrams come.
    pub fn note_homes(&self, listeners: &[ListenerId]) {
        self.flows.note_homes(listeners);
    }

    /// Looks after this socket no more. Its queue is untouched while somebody else holds
    /// the socket.
    pub fn give_away(&mut self, id: ListenerId, socket: u32) {
        self.listen_queue.give_away(id, socket, &mut self.ctx);
        self.flows.give_port_away((id, socket), &mut self.ctx);
    }

    /// Forgets pools that no forward and no session has any use for.
    pub fn forget_pools(&mut self, pools: &[PoolId]) {
        for id in pools {
            self.dialler.forget_pool(&mut self.ctx, *id);
        }
        self.settle();
    }
}
