//! Who holds how much for slow receivers, kept only while that runs short, and how much of
//! its next fill a lane may hold. What follows from it is decided in
//! [`crate::policy::holders`].
//!
//! Each reactor has a limit of its own, and so books of its own. They are opened when half
//! of it is held, filled a bounded number of slots a turn, and thrown away once less has been held for
//! [`KEPT`]: until then a turn pays one comparison for it, and a pump one test.

use std::time::Duration;

use super::Entry;
use super::sessions::Sessions;
use super::shortage::client_of;
use crate::engine::chunks::SMALLEST;
use crate::engine::{Holdings, SessionKey};
use crate::policy::holders::Holders;
use crate::relay::Direction;
use crate::relay::time::Time;

/// Slots that are gone through in one turn, to enter who holds something.
const SLOTS_PER_TURN: u32 = 2048;

/// Books are kept so long after half of the limit was held.
const KEPT: Duration = Duration::from_secs(5);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// `None`: there is plenty.
    books: Option<Box<Ledger>>,
}

#[derive(Debug)]
struct Ledger {
    holders: Holders<SessionKey>,
    /// Slots from here on may have sessions that are not entered.
    entered_to: u32,
    until: Time,
}

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
        match &mut self.books {
            Some(books) if is_short => books.until = now + KEPT,
            Some(books) if books.until < now => self.books = None,
            None if is_short => {
                self.books = Some(Box::new(Ledger {
                    holders: Holders::default(),
                    entered_to: 0,
                    until: now + KEPT,
                }));
            }
            Some(_) | None => {}
        }
    }

    /// Not everybody who holds something has been entered.
    pub(super) fn has_more_to_enter(&self, sessions: &Sessions) -> bool {
        let books = self.books.as_ref();
        books.is_some_and(|books| books.entered_to < sessions.slots())
    }

    /// Enters some of those who held something before.
    pub(super) fn take_stock(&mut self, sessions: &Sessions) {
        let Some(books) = &mut self.books else { return };
        let to = sessions.slots().min(books.entered_to + SLOTS_PER_TURN);
        for slot in books.entered_to..to {
            let key = sessions.key_of(slot);
            if let Some((key, entry)) = key.and_then(|key| Some((key, sessions.get(key)?))) {
                books.enter(key, entry);
            }
        }
        // Slots that come later are of sessions that are noted as they hold something.
        books.entered_to = to;
    }

    /// How much of what it reads next a lane of this session may hold.
    #[inline]
    pub(super) fn may_hold(
        &self,
        key: SessionKey,
        entry: &Entry,
        holdings: impl FnOnce() -> Holdings,
    ) -> u32 {
        let Some(books) = &self.books else {
            return u32::MAX;
        };
        let holdings = holdings();
        let free = holdings.held_limit.saturating_sub(holdings.held_bytes);
        let more = books.holders.may_hold(key, client_of(&entry.client), free);
        u32::try_from(more).unwrap_or(u32::MAX)
    }

    /// A lane of this session was pumped.
    #[inline]
    pub(super) fn note(&mut self, key: SessionKey, entry: &Entry) {
        if let Some(books) = &mut self.books {
            books.enter(key, entry);
        }
    }

    /// A session is over.
    pub(super) fn left(&mut self, key: SessionKey) {
        if let Some(books) = &mut self.books {
            books.holders.leave(key);
        }
    }

    /// Panics when the books have somebody who is gone.
    pub(super) fn check_invariants(&self, sessions: &Sessions) {
        if let Some(books) = &self.books {
            let lives = |key| sessions.get(key).is_some();
            books.holders.check_invariants(lives);
        }
    }
}

impl Ledger {
    fn enter(&mut self, key: SessionKey, entry: &Entry) {
        // What an engine keeps of it is in chunks.
        let of_lane = |direction| match entry.session.lane(direction).held() {
            0 => 0,
            held => u64::from(held).max(SMALLEST),
        };
        let bytes = Direction::BOTH.map(of_lane).iter().sum();
        self.holders.holds(key, client_of(&entry.client), bytes);
    }
}
