//! Asking reactors: visits with an answer, and walks over all sessions in slices.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::subject::{Phase, Subject, once};
use crate::observe::counters::Snapshot;
use crate::reactor::inspect::{Depth, Inspect, ListenerView, SessionFilter, SessionView, Slice};

/// How long a reactor may take to be visited: a turn or two, but for a machine that is
/// busy with other things.
const PATIENCE: Duration = Duration::from_secs(2);

/// Likewise in as many turns as a walk needs.
const WALK_PATIENCE: Duration = Duration::from_secs(8);

/// What a reactor says; `None` if it has ended, or does not turn.
pub(super) async fn ask<R: Send + 'static>(
    subject: &dyn Subject,
    reactor: u16,
    question: impl FnOnce(&mut dyn Inspect) -> R + Send + 'static,
) -> Option<R> {
    let (reply, answer) = oneshot::channel();
    let visit = once(move |reactor| {
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
        let visit = once(move |_| {
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

/// Goes through something on a reactor, a slice in each of its turns, from `from` on: all that
/// was found; `None` if the reactor has ended, or does not turn.
pub(super) async fn walk<T: Send + 'static>(
    subject: &dyn Subject,
    (reactor, mut from): (u16, u32),
    mut look: impl FnMut(&mut dyn Inspect, u32) -> Slice<T> + Send + 'static,
) -> Option<impl Iterator<Item = T>> {
    let (reply, answer) = oneshot::channel();
    // Slices are kept as they are: what is long is not copied while sessions wait.
    let (mut reply, mut slices) = (Some(reply), Vec::new());
    let visit = Box::new(move |reactor: &mut dyn Inspect| {
        if reply.as_ref().is_none_or(oneshot::Sender::is_closed) {
            return ControlFlow::Break(());
        }
        let slice = look(reactor, from);
        if !slice.items.is_empty() {
            slices.push(slice.items);
        }
        if let Some(next) = slice.next {
            from = next;
            return ControlFlow::Continue(());
        }
        if let Some(reply) = reply.take() {
            let _ = reply.send(std::mem::take(&mut slices));
        }
        ControlFlow::Break(())
    });
    if !subject.visit(reactor, visit) {
        return None;
    }
    let slices: Vec<Vec<T>> = timeout(WALK_PATIENCE, answer).await.ok()?.ok()?;
    Some(slices.into_iter().flatten())
}

/// What a reactor has counted, what its live sessions moved entered in the books.
pub(super) async fn settled(subject: &dyn Subject, reactor: u16) -> Option<Snapshot> {
    let settle = |it: &mut dyn Inspect, from| Slice {
        items: Vec::<()>::new(),
        next: it.settle(from),
    };
    let _ = walk(subject, (reactor, 0), settle).await?;
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
        let filter = filter.clone();
        let look = move |it: &mut dyn Inspect, from| it.sessions(from, &filter, depth);
        all.extend(
            walk(subject, (reactor, 0), look)
                .await
                .into_iter()
                .flatten(),
        );
    }
    all
}

/// The sockets that all reactors listen on, by reactor and identity.
pub(super) async fn listeners(subject: &dyn Subject) -> Vec<ListenerView> {
    let mut all = Vec::new();
    for reactor in reactors(subject) {
        let look = |it: &mut dyn Inspect, from| it.listeners(from);
        let first = all.len();
        all.extend(
            walk(subject, (reactor, 0), look)
                .await
                .into_iter()
                .flatten(),
        );
        all[first..].sort_by_key(|it: &ListenerView| it.listener.id);
    }
    all
}
