//! Forwards, pools, names and listeners.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{NoParameters, Parameters};
use super::reload;
use crate::admin::gather;
use crate::admin::health::without_servers;
use crate::admin::problem::Problem;
use crate::admin::shared::Shared;
use crate::admin::subject::{ForwardSeen, PoolSeen, ServerSeen};
use crate::admin::view::{
    Bytes, DeniedCount, EndingCount, Forward, Listener, Name, Pool, RateLimit, Rates, RouteCount,
    Times,
};
use crate::config::{Balance, HashKey, Mode, RouteTo};
use crate::net::address::{Endpoint, Transport};
use crate::policy::meter::Level;

/// Over how long rates are measured.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RatesQuery {
    /// Milliseconds over which rates are measured; without, there are none.
    #[serde(default)]
    #[param(minimum = 0, maximum = 5000)]
    interval_ms: u32,
}

impl RatesQuery {
    /// Waits for as long, if that is wanted; how long it was.
    async fn pause(&self) -> Result<Option<f64>, Problem> {
        if self.interval_ms > INTERVAL_MAX {
            return Err(Problem::bad_request("this is more than 5000 ms").at("query, interval_ms"));
        }
        if self.interval_ms == 0 {
            return Ok(None);
        }
        let began = Instant::now();
        tokio::time::sleep(Duration::from_millis(self.interval_ms.into())).await;
        Ok(Some(began.elapsed().as_secs_f64()))
    }
}

/// Between the two looks that rates are made of, at the most.
const INTERVAL_MAX: u32 = 5000;

fn rates_of(now: &Bytes, then: &Bytes, seconds: f64) -> Rates {
    Rates {
        up: per_second(now.up, then.up, seconds),
        down: per_second(now.down, then.down, seconds),
    }
}

fn per_second(now: u64, then: u64, seconds: f64) -> f64 {
    now.saturating_sub(then) as f64 / seconds
}

/// Every forward
#[utoipa::path(
    get,
    path = "/v1/forwards",
    params(RatesQuery),
    responses((status = OK, body = [Forward]))
)]
pub(super) async fn forwards(
    State(shared): State<Shared>,
    Parameters(query): Parameters<RatesQuery>,
) -> Result<Json<Vec<Forward>>, Problem> {
    let before = now(&shared).await;
    let Some(seconds) = query.pause().await? else {
        return Ok(Json(before));
    };
    let before: HashMap<String, Forward> =
        before.into_iter().map(|it| (it.name.clone(), it)).collect();
    let mut views = now(&shared).await;
    for view in &mut views {
        if let Some(before) = before.get(&view.name) {
            view.rate = Some(rates_of(&view.bytes, &before.bytes, seconds));
            let (now, then) = (view.sessions_total, before.sessions_total);
            view.session_rate = Some(per_second(now, then, seconds));
        }
    }
    Ok(Json(views))
}

/// Every forward as it is at this moment.
pub(in crate::admin) async fn now(shared: &Shared) -> Vec<Forward> {
    settle(shared).await;
    let forwards = shared.subject.forwards();
    let lacking = lacking(shared);
    forwards.iter().map(|it| view(it, &lacking)).collect()
}

/// What pools lack whose sessions no server takes.
fn lacking(shared: &Shared) -> HashMap<Arc<str>, String> {
    let pools = shared.subject.pools().into_iter();
    pools
        .filter_map(|pool| Some((pool.label.clone(), without_servers(&pool)?)))
        .collect()
}

fn one(shared: &Shared, name: &str) -> Result<Json<Forward>, Problem> {
    Ok(Json(view(&find(shared, name)?, &lacking(shared))))
}

