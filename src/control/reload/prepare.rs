//! What comes before anything is touched: reading, comparing, and acquiring all that may
//! not be had. On a thread of its own, because much of it may wait.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::config::{Applies, Config, Difference, Subject};
use crate::engine::choice::Kind;
use crate::net::address::{Address, Endpoint};
use crate::net::inherited::Inherited;
use crate::net::listener::{self, ListenSocket};
use crate::net::options::SocketOptions;
use crate::net::own::OwnListeners;
use crate::observe::counters::Counters;
use crate::observe::log::{Log, LogSink};
use crate::observe::tap::Taps;
use crate::reactor::{ClientPolicy, ClientTable, Gate, Homes, Setup};
use crate::relay::id::{ForwardId, ListenerId};

use crate::control::acquire::{self, BoundAddress, ReactorPlan};
use crate::control::awaited::Awaited;
use crate::control::beside::BesideFiles;
use crate::control::clients;
use crate::control::confine::Confinement;
use crate::control::error::StartError;
use crate::control::held::HeldSocket;
use crate::control::inbox::{Teller, Told};
use crate::control::plan::{Identities, ListenerPlan, Plan};
use crate::control::proxy::Deciders;
use crate::control::resolve::{KnownNames, Resolver};
use crate::control::signals;
use crate::control::source::ConfigSource;
use crate::control::thread::ReactorThread;
use crate::control::upstreams::Upstreams;
use crate::control::wire::Order;

use super::report::{ReloadError, Reloaded, Took, summary};

/// An address that is listened on, as far as a preparation wants to know.
#[derive(Debug, Clone)]
pub(in crate::control) struct KnownListener {
    pub(in crate::control) client: Arc<SocketOptions>,
    pub(in crate::control) forward: Arc<str>,
    pub(in crate::control) locals: Vec<Endpoint>,
    /// For each of the addresses one socket.
    pub(in crate::control) first: Vec<HeldSocket>,
    /// Sockets for each address.
    pub(in crate::control) count: usize,
    pub(in crate::control) sessions: usize,
}

/// What a preparation looks at.
#[derive(Debug, Clone)]
pub(in crate::control) struct Shop {
    pub(in crate::control) running: Arc<Config>,
    /// Its plan.
    pub(in crate::control) plan: Plan,
    pub(in crate::control) generation: u64,
    pub(in crate::control) ids: Arc<Mutex<Identities>>,
    pub(in crate::control) listeners: BTreeMap<ListenerId, KnownListener>,
    /// Reactors that let clients in, and those that are alive.
    pub(in crate::control) active: Vec<u16>,
    pub(in crate::control) alive: BTreeSet<u16>,
    pub(in crate::control) kind: Kind,
    pub(in crate::control) gate: Arc<Gate>,
    pub(in crate::control) flows: Arc<Gate>,
    pub(in crate::control) upstreams: Arc<Upstreams>,
    pub(in crate::control) resolver: Option<Arc<Resolver>>,
    pub(in crate::control) deciders: Option<Arc<Deciders>>,
    pub(in crate::control) taps: Arc<Taps>,
    pub(in crate::control) own: Arc<OwnListeners>,
    pub(in crate::control) homes: Arc<Homes>,
    pub(in crate::control) clients: Option<Arc<ClientTable>>,
    pub(in crate::control) confinement: Arc<Confinement>,
    pub(in crate::control) policies: BTreeMap<ForwardId, Arc<ClientPolicy>>,
    pub(in crate::control) beside: Arc<BesideFiles>,
    pub(in crate::control) origin: Instant,
    pub(in crate::control) log: Log,
    pub(in crate::control) teller: Teller,
}

/// Everything is there; only the commit is missing.
pub(in crate::control) struct Prepared {
    pub(in crate::control) plan: Plan,
    pub(in crate::control) differences: Vec<Difference>,
    pub(in crate::control) report: Reloaded,
    parts: Parts,
}

/// What was acquired.
pub(in crate::control) struct Parts {
    pub(in crate::control) opened: Vec<BoundAddress>,
    /// More sockets of addresses that stay, one for each local address.
    pub(in crate::control) joined: Vec<(ListenerId, Vec<ListenSocket>)>,
    pub(in crate::control) fresh: Vec<(u16, ReactorThread)>,
    /// Reactors that let clients in from then on.
    pub(in crate::control) active: Vec<u16>,
    pub(in crate::control) kind: Kind,
    pub(in crate::control) resolver: Option<Arc<Resolver>>,
    /// Other ones than before.
    pub(in crate::control) deciders: Option<Arc<Deciders>>,
    pub(in crate::control) taps: Arc<Taps>,
    /// Who may come in, by forward.
    pub(in crate::control) policies: BTreeMap<ForwardId, Arc<ClientPolicy>>,
    pub(in crate::control) log_to: Option<LogSink>,
}

