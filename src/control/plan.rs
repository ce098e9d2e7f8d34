//! What a configuration asks for, by identity: pure, made without touching the machine.
//!
//! ```text
//! Config ─► Plan ─► Acquired ─► commit
//!           pure    may fail    cannot
//! ```
//! The same names have the same identities in the plan of the next configuration, so
//! that what is held under one of them can be kept.

use std::borrow::{Borrow, Cow};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Config, HttpConnect, Mode, OnEmpty, RouteTo};
use crate::net::address::{Address, Transport};
use crate::net::options::{Leg, OptionPlan, SocketOptions};
use crate::reactor::Pilot;
use crate::relay::id::{ForwardId, ListenerId, NameId, PoolId};

use super::registry::Registry;
use super::resolve::{Name, NameRequest};

/// Identities of everything that has a name; kept for the life of the process.
#[derive(Debug)]
pub(super) struct Identities {
    forwards: Registry<String, ForwardId>,
    /// By address, and for a port that the kernel chooses by whose it is.
    listeners: Registry<(String, String), ListenerId>,
    /// By pool, and by the options that it is dialled with.
    pools: Registry<(PoolName, Arc<DialOptions>), PoolId>,
    /// What pools are dialled with: thousands of forwards share a few sets of options.
    dialled: HashSet<Arc<DialOptions>>,
    names: Registry<(Name, Duration, Duration, bool), NameId>,
    /// A program's own decision about sessions: the same for every configuration.
    pilot: Option<Pilot>,
}

impl Identities {
    /// Of a forwarder whose sessions a program decides about, if it does.
    pub(super) fn steered_by(pilot: Option<Pilot>) -> Self {
        Self {
            pilot,
            ..Self::default()
        }
    }

    /// The one set of these options that there is.
    fn dialled(&mut self, options: Cow<'_, SocketOptions>) -> Arc<DialOptions> {
        if let Some(known) = self.dialled.get(&*options) {
            return known.clone();
        }
        let new = Arc::new(DialOptions::new(options.into_owned()));
        self.dialled.insert(new.clone());
        new
    }

    /// Forgets names that this plan does not have. Their numbers are not handed out again.
    pub(super) fn keep(&mut self, plan: &Plan) {
        let forwards: HashSet<&str> = plan.forwards.iter().map(|it| &*it.config.name).collect();
        self.forwards.retain(|name, _| forwards.contains(&**name));
        let listeners = plan.forwards.iter().flat_map(|it| &it.listeners);
        let listeners: HashSet<ListenerId> = listeners.map(|it| it.id).collect();
        self.listeners.retain(|_, id| listeners.contains(id));
        let pools = plan.pools.iter().flat_map(|it| &it.dialled);
        let pools: HashSet<PoolId> = pools.map(|(id, _)| *id).collect();
        self.pools.retain(|_, id| pools.contains(id));
        self.dialled.retain(|it| Arc::strong_count(it) > 1);
        let names: HashSet<NameId> = plan.names.iter().map(|it| it.id).collect();
        self.names.retain(|_, id| names.contains(id));
    }
}

impl Default for Identities {
    fn default() -> Self {
        Self {
            forwards: Registry::new(ForwardId::new),
            listeners: Registry::new(ListenerId::new),
            pools: Registry::new(PoolId::new),
            dialled: HashSet::new(),
            names: Registry::new(NameId::new),
            pilot: None,
        }
    }
}

/// See the module's documentation. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) config: Arc<Config>,
    pub(super) forwards: Arc<[ForwardPlan]>,
    pub(super) pools: Arc<[PoolPlan]>,
    /// Names to be kept resolved, each once.
    pub(super) names: Arc<[NameRequest]>,
}

/// A forward.
#[derive(Debug)]
pub(super) struct ForwardPlan {
    pub(super) id: ForwardId,
    pub(super) config: Arc<config::Forward>,
    pub(super) pool: PoolId,
    /// Of each of its routes; `None`: it leads nowhere.
    pub(super) routes: Vec<Option<PoolId>>,
    /// Pools that a program may name, if it decides about sessions.
    pub(super) choices: Vec<PoolChoice>,
    pub(super) pilot: Option<Pilot>,
    pub(super) listeners: Vec<ListenerPlan>,
}

/// A pool that sessions of a forward may be sent to, though none of its routes leads there.
#[derive(Debug)]
pub(super) struct PoolChoice {
    pub(super) name: Arc<str>,
    pub(super) id: PoolId,
    pub(super) config: Arc<config::Pool>,
}

/// An address that is listened on.
#[derive(Debug, Clone)]
pub(super) struct ListenerPlan {
    pub(super) id: ListenerId,
    pub(super) transport: Transport,
    pub(super) address: Address,
}

