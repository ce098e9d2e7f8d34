//! From a configuration to everything reactors need: limits raised, names looked
//! up, sockets bound, and a word on each option that the kernel did not grant.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::config::{
    Config, DataPath, EngineChoice, Forward, HttpConnect, LogLevel, LogTarget, Mode, Reactors,
};
use crate::engine;
use crate::engine::choice::{self, Kind};
use crate::net::address::Address;
use crate::net::dial;
use crate::net::limits;
use crate::net::listener::{self, BindError, Bound};
use crate::net::options::Leg;
use crate::observe::counters::Counters;
use crate::observe::log::Log;
use crate::observe::tap::{Source, TapError, Taps};
use crate::proto::connect;
use crate::proto::opening::Step;
use crate::reactor::{self, Gate, Listener, Setup, UpstreamSetup};
use crate::relay::id::{ForwardId, ListenerId, PoolId};
use crate::relay::lane::PathPolicy;
use crate::relay::session::{Deadlines, Rules};

use super::proxy::{self, Desk, UsersError};
use super::registry::Registry;
use super::resolve::{self, Resolver};
use super::upstreams::{Layout, Upstreams};

/// Descriptors a reactor needs for itself: epoll, its waker, pooled pipes.
pub(super) const DESCRIPTORS_PER_REACTOR: u32 = 40;

/// Descriptors for the log, signals, and what a library opens for a moment.
pub(super) const DESCRIPTORS_SPARE: u32 = 16;

/// How long a start waits for the first answers of the names of servers.
const FIRST_ANSWERS: Duration = Duration::from_secs(3);