impl Prepared {
    /// What was acquired.
    pub(in crate::control) fn take(self) -> Parts {
        self.parts
    }
}

impl Parts {
    /// Reactors that were started for nothing end.
    fn give_up(self) {
        for (_, reactor) in self.fresh {
            reactor.send(Order::Drain).forget();
        }
    }
}

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub(in crate::control) enum From {
    /// From where it came at the start.
    Source(Arc<dyn ConfigSource>),
    /// Given as it is.
    Config(Arc<Config>),
}

/// A preparation under way.
#[derive(Debug)]
pub(in crate::control) struct Preparation {
    pub(in crate::control) awaited: Awaited,
    pub(in crate::control) since: Instant,
    outcome: Receiver<Result<Box<Prepared>, ReloadError>>,
}

impl Preparation {
    /// Starts one. `Told::Ready` says that it has come to an end.
    pub(in crate::control) fn start(
        from: From,
        shop: Shop,
        dry_run: bool,
    ) -> Result<Self, ReloadError> {
        let (done, outcome) = channel();
        let awaited = Awaited::default();
        let told = awaited.clone();
        let thread = std::thread::Builder::new().name("reload".into());
        let spawned = thread.spawn(move || {
            signals::block_here();
            let teller = shop.teller.clone();
            let outcome = prepare(&from, &shop, dry_run, &told);
            // It has sockets that the commit may close: nobody else may hold them then.
            drop(shop);
            let _ = done.send(outcome);
            teller.tell(Told::Ready);
        });
        match spawned {
            Ok(_) => Ok(Self {
                awaited,
                since: Instant::now(),
                outcome,
            }),
            Err(error) => Err(ReloadError::Unavailable(format!(
                "cannot start a thread: {error}"
            ))),
        }
    }

    /// What came of it, once something has. A thread that panicked has said why itself.
    pub(in crate::control) fn outcome(&self) -> Option<Result<Box<Prepared>, ReloadError>> {
        use std::sync::mpsc::TryRecvError;
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(ReloadError::Unavailable(format!(
                "it ended while it was {}",
                self.awaited.now()
            )))),
        }
    }
}

fn unavailable(error: &StartError) -> ReloadError {
    ReloadError::Unavailable(error.to_string())
}

fn prepare(
    from: &From,
    shop: &Shop,
    dry_run: bool,
    awaited: &Awaited,
) -> Result<Box<Prepared>, ReloadError> {
    awaited.is("reading the configuration");
    let begin = Instant::now();
    let mut took = Took::default();
    let config = match from {
        From::Source(source) => {
            let mut config = source
                .read_again(&shop.running)
                .map_err(ReloadError::Configuration)?;
            took.read = begin.elapsed().as_secs_f64();
            config.share(&shop.running);
            Arc::new(config)
        }
        From::Config(config) => config.clone(),
    };
    if !dry_run {
        shop.beside.are_read(&config);
    }
    let differences = shop.running.diff(&config);
    let refused = refused(&differences, &shop.running, &config);
    if !refused.is_empty() {
        return Err(ReloadError::Restart(refused));
    }
    let source = match from {
        From::Source(source) => Some(&**source),
        From::Config(_) => None,
    };
    let denied = shop.confinement.denies(&config, source);
    if !denied.is_empty() {
        return Err(ReloadError::Denied(denied));
    }
    let mut ids = shop.ids.lock().unwrap_or_else(PoisonError::into_inner);
    let plan = Plan::again(&config, &shop.plan, &mut ids);
    drop(ids);
    let mut report = preview(&plan, &differences, shop, dry_run);
    took.compare = begin.elapsed().as_secs_f64() - took.read;
    report.took = took;
    let begin = Instant::now();
    let mut parts = Parts {
        opened: Vec::new(),
        joined: Vec::new(),
        fresh: Vec::new(),
        active: shop.active.clone(),
        kind: shop.kind,
        resolver: shop.resolver.clone(),
        deciders: None,
        taps: shop.taps.clone(),
        policies: BTreeMap::new(),
        log_to: None,
    };
    if !dry_run && let Err(error) = acquire(&plan, shop, &mut parts, awaited) {
        parts.give_up();
        return Err(error);
    }
    report.took.apply = begin.elapsed().as_secs_f64();
    Ok(Box::new(Prepared {
        plan,
        differences,
        report,
        parts,
    }))
}

