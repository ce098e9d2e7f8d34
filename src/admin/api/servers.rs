//! Servers: what is known of them, and what an operator wants of them.
#![allow(
    clippy::option_option,
    reason = "a key that is left out is one thing, null is another"
)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Deserializer};
use utoipa::{IntoParams, ToSchema};

use super::extract::{Body, NoParameters, Parameters};
use crate::admin::gather;
use crate::admin::problem::Problem;
use crate::admin::shared::Shared;
use crate::admin::subject::{PoolSeen, Refused, ServerChange, ServerSeen};
use crate::admin::view::{Bytes, ConnectLimit, Failures, RateLimit, Rates, Server, Times};
use crate::config::{AdminState, WEIGHT_MAX};
use crate::policy::meter::Level;
use crate::relay::id::ServerId;

/// An answer with the version that it is of.
type Versioned = ([(header::HeaderName, String); 1], Json<Server>);

/// Which servers.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ServersQuery {
    /// Those of this pool.
    pool: Option<String>,
    /// Those in this state.
    state: Option<String>,
    /// Those at this address.
    address: Option<String>,
    /// Milliseconds over which rates are measured; without, there are none.
    #[serde(default)]
    #[param(minimum = 0, maximum = 5000)]
    interval_ms: u32,
}

/// Between the two looks that rates are made of, at the most.
const INTERVAL_MAX: u32 = 5000;

/// What `state` may be.
const STATES: [&str; 5] = ["up", "marked", "down", "drain", "maintenance"];

impl ServersQuery {
    /// A pool or a state that there is not is a slip, which no empty list may hide.
    fn check(&self, shared: &Shared) -> Result<(), Problem> {
        if let Some(state) = &self.state
            && !STATES.contains(&state.as_str())
        {
            let words = STATES.join(", ");
            return Err(
                Problem::bad_request(format!("a state is one of {words}")).at("query, state")
            );
        }
        if let Some(name) = &self.pool {
            let pools = shared.subject.pools();
            if !pools.iter().any(|it| *it.label == **name) {
                let none = Problem::not_found(format!("there is no pool named {name:?}"));
                return Err(none.at("query, pool"));
            }
        }
        Ok(())
    }
}

/// Every server
#[utoipa::path(
    get,
    path = "/v1/servers",
    params(ServersQuery),
    responses((status = OK, body = [Server]))
)]
pub(super) async fn servers(
    State(shared): State<Shared>,
    Parameters(query): Parameters<ServersQuery>,
) -> Result<Json<Vec<Server>>, Problem> {
    if query.interval_ms > INTERVAL_MAX {
        return Err(Problem::bad_request("this is more than 5000 ms").at("query, interval_ms"));
    }
    query.check(&shared)?;
    let interval = Duration::from_millis(query.interval_ms.into());
    let mut views = look(&shared, &query).await;
    if !interval.is_zero() {
        let began = Instant::now();
        tokio::time::sleep(interval).await;
        let before: HashMap<u32, Server> = views.drain(..).map(|it| (it.id, it)).collect();
        views = look(&shared, &query).await;
        let seconds = began.elapsed().as_secs_f64();
        for view in &mut views {
            let Some(before) = before.get(&view.id) else {
                continue;
            };
            let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            view.rate = Some(Rates {
                up: per_second(view.bytes.up, before.bytes.up),
                down: per_second(view.bytes.down, before.bytes.down),
            });
            view.connect_rate = Some(per_second(view.connects, before.connects));
        }
    }
    Ok(Json(views))
}

/// Those that are asked for, what their live sessions have moved so far included.
async fn look(shared: &Shared, query: &ServersQuery) -> Vec<Server> {
    for reactor in gather::reactors(&*shared.subject) {
        // One that has ended has nothing left to enter.
        gather::settled(&*shared.subject, reactor).await;
    }
    let elapsed = elapsed(shared);
    let mut views = Vec::new();
    for pool in shared.subject.pools() {
        let wanted = query.pool.as_deref().is_none_or(|it| it == &*pool.label);
        for server in pool.servers.iter().filter(|_| wanted) {
            let view = view(&pool, server, elapsed);
            let state = query.state.as_ref().is_none_or(|it| *it == view.state);
            let address = query.address.as_ref().is_none_or(|it| *it == view.address);
            if state && address {
                views.push(view);
            }
        }
    }
    views
}

