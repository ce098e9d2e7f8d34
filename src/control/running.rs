//! A forwarder at work: its reactors, what they are told, how they end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::admin;
use crate::config::{Config, LogTarget, Spread};
use crate::engine::choice::Kind;
use crate::net::address::Endpoint;
use crate::net::handed::HandedLabel;
use crate::observe::counters::Snapshot;
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::observe::tap::Taps;
use crate::reactor::{Gate, Pilot};
use crate::relay::ending::Cause;
use crate::relay::id::{ForwardId, PoolId};

use super::acquire::Acquired;
use super::beside::BesideFiles;
use super::confine::Confinement;
use super::drain::{self, Deadlines, Quiet};
use super::error::StartError;
use super::held::Held;
use super::inbox::{Inbox, Teller, Told};
use super::manager::Manager;
use super::neighbourhood::Neighbourhood;
use super::plan::{Identities, Plan};
use super::proxy::Deciders;
use super::rebalance::state::Rebalancing;
use super::reload::{Committed, Preparation, Retired};
use super::reloading::{Job, OnTrial, Queue};
use super::report;
use super::request::{HandOverRequest, Request};
use super::resolve::Resolver;
use super::signals::Signal;
use super::source::ConfigSource;
use super::steering::Steering;
use super::survival::state::Survival;
use super::thread::ReactorThread;
use super::upgrade::entrance::{Entrance, OpenEntrance};
use super::upgrade::order::{NextUpgrade, Probation, Upgrading};
use super::upstreams::Upstreams;
use super::watch::FileWatch;
use super::wire::{Order, Pending, Wire};

/// How long what taps still have to show may take to be written.
const TAP_PATIENCE: Duration = Duration::from_secs(1);

/// What a beginning hands on.
pub(super) struct Begun {
    pub(super) config: Arc<Config>,
    pub(super) source: Option<Arc<dyn ConfigSource>>,
    pub(super) beside: Arc<BesideFiles>,
    pub(super) log: Log,
    pub(super) teller: Teller,
    pub(super) pilot: Option<Pilot>,
}

/// How long a reactor may take to carry out an order that needs nobody's consent: a
/// matter of a turn or two, but for a machine that is busy with other things.
const ORDER_PATIENCE: Duration = Duration::from_secs(2);

/// How long the log's target may take to be opened anew.
const REOPEN_PATIENCE: Duration = Duration::from_secs(1);

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Sessions go on until they end.
    Drain,
    /// Likewise; another process lets clients in.
    HandedOver,
    /// They are cut.
    Cut,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Running {
    /// Those that live, the ones that let nobody in any more among them.
    pub(super) reactors: BTreeMap<u16, ReactorThread>,
    /// Those that let clients in.
    pub(super) active: Vec<u16>,
    pub(super) config: Arc<Config>,
    pub(super) source: Option<Arc<dyn ConfigSource>>,
    /// Files that it names.
    pub(super) beside: Arc<BesideFiles>,
    pub(super) generation: u64,
    pub(super) ids: Arc<Mutex<Identities>>,
    pub(super) forwards: HashMap<ForwardId, Committed>,
    /// Of earlier configurations, as long as sessions go by them.
    pub(super) retired: Vec<Retired>,
    /// What reactors know.
    pub(super) pools: BTreeSet<PoolId>,
    pub(super) held: Held,
    pub(super) kind: Kind,
    pub(super) gate: Arc<Gate>,
    /// Flows of datagrams likewise.
    pub(super) flows: Arc<Gate>,
    pub(super) upstreams: Arc<Upstreams>,
    /// Answers for as long as it is there.
    pub(super) admin: Option<admin::Server>,
    /// Lets processes in that take over, likewise.
    pub(super) entrance: Option<OpenEntrance>,
    /// Of both, until clients are let in.
    waiting: Option<(admin::Bound, Option<Entrance>)>,
    pub(super) upgrading: Upgrading,
    /// Who wants to take over as soon as this process is the service.
    pub(super) next_upgrade: Option<NextUpgrade>,
    /// As long as this process is on trial.
    pub(super) probation: Option<Probation>,
    pub(super) steering: Arc<Steering>,
    /// Keeps names resolved for as long as it is there.
    pub(super) resolver: Option<Arc<Resolver>>,
    pub(super) deciders: Option<Arc<Deciders>>,
    pub(super) taps: Arc<Taps>,
    pub(super) origin: Instant,
    pub(super) log: Log,
    pub(super) teller: Teller,
    /// What is in force.
    pub(super) plan: Plan,
    /// What reactors that have ended had counted.
    pub(super) ended: Snapshot,
    pub(super) queue: Queue,
    pub(super) preparing: Option<(Job, Preparation)>,
    pub(super) trial: Option<OnTrial>,
    pub(super) manager: Manager,
    /// What is noted of sessions that are to outlive this process.
    pub(super) survival: Option<Survival>,
    pub(super) confinement: Arc<Confinement>,
    /// Looks after the files of the configuration, if it is to.
    pub(super) watch: Option<FileWatch>,
    pub(super) rebalancing: Rebalancing,
    /// When sessions wait no more for the first answers of names that are new.
    pub(super) names_due: Option<Instant>,
}

