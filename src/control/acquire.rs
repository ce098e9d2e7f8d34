//! Everything that can fail between a plan and its being at work: limits, sockets, files
//! of users, threads that ask and check. Nothing that runs is touched: an error leaves
//! all as it was.
//!
//! What is held under an identity already is kept as it is: a listener stays the very
//! same socket, its queue with it.
//!
//! | file | what |
//! | --- | --- |
//! | here | everything together |
//! | `listeners` | sockets to listen on |
//! | `descriptors` | how many sessions there is room for |

mod descriptors;
mod listeners;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admin;
use crate::config::{BusyPoll, Config, EngineChoice, Forward, Reactors};
use crate::engine;
use crate::engine::choice::{self, Kind};
use crate::net::dial;
use crate::net::handed::Handed;
use crate::net::inherited::Inherited;
use crate::net::limits;
use crate::net::options::{Leg, SocketOptions};
use crate::observe::counters::Counters;
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::observe::tap::{Source, Taps};
use crate::reactor::{self, Gate, Listener, Setup};
use crate::relay::id::ForwardId;

use super::awaited::Awaited;
use super::clients;
use super::error::StartError;
use super::forwards::{FIRST_GENERATION, forward_of};
use super::held::{self, Held, HeldListener};
use super::plan::Plan;
use super::proxy::Deciders;
use super::resolve::{self, KnownNames, Resolver};
use super::steering::Steering;
use super::upgrade::entrance::{self, Entrance};
use super::upgrade::spawn;
use super::upstreams::Upstreams;
use descriptors::check_descriptors;
pub(super) use descriptors::{DESCRIPTORS_PER_REACTOR, DESCRIPTORS_SPARE, flows, gate, spares};
use listeners::nobody_asked_for;
pub(super) use listeners::{BoundAddress, open, tell_listeners};

/// How long a start waits for the first answers of the names of servers: with a name server
/// that answers it has its servers at once, and one that does not holds up nobody.
const FIRST_ANSWERS: Duration = Duration::from_millis(200);

/// How long sessions wait, in their queue, for the first answers of their servers' names.
pub(super) const SESSIONS_WAIT: Duration = Duration::from_secs(3);

/// Everything that it takes to carry out a plan.
pub(super) struct Acquired {
    pub(super) reactors: Vec<ReactorPlan>,
    pub(super) held: Held,
    pub(super) forwards: Vec<Arc<reactor::Forward>>,
    pub(super) gate: Arc<Gate>,
    pub(super) flows: Arc<Gate>,
    pub(super) kind: Kind,
    pub(super) deciders: Option<Arc<Deciders>>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) resolver: Option<Arc<Resolver>>,
    /// Where it can be looked at and steered, and by what.
    pub(super) admin: admin::Bound,
    /// Where processes that take over come in; not in every one.
    pub(super) entrance: Option<Entrance>,
    pub(super) steering: Arc<Steering>,
    /// Time zero of every reactor.
    pub(super) origin: Instant,
    /// Which configuration it is.
    pub(super) generation: u64,
}

/// What one reactor is started with.
#[derive(Debug)]
pub(super) struct ReactorPlan {
    pub(super) kind: Kind,
    pub(super) engine: engine::Setup,
    pub(super) listeners: Vec<(engine::Listener, Arc<Listener>)>,
    pub(super) setup: Setup,
    pub(super) pin: Option<usize>,
    pub(super) origin: Instant,
    /// Who judges requests, if any forward's clients make them.
    pub(super) deciders: Option<Arc<Deciders>>,
    /// What another process has is to come, its spare connections too.
    pub(super) waits: bool,
}

