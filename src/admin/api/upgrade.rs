//! Another process in the place of this one.

use std::path::PathBuf;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::extract::{Body, NoParameters, Parameters};
use super::reload::{aside, within};
use crate::admin::problem::{Problem, ProblemBody};
use crate::admin::shared::Shared;
use crate::admin::subject::UpgradeAsked;
use crate::admin::view::UpgradeView;

/// What an upgrade is to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct UpgradeOrder {
    /// The binary to start, as an absolute path; without, the one that this process was
    /// started from.
    #[schema(nullable = true, value_type = Option<String>)]
    binary: Option<PathBuf>,
    /// Everything comes back by itself, unless it is confirmed within so many seconds.
    #[schema(nullable = true, value_type = Option<f64>)]
    trial_seconds: Option<f64>,
}

/// Starts a new process and hands everything over to it
#[utoipa::path(
    post,
    path = "/v1/upgrade",
    request_body = UpgradeOrder,
    responses(
        (status = OK, body = UpgradeView),
        (status = CONFLICT, description = "Another upgrade or a reload has not come to an end",
            body = ProblemBody, content_type = "application/problem+json"),
        (status = SERVICE_UNAVAILABLE, description = "The new process has not taken over; this \
            one goes on with everything",
            body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub(super) async fn upgrade(
    State(shared): State<Shared>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    Body(order): Body<UpgradeOrder>,
) -> Result<Json<UpgradeView>, Problem> {
    let asked = UpgradeAsked {
        binary: order.binary,
        trial: within(order.trial_seconds, "body, trial_seconds")?,
    };
    if asked.binary.as_ref().is_some_and(|it| it.is_relative()) {
        let why = "the path of the binary is to be absolute";
        return Err(Problem::bad_request(why).at("body, binary"));
    }
    let done = aside(move || shared.subject.upgrade(asked)).await?;
    done.map(Json).map_err(|refused| {
        let status = if refused.busy {
            StatusCode::CONFLICT
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        Problem::new(status, refused.why)
    })
}
