//! Reloads of a forwarder at work: who asks, what comes of it, and the commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Spread;
use crate::observe::notice::{List, Notice};
use crate::observe::tap;
use crate::reactor::Change;
use crate::relay::ending::Cause;
use crate::relay::id::{ForwardId, PoolId};

use super::held::{self, HeldListener};
use super::neighbourhood::Neighbourhood;
use super::reload::{
    AllOrders, From, KnownListener, Preparation, Prepared, ReloadError, Retired, Shop, Sockets,
    commit,
};
use super::reloading::{self, Job, OnTrial};
use super::running::{self, Running, await_all, pools_of};
use super::thread::ReactorThread;
use super::upgrade::order::Upgrading;
use super::wire::{Order, Pending};
use super::{acquire, clients};

/// Between looks at forwards that sessions may still go by.
const RETIRED_LOOK: Duration = Duration::from_secs(1);

/// Sockets that a reactor is told of in one order: it carries one out in a turn, and its
/// sessions wait for that long.
const SOCKETS_PER_ORDER: usize = 64;

impl Running {
    /// One more reload is asked for.
    pub(super) fn ask(&mut self, job: Job) {
        if !job.request.dry_run {
            self.manager.reloading();
        }
        let upgrading = match &self.upgrading {
            Upgrading::Offered(to) | Upgrading::Frozen(to) => Some(to.clone()),
            Upgrading::Tried(_) => self.on_trial(),
            Upgrading::Not | Upgrading::Left(_) => None,
        };
        if let Some(upgrading) = upgrading
            && !job.request.dry_run
        {
            self.refused(&job, ReloadError::Upgrading(upgrading));
            self.tell_reloaded();
            return;
        }
        if let Some((_, preparing)) = &self.preparing
            && preparing.since.elapsed() > reloading::PATIENCE
        {
            let error = ReloadError::Busy(preparing.awaited.now());
            self.refused(&job, error);
            self.tell_reloaded();
            return;
        }
        self.queue.push(job);
        self.next();
    }

    /// Begins with the next one, if none is under way.
    fn next(&mut self) {
        while self.preparing.is_none() {
            let Some(job) = self.queue.pop(Instant::now()) else {
                if self.queue.is_empty() {
                    self.tell_reloaded();
                }
                return;
            };
            if !job.request.dry_run && job.listen_again.is_none() {
                self.reopen_log();
            }
            let from = match (&job.request.config, &self.source) {
                (Some(config), _) => From::Config(config.clone()),
                (None, Some(source)) if job.listen_again.is_none() => From::Source(source.clone()),
                // It is what it was.
                (None, _) => From::Config(self.config.clone()),
            };
            match Preparation::start(from, self.shop(job.listen_again), job.request.dry_run) {
                Ok(preparing) => self.preparing = Some((job, preparing)),
                Err(error) => self.refused(&job, error),
            }
        }
    }

    /// One that waited for others like it may be due.
    pub(super) fn go_on_with_reloads(&mut self) {
        if self.queue.due().is_some_and(|due| due <= Instant::now()) {
            self.next();
        }
    }

    /// What a preparation looks at. The sockets of a forward that is to listen again were
    /// closed, so its addresses are as good as unknown.
    fn shop(&self, again: Option<ForwardId>) -> Shop {
        let known = |listener: &HeldListener| {
            let (first, count) = listener.firsts();
            KnownListener {
                client: listener.options.client.clone(),
                locals: listener.locals().to_vec(),
                sessions: listener.sessions(),
                forward: listener.forward.name.clone(),
                first,
                count,
            }
        };
        Shop {
            running: self.config.clone(),
            plan: self.plan.clone(),
            generation: self.generation,
            ids: self.ids.clone(),
            listeners: self
                .held
                .listeners
                .iter()
                .filter(|(_, it)| Some(it.forward.id) != again || !it.sockets.is_empty())
                .map(|(id, it)| (*id, known(it)))
                .collect(),
            active: self.active.clone(),
            alive: self.reactors.keys().copied().collect(),
            kind: self.kind,
            gate: self.gate.clone(),
            flows: self.flows.clone(),
            upstreams: self.upstreams.clone(),
            resolver: self.resolver.clone(),
            deciders: self.deciders.clone(),
            taps: self.taps.clone(),
            own: self.held.own.clone(),
            homes: self.held.homes.clone(),
            clients: self.held.clients.clone(),
            confinement: self.confinement.clone(),
            policies: self.held.policies.clone(),
            beside: self.beside.clone(),
            origin: self.origin,
            log: self.log.clone(),
            teller: self.teller.clone(),
        }
    }

