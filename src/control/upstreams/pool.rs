//! One pool at work: the servers that its configuration lists, at the places that they have
//! now, and what is known of each. It tells nobody: [`super::Upstreams`] does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::departed::Departed;
use crate::balance::Policy;
use crate::config::{self, AdminState, Balance, Check, HashKey, OnDown};
use crate::control::health::{CheckChange, CheckPlan, Used};
use crate::control::plan::{PoolName, PoolPlan};
use crate::control::resolve::Resolved;
use crate::net::address::{Address, Endpoint};
use crate::net::options::OptionPlan;
use crate::proto::host;
use crate::reactor::upstream::server::{
    Member, Server, ServerSet, ServerSettings, ServerTerms, SetRules,
};
use crate::reactor::{ClientTable, UpstreamSetup};
use crate::relay::id::{NameId, PoolId, ServerId};
use crate::relay::time::Time;

/// A pool at work.
#[derive(Debug)]
pub(super) struct LivePool {
    pub(super) config: Arc<config::Pool>,
    pub(super) name: PoolName,
    /// What each configured server is known by: see [`keys`].
    pub(super) keys: Vec<Arc<str>>,
    /// For each configured server the places it stands for.
    pub(super) places: Vec<Places>,
    /// Servers that are listed, have sessions yet or left not long ago, by the configured
    /// one and the place.
    pub(super) known: HashMap<(Arc<str>, Endpoint), Arc<Server>>,
    pub(super) departed: Departed,
    /// Names that have had no answer yet may have their first one any moment.
    pub(super) awaits_names: bool,
    pub(super) set: Arc<ServerSet>,
    /// What reactors know it by: once for each set of options that it is dialled with.
    pub(super) dialled: Vec<(PoolId, Arc<OptionPlan>)>,
    /// Weights that an operator gave servers.
    pub(super) weights: HashMap<(Arc<str>, Endpoint), u32>,
    /// What checks or an operator said of servers last.
    pub(super) reasons: HashMap<ServerId, Arc<str>>,
    /// How its servers are checked, if they are, and what such a connect sets.
    pub(super) check: Option<(Arc<Check>, Arc<OptionPlan>)>,
    /// Servers that the checker was told to check.
    checked: Vec<ServerId>,
}

#[derive(Debug)]
pub(super) enum Places {
    Fixed(Endpoint),
    /// As its name resolves, and when it was told so; empty before the first answer.
    Named(NameId, Vec<Resolved>, Option<Instant>),
}

/// The heaviest server: beyond, weights in the units of the policies do not fit.
const WEIGHT_MAX: u64 = 1 << 20;

/// The configured weight times that of an SRV record, of which 0 is a very small one.
fn weight(configured: u32, record: u16) -> u32 {
    let product = u64::from(configured) * u64::from(record.max(1));
    product.min(WEIGHT_MAX) as u32
}

fn empty_set(config: &config::Pool) -> Arc<ServerSet> {
    Arc::new(ServerSet::new(Vec::new(), &rules(config), None, Time::ZERO))
}

const fn rules(config: &config::Pool) -> SetRules {
    SetRules {
        policy: policy(config),
        resolve: config.resolve,
        slow_start: config.slow_start,
    }
}

const fn policy(config: &config::Pool) -> Policy {
    match config.balance {
        Balance::RoundRobin => Policy::RoundRobin,
        Balance::LeastConn => Policy::LeastConn,
        Balance::PowerOfTwo => Policy::PowerOfTwo,
        Balance::Random => Policy::Random,
        Balance::Hash(_) => Policy::Hash,
        Balance::First => Policy::First,
    }
}

impl LivePool {
    pub(super) fn new(plan: &PoolPlan) -> Self {
        Self::known_by(plan, &HashMap::new(), Time::ZERO)
    }