impl Running {
    pub(super) fn start(
        acquired: Acquired,
        plan: &Plan,
        ids: Identities,
        taps: Taps,
        begun: Begun,
    ) -> Result<Self, StartError> {
        let Acquired {
            reactors: plans,
            held,
            forwards,
            gate,
            flows,
            kind,
            upstreams,
            resolver,
            deciders,
            admin,
            entrance,
            steering,
            origin,
            generation,
        } = acquired;
        let Begun {
            config,
            source,
            beside,
            log,
            teller,
            pilot: _,
        } = begun;
        let active: Vec<u16> = plans.iter().map(|plan| plan.setup.reactor).collect();
        let mut reactors = BTreeMap::new();
        for plan in plans {
            let number = plan.setup.reactor;
            reactors.insert(number, ReactorThread::spawn(plan, teller.clone())?);
        }
        upstreams.connect(reactors.values().map(ReactorThread::wire).collect());
        steering.connect(reactors.values().map(ReactorThread::seen));
        steering.answer_to(teller.clone());
        upstreams
            .start_checks(origin, &log)
            .map_err(StartError::Checker)?;
        let watch = watch(&config, (source.as_ref(), &beside), &teller, &log);
        let forwards = plan.forwards.iter().zip(forwards).map(|(plan, forward)| {
            let config = plan.config.clone();
            (plan.id, Committed { config, forward })
        });
        let running = Self {
            forwards: forwards.collect(),
            pools: pools_of(plan),
            plan: plan.clone(),
            reactors,
            active,
            config,
            source,
            beside,
            generation,
            ids: Arc::new(Mutex::new(ids)),
            retired: Vec::new(),
            admin: None,
            entrance: None,
            waiting: Some((admin, entrance)),
            upgrading: Upgrading::default(),
            next_upgrade: None,
            probation: None,
            steering,
            held,
            kind,
            gate,
            flows,
            upstreams,
            resolver,
            deciders,
            taps: Arc::new(taps),
            origin,
            log,
            teller,
            ended: Snapshot::default(),
            queue: Queue::default(),
            preparing: None,
            trial: None,
            manager: Manager::default(),
            survival: None,
            confinement: Arc::default(),
            watch,
            rebalancing: Rebalancing::default(),
            names_due: None,
        };
        let around = running.neighbourhood(&running.config, &running.active);
        for (number, reactor) in running.reactors.iter().filter(|_| around.is_some()) {
            let around = around.clone().map(|it| it.of(*number));
            reactor.send(Order::Neighbours(around)).forget();
        }
        Ok(running)
    }

    /// It is this process that serves from now on: what was handed over to it is its own.
    pub(super) fn open(&mut self, handed: &[HandedLabel]) -> Result<(), StartError> {
        self.held.own_paths(handed);
        let Some((admin, entrance)) = self.waiting.take() else {
            return Ok(());
        };
        self.admin = Some(admin::Server::start(admin, self.steering.clone())?);
        self.entrance = self.open_entrance(entrance);
        Ok(())
    }

