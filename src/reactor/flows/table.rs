//! The flows of a reactor by what they are called, and its datagram sockets by whose they are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::heading::{Client, Heading};
use super::homes::FlowName;
use crate::balance::health::Admission;
use crate::engine::slab::{Slab, Slots};
use crate::engine::{DatagramKey, SessionKey};
use crate::reactor::clients::ClientGrant;
use crate::reactor::setup::Listener;
use crate::reactor::upstream::server::Server;
use crate::relay::flow::Flow;
use crate::relay::id::{PoolId, ServerId};
use crate::relay::time::Time;

/// Trains that a flow's socket is asked for before the next socket has its turn; one that has few
/// at a time is asked for few, because each slot takes a moment to prepare.
const FLOW_TRAINS: usize = 32;
pub(super) const QUIET_FLOW_TRAINS: usize = 4;

/// From its making on a socket is put in line for so long: it keeps the address that it was connected
/// from at first, and by now the kernel may have another one for the way to that server.
const SERVES: Duration = Duration::from_secs(10);

/// Trains that are asked for singly before more are again. Of a flow that has come to send several at
/// a time so many are read one a turn at the most.
const SINGLES: u8 = 31;

/// A flow and what the reactor knows of it.
#[derive(Debug)]
pub(super) struct FlowEntry {
    pub(super) flow: Flow,
    pub(super) name: FlowName,
    /// On which reactor it began, and its number there.
    pub(super) reactor: u16,
    pub(super) id: u64,
    /// Where it came in, and the forward that it goes by.
    pub(super) at: Arc<Listener>,
    /// The socket that its answers leave by.
    pub(super) port: DatagramKey,
    /// Its own socket, and the server that this is connected to; counted there as active.
    pub(super) socket: DatagramKey,
    pub(super) server: Arc<Server>,
    pub(super) admission: Admission,
    /// The set of servers that it was chosen from: another one may not have it any more.
    pub(super) version: u32,
    /// The server has got its verdict for it.
    pub(super) proven: bool,
    /// Datagrams each way leave singly: joined ones were refused.
    pub(super) singly: [bool; 2],
    /// Who a PROXY header said the client is, if one did.
    pub(super) announced: Option<Box<Client>>,
    /// What the server is told before the payload, of each datagram or of the first.
    pub(super) heading: Option<Box<Heading>>,
    /// Its place among its client's connections, and what its datagrams must not exceed.
    pub(super) permit: Option<Box<ClientGrant>>,
}

impl FlowEntry {
    /// Whom it is for.
    pub(super) fn client(&self) -> SocketAddr {
        self.announced
            .as_ref()
            .map_or(self.name.client, |it| it.source)
    }
}

/// A socket that clients send to.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) at: Arc<Listener>,
    /// Flows whose answers leave by it.
    pub(super) flows: u32,
    pub(super) state: PortState,
}

/// What a port does with datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PortState {
    /// Takes all.
    Open,
    /// Takes those of flows that are known, and is closed with the last of them.
    Leaving,
    /// Another reactor takes them; answers leave by it until the last flow has ended.
    GivenAway,
}

/// Whose a socket is.
#[derive(Debug)]
pub(super) enum Owner {
    Port(Box<Port>),
    /// The flow's, by its slot.
    Flow(u32),
    /// A flow's that is over, or has gone to another server.
    Over,
}

/// What makes a connected socket as good as a new one: the server, and how it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lead {
    pub(super) pool: PoolId,
    /// Of the pool, when the socket was connected: sources may be others by now.
    pub(super) version: u32,
    pub(super) server: ServerId,
    pub(super) never_fragment: bool,
}

#[derive(Debug)]
pub(super) struct DatagramSocket {
    generation: u32,
    /// It stands in the queue of those to be read.
    pub(super) queued: bool,
    /// Trains that came at once the last time that more than one was asked for.
    pub(super) pace: u8,
    /// Trains that it was asked for singly since.
    pub(super) singles: u8,
    /// Of the datagrams that its receive queue lost, those that were counted.
    pub(super) drops: u32,
    /// Who else may have it once it has rested; nobody, if it is not connected or its flow ended with
    /// an open question or a refusal.
    pub(super) line: Option<Lead>,
    /// When it was made, if it is connected.
    pub(super) made: Time,
    pub(super) owner: Owner,
}

impl DatagramSocket {
    /// Several trains wait in it at a time.
    pub(super) const fn is_busy(&self) -> bool {
        self.pace as usize >= QUIET_FLOW_TRAINS
    }

    /// So many trains a flow's socket is asked for: one where one comes at a time, which is seen by
    /// asking for more now and then.
    pub(super) const fn share(&self) -> usize {
        if self.is_busy() {
            FLOW_TRAINS
        } else if self.pace > 1 || self.singles >= SINGLES {
            QUIET_FLOW_TRAINS
        } else {
            1
        }
    }