    /// One whose names have these addresses already.
    pub(super) fn known_by(plan: &PoolPlan, resolved: &Addresses, now: Time) -> Self {
        let mut pool = Self {
            keys: keys(&plan.config),
            places: places(plan, resolved),
            config: plan.config.clone(),
            name: plan.name.clone(),
            known: HashMap::new(),
            departed: Departed::default(),
            awaits_names: true,
            weights: HashMap::new(),
            reasons: HashMap::new(),
            set: empty_set(&plan.config),
            dialled: Vec::new(),
            check: None,
            checked: Vec::new(),
        };
        pool.dial_as(plan);
        pool.rebuild(now);
        pool
    }

    /// The options that it is dialled and checked with.
    fn dial_as(&mut self, plan: &PoolPlan) {
        let dialled = plan.dialled.iter();
        self.dialled = dialled.map(|(id, with)| (*id, with.plan.clone())).collect();
        let check = plan.config.check.clone();
        self.check = check.map(|check| (Arc::new(check), plan.check_options()));
    }

    /// Whether nothing differs from what is asked for.
    pub(super) fn is_as(&self, plan: &PoolPlan) -> bool {
        let dialled = self.dialled.iter().map(|(id, _)| id);
        let names = self.places.iter().map(Places::name);
        let is_same = Arc::ptr_eq(&self.config, &plan.config) || *self.config == *plan.config;
        is_same
            && dialled.eq(plan.dialled.iter().map(|(id, _)| id))
            && names.eq(plan.names.iter().copied())
    }

    /// Becomes what is asked for. Servers that stay keep what is known of them, and what
    /// an operator has asked of them where the configuration does not ask otherwise now.
    pub(super) fn follow(&mut self, plan: &PoolPlan, resolved: &Addresses, now: Time) {
        let before = std::mem::replace(&mut self.config, plan.config.clone());
        let keys_before = std::mem::replace(&mut self.keys, keys(&plan.config));
        self.places = places(plan, resolved);
        self.dial_as(plan);
        for (key, configured) in self.keys.iter().zip(&self.config.servers) {
            let at = keys_before.iter().position(|it| it == key);
            let Some(earlier) = at.and_then(|at| before.servers.get(at)) else {
                continue;
            };
            // What an operator set holds until the configuration changes that very key.
            if earlier.weight != configured.weight {
                self.weights.retain(|(known, _), _| known != key);
            }
            let (was, is) = (terms(earlier, &before), terms(configured, &self.config));
            if was == is {
                continue;
            }
            for ((_, _), server) in self.known.iter().filter(|((known, _), _)| known == key) {
                let mut terms = server.terms();
                terms.follow(&was, &is);
                server.set_terms(terms, now);
            }
        }
        let keys = &self.keys;
        self.weights.retain(|(key, _), _| keys.contains(key));
        self.rebuild(now);
    }