/// A forward
#[utoipa::path(
    get,
    path = "/v1/forwards/{name}",
    params(("name" = String, Path, description = "Of the forward")),
    responses((status = OK, body = Forward))
)]
pub(super) async fn forward(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<Forward>, Problem> {
    settle(&shared).await;
    one(&shared, &name)
}

/// Lets nobody in at a forward any more; its sessions go on
///
/// Clients are refused from then on. Ask for the forward to see how many sessions are left.
#[utoipa::path(
    post,
    path = "/v1/forwards/{name}/drain",
    params(("name" = String, Path, description = "Of the forward")),
    responses((status = OK, body = Forward))
)]
pub(super) async fn drain(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<Forward>, Problem> {
    let id = find(&shared, &name)?.forward.id;
    let drained = shared.subject.drain_forward(id);
    drained.map_err(|refused| Problem::not_found(refused.to_string()))?;
    one(&shared, &name)
}

/// Lets clients in again at a forward that was drained
///
/// Its addresses are listened on again; what cannot be had (another process has the port) is an
/// error, and the forward stays drained.
#[utoipa::path(
    post,
    path = "/v1/forwards/{name}/ready",
    params(("name" = String, Path, description = "Of the forward")),
    responses((status = OK, body = Forward))
)]
pub(super) async fn ready(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<Forward>, Problem> {
    let id = find(&shared, &name)?.forward.id;
    let subject = shared.subject.clone();
    let resumed = reload::aside(move || subject.resume_forward(id)).await?;
    resumed.map_err(reload::problem)?;
    one(&shared, &name)
}

fn find(shared: &Shared, name: &str) -> Result<ForwardSeen, Problem> {
    let mut forwards = shared.subject.forwards().into_iter();
    let found = forwards.find(|it| &*it.forward.name == name);
    found.ok_or_else(|| Problem::not_found(format!("there is no forward named {name:?}")))
}

/// What live sessions have moved is in the books once this is done.
async fn settle(shared: &Shared) {
    for reactor in gather::reactors(&*shared.subject) {
        gather::settled(&*shared.subject, reactor).await;
    }
}

fn view(seen: &ForwardSeen, lacking: &HashMap<Arc<str>, String>) -> Forward {
    let (books, endings) = seen.forward.books.read();
    let ended: u64 = endings.iter().map(|(_, count)| count).sum();
    Forward {
        name: seen.forward.name.to_string(),
        listen: seen.config.listen.iter().map(ToString::to_string).collect(),
        pool: seen.pool.to_string(),
        mode: match seen.config.mode {
            Mode::HttpConnect(_) => "http-connect",
            Mode::Tcp => "tcp",
        }
        .to_owned(),
        state: match seen.draining {
            Some(_) => "draining",
            None => "serving",
        }
        .to_owned(),
        sessions: books.started.saturating_sub(ended),
        sessions_total: books.started,
        bytes: Bytes {
            up: books.bytes_up,
            down: books.bytes_down,
        },
        endings: endings
            .iter()
            .map(|(kind, count)| EndingCount {
                code: kind.code.to_owned(),
                cause: kind.cause.to_owned(),
                count: *count,
            })
            .collect(),
        connect: Times::of(&books.connect),
        first_byte: Times::of(&books.first_byte),
        duration: Times::of(&books.length),
        routes: routes(seen),
        access: access(seen),
        rates: rates(seen),
        sessions_max: seen.forward.gate.as_ref().map(|gate| gate.max()),
        state_seconds: seen.draining.map(|since| since.elapsed().as_secs_f64()),
        why: why(seen, lacking),
        rate: None,
        session_rate: None,
    }
}

/// Why its clients are not served.
fn why(seen: &ForwardSeen, lacking: &HashMap<Arc<str>, String>) -> Option<String> {
    if seen.draining.is_some() {
        return Some("drained by an operator".to_owned());
    }
    let gate = seen.forward.gate.as_ref();
    if gate.is_some_and(|gate| gate.live() >= gate.max()) {
        return Some("as many sessions as it may have".to_owned());
    }
    let lacks = lacking.get(&seen.pool)?;
    Some(format!("pool {}: {lacks}", seen.pool))
}

fn routes(seen: &ForwardSeen) -> Vec<RouteCount> {
    let routing = seen.forward.routing.iter();
    let ways = routing.flat_map(|routing| &routing.ways);
    let routes = ways.zip(&seen.config.routes).map(|(way, route)| {
        let leads_to = match &route.to {
            RouteTo::Pool(_) => route.pool(&seen.forward.name).map(|(name, _)| name),
            RouteTo::Reject => Some("reject".to_owned()),
            RouteTo::HttpConnect(_) => Some("http-connect".to_owned()),
        };
        RouteCount {
            name: way.name.to_string(),
            leads_to: leads_to.unwrap_or_default(),
            taken: way.taken.load(Ordering::Relaxed),
        }
    });
    routes.collect()
}

fn access(seen: &ForwardSeen) -> Vec<DeniedCount> {
    let written = seen.forward.clients.iter().flat_map(|it| &it.written);
    let counts = written.map(|rule| DeniedCount {
        rule: rule.text.to_string(),
        denied: rule.denied.load(Ordering::Relaxed),
    });
    counts.collect()
}

fn rates(seen: &ForwardSeen) -> Vec<RateLimit> {
    let clients = &seen.config.clients;
    let limits = [
        (Level::Session, clients.rate_per_session),
        (Level::Client, clients.rate_per_client),
        (Level::Forward, clients.rate),
    ];
    let limits = limits.into_iter().filter_map(|(level, rate)| {
        let [up, down] = rate?.with_burst(clients.rate_burst);
        Some(RateLimit {
            of: level.name().to_owned(),
            up: up.per_second,
            down: down.per_second,
        })
    });
    limits.collect()
}

/// Every pool
///
/// Forwards whose clients say where to go have none.
#[utoipa::path(
    get,
    path = "/v1/pools",
    params(RatesQuery),
    responses((status = OK, body = [Pool]))
)]
pub(super) async fn pools(
    State(shared): State<Shared>,
    Parameters(query): Parameters<RatesQuery>,
) -> Result<Json<Vec<Pool>>, Problem> {
    let before = pools_now(&shared).await;
    let Some(seconds) = query.pause().await? else {
        return Ok(Json(before));
    };
    let before: HashMap<String, Pool> =
        before.into_iter().map(|it| (it.name.clone(), it)).collect();
    let mut views = pools_now(&shared).await;
    for view in &mut views {
        if let Some(before) = before.get(&view.name) {
            view.rate = Some(rates_of(&view.bytes, &before.bytes, seconds));
            view.connect_rate = Some(per_second(view.connects, before.connects, seconds));
        }
    }
    Ok(Json(views))
}

