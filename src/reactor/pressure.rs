//! Who holds how much for slow receivers, kept only while that runs short, and how much of
//! its next fill a lane may hold. What follows from it is decided in
//! [`crate::policy::holders`].
//!
//! Each reactor has a limit of its own, and so books of its own, a [`Stock`]: opened when half
//! of it is held. A pump pays one test for it while there is plenty.

use super::Entry;
use super::sessions::Sessions;
use super::stock::Stock;
use crate::engine::chunks::SMALLEST;
use crate::engine::{Holdings, SessionKey};
use crate::policy::client::Client;
use crate::policy::holders::Holders;
use crate::relay::Direction;
use crate::relay::time::Time;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Pressure(Stock<Holders<SessionKey>>);

impl Pressure {
    /// Sees how much is held.
    pub(super) fn review(&mut self, holdings: &Holdings, now: Time) {
        // Less than half: nobody holds more than is free.
        let Holdings {
            held_bytes: held,
            held_limit: limit,
            ..
        } = *holdings;
        let is_short = held > limit / 2 && limit > 0;
        self.0.review(is_short, now, Holders::default);
    }

    /// Not everybody who holds something has been entered.
    pub(super) fn has_more_to_enter(&self, sessions: &Sessions) -> bool {
        self.0.has_more_to_enter(sessions)
    }

    /// Enters some of those who held something before.
    pub(super) fn take_stock(&mut self, sessions: &Sessions) {
        self.0.take_stock(sessions, enter);
    }

    /// How much of what it reads next a lane of this session may hold.
    #[inline]
    pub(super) fn may_hold(
        &self,
        key: SessionKey,
        entry: &Entry,
        holdings: impl FnOnce() -> Holdings,
    ) -> u32 {
        let Some(holders) = self.0.books() else {
            return u32::MAX;
        };
        let holdings = holdings();
        let free = holdings.held_limit.saturating_sub(holdings.held_bytes);
        let more = holders.may_hold(key, Client::from(entry.client.ip()), free);
        u32::try_from(more).unwrap_or(u32::MAX)
    }

    /// A lane of this session was pumped.
    #[inline]
    pub(super) fn note(&mut self, key: SessionKey, entry: &Entry) {
        if let Some(holders) = self.0.books_mut() {
            enter(holders, key, entry);
        }
    }

    /// A session is over.
    pub(super) fn left(&mut self, key: SessionKey) {
        if let Some(holders) = self.0.books_mut() {
            holders.leave(key);
        }
    }

    /// Panics when the books have somebody who is gone.
    pub(super) fn check_invariants(&self, sessions: &Sessions) {
        if let Some(holders) = self.0.books() {
            let lives = |key| sessions.get(key).is_some();
            holders.check_invariants(lives);
        }
    }
}

fn enter(holders: &mut Holders<SessionKey>, key: SessionKey, entry: &Entry) {
    // What an engine keeps of it is in chunks.
    let of_lane = |direction| match entry.session.lane(direction).held() {
        0 => 0,
        held => u64::from(held).max(SMALLEST),
    };
    let bytes = Direction::BOTH.map(of_lane).iter().sum();
    holders.holds(key, Client::from(entry.client.ip()), bytes);
}
