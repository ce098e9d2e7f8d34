//! Live sessions: listed in pages, one by one, and ended.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use ipnet::IpNet;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::extract::{Body, NoParameters, Parameters};
use super::verdict::verdict;
use crate::admin::gather;
use crate::admin::problem::Problem;
use crate::admin::shared::Shared;
use crate::admin::view::{FlowTraffic, Killed, Lane, Leg, RateLimit, Session, SessionPage};
use crate::net::address::Endpoint;
use crate::net::tcp_info::TcpInfo;
use crate::policy::meter::Level;
use crate::reactor::inspect::{
    Depth, Inspect, LaneView, SESSIONS_MAX, SessionFilter, SessionView, Slice,
};
use crate::relay::{Direction, Side};

/// Sessions of a page at the most.
const LIMIT_MAX: usize = 1000;

/// Sessions of a page if nobody says otherwise.
const LIMIT: usize = 100;

/// Between the two looks that rates are made of, at the most.
const INTERVAL_MAX: u64 = 5000;

/// Which sessions, the criteria together.
#[derive(Debug, Clone, Default, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Criteria {
    /// Of clients at this address, in this network, or from this address and port.
    #[param(nullable = false, example = "10.0.0.0/8")]
    #[schema(nullable = false, example = "10.0.0.0/8")]
    client: Option<String>,
    /// Of the forward of this name.
    #[param(nullable = false)]
    #[schema(nullable = false)]
    forward: Option<String>,
    /// On the server at this address, or `pool/address`.
    #[param(nullable = false)]
    #[schema(nullable = false)]
    server: Option<String>,
    /// At least so many seconds old.
    #[param(nullable = false, minimum = 0)]
    #[schema(nullable = false, minimum = 0)]
    min_age: Option<f64>,
    /// Less than so many seconds old.
    #[param(nullable = false, minimum = 0)]
    #[schema(nullable = false, minimum = 0)]
    max_age: Option<f64>,
    /// That moved at least so many bytes, both ways together.
    #[param(nullable = false)]
    #[schema(nullable = false)]
    min_bytes: Option<u64>,
}

/// Which sessions, and how to look at them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SessionsQuery {
    client: Option<String>,
    forward: Option<String>,
    server: Option<String>,
    min_age: Option<f64>,
    max_age: Option<f64>,
    min_bytes: Option<u64>,
    /// That move at least so many bytes a second, both ways together.
    #[param(minimum = 0)]
    min_rate: Option<f64>,
    /// Sessions of an answer at the most.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// What `next` of the page before was.
    cursor: Option<String>,
    /// The first by `age`, `bytes`, `rate` or `held` (bytes that wait here for a receiver that
    /// is slow, or for a rate) instead of all in pages.
    sort: Option<String>,
    /// Milliseconds between the two looks that rates and verdicts are made of; without, they
    /// are of the whole life of a session.
    #[param(minimum = 0, maximum = 5000)]
    interval_ms: Option<u64>,
}

/// Live sessions
///
/// In pages: every session that lives throughout is in exactly one of them. A page may have
/// fewer sessions than asked for, also none, and not be the last.
#[utoipa::path(
    get,
    path = "/v1/sessions",
    params(SessionsQuery),
    responses((status = OK, body = SessionPage))
)]
pub(super) async fn sessions(
    State(shared): State<Shared>,
    Parameters(query): Parameters<SessionsQuery>,
) -> Result<Json<SessionPage>, Problem> {
    let limit = query.limit.unwrap_or(LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::bad_request("a page has 1 to 1000 sessions").at("query, limit"));
    }
    let interval = query.interval_ms.unwrap_or(0);
    if interval > INTERVAL_MAX {
        return Err(Problem::bad_request("this is more than 5000 ms").at("query, interval_ms"));
    }
    let interval = Duration::from_millis(interval);
    let criteria = Criteria {
        client: query.client,
        forward: query.forward,
        server: query.server,
        min_age: query.min_age,
        max_age: query.max_age,
        min_bytes: query.min_bytes,
    };
    if query.min_rate.is_some_and(|it| it.is_nan() || it < 0.0) {
        return Err(
            Problem::bad_request("this is no number of bytes a second").at("query, min_rate")
        );
    }
    let filter = criteria.filter(&shared, "query").await?;
    let look = Look {
        filter: Arc::new(filter),
        interval,
        limit,
        min_rate: query.min_rate,
    };
    let (sessions, next) = match (query.sort.as_deref(), query.cursor.as_deref()) {
        (Some(_), Some(_)) => {
            let problem = "what is sorted has one page";
            return Err(Problem::bad_request(problem).at("query, cursor"));
        }
        (Some(sort), None) => (look.first(&shared, order(sort)?).await, None),
        (None, cursor) => {
            let from = cursor.map_or(Ok((0, 0)), place)?;
            look.page(&shared, from).await
        }
    };
    Ok(Json(SessionPage { sessions, next }))
}

