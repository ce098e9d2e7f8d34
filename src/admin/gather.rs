//! Asking reactors: visits with an answer, and walks over all sessions in slices.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::subject::{Phase, Subject};
use crate::observe::counters::Snapshot;
use crate::reactor::inspect::{Depth, Inspect, ListenerView, SessionFilter, SessionView};

/// How long a reactor may take to be visited: a turn or two, but for a machine that is
/// busy with other things.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a reactor says; `None` if it has ended, or does not turn.
pub(super) async fn ask<R: Send + 'static>(
    subject: &dyn Subject,
    reactor: u16,
    question: impl FnOnce(&mut dyn Inspect) -> R + Send + 'static,
) -> Option<R> {
    let (reply, answer) = oneshot::channel();
    let visit = Box::new(move |reactor: &mut dyn Inspect| {
        // Nobody waits any more where the caller has gone.
        let _ = reply.send(question(reactor));
    });
    if !subject.visit(reactor, visit) {
        return None;
    }
    timeout(PATIENCE, answer).await.ok()?.ok()
}

/// Whether every reactor turns; those that do not. One that has ended because all of it is
/// ending is no fault.
pub(super) async fn stuck(subject: &dyn Subject) -> Vec<u16> {
    let mut stuck = Vec::new();
    for reactor in reactors(subject) {
        let (reply, answer) = oneshot::channel();
        let visit = Box::new(move |_: &mut dyn Inspect| {
            let _ = reply.send(());
        });
        let turns = if subject.visit(reactor, visit) {
            matches!(timeout(PATIENCE, answer).await, Ok(Ok(())))
        } else {
            false
        };
        // It may have ended with the visitor before its door.
        if !turns && subject.phase() == Phase::Serving {
            stuck.push(reactor);
        }
    }
    stuck
}

/// The numbers of all reactors.
pub(super) fn reactors(subject: &dyn Subject) -> Vec<u16> {
    subject.reactors().iter().map(|it| it.number).collect()
}

/// What a reactor has counted, what its live sessions moved entered in the books.
pub(super) async fn settled(subject: &dyn Subject, reactor: u16) -> Option<Snapshot> {
    let mut from = Some(0);
    while let Some(slot) = from {
        from = ask(subject, reactor, move |it| it.settle(slot)).await?;
    }
    ask(subject, reactor, |it| it.counters()).await
}

/// Every session that a filter takes, by reactor and slot.
pub(super) async fn sessions(
    subject: &dyn Subject,
    filter: &Arc<SessionFilter>,
    depth: Depth,
) -> Vec<SessionView> {
    let mut all = Vec::new();
    for reactor in reactors(subject) {
        let mut from = Some(0);
        while let Some(slot) = from {
            let filter = filter.clone();
            let slice = ask(subject, reactor, move |it| {
                it.sessions(slot, &filter, depth)
            })
            .await;
            let Some(slice) = slice else { break };
            all.extend(slice.items);
            from = slice.next;
        }
    }
    all
}

/// The sockets that all reactors listen on.
pub(super) async fn listeners(subject: &dyn Subject) -> Vec<ListenerView> {
    let mut all = Vec::new();
    for reactor in reactors(subject) {
        let mut from = Some(0);
        while let Some(first) = from {
            let slice = ask(subject, reactor, move |it| it.listeners(first)).await;
            let Some(slice) = slice else { break };
            all.extend(slice.items);
            from = slice.next;
        }
    }
    all
}
