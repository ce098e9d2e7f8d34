//! Books about the sessions of a reactor that are kept only while something runs short.
//!
//! Opened when it does, filled a bounded number of slots a turn with those who were there
//! before, and thrown away once it has not been short for [`KEPT`]: while there is plenty
//! nobody pays more than a test for them.

use std::time::Duration;

use super::Entry;
use super::sessions::Sessions;
use crate::engine::SessionKey;
use crate::relay::time::Time;

/// Slots that are gone through in one turn, to enter who is there: about a millisecond.
const SLOTS_PER_TURN: u32 = 2048;

/// Books are kept so long after something was short, so that a limit about which the
/// figures move does not have them filled over and over.
const KEPT: Duration = Duration::from_secs(5);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Stock<B> {
    /// `None`: there is plenty.
    open: Option<Box<Open<B>>>,
}

#[derive(Debug)]
struct Open<B> {
    books: B,
    /// Slots from here on may have sessions that are not entered.
    entered_to: u32,
    until: Time,
}

impl<B> Default for Stock<B> {
    fn default() -> Self {
        Self { open: None }
    }
}

impl<B> Stock<B> {
    /// Something is short, or is not; whether books were opened for it, `new` ones.
    pub(super) fn review(&mut self, is_short: bool, now: Time, new: impl FnOnce() -> B) -> bool {
        match &mut self.open {
            Some(open) if is_short => open.until = now + KEPT,
            Some(open) if open.until < now => self.open = None,
            None if is_short => {
                self.open = Some(Box::new(Open {
                    books: new(),
                    entered_to: 0,
                    until: now + KEPT,
                }));
                return true;
            }
            Some(_) | None => {}
        }
        false
    }

    /// The books, if any are kept.
    #[inline]
    pub(super) fn books(&self) -> Option<&B> {
        self.open.as_ref().map(|open| &open.books)
    }

    /// Likewise.
    #[inline]
    pub(super) fn books_mut(&mut self) -> Option<&mut B> {
        self.open.as_mut().map(|open| &mut open.books)
    }

    /// Not everybody who is here has been entered.
    pub(super) fn has_more_to_enter(&self, sessions: &Sessions) -> bool {
        let open = self.open.as_ref();
        open.is_some_and(|open| open.entered_to < sessions.slots())
    }

    /// Enters some of those who were here before. Whoever comes later enters by himself.
    pub(super) fn take_stock(
        &mut self,
        sessions: &Sessions,
        enter: impl Fn(&mut B, SessionKey, &Entry),
    ) {
        let Some(open) = &mut self.open else { return };
        let to = sessions.slots().min(open.entered_to + SLOTS_PER_TURN);
        for (key, entry) in sessions.in_slots(open.entered_to..to) {
            enter(&mut open.books, key, entry);
        }
        open.entered_to = to;
    }
}