/// A live session
#[utoipa::path(
    get,
    path = "/v1/sessions/{id}",
    params(("id" = String, Path, description = "Reactor and number: 0-17, of a flow 0-u17")),
    responses((status = OK, body = Session))
)]
pub(super) async fn session(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<Session>, Problem> {
    let gone = || Problem::not_found(format!("there is no session {id:?}")).at("path, id");
    let identity = Identity::parse(&id).ok_or_else(gone)?;
    let (reactor, filter) = (identity.reactor, identity.filter());
    let look = move |it: &mut dyn Inspect, from| {
        let slice = it.sessions(from, &filter, Depth::Kernel);
        let next = slice.next.filter(|_| slice.items.is_empty());
        Slice { next, ..slice }
    };
    let found = gather::walk(&*shared.subject, (reactor, 0), look).await;
    let found = found.and_then(|mut it| it.next()).ok_or_else(gone)?;
    Ok(Json(view(None, &found)))
}

/// Which sessions are ended: by their ids, by criteria, or all.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KillOrder {
    /// These.
    #[serde(default)]
    #[schema(example = json!(["0-17"]), max_items = 1000)]
    ids: Vec<String>,
    /// All that meet these criteria, of which there must be one.
    #[schema(nullable = false)]
    filter: Option<Criteria>,
    /// All there are.
    #[serde(default)]
    all: bool,
}

/// Ends sessions, with a reset to both sides
#[utoipa::path(
    post,
    path = "/v1/sessions/kill",
    request_body = KillOrder,
    responses((status = OK, body = Killed))
)]
pub(super) async fn kill(
    State(shared): State<Shared>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    Body(order): Body<KillOrder>,
) -> Result<Json<Killed>, Problem> {
    let filter = match (&*order.ids, order.filter, order.all) {
        (ids, None, false) if !ids.is_empty() => return kill_these(&shared, ids).await,
        ([], Some(criteria), false) if criteria.is_empty() => {
            let problem = "the filter has no criterion; to end all sessions, say `all`";
            return Err(Problem::bad_request(problem).at("body, filter"));
        }
        ([], Some(criteria), false) => criteria.filter(&shared, "body, filter").await?,
        ([], None, true) => SessionFilter::default(),
        _ => {
            return Err(Problem::bad_request("say `ids`, `filter` or `all: true`").at("body"));
        }
    };
    let mut killed = 0;
    let filter = Arc::new(filter);
    for reactor in gather::reactors(&*shared.subject) {
        killed += kill_on(&shared, reactor, &filter).await;
    }
    Ok(Json(Killed {
        killed,
        missing: Vec::new(),
    }))
}

async fn kill_these(shared: &Shared, ids: &[String]) -> Result<Json<Killed>, Problem> {
    if ids.len() > LIMIT_MAX {
        return Err(Problem::bad_request("these are more than 1000 ids").at("body, ids"));
    }
    let mut done = Killed::default();
    for id in ids {
        let killed = match Identity::parse(id) {
            Some(identity) => {
                let filter = Arc::new(identity.filter());
                kill_on(shared, identity.reactor, &filter).await
            }
            None => 0,
        };
        done.killed += killed;
        if killed == 0 {
            done.missing.push(id.clone());
        }
    }
    Ok(Json(done))
}

async fn kill_on(shared: &Shared, reactor: u16, filter: &Arc<SessionFilter>) -> u64 {
    let filter = filter.clone();
    let look = move |it: &mut dyn Inspect, from| it.kill(from, &filter);
    let killed = gather::walk(&*shared.subject, (reactor, 0), look).await;
    killed.map_or(0, |it| it.count() as u64)
}

impl Criteria {
    fn is_empty(&self) -> bool {
        let Self {
            client,
            forward,
            server,
            min_age,
            max_age,
            min_bytes,
        } = self;
        client.is_none()
            && forward.is_none()
            && server.is_none()
            && min_age.is_none()
            && max_age.is_none()
            && min_bytes.is_none()
    }

