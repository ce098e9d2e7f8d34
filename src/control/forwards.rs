//! A forward as reactors go by it, of one as it is configured: its rules, what its clients
//! say before their payload, and its routes, each a forward of its own under the same
//! identity.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::config::{
    Config, DataPath, Forward, Fragment, HttpConnect, Mode, OnNoServer, OnServerDown, Pool, RouteTo,
};
use crate::observe::books::ForwardBooks;
use crate::policy::route::{Conditions, Routes};
use crate::policy::trust::Trust;
use crate::proto::opening::{Step, StepKind};
use crate::proto::sniff::Wanted;
use crate::proto::{connect, proxy};
use crate::reactor::{self, DatagramRules, Gate, Quic, Routing, Way};
use crate::relay::flow::FlowRules;
use crate::relay::id::PoolId;
use crate::relay::lane::PathPolicy;
use crate::relay::session::{Close, Deadlines, Rules};
use crate::relay::{Direction, Side};

use super::plan::ForwardPlan;

/// One way that sessions of a forward may go.
struct Branch<'a> {
    pool: PoolId,
    config: &'a Pool,
    request: Option<&'a HttpConnect>,
    route: Option<(u16, Arc<str>)>,
}

/// What all ways of a forward have in common.
struct Common<'a> {
    plan: &'a ForwardPlan,
    config: &'a Config,
    name: Arc<str>,
    books: Arc<ForwardBooks>,
    gate: Option<Arc<Gate>>,
    generation: u64,
    steps: Arc<[Step]>,
    datagrams: Option<Arc<DatagramRules>>,
    /// Of the first step, or without any.
    patience: Option<Duration>,
}

/// How many sessions took a route so far: one of the same name goes on.
fn taken(before: Option<&reactor::Forward>, name: &str) -> Arc<AtomicU64> {
    let ways = before.and_then(|it| it.routing.as_ref()).map(|it| &it.ways);
    let known = ways.and_then(|ways| ways.iter().find(|way| &*way.name == name));
    known.map(|way| way.taken.clone()).unwrap_or_default()
}

/// The number of the configuration that a process begins with to which nobody has handed over.
pub(super) const FIRST_GENERATION: u64 = 1;

/// See the module's documentation. `gate` is the forward's limit, which all its routes
/// share; `before` is what it was in the configuration before.
pub(super) fn forward_of(
    plan: &ForwardPlan,
    config: &Config,
    books: Arc<ForwardBooks>,
    (gate, flows): (Option<Arc<Gate>>, Option<Arc<Gate>>),
    (generation, before): (u64, Option<&reactor::Forward>),
) -> reactor::Forward {
    let forward = &*plan.config;
    let looks = plan
        .pilot
        .as_ref()
        .is_some_and(|it| it.looks(&forward.name));
    let steps = steps(forward, looks);
    let routed = !forward.routes.is_empty();
    let steered = plan.pilot.is_some();
    let common = Common {
        plan,
        config,
        name: forward.name.as_str().into(),
        books,
        gate,
        generation,
        patience: match steps.first() {
            Some(step) => Some(step.patience),
            None => (routed || steered).then_some(forward.sniff_timeout),
        },
        steps,
        datagrams: datagrams(forward, flows, looks),
    };
    let ways = (0..).zip(&forward.routes).zip(&plan.routes);
    let ways = ways.map(|((at, route), pool)| {
        let name: Arc<str> = route.name.as_str().into();
        let nobody = Pool::default();
        let (config, request) = match &route.to {
            RouteTo::Pool(pool) => (&**pool, None),
            RouteTo::HttpConnect(connect) => (&nobody, Some(&**connect)),
            RouteTo::Reject => (&nobody, None),
        };
        Way {
            forward: pool.map(|pool| {
                let branch = Branch {
                    pool,
                    config,
                    request,
                    route: Some((at, name.clone())),
                };
                Arc::new(common.branch(branch, None))
            }),
            taken: taken(before, &name),
            name,
        }
    });
    let chosen = (forward.routes.len() as u16..).zip(&plan.choices);
    let chosen = chosen.map(|(at, choice)| Way {
        forward: Some(Arc::new(common.branch(
            Branch {
                pool: choice.id,
                config: &choice.config,
                request: None,
                route: Some((at, choice.name.clone())),
            },
            None,
        ))),
        taken: taken(before, &choice.name),
        name: choice.name.clone(),
    });
    let by_pool = plan.choices.iter().map(|it| it.name.clone());
    let by_pool = by_pool.zip(forward.routes.len()..);
    let routing = (routed || steered).then(|| {
        let conditions = forward.routes.iter().map(|it| it.conditions.clone());
        let mut all = forward.routes.iter();
        Arc::new(Routing {
            by_listener: all.any(|it| !it.conditions.listener.is_empty()),
            table: Routes::new(conditions.collect()),
            ways: ways.chain(chosen).collect(),
            by_pool: by_pool.collect(),
        })
    });
    let own = Branch {
        pool: plan.pool,
        config: &forward.pool,
        request: match &forward.mode {
            Mode::Tcp => None,
            Mode::HttpConnect(connect) => Some(connect),
        },
        route: None,
    };
    reactor::Forward {
        pilot: plan.pilot.clone(),
        ..common.branch(own, routing)
    }
}

