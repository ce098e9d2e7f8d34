//! What was refused: by rules of forwards, by limits, and what was lost before anybody could.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;

use super::extract::{NoParameters, Parameters};
use crate::admin::gather;
use crate::admin::shared::Shared;
use crate::admin::view::Refusal;
use crate::observe::counters::Snapshot;
use crate::observe::metrics::table;

/// Counters that say of somebody that he was not served, by the names that they have in the
/// log. What `denied_access` counts is told by rules.
const COUNTERS: [&str; 13] = [
    "denied_max_per_client",
    "denied_connect_rate",
    "denied_server_max_per_client",
    "denied_client_table",
    "denied_share",
    "made_room",
    "refused",
    "queue_full",
    "accept_lost",
    "accept_overflows",
    "accept_pauses",
    "limit_pauses",
    "connect_shortages",
];

/// Likewise: families of them.
const FAMILIES: [&str; 4] = [
    "opening_",
    "http_connect_4",
    "http_connect_5",
    "udp_dropped_",
];

/// What was refused
///
/// Rules of forwards, each with its own count, then what limits and queues of the process turned
/// away; nothing that has not happened is listed.
#[utoipa::path(get, path = "/v1/refused", responses((status = OK, body = [Refusal])))]
pub(super) async fn refused(
    State(shared): State<Shared>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Json<Vec<Refusal>> {
    for reactor in gather::reactors(&*shared.subject) {
        // What queues lost is known once they were asked.
        gather::settled(&*shared.subject, reactor).await;
    }
    Json(now(&shared))
}

/// What was refused so far.
pub(super) fn now(shared: &Shared) -> Vec<Refusal> {
    let forwards = shared.subject.forwards();
    let mut all: Vec<Refusal> = Vec::new();
    for seen in &forwards {
        let rules = seen.forward.clients.iter().flat_map(|it| &it.written);
        all.extend(rules.map(|rule| Refusal {
            forward: seen.forward.name.to_string(),
            by: rule.text.to_string(),
            count: rule.denied.load(Ordering::Relaxed),
        }));
    }
    let reactors = shared.subject.reactors();
    let sum = reactors.iter().map(|it| it.counters.snapshot());
    let sum = sum.fold(Snapshot::default(), Snapshot::plus);
    let totals = table::totals(&sum);
    let counted = totals.keys().filter(|name| {
        COUNTERS.contains(&name.as_str()) || FAMILIES.iter().any(|it| name.starts_with(it))
    });
    all.extend(counted.map(|name| Refusal {
        count: table::total(&totals, name),
        by: name.replace('_', " "),
        forward: String::new(),
    }));
    all.retain(|it| it.count > 0);
    all
}
