//! What a process holds from one configuration to the next: its listening sockets, and
//! which reactor looks after each.
//!
//! A socket is closed only when its address is listened on no more. Everything else is
//! done with sockets that stay: another forward, other options, another reactor. So no
//! accept queue is ever lost.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::engine;
use crate::net::address::{Address, Endpoint, Transport};
use crate::net::handed::{HandedLabel, Role};
use crate::net::inherited::Label;
use crate::net::limits;
use crate::net::listener::{Bound, ListenSocket};
use crate::net::options::{Family, Leg, OptionPlan, SocketOptions};
use crate::net::own::{OwnListeners, Owner};
use crate::net::shared;
use crate::observe::books::ForwardBooks;
use crate::reactor::{ClientPolicy, ClientTable, Forward, Homes, Listener};
use crate::relay::id::{ForwardId, ListenerId};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Unix listeners' paths go when this is dropped.
    pub(super) listeners: BTreeMap<ListenerId, HeldListener>,
    /// What is remembered of clients.
    pub(super) clients: Option<Arc<ClientTable>>,
    /// Who may come in, by forward; without those that let everybody in.
    pub(super) policies: BTreeMap<ForwardId, Arc<ClientPolicy>>,
    /// Totals go on from one configuration to the next.
    pub(super) books: HashMap<ForwardId, Arc<ForwardBooks>>,
    /// Where flows live whose datagrams come elsewhere.
    pub(super) homes: Arc<Homes>,
    /// The same listeners, as whoever dials knows them.
    pub(super) own: Arc<OwnListeners>,
}

/// What an address is listened on with.
#[derive(Debug, Clone)]
pub(super) struct HeldOptions {
    pub(super) client: Arc<SocketOptions>,
    pub(super) plan: Arc<OptionPlan>,
}

impl HeldOptions {
    pub(super) fn new(client: &SocketOptions) -> Self {
        Self {
            client: Arc::new(client.clone()),
            plan: Arc::new(client.plan(Leg::Client)),
        }
    }
}

/// An address that is listened on.
#[derive(Debug)]
pub(super) struct HeldListener {
    pub(super) transport: Transport,
    /// As it is configured.
    pub(super) address: Address,
    pub(super) forward: Arc<Forward>,
    pub(super) options: HeldOptions,
    pub(super) sockets: Vec<HeldSocket>,
    /// Held for its `Drop`, and for where it listens.
    bound: Bound,
}

/// Whose a listener is, for whoever dials.
fn owner(forward: &Forward) -> Arc<Owner> {
    let mut pools = vec![forward.pool];
    let ways = forward.routing.iter().flat_map(|routing| &routing.ways);
    pools.extend(ways.filter_map(|way| Some(way.forward.as_ref()?.pool)));
    Arc::new(Owner {
        forward: forward.name.clone(),
        pools: pools.into(),
    })
}

/// No reactor has this number.
const NOBODY: u16 = u16::MAX;

/// A socket that another reactor looks after from now on.
#[derive(Debug)]
pub(super) struct Moved {
    /// Who did before, if anybody.
    pub(super) from: Option<u16>,
    pub(super) socket: HeldSocket,
}

/// One of its sockets.
#[derive(Debug, Clone)]
pub(super) struct HeldSocket {
    /// Another reactor has it as well.
    is_shared: bool,
    fd: Arc<OwnedFd>,
    family: Family,
    /// Which reactor lets clients in there.
    pub(super) reactor: u16,
    /// What its reactor has of it: sessions that came in here hold it as well.
    pub(super) at: Arc<Listener>,
}

impl HeldListener {
    /// Of sockets that were bound: a share for each of these reactors.
    pub(super) fn new(
        (id, transport, address): (ListenerId, Transport, Address),
        (mut bound, own): (Bound, &Arc<OwnListeners>),
        options: HeldOptions,
        forward: &Arc<Forward>,
        reactors: &[u16],
    ) -> Self {
        bound.register(own.of(transport), &owner(forward));
        let mut sockets = Vec::new();
        for (share, reactor) in reactors.iter().enumerate() {
            for socket in bound.take_share(share) {
                sockets.push(HeldSocket::new((id, transport), socket, forward, *reactor));
            }
        }
        Self {
            transport,
            address,
            forward: forward.clone(),
            options,
            sockets,
            bound,
        }
    }

    /// More sockets of its addresses, which no reactor looks after so far.
    pub(super) fn join(&mut self, id: ListenerId, sockets: Vec<ListenSocket>) {
        for socket in sockets {
            let forward = self.forward.clone();
            self.sockets.push(HeldSocket::new(
                (id, self.transport),
                socket,
                &forward,
                NOBODY,
            ));
        }
    }