    pub(super) fn setups<'a>(
        &'a self,
        clients: &'a Arc<ClientTable>,
    ) -> impl Iterator<Item = (PoolId, UpstreamSetup)> + 'a {
        let config = &self.config;
        self.dialled.iter().map(|(id, options)| {
            let setup = UpstreamSetup {
                set: self.set.clone(),
                options: options.clone(),
                hash: match config.balance {
                    Balance::Hash(key) => key,
                    _ => HashKey::Address,
                },
                queue: config.queue,
                attempt_delay: config.attempt_delay,
                sources: config.sources.as_slice().into(),
                transparent: config.transparent,
                send_proxy: config.send_proxy,
                warm: config.warm,
                warm_max_age: config.warm_max_age,
                clients: Some(clients.clone()),
            };
            (*id, setup)
        })
    }

    /// The servers as they are known now.
    pub(super) fn rebuild(&mut self, now: Time) {
        let mut members = Vec::new();
        for (index, configured) in self.config.servers.iter().enumerate() {
            match &self.places[index] {
                Places::Fixed(endpoint) => {
                    let server = server(
                        &mut self.known,
                        &self.config,
                        &self.name.0,
                        (index, &self.keys[index]),
                        endpoint,
                    );
                    let place = (self.keys[index].clone(), endpoint.clone());
                    let given = self.weights.get(&place);
                    members.push(Member {
                        server,
                        weight: given.copied().unwrap_or(configured.weight),
                        backup: configured.backup,
                        family: None,
                    });
                }
                Places::Named(_, addresses, _) => {
                    // Of SRV records those of a later priority are for when the
                    // earlier ones are down.
                    let first = addresses.iter().map(|it| it.priority).min();
                    // One that joins others has not served yet; of the first answer all are
                    // alike.
                    let key = &self.keys[index];
                    let joins = self.known.keys().any(|(at, _)| at == key);
                    for address in addresses {
                        let endpoint = Endpoint::Inet(address.endpoint);
                        let place = (self.keys[index].clone(), endpoint.clone());
                        let is_new = !self.known.contains_key(&place);
                        let server = server(
                            &mut self.known,
                            &self.config,
                            &self.name.0,
                            (index, &self.keys[index]),
                            &endpoint,
                        );
                        if is_new && joins {
                            server.standing.joined(now);
                        }
                        let own = weight(configured.weight, address.weight);
                        let given = self.weights.get(&(self.keys[index].clone(), endpoint));
                        members.push(Member {
                            server,
                            weight: given.copied().unwrap_or(own),
                            backup: configured.backup || Some(address.priority) != first,
                            family: (addresses.len() > 1).then_some(index as u16),
                        });
                    }
                }
            }
        }
        let listed = members.iter().map(|it| it.server.settings().id);
        self.departed
            .follow(&mut self.known, &listed.collect(), now);
        let alone = members.len() == 1;
        for member in &members {
            let standing = &member.server.standing;
            standing.set_alone(alone, now);
            if self.config.check.is_none() && standing.is_checked_down() {
                standing.unchecked(now);
            }
        }
        let set = ServerSet::new(members, &rules(&self.config), Some(&self.set), now);
        self.set = Arc::new(set.awaiting_names(self.awaits_an_answer()));
    }

    /// A name of it has had no first answer so far, nor time enough for one.
    pub(super) fn awaits_an_answer(&self) -> bool {
        let mut places = self.places.iter();
        self.awaits_names && places.any(|place| matches!(place, Places::Named(_, _, None)))
    }
}

/// What names are known to resolve to.
pub(super) type Addresses = HashMap<NameId, (Vec<Resolved>, Option<Instant>)>;

impl Places {
    pub(super) const fn name(&self) -> Option<NameId> {
        match self {
            Self::Fixed(_) => None,
            Self::Named(name, ..) => Some(*name),
        }
    }
}

/// What each configured server is known by from one configuration to the next: its address,
/// and of those that are the same which one.
fn keys(config: &config::Pool) -> Vec<Arc<str>> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let key = |server: &config::Server| {
        let address = server.address.to_string();
        let nth = seen.entry(address.clone()).or_default();
        *nth += 1;
        match nth {
            1 => address.into(),
            nth => format!("{address}#{nth}").into(),
        }
    };
    config.servers.iter().map(key).collect()
}

fn places(plan: &PoolPlan, resolved: &Addresses) -> Vec<Places> {
    let servers = plan.config.servers.iter().zip(&plan.names);
    let places = servers.map(|(server, name)| match (&server.address, name) {
        (_, Some(name)) => {
            let (addresses, answered) = resolved.get(name).cloned().unwrap_or_default();
            Places::Named(*name, addresses, answered)
        }
        (Address::Inet(address), _) => Places::Fixed(Endpoint::Inet(*address)),
        (Address::Unix(name), _) => Places::Fixed(Endpoint::Unix(name.clone())),
        (address, _) => {
            let localhost = std::net::Ipv4Addr::LOCALHOST;
            let port = address.port().unwrap_or_default();
            Places::Fixed(Endpoint::Inet((localhost, port).into()))
        }
    });
    places.collect()
}