    /// As reactors have it.
    async fn filter(&self, shared: &Shared, place: &str) -> Result<SessionFilter, Problem> {
        let mut filter = SessionFilter::default();
        if let Some(client) = &self.client {
            let (network, port) = client_of(client).ok_or_else(|| {
                Problem::bad_request("this is no address, network or address with a port")
                    .at(format!("{place}, client"))
            })?;
            (filter.client, filter.client_port) = (Some(network), port);
        }
        let duration = |seconds: Option<f64>, key: &str| {
            let seconds = seconds.map(Duration::try_from_secs_f64).transpose();
            seconds.map_err(|_| {
                Problem::bad_request("this is no number of seconds").at(format!("{place}, {key}"))
            })
        };
        filter.older_than = duration(self.min_age, "min_age")?;
        filter.younger_than = duration(self.max_age, "max_age")?;
        filter.bytes_min = self.min_bytes;
        filter.forward = self.forward.as_deref().map(Arc::from);
        if let Some(server) = &self.server {
            let mut ids = Vec::new();
            for pool in shared.subject.pools() {
                for seen in &pool.servers {
                    let address = seen.server.endpoint().to_string();
                    if *server == address || *server == format!("{}/{address}", pool.label) {
                        ids.push(seen.server.settings().id);
                    }
                }
            }
            // Where clients say where to go, an address is no server of a pool.
            filter.endpoint = server.parse().ok().map(Endpoint::Inet);
            if ids.is_empty() && filter.endpoint.is_none() {
                return Err(Problem::not_found(format!("there is no server {server:?}"))
                    .at(format!("{place}, server")));
            }
            filter.servers = Some(ids);
        }
        self.check_forward(shared, &filter, place).await?;
        Ok(filter)
    }

    /// A forward that there is not is a slip, which no empty list may hide. One that was taken
    /// out of the configuration is there as long as a session of it lives.
    async fn check_forward(
        &self,
        shared: &Shared,
        filter: &SessionFilter,
        place: &str,
    ) -> Result<(), Problem> {
        let Some(name) = &self.forward else {
            return Ok(());
        };
        let forwards = shared.subject.forwards();
        if forwards.iter().any(|it| *it.forward.name == **name) {
            return Ok(());
        }
        let of_it = Arc::new(SessionFilter {
            forward: filter.forward.clone(),
            ..SessionFilter::default()
        });
        if gather::sessions(&*shared.subject, &of_it, Depth::Known)
            .await
            .is_empty()
        {
            return Err(
                Problem::not_found(format!("there is no forward named {name:?}"))
                    .at(format!("{place}, forward")),
            );
        }
        Ok(())
    }
}

/// `10.0.0.0/8`, `10.1.2.3`, `10.1.2.3:4567`, `[::1]:4567`.
pub(super) fn client_of(text: &str) -> Option<(IpNet, Option<u16>)> {
    if let Ok(network) = text.parse::<IpNet>() {
        return Some((network, None));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address.into(), None));
    }
    let address = text.parse::<SocketAddr>().ok()?;
    Some((address.ip().into(), Some(address.port())))
}

/// Which session or flow: `0-17`, `0-u17`; in records and in the log `0.17`, `0.u17`, which is
/// understood as well. None has that of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) reactor: u16,
    number: u64,
    pub(super) is_flow: bool,
}

impl Identity {
    pub(super) fn parse(id: &str) -> Option<Self> {
        let (reactor, number) = id.split_once(['-', '.'])?;
        let flow = number.strip_prefix('u');
        Some(Self {
            reactor: reactor.parse().ok()?,
            number: flow.unwrap_or(number).parse().ok()?,
            is_flow: flow.is_some(),
        })
    }

    const fn of(view: &SessionView) -> Self {
        Self {
            reactor: view.reactor,
            number: view.id,
            is_flow: view.datagrams.is_some(),
        }
    }

    /// What takes it alone, on its reactor.
    pub(super) fn filter(self) -> SessionFilter {
        SessionFilter {
            id: Some(self.number),
            is_flow: Some(self.is_flow),
            ..SessionFilter::default()
        }
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flow = if self.is_flow { "u" } else { "" };
        write!(f, "{}-{flow}{}", self.reactor, self.number)
    }
}

/// Reactor and slot of a cursor.
fn place(cursor: &str) -> Result<(u16, u32), Problem> {
    let place = cursor.split_once('.');
    let place = place.and_then(|(reactor, slot)| Some((reactor.parse().ok()?, slot.parse().ok()?)));
    place.ok_or_else(|| Problem::bad_request("there never was such a cursor").at("query, cursor"))
}

