//! Which sessions are shown to a tap, from their first byte to their end.
//!
//! A session that is not tapped costs one comparison at its beginning, and one at
//! its end, where its engine has nothing to give back.

use super::{Entry, Reactor};
use crate::engine::{Engine, SessionKey};
use crate::observe::tap::Closing;
use crate::relay::Direction;

impl<E: Engine> Reactor<E> {
    /// A session has begun and not yet dialled.
    pub(super) fn tap(&mut self, key: SessionKey) {
        if self.taps.is_empty() {
            return;
        }
        let Some(entry) = self.ctx.sessions.get_mut(key) else {
            return;
        };
        let Some(source) = self.taps.get(&entry.listener.forward.id) else {
            return;
        };
        let listener = entry.listener.address.clone();
        let Some(feed) = source.open(entry.id, &entry.client, listener) else {
            return;
        };
        for direction in Direction::BOTH {
            if feed.takes(direction) {
                entry.session.lane_mut(direction).tap();
            }
        }
        self.ctx.counters.tap_sessions.add(1);
        self.ctx.engine.tap(key, feed);
    }

    /// A session has ended.
    pub(super) fn untap(&mut self, key: SessionKey, entry: &Entry) {
        if self.taps.is_empty() {
            return;
        }
        if let Some(feed) = self.ctx.engine.untap(key) {
            let session = &entry.session;
            feed.close(Closing {
                ending: session.ending(),
                totals: Direction::BOTH.map(|direction| session.lane(direction).bytes_in()),
            });
        }
    }

    /// Brings the gauge of what taps lost up to date.
    pub(super) fn publish_taps(&self) {
        let sources = self.taps.values();
        let mut lost = 0;
        for (index, source) in sources.clone().enumerate() {
            let counted = sources.clone().take(index);
            if !counted.into_iter().any(|other| other.shares_target(source)) {
                lost += source.dropped_bytes();
            }
        }
        self.ctx.counters.tap_dropped_bytes.follow(lost);
    }
}
