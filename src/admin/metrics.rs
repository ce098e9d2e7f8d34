//! /metrics: every table there is, for Prometheus.
//!
//! The number of series depends on the configuration alone, never on peers: labels are
//! names of forwards, routes, pools, servers and listeners, rules as they are written, numbers of reactors, and words of this
//! program. A series of a forward's endings and of a server's failures is there from the
//! first one on.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write as _;
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
use crate::observe::counters::{
    BuildInfo, ConfigFigures, ConfigInfo, ForwardEnded, ForwardSnapshot, ForwardState,
    ListenerFigures, PoolFigures, ProcessFigures, ProcessSnapshot, ReactorFigures, RouteFigures,
    RuleFigures, ServerSnapshot, Snapshot,
};
use crate::observe::metrics::render::{Exposition, Form, Readings};
use crate::reactor::Forward;
use crate::reactor::inspect::ListenerView;

/// Prometheus text, as its server has asked for since 2016.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `OpenMetrics`, for whoever accepts it.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// See the module's documentation.
pub(super) async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let tables = read(&*shared.subject).await;
    let (form, kind) = if accepts_openmetrics(&headers) {
        (Form::OpenMetrics, OPENMETRICS)
    } else {
        (Form::Prometheus, TEXT)
    };
    // A piece is written when the one before it has gone: neither is all of it in memory at
    // once, nor does whoever asks for something else meanwhile wait for all of it.
    let pieces = Exposition::new(tables, form).map(Ok::<_, Infallible>);
    let head = [(header::CONTENT_TYPE, kind)];
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
async fn read(subject: &dyn Subject) -> Vec<Readings> {
    let about = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("engine", subject.engine()),
        ("features", choice::VERSION.trim()),
    ];
    let configured = subject.configured();
    let config = ConfigFigures {
        generation: configured.generation,
        applied_micros: process::micros(configured.applied),
    };
    let log = ProcessSnapshot {
        log_dropped: subject.log().dropped(),
        helper_panics: crate::observe::panics::count(),
    };
    let mut tables = vec![
        Readings::of::<BuildInfo>().with(&about, &BuildInfo { build: 1 }),
        Readings::of::<ConfigInfo>()
            .with(&[("hash", configured.hash())], &ConfigInfo { config: 1 }),
        Readings::of::<ConfigFigures>().with(&[], &config),
        Readings::of::<ProcessFigures>().with(&[], &process::figures(subject.started())),
        Readings::of::<ProcessSnapshot>().with(&[], &log),
    ];
    tables.extend(reactors(subject).await);
    tables.extend(forwards(subject));
    tables.extend(pools(&subject.pools()));
    tables.push(listeners(&gather::listeners(subject).await));
    tables
}