impl Acquired {
    /// Takes all that `plan` needs; of the sockets that were inherited those that it
    /// listens on. What is left was another configuration's, and is for whoever gave it.
    pub(super) fn take(
        plan: &Plan,
        (inherited, handed, names): (&mut Inherited, Option<&mut Handed>, KnownNames),
        (log, taps): (&Log, &Taps),
        awaited: &Awaited,
    ) -> Result<Self, StartError> {
        let config = &*plan.config;
        let kind = choose_engine(config, log)?;
        let count = reactor_count(config);
        let descriptors = limits::raise_descriptor_limit()
            .or_else(|_| limits::descriptor_limit())
            .unwrap_or(1024);
        check_descriptors(plan, count, descriptors)?;
        report_options(plan, log);
        for advice in config.advice() {
            log.notice(Notice::ConfigAdvice { advice });
        }
        for forward in plan.forwards.iter().filter(|it| is_transparent(&it.config)) {
            check_transparent(&forward.config)?;
        }
        // The number of a configuration goes on from one process to the next.
        let before = handed.as_ref().and_then(|it| it.generation);
        let generation = before.map_or(FIRST_GENERATION, |it| it + 1);
        let mut held = Held::default();
        let pages = held::pages(count);
        let table = held
            .clients
            .get_or_insert_with(|| Arc::new(clients::table(&config.global.clients)))
            .clone();
        held.policies = clients::policies(plan, &table, &BTreeMap::new())
            .map_err(|(forward, error)| StartError::Access { forward, error })?;
        let forwards: Vec<Arc<reactor::Forward>> = plan
            .forwards
            .iter()
            .map(|forward| {
                Arc::new(reactor::Forward {
                    clients: held.policies.get(&forward.id).cloned(),
                    ..forward_of(
                        forward,
                        config,
                        held.books(forward.id, pages),
                        [forward.config.max_connections, forward.config.udp.max_flows]
                            .map(|max| max.map(|max| Arc::new(Gate::new(max))))
                            .into(),
                        (generation, None),
                    )
                })
            })
            .collect();
        let numbers: Vec<u16> = (0..count as u16).collect();
        let opened = open(plan, (&|_| false, inherited), count, awaited, log)?;
        nobody_asked_for(inherited, plan)?;
        let by_id: HashMap<ForwardId, &Arc<reactor::Forward>> =
            forwards.iter().map(|it| (it.id, it)).collect();
        let listeners = opened.into_iter().filter_map(|it| {
            let forward = by_id.get(&it.forward)?;
            let own = &held.own;
            let its = HeldListener::new(
                (it.id, it.transport, it.address),
                (it.bound, own),
                it.options,
                forward,
                &numbers,
            );
            Some((it.id, its))
        });
        held.listeners = listeners.collect();
        tell_listeners(held.listeners.values(), log);
        // After the sockets: what is wrong with those is known at once.
        let upstreams = Arc::new(Upstreams::new(plan, table));
        awaited.is("waiting for the names of servers");
        let resolver = resolver(plan, &upstreams, names, (log, Some(FIRST_ANSWERS)))?;
        awaited.is("reading the files of users");
        let deciders = match &resolver {
            Some(resolver) if plan.has_requests() => Some(Deciders::new(
                plan,
                resolver.clone(),
                held.own.clone(),
                log,
                None,
            )?),
            _ => None,
        };
        let pools = upstreams.setups();
        let lookups = deciders.as_ref().map_or(0, |_| resolve::LOOKUP_DESCRIPTORS);
        let others = resolve::descriptors(&plan.names) + lookups + spares(&pools, count);
        // Nobody is let in before the process that has the same sockets has let go of them.
        let waits = handed.is_some();
        let mut none = Handed::default();
        let handed = handed.unwrap_or(&mut none);
        let admin = admin::Bound::take(config, handed)?;
        let entrance = spawn::is_possible()
            .then(|| Entrance::take(handed))
            .flatten();
        let for_admin = (!admin.is_empty()).then_some(admin::DESCRIPTORS);
        let for_others = entrance.as_ref().map(|_| entrance::DESCRIPTORS);
        let others = others + for_admin.unwrap_or(0) + for_others.unwrap_or(0);
        let flows = flows(plan, descriptors);
        let gate = Arc::new(gate(config, descriptors, count, (others, flows), log));
        let flows = Arc::new(Gate::new(flows));
        log.notice(Notice::Starting {
            reactors: count,
            engine: kind.name(),
            sessions_max: gate.max(),
            admin: asked_at(&admin),
        });
        tell_of(&admin, log);
        let steering = Arc::new(Steering::new(
            (&plan.config, forwards.clone()),
            kind.name(),
            (gate.clone(), upstreams.clone()),
            log.clone(),
        ));
        let origin = handed.origin.or(inherited.origin);
        let origin = origin.unwrap_or_else(Instant::now);
        let reactors = numbers.into_iter().map(|index| ReactorPlan {
            kind,
            engine: engine_setup(config),
            listeners: if waits {
                Vec::new()
            } else {
                held.of_reactor(index)
            },
            setup: Setup {
                reactor: index,
                pools: pools.clone(),
                gate: gate.clone(),
                flows: flows.clone(),
                homes: held.homes.clone(),
                own: held.own.clone(),
                counters: Arc::new(Counters::default()),
                log: log.clone(),
                session_log: (&config.log).into(),
                taps: sources(taps, index, &forwards),
                // Once its reactor stands, and can be told the answers.
                decider: None,
            },
            pin: pin(config, usize::from(index), count),
            origin,
            deciders: deciders.clone(),
            waits,
        });
        Ok(Self {
            reactors: reactors.collect(),
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
        })
    }
}