    /// Who may have it next, now that it has rested.
    pub(super) fn serves_again(&self, now: Time) -> Option<Lead> {
        self.line.filter(|_| now.since(self.made) < SERVES)
    }

    /// So many have come of those that it was asked for.
    pub(super) fn came(&mut self, asked: usize, count: usize) {
        if asked > 1 {
            self.pace = u8::try_from(count).unwrap_or(u8::MAX);
            self.singles = 0;
        } else {
            self.singles = self.singles.saturating_add(1);
        }
    }
}

/// Sockets by the keys of the engine.
#[derive(Debug, Default)]
pub(super) struct Owners(Slots<Option<DatagramSocket>>);

impl Owners {
    pub(super) fn insert(&mut self, key: DatagramKey, owner: Owner) {
        *self.0.touch(key.slot) = Some(DatagramSocket {
            generation: key.generation,
            queued: false,
            pace: 0,
            singles: 0,
            drops: 0,
            line: None,
            made: Time::ZERO,
            owner,
        });
    }

    /// A socket that was just connected is nobody's yet.
    pub(super) fn insert_connected(&mut self, key: DatagramKey, line: Option<Lead>, now: Time) {
        self.insert(key, Owner::Over);
        if let Some(socket) = self.get_mut(key) {
            (socket.line, socket.made) = (line, now);
        }
    }

    /// It is a flow's from now on.
    pub(super) fn give(&mut self, key: DatagramKey, slot: u32) {
        if let Some(socket) = self.get_mut(key) {
            socket.owner = Owner::Flow(slot);
            (socket.pace, socket.singles) = (0, 0);
        }
    }

    pub(super) fn get_mut(&mut self, key: DatagramKey) -> Option<&mut DatagramSocket> {
        let socket = self.0.get_mut(key.slot)?.as_mut()?;
        (socket.generation == key.generation).then_some(socket)
    }

    pub(super) fn port_mut(&mut self, key: DatagramKey) -> Option<&mut Port> {
        match &mut self.get_mut(key)?.owner {
            Owner::Port(port) => Some(port),
            Owner::Flow(_) | Owner::Over => None,
        }
    }

    pub(super) fn remove(&mut self, key: DatagramKey) -> Option<Owner> {
        self.get_mut(key)?;
        self.0.get_mut(key.slot)?.take().map(|it| it.owner)
    }
}

/// Flows by slot and by name.
#[derive(Debug, Default)]
pub(super) struct FlowTable {
    flows: Slab<FlowEntry>,
    names: HashMap<FlowName, u32>,
}

impl FlowTable {
    pub(super) const fn len(&self) -> usize {
        self.flows.len()
    }

    pub(super) fn find(&self, name: &FlowName) -> Option<u32> {
        self.names.get(name).copied()
    }

    /// A flow of the same name before it is found by its slot alone from now on.
    pub(super) fn insert(&mut self, entry: FlowEntry) -> Option<u32> {
        let name = entry.name;
        let slot = self.flows.insert(entry)?.slot;
        self.names.insert(name, slot);
        Some(slot)
    }

    pub(super) fn get(&self, slot: u32) -> Option<&FlowEntry> {
        self.flows.get(self.key(slot)?)
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut FlowEntry> {
        self.flows.get_mut(self.key(slot)?)
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<FlowEntry> {
        let entry = self.flows.remove(self.key(slot)?)?;
        if let Entry::Occupied(name) = self.names.entry(entry.name)
            && *name.get() == slot
        {
            name.remove();
        }
        Some(entry)
    }

    /// What every flow goes by.
    pub(super) fn names(&self) -> impl Iterator<Item = &FlowName> {
        self.names.keys()
    }

    /// Every flow's slot.
    pub(super) fn slots(&self) -> Vec<u32> {
        self.flows.keys().map(|key| key.slot).collect()
    }

    /// Slots that flows may be in.
    pub(super) const fn slots_count(&self) -> u32 {
        self.flows.slots()
    }

    pub(super) fn key(&self, slot: u32) -> Option<SessionKey> {
        self.flows.key_of(slot)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_serves_again_for_as_long_as_its_address_is_trusted() {
        let line = Lead {
            pool: PoolId::new(1),
            version: 0,
            server: ServerId::new(1),
            never_fragment: false,
        };
        let key = DatagramKey {
            slot: 3,
            generation: 1,
        };
        let made = Time::ZERO + Duration::from_secs(5);
        let mut owners = Owners::default();
        owners.insert_connected(key, Some(line), made);
        let socket = owners.get_mut(key).unwrap();
        let last = made + SERVES;
        assert_eq!(socket.serves_again(made), Some(line));
        let before = made + SERVES * 9 / 10;
        assert_eq!(socket.serves_again(before), Some(line));
        assert_eq!(socket.serves_again(last), None);
        socket.line = None;
        assert_eq!(socket.serves_again(made), None, "it was refused");
    }
}
