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
mod pool;
mod steered;
mod told;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::balance::health::Change;
use crate::config::{AdminState, OnDown};
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::reactor::upstream::server::{Server, ServerSet};
use crate::reactor::{ClientTable, UpstreamSetup};
use crate::relay::id::{NameId, PoolId, ServerId};
use crate::relay::time::Time;

use super::health::{CheckChange, CheckPlan, Checker, Verdict};
use super::plan::{Plan, PoolName};
use super::resolve::Answer;
use super::wire::{Order, Wire};
use pool::{Addresses, LivePool, Places};

/// Every pool, and who is told of changes.
#[derive(Debug)]
pub(super) struct Upstreams {
    pools: Mutex<Vec<LivePool>>,
    wires: Mutex<Vec<Wire>>,
    checker: Mutex<Option<Checker>>,
    /// Where clients of servers are counted.
    clients: Arc<ClientTable>,
    /// The time zero of the reactors, once they run.
    origin: OnceLock<Instant>,
}

impl Upstreams {
    /// The pools of a plan, without the addresses of names so far.
    pub(super) fn new(plan: &Plan, clients: Arc<ClientTable>) -> Self {
        Self {
            clients,
            pools: Mutex::new(plan.pools.iter().map(LivePool::new).collect()),
            wires: Mutex::new(Vec::new()),
            checker: Mutex::new(None),
            origin: OnceLock::new(),
        }
    }

    /// What each reactor starts with.
    pub(super) fn setups(&self) -> BTreeMap<PoolId, UpstreamSetup> {
        let pools = self.pools();
        let setups = pools.iter().flat_map(|it| it.setups(&self.clients));
        setups.collect()
    }

    /// The servers of every pool.
    pub(super) fn sets(&self) -> Vec<Arc<ServerSet>> {
        self.pools().iter().map(|pool| pool.set.clone()).collect()
    }

    /// Becomes what a plan asks for; what reactors are to be told of that.
    pub(super) fn follow(&self, plan: &Plan) -> Vec<(PoolId, UpstreamSetup)> {
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
        let (mut changed, mut checks) = (Vec::new(), CheckChange::default());
        for plan in &*plan.pools {
            let pool = match before.remove(&plan.name) {
                Some(pool) if pool.is_as(plan) => pool,
                Some(mut pool) => {
                    pool.follow(plan, &resolved, now);
                    pool.renew_checks(&mut checks);
                    changed.extend(pool.setups(&self.clients));
                    pool
                }
                None => {
                    let mut pool = LivePool::known_by(plan, &resolved, now);
                    pool.renew_checks(&mut checks);
                    changed.extend(pool.setups(&self.clients));
                    pool
                }
            };
            pools.push(pool);
        }
        // Sessions that are left there go by what is known; nobody checks it any more.
        for server in before.values().flat_map(|pool| pool.known.values()) {
            server.standing.unchecked(now);
        }
        let gone = before.values().flat_map(LivePool::was_checked);
        checks.gone.extend(gone);
        self.check_otherwise(checks);
        changed
    }

    /// Whether a plan has servers to check and nobody checks any so far.
    pub(super) fn lacks_checks(&self, plan: &Plan) -> bool {
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
        let (mut notices, mut checks) = (Vec::new(), CheckChange::default());
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
                pool.renew_checks(&mut checks);
            }
        }
        report_changes(notices, log);
        self.check_otherwise(checks);
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
        checked && !self.pools().iter().any(LivePool::awaits_an_answer)
    }

    /// What is checked from now on of pools that have changed.
    fn check_otherwise(&self, change: CheckChange) {
        if change.gone.is_empty() && change.plans.is_empty() {
            return;
        }
        if let Some(checker) = &*lock(&self.checker) {
            checker.change(change);
        }
    }

    /// Starts to check servers, if any pool wants that. `origin` is the time zero of
    /// the reactors.
    pub(super) fn start_checks(self: &Arc<Self>, origin: Instant, log: &Log) -> io::Result<()> {
        let _ = self.origin.set(origin);
        let mut pools = self.pools();
        if pools.iter().all(|pool| pool.check.is_none()) {
            return Ok(());
        }
        let mut all = CheckChange::default();
        pools
            .iter_mut()
            .for_each(|pool| pool.renew_checks(&mut all));
        self.check(all.plans, log)
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
