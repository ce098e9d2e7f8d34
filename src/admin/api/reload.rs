//! Another configuration for the process at work.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::extract::{Body, NoParameters, Parameters};
use crate::admin::problem::{Problem, ProblemBody};
use crate::admin::shared::Shared;
use crate::admin::subject::{ReloadAsked, ReloadRefused, ReloadTrouble};
use crate::admin::view::{ReloadView, SettledView};

/// Longest that a reload may wait to be confirmed.
const CONFIRM_MAX_SECONDS: f64 = 86_400.0;

/// What a reload is to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ReloadOrder {
    /// Only say what would happen: nothing is opened, nothing changes.
    dry_run: bool,
    /// Go back by itself, unless it is confirmed within so many seconds.
    #[schema(minimum = 0.1, maximum = 86400, nullable = true)]
    confirm_seconds: Option<f64>,
}

/// Reads the configuration again, and applies what differs
#[utoipa::path(
    post,
    path = "/v1/reload",
    request_body = ReloadOrder,
    responses(
        (status = OK, body = ReloadView),
        (status = CONFLICT, description = "Another reload has not come to an end",
            body = ProblemBody, content_type = "application/problem+json"),
        (status = UNPROCESSABLE_ENTITY, description = "The configuration has mistakes, or asks \
            for what a running process cannot change; nothing was touched",
            body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub(super) async fn reload(
    State(shared): State<Shared>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    Body(order): Body<ReloadOrder>,
) -> Result<Json<ReloadView>, Problem> {
    let asked = ReloadAsked {
        dry_run: order.dry_run,
        confirm: within(order.confirm_seconds, "body, confirm_seconds")?,
    };
    let done = aside(move || shared.subject.reload(asked)).await?;
    done.map(Json).map_err(problem)
}

/// The time within which something is to be confirmed.
pub(super) fn within(seconds: Option<f64>, at: &'static str) -> Result<Option<Duration>, Problem> {
    let within = seconds.map(|seconds| {
        let fits = (0.1..=CONFIRM_MAX_SECONDS).contains(&seconds);
        let why = "the time to confirm is 0.1 to 86400 seconds";
        fits.then(|| Duration::from_secs_f64(seconds))
            .ok_or_else(|| Problem::bad_request(why).at(at))
    });
    within.transpose()
}

/// Why it was not done.
pub(super) fn problem(refused: ReloadRefused) -> Problem {
    let status = match refused.trouble {
        ReloadTrouble::Configuration => StatusCode::UNPROCESSABLE_ENTITY,
        ReloadTrouble::Busy => StatusCode::CONFLICT,
        ReloadTrouble::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, refused.why)
}

/// Keeps the configuration of a reload that waits to be confirmed
#[utoipa::path(
    post,
    path = "/v1/reload/confirm",
    responses((status = OK, body = SettledView))
)]
pub(super) async fn confirm(
    State(shared): State<Shared>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<SettledView>, Problem> {
    settle(shared, true).await
}

/// Goes back to what was in force before a reload that waits to be confirmed
#[utoipa::path(
    post,
    path = "/v1/reload/back",
    responses((status = OK, body = SettledView))
)]
pub(super) async fn back(
    State(shared): State<Shared>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<SettledView>, Problem> {
    settle(shared, false).await
}

async fn settle(shared: Shared, keep: bool) -> Result<Json<SettledView>, Problem> {
    let waited = aside(move || shared.subject.settle(keep)).await?;
    Ok(Json(SettledView { waited }))
}

/// On a thread that may wait for control.
pub(super) async fn aside<T: Send + 'static>(
    ask: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let asked = tokio::task::spawn_blocking(ask).await;
    asked.map_err(|_| Problem::unavailable("the process is ending"))
}