    /// Until a signal ends it, or a reactor fails: then the others drain, and the
    /// service manager learns of it by the exit code.
    pub(super) fn serve(mut self, inbox: &Inbox) -> Result<(), StartError> {
        let mut lost = false;
        let how = loop {
            self.look_after_service();
            self.rebalance();
            let Some(told) = inbox.wait(self.due()) else {
                self.look_after_reloads();
                self.go_on_with_reloads();
                continue;
            };
            match told {
                Told::Ended(reactor) => {
                    self.note_the_end(reactor);
                    lost = self.active.contains(&reactor);
                    if lost {
                        break End::Drain;
                    }
                }
                Told::Signal(Signal::Reload) | Told::Changed => self.ask(Job::unasked()),
                Told::Ready => self.prepared(),
                Told::Asked(Request::Reload(request, reply)) => {
                    self.ask(Job::asked(request, reply));
                }
                Told::Asked(Request::ListenAgain(forward, reply)) => {
                    self.ask(Job::listen_again(forward, reply));
                }
                Told::Asked(Request::StopListening(forward)) => self.held.close(forward),
                Told::Asked(Request::Confirm(reply)) => {
                    let _ = reply.send(self.judge(true) || self.confirm());
                }
                Told::Asked(Request::GoBack(reply)) => {
                    let _ = reply.send(self.judge(false) || self.go_back());
                }
                Told::Signal(Signal::Upgrade) => self.upgrade_unasked(),
                Told::Asked(Request::Upgrade(request, reply)) => self.upgrade(request, Some(reply)),
                Told::Old(reactor, session) => self.keep_session(reactor, session),
                Told::Has(reactor, session) => self.has_kept(reactor, session),
                Told::Gone(session) => self.forget_session(session),
                Told::Asked(Request::HandOver(HandOverRequest(order))) => {
                    if self.hand_over(order) {
                        break End::HandedOver;
                    }
                }
                other => {
                    if let Some(end) = self.heed(other) {
                        break end;
                    }
                }
            }
        };
        if how == End::HandedOver {
            self.leave();
        } else {
            self.leave_shared_paths();
        }
        self.steering.drains();
        let how = if lost { how } else { self.linger(inbox, how) };
        self.upstreams.stop_checks();
        self.drain(inbox, how);
        self.report();
        self.tell_the_rest();
        // The endpoint ends once nobody waits for an answer; from here there are none.
        inbox.close();
        let taps = self.taps.clone();
        drop(self);
        if let Some(taps) = Arc::into_inner(taps) {
            taps.finish(TAP_PATIENCE);
        }
        if lost {
            Err(StartError::ReactorLost)
        } else {
            Ok(())
        }
    }

    /// What is heeded at work and while it drains alike; whether that is to be the end.
    fn heed(&self, told: Told) -> Option<End> {
        match told {
            // The first one; a second one cuts.
            Told::Signal(Signal::Stop | Signal::Drain) => return Some(End::Drain),
            Told::Signal(Signal::Report) => self.report(),
            Told::Signal(Signal::Reload) => self.reopen_log(),
            Told::Signal(Signal::Meaningless(signal)) => self.log.notice(Notice::SignalIgnored {
                signal: signal.as_str(),
            }),
            Told::Signal(Signal::Child) | Told::Ended(_) | Told::Ready | Told::Changed => {}
            // All is forgotten when it drains.
            Told::Old(..) | Told::Has(..) | Told::Gone(_) => {}
            Told::Asked(Request::Drain) => return Some(End::Drain),
            Told::Asked(Request::Cut) => return Some(End::Cut),
            // Nobody answers: the process is ending.
            Told::Asked(
                Request::Reload(..)
                | Request::ListenAgain(..)
                | Request::Confirm(_)
                | Request::GoBack(_)
                | Request::StopListening(_)
                | Request::Upgrade(..),
            )
            | Told::Signal(Signal::Upgrade) => {}
            Told::Asked(Request::HandOver(HandOverRequest(order))) => self.move_sessions(order),
            Told::Asked(Request::Listeners(reply)) => {
                let _ = reply.send(self.listeners());
            }
            Told::Asked(Request::Counters(reply)) => {
                self.publish();
                let _ = reply.send(self.total());
            }
        }
        None
    }