impl LivePool {
    /// Servers that are listed or have sessions yet.
    pub(super) fn present(&self) -> impl Iterator<Item = &Arc<Server>> {
        let known = self.known.values();
        known.filter(|server| !self.departed.is_gone(server))
    }

    /// What is to be checked now, and what no more.
    pub(super) fn renew_checks(&mut self, change: &mut CheckChange) {
        let plans = self.check_plans();
        let listed = plans.iter().map(|it| it.id).collect();
        let before = std::mem::replace(&mut self.checked, listed);
        let listed: HashSet<ServerId> = self.checked.iter().copied().collect();
        change
            .gone
            .extend(before.into_iter().filter(|it| !listed.contains(it)));
        change.plans.extend(plans);
    }

    /// The servers that were checked, of a pool that is no more.
    pub(super) fn was_checked(&self) -> impl Iterator<Item = ServerId> {
        self.checked.iter().copied()
    }

    fn check_plans(&self) -> Vec<CheckPlan> {
        let Some((check, options)) = &self.check else {
            return Vec::new();
        };
        let mut plans = Vec::new();
        for (server, while_used) in self.checked_servers() {
            let settings = server.settings();
            if server.terms().admin == AdminState::Maintenance {
                continue;
            }
            plans.push(CheckPlan {
                id: settings.id,
                pool: settings.pool.clone(),
                host: settings.host.clone(),
                endpoint: settings.endpoint.clone(),
                options: options.clone(),
                check: check.clone(),
                down: server.standing.is_checked_down(),
                while_used: while_used.then(|| Used(server.clone())),
                send_proxy: server.terms().send_proxy.map(|it| it.version),
            });
        }
        plans
    }

    /// Servers that are to be checked, and whether only for the sessions that they have yet:
    /// those are ended when it goes down.
    fn checked_servers(&self) -> Vec<(&Arc<Server>, bool)> {
        let listed = self.set.members().iter().map(|it| (&it.server, false));
        let on_down = self.config.check.as_ref().map(|it| it.on_down);
        let left = self.departed.in_use(self.known.values());
        let left = left.filter(|_| on_down == Some(OnDown::Close));
        listed.chain(left.map(|it| (it, true))).collect()
    }
}

/// What the configuration asks of a server.
pub(super) fn terms(server: &config::Server, pool: &config::Pool) -> ServerTerms {
    ServerTerms {
        max_connections: server.max_connections,
        connect_rate: server.connects(),
        max_per_client: server.max_per_client,
        send_proxy: server.send_proxy.unwrap_or(pool.send_proxy),
        bytes: server.bytes(),
        admin: server.state,
        max_fails: server.max_fails.unwrap_or(pool.max_fails),
        fail_timeout: server.fail_timeout.unwrap_or(pool.fail_timeout),
    }
}

/// The server at this place, as it was known or a new one.
fn server(
    known: &mut HashMap<(Arc<str>, Endpoint), Arc<Server>>,
    pool: &config::Pool,
    label: &Arc<str>,
    (index, key): (usize, &Arc<str>),
    endpoint: &Endpoint,
) -> Arc<Server> {
    let configured = &pool.servers[index];
    let make = || {
        static SERVERS: AtomicU32 = AtomicU32::new(0);
        Arc::new(Server::new(ServerSettings {
            id: ServerId::new(SERVERS.fetch_add(1, Ordering::Relaxed)),
            endpoint: endpoint.clone(),
            host: match &configured.address {
                Address::Name { host, .. } => Some(host::without_dot(host).to_owned()),
                _ => None,
            },
            pool: label.clone(),
            terms: terms(configured, pool),
        }))
    };
    known
        .entry((key.clone(), endpoint.clone()))
        .or_insert_with(make)
        .clone()
}