/// By what the first sessions are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Age,
    Bytes,
    Rate,
    Held,
}

fn order(sort: &str) -> Result<Order, Problem> {
    match sort {
        "age" => Ok(Order::Age),
        "bytes" => Ok(Order::Bytes),
        "rate" => Ok(Order::Rate),
        "held" => Ok(Order::Held),
        _ => Err(Problem::bad_request("this is age, bytes, rate or held").at("query, sort")),
    }
}

/// How to look at which sessions.
struct Look {
    filter: Arc<SessionFilter>,
    interval: Duration,
    limit: usize,
    min_rate: Option<f64>,
}

impl Look {
    /// A page, and where the next one begins.
    async fn page(
        &self,
        shared: &Shared,
        (first, mut slot): (u16, u32),
    ) -> (Vec<Session>, Option<String>) {
        let subject = &*shared.subject;
        let mut found: Vec<SessionView> = Vec::new();
        let mut next = None;
        let reactors = gather::reactors(subject).into_iter();
        'all: for reactor in reactors.filter(|it| *it >= first) {
            if reactor > first {
                slot = 0;
            }
            let filter = self.filter.clone();
            // One more, where the next page begins.
            let mut wanted = self.limit + 1 - found.len();
            let look = move |it: &mut dyn Inspect, from| {
                let slice = it.sessions(from, &filter, Depth::Kernel);
                wanted = wanted.saturating_sub(slice.items.len());
                let next = slice.next.filter(|_| wanted > 0);
                Slice { next, ..slice }
            };
            // One that has ended has no sessions.
            let seen = gather::walk(subject, (reactor, slot), look).await;
            for session in seen.into_iter().flatten() {
                if found.len() == self.limit {
                    next = Some(format!("{reactor}.{}", session.key.slot));
                    break 'all;
                }
                found.push(session);
            }
        }
        (self.rated(shared, found).await, next)
    }

    /// The first of all by some order.
    async fn first(&self, shared: &Shared, order: Order) -> Vec<Session> {
        let subject = &*shared.subject;
        let mut all = gather::sessions(subject, &self.filter, Depth::Known).await;
        let mut earlier = HashMap::new();
        if order == Order::Rate && !self.interval.is_zero() {
            earlier.extend(all.iter().map(|it| (Identity::of(it), (moved(it), it.now))));
            tokio::time::sleep(self.interval).await;
            all = gather::sessions(subject, &self.filter, Depth::Known).await;
        }
        let value = |view: &SessionView| match order {
            Order::Age => view.age.as_secs_f64(),
            Order::Bytes => moved(view) as f64,
            Order::Held => f64::from(waits(view)),
            Order::Rate => {
                let before = earlier.get(&Identity::of(view));
                let (bytes, elapsed) =
                    before.map_or((0, view.age), |(bytes, at)| (*bytes, view.now.since(*at)));
                moved(view).saturating_sub(bytes) as f64 / elapsed.as_secs_f64().max(1e-6)
            }
        };
        let mut valued: Vec<(f64, SessionView)> =
            all.into_iter().map(|view| (value(&view), view)).collect();
        valued.sort_by(|one, other| other.0.total_cmp(&one.0));
        valued.truncate(self.limit);
        let chosen: Vec<SessionView> = valued.into_iter().map(|(_, view)| view).collect();
        let rank: HashMap<Identity, usize> = chosen
            .iter()
            .zip(0..)
            .map(|(it, rank)| (Identity::of(it), rank))
            .collect();
        let looked = again(shared, &chosen).await;
        let mut sessions = self.rated(shared, looked).await;
        sessions.sort_by_key(|it| Identity::parse(&it.id).and_then(|id| rank.get(&id).copied()));
        sessions
    }

    /// With rates and verdicts: of the interval, if there is one.
    async fn rated(&self, shared: &Shared, found: Vec<SessionView>) -> Vec<Session> {
        let mut sessions: Vec<Session> = if self.interval.is_zero() {
            found.iter().map(|it| view(None, it)).collect()
        } else {
            tokio::time::sleep(self.interval).await;
            let mut before: HashMap<Identity, SessionView> = HashMap::new();
            let later = again(shared, &found).await;
            before.extend(found.into_iter().map(|it| (Identity::of(&it), it)));
            let looked = later.iter();
            looked
                .map(|it| view(before.get(&Identity::of(it)), it))
                .collect()
        };
        if let Some(least) = self.min_rate {
            sessions.retain(|it| it.up.rate + it.down.rate >= least);
        }
        sessions
    }
}