    /// Spreads the sockets of each address over these reactors, so that each has one; what
    /// is moved, or is new to its reactor.
    pub(super) fn spread(&mut self, reactors: &[u16]) -> Vec<Moved> {
        let mut moved = Vec::new();
        let mut placed: BTreeMap<String, usize> = BTreeMap::new();
        // Sockets that are shared are there for reactors without one of their own.
        let mut own: Vec<HeldSocket> = Vec::new();
        for socket in std::mem::take(&mut self.sockets) {
            if socket.is_shared {
                let known = own.iter().any(|it| Arc::ptr_eq(&it.fd, &socket.fd));
                if known && !reactors.contains(&socket.reactor) {
                    // Its own reactor leaves, and looks after it until then.
                    continue;
                }
            }
            own.push(socket);
        }
        for mut socket in own {
            let nth = placed.entry(socket.at.address.to_string()).or_default();
            let wanted = reactors[*nth % reactors.len().max(1)];
            *nth += 1;
            if socket.reactor != wanted {
                let from = std::mem::replace(&mut socket.reactor, wanted);
                moved.push(Moved {
                    from: (from != NOBODY).then_some(from),
                    socket: socket.clone(),
                });
            }
            self.sockets.push(socket);
        }
        for (address, count) in placed {
            let first = self
                .sockets
                .iter()
                .find(|it| it.at.address.to_string() == address);
            let Some(first) = first.cloned() else {
                continue;
            };
            for reactor in reactors.iter().skip(count) {
                let shared = first.shared_with(*reactor);
                moved.push(Moved {
                    from: None,
                    socket: shared.clone(),
                });
                self.sockets.push(shared);
            }
        }
        moved
    }

    /// As a preparation wants to know it.
    pub(super) fn firsts(&self) -> (Vec<HeldSocket>, usize) {
        let locals = self.bound.locals();
        let first = |local: &Endpoint| {
            let mut its = self.sockets.iter().filter(|it| it.at.address == *local);
            its.next().cloned()
        };
        let each = locals.len().max(1);
        (
            locals.iter().filter_map(first).collect(),
            self.sockets.len() / each,
        )
    }

    /// Is for another forward from now on; what it was for is given back.
    pub(super) fn set_forward(
        &mut self,
        forward: &Arc<Forward>,
        own: &Arc<OwnListeners>,
    ) -> Arc<Forward> {
        self.bound.register(own.of(self.transport), &owner(forward));
        std::mem::replace(&mut self.forward, forward.clone())
    }

    /// Another process serves its path from now on.
    pub(super) fn leave_path(&mut self) {
        self.bound.leave_path();
    }

    /// Likewise, as it is handed over.
    pub(super) fn handed_label(&self) -> HandedLabel {
        let Label { address, forward } = self.label();
        HandedLabel {
            role: Role::Forward,
            address,
            forward,
            passed: self.bound.is_passed(),
        }
    }

    /// What it is called between processes.
    pub(super) fn label(&self) -> Label {
        Label::of(&self.forward.name, &self.address)
    }

    /// Its sockets, each once, whichever reactors share it; none if a service manager has
    /// them anyway.
    pub(super) fn own_sockets(&self) -> impl Iterator<Item = &Arc<OwnedFd>> {
        let passed = self.bound.is_passed();
        let sockets = self.sockets.iter();
        let own = sockets.filter(move |it| !passed && !it.is_shared);
        own.map(|it| &it.fd)
    }

    /// Its sockets, if they take datagrams, by the kernel's names of them.
    pub(super) fn ports(&self) -> impl Iterator<Item = (u64, Arc<Listener>)> {
        let udp = self.transport == Transport::Udp;
        let sockets = self.sockets.iter().filter(move |it| udp && !it.is_shared);
        sockets.filter_map(|it| Some((shared::cookie(it.fd.as_fd()).ok()?, it.at.clone())))
    }

    /// Where it listens.
    pub(super) fn locals(&self) -> &[Endpoint] {
        self.bound.locals()
    }

    /// Sessions that came in here and go by the forward that it has now.
    pub(super) fn sessions(&self) -> usize {
        self.sockets.iter().map(HeldSocket::sessions).sum()
    }
}

impl HeldSocket {
    fn new(
        (id, transport): (ListenerId, Transport),
        socket: ListenSocket,
        forward: &Arc<Forward>,
        reactor: u16,
    ) -> Self {
        /// Never used again.
        static SOCKETS: AtomicU32 = AtomicU32::new(0);
        let number = SOCKETS.fetch_add(1, Ordering::Relaxed);
        let place = (id, number, transport);
        let at = Listener::of_socket(place, socket.local, forward.clone());
        Self {
            is_shared: false,
            fd: Arc::new(socket.fd),
            family: socket.family,
            reactor,
            at,
        }
    }

