//! Everything that can fail between a plan and its being at work: limits, sockets, files
//! of users, threads that ask and check. Nothing that runs is touched: an error leaves
//! all as it was.
//!
//! What is held under an identity already is kept as it is: a listener stays the very
//! same socket, its queue with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admin;
use crate::config::{Config, EngineChoice, Forward, Reactors};
use crate::engine;
use crate::engine::choice::{self, Kind};
use crate::net::address::{Address, Endpoint};
use crate::net::dial;
use crate::net::limits;
use crate::net::listener::{self, Bound};
use crate::net::options::{Leg, OptionPlan, SocketOptions};
use crate::net::own::{OwnListeners, Owner};
use crate::observe::books::ForwardBooks;
use crate::observe::counters::Counters;
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::observe::tap::{Source, Taps};
use crate::reactor::{self, ClientPolicy, ClientTable, Gate, Listener, Setup, UpstreamSetup};
use crate::relay::id::{ForwardId, ListenerId, PoolId};

use super::awaited::Awaited;
use super::clients;
use super::error::StartError;
use super::forwards::forward_of;
use super::listener_names::ListenerNames;
use super::plan::Plan;
use super::proxy::Deciders;
use super::resolve::{self, Resolver};
use super::steering::Steering;
use super::upstreams::Upstreams;

/// Descriptors a reactor needs for itself: epoll, its waker, pooled pipes.
pub(super) const DESCRIPTORS_PER_REACTOR: u32 = 40;

/// Descriptors that a reactor cannot do without.
const DESCRIPTORS_LEAST: u64 = 4;

/// Room for fewer sessions is worth a warning, whatever is configured.
const SESSIONS_FEW: u32 = 100;

/// Descriptors for the log, signals, and what a library opens for a moment.
pub(super) const DESCRIPTORS_SPARE: u32 = 16;

/// How long a start waits for the first answers of the names of servers: with a name server
/// that answers it has its servers at once, and one that does not holds up nobody.
const FIRST_ANSWERS: Duration = Duration::from_millis(200);

/// How long sessions wait, in their queue, for the first answers of their servers' names.
const SESSIONS_WAIT: Duration = Duration::from_secs(3);

/// What a process holds from one configuration to the next.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// What is remembered of clients.
    clients: Option<Arc<ClientTable>>,
    /// Who may come in, by forward; without those that let everybody in.
    policies: BTreeMap<ForwardId, Arc<ClientPolicy>>,
    /// With the names of their forwards. Unix listeners' paths go when this is dropped.
    listeners: BTreeMap<ListenerId, (Arc<str>, Bound)>,
    /// Totals go on from one configuration to the next.
    books: HashMap<ForwardId, Arc<ForwardBooks>>,
    /// The same, as whoever dials knows them.
    own: Arc<OwnListeners>,
}

impl Held {
    fn books(&mut self, forward: ForwardId, reactors: usize) -> Arc<ForwardBooks> {
        let books = self.books.entry(forward);
        let new = || Arc::new(ForwardBooks::new(reactors));
        books.or_insert_with(new).clone()
    }

    /// Who may come in, of each forward that does not let everybody in.
    pub(super) fn policies(&self) -> impl Iterator<Item = &ClientPolicy> {
        self.policies.values().map(AsRef::as_ref)
    }

    /// Where it listens, by forward.
    pub(super) fn locals(&self) -> Vec<(Arc<str>, Endpoint)> {
        let each = self.listeners.values().flat_map(|(forward, bound)| {
            let locals = bound.locals().iter();
            locals.map(|local| (forward.clone(), local.clone()))
        });
        each.collect()
    }
}

/// Everything that it takes to carry out a plan.
pub(super) struct Acquired {
    pub(super) reactors: Vec<ReactorPlan>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) resolver: Option<Arc<Resolver>>,
    /// Where it can be looked at and steered, and by what.
    pub(super) admin: admin::Bound,
    pub(super) steering: Arc<Steering>,
    /// Time zero of every reactor.
    pub(super) origin: Instant,
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
}