/// What people call a pool, its name or that of the forward it is written in; and which of
/// those of this name it is, for ranges of ports make several.
pub(super) type PoolName = (Arc<str>, usize);

/// A pool, for all forwards that use it.
#[derive(Debug)]
pub(super) struct PoolPlan {
    pub(super) config: Arc<config::Pool>,
    pub(super) name: PoolName,
    /// Forwards that dial with the same options share its spares as well.
    pub(super) dialled: Vec<(PoolId, Arc<DialOptions>)>,
    /// For each of its servers the name that it is found by, if by any.
    pub(super) names: Vec<Option<NameId>>,
}

/// Options that a pool is dialled with, and what they come to.
#[derive(Debug)]
pub(super) struct DialOptions {
    pub(super) options: SocketOptions,
    pub(super) plan: Arc<OptionPlan>,
}

impl DialOptions {
    fn new(options: SocketOptions) -> Self {
        let plan = Arc::new(options.plan(Leg::Upstream));
        Self { options, plan }
    }
}

impl Borrow<SocketOptions> for Arc<DialOptions> {
    fn borrow(&self) -> &SocketOptions {
        &self.options
    }
}

impl PartialEq for DialOptions {
    fn eq(&self, other: &Self) -> bool {
        self.options == other.options
    }
}

impl Eq for DialOptions {}

impl Hash for DialOptions {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.options.hash(state);
    }
}

impl Plan {
    /// That of another configuration than before: what has the very same forwards has the same
    /// plan, which is seen by `has_forwards_of`.
    pub(super) fn again(config: &Arc<Config>, before: &Self, ids: &mut Identities) -> Self {
        let (was, is) = (&before.config.forwards, &config.forwards);
        let is_same = |(was, is): (&Arc<_>, &Arc<_>)| Arc::ptr_eq(was, is);
        if was.len() == is.len() && was.iter().zip(is).all(is_same) {
            return Self {
                config: config.clone(),
                ..before.clone()
            };
        }
        Self::of(config, ids)
    }

    /// Whether all forwards and pools are the very same.
    pub(super) fn has_forwards_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.forwards, &other.forwards)
    }

    pub(super) fn of(config: &Arc<Config>, ids: &mut Identities) -> Self {
        let mut forwards = Vec::with_capacity(config.forwards.len());
        let mut pools: Vec<PoolPlan> = Vec::new();
        let mut known = HashMap::new();
        let mut named: HashMap<Arc<str>, usize> = HashMap::new();
        let pilot = ids.pilot.clone();
        let nameable = if pilot.is_some() {
            named_pools(config)
        } else {
            BTreeMap::new()
        };
        for forward in &config.forwards {
            // Forwards that name the same pool have the very same one.
            let mut dialled = |pool: &Arc<config::Pool>, label: &str, asks: bool| {
                let at = *known.entry(Arc::as_ptr(pool)).or_insert_with(|| {
                    let label: Arc<str> = label.into();
                    let nth = named.entry(label.clone()).or_default();
                    pools.push(PoolPlan::new(pool, (label, *nth)));
                    *nth += 1;
                    pools.len() - 1
                });
                pools[at].dialled_with(&forward.upstream, asks, ids)
            };
            let label = forward.pool.name.as_deref().unwrap_or(&forward.name);
            let asks = matches!(forward.mode, Mode::HttpConnect(_));
            let pool = dialled(&forward.pool, label, asks);
            let routes = forward.routes.iter().map(|route| match &route.to {
                RouteTo::Pool(_) => {
                    let (label, pool) = route.pool(&forward.name)?;
                    Some(dialled(pool, &label, false))
                }
                RouteTo::HttpConnect(_) => {
                    let label = format!("{}/{}", forward.name, route.name);
                    Some(dialled(&Arc::default(), &label, true))
                }
                RouteTo::Reject => None,
            });
            let routes = routes.collect();
            let choices = nameable.iter().map(|(name, pool)| PoolChoice {
                name: (*name).into(),
                id: dialled(pool, name, false),
                config: (*pool).clone(),
            });
            let choices = choices.collect();
            let listeners = forward.transports().flat_map(|transport| {
                let addresses = forward.listen.iter();
                addresses.map(move |address| (transport, address))
            });
            let listeners = listeners.map(|(transport, address)| ListenerPlan {
                id: ids.listeners.id(listener_name(forward, transport, address)),
                transport,
                address: address.clone(),
            });
            let listeners = listeners.collect();
            forwards.push(ForwardPlan {
                id: ids.forwards.id(forward.name.clone()),
                config: forward.clone(),
                pool,
                routes,
                choices,
                pilot: pilot.clone(),
                listeners,
            });
        }
        let asked = name_servers(&mut pools, ids);
        Self {
            config: config.clone(),
            forwards: forwards.into(),
            pools: pools.into(),
            names: asked.into(),
        }
    }

    /// Whether any forward's clients say where to go.
    pub(super) fn has_requests(&self) -> bool {
        let mut forwards = self.forwards.iter();
        forwards.any(|forward| forward.requests().next().is_some())
    }
}

