//! The pools of a configuration while it runs: which servers each has, as names
//! resolve and checks find them, told to every reactor.
//!
//! ```text
//!   resolver thread ── a name's addresses ──► rebuild its pools ──► Order::Servers
//!   checker thread ─── up, down ────────────► the shared Server ──► Order::CutServer
//! ```
//! Invariants: a server keeps its counters and its state for as long as its pool lists
//! it or it has sessions, and for a while after (`departed`); a pool whose names fail keeps
//! the servers it had.

mod departed;
mod steered;
mod told;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::balance::Policy;
use crate::balance::health::Change;
use crate::config::{self, AdminState, Balance, Check, HashKey, OnDown};
use crate::net::address::{Address, Endpoint};
use crate::net::options::{Leg, OptionPlan, SocketOptions};
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::proto::host;
use crate::reactor::UpstreamSetup;
use crate::reactor::upstream::server::{
    Member, Server, ServerSet, ServerSettings, ServerTerms, SetRules,
};
use crate::relay::id::{NameId, PoolId, ServerId};
use crate::relay::time::Time;

use super::health::{CheckPlan, Checker, Used, Verdict};
use super::plan::{Plan, PoolName, PoolPlan};
use super::resolve::Answer;
use super::wire::{Order, Wire};
use departed::Departed;

/// Every pool, and who is told of changes.
#[derive(Debug)]
pub(super) struct Upstreams {
    pools: Mutex<Vec<LivePool>>,
    wires: Mutex<Vec<Wire>>,
    checker: Mutex<Option<Checker>>,
    /// The time zero of the reactors, once they run.
    origin: OnceLock<Instant>,
}

/// A pool at work.
#[derive(Debug)]
struct LivePool {
    config: Arc<config::Pool>,
    name: PoolName,
    /// What each configured server is known by: see [`keys`].
    keys: Vec<Arc<str>>,
    /// For each configured server the places it stands for.
    places: Vec<Places>,
    /// Servers that are listed, have sessions yet or left not long ago, by the configured
    /// one and the place.
    known: HashMap<(Arc<str>, Endpoint), Arc<Server>>,
    departed: Departed,
    /// Names that have had no answer yet may have their first one any moment.
    awaits_names: bool,
    set: Arc<ServerSet>,
    /// What reactors know it by: once for each set of options that it is dialled with.
    dialled: Vec<(PoolId, Arc<OptionPlan>)>,
    /// Weights that an operator gave servers.
    weights: HashMap<(Arc<str>, Endpoint), u32>,
    /// What checks or an operator said of servers last.
    reasons: HashMap<ServerId, Arc<str>>,
    /// How its servers are checked, if they are, and what such a connect sets.
    check: Option<(Arc<Check>, Arc<OptionPlan>)>,
}

#[derive(Debug)]
enum Places {
    Fixed(Endpoint),
    /// As its name resolves, and when it was told so; empty before the first answer.
    Named(NameId, Vec<super::resolve::Resolved>, Option<Instant>),
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
    fn new(plan: &PoolPlan) -> Self {
        Self::known_by(plan, &HashMap::new(), Time::ZERO)
    }

