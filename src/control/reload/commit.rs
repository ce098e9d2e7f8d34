//! What cannot fail: everything is there, and reactors are told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config;
use crate::engine;
use crate::net::address::Transport;
use crate::net::listener::{self, ListenSocket};
use crate::observe::books::ForwardBooks;
use crate::observe::notice::Notice;
use crate::reactor::{
    Change, ChangedListener, ClientPolicy, Forward, Gate, Listener, UpstreamSetup,
};
use crate::relay::id::{ForwardId, ListenerId, PoolId};

use crate::control::acquire;
use crate::control::forwards::forward_of;
use crate::control::held::{Held, HeldListener, HeldOptions, sessions};
use crate::control::plan::{ForwardPlan, Plan};

/// Pools that a reactor is told of in one order: it carries one out in a turn, and its
/// sessions wait for that long.
const POOLS_PER_ORDER: usize = 16;

/// Listeners likewise.
const LISTENERS_PER_ORDER: usize = 128;

/// A forward as it is at work.
#[derive(Debug, Clone)]
pub(in crate::control) struct Committed {
    pub(in crate::control) config: Arc<config::Forward>,
    pub(in crate::control) forward: Arc<Forward>,
}

/// What sessions may still go by although new ones do not.
#[derive(Debug)]
pub(in crate::control) struct Retired {
    forward: Arc<Forward>,
    /// What the sockets of its reactors were known by; sessions hold them.
    listeners: Vec<Arc<Listener>>,
    /// When its sessions are cut, if it was removed; `None`: they are not.
    pub(in crate::control) cut_at: Option<Instant>,
}

impl Retired {
    /// Sessions that go by it yet.
    pub(in crate::control) fn sessions(&self) -> usize {
        self.listeners.iter().map(|it| sessions(it, 1)).sum()
    }

    pub(in crate::control) fn id(&self) -> ForwardId {
        self.forward.id
    }

    pub(in crate::control) fn pools(&self) -> impl Iterator<Item = PoolId> {
        pools(&self.forward)
    }
}

impl Committed {
    /// Whether sessions would go by the very same; `policy` is who may come in, which is
    /// another one when a file of an access list says something else.
    fn is_as(&self, plan: &ForwardPlan, policy: Option<&Arc<ClientPolicy>>) -> bool {
        if self.forward.clients.as_ref().map(Arc::as_ptr) != policy.map(Arc::as_ptr) {
            return false;
        }
        let pool = |it: &config::Pool| (it.retries, it.retry_timeout, it.queue_timeout);
        let (was, is) = (&self.config, &plan.config);
        if self.forward.pool != plan.pool || pool(&was.pool) != pool(&is.pool) {
            return false;
        }
        let routing = self.forward.routing.iter().flat_map(|it| &it.ways);
        let routes = routing.map(|way| Some(way.forward.as_ref()?.pool));
        let choices = plan.choices.iter().map(|it| Some(it.id));
        if !routes.eq(plan.routes.iter().copied().chain(choices)) {
            return false;
        }
        // As most are: what is as before is the very same, see `Config::share`.
        if Arc::ptr_eq(was, is) {
            return true;
        }
        // What else differs of a pool is no matter of its forwards.
        let mut was = config::Forward::clone(was);
        was.pool = is.pool.clone();
        was.listen.clone_from(&is.listen);
        was == **is
    }
}

/// The forwards of a plan: those that are as before are the very same.
pub(in crate::control) fn forwards(
    plan: &Plan,
    before: &HashMap<ForwardId, Committed>,
    generation: (u64, bool),
    mut books: impl FnMut(ForwardId) -> Arc<ForwardBooks>,
    policies: &BTreeMap<ForwardId, Arc<ClientPolicy>>,
) -> HashMap<ForwardId, Committed> {
    let (generation, anew) = generation;
    let one = |forward: &ForwardPlan| {
        let known = before.get(&forward.id);
        let committed = match known {
            Some(known) if !anew && known.is_as(forward, policies.get(&forward.id)) => Committed {
                config: forward.config.clone(),
                forward: known.forward.clone(),
            },
            _ => {
                let gate = gate(forward.config.max_connections, known);
                let flows = flows_gate(forward.config.udp.max_flows, known);
                let books = books(forward.id);
                let before = (generation, known.map(|it| &*it.forward));
                let mut made = forward_of(forward, &plan.config, books, (gate, flows), before);
                made.clients = policies.get(&forward.id).cloned();
                Committed {
                    config: forward.config.clone(),
                    forward: Arc::new(made),
                }
            }
        };
        (forward.id, committed)
    };
    plan.forwards.iter().map(one).collect()
}