/// Every server as it is at this moment.
pub(in crate::admin) fn now(shared: &Shared) -> Vec<Server> {
    let elapsed = elapsed(shared);
    let mut views = Vec::new();
    for pool in shared.subject.pools() {
        views.extend(pool.servers.iter().map(|it| view(&pool, it, elapsed)));
    }
    views
}

/// A server
#[utoipa::path(
    get,
    path = "/v1/servers/{id}",
    params(("id" = u32, Path, description = "Of the server")),
    responses((status = OK, body = Server, headers(
        ("ETag" = String, description = "What If-Match may name")
    )))
)]
pub(super) async fn server(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Versioned, Problem> {
    one(&shared, number(&id)?)
}

/// What is wanted of a server; what is left out stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerOrder {
    /// `active`: it takes sessions. `drain`: it keeps those that it has. `maintenance`:
    /// likewise, and it is not checked.
    #[schema(nullable = false, example = "drain")]
    state: Option<String>,
    /// Its share beside the others', 1 to 1000.
    #[schema(nullable = false, minimum = 1, maximum = 1000)]
    weight: Option<u32>,
    /// Sessions at the most; null is without a bound.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    max_connections: Option<Option<u32>>,
    /// Also if no other server of its pool takes sessions.
    #[serde(default)]
    force: bool,
}

/// A key that is there, be it null.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u32>>, D::Error> {
    Option::<u32>::deserialize(deserializer).map(Some)
}

/// Changes a server, from the next pick of every reactor on
///
/// What is set here holds until it is set again or the process ends.
#[utoipa::path(
    post,
    path = "/v1/servers/{id}",
    params(
        ("id" = u32, Path, description = "Of the server"),
        ("If-Match" = Option<String>, Header, description = "The version that is meant")
    ),
    request_body = ServerOrder,
    responses(
        (status = OK, body = Server, headers(
            ("ETag" = String, description = "What If-Match may name")
        )),
        (status = CONFLICT, description = "It is the last server that takes sessions",
            body = crate::admin::problem::ProblemBody, content_type = "application/problem+json"),
        (status = PRECONDITION_FAILED, description = "It was changed meanwhile",
            body = crate::admin::problem::ProblemBody, content_type = "application/problem+json")
    )
)]
pub(super) async fn change(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    headers: HeaderMap,
    Body(order): Body<ServerOrder>,
) -> Result<Versioned, Problem> {
    let id = number(&id)?;
    let change = ServerChange {
        state: order.state.as_deref().map(state).transpose()?,
        weight: order.weight,
        max_connections: order.max_connections,
        force: order.force,
        version: version(&headers)?,
    };
    if change
        .weight
        .is_some_and(|it| !(1..=WEIGHT_MAX).contains(&i64::from(it)))
    {
        return Err(
            Problem::bad_request(format!("a weight is 1 to {WEIGHT_MAX}")).at("body, weight"),
        );
    }
    if change.max_connections == Some(Some(0)) {
        return Err(Problem::bad_request(
            "a limit is 1 at least; to keep everybody out, drain the server",
        )
        .at("body, max_connections"));
    }
    let changed = shared.subject.change_server(ServerId::new(id), &change);
    changed.map_err(|refused| refusal(&refused))?;
    one(&shared, id)
}

