//! /metrics: every table there is, for Prometheus.
//!
//! The number of series depends on the configuration alone, never on peers: labels are
//! names of forwards, routes, pools, servers and listeners, rules as they are written, numbers of reactors, and words of this
//! program. A series of a forward's endings and of a server's failures is there from the
//! first one on.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::gather;
use super::process::{self, ThreadStat};
use super::shared::Shared;
use super::subject::{PoolSeen, Subject};
use crate::engine::choice;
use crate::net::address::{Endpoint, Transport};
use crate::observe::books::EndingKind;
use crate::observe::counters::{
    BuildInfo, ConfigFigures, ConfigInfo, ForwardEnded, ForwardSnapshot, ForwardState,
    ListenerFigures, PoolFigures, ProcessFigures, ProcessSnapshot, ReactorFigures, RouteFigures,
    RuleFigures, ServerSnapshot, Snapshot,
};
use crate::observe::metrics::render::{self, Readings};
use crate::reactor::Forward;
use crate::reactor::inspect::ListenerView;

/// Prometheus text, as its server has asked for since 2016.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `OpenMetrics`, for whoever accepts it.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// See the module's documentation.
pub(super) async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let read = read(&*shared.subject).await;
    let open = accepts_openmetrics(&headers);
    let pieces = read.render(open);
    let kind = if open { OPENMETRICS } else { TEXT };
    let length = pieces.iter().map(String::len).sum::<usize>();
    let head = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    // Each goes when it is sent.
    let pieces = pieces.into_iter().map(Ok::<_, Infallible>);
    (head, Body::from_stream(stream::iter(pieces))).into_response()
}

/// Whether `OpenMetrics` is accepted, at any quality: nobody who names it wants another.
fn accepts_openmetrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let mut texts = accepted.filter_map(|it| it.to_str().ok());
    texts.any(|it| it.contains("application/openmetrics-text"))
}

/// Everything, read at one moment as far as that goes: each reactor's part within one of
/// its turns.
struct Read {
    version: &'static str,
    engine: &'static str,
    hash: String,
    config: ConfigFigures,
    process: ProcessFigures,
    log: ProcessSnapshot,
    reactors: Vec<(String, Snapshot, ReactorFigures)>,
    forwards: Vec<ForwardRead>,
    pools: Vec<(String, PoolFigures)>,
    servers: Vec<ServerRead>,
    listeners: Vec<(String, String, ListenerFigures)>,
}

struct ForwardRead {
    name: String,
    books: ForwardSnapshot,
    state: ForwardState,
    ended: Vec<(EndingKind, ForwardEnded)>,
    routes: Vec<(String, RouteFigures)>,
    rules: Vec<(String, RuleFigures)>,
}

struct ServerRead {
    pool: String,
    name: String,
    figures: ServerSnapshot,
}

async fn read(subject: &dyn Subject) -> Read {
    let configured = subject.configured();
    let mut reactors = Vec::new();
    for reactor in subject.reactors() {
        let settled = gather::settled(subject, reactor.number).await;
        let figures = figures_of_reactor(reactor.number, settled.is_some());
        // One that does not answer is told of as it was.
        let counters = settled.unwrap_or_else(|| reactor.counters.snapshot());
        reactors.push((reactor.number.to_string(), counters, figures));
    }
    let pools = subject.pools();
    Read {
        version: env!("CARGO_PKG_VERSION"),
        engine: subject.engine(),
        hash: configured.hash().to_owned(),
        config: ConfigFigures {
            generation: configured.generation,
            applied_micros: process::micros(configured.applied),
        },
        process: process::figures(subject.started()),
        log: ProcessSnapshot {
            log_dropped: subject.log().dropped(),
            helper_panics: crate::observe::panics::count(),
        },
        reactors,
        forwards: forwards(subject),
        servers: servers(&pools),
        pools: pools.iter().map(figures_of_pool).collect(),
        listeners: sum_listeners(&gather::listeners(subject).await),
    }
}

/// An address has a socket on each reactor, or one that they share.
fn sum_listeners(views: &[ListenerView]) -> Vec<(String, String, ListenerFigures)> {
    let mut places: HashMap<(&str, &Endpoint), usize> = HashMap::new();
    let mut sums: Vec<(String, String, ListenerFigures)> = Vec::new();
    // What the queues of datagrams lost is a cause of their drops (`udp_dropped`).
    let accepts = |view: &&ListenerView| view.listener.transport == Transport::Tcp;
    for view in views.iter().filter(accepts) {
        let listener = &view.listener;
        let key = (&*listener.forward.name, &listener.address);
        let place = *places.entry(key).or_insert_with(|| {
            let names = (
                listener.forward.name.to_string(),
                listener.address.to_string(),
            );
            sums.push((names.0, names.1, ListenerFigures::default()));
            sums.len() - 1
        });
        let figures = &mut sums[place].2;
        figures.queued += u64::from(view.queued.unwrap_or(0));
        figures.backlog += u64::from(view.backlog.unwrap_or(0));
        figures.dropped += u64::from(view.dropped.unwrap_or(0));
    }
    sums
}

fn figures_of_reactor(number: u16, up: bool) -> ReactorFigures {
    let times = ThreadStat::find(&format!("reactor-{number}")).and_then(|it| it.times());
    let times = times.unwrap_or_default();
    ReactorFigures {
        cpu_micros: times.ran.as_micros() as u64,
        wait_micros: times.waited.as_micros() as u64,
        up: u64::from(up),
    }
}