/// What only a new process can do, in words.
fn refused(differences: &[Difference], old: &Config, new: &Config) -> Vec<String> {
    let by_class = differences
        .iter()
        .filter(|it| it.effect == Applies::Restart);
    let mut refused: Vec<String> = by_class.map(ToString::to_string).collect();
    let others = old.other_forwards(new);
    let before: BTreeMap<&str, _> = others.old.iter().map(|it| (&*it.name, it)).collect();
    for forward in others.new {
        let Some(before) = before.get(&*forward.name) else {
            continue;
        };
        let stays = |address: &Address| before.listen.contains(address);
        let unix = |it: &&Address| matches!(it, Address::Unix(_)) && stays(it);
        if before.unix_file != forward.unix_file
            && let Some(address) = forward.listen.iter().find(unix)
        {
            refused.push(format!(
                "{}: `unix_mode`, `unix_owner` and `unix_group` of {address}, which exists; \
                 change them by chmod and chown as well, or give it another path",
                Subject::Forward(forward.name.clone())
            ));
        }
        if forward.listen.iter().any(stays) {
            let fixed = listener::fixed_options(&before.client, &forward.client);
            refused.extend(fixed.into_iter().map(|option| {
                format!(
                    "{}: the sockets of its listeners keep `{option}`; give it another address",
                    Subject::Forward(forward.name.clone())
                )
            }));
        }
    }
    refused
}

/// What will be done: exactly that is done later.
fn preview(plan: &Plan, differences: &[Difference], shop: &Shop, dry_run: bool) -> Reloaded {
    let planned = || plan.forwards.iter().flat_map(|it| &it.listeners);
    let is_opened = |it: &&ListenerPlan| !shop.listeners.contains_key(&it.id);
    let opened: BTreeMap<ListenerId, &Address> = planned()
        .filter(is_opened)
        .map(|it| (it.id, &it.address))
        .collect();
    let (mut kept, mut closed, mut left) = (shop.listeners.len(), Vec::new(), 0);
    if !plan.has_forwards_of(&shop.plan) {
        let planned: HashSet<ListenerId> = planned().map(|it| it.id).collect();
        let names: HashSet<&str> = plan.forwards.iter().map(|it| &*it.config.name).collect();
        for (id, known) in &shop.listeners {
            if !planned.contains(id) {
                kept -= 1;
                closed.extend(known.locals.iter().map(ToString::to_string));
            }
            if !names.contains(&*known.forward) {
                left += known.sessions;
            }
        }
    }
    Reloaded {
        generation: shop.generation + u64::from(!differences.is_empty()),
        dry_run,
        summary: summary(differences, 0),
        changes: differences.iter().map(ToString::to_string).collect(),
        listeners_opened: opened.values().map(ToString::to_string).collect(),
        listeners_kept: kept,
        listeners_closed: closed,
        forwards_compared: shop.running.other_forwards(&plan.config).new.len(),
        orders: 0,
        sessions_left: left,
        sessions_cut: 0,
        confirm_within: None,
        took: Took::default(),
    }
}