/// Where the endpoint can be asked, for the log.
fn asked_at(admin: &admin::Bound) -> String {
    let addresses: Vec<String> = admin.addresses().map(ToString::to_string).collect();
    match addresses.as_slice() {
        [] => "none".to_owned(),
        addresses => addresses.join(", "),
    }
}

/// Where metrics can be had, and why the endpoint can not, if it cannot.
fn tell_of(admin: &admin::Bound, log: &Log) {
    for listener in admin.metrics_addresses() {
        log.notice(Notice::MetricsListening {
            listener: listener.clone(),
        });
    }
    if let Some(reason) = admin.why_without() {
        log.notice(Notice::NoAdmin {
            reason: reason.to_owned(),
        });
    }
}

/// Keeps the names of servers resolved, if there are any, and looks those up that
/// clients ask for; `known` is what the process before knew. Returns once each has an
/// answer or a failure: so a normal start has its servers at once, and one whose names
/// do not resolve is not held up for long.
pub(super) fn resolver(
    plan: &Plan,
    upstreams: &Arc<Upstreams>,
    known: KnownNames,
    (log, patience): (&Log, Option<Duration>),
) -> Result<Option<Arc<Resolver>>, StartError> {
    if plan.names.is_empty() && !plan.has_requests() {
        return Ok(None);
    }
    let (told, line) = (upstreams.clone(), log.clone());
    let changed = move |answers: Vec<_>| told.resolved(&answers, &line);
    let sources = &plan.config.global.names;
    let names = plan.names.to_vec();
    let resolver = Resolver::go_on(sources, names, known, log.clone(), changed)
        .map_err(StartError::Resolver)?;
    let resolver = Arc::new(resolver);
    let Some(patience) = patience else {
        return Ok(Some(resolver));
    };
    if resolver.first(patience) {
        upstreams.names_were_tried();
        return Ok(Some(resolver));
    }
    let (waits, told) = (resolver.clone(), upstreams.clone());
    std::thread::Builder::new()
        .name("first answers".into())
        .spawn(move || {
            waits.first(SESSIONS_WAIT);
            told.names_were_tried();
        })
        .map_err(StartError::Resolver)?;
    Ok(Some(resolver))
}

/// How many reactors a configuration asks for, on this machine.
pub(super) fn reactor_count(config: &Config) -> usize {
    match config.global.reactors {
        Reactors::Auto => limits::reactor_count(),
        Reactors::Count(count) => usize::from(count),
    }
}

/// Whether some of its connects come from foreign addresses.
fn is_transparent(forward: &Forward) -> bool {
    let routes = forward.routes.iter();
    let mut pools = routes.filter_map(|it| Some(it.pool(&forward.name)?.1));
    forward.pool.transparent || pools.any(|pool| pool.transparent)
}

