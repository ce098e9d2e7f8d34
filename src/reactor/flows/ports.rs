//! The sockets that clients send to: which there are, and what each still takes.

use std::io;
use std::sync::Arc;

use super::Flows;
use super::table::{Owner, Port, PortState};
use crate::engine::{DatagramKey, Datagrams};
use crate::reactor::context::Ctx;
use crate::reactor::setup::Listener;
use crate::relay::id::{ForwardId, ListenerId};

impl Flows {
    /// Takes the datagrams of one more socket.
    pub(in crate::reactor) fn listen<E: Datagrams>(
        &mut self,
        socket: E::Listener,
        at: Arc<Listener>,
        ctx: &mut Ctx<E>,
    ) -> io::Result<()> {
        let key = ctx.engine.open_port(socket)?;
        let port = Port {
            at,
            flows: 0,
            state: PortState::Open,
        };
        self.owners.insert(key, Owner::Port(Box::new(port)));
        if let Some(socket) = self.owners.get_mut(key) {
            // It may have been somebody else's, who has counted them.
            socket.drops = ctx.engine.queue_drops(key);
        }
        self.ports.push(key);
        // What came before somebody looked raises no event with every kernel.
        self.is_ready(key);
        Ok(())
    }

    /// The port of a listening socket, if it takes datagrams here.
    pub(super) fn port_of(&mut self, at: &Listener) -> Option<DatagramKey> {
        let owners = &mut self.owners;
        let mut ports = self.ports.iter().copied();
        ports.find(|key| {
            owners.port_mut(*key).is_some_and(|port| {
                (port.at.id, port.at.socket) == (at.id, at.socket) && port.state == PortState::Open
            })
        })
    }

    /// Is for another forward from now on, if it is here; flows that there are stay with
    /// theirs.
    pub(in crate::reactor) fn change_port(&mut self, at: &Arc<Listener>) -> bool {
        let mut found = false;
        for key in &self.ports {
            if let Some(port) = self.owners.port_mut(*key)
                && (port.at.id, port.at.socket) == (at.id, at.socket)
            {
                port.at = at.clone();
                port.state = PortState::Open;
                found = true;
            }
        }
        found
    }

    /// Takes only datagrams of flows that there are, and closes with the last of them.
    pub(in crate::reactor) fn leave_port<E: Datagrams>(
        &mut self,
        id: ListenerId,
        ctx: &mut Ctx<E>,
    ) {
        self.set_state(PortState::Leaving, |at| at.id == id, ctx);
    }

    /// Likewise all of a forward.
    pub(in crate::reactor) fn leave_forward<E: Datagrams>(
        &mut self,
        id: ForwardId,
        ctx: &mut Ctx<E>,
    ) {
        let its = |at: &Listener| at.forward.id == id;
        self.set_state(PortState::Leaving, its, ctx);
    }

    /// The sockets that clients send to, and what the queue of each has lost. A system call for each.
    pub(in crate::reactor) fn listeners<E: Datagrams>(
        &mut self,
        ctx: &Ctx<E>,
        (from, most): (usize, usize),
    ) -> Vec<(Arc<Listener>, u32)> {
        let owners = &mut self.owners;
        let some = self.ports.iter().skip(from).take(most);
        some.filter_map(|key| {
            let at = owners.port_mut(*key)?.at.clone();
            Some((at, ctx.engine.queue_drops(*key)))
        })
        .collect()
    }

    /// How many of them there are.
    pub(in crate::reactor) const fn ports_count(&self) -> usize {
        self.ports.len()
    }

    /// Another reactor takes the datagrams of this socket.
    pub(in crate::reactor) fn give_port_away<E: Datagrams>(
        &mut self,
        (id, socket): (ListenerId, u32),
        ctx: &mut Ctx<E>,
    ) {
        // Those that began since everybody was asked.
        self.note_homes(&[id]);
        let its = |at: &Listener| (at.id, at.socket) == (id, socket);
        self.set_state(PortState::GivenAway, its, ctx);
    }