async fn reactors(subject: &dyn Subject) -> [Readings; 2] {
    let mut reactors = Readings::of::<Snapshot>();
    let mut threads = Readings::of::<ReactorFigures>();
    for reactor in subject.reactors() {
        let settled = gather::settled(subject, reactor.number).await;
        let figures = figures_of_reactor(reactor.number, settled.is_some());
        // One that does not answer is told of as it was.
        let counters = settled.unwrap_or_else(|| reactor.counters.snapshot());
        let number = reactor.number.to_string();
        let labels = [("reactor", number.as_str())];
        reactors.add(&labels, &counters);
        threads.add(&labels, &figures);
    }
    [reactors, threads]
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

fn forwards(subject: &dyn Subject) -> [Readings; 5] {
    let mut states = Readings::of::<ForwardState>();
    let mut all = Readings::of::<ForwardSnapshot>().brief();
    let mut endings = Readings::of::<ForwardEnded>();
    let mut routes = Readings::of::<RouteFigures>();
    let mut rules = Readings::of::<RuleFigures>();
    for seen in subject.forwards() {
        let forward = &seen.forward;
        let label = ("forward", &*forward.name);
        let (books, ended) = forward.books.read();
        let over: u64 = ended.iter().map(|(_, count)| count).sum();
        let state = ForwardState {
            live: books.started.saturating_sub(over),
            limit: forward.gate.as_ref().map_or(0, |it| u64::from(it.max())),
        };
        states.add(&[label], &state);
        all.add(&[label], &books);
        for (kind, ended) in ended {
            let labels = [label, ("code", kind.code), ("cause", kind.cause)];
            endings.add(&labels, &ForwardEnded { ended });
        }
        for (route, taken) in routes_of(forward) {
            routes.add(&[label, ("route", &route)], &RouteFigures { taken });
        }
        for (rule, denied) in rules_of(forward) {
            rules.add(&[label, ("rule", &rule)], &RuleFigures { denied });
        }
    }
    [states, all, endings, routes, rules]
}

/// How often each route was taken, by its name; the second of the same name has `#2` behind it.
fn routes_of(forward: &Forward) -> impl Iterator<Item = (String, u64)> {
    let ways = forward.routing.iter().flat_map(|routing| &routing.ways);
    let taken = ways.map(|way| {
        let taken = way.taken.load(Ordering::Relaxed);
        (way.name.to_string(), taken)
    });
    apart(taken)
}

/// Rules of a forward that have series of their own: a list may have thousands, which are in the API.
const RULES_MAX: usize = 256;

/// Likewise how many each rule denied, by its text.
fn rules_of(forward: &Forward) -> impl Iterator<Item = (String, u64)> {
    let written = forward.clients.iter().flat_map(|it| &it.written);
    let denied = written.take(RULES_MAX).map(|rule| {
        let denied = rule.denied.load(Ordering::Relaxed);
        (rule.text.to_string(), denied)
    });
    apart(denied)
}

/// No two with the same name: a series has one value.
fn apart<T>(named: impl Iterator<Item = (String, T)>) -> impl Iterator<Item = (String, T)> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    named.map(move |(mut name, value)| {
        if let Some(count) = seen.get_mut(&name) {
            *count += 1;
            let count = *count;
            // Writing to a String cannot fail.
            let _ = write!(name, "#{count}");
        } else {
            seen.insert(name.clone(), 1);
        }
        (name, value)
    })
}

/// Pools, and their servers by address.
fn pools(seen: &[PoolSeen]) -> [Readings; 2] {
    let mut pools = Readings::of::<PoolFigures>();
    let mut servers = Readings::of::<ServerSnapshot>().brief();
    for pool in seen {
        let label = ("pool", &*pool.label);
        let (mut up, mut listed) = (0, 0);
        let named = pool.servers.iter();
        for (name, server) in apart(named.map(|it| (it.server.endpoint().to_string(), it))) {
            let figures = server.server.figures();
            listed += u64::from(server.listed);
            up += u64::from(server.listed && figures.state == "up");
            servers.add(&[label, ("server", &name)], &figures);
        }
        let figures = PoolFigures {
            up,
            servers: listed,
        };
        pools.add(&[label], &figures);
    }
    [pools, servers]
}

/// An address has a socket on each reactor, or one that they share.
fn listeners(views: &[ListenerView]) -> Readings {
    let mut places: HashMap<(&str, &Endpoint), usize> = HashMap::new();
    let mut sums: Vec<(&ListenerView, ListenerFigures)> = Vec::new();
    // What the queues of datagrams lost is a cause of their drops (`udp_dropped`).
    let accepts = |view: &&ListenerView| view.listener.transport == Transport::Tcp;
    for view in views.iter().filter(accepts) {
        let listener = &view.listener;
        let key = (&*listener.forward.name, &listener.address);
        let place = *places.entry(key).or_insert_with(|| {
            sums.push((view, ListenerFigures::default()));
            sums.len() - 1
        });
        let figures = &mut sums[place].1;
        figures.queued += u64::from(view.queued.unwrap_or(0));
        figures.backlog += u64::from(view.backlog.unwrap_or(0));
        figures.dropped += u64::from(view.dropped.unwrap_or(0));
    }
    let mut listeners = Readings::of::<ListenerFigures>();
    for (view, figures) in sums {
        let address = view.listener.address.to_string();
        let forward = &*view.listener.forward.name;
        listeners.add(&[("forward", forward), ("listener", &address)], &figures);
    }
    listeners
}