/// Whether connects may come from foreign addresses here: better an error now than one
/// for each client.
pub(super) fn check_transparent(forward: &Forward) -> Result<(), StartError> {
    dial::may_be_transparent().map_err(|errno| StartError::Transparent {
        forward: forward.name.clone(),
        error: errno.into(),
    })
}

/// The engine asked for, or the best that can be had; which, and why, goes to the
/// log.
pub(super) fn choose_engine(config: &Config, log: &Log) -> Result<Kind, StartError> {
    match config.global.engine {
        EngineChoice::Epoll => Ok(Kind::Epoll),
        EngineChoice::IoUring => choice::io_uring()
            .map(|()| Kind::IoUring)
            .map_err(StartError::Engine),
        EngineChoice::Auto if config.global.survive_crash => {
            log.notice(Notice::EngineChosen {
                engine: Kind::Epoll.name(),
                reason: "`survive_crash` needs it".into(),
                refused: false,
            });
            Ok(Kind::Epoll)
        }
        EngineChoice::Auto => {
            let found = choice::best();
            log.notice(Notice::EngineChosen {
                engine: found.kind.name(),
                reason: found.reason,
                refused: found.refused,
            });
            Ok(found.kind)
        }
    }
}

/// What a reactor shows, by forward.
pub(super) fn sources<'a>(
    taps: &Taps,
    reactor: u16,
    forwards: impl IntoIterator<Item = &'a Arc<reactor::Forward>>,
) -> BTreeMap<ForwardId, Source> {
    let sources = taps.sources(reactor);
    if sources.is_empty() {
        return BTreeMap::new();
    }
    let ids: HashMap<&str, ForwardId> = forwards.into_iter().map(|it| (&*it.name, it.id)).collect();
    sources
        .into_iter()
        .filter_map(|(name, source)| Some((*ids.get(&*name)?, source)))
        .collect()
}

/// Says what was asked for and not granted, and what to change: once for all forwards
/// that ask for the same.
pub(super) fn report_options(plan: &Plan, log: &Log) {
    let mut told: Vec<(Leg, &SocketOptions, String, usize)> = Vec::new();
    for forward in &*plan.forwards {
        let config = &forward.config;
        for (leg, options) in [
            (Leg::Client, &config.client),
            (Leg::Upstream, &config.upstream),
        ] {
            let same =
                |it: &&mut (Leg, &SocketOptions, String, usize)| it.0 == leg && it.1 == options;
            match told.iter_mut().find(same) {
                Some((.., others)) => *others += 1,
                None => told.push((leg, options, config.name.clone(), 0)),
            }
        }
    }
    for (leg, options, forward, others) in told {
        for shortfall in options.granted(leg) {
            log.notice(Notice::OptionShort {
                forward: forward.as_str().into(),
                others,
                leg,
                shortfall,
            });
        }
        for advice in options.advice() {
            log.notice(Notice::OptionAdvice {
                forward: forward.as_str().into(),
                others,
                leg,
                advice,
            });
        }
    }
}

pub(super) fn engine_setup(config: &Config) -> engine::Setup {
    engine::Setup {
        scratch_buffer: config.global.scratch_buffer,
        pipe_size: config.global.pipe_size,
        buffer_limit: limits::buffers_of_each(config.global.buffer_limit),
        busy_poll: match config.global.busy_poll {
            BusyPoll::Auto => engine::BusyPoll::Auto,
            BusyPoll::For(time) => engine::BusyPoll::For(time),
        },
        ephemeral_ports: limits::ephemeral_ports(),
    }
}

/// One reactor a core is pinned to it; any other number is left to the
/// scheduler, which knows better.
pub(super) fn pin(config: &Config, index: usize, count: usize) -> Option<usize> {
    // With fewer reactors than cores (a cgroup quota), every instance would take
    // the same first ones.
    let auto = config.global.reactors == Reactors::Auto
        && count > 1
        && count == limits::allowed_cpus().len();
    auto.then(|| limits::cpu_of_reactor(index)).flatten()
}