    /// Lets clients in until none has come for `drain_delay`, while /readyz says that it will end: whoever balances
    /// before it notices, and sends nobody any more. A second signal ends all of it.
    fn linger(&mut self, inbox: &Inbox, how: End) -> End {
        let delay = self.config.global.drain_delay;
        if how != End::Drain || delay.is_zero() {
            return how;
        }
        self.manager.lingering();
        self.log.notice(Notice::Lingering { delay });
        let mut quiet = Quiet::begin(delay, self.clients(), Instant::now());
        while let Some(look_at) = quiet.next() {
            self.look_after_service();
            let next = self.manager.due().into_iter().chain([look_at]).min();
            match inbox.wait(next) {
                Some(Told::Signal(Signal::Stop)) => return End::Cut,
                Some(Told::Signal(Signal::Drain)) | None => {}
                Some(Told::Ended(reactor)) => {
                    self.note_the_end(reactor);
                    return how;
                }
                Some(told) => {
                    if self.heed(told) == Some(End::Cut) {
                        return End::Cut;
                    }
                }
            }
            let now = Instant::now();
            if now >= look_at {
                self.publish();
                quiet.look(self.clients(), now);
            }
        }
        how
    }

    /// Clients that have come so far, flows of datagrams among them.
    fn clients(&self) -> u64 {
        let total = self.total();
        total.accepted + total.udp_flows
    }