/// Forgives a server its failures
#[utoipa::path(
    post,
    path = "/v1/servers/{id}/clear-marks",
    params(("id" = u32, Path, description = "Of the server")),
    responses((status = OK, body = Server, headers(
        ("ETag" = String, description = "What If-Match may name")
    )))
)]
pub(super) async fn clear_marks(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Versioned, Problem> {
    let id = number(&id)?;
    let cleared = shared.subject.clear_marks(Some(ServerId::new(id)));
    cleared.map_err(|refused| refusal(&refused))?;
    one(&shared, id)
}

/// Forgives all servers their failures
#[utoipa::path(post, path = "/v1/clear-marks", responses((status = NO_CONTENT)))]
pub(super) async fn clear_all_marks(
    State(shared): State<Shared>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> StatusCode {
    // Without a server there is nothing to forgive.
    let _ = shared.subject.clear_marks(None);
    StatusCode::NO_CONTENT
}

fn number(id: &str) -> Result<u32, Problem> {
    let number = id.parse();
    number.map_err(|_| Problem::not_found(format!("there is no server {id:?}")).at("path, id"))
}

fn state(word: &str) -> Result<AdminState, Problem> {
    AdminState::of_word(word).ok_or_else(|| {
        Problem::bad_request("a state is active, drain or maintenance").at("body, state")
    })
}

/// The version that `If-Match` names; none for `*` and where it is left out.
fn version(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(tag) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let tag = tag.to_str().unwrap_or_default().trim();
    if tag == "*" {
        return Ok(None);
    }
    let bare = tag.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    let version = bare.and_then(|it| it.parse().ok());
    let unknown = || {
        // What is no version of it at all is none that it has.
        Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "there never was such a version",
        )
        .at("header, If-Match")
    };
    version.map(Some).ok_or_else(unknown)
}

fn refusal(refused: &Refused) -> Problem {
    let status = match refused {
        Refused::Unknown(_) => StatusCode::NOT_FOUND,
        Refused::Changed { .. } => StatusCode::PRECONDITION_FAILED,
        Refused::LastServer { .. } => StatusCode::CONFLICT,
    };
    Problem::new(status, refused.to_string())
}

fn one(shared: &Shared, id: u32) -> Result<Versioned, Problem> {
    let elapsed = elapsed(shared);
    for pool in shared.subject.pools() {
        let mut servers = pool.servers.iter();
        if let Some(server) = servers.find(|it| it.server.settings().id.number() == id) {
            let view = view(&pool, server, elapsed);
            let tag = [(header::ETAG, format!("\"{}\"", view.version))];
            return Ok((tag, Json(view)));
        }
    }
    Err(Problem::not_found(format!("there is no server {id}")).at("path, id"))
}

/// Since the start.
fn elapsed(shared: &Shared) -> Duration {
    let since = SystemTime::now().duration_since(shared.subject.started());
    since.unwrap_or_default()
}

pub(super) fn view(pool: &PoolSeen, seen: &ServerSeen, elapsed: Duration) -> Server {
    let server = &seen.server;
    let tally = &server.tally;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let terms = server.terms();
    let [refused, unreachable, timeout, reset, other] = tally.failures.each_ref().map(count);
    Server {
        id: server.settings().id.number(),
        pool: pool.label.to_string(),
        address: server.endpoint().to_string(),
        state: server.state().to_owned(),
        state_seconds: seen.in_state_for(elapsed).as_secs_f64(),
        weight: seen.weight,
        backup: seen.backup,
        listed: seen.listed,
        sessions: server.active(),
        connects: count(&tally.connects),
        failures: Failures {
            refused,
            unreachable,
            timeout,
            reset,
            other,
        },
        bytes: Bytes {
            up: count(&tally.bytes_up),
            down: count(&tally.bytes_down),
        },
        connect: Times::of(&tally.connect_times()),
        version: server.version(),
        rate: None,
        connect_rate: None,
        host: server.settings().host.clone(),
        why: seen.why.as_deref().map(str::to_owned),
        max_connections: terms.max_connections,
        max_per_client: terms.max_per_client,
        connect_limit: terms.connect_rate.map(|limit| ConnectLimit {
            per_second: 1.0 / limit.interval.as_secs_f64(),
            burst: limit.burst,
        }),
        rate_limit: terms.bytes.map(|[up, down]| RateLimit {
            of: Level::Server.name().to_owned(),
            up: up.per_second,
            down: down.per_second,
        }),
    }
}
