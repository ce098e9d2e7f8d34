//! Answers that go on: server-sent events, for as long as somebody reads.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::patience::Line;
use super::problem::Problem;

/// What whoever answers knows of the connection.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) line: Line,
    /// Its place among those that are served; given back once it streams.
    pub(super) place: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Connection {
    /// From now on the connection streams: it has a place among those, and no other.
    pub(super) fn streams(
        &self,
        streams: &Arc<Semaphore>,
    ) -> Result<OwnedSemaphorePermit, Problem> {
        let place = streams.clone().try_acquire_owned();
        let place =
            place.map_err(|_| Problem::unavailable("there are too many streams already"))?;
        self.line.streams();
        let mut held = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        *held = None;
        Ok(place)
    }
}

/// As server-sent events, each a line of data.
pub(super) fn events(
    place: OwnedSemaphorePermit,
    lines: impl Stream<Item = String> + Send + 'static,
) -> Response {
    // The place goes with the stream.
    let events = stream::unfold((Box::pin(lines), place), |(mut lines, place)| async move {
        let line = lines.next().await?;
        Some((format!("{line}\n\n"), (lines, place)))
    });
    let bytes = events.map(|event| Ok::<_, Infallible>(Bytes::from(event)));
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    (kind, Body::from_stream(bytes)).into_response()
}