    /// The same socket in the hands of another reactor as well.
    pub(super) fn shared_with(&self, reactor: u16) -> Self {
        static SHARES: AtomicU32 = AtomicU32::new(1 << 31);
        let number = SHARES.fetch_add(1, Ordering::Relaxed);
        let (address, forward) = (self.at.address.clone(), self.at.forward.clone());
        let place = (self.at.id, number, self.at.transport);
        let at = Listener::of_socket(place, address, forward);
        Self {
            is_shared: true,
            fd: self.fd.clone(),
            family: self.family,
            reactor,
            at,
        }
    }

    /// Is for another forward from now on.
    pub(super) fn set_forward(&mut self, forward: &Arc<Forward>) {
        let address = self.at.address.clone();
        let place = (self.at.id, self.at.socket, self.at.transport);
        self.at = Listener::of_socket(place, address, forward.clone());
    }

    /// As a reactor takes it.
    pub(super) fn for_engine(
        &self,
        options: &Arc<OptionPlan>,
    ) -> (engine::Listener, Arc<Listener>) {
        let socket = engine::Listener {
            fd: self.fd.clone(),
            family: self.family,
            options: options.clone(),
        };
        (socket, self.at.clone())
    }

    pub(super) const fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    pub(super) const fn family(&self) -> Family {
        self.family
    }

    fn sessions(&self) -> usize {
        // Its reactor and this.
        sessions(&self.at, 2)
    }
}

/// Sessions that came in there, by whichever way; beside them so many others hold it.
pub(super) fn sessions(at: &Arc<Listener>, others: usize) -> usize {
    let ways = at.ways.iter().flatten().map(|way| sessions(way, 1));
    Arc::strong_count(at).saturating_sub(others) + ways.sum::<usize>()
}

/// Pages of books for so many reactors and those that may come.
pub(super) fn pages(reactors: usize) -> usize {
    2 * reactors.max(limits::allowed_cpus().len()).max(4)
}

impl Held {
    /// The books of a forward, with so many pages: see [`pages`].
    pub(super) fn books(&mut self, forward: ForwardId, pages: usize) -> Arc<ForwardBooks> {
        let new = || Arc::new(ForwardBooks::new(pages));
        self.books.entry(forward).or_insert_with(new).clone()
    }

    /// Paths of unix listeners that were handed over go with this from now on.
    /// But those that a service manager had passed to the process before: `passed`.
    pub(super) fn own_paths(&mut self, passed: &[HandedLabel]) {
        for listener in self.listeners.values_mut() {
            let label = listener.label();
            let is_it = |it: &&HandedLabel| it.address == label.address && it.passed;
            if passed.iter().find(is_it).is_some() {
                listener.bound.mark_passed();
            }
            listener.bound.own_path();
        }
    }

    /// Lets go of the sockets of a forward. Its addresses stay its own, so that no reload
    /// opens them again; the path of one is removed.
    pub(super) fn close(&mut self, forward: ForwardId) {
        let its = self.listeners.values_mut();
        for listener in its.filter(|it| it.forward.id == forward) {
            listener.sockets.clear();
            listener.bound.remove_file();
        }
    }

    /// Lets go of all sockets: nobody listens there once reactors have done so, too. Paths
    /// go at the end.
    pub(super) fn close_all(&mut self) {
        for listener in self.listeners.values_mut() {
            listener.sockets.clear();
        }
    }

    /// Who may come in, of each forward that does not let everybody in.
    pub(super) fn policies(&self) -> impl Iterator<Item = &ClientPolicy> {
        self.policies.values().map(AsRef::as_ref)
    }

    /// Where it listens, by forward.
    pub(super) fn locals(&self) -> Vec<(Arc<str>, Endpoint)> {
        let each = self.listeners.values().flat_map(|listener| {
            let locals = listener.locals().iter();
            locals.map(|local| (listener.forward.name.clone(), local.clone()))
        });
        each.collect()
    }

    /// What a reactor looks after.
    pub(super) fn of_reactor(&self, reactor: u16) -> Vec<(engine::Listener, Arc<Listener>)> {
        let each = self.listeners.values().flat_map(|listener| {
            let sockets = listener.sockets.iter();
            let its = sockets.filter(|socket| socket.reactor == reactor);
            its.map(|socket| socket.for_engine(&listener.options.plan))
        });
        each.collect()
    }
}