impl Acquired {
    /// Takes all that `plan` needs and `held` does not have.
    pub(super) fn take(
        plan: &Plan<'_>,
        held: &mut Held,
        log: &Log,
        taps: &Taps,
        awaited: &Awaited,
    ) -> Result<Self, StartError> {
        let config = plan.config;
        let kind = choose_engine(config, log)?;
        let count = match config.global.reactors {
            Reactors::Auto => limits::reactor_count(),
            Reactors::Count(count) => usize::from(count),
        };
        let descriptors = limits::raise_descriptor_limit()
            .or_else(|_| limits::descriptor_limit())
            .unwrap_or(1024);
        check_descriptors(plan, count, descriptors)?;
        report_options(plan, log);
        for advice in config.advice() {
            log.notice(Notice::ConfigAdvice { advice });
        }
        for forward in plan.forwards.iter().filter(|it| is_transparent(it.config)) {
            check_transparent(forward.config)?;
        }
        let table = held
            .clients
            .get_or_insert_with(|| Arc::new(clients::table(&config.global.clients)));
        held.policies = clients::policies(plan, table)
            .map_err(|(forward, error)| StartError::Access { forward, error })?;
        let forwards: Vec<Arc<reactor::Forward>> = plan
            .forwards
            .iter()
            .map(|forward| {
                Arc::new(reactor::Forward {
                    clients: held.policies.get(&forward.id).cloned(),
                    ..forward_of(forward, config, held.books(forward.id, count))
                })
            })
            .collect();
        let shares = listen(plan, &forwards, held, count, log, awaited)?;
        // After the sockets: what is wrong with those is known at once.
        let upstreams = Arc::new(Upstreams::new(plan));
        awaited.is("waiting for the names of servers");
        let resolver = resolver(plan, &upstreams, log)?;
        awaited.is("reading the files of users");
        let deciders = match &resolver {
            Some(resolver) if plan.has_requests() => Some(Deciders::new(
                plan,
                resolver.clone(),
                held.own.clone(),
                log,
            )?),
            _ => None,
        };
        let pools = upstreams.setups();
        let lookups = deciders.as_ref().map_or(0, |_| resolve::LOOKUP_DESCRIPTORS);
        let others = resolve::descriptors(&plan.names) + lookups + spares(&pools, count);
        let admin = admin::Bound::take(config)?;
        let others = others
            + if admin.is_empty() {
                0
            } else {
                admin::DESCRIPTORS
            };
        let gate = Arc::new(gate(config, descriptors, count, others, log));
        log.notice(Notice::Starting {
            reactors: count,
            engine: kind.name(),
            sessions_max: gate.max(),
            admin: asked_at(&admin),
        });
        tell_of(&admin, log);
        let steering = Arc::new(Steering::new(
            (config, forwards.clone()),
            kind.name(),
            (gate.clone(), upstreams.clone()),
            log.clone(),
        ));
        let origin = Instant::now();
        let reactors = shares
            .into_iter()
            .enumerate()
            .map(|(index, share)| ReactorPlan {
                kind,
                engine: engine_setup(config),
                listeners: share.listeners,
                setup: Setup {
                    reactor: index as u16,
                    pools: pools.clone(),
                    gate: gate.clone(),
                    own: held.own.clone(),
                    counters: Arc::new(Counters::default()),
                    log: log.clone(),
                    session_log: config.log.sessions,
                    taps: sources(taps, index as u16, &forwards),
                    // Once its reactor stands, and can be told the answers.
                    decider: None,
                },
                pin: pin(config, index, count),
                origin,
                deciders: deciders.clone(),
            });
        Ok(Self {
            reactors: reactors.collect(),
            upstreams,
            resolver,
            admin,
            steering,
            origin,
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
/// clients ask for. Returns once each has an
/// answer or a failure: so a normal start has its servers at once, and one whose names
/// do not resolve is not held up for long.
fn resolver(
    plan: &Plan<'_>,
    upstreams: &Arc<Upstreams>,
    log: &Log,
) -> Result<Option<Arc<Resolver>>, StartError> {
    if plan.names.is_empty() && !plan.has_requests() {
        return Ok(None);
    }
    let (told, line) = (upstreams.clone(), log.clone());
    let changed = move |answers: Vec<_>| told.resolved(&answers, &line);
    let sources = &plan.config.global.names;
    let resolver = Resolver::start(sources, plan.names.clone(), log.clone(), changed)
        .map_err(StartError::Resolver)?;
    let resolver = Arc::new(resolver);
    if resolver.first(FIRST_ANSWERS) {
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

/// Whether the listeners leave descriptors for sessions: better a sum now than a bare
/// EMFILE at one of ten thousand ports.
fn check_descriptors(plan: &Plan<'_>, reactors: usize, limit: u64) -> Result<(), StartError> {
    let listeners = plan
        .forwards
        .iter()
        .map(|it| it.listeners.len())
        .sum::<usize>();
    let wanted = (listeners * reactors) as u64;
    let own = DESCRIPTORS_LEAST * reactors as u64 + u64::from(DESCRIPTORS_SPARE);
    if wanted + own <= limit {
        return Ok(());
    }
    Err(StartError::Descriptors {
        listeners,
        reactors,
        needed: wanted + own,
        limit,
    })
}

/// Whether some of its connects come from foreign addresses.
fn is_transparent(forward: &Forward) -> bool {
    let routes = forward.routes.iter();
    let mut pools = routes.filter_map(|it| Some(it.pool(&forward.name)?.1));
    forward.pool.transparent || pools.any(|pool| pool.transparent)
}

/// Whether connects may come from foreign addresses here: better an error now than one
/// for each client.
fn check_transparent(forward: &Forward) -> Result<(), StartError> {
    dial::may_be_transparent().map_err(|errno| StartError::Transparent {
        forward: forward.name.clone(),
        error: errno.into(),
    })
}

/// The engine asked for, or the best that can be had; which, and why, goes to the
/// log.
fn choose_engine(config: &Config, log: &Log) -> Result<Kind, StartError> {
    match config.global.engine {
        EngineChoice::Epoll => Ok(Kind::Epoll),
        EngineChoice::IoUring => choice::io_uring()
            .map(|()| Kind::IoUring)
            .map_err(StartError::Engine),
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

/// A reactor's part of the listeners.
#[derive(Debug, Default)]
struct Share {
    listeners: Vec<(engine::Listener, Arc<Listener>)>,
}

/// What a reactor shows, by forward.
fn sources(
    taps: &Taps,
    reactor: u16,
    forwards: &[Arc<reactor::Forward>],
) -> BTreeMap<ForwardId, Source> {
    let sources = taps.sources(reactor);
    if sources.is_empty() {
        return BTreeMap::new();
    }
    let ids: HashMap<&str, ForwardId> = forwards.iter().map(|it| (&*it.name, it.id)).collect();
    sources
        .into_iter()
        .filter_map(|(name, source)| Some((*ids.get(&*name)?, source)))
        .collect()
}

/// Listens wherever that is not done yet; what each reactor gets of it.
fn listen(
    plan: &Plan<'_>,
    forwards: &[Arc<reactor::Forward>],
    held: &mut Held,
    reactors: usize,
    log: &Log,
    awaited: &Awaited,
) -> Result<Vec<Share>, StartError> {
    let mut shares: Vec<Share> = (0..reactors).map(|_| Share::default()).collect();
    let names = ListenerNames::new(&plan.config.global.names, log);
    // Held back until all could be bound.
    let mut opened = Vec::new();
    let mut told = Vec::new();
    let mut options: Option<(&SocketOptions, Arc<OptionPlan>)> = None;
    for (forward, at) in plan.forwards.iter().zip(forwards) {
        let config = forward.config;
        let owner = Arc::new(Owner {
            forward: config.name.as_str().into(),
            pools: forward
                .routes
                .iter()
                .flatten()
                .copied()
                .chain([forward.pool])
                .collect(),
        });
        for (id, address) in &forward.listeners {
            if held.listeners.contains_key(id) {
                continue;
            }
            awaited.is(format_args!("binding {address} of forward {}", config.name));
            let bound = match address {
                Address::Unix(_) => listener::bind_for(
                    address,
                    &config.client,
                    &config.unix_file.permissions(),
                    reactors,
                ),
                _ => names.bind(address, &config.client, reactors),
            };
            let mut bound = bound.map_err(|error| {
                let forward = config.name.clone();
                StartError::Bind { forward, error }
            })?;
            // Neighbours have the same options more often than not.
            let plan = match &options {
                Some((known, plan)) if **known == config.client => plan.clone(),
                _ => Arc::new(config.client.plan(Leg::Client)),
            };
            options = Some((&config.client, plan.clone()));
            for (reactor, share) in shares.iter_mut().enumerate() {
                share.add(bound.take_share(reactor), *id, at, &plan);
            }
            told.extend(bound.locals().iter().map(|local| Notice::Listening {
                listener: local.clone(),
                forward: config.name.as_str().into(),
            }));
            bound.register(&held.own, &owner);
            opened.push((*id, (at.name.clone(), bound)));
        }
    }
    log.report(told);
    held.listeners.extend(opened);
    Ok(shares)
}

impl Share {
    fn add(
        &mut self,
        sockets: Vec<listener::ListenSocket>,
        id: ListenerId,
        forward: &Arc<reactor::Forward>,
        options: &Arc<OptionPlan>,
    ) {
        for socket in sockets {
            let at = Listener::new(id, socket.local, forward.clone());
            let socket = engine::Listener {
                fd: Arc::new(socket.fd),
                family: socket.family,
                options: options.clone(),
            };
            self.listeners.push((socket, at));
        }
    }
}

/// Says what was asked for and not granted, and what to change: once for all forwards
/// that ask for the same.
fn report_options(plan: &Plan<'_>, log: &Log) {
    let mut told: Vec<(Leg, &SocketOptions, String, usize)> = Vec::new();
    for forward in &plan.forwards {
        let config = forward.config;
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

/// Admission by descriptors: two for each session, of those that are left; looking up
/// names and spare connections take up to `others` of them.
fn gate(config: &Config, descriptors: u64, reactors: usize, others: u32, log: &Log) -> Gate {
    let taken = std::fs::read_dir("/proc/self/fd").map_or(64, Iterator::count) as u32;
    let spare = DESCRIPTORS_PER_REACTOR * reactors as u32 + DESCRIPTORS_SPARE + others;
    let most = config.global.max_connections.unwrap_or(u32::MAX);
    let gate = Gate::by_descriptors(most, taken, spare);
    gate.review();
    let wanted = config.global.max_connections.unwrap_or(SESSIONS_FEW);
    if wanted > gate.max() {
        let needed = u64::from(wanted) * 2 + u64::from(taken + spare);
        log.notice(Notice::DescriptorsShort {
            wanted,
            needed,
            limit: descriptors,
            sessions_max: gate.max(),
        });
    }
    gate
}

fn engine_setup(config: &Config) -> engine::Setup {
    engine::Setup {
        scratch_buffer: config.global.scratch_buffer,
        pipe_size: config.global.pipe_size,
        buffer_limit: config.global.buffer_limit,
        busy_poll: config.global.busy_poll,
        ephemeral_ports: limits::ephemeral_ports(),
    }
}

/// Descriptors of the connections that are kept warm.
fn spares(upstreams: &BTreeMap<PoolId, UpstreamSetup>, reactors: usize) -> u32 {
    let of = |it: &UpstreamSetup| it.warm.saturating_mul(it.set.members().len() as u32);
    let each = upstreams.values().map(of).fold(0, u32::saturating_add);
    each.saturating_mul(reactors as u32)
}

/// One reactor a core is pinned to it; any other number is left to the
/// scheduler, which knows better.
fn pin(config: &Config, index: usize, count: usize) -> Option<usize> {
    // With fewer reactors than cores (a cgroup quota), every instance would take
    // the same first ones.
    let auto = config.global.reactors == Reactors::Auto
        && count > 1
        && count == limits::allowed_cpus().len();
    auto.then(|| limits::cpu_of_reactor(index)).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{LogFormat, LogLevel, LogTarget};
    use crate::control::plan::Identities;

    #[test]
    fn a_listener_that_is_held_is_not_bound_again() {
        let (log, _writer) =
            Log::start(LogLevel::Error, LogFormat::Text, &LogTarget::Stderr).unwrap();
        let text =
            "[[forward]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:9\"\n";
        let (mut ids, mut held) = (Identities::default(), Held::default());
        let mut listen_on = |text: &str| {
            let config = Config::parse(text).unwrap();
            let plan = Plan::of(&config, &mut ids);
            let forwards: Vec<_> = plan
                .forwards
                .iter()
                .map(|it| Arc::new(forward_of(it, &config, Arc::new(ForwardBooks::new(1)))))
                .collect();
            let shares = listen(&plan, &forwards, &mut held, 2, &log, &Awaited::default()).unwrap();
            shares
                .iter()
                .map(|it| it.listeners.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(listen_on(text), [1, 1]);
        assert_eq!(listen_on(text), [0, 0]);
        let second = text.replace("\"a\"", "\"b\"");
        assert_eq!(listen_on(&format!("{text}{second}")), [1, 1]);
    }

    #[test]
    fn what_cannot_be_had_changes_nothing() {
        let (log, _writer) =
            Log::start(LogLevel::Error, LogFormat::Text, &LogTarget::Stderr).unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let text = format!(
            "[[forward]]\nname = \"a\"\nlisten = [\"127.0.0.1:0\", \"127.0.0.1:{port}\"]\n\
             upstream = \"127.0.0.1:9\"\n"
        );
        let config = Config::parse(&text).unwrap();
        let plan = Plan::of(&config, &mut Identities::default());
        let forwards = [Arc::new(forward_of(
            &plan.forwards[0],
            &config,
            Arc::new(ForwardBooks::new(1)),
        ))];
        let mut held = Held::default();
        let error = listen(&plan, &forwards, &mut held, 1, &log, &Awaited::default()).unwrap_err();
        assert!(error.to_string().contains(&port.to_string()), "{error}");
        assert!(held.listeners.is_empty());
    }
}