/// The names of servers, each once, and which each server has.
fn name_servers(pools: &mut [PoolPlan], ids: &mut Identities) -> Vec<NameRequest> {
    let mut names = Vec::new();
    let mut asked = HashSet::new();
    for pool in pools {
        let (ttl_min, ttl_max) = (pool.config.ttl_min, pool.config.ttl_max);
        let obeys = pool.config.on_empty == OnEmpty::Obey;
        for server in &pool.config.servers {
            let id = name_of(&server.address).map(|name| {
                let id = ids.names.id((name.clone(), ttl_min, ttl_max, obeys));
                if asked.insert(id) {
                    names.push(NameRequest {
                        id,
                        name,
                        ttl_min,
                        ttl_max,
                        obeys,
                    });
                }
                id
            });
            pool.names.push(id);
        }
    }
    names
}

impl ForwardPlan {
    /// What its clients may ask for, and by which of its routes they come there.
    pub(super) fn requests(&self) -> impl Iterator<Item = (Option<u16>, &HttpConnect)> {
        self.config.requests()
    }
}

/// Every pool that has a name, and that a forward or a route goes to.
fn named_pools(config: &Config) -> BTreeMap<&str, &Arc<config::Pool>> {
    let forwards = config.forwards.iter();
    let all = forwards.flat_map(|forward| {
        let routes = forward.routes.iter();
        let routes = routes.filter_map(|route| match &route.to {
            RouteTo::Pool(pool) => Some(pool),
            RouteTo::HttpConnect(_) | RouteTo::Reject => None,
        });
        routes.chain([&forward.pool])
    });
    all.filter_map(|pool| Some((pool.name.as_deref()?, pool)))
        .collect()
}

/// A listener is its address; of a port that the kernel chooses each forward has one
/// of its own.
fn listener_name(
    forward: &config::Forward,
    transport: Transport,
    address: &Address,
) -> (String, String) {
    let chosen = match address {
        Address::Any { port } | Address::Name { port, .. } => *port == 0,
        Address::Inet(address) => address.port() == 0,
        Address::Unix(_) | Address::Srv(_) | Address::Passed(_) => false,
    };
    let whose = if chosen {
        forward.name.clone()
    } else {
        String::new()
    };
    let name = match transport {
        Transport::Tcp => address.to_string(),
        Transport::Udp => format!("udp:{address}"),
    };
    (name, whose)
}

fn name_of(address: &Address) -> Option<Name> {
    match address {
        Address::Name { host, port } => Some(Name::Host(host.clone(), *port)),
        Address::Srv(service) => Some(Name::Srv(service.clone())),
        Address::Any { .. } | Address::Inet(_) | Address::Unix(_) | Address::Passed(_) => None,
    }
}

impl PoolPlan {
    fn new(config: &Arc<config::Pool>, name: PoolName) -> Self {
        Self {
            config: config.clone(),
            name,
            // Most have one, and there are thousands of them.
            dialled: Vec::with_capacity(1),
            names: Vec::with_capacity(config.servers.len()),
        }
    }

    /// The identity for a forward that connects with these options: forwards that share a
    /// pool share its servers; those that connect with the same options too, its spares.
    /// `asks`: clients say where to go.
    fn dialled_with(
        &mut self,
        options: &SocketOptions,
        asks: bool,
        ids: &mut Identities,
    ) -> PoolId {
        let mut options = Cow::Borrowed(options);
        if asks && options.fastopen_connect.is_some() {
            // A connect that sends data along succeeds before it is answered, and
            // so would the answer to the client.
            options.to_mut().fastopen_connect = None;
        }
        if self.config.interface.is_some() {
            options
                .to_mut()
                .interface
                .clone_from(&self.config.interface);
        }
        let known = self.dialled.iter();
        if let Some((id, _)) = known.clone().find(|(_, with)| with.options == *options) {
            return *id;
        }
        let with = ids.dialled(options);
        let id = ids.pools.id((self.name.clone(), with.clone()));
        self.dialled.push((id, with));
        id
    }

    /// The options that checks connect with: those of its first user, from the first of
    /// its own local addresses.
    pub(super) fn check_options(&self) -> Arc<OptionPlan> {
        let first = self.dialled.first().map(|(_, with)| with);
        match (self.config.sources.as_slice(), first) {
            ([], Some(with)) => with.plan.clone(),
            (sources, with) => {
                let mut options = with.map(|with| with.options.clone()).unwrap_or_default();
                options.source = sources.first().copied().or(options.source);
                Arc::new(options.plan(Leg::Upstream))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
