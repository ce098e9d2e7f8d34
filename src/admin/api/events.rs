//! `/v1/events`: the record of each session as it ends.
//!
//! Records are those of the log, taken where they are written: a reader that stops costs
//! nobody anything. What it missed is told to it when it goes on (behaviour 150).

use axum::extract::{Extension, State};
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::broadcast::error::RecvError;

use crate::admin::problem::Problem;
use crate::admin::shared::Shared;
use crate::admin::stream::{Connection, events as as_events};
use crate::config::SessionLog;

/// The record of each session as it ends, as server-sent events
///
/// `event: session` has the record as JSON, the one of the log. Who reads too slowly misses some:
/// `event: gap` has how many, as `{"missed": 3}`.
#[utoipa::path(
    get,
    path = "/v1/events",
    responses((status = OK, body = String, content_type = "text/event-stream"))
)]
pub(super) async fn events(
    State(shared): State<Shared>,
    Extension(connection): Extension<Connection>,
) -> Result<Response, Problem> {
    if shared.subject.configured().config.log.sessions == SessionLog::Off {
        return Err(Problem::not_found(
            "there are no records: `[log] sessions` is off",
        ));
    }
    let place = connection.streams(&shared.streams)?;
    let records = shared.subject.log().records();
    let lines = stream::unfold(records, |mut records| async move {
        let line = match records.recv().await {
            Ok(record) => format!("event: session\ndata: {record}"),
            Err(RecvError::Lagged(missed)) => {
                format!("event: gap\ndata: {{\"missed\":{missed}}}")
            }
            Err(RecvError::Closed) => return None,
        };
        Some((line, records))
    });
    // The head of the answer goes out before the first record.
    let hello = stream::once(async { ": records of sessions as they end".to_owned() });
    Ok(as_events(place, hello.chain(lines)))
}