/// Takes all that is missing. Whatever is dropped on the way out is closed again.
fn acquire(
    plan: &Plan,
    shop: &Shop,
    prepared: &mut Parts,
    awaited: &Awaited,
) -> Result<(), ReloadError> {
    let (config, log) = (&*plan.config, &shop.log);
    let to = &config.log.to;
    if shop.running.log.to != *to {
        awaited.is(format_args!("opening the log {to}"));
        let opened = LogSink::open(to, config.log.mode).map_err(|error| {
            let target = to.clone();
            unavailable(&StartError::Log { target, error })
        })?;
        prepared.log_to = Some(opened);
    }
    awaited.is("opening the targets of taps");
    let taps = shop.taps.follow(config, log);
    prepared.taps = Arc::new(taps.map_err(|error| unavailable(&error.into()))?);
    if let Some(table) = &shop.clients {
        awaited.is("reading the files of access lists");
        let policies = clients::policies(plan, table, &shop.policies)
            .map_err(|(forward, error)| unavailable(&StartError::Access { forward, error }));
        prepared.policies = policies?;
    }
    for forward in plan.forwards.iter().filter(|it| it.config.pool.transparent) {
        acquire::check_transparent(&forward.config).map_err(|error| unavailable(&error))?;
    }
    reactors(plan, shop, prepared, awaited)?;
    if shop.upstreams.lacks_checks(plan) {
        let started = shop.upstreams.check(Vec::new(), log);
        started.map_err(|error| unavailable(&StartError::Checker(error)))?;
    }
    if shop.resolver.is_none() {
        let started = acquire::resolver(plan, &shop.upstreams, KnownNames::default(), (log, None));
        prepared.resolver = started.map_err(|error| unavailable(&error))?;
    }
    if let Some(resolver) = prepared.resolver.clone()
        && (plan.has_requests() || shop.deciders.is_some())
    {
        awaited.is("reading the files of users");
        let deciders = Deciders::new(
            plan,
            resolver,
            shop.own.clone(),
            log,
            shop.deciders.as_ref(),
        );
        let deciders = deciders.map_err(|error| unavailable(&error))?;
        let known = shop.deciders.as_ref();
        let is_known = known.is_some_and(|known| Arc::ptr_eq(known, &deciders));
        prepared.deciders = (!is_known).then_some(deciders);
    }
    Ok(())
}

/// Listeners and the reactors that look after them.
fn reactors(
    plan: &Plan,
    shop: &Shop,
    prepared: &mut Parts,
    awaited: &Awaited,
) -> Result<(), ReloadError> {
    let (old, new) = (&shop.running.global, &plan.config.global);
    let count = acquire::reactor_count(&plan.config);
    if old.engine != new.engine {
        prepared.kind =
            acquire::choose_engine(&plan.config, &shop.log).map_err(|error| unavailable(&error))?;
    }
    // Both by what the machine grants now, which is not asked for nothing.
    let is_same = || {
        old == new || acquire::engine_setup(&plan.config) == acquire::engine_setup(&shop.running)
    };
    let anew = prepared.kind != shop.kind || !is_same();
    let kept = if anew {
        0
    } else {
        count.min(shop.active.len())
    };
    prepared.active.truncate(kept);
    let free = (0..u16::MAX).filter(|number| !shop.alive.contains(number));
    let numbers: Vec<u16> = free.take(count - kept).collect();
    prepared.active.extend(&numbers);

    let is_held = |id| shop.listeners.contains_key(&id);
    // Nothing is passed later than at the start.
    let mut none = Inherited::default();
    prepared.opened = acquire::open(plan, (&is_held, &mut none), count, awaited, &shop.log)
        .map_err(|error| unavailable(&error))?;
    // Only as many sockets as there are reactors, and one at least, for each address.
    for (id, known) in &shop.listeners {
        for _ in known.count..count {
            let joined = known.first.iter().filter_map(|socket| {
                let of = listener::join(
                    socket.fd(),
                    (socket.at.transport, &socket.at.address),
                    &known.client,
                );
                of.inspect_err(|_| ()).ok()
            });
            let joined: Vec<ListenSocket> = joined.collect();
            // Without them the sockets that there are are shared.
            if joined.len() == known.first.len() {
                prepared.joined.push((*id, joined));
            }
        }
    }
    if numbers.is_empty() {
        return Ok(());
    }
    let setup = acquire::engine_setup(&plan.config);
    for (index, number) in numbers.into_iter().enumerate() {
        awaited.is(format_args!("starting reactor {number}"));
        let reactor = ReactorPlan {
            kind: prepared.kind,
            engine: setup.clone(),
            listeners: Vec::new(),
            setup: Setup {
                reactor: number,
                pools: BTreeMap::new(),
                gate: shop.gate.clone(),
                flows: shop.flows.clone(),
                homes: shop.homes.clone(),
                own: shop.own.clone(),
                counters: Arc::new(Counters::default()),
                log: shop.log.clone(),
                session_log: (&plan.config.log).into(),
                taps: BTreeMap::new(),
                decider: None,
            },
            pin: acquire::pin(&plan.config, kept + index, count),
            origin: shop.origin,
            deciders: None,
            waits: false,
        };
        let thread = ReactorThread::spawn(reactor, shop.teller.clone())
            .map_err(|error| unavailable(&error))?;
        prepared.fresh.push((number, thread));
    }
    Ok(())
}