    fn set_state<E: Datagrams>(
        &mut self,
        state: PortState,
        which: impl Fn(&Listener) -> bool,
        ctx: &mut Ctx<E>,
    ) {
        for key in self.ports.clone() {
            if let Some(port) = self.owners.port_mut(key)
                && which(&port.at)
            {
                if state == PortState::GivenAway {
                    self.count_queue_drops(key, ctx);
                }
                if let Some(port) = self.owners.port_mut(key) {
                    port.state = state;
                }
                if state == PortState::GivenAway {
                    ctx.engine.mute_port(key);
                }
                self.close_if_done(key, ctx);
            }
        }
    }

    /// Nobody new is taken; ports stay for those that there are.
    pub(in crate::reactor) fn drain<E: Datagrams>(&mut self, ctx: &mut Ctx<E>) {
        self.draining = true;
        if self.table.len() == 0 {
            self.close_ports(ctx);
        }
    }

    /// Takes nothing any more, and gives the sockets of an address back.
    pub(in crate::reactor) fn close_listener<E: Datagrams>(
        &mut self,
        id: ListenerId,
        ctx: &mut Ctx<E>,
    ) -> Vec<E::Listener> {
        let mut given = Vec::new();
        for key in self.ports.clone() {
            if self.owners.port_mut(key).is_some_and(|it| it.at.id == id) {
                given.extend(self.close_port(key, ctx));
            }
        }
        given
    }

    /// The ports of these forwards that are about to leave are closed now; their flows have
    /// ended.
    pub(in crate::reactor) fn close_leaving_ports<E: Datagrams>(
        &mut self,
        forwards: &[ForwardId],
        ctx: &mut Ctx<E>,
    ) {
        for key in self.ports.clone() {
            let leaves = |port: &mut Port| {
                port.state != PortState::Open && forwards.contains(&port.at.forward.id)
            };
            if self.owners.port_mut(key).is_some_and(leaves) {
                drop(self.close_port(key, ctx));
            }
        }
    }

    pub(super) fn close_ports<E: Datagrams>(&mut self, ctx: &mut Ctx<E>) {
        for key in self.ports.clone() {
            drop(self.close_port(key, ctx));
        }
    }

    /// One that takes nobody new and has no flow left.
    pub(super) fn close_if_done<E: Datagrams>(&mut self, key: DatagramKey, ctx: &mut Ctx<E>) {
        let is_done = |port: &mut Port| port.state != PortState::Open && port.flows == 0;
        if self.owners.port_mut(key).is_some_and(is_done) {
            drop(self.close_port(key, ctx));
        }
    }

    fn close_port<E: Datagrams>(
        &mut self,
        key: DatagramKey,
        ctx: &mut Ctx<E>,
    ) -> Option<E::Listener> {
        self.count_queue_drops(key, ctx);
        self.ports.retain(|it| *it != key);
        self.owners.remove(key)?;
        ctx.engine.close_port(key)
    }

    /// Brings what receive queues lost up to date. Asks for each port.
    pub(in crate::reactor) fn publish<E: Datagrams>(&mut self, ctx: &Ctx<E>) {
        ctx.counters.udp_live.set(self.table.len() as u64);
        for key in self.ports.clone() {
            self.count_queue_drops(key, ctx);
        }
    }

    /// Counts what the receive queue of a socket has lost since the last time. Costs a
    /// system call.
    pub(super) fn count_queue_drops<E: Datagrams>(&mut self, key: DatagramKey, ctx: &Ctx<E>) {
        let is_given = |owner: &Owner| match owner {
            Owner::Port(port) => port.state == PortState::GivenAway,
            Owner::Flow(_) | Owner::Over => false,
        };
        if let Some(socket) = self.owners.get_mut(key)
            && !is_given(&socket.owner)
        {
            let drops = ctx.engine.queue_drops(key);
            let more = drops.wrapping_sub(std::mem::replace(&mut socket.drops, drops));
            ctx.counters.udp_dropped_receive_queue.add(u64::from(more));
        }
    }
}