fn forwards(subject: &dyn Subject) -> Vec<ForwardRead> {
    let forwards = subject.forwards();
    let each = forwards.iter().map(|seen| {
        let (books, ended) = seen.forward.books.read();
        let over: u64 = ended.iter().map(|(_, count)| count).sum();
        let gate = seen.forward.gate.as_ref();
        ForwardRead {
            name: seen.forward.name.to_string(),
            state: ForwardState {
                live: books.started.saturating_sub(over),
                limit: gate.map_or(0, |gate| u64::from(gate.max())),
            },
            books,
            ended: ended
                .into_iter()
                .map(|(kind, ended)| (kind, ForwardEnded { ended }))
                .collect(),
            routes: routes(&seen.forward),
            rules: rules(&seen.forward),
        }
    });
    each.collect()
}

/// A route by its name; the second of the same name has `#2` behind it.
fn routes(forward: &Forward) -> Vec<(String, RouteFigures)> {
    let ways = forward.routing.iter().flat_map(|routing| &routing.ways);
    let taken = ways.map(|way| {
        let taken = way.taken.load(Ordering::Relaxed);
        (way.name.to_string(), RouteFigures { taken })
    });
    apart(taken)
}

/// Rules of a forward that have series of their own: a list may have thousands, which are in the API.
const RULES_MAX: usize = 256;

/// Likewise a rule by its text.
fn rules(forward: &Forward) -> Vec<(String, RuleFigures)> {
    let written = forward.clients.iter().flat_map(|it| &it.written);
    let written = written.take(RULES_MAX);
    let denied = written.map(|rule| {
        let denied = rule.denied.load(Ordering::Relaxed);
        (rule.text.to_string(), RuleFigures { denied })
    });
    apart(denied)
}

/// No two with the same name: a series has one value.
fn apart<T>(named: impl Iterator<Item = (String, T)>) -> Vec<(String, T)> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    let apart = named.map(|(mut name, value)| {
        let count = seen.entry(name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            name = format!("{name}#{count}");
        }
        (name, value)
    });
    apart.collect()
}

fn figures_of_pool(pool: &PoolSeen) -> (String, PoolFigures) {
    let listed = pool.servers.iter().filter(|it| it.listed);
    let up = listed.clone().filter(|it| it.server.state() == "up");
    let figures = PoolFigures {
        up: up.count() as u64,
        servers: listed.count() as u64,
    };
    (pool.label.to_string(), figures)
}

/// A server by its pool and address; the second of the same address has `#2` behind it.
fn servers(pools: &[PoolSeen]) -> Vec<ServerRead> {
    let mut all = Vec::new();
    for pool in pools {
        let mut seen: HashMap<String, u32> = HashMap::new();
        for server in &pool.servers {
            let server = &server.server;
            let mut name = server.endpoint().to_string();
            let count = seen.entry(name.clone()).or_default();
            *count += 1;
            if *count > 1 {
                name = format!("{name}#{count}");
            }
            all.push(ServerRead {
                pool: pool.label.to_string(),
                name,
                figures: server.figures(),
            });
        }
    }
    all
}

impl Read {
    fn render(&self, open: bool) -> Vec<String> {
        let (build, config) = (BuildInfo { build: 1 }, ConfigInfo { config: 1 });
        let features = choice::VERSION.trim();
        let mut reactors = Readings::of::<Snapshot>();
        let mut threads = Readings::of::<ReactorFigures>();
        for (number, counters, figures) in &self.reactors {
            let labels = [("reactor", number.as_str())];
            reactors = reactors.with(&labels, counters);
            threads = threads.with(&labels, figures);
        }
        let mut books = Readings::of::<ForwardSnapshot>().brief();
        let mut states = Readings::of::<ForwardState>();
        let mut endings = Readings::of::<ForwardEnded>();
        let mut routes = Readings::of::<RouteFigures>();
        let mut rules = Readings::of::<RuleFigures>();
        for forward in &self.forwards {
            let labels = [("forward", forward.name.as_str())];
            books = books.with(&labels, &forward.books);
            states = states.with(&labels, &forward.state);
            for (kind, ended) in &forward.ended {
                let labels = [labels[0], ("code", kind.code), ("cause", kind.cause)];
                endings = endings.with(&labels, ended);
            }
            for (route, figures) in &forward.routes {
                routes = routes.with(&[labels[0], ("route", route)], figures);
            }
            for (rule, figures) in &forward.rules {
                rules = rules.with(&[labels[0], ("rule", rule)], figures);
            }
        }
        let mut pools = Readings::of::<PoolFigures>();
        for (name, figures) in &self.pools {
            pools = pools.with(&[("pool", name)], figures);
        }
        let mut servers = Readings::of::<ServerSnapshot>().brief();
        for server in &self.servers {
            let labels = [("pool", server.pool.as_str()), ("server", &server.name)];
            servers = servers.with(&labels, &server.figures);
        }
        let mut listeners = Readings::of::<ListenerFigures>();
        for (forward, address, figures) in &self.listeners {
            let labels = [("forward", forward.as_str()), ("listener", address)];
            listeners = listeners.with(&labels, figures);
        }
        let about = [
            ("version", self.version),
            ("engine", self.engine),
            ("features", features),
        ];
        let tables = [
            Readings::of::<BuildInfo>().with(&about, &build),
            Readings::of::<ConfigInfo>().with(&[("hash", &self.hash)], &config),
            Readings::of::<ConfigFigures>().with(&[], &self.config),
            Readings::of::<ProcessFigures>().with(&[], &self.process),
            Readings::of::<ProcessSnapshot>().with(&[], &self.log),
            reactors,
            threads,
            states,
            books,
            endings,
            routes,
            rules,
            pools,
            servers,
            listeners,
        ];
        if open {
            render::openmetrics(&tables)
        } else {
            render::prometheus(&tables)
        }
    }
}