/// A forward's own limit: who is in stays counted when it changes.
fn gate(max: Option<u32>, before: Option<&Committed>) -> Option<Arc<Gate>> {
    let known = before.and_then(|it| it.forward.gate.clone());
    kept_gate(max, known)
}

/// That of `max_flows` likewise.
fn flows_gate(max: Option<u32>, before: Option<&Committed>) -> Option<Arc<Gate>> {
    let known = before.and_then(|it| it.forward.datagrams.as_ref()?.gate.clone());
    kept_gate(max, known)
}

fn kept_gate(max: Option<u32>, known: Option<Arc<Gate>>) -> Option<Arc<Gate>> {
    let max = max?;
    Some(match known {
        Some(gate) => {
            gate.set_max(max);
            gate
        }
        None => Arc::new(Gate::new(max)),
    })
}

/// Where the sessions of a forward may go, by its routes as well.
pub(in crate::control) fn pools(forward: &Forward) -> impl Iterator<Item = PoolId> {
    let ways = forward.routing.iter().flat_map(|routing| &routing.ways);
    let ways = ways.filter_map(|way| Some(way.forward.as_ref()?.pool));
    [forward.pool].into_iter().chain(ways)
}

/// What each reactor is told.
#[derive(Debug, Default)]
pub(in crate::control) struct Orders {
    pub(in crate::control) changes: Vec<Change>,
    pub(in crate::control) adopt: Vec<(engine::Listener, Arc<Listener>)>,
    /// After the others have adopted.
    pub(in crate::control) give_away: Vec<(ListenerId, u32)>,
    /// Before either.
    pub(in crate::control) note_homes: Vec<ListenerId>,
}

/// Takes out what is to be known before any listener is another one.
pub(in crate::control) fn before_listeners(changes: &mut Vec<Change>) -> Vec<Change> {
    let all = std::mem::take(changes).into_iter();
    let (first, then) = all.partition(|it| it.listeners.is_empty() && it.leave.is_empty());
    *changes = then;
    first
}

/// Orders by reactor.
#[derive(Debug, Default)]
pub(in crate::control) struct AllOrders(pub(in crate::control) BTreeMap<u16, Orders>);

impl AllOrders {
    fn of(&mut self, reactor: u16) -> &mut Orders {
        self.0.entry(reactor).or_default()
    }

    /// Every reactor that is alive learns of these pools.
    pub(in crate::control) fn pools(
        &mut self,
        reactors: impl Iterator<Item = u16>,
        pools: &[(PoolId, UpstreamSetup)],
    ) {
        for reactor in reactors {
            for some in pools.chunks(POOLS_PER_ORDER) {
                self.of(reactor).changes.push(Change {
                    pools: some.to_vec(),
                    ..Change::default()
                });
            }
        }
    }

    fn listener(&mut self, reactor: u16, listener: ChangedListener) {
        let changes = &mut self.of(reactor).changes;
        let fits =
            |it: &&mut Change| it.pools.is_empty() && it.listeners.len() < LISTENERS_PER_ORDER;
        match changes.last_mut().filter(fits) {
            Some(last) => last.listeners.push(listener),
            None => changes.push(Change {
                listeners: vec![listener],
                ..Change::default()
            }),
        }
    }

    fn leave(&mut self, reactor: u16, id: ListenerId) {
        self.of(reactor).changes.push(Change {
            leave: vec![id],
            ..Change::default()
        });
    }
}

/// The sockets that are held become those of a plan, and each reactor gets its part.
pub(in crate::control) struct Sockets<'a> {
    pub(in crate::control) held: &'a mut Held,
    pub(in crate::control) forwards: &'a HashMap<ForwardId, Committed>,
    pub(in crate::control) active: &'a [u16],
    pub(in crate::control) orders: &'a mut AllOrders,
    /// What was known of sockets before, by the forward.
    pub(in crate::control) replaced: HashMap<ForwardId, Vec<Arc<Listener>>>,
    pub(in crate::control) told: Vec<Notice>,
    /// Addresses with sockets that no reactor may look after so far.
    pub(in crate::control) unspread: BTreeSet<ListenerId>,
}