async fn pools_now(shared: &Shared) -> Vec<Pool> {
    settle(shared).await;
    let forwards = shared.subject.forwards();
    let pools = shared.subject.pools().into_iter();
    let pools = pools.filter(|pool| !pool.config.servers.is_empty());
    pools.map(|pool| pool_view(&pool, &forwards)).collect()
}

fn pool_view(pool: &PoolSeen, forwards: &[ForwardSeen]) -> Pool {
    let listed = pool.servers.iter().filter(|it| it.listed);
    let up = listed.clone().filter(|it| it.server.state() == "up");
    let sessions = pool.servers.iter().map(|it| u64::from(it.server.active()));
    let going = forwards.iter().filter(|it| it.pool == pool.label);
    let sum = |count: fn(&ServerSeen) -> u64| pool.servers.iter().map(count).sum::<u64>();
    Pool {
        name: pool.label.to_string(),
        balance: balance(pool.config.balance).to_owned(),
        forwards: going.map(|it| it.forward.name.to_string()).collect(),
        servers: listed.clone().count() as u32,
        up: up.count() as u32,
        sessions: sessions.sum(),
        connects: sum(|it| it.server.tally.connects.load(Ordering::Relaxed)),
        bytes: Bytes {
            up: sum(|it| it.server.tally.bytes_up.load(Ordering::Relaxed)),
            down: sum(|it| it.server.tally.bytes_down.load(Ordering::Relaxed)),
        },
        why: without_servers(pool),
        rate: None,
        connect_rate: None,
    }
}

const fn balance(balance: Balance) -> &'static str {
    match balance {
        Balance::RoundRobin => "round_robin",
        Balance::LeastConn => "least_conn",
        Balance::PowerOfTwo => "power_of_two",
        Balance::Random => "random",
        Balance::Hash(HashKey::Address) => "hash address",
        Balance::Hash(HashKey::AddressPort) => "hash address and port",
        Balance::First => "first",
    }
}

/// The names by which servers are found
#[utoipa::path(get, path = "/v1/names", responses((status = OK, body = [Name])))]
pub(super) async fn names(
    State(shared): State<Shared>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Json<Vec<Name>> {
    let now = Instant::now();
    let mut names = Vec::new();
    for pool in shared.subject.pools() {
        names.extend(pool.names.into_iter().map(|name| {
            Name {
                name: name.name,
                pool: pool.label.to_string(),
                addresses: name.addresses.iter().map(ToString::to_string).collect(),
                age_seconds: name
                    .answered
                    .map(|at| now.saturating_duration_since(at).as_secs_f64()),
            }
        }));
    }
    Json(names)
}

/// The addresses that are listened on, with their queues
#[utoipa::path(get, path = "/v1/listeners", responses((status = OK, body = [Listener])))]
pub(super) async fn listeners(
    State(shared): State<Shared>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Json<Vec<Listener>> {
    let mut places: BTreeMap<(String, String, &str), usize> = BTreeMap::new();
    let mut views: Vec<Listener> = Vec::new();
    for seen in gather::listeners(&*shared.subject).await {
        let forward = seen.listener.forward.name.to_string();
        let address = match seen.listener.transport {
            Transport::Tcp => seen.listener.address.to_string(),
            Transport::Udp => format!("udp:{}", seen.listener.address),
        };
        let protocol = match (seen.listener.transport, &seen.listener.address) {
            (Transport::Udp, _) => "udp",
            (Transport::Tcp, Endpoint::Inet(_)) => "tcp",
            (Transport::Tcp, _) => "unix",
        };
        let place = *places
            .entry((forward.clone(), address.clone(), protocol))
            .or_insert_with(|| {
                views.push(Listener {
                    forward,
                    address,
                    protocol: protocol.to_owned(),
                    ..Listener::default()
                });
                views.len() - 1
            });
        let view = &mut views[place];
        view.sockets += 1;
        view.queue = plus(view.queue, seen.queued);
        view.backlog = plus(view.backlog, seen.backlog);
        view.dropped = plus(view.dropped, seen.dropped.map(u64::from));
    }
    Json(views)
}

fn plus<T: std::ops::Add<Output = T>>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    }
}