    /// One whose names have these addresses already.
    fn known_by(plan: &PoolPlan, resolved: &Addresses, now: Time) -> Self {
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
        };
        pool.dial_as(plan);
        pool.rebuild(now);
        pool
    }

    /// The options that it is dialled and checked with; those that are as before stay the
    /// very same.
    fn dial_as(&mut self, plan: &PoolPlan) {
        let before = std::mem::take(&mut self.dialled);
        let options = |(id, options): &(PoolId, SocketOptions)| {
            let known = before.iter().find(|(known, _)| known == id);
            let compiled = known.map(|(_, options)| options.clone());
            (
                *id,
                compiled.unwrap_or_else(|| Arc::new(options.plan(Leg::Upstream))),
            )
        };
        self.dialled = plan.dialled.iter().map(options).collect();
        let check = plan.config.check.clone();
        self.check = check.map(|check| (Arc::new(check), plan.check_options()));
    }

    /// Whether nothing differs from what is asked for.
    fn is_as(&self, plan: &PoolPlan) -> bool {
        let ids = |dialled: &[(PoolId, _)]| -> Vec<PoolId> {
            dialled.iter().map(|(id, _)| *id).collect()
        };
        let asked: Vec<PoolId> = plan.dialled.iter().map(|(id, _)| *id).collect();
        let names = self.places.iter().map(Places::name);
        let is_same = Arc::ptr_eq(&self.config, &plan.config) || *self.config == *plan.config;
        is_same && ids(&self.dialled) == asked && names.eq(plan.names.clone())
    }

    /// Becomes what is asked for. Servers that stay keep what is known of them, and what
    /// an operator has asked of them where the configuration does not ask otherwise now.
    fn follow(&mut self, plan: &PoolPlan, resolved: &Addresses, now: Time) {
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
                merge(&mut terms, &was, &is);
                server.set_terms(terms, now);
            }
        }
        let keys = &self.keys;
        self.weights.retain(|(key, _), _| keys.contains(key));
        self.rebuild(now);
    }

    fn setups(&self) -> impl Iterator<Item = (PoolId, UpstreamSetup)> + '_ {
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
            };
            (*id, setup)
        })
    }

    /// The servers as they are known now.
    fn rebuild(&mut self, now: Time) {
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
        let mut places = self.places.iter();
        let awaits =
            self.awaits_names && places.any(|place| matches!(place, Places::Named(_, _, None)));
        let set = ServerSet::new(members, &rules(&self.config), Some(&self.set), now);
        self.set = Arc::new(set.awaiting_names(awaits));
    }
}

/// What names are known to resolve to.
type Addresses = HashMap<NameId, (Vec<super::resolve::Resolved>, Option<Instant>)>;