    fn refused(&self, job: &Job, error: ReloadError) {
        if !job.request.dry_run {
            self.log.notice(Notice::ReloadRefused {
                error: error.to_string(),
            });
        }
        job.answer(&Err(error));
    }

    /// A preparation may have come to an end.
    pub(super) fn prepared(&mut self) {
        let outcome = self.preparing.as_ref().and_then(|(_, it)| it.outcome());
        let Some(outcome) = outcome else {
            return;
        };
        if let Some((job, _)) = self.preparing.take() {
            match outcome {
                Err(error) => self.refused(&job, error),
                Ok(prepared) if job.request.dry_run => job.answer(&Ok(prepared.report.clone())),
                Ok(prepared) => self.carry_out(&job, *prepared),
            }
            // Its files may be others now, whatever came of it.
            if let Some(watch) = &self.watch {
                watch.again();
            }
        }
        self.next();
    }

    fn carry_out(&mut self, job: &Job, prepared: Prepared) {
        let before = self.config.clone();
        let mut report = prepared.report.clone();
        let begin = Instant::now();
        report.orders = self.commit(prepared);
        report.took.apply += begin.elapsed().as_secs_f64();
        self.look_after_reloads();
        if let Some(forward) = job.listen_again {
            self.steering.serves(forward);
            return job.answer(&Ok(report));
        }
        match job.request.confirm {
            Some(within) => {
                // What was confirmed last is what it goes back to.
                let back_to = self.trial.take().map_or(before, |it| it.back_to);
                let until = Instant::now() + within;
                self.trial = Some(OnTrial { back_to, until });
                report.confirm_within = Some(within.as_secs_f64());
            }
            None => self.trial = None,
        }
        self.log.notice(Notice::Reloaded {
            generation: self.generation,
            summary: report.summary.clone(),
            changes: List(report.changes.clone()),
            back: job.is_return,
        });
        job.answer(&Ok(report));
    }

    pub(super) fn confirm(&mut self) -> bool {
        self.trial.take().is_some()
    }

    /// Back to what was confirmed last.
    pub(super) fn go_back(&mut self) -> bool {
        let Some(trial) = self.trial.take() else {
            return false;
        };
        self.ask(Job::return_to(trial.back_to));
        true
    }

    /// When reloads want to be looked after next.
    pub(super) fn due(&self) -> Option<Instant> {
        let trial = self.trial.as_ref().map(|it| it.until);
        let names = self.names_due;
        let look = (!self.retired.is_empty()).then(|| Instant::now() + RETIRED_LOOK);
        let cut = self.retired.iter().filter_map(|it| it.cut_at).min();
        let service = self.manager.due();
        let rebalance = self.rebalance_due();
        let waits = self.queue.due().filter(|_| self.preparing.is_none());
        [trial, names, look, cut, service, rebalance, waits]
            .into_iter()
            .flatten()
            .min()
    }

    /// What has not been confirmed in time, forwards that are gone and whose time is over,
    /// pools that nobody uses any more.
    pub(super) fn look_after_reloads(&mut self) {
        let now = Instant::now();
        if self.trial.as_ref().is_some_and(|it| it.until <= now) {
            self.go_back();
        }
        if self.names_due.is_some_and(|at| at <= now) {
            self.names_due = None;
            self.upstreams.names_were_tried();
        }
        let late = |it: &Retired| it.cut_at.is_some_and(|at| at <= now);
        let cut: Arc<[ForwardId]> = self
            .retired
            .iter()
            .filter(|it| late(it))
            .map(Retired::id)
            .filter(|id| !self.forwards.contains_key(id))
            .collect();
        if !cut.is_empty() {
            self.order(|| Order::CutForwards(cut.clone(), Cause::DrainTimeout));
        }
        for retired in &mut self.retired {
            if retired.cut_at.is_some_and(|at| at <= now) {
                retired.cut_at = None;
            }
        }
        self.retired.retain(|it| it.sessions() > 0);
        let used: BTreeSet<PoolId> = self
            .forwards
            .values()
            .flat_map(|it| commit::pools(&it.forward))
            .chain(self.retired.iter().flat_map(Retired::pools))
            .collect();
        let unused: Arc<[PoolId]> = self.pools.difference(&used).copied().collect();
        if !unused.is_empty() {
            self.order(|| Order::ForgetPools(unused.clone()));
            self.pools = used;
        }
    }

