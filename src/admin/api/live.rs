//! What a dashboard shows, once a second: made once for all who look, and not at all while
//! nobody does.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use axum::extract::{Extension, State};
use axum::response::Response;
use futures_util::stream;
use serde::Serialize;

use super::{process, refused, servers, topology};
use crate::admin::problem::Problem;
use crate::admin::shared::Shared;
use crate::admin::stream::{Connection, events};
use crate::admin::view::{About, Forward, Refusal, Server};

/// Between two pictures.
const EVERY: Duration = Duration::from_secs(1);

/// Servers of a picture: those in trouble, then those with the most sessions.
const SERVERS_MAX: usize = 200;

/// Forwards of a picture: those that serve nobody, then those with the most sessions.
const FORWARDS_MAX: usize = 200;

/// What is shown at one moment; totals, from which whoever shows it makes rates.
#[derive(Serialize)]
struct Picture {
    at_ms: u64,
    about: About,
    forwards: Vec<Forward>,
    servers: Vec<Server>,
    refused: Vec<Refusal>,
}

/// The picture of the dashboard, once a second, as server-sent events
///
/// Each has a line of data: a JSON object with `at_ms`, `about` (as /v1), the `forwards` and
/// `servers` of most interest, and what was `refused`, as the API tells them.
#[utoipa::path(
    get,
    path = "/v1/live",
    responses((status = OK, body = String, content_type = "text/event-stream"))
)]
pub(super) async fn live(
    State(shared): State<Shared>,
    Extension(connection): Extension<Connection>,
) -> Result<Response, Problem> {
    let place = connection.streams(&shared.streams)?;
    let mut pictures = shared.live.latest.subscribe();
    // The last one may be old.
    pictures.mark_unchanged();
    if !shared.live.drawing.swap(true, Ordering::AcqRel) {
        tokio::spawn(draw(shared));
    }
    let lines = stream::unfold(pictures, |mut pictures| async move {
        // Who is slow gets the latest, and none in between.
        pictures.changed().await.ok()?;
        let picture = pictures.borrow_and_update().clone();
        Some((format!("data: {picture}"), pictures))
    });
    Ok(events(place, lines))
}

/// Until nobody looks any more.
async fn draw(shared: Shared) {
    let live = shared.live.clone();
    loop {
        let picture = picture(&shared).await;
        // Plain data always serialises.
        let text = serde_json::to_string(&picture).unwrap_or_default();
        live.latest.send_replace(text.into());
        tokio::time::sleep(EVERY).await;
        if live.latest.receiver_count() == 0 {
            live.drawing.store(false, Ordering::Release);
            // Somebody may have come in between.
            if live.latest.receiver_count() == 0 || live.drawing.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }
}

async fn picture(shared: &Shared) -> Picture {
    let mut forwards = topology::now(shared).await;
    let mut servers = servers::now(shared);
    forwards.sort_by_key(|it| (it.why.is_none(), std::cmp::Reverse(it.sessions)));
    forwards.truncate(FORWARDS_MAX);
    forwards.sort_by(|one, other| one.name.cmp(&other.name));
    servers.sort_by_key(|it| (it.state == "up", std::cmp::Reverse(it.sessions)));
    servers.truncate(SERVERS_MAX);
    servers.sort_by_key(|it| it.id);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Picture {
        at_ms: since.unwrap_or_default().as_millis() as u64,
        about: process::now(shared).await,
        refused: refused::now(shared),
        forwards,
        servers,
    }
}