    /// Ends when every reactor has, which is when its last session has ended; those that
    /// are left when their forward's time has run out, or at a second signal, are cut.
    fn drain(&mut self, inbox: &Inbox, how: End) {
        // Not by the counters: those of a process that was killed are gone, its sessions are not.
        let live = u64::from(self.gate.live());
        let total = self.total();
        let mut timeouts: Vec<(ForwardId, Duration)> = self
            .forwards
            .iter()
            .map(|(id, it)| (*id, it.config.timeouts.drain))
            .collect();
        let now = Instant::now();
        for retired in self.retired.iter().filter(|it| it.sessions() > 0) {
            if let Some(cut_at) = retired.cut_at {
                timeouts.push((retired.id(), cut_at.saturating_duration_since(now)));
            }
        }
        self.manager.stopping(live);
        self.log.notice(Notice::Draining {
            sessions: live,
            flows: total.udp_flows.saturating_sub(total.udp_flows_ended),
            timeout: drain::longest(&timeouts),
        });
        self.let_moves_arrive();
        self.stay_apart();
        self.order(|| Order::Drain);
        self.held.close_all();
        let mut deadlines = Deadlines::of(&timeouts, now);
        while how != End::Cut && !self.has_ended() {
            while let Some(forwards) = deadlines.due(Instant::now()) {
                self.order(|| Order::CutForwards(forwards.clone(), Cause::DrainTimeout));
            }
            self.look_after_service();
            let next = [deadlines.next(), self.manager.due()];
            match inbox.wait(next.into_iter().flatten().min()) {
                Some(Told::Ended(reactor)) => self.note_the_end(reactor),
                Some(Told::Signal(Signal::Stop)) => break,
                Some(Told::Signal(Signal::Drain)) => {}
                Some(told) => {
                    let end = self.heed(told);
                    if end == Some(End::Cut) {
                        break;
                    }
                }
                None => {}
            }
        }
        if self.has_ended() {
            return;
        }
        self.order(|| Order::Cut(Cause::Stopped));
        // A reactor that does not answer must not keep the process alive.
        let deadline = Instant::now() + ORDER_PATIENCE;
        while !self.has_ended() {
            match inbox.wait(Some(deadline)) {
                Some(Told::Ended(reactor)) => self.note_the_end(reactor),
                Some(_) => {}
                None => return,
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.reactors.is_empty()
    }

    /// The thread of a reactor is over.
    fn note_the_end(&mut self, reactor: u16) {
        if let Some(thread) = self.reactors.remove(&reactor) {
            self.ended = self.ended.plus(thread.counters().snapshot());
            thread.join();
            self.upstreams.set_wires(self.wires());
        }
    }

    /// The reactors that clients are spread over by a configuration, if they are.
    pub(super) fn neighbourhood(
        &self,
        config: &Config,
        active: &[u16],
    ) -> Option<Arc<Neighbourhood>> {
        let among = active.iter().filter_map(|it| self.reactors.get(it));
        let wanted = config.global.spread == Spread::Least && active.len() > 1;
        wanted.then(|| Arc::new(Neighbourhood::new(among.map(ReactorThread::seen))))
    }

    /// Nobody is passed on to another reactor any more, so that each may end when it likes.
    fn stay_apart(&self) {
        if self.config.global.spread == Spread::Least {
            let told = self.reactors.values();
            await_all(told.map(|it| it.send(Order::Neighbours(None))).collect());
        }
    }

    pub(super) fn wires(&self) -> Vec<Wire> {
        self.reactors.values().map(ReactorThread::wire).collect()
    }

    /// Tells every reactor; nobody waits.
    pub(super) fn order(&self, order: impl Fn() -> Order) {
        for reactor in self.reactors.values() {
            reactor.send(order()).forget();
        }
    }

    /// Goes on in the files that have the names of the log and of taps now.
    pub(super) fn reopen_log(&self) {
        match self.log.reopen(REOPEN_PATIENCE) {
            Ok(()) if !matches!(self.config.log.to, LogTarget::File(_)) => {}
            Ok(()) => self.log.notice(Notice::LogReopened {}),
            Err(error) => self.log.notice(Notice::LogNotReopened { error }),
        }
        for (tap, error) in self.taps.reopen(REOPEN_PATIENCE) {
            let tap = tap.to_string();
            self.log.notice(Notice::TapNotReopened { tap, error });
        }
    }

    /// Where it listens, by forward.
    fn listeners(&self) -> Vec<(Arc<str>, Endpoint)> {
        self.held.locals()
    }

    /// Of all reactors that there are and were.
    pub(super) fn total(&self) -> Snapshot {
        let each = self.reactors.values().map(|it| it.counters().snapshot());
        each.fold(self.ended, Snapshot::plus)
    }

    /// Brings the gauges up to date; a reactor that is stuck is left as it was.
    fn publish(&self) {
        let running = self.reactors.values();
        let published: Vec<Pending> = running.map(|it| it.send(Order::Publish)).collect();
        await_all(published);
    }

    /// Logs the counters: in all, and how evenly the reactors share the load.
    fn report(&self) {
        self.publish();
        let active = self
            .reactors
            .iter()
            .filter(|(number, _)| self.active.contains(number));
        let active: Vec<Snapshot> = active.map(|(_, it)| it.counters().snapshot()).collect();
        report::tell(
            &self.log,
            &self.total(),
            &active,
            self.steering.routes(),
            &self.upstreams.servers(),
            self.held.policies(),
        );
    }
}

/// Waits until reactors have carried orders out; one that is stuck is not waited for.
pub(super) fn await_all(orders: Vec<Pending>) {
    let deadline = Instant::now() + ORDER_PATIENCE;
    for pending in orders {
        pending.is_done_by(deadline);
    }
}

/// Looks after the files that a configuration is read from, if it wants that. Without a
/// thread for it nothing else is lost.
pub(super) fn watch(
    config: &Config,
    (source, beside): (Option<&Arc<dyn ConfigSource>>, &Arc<BesideFiles>),
    teller: &Teller,
    log: &Log,
) -> Option<FileWatch> {
    let source = source.filter(|_| config.global.watch)?;
    let files = source.was_read();
    if files.is_empty() {
        log.notice(Notice::WatchesNothing {});
        return None;
    }
    let count = files.len() + beside.were_read().len();
    match FileWatch::start((source.clone(), beside.clone()), teller.clone(), log) {
        Ok(watch) => {
            log.notice(Notice::Watching { files: count });
            Some(watch)
        }
        Err(error) => {
            log.notice(Notice::NotWatched { error });
            None
        }
    }
}

pub(super) fn pools_of(plan: &Plan) -> BTreeSet<PoolId> {
    let pools = plan.pools.iter().flat_map(|it| &it.dialled);
    pools.map(|(id, _)| *id).collect()
}