    /// Goes by another configuration; how many orders reactors were given for it. Cannot fail.
    fn commit(&mut self, prepared: Prepared) -> usize {
        self.let_moves_arrive();
        let plan = prepared.plan.clone();
        let config = plan.config.clone();
        let other_forwards = !plan.has_forwards_of(&self.plan);
        let differs = !prepared.differences.is_empty();
        self.generation += u64::from(differs);
        let parts = prepared.take();
        let anew =
            parts.kind != self.kind || !parts.active.iter().any(|it| self.active.contains(it));
        self.kind = parts.kind;
        let fresh: Vec<u16> = parts.fresh.iter().map(|(number, _)| *number).collect();
        self.reactors.extend(parts.fresh);
        self.upstreams.set_wires(self.wires());
        self.gate
            .set_max(config.global.max_connections.unwrap_or(u32::MAX));

        // Pools before forwards, which name them.
        let pages = held::pages(parts.active.len());
        let held = &mut self.held;
        let books = |forward| held.books(forward, pages);
        let which = (self.generation, anew);
        let forwards = commit::forwards(&plan, &self.forwards, which, books, &parts.policies);
        self.held.policies = parts.policies;
        clients::apply_rates(&self.held.policies);
        let changed = if other_forwards {
            self.upstreams.follow(&plan)
        } else {
            Vec::new()
        };
        let mut orders = AllOrders::default();
        let known = self
            .reactors
            .keys()
            .copied()
            .filter(|it| !fresh.contains(it));
        orders.pools(known, &changed);
        if !fresh.is_empty() {
            let all: Vec<_> = self.upstreams.setups().into_iter().collect();
            orders.pools(fresh.iter().copied(), &all);
        }
        if other_forwards {
            self.pools.extend(pools_of(&plan));
        }

        let replaced = {
            let mut sockets = Sockets {
                held: &mut self.held,
                forwards: &forwards,
                active: &parts.active,
                orders: &mut orders,
                replaced: HashMap::new(),
                told: Vec::new(),
                unspread: BTreeSet::new(),
            };
            sockets.leave(&plan);
            sockets.change(&plan);
            sockets.open(parts.opened);
            sockets.spread(parts.joined, self.active == parts.active);
            self.log.report(std::mem::take(&mut sockets.told));
            sockets.replaced
        };
        let before = std::mem::replace(&mut self.forwards, forwards);
        self.retired
            .extend(commit::retired(before, &self.forwards, replaced));

        let (old, new) = (&self.config.log, &config.log);
        let other_log = old != new;
        if other_log || parts.log_to.is_some() {
            self.log.change(new.level, new.format, parts.log_to);
        }
        let taps = !self.taps.is_same(&parts.taps);
        self.taps = parts.taps;
        self.resolver = parts.resolver;
        if let Some(resolver) = &self.resolver
            && other_forwards
        {
            resolver.set_names(plan.names.to_vec());
            // Sessions wait for the first answer of a name that is new, but not for long.
            self.names_due = Some(Instant::now() + acquire::SESSIONS_WAIT);
        }
        let deciders = parts.deciders.is_some();
        self.deciders = parts.deciders.or(self.deciders.take());
        for (number, reactor) in &self.reactors {
            let is_fresh = fresh.contains(number);
            if !(other_log || taps || deciders || is_fresh) {
                continue;
            }
            let change = Change {
                records: other_log.then(|| (&config.log).into()),
                taps: (taps || is_fresh).then(|| self.tap_sources(*number)),
                onlookers: if is_fresh {
                    self.steering.onlookers(*number)
                } else {
                    Vec::new()
                },
                decider: self
                    .deciders
                    .as_ref()
                    .filter(|_| deciders || is_fresh)
                    .map(|it| it.for_reactor(reactor.wire(), *number)),
                ..Change::default()
            };
            // Before its listeners.
            orders
                .0
                .entry(*number)
                .or_default()
                .changes
                .insert(0, change);
        }
        let around = self.neighbourhood(&config, &parts.active);
        let orders = self.send(orders, (&parts.active, around));
        let leaving: Vec<u16> = self
            .active
            .iter()
            .filter(|it| !parts.active.contains(it))
            .copied()
            .collect();
        for number in leaving {
            if let Some(reactor) = self.reactors.get(&number) {
                reactor.send(Order::Drain).forget();
            }
        }
        self.active = parts.active;
        let known = &self.forwards;
        self.held
            .books
            .retain(|forward, _| known.contains_key(forward));
        self.steering
            .connect(self.reactors.values().map(ReactorThread::seen));
        let forwards = plan.forwards.iter().filter_map(|it| known.get(&it.id));
        let forwards = forwards.map(|it| it.forward.clone());
        self.steering.put(&config, forwards, self.generation);
        if other_forwards {
            let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            ids.keep(&plan);
        }
        self.plan = plan;
        self.beside.keep(&config);
        if self.config.global.watch != config.global.watch {
            let source = self.source.as_ref();
            let files = (source, &self.beside);
            self.watch = running::watch(&config, files, &self.teller, &self.log);
        }
        self.config = config;
        orders
    }