/// The same sessions, those of them that live yet.
async fn again(shared: &Shared, found: &[SessionView]) -> Vec<SessionView> {
    let mut views = Vec::with_capacity(found.len());
    for reactor in gather::reactors(&*shared.subject) {
        let keys: Vec<_> = found
            .iter()
            .filter(|it| it.reactor == reactor)
            .map(|it| it.key)
            .collect();
        for some in keys.chunks(SESSIONS_MAX) {
            let some = some.to_vec();
            let seen = gather::ask(&*shared.subject, reactor, move |it| it.these(&some)).await;
            views.extend(seen.into_iter().flatten());
        }
    }
    views
}

/// What waits here for its receiver, and whether a rate makes it wait.
fn waits(view: &SessionView) -> u32 {
    let held = view
        .lanes
        .iter()
        .map(|lane| lane.held.max(u32::from(lane.stalled)));
    let by_rate = view.held_back.is_some_and(|it| !it.is_zero());
    held.fold(u32::from(by_rate), u32::saturating_add)
}

fn moved(view: &SessionView) -> u64 {
    view.lanes.iter().map(|lane| lane.bytes).sum()
}

/// As it is told. `before`: what was seen of it an interval ago.
pub(super) fn view(before: Option<&SessionView>, now: &SessionView) -> Session {
    let elapsed = before.map_or(now.age, |it| now.now.since(it.now));
    let lane = |direction: Direction| {
        let at = direction.index();
        let earlier = before.map(|it| it.lanes[at]).unwrap_or_default();
        lane(&earlier, &now.lanes[at], elapsed)
    };
    let server = now.destination.as_ref();
    let account = server.and_then(|it| it.account());
    let leg = |side: Side| now.tcp[side.index()].map(|info| leg(&info, now.age));
    let seconds = |it: Option<Duration>| it.map(|it| it.as_secs_f64());
    Session {
        id: Identity::of(now).to_string(),
        kind: match now.datagrams {
            Some(_) => "datagrams",
            None => "stream",
        }
        .to_owned(),
        forward: now.forward().name.to_string(),
        generation: now.forward().generation,
        listener: now.listener.address.to_string(),
        client: now.client.to_string(),
        phase: now.phase.to_lowercase(),
        age_seconds: now.age.as_secs_f64(),
        up: lane(Direction::Up),
        down: lane(Direction::Down),
        verdict: verdict(before, now).to_owned(),
        server: server.map(|it| it.endpoint().to_string()),
        pool: account.map(|it| it.settings().pool.to_string()),
        target: now.target.clone(),
        user: now.user.clone(),
        connect_seconds: seconds(now.connect),
        first_byte_seconds: seconds(now.first_byte),
        rates: now.rates.iter().map(limit).collect(),
        held_back_seconds: seconds(now.held_back),
        client_tcp: leg(Side::Client),
        upstream_tcp: leg(Side::Upstream),
        datagrams: now.datagrams.map(|[up, down]| FlowTraffic {
            up: up.datagrams,
            down: down.datagrams,
            dropped_up: up.lost,
            dropped_down: down.lost,
        }),
        route: now.route.as_ref().map(ToString::to_string),
        sni: now.sni.clone(),
    }
}

fn limit((level, [up, down]): &(Level, [u64; 2])) -> RateLimit {
    RateLimit {
        of: level.name().to_owned(),
        up: *up,
        down: *down,
    }
}

fn lane(before: &LaneView, now: &LaneView, elapsed: Duration) -> Lane {
    let moved = now.bytes.saturating_sub(before.bytes);
    Lane {
        bytes: now.bytes,
        rate: moved as f64 / elapsed.as_secs_f64().max(1e-6),
        held: now.held,
        path: if now.spliced { "splice" } else { "copy" }.to_owned(),
        ended: now.ended,
    }
}

fn leg(info: &TcpInfo, age: Duration) -> Leg {
    Leg {
        rtt_seconds: info.rtt.as_secs_f64(),
        retransmits: info.retransmits,
        delivery_rate: info.delivery_rate,
        limited_by: info.limited_by(age).name().to_owned(),
        min_rtt_seconds: info.min_rtt.map(|it| it.as_secs_f64()),
    }
}
