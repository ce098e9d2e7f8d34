//! /healthz: the loops turn. /readyz: every listener accepts, and each pool has a server.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::gather;
use super::shared::Shared;
use super::subject::{Phase, PoolSeen, Subject};

/// Whether every reactor turns.
pub(super) async fn healthz(State(shared): State<Shared>) -> Response {
    answer(&stuck(&*shared.subject).await)
}

/// Whether clients would be served.
pub(super) async fn readyz(State(shared): State<Shared>) -> Response {
    answer(&unready(&*shared.subject).await)
}

fn answer(faults: &[String]) -> Response {
    let status = if faults.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let text = match faults {
        [] => "ok\n".to_owned(),
        faults => faults.join("\n") + "\n",
    };
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (status, plain, text).into_response()
}

async fn stuck(subject: &dyn Subject) -> Vec<String> {
    let stuck = gather::stuck(subject).await.into_iter();
    stuck
        .map(|reactor| format!("reactor {reactor} does not turn"))
        .collect()
}

/// Why clients would not be served, a line for each reason.
pub(super) async fn unready(subject: &dyn Subject) -> Vec<String> {
    let mut faults = Vec::new();
    if subject.phase() == Phase::Draining {
        faults.push("it is ending: draining".to_owned());
    }
    faults.extend(stuck(subject).await);
    faults.extend(unserved(subject));
    faults
}

/// Likewise, but for reactors that are stuck.
pub(crate) fn unserved(subject: &dyn Subject) -> Vec<String> {
    let mut faults = Vec::new();
    for forward in subject.forwards().iter().filter(|it| it.draining.is_some()) {
        faults.push(format!("forward {}: draining", forward.forward.name));
    }
    for pool in subject.pools() {
        if let Some(why) = without_servers(&pool) {
            faults.push(format!("pool {}: {why}", pool.label));
        }
    }
    faults
}

/// What a pool lacks whose sessions no server takes.
pub(super) fn without_servers(pool: &PoolSeen) -> Option<String> {
    // Where clients say where to go there are no servers.
    if pool.config.servers.is_empty() {
        return None;
    }
    let listed = pool.servers.iter().filter(|it| it.listed);
    if listed.clone().any(|it| it.server.standing.is_up()) {
        return None;
    }
    Some(format!("none of {} servers is up", listed.count()))
}