    fn tap_sources(&self, reactor: u16) -> BTreeMap<ForwardId, tap::Source> {
        let forwards = self.forwards.values().map(|it| &it.forward);
        acquire::sources(&self.taps, reactor, forwards)
    }

    /// Tells reactors, and waits until they have done it: sockets are given away once
    /// somebody else has them. How many orders that were.
    ///
    /// Pools come first, everywhere: a client may be passed on from a reactor that has a new
    /// forward already to one that is slower. `around`: among whom, from now on.
    fn send(
        &self,
        mut orders: AllOrders,
        (active, around): (&[u16], Option<Arc<Neighbourhood>>),
    ) -> usize {
        let (mut pending, mut later) = (Vec::new(), Vec::new());
        let noted = orders.0.iter().filter_map(|(number, orders)| {
            let reactor = self.reactors.get(number)?;
            let listeners = orders.note_homes.clone();
            (!listeners.is_empty()).then(|| reactor.send(Order::NoteHomes(listeners)))
        });
        let noted: Vec<Pending> = noted.collect();
        let mut count = noted.len();
        await_all(noted);
        for (number, reactor) in &self.reactors {
            let its = orders.0.get_mut(number).map(|it| &mut it.changes);
            for change in its.into_iter().flat_map(commit::before_listeners) {
                pending.push(reactor.send(Order::Change(Box::new(change))));
            }
        }
        if around.is_some() || self.config.global.spread == Spread::Least {
            for (number, reactor) in &self.reactors {
                let around = around.clone().filter(|_| active.contains(number));
                let around = around.map(|it| it.of(*number));
                pending.push(reactor.send(Order::Neighbours(around)));
            }
        }
        for (number, orders) in orders.0 {
            let Some(reactor) = self.reactors.get(&number) else {
                continue;
            };
            for change in orders.changes {
                pending.push(reactor.send(Order::Change(Box::new(change))));
            }
            let mut adopt = orders.adopt.into_iter();
            while adopt.len() > 0 {
                let some = adopt.by_ref().take(SOCKETS_PER_ORDER).collect();
                pending.push(reactor.send(Order::Adopt(some)));
            }
            if !orders.give_away.is_empty() {
                later.push((reactor, orders.give_away));
            }
        }
        count += pending.len() + later.len();
        await_all(pending);
        let given = later
            .into_iter()
            .map(|(reactor, sockets)| reactor.send(Order::GiveAway(sockets)));
        await_all(given.collect());
        count
    }
}
