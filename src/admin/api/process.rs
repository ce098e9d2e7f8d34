//! The process: what it is, its configuration, its log, its reactors.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::extract::{Body, NoParameters, Parameters};
use crate::admin::gather;
use crate::admin::health::unready;
use crate::admin::problem::Problem;
use crate::admin::process::ThreadStat;
use crate::admin::shared::Shared;
use crate::admin::subject::{Phase, Subject};
use crate::admin::view::{About, LogView, Reactor, Sums};
use crate::config::LogLevel;
use crate::observe::timestamp::timestamp;

/// The process and the configuration in force
#[utoipa::path(get, path = "/v1", responses((status = OK, body = About)))]
pub(super) async fn about(
    State(shared): State<Shared>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Json<About> {
    Json(now(&shared).await)
}

/// What it is at this moment.
pub(in crate::admin) async fn now(shared: &Shared) -> About {
    let subject = &*shared.subject;
    let configured = subject.configured();
    let (sessions_max, sessions) = subject.sessions_limit();
    let uptime = SystemTime::now().duration_since(subject.started());
    About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        engine: subject.engine().to_owned(),
        confinement: subject.confinement().to_owned(),
        pid: std::process::id(),
        started: timestamp(subject.started()),
        uptime_seconds: uptime.unwrap_or_default().as_secs_f64(),
        phase: match subject.phase() {
            Phase::Serving => "serving",
            Phase::Draining => "draining",
        }
        .to_owned(),
        unready: unready(subject).await,
        generation: configured.generation,
        config_hash: configured.hash().to_owned(),
        config_applied: timestamp(configured.applied),
        sessions,
        sessions_max,
        reactors: subject.reactors().len() as u16,
        log_level: subject.log().level().as_word().to_owned(),
        log_dropped: subject.log().dropped(),
        totals: totals(subject),
    }
}

fn totals(subject: &dyn Subject) -> Sums {
    let mut sum = Sums::default();
    for reactor in subject.reactors() {
        let it = reactor.counters.snapshot();
        sum.accepted += it.accepted;
        sum.ended += it.ended;
        sum.connects += it.connects;
        sum.failures += it.connect_failures;
        sum.up += it.bytes_up;
        sum.down += it.bytes_down;
        sum.flows += it.udp_flows;
    }
    sum
}

/// The configuration in force, as TOML with every default filled in
#[utoipa::path(
    get,
    path = "/v1/config",
    responses((status = OK, body = String, content_type = "application/toml"))
)]
pub(super) async fn config(
    State(shared): State<Shared>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Response {
    let text = shared.subject.configured().config.to_toml();
    ([(header::CONTENT_TYPE, "application/toml")], text).into_response()
}

fn log_view(shared: &Shared) -> Json<LogView> {
    let log = shared.subject.log();
    Json(LogView {
        level: log.level().as_word().to_owned(),
        dropped: log.dropped(),
    })
}

/// The log
#[utoipa::path(get, path = "/v1/log", responses((status = OK, body = LogView)))]
pub(super) async fn log(
    State(shared): State<Shared>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Json<LogView> {
    log_view(&shared)
}

/// Another level of the log.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogChange {
    /// `error`, `warn`, `info` or `debug`.
    #[schema(example = "debug")]
    level: String,
}

/// Sets the level of the log
#[utoipa::path(
    post,
    path = "/v1/log",
    request_body = LogChange,
    responses((status = OK, body = LogView))
)]
pub(super) async fn set_log(
    State(shared): State<Shared>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    Body(change): Body<LogChange>,
) -> Result<Json<LogView>, Problem> {
    let level = LogLevel::of_word(&change.level).ok_or_else(|| {
        Problem::bad_request("a level is error, warn, info or debug").at("body, level")
    })?;
    shared.subject.log().set_level(level);
    Ok(log_view(&shared))
}

/// Over how long the load of reactors is measured.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReactorsQuery {
    /// Milliseconds over which the load is measured; 0 is not at all.
    #[serde(default)]
    #[param(minimum = 0, maximum = 5000)]
    interval_ms: u32,
}

/// The threads that forward
#[utoipa::path(
    get,
    path = "/v1/reactors",
    params(ReactorsQuery),
    responses((status = OK, body = [Reactor]))
)]
pub(super) async fn reactors(
    State(shared): State<Shared>,
    Parameters(query): Parameters<ReactorsQuery>,
) -> Result<Json<Vec<Reactor>>, Problem> {
    if query.interval_ms > 5000 {
        return Err(Problem::bad_request("this is more than 5000 ms").at("query, interval_ms"));
    }
    let interval = Duration::from_millis(query.interval_ms.into());
    let mut views = look(&shared).await;
    if !interval.is_zero() {
        tokio::time::sleep(interval).await;
        let before = std::mem::take(&mut views);
        views = look(&shared).await;
        for (view, before) in views.iter_mut().zip(before) {
            let ran = view.cpu_seconds - before.cpu_seconds;
            let turns = view.turns_total.saturating_sub(before.turns_total);
            view.load = Some(ran / interval.as_secs_f64());
            view.turn_seconds = (turns > 0).then(|| ran / turns as f64);
        }
    }
    Ok(Json(views))
}

async fn look(shared: &Shared) -> Vec<Reactor> {
    let mut views = Vec::new();
    for reactor in shared.subject.reactors() {
        let seen = gather::ask(&*shared.subject, reactor.number, |it| it.counters()).await;
        let turns = seen.is_some();
        let counters = seen.unwrap_or_else(|| reactor.counters.snapshot());
        let thread = ThreadStat::find(&format!("reactor-{}", reactor.number));
        let times = thread.and_then(|it| it.times()).unwrap_or_default();
        views.push(Reactor {
            number: reactor.number,
            turns,
            sessions: counters.live,
            accepted: counters.accepted,
            turns_total: counters.turns,
            held_bytes: counters.held_bytes,
            cpu_seconds: times.ran.as_secs_f64(),
            waited_seconds: times.waited.as_secs_f64(),
            ..Reactor::default()
        });
    }
    let accepted: u64 = views.iter().map(|it| it.accepted).sum();
    let mean = accepted as f64 / views.len().max(1) as f64;
    for view in &mut views {
        view.spread = if accepted == 0 {
            1.0
        } else {
            view.accepted as f64 / mean
        };
    }
    views
}