/// Why nothing was started. Exit code 1.
#[derive(Debug, Error)]
pub enum StartError {
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(#[source] io::Error),
    /// The log cannot be written.
    #[error("cannot open the log {target}: {error}")]
    Log {
        /// Where it should go.
        target: LogTarget,
        /// Why not.
        error: io::Error,
    },
    /// A tap cannot be written.
    #[error("{0}")]
    Tap(#[from] TapError),
    /// A listener cannot be bound.
    #[error("forward {forward}: {error}")]
    Bind {
        /// Whose.
        forward: String,
        /// Which, why, and what to do.
        error: BindError,
    },
    /// Names cannot be looked up.
    #[error("cannot start looking names up: {0}")]
    Resolver(#[source] io::Error),
    /// The users of a forward cannot be read.
    #[error("forward {forward}: {error}")]
    Users {
        /// Whose.
        forward: String,
        /// Where, why, and what to do.
        error: UsersError,
    },
    /// Credentials cannot be verified.
    #[error("cannot start verifying credentials: {0}")]
    Verifier(#[source] io::Error),
    /// Servers cannot be checked.
    #[error("cannot start checking servers: {0}")]
    Checker(#[source] io::Error),
    /// The kernel does not let this process connect from foreign addresses.
    #[error(
        "forward {forward}: `transparent` needs CAP_NET_ADMIN: {error}; \
         run as root, or setcap cap_net_admin+ep on the binary"
    )]
    Transparent {
        /// Whose.
        forward: String,
        /// Why not.
        error: io::Error,
    },
    /// The engine asked for cannot be had.
    #[error("engine = \"io_uring\" is not to be had: {0}; use engine = \"auto\" or \"epoll\"")]
    Engine(String),
    /// A reactor ended by itself.
    #[error("a reactor stopped by itself; the log says why")]
    ReactorLost,
    /// A reactor cannot be started.
    #[error("cannot start a reactor: {0}")]
    Reactor(#[source] io::Error),
}

/// Everything reactors need.
pub(super) struct Prepared {
    pub(super) reactors: Vec<ReactorPlan>,
    pub(super) sockets: Vec<Bound>,
    pub(super) drain_timeout: Duration,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) resolver: Option<Arc<Resolver>>,
    /// Time zero of every reactor.
    pub(super) origin: Instant,
}

/// What one reactor is started with.
#[derive(Debug)]
pub(super) struct ReactorPlan {
    pub(super) kind: Kind,
    pub(super) engine: engine::Setup,
    pub(super) listeners: Vec<engine::Listener>,
    pub(super) setup: Setup,
    pub(super) pin: Option<usize>,
    pub(super) origin: Instant,
    /// Who judges requests, if any forward's clients make them.
    pub(super) desk: Option<Arc<Desk>>,
}

impl Prepared {
    pub(super) fn new(config: &Config, log: &Log, taps: &Taps) -> Result<Self, StartError> {
        let kind = choose_engine(config, log)?;
        let count = match config.global.reactors {
            Reactors::Auto => limits::reactor_count(),
            Reactors::Count(count) => usize::from(count),
        };
        let descriptors = limits::raise_descriptor_limit()
            .or_else(|_| limits::descriptor_limit())
            .unwrap_or(1024);
        let mut shares: Vec<Share> = (0..count).map(|_| Share::default()).collect();
        let layout = Layout::new(config);
        let origin = Instant::now();
        let mut sockets = Vec::new();
        let mut forwards = Vec::new();
        let mut ids = Ids::default();
        for (index, forward) in config.forwards.iter().enumerate() {
            report_options(forward, log);
            if forward.pool.transparent {
                check_transparent(forward)?;
            }
            let id = ids.forwards.id(forward.name.clone());
            let at = Arc::new(forward_setup(id, forward, layout.of_forward[index], config));
            for address in &forward.listen {
                let bound = bind(forward, address, &at, &mut ids, &mut shares, log)?;
                sockets.push(bound);
            }
            forwards.push(at);
        }
        // After the sockets: what is wrong with those is known at once.
        let upstreams = Arc::new(layout.build());
        let resolver = resolver(config, &layout, &upstreams, log)?;
        let desk = match &resolver {
            Some(resolver) if proxy::is_needed(config) => {
                Some(Desk::new(config, &forwards, resolver.clone())?)
            }
            _ => None,
        };
        let setups = layout.setups(&upstreams);
        let lookups = desk.as_ref().map_or(0, |_| resolve::LOOKUP_DESCRIPTORS);
        let others = resolve::descriptors(&layout.names()) + lookups + spares(&setups, count);
        let gate = Arc::new(gate(config, descriptors, count, others, log));
        log.line(
            LogLevel::Info,
            format!(
                "{count} reactors, engine {}, up to {} sessions",
                kind.name(),
                gate.max()
            ),
        );
        let reactors = shares
            .into_iter()
            .enumerate()
            .map(|(index, share)| ReactorPlan {
                kind,
                engine: engine_setup(config),
                listeners: share.listeners,
                setup: Setup {
                    reactor: index as u16,
                    pools: setups.clone(),
                    listeners: share.at,
                    gate: gate.clone(),
                    counters: Arc::new(Counters::default()),
                    log: log.clone(),
                    session_log: config.log.sessions,
                    taps: sources(taps, index as u16, &forwards),
                    // Once its reactor stands, and can be told the answers.
                    decider: None,
                },
                pin: pin(config, index, count),
                origin,
                desk: desk.clone(),
            });
        let drain_timeout = config
            .forwards
            .iter()
            .map(|forward| forward.timeouts.drain)
            .max();
        Ok(Self {
            reactors: reactors.collect(),
            sockets,
            drain_timeout: drain_timeout.unwrap_or_default(),
            upstreams,
            resolver,
            origin,
        })
    }
}

/// Keeps the names of servers resolved, if there are any, and looks those up that
/// clients ask for. Returns once each has an
/// answer or a failure: so a normal start has its servers at once, and one whose names
/// do not resolve is not held up for long.
fn resolver(
    config: &Config,
    layout: &Layout,
    upstreams: &Arc<Upstreams>,
    log: &Log,
) -> Result<Option<Arc<Resolver>>, StartError> {
    let names = layout.names();
    if names.is_empty() && !proxy::is_needed(config) {
        return Ok(None);
    }
    let (told, line) = (upstreams.clone(), log.clone());
    let changed = move |name, answer| told.resolved(name, &answer, &line);
    let resolver = Resolver::start(&config.global.names, names, log.clone(), changed)
        .map_err(StartError::Resolver)?;
    resolver.first(FIRST_ANSWERS);
    Ok(Some(Arc::new(resolver)))
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
            let level = if found.refused {
                LogLevel::Warn
            } else {
                LogLevel::Info
            };
            log.line(
                level,
                format!("engine {}: {}", found.kind.name(), found.reason),
            );
            Ok(found.kind)
        }
    }
}

/// A reactor's part of the listeners.
#[derive(Debug, Default)]
struct Share {
    listeners: Vec<engine::Listener>,
    at: Vec<Arc<Listener>>,
}

/// Identities of what has a name.
#[derive(Debug)]
struct Ids {
    forwards: Registry<String, ForwardId>,
    listeners: Registry<(ForwardId, String), ListenerId>,
}

impl Default for Ids {
    fn default() -> Self {
        Self {
            forwards: Registry::new(ForwardId::new),
            listeners: Registry::new(ListenerId::new),
        }
    }
}

/// What a reactor shows, by forward.
fn sources(
    taps: &Taps,
    reactor: u16,
    forwards: &[Arc<reactor::Forward>],
) -> BTreeMap<ForwardId, Source> {
    let sources = taps.sources(reactor).into_iter();
    let of = |name: &Arc<str>| forwards.iter().find(|it| it.name == *name);
    sources
        .filter_map(|(name, source)| Some((of(&name)?.id, source)))
        .collect()
}

fn bind(
    forward: &Forward,
    address: &Address,
    at: &Arc<reactor::Forward>,
    ids: &mut Ids,
    shares: &mut [Share],
    log: &Log,
) -> Result<Bound, StartError> {
    let named = |error| StartError::Bind {
        forward: forward.name.clone(),
        error,
    };
    let mut bound = listener::bind(address, &forward.client, shares.len()).map_err(named)?;
    let options = Arc::new(forward.client.plan(Leg::Client));
    for (reactor, share) in shares.iter_mut().enumerate() {
        for socket in bound.take_share(reactor) {
            share.at.push(Arc::new(Listener {
                id: ids.listeners.id((at.id, socket.local.to_string())),
                forward: at.clone(),
                address: socket.local,
            }));
            share.listeners.push(engine::Listener {
                fd: socket.fd,
                family: socket.family,
                options: options.clone(),
            });
        }
    }
    for local in bound.locals() {
        log.line(
            LogLevel::Info,
            format!("listening on {local} forward={}", forward.name),
        );
    }
    Ok(bound)
}

/// Says what was asked for and not granted, and what to change.
fn report_options(forward: &Forward, log: &Log) {
    for (leg, options) in [
        (Leg::Client, &forward.client),
        (Leg::Upstream, &forward.upstream),
    ] {
        for shortfall in options.granted(leg) {
            log.line(
                LogLevel::Warn,
                format!("forward {}, {leg} leg: {shortfall}", forward.name),
            );
        }
        for advice in options.advice() {
            log.line(
                LogLevel::Warn,
                format!("forward {}, {leg} leg: {advice}", forward.name),
            );
        }
    }
}

fn forward_setup(
    id: ForwardId,
    forward: &Forward,
    pool: PoolId,
    config: &Config,
) -> reactor::Forward {
    let proxy = match &forward.mode {
        Mode::Tcp => None,
        Mode::HttpConnect(connect) => Some(connect),
    };
    let rules = Rules {
        deadlines: Deadlines {
            connect: forward.timeouts.connect,
            idle: forward.timeouts.idle,
            half_close: forward.timeouts.half_close,
            write_stall: forward.timeouts.write_stall,
        },
        // Without a bound of its own a session ends when no server is left.
        // The addresses of a request's target are one attempt: they race.
        attempts_max: match (proxy, forward.pool.retries) {
            (Some(_), _) => 1,
            (None, retries) => retries.map_or(u8::MAX, |it| it.saturating_add(1)),
        },
        opening: proxy.map(|connect| connect.header_timeout),
        retry: forward.pool.retry_timeout,
        queue: forward.pool.queue_timeout,
        path: match forward.data_path {
            DataPath::Auto => PathPolicy::Auto,
            DataPath::Copy => PathPolicy::Copy,
            DataPath::Splice => PathPolicy::Splice,
        },
        // The engine reads no more than its scratch buffer or its pipe takes.
        fill_limit: config.global.scratch_buffer.max(config.global.pipe_size),
    };
    reactor::Forward {
        id,
        name: forward.name.as_str().into(),
        rules,
        pool,
        steps: proxy.into_iter().map(|connect| step(connect)).collect(),
        gate: forward.max_connections.map(|max| Arc::new(Gate::new(max))),
    }
}

/// What a client says before its payload that makes requests.
fn step(connect: &HttpConnect) -> Step {
    Step::HttpConnect(connect::Settings {
        header_max: connect.header_max as usize,
        realm: connect.realm.as_str().into(),
    })
}

/// Admission by descriptors: two for each session, of those that are left; looking up
/// names and spare connections take up to `others` of them.
fn gate(config: &Config, descriptors: u64, reactors: usize, others: u32, log: &Log) -> Gate {
    let taken = std::fs::read_dir("/proc/self/fd").map_or(64, Iterator::count) as u32;
    let spare = DESCRIPTORS_PER_REACTOR * reactors as u32 + DESCRIPTORS_SPARE + others;
    let wanted = config.global.max_connections.unwrap_or(u32::MAX);
    let gate = Gate::by_descriptors(wanted, taken, spare);
    gate.review();
    if config
        .global
        .max_connections
        .is_some_and(|max| max > gate.max())
    {
        let needed = u64::from(wanted) * 2 + u64::from(taken + spare);
        log.line(
            LogLevel::Warn,
            format!(
                "max_connections {wanted} needs {needed} descriptors, the hard limit is {descriptors}: \
                 {} sessions fit; raise RLIMIT_NOFILE (ulimit -Hn, LimitNOFILE=)",
                gate.max()
            ),
        );
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