impl Common<'_> {
    fn branch(&self, branch: Branch<'_>, routing: Option<Arc<Routing>>) -> reactor::Forward {
        let (forward, request) = (&*self.plan.config, branch.request);
        let rules = Rules {
            deadlines: Deadlines {
                connect: forward.timeouts.connect,
                idle: forward.timeouts.idle,
                half_close: forward.timeouts.half_close,
                write_stall: forward.timeouts.write_stall,
            },
            // Without a bound of its own a session ends when no server is left.
            // The addresses of a request's target are one attempt: they race.
            attempts_max: match (request, branch.config.retries) {
                (Some(_), _) => 1,
                (None, retries) => retries.map_or(u8::MAX, |it| it.saturating_add(1)),
            },
            opening: self
                .patience
                .or_else(|| request.map(|connect| connect.header_timeout)),
            retry: branch.config.retry_timeout,
            queue: branch.config.queue_timeout,
            path: match forward.data_path {
                DataPath::Auto => PathPolicy::Auto,
                DataPath::Copy => PathPolicy::Copy,
                DataPath::Splice => PathPolicy::Splice,
            },
            turn_away: match forward.on_no_server {
                OnNoServer::Reset => Close::Reset,
                OnNoServer::Close => Close::Orderly,
            },
            fill_limits: Direction::BOTH.map(|direction| {
                let sink = match direction.sink() {
                    Side::Client => &forward.client,
                    Side::Upstream => &forward.upstream,
                };
                // The engine reads no more than its scratch buffer or its pipe takes.
                let global = &self.config.global;
                let most = global.scratch_buffer.max(global.pipe_size);
                sink.write_max().map_or(most, |max| max.min(most))
            }),
        };
        reactor::Forward {
            id: self.plan.id,
            name: self.name.clone(),
            rules,
            pool: branch.pool,
            steps: self.steps.clone(),
            announced: forward.accept_proxy.is_some(),
            request: request.into_iter().map(step_of).collect(),
            datagrams: self.datagrams.clone(),
            routing,
            pilot: None,
            route: branch.route,
            gate: self.gate.clone(),
            clients: None,
            books: self.books.clone(),
            generation: self.generation,
        }
    }
}

/// What its datagrams go by; `gate` is that of `max_flows`.
fn datagrams(
    forward: &Forward,
    gate: Option<Arc<Gate>>,
    looks: bool,
) -> Option<Arc<DatagramRules>> {
    let udp = &forward.udp;
    forward.protocol.has_udp().then(|| {
        Arc::new(DatagramRules {
            flow: FlowRules {
                idle: udp.idle,
                unanswered: udp.unanswered,
                requests: udp.requests,
                responses: udp.responses,
                reply_factor: udp.max_reply_factor,
            },
            gate,
            never_fragment: udp.fragment == Fragment::Never,
            moves: udp.on_down == OnServerDown::Move,
            quic: (udp.quic || looks).then(|| {
                let quic = Quic::new(forward.sniff_timeout, udp.idle);
                Arc::new(quic)
            }),
        })
    })
}

/// What the clients of a forward say up to where they are routed.
fn steps(forward: &Forward, looks: bool) -> Arc<[Step]> {
    let header = forward.accept_proxy.as_ref().map(|accept| Step {
        kind: StepKind::ProxyHeader {
            settings: proxy::Settings {
                v1: accept.v1,
                v2: accept.v2,
            },
            trust: Arc::new(Trust::new(&accept.from, accept.unix)),
        },
        patience: accept.timeout,
    });
    let look = wanted(forward, looks).map(|wanted| Step {
        kind: StepKind::Sniff(wanted),
        patience: forward.sniff_timeout,
    });
    header.into_iter().chain(look).collect()
}

/// What has to be known of the first bytes; `None`: nothing.
fn wanted(forward: &Forward, looks: bool) -> Option<Wanted> {
    let routes = || forward.routes.iter().map(|it| &it.conditions);
    let mut pools = forward
        .routes
        .iter()
        .filter_map(|it| Some(it.pool(&forward.name)?.1))
        .chain([&forward.pool]);
    let told = pools.any(|pool| pool.headers().any(|it| it.needs_hello()));
    let wanted = Wanted {
        hello: looks || told || routes().any(Conditions::wants_hello),
        host: looks || routes().any(Conditions::wants_host),
    };
    (looks || told || routes().any(Conditions::wants_protocol)).then_some(wanted)
}

/// What a client says before its payload that makes requests.
fn step_of(connect: &HttpConnect) -> Step {
    let settings = connect::Settings {
        header_max: connect.header_max as usize,
        realm: connect.realm.as_str().into(),
    };
    Step {
        kind: StepKind::HttpConnect(settings),
        patience: connect.header_timeout,
    }
}