impl Places {
    const fn name(&self) -> Option<NameId> {
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

/// What the configuration asks otherwise than before; the rest is as an operator has it.
fn merge(terms: &mut ServerTerms, was: &ServerTerms, is: &ServerTerms) {
    if was.max_connections != is.max_connections {
        terms.max_connections = is.max_connections;
    }
    if was.admin != is.admin {
        terms.admin = is.admin;
    }
    if was.max_fails != is.max_fails {
        terms.max_fails = is.max_fails;
    }
    if was.fail_timeout != is.fail_timeout {
        terms.fail_timeout = is.fail_timeout;
    }
}

impl LivePool {
    /// Servers that are listed or have sessions yet.
    fn present(&self) -> impl Iterator<Item = &Arc<Server>> {
        let known = self.known.values();
        known.filter(|server| !self.departed.is_gone(server))
    }

    /// Servers that are to be checked, and whether only for the sessions that they have yet:
    /// those are ended when it goes down.
    fn checked(&self) -> Vec<(&Arc<Server>, bool)> {
        let listed = self.set.members().iter().map(|it| (&it.server, false));
        let on_down = self.config.check.as_ref().map(|it| it.on_down);
        let left = self.departed.in_use(self.known.values());
        let left = left.filter(|_| on_down == Some(OnDown::Close));
        listed.chain(left.map(|it| (it, true))).collect()
    }
}

/// What the configuration asks of a server.
fn terms(server: &config::Server, pool: &config::Pool) -> ServerTerms {
    ServerTerms {
        max_connections: server.max_connections,
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

impl Upstreams {
    /// The pools of a plan, without the addresses of names so far.
    pub(super) fn new(plan: &Plan<'_>) -> Self {
        Self {
            pools: Mutex::new(plan.pools.iter().map(LivePool::new).collect()),
            wires: Mutex::new(Vec::new()),
            checker: Mutex::new(None),
            origin: OnceLock::new(),
        }
    }

    /// What each reactor starts with.
    pub(super) fn setups(&self) -> BTreeMap<PoolId, UpstreamSetup> {
        let pools = self.pools();
        pools.iter().flat_map(LivePool::setups).collect()
    }

    /// The servers of every pool.
    pub(super) fn sets(&self) -> Vec<Arc<ServerSet>> {
        self.pools().iter().map(|pool| pool.set.clone()).collect()
    }

    /// Becomes what a plan asks for; what reactors are to be told of that.
    pub(super) fn follow(&self, plan: &Plan<'_>) -> Vec<(PoolId, UpstreamSetup)> {
        let now = self.now();
        let mut pools = self.pools();
        let mut resolved = Addresses::new();
        for place in pools.iter().flat_map(|pool| &pool.places) {
            if let Places::Named(name, addresses, answered) = place {
                resolved.insert(*name, (addresses.clone(), *answered));
            }
        }
        let before = std::mem::take(&mut *pools).into_iter();
        let mut before: HashMap<PoolName, LivePool> =
            before.map(|pool| (pool.name.clone(), pool)).collect();
        let mut changed = Vec::new();
        for plan in &plan.pools {
            let pool = match before.remove(&plan.name) {
                Some(pool) if pool.is_as(plan) => pool,
                Some(mut pool) => {
                    pool.follow(plan, &resolved, now);
                    changed.extend(pool.setups());
                    pool
                }
                None => {
                    let pool = LivePool::known_by(plan, &resolved, now);
                    changed.extend(pool.setups());
                    pool
                }
            };
            pools.push(pool);
        }
        // Sessions that are left there go by what is known; nobody checks it any more.
        for server in before.values().flat_map(|pool| pool.known.values()) {
            server.standing.unchecked(now);
        }
        if let Some(checker) = &*lock(&self.checker) {
            checker.set_plans(plans(&pools));
        }
        changed
    }

    /// Whether a plan has servers to check and nobody checks any so far.
    pub(super) fn lacks_checks(&self, plan: &Plan<'_>) -> bool {
        let wanted = plan.pools.iter().any(|pool| pool.config.check.is_some());
        wanted && lock(&self.checker).is_none()
    }

    fn pools(&self) -> MutexGuard<'_, Vec<LivePool>> {
        lock(&self.pools)
    }

    /// By the clock of the reactors; its zero before they run.
    fn now(&self) -> Time {
        let since = self.origin.get().map(Instant::elapsed);
        Time::ZERO + since.unwrap_or_default()
    }

    /// From now on reactors are told of changes; what they were started with may be
    /// older than what is known by now.
    pub(super) fn connect(&self, wires: Vec<Wire>) {
        *lock(&self.wires) = wires;
        for pool in &*self.pools() {
            self.tell(pool);
        }
    }

    /// These are the reactors that are alive.
    pub(super) fn set_wires(&self, wires: Vec<Wire>) {
        *lock(&self.wires) = wires;
    }

    /// Names have other addresses: all those whose answer is the same one.
    pub(super) fn resolved(&self, answers: &[(NameId, Answer)], log: &Log) {
        let answers: HashMap<NameId, &Answer> = answers.iter().map(|(id, it)| (*id, it)).collect();
        let mut pools = self.pools();
        let mut notices = Vec::new();
        for pool in &mut *pools {
            let mut changed = false;
            for place in &mut pool.places {
                if let Places::Named(id, addresses, answered) = place
                    && let Some(answer) = answers.get(id)
                {
                    addresses.clone_from(&answer.addresses);
                    *answered = Some(Instant::now());
                    changed = true;
                }
            }
            if changed {
                pool.rebuild(self.now());
                notices.push((pool.name.0.clone(), pool.set.members().len()));
                self.tell(pool);
            }
        }
        report_changes(notices, log);
        self.renew_checks(&pools);
    }

    /// Every name has had its first answer or failure, or time enough: sessions wait for
    /// none any more.
    pub(super) fn names_were_tried(&self) {
        let now = self.now();
        for pool in &mut *self.pools() {
            pool.awaits_names = false;
            if pool.set.awaits_names() {
                pool.rebuild(now);
                self.tell(pool);
            }
        }
    }

    /// Whether every name has had its first answer and every checked server its first check.
    pub(super) fn firsts_are_known(&self) -> bool {
        let checked = lock(&self.checker)
            .as_ref()
            .is_none_or(Checker::firsts_are_known);
        checked && !self.pools().iter().any(|pool| pool.awaits_names)
    }

    /// What is checked from now on.
    fn renew_checks(&self, pools: &[LivePool]) {
        let plans = plans(pools);
        if let Some(checker) = &*lock(&self.checker) {
            checker.set_plans(plans);
        }
    }

    /// Starts to check servers, if any pool wants that. `origin` is the time zero of
    /// the reactors.
    pub(super) fn start_checks(self: &Arc<Self>, origin: Instant, log: &Log) -> io::Result<()> {
        let _ = self.origin.set(origin);
        let pools = self.pools();
        if pools.iter().all(|pool| pool.check.is_none()) {
            return Ok(());
        }
        self.check(plans(&pools), log)
    }

    /// Starts to check these servers.
    pub(super) fn check(self: &Arc<Self>, plans: Vec<CheckPlan>, log: &Log) -> io::Result<()> {
        // The checker is part of this: it must not keep it alive.
        let told = Arc::downgrade(self);
        let on_change = move |id: ServerId, verdict: Verdict| {
            if let Some(told) = told.upgrade() {
                told.checked(id, &verdict, told.now());
            }
        };
        let checker = Checker::start(plans, log.clone(), on_change)?;
        *lock(&self.checker) = Some(checker);
        Ok(())
    }

    /// Checks end: nobody acts on them any more.
    pub(super) fn stop_checks(&self) {
        // Not dropped under the lock, which its thread may be waiting for.
        let checker = lock(&self.checker).take();
        drop(checker);
    }

    fn checked(&self, id: ServerId, verdict: &Verdict, now: Time) {
        let mut pools = self.pools();
        let found = pools.iter_mut().find_map(|pool| {
            let mut servers = pool.known.values();
            let server = servers.find(|server| server.settings().id == id)?.clone();
            if !verdict.released {
                pool.reasons.insert(id, verdict.reason.as_str().into());
            }
            Some((server, pool.config.check.as_ref()?.on_down))
        });
        drop(pools);
        // Of one that has left its name's list the verdict is kept, and it begins with that
        // when it is back; one that an operator takes out begins anew.
        let stays =
            |server: &Server| verdict.released && server.terms().admin == AdminState::Active;
        if let Some((server, on_down)) = found
            && !stays(&server)
        {
            server.standing.checked(verdict.change, now);
            server.note_state(now);
            if verdict.change == Change::Down && on_down == OnDown::Close {
                self.cut(&server);
            }
        }
    }

    fn tell(&self, pool: &LivePool) {
        let wires = lock(&self.wires);
        for wire in &*wires {
            for (id, _) in &pool.dialled {
                wire.send(Order::Servers(*id, pool.set.clone())).forget();
            }
        }
    }

    /// Ends the sessions of a server on every reactor.
    fn cut(&self, server: &Arc<Server>) {
        let wires = lock(&self.wires);
        for wire in &*wires {
            wire.send(Order::CutServer(server.clone())).forget();
        }
    }

    /// Every server that is listed or has sessions yet, for reports.
    pub(super) fn servers(&self) -> Vec<Arc<Server>> {
        let pools = self.pools();
        let known = pools.iter().flat_map(LivePool::present);
        let mut servers: Vec<_> = known.cloned().collect();
        servers.sort_by_key(|server| server.settings().id);
        servers
    }
}

/// Pools that are named one by one when one answer changes them.
const NAMED_MAX: usize = 8;

/// A range of a thousand ports is a thousand pools of one name.
fn report_changes(changed: Vec<(Arc<str>, usize)>, log: &Log) {
    if changed.len() > NAMED_MAX {
        let (pool, servers) = &changed[0];
        log.notice(Notice::PoolsChanged {
            pool: pool.clone(),
            servers: *servers,
            others: changed.len() - 1,
        });
        return;
    }
    for (pool, servers) in changed {
        log.notice(Notice::PoolChanged { pool, servers });
    }
}

/// Whoever panicked while it held a lock left whole values behind it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is to be checked now.
fn plans(pools: &[LivePool]) -> Vec<CheckPlan> {
    let mut plans = Vec::new();
    for pool in pools {
        let Some((check, options)) = &pool.check else {
            continue;
        };
        for (server, while_used) in pool.checked() {
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
                send_proxy: pool.config.send_proxy.map(|it| it.version),
            });
        }
    }
    plans
}