impl Sockets<'_> {
    /// Addresses that the plan does not have any more.
    pub(in crate::control) fn leave(&mut self, plan: &Plan) {
        let planned = plan.forwards.iter().flat_map(|it| &it.listeners);
        let planned: BTreeSet<ListenerId> = planned.map(|it| it.id).collect();
        let gone: Vec<ListenerId> = self
            .held
            .listeners
            .keys()
            .filter(|id| !planned.contains(id))
            .copied()
            .collect();
        for id in gone {
            let Some(listener) = self.held.listeners.remove(&id) else {
                continue;
            };
            self.told
                .extend(listener.locals().iter().map(|local| Notice::NotListening {
                    listener: local.clone(),
                    forward: listener.forward.name.clone(),
                }));
            let replaced = self.replaced.entry(listener.forward.id).or_default();
            for socket in listener.sockets {
                replaced.push(socket.at.clone());
                self.orders.leave(socket.reactor, id);
            }
        }
    }

    /// Addresses that stay: another forward, other options.
    pub(in crate::control) fn change(&mut self, plan: &Plan) {
        for planned in &*plan.forwards {
            let Some(committed) = self.forwards.get(&planned.id) else {
                continue;
            };
            for its in &planned.listeners {
                let Some(listener) = self.held.listeners.get_mut(&its.id) else {
                    continue;
                };
                let client = &planned.config.client;
                let other_options = *listener.options.client != *client;
                if other_options {
                    listener.options = HeldOptions::new(client);
                }
                let other_forward = !Arc::ptr_eq(&listener.forward, &committed.forward);
                if !other_options && !other_forward {
                    continue;
                }
                let before = listener.set_forward(&committed.forward, &self.held.own);
                let plan = &listener.options.plan;
                for socket in &mut listener.sockets {
                    if other_options {
                        // What is not granted was said of the same options elsewhere.
                        let fd = socket.fd().clone();
                        let kind = (its.transport, socket.family());
                        let _ = listener::set_again(&*fd, kind, client, plan);
                    }
                    if other_forward {
                        self.replaced
                            .entry(before.id)
                            .or_default()
                            .push(socket.at.clone());
                        socket.set_forward(&committed.forward);
                    }
                    self.orders.listener(
                        socket.reactor,
                        ChangedListener {
                            at: socket.at.clone(),
                            options: other_options.then(|| plan.clone()),
                        },
                    );
                }
            }
        }
    }

    /// Sockets that were bound for this plan.
    pub(in crate::control) fn open(&mut self, opened: Vec<acquire::BoundAddress>) {
        for it in opened {
            let Some(committed) = self.forwards.get(&it.forward) else {
                continue;
            };
            let forward = &committed.forward;
            // Of a forward that was drained: it is not known at the same address twice.
            drop(self.held.listeners.remove(&it.id));
            let bound = (it.bound, &self.held.own);
            let listener = HeldListener::new(
                (it.id, it.transport, it.address),
                bound,
                it.options,
                forward,
                self.active,
            );
            self.told
                .extend(listener.locals().iter().map(|local| Notice::Listening {
                    listener: local.clone(),
                    forward: forward.name.clone(),
                }));
            for socket in &listener.sockets {
                let adopted = socket.for_engine(&listener.options.plan);
                self.orders.of(socket.reactor).adopt.push(adopted);
            }
            self.held.listeners.insert(it.id, listener);
            self.unspread.insert(it.id);
        }
    }

    /// Each active reactor gets its share of the sockets; none is closed for that. One
    /// that has none of an address of its own shares another's.
    ///
    /// `is_spread`: the reactors are those that the others are spread over already.
    pub(in crate::control) fn spread(
        &mut self,
        joined: Vec<(ListenerId, Vec<ListenSocket>)>,
        is_spread: bool,
    ) {
        for (id, sockets) in joined {
            if let Some(listener) = self.held.listeners.get_mut(&id) {
                listener.join(id, sockets);
                self.unspread.insert(id);
            }
        }
        for (id, listener) in &mut self.held.listeners {
            if is_spread && !self.unspread.contains(id) {
                continue;
            }
            let plan = listener.options.plan.clone();
            let homes: BTreeSet<u16> = listener.sockets.iter().map(|it| it.reactor).collect();
            let moved = listener.spread(self.active);
            if listener.transport == Transport::Udp && !moved.is_empty() {
                for home in homes {
                    self.orders.of(home).note_homes.push(*id);
                }
            }
            for moved in moved {
                if let Some(from) = moved.from {
                    let number = moved.socket.at.socket;
                    self.orders.of(from).give_away.push((*id, number));
                }
                let adopted = moved.socket.for_engine(&plan);
                self.orders.of(moved.socket.reactor).adopt.push(adopted);
            }
        }
    }
}

/// Forwards that sessions may still go by.
pub(in crate::control) fn retired(
    mut before: HashMap<ForwardId, Committed>,
    now: &HashMap<ForwardId, Committed>,
    replaced: HashMap<ForwardId, Vec<Arc<Listener>>>,
) -> Vec<Retired> {
    let mut all = Vec::new();
    for (id, listeners) in replaced {
        let Some(committed) = before.remove(&id) else {
            continue;
        };
        let patience: Duration = committed.config.timeouts.drain;
        let is_gone = !now.contains_key(&id);
        let cut_at = Instant::now().checked_add(patience).filter(|_| is_gone);
        all.push(Retired {
            forward: committed.forward,
            listeners,
            cut_at,
        });
    }
    all
}
