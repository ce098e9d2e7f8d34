//! Sessions that wait because every server has as many as it may.
//!
//! First come, first served, on each reactor; reactors that share servers compete.

use std::time::Duration;

use super::Worker;
use crate::engine::{Engine, SessionKey};
use crate::relay::ending::Cause;
use crate::relay::session::Event as SessionEvent;
use crate::relay::time::Time;

/// A session's queue is served so often while somebody waits and no session of this
/// reactor ends: other reactors share the servers.
const QUEUE_LOOK: Duration = Duration::from_millis(5);

impl<E: Engine> Worker<E> {
    pub(super) fn enqueue(&mut self, key: SessionKey, upstream: u16) -> SessionEvent {
        let now = self.engine.now();
        let sessions = &self.sessions;
        let upstream = &mut self.upstreams[usize::from(upstream)];
        let max = upstream.setup.queue as usize;
        if upstream.waiting.len() >= max {
            let waits =
                |key: &SessionKey| sessions.get(*key).is_some_and(|it| it.session.is_queued());
            upstream.waiting.retain(waits);
        }
        if upstream.waiting.len() >= max {
            self.counters.queue_full.add(1);
            return SessionEvent::NoServer(Cause::QueueFull);
        }
        upstream.waiting.push_back(key);
        self.counters.queued.add(1);
        self.queue_due = self.queue_due.min(now + QUEUE_LOOK);
        SessionEvent::Queued
    }

    /// Lets sessions that wait have servers with room, in order.
    pub(super) fn serve_queues(&mut self) {
        let now = self.engine.now();
        if self.queue_due > now {
            return;
        }
        self.queue_due = Time::NEVER;
        for index in 0..self.upstreams.len() {
            // Nobody who is put back at the end has another turn now.
            for _ in 0..self.upstreams[index].waiting.len() {
                if !self.upstreams[index].has_room(now) {
                    break;
                }
                let Some(key) = self.upstreams[index].waiting.pop_front() else {
                    break;
                };
                let entry = self.sessions.get(key);
                if entry.is_some_and(|entry| entry.session.is_queued()) {
                    self.deliver(key, SessionEvent::Dequeued);
                }
            }
            // Who has ended meanwhile wakes nobody.
            let sessions = &self.sessions;
            let waits =
                |key: &SessionKey| sessions.get(*key).is_some_and(|it| it.session.is_queued());
            self.upstreams[index].waiting.retain(waits);
            if !self.upstreams[index].waiting.is_empty() {
                self.queue_due = now + QUEUE_LOOK;
            }
        }
    }
}
