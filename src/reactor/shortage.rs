//! Places that run short: how many sessions each client and each forward has here, kept
//! only meanwhile, and who makes room. What follows from it is decided in
//! [`crate::policy::shares`].
//!
//! Each reactor keeps books of its own sessions: the kernel spreads the connections of
//! everybody over reactors evenly enough. Books are opened when a limit is found to be
//! short, filled a bounded number of slots a turn, and thrown away once nothing has been
//! short for [`KEPT`].

use std::time::Duration;

use super::Entry;
use super::gate::Gate;
use super::sessions::Sessions;
use super::setup::Forward;
use crate::engine::SessionKey;
use crate::net::address::Endpoint;
use crate::policy::client::Client;
use crate::policy::shares::{Manner, Shares};
use crate::relay::Direction;
use crate::relay::id::ForwardId;
use crate::relay::time::Time;

/// Slots that are gone through in one turn, to enter who is there: about a millisecond.
const SLOTS_PER_TURN: u32 = 2048;

/// Books are kept so long after something was short, so that a limit about which the
/// number of sessions moves does not have them filled over and over.
const KEPT: Duration = Duration::from_secs(5);

/// Servers that speak first say less than this before they listen; one that goes on is
/// heard by somebody who need not say anything.
const GREETING_MAX: u64 = 4096;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    /// `None`: there is plenty.
    books: Option<Box<Books>>,
}

#[derive(Debug)]
struct Books {
    shares: Shares<SessionKey>,
    /// Slots from here on may have sessions that are not entered.
    entered_to: u32,
    until: Time,
}

impl Shortage {
    /// Sees whether the places of the process, or of this forward, are short.
    pub(super) fn review(
        &mut self,
        process: &Gate,
        forward: &Forward,
        sessions: &Sessions,
        now: Time,
    ) {
        let of_forward = forward.gate.as_ref();
        let is_short = process.places().are_short()
            || of_forward.is_some_and(|gate| gate.places().are_short());
        match &mut self.books {
            Some(books) if is_short => books.until = now + KEPT,
            Some(books) if books.until < now => self.books = None,
            None if is_short => {
                self.books = Some(Box::new(Books {
                    shares: Shares::new(process.reactors()),
                    entered_to: 0,
                    until: now + KEPT,
                }));
                // So many come in before the next turn as a small limit has places left.
                self.take_stock(sessions);
            }
            Some(_) | None => {}
        }
    }

    /// Not everybody who is here has been entered.
    pub(super) fn has_more_to_enter(&self, sessions: &Sessions) -> bool {
        let books = self.books.as_ref();
        books.is_some_and(|books| books.entered_to < sessions.slots())
    }

    /// Enters some of those who were here before.
    pub(super) fn take_stock(&mut self, sessions: &Sessions) {
        let Some(books) = &mut self.books else { return };
        let to = sessions.slots().min(books.entered_to + SLOTS_PER_TURN);
        for slot in books.entered_to..to {
            let key = sessions.key_of(slot);
            if let Some((key, entry)) = key.and_then(|key| Some((key, sessions.get(key)?))) {
                books.enter(key, entry);
            }
        }
        books.entered_to = to;
    }

    /// A session has begun.
    pub(super) fn entered(&mut self, key: SessionKey, sessions: &Sessions) {
        if let Some(books) = &mut self.books
            && let Some(entry) = sessions.get(key)
        {
            books.enter(key, entry);
        }
    }

    /// A session is over, or its client turned out to be another.
    pub(super) fn left(&mut self, key: SessionKey) {
        if let Some(books) = &mut self.books {
            books.shares.leave(key);
        }
    }

    /// Whether a client may have a place that was taken for it already.
    pub(super) fn may_enter(&self, client: &Endpoint, process: &Gate, forward: &Forward) -> bool {
        let Some(books) = &self.books else {
            return true;
        };
        let client = client_of(client);
        let of_forward = forward.gate.as_ref();
        books
            .shares
            .may_enter(client, None, process.places().and_one())
            && of_forward.is_none_or(|gate| {
                let places = gate.places().and_one();
                books.shares.may_enter(client, Some(forward.id), places)
            })
    }

    /// Whether a forward may have a place that was taken for it already.
    pub(super) fn may_grow(&self, forward: ForwardId, process: &Gate) -> bool {
        let books = self.books.as_ref();
        books.is_none_or(|books| books.shares.may_grow(forward, process.places().and_one()))
    }

    /// A session that makes room for somebody who waits for one of so many places, of all or
    /// of those of this forward.
    pub(super) fn makes_room(
        &mut self,
        (of, max): (Option<ForwardId>, u32),
        sessions: &Sessions,
        now: Time,
    ) -> Option<SessionKey> {
        let shares = &mut self.books.as_mut()?.shares;
        shares.makes_room(of, max, now, |key| {
            sessions.get(key).map_or(Manner::Spoken, manner)
        })
    }
}

impl Books {
    fn enter(&mut self, key: SessionKey, entry: &Entry) {
        let silent = match manner(entry) {
            Manner::Spoken => None,
            Manner::Silent | Manner::Unheard => Some(entry.session.started()),
        };
        let (forward, client) = (entry.listener.forward.id, client_of(&entry.client));
        self.shares.enter(key, forward, client, silent);
    }
}

/// Who it is, for whatever is shared out among clients.
pub(super) fn client_of(client: &Endpoint) -> Client {
    Client::from(match client {
        Endpoint::Inet(address) => Some(address.ip()),
        Endpoint::Unix(_) | Endpoint::Unnamed => None,
    })
}

/// Whether the client of a session has ever said something. A PROXY header is said by
/// somebody else.
fn manner(entry: &Entry) -> Manner {
    let session = &entry.session;
    let has_moved = session.lane(Direction::Up).bytes_in() > 0
        || session.lane(Direction::Down).bytes_in() > GREETING_MAX;
    let opening = entry.opening.as_ref();
    if session.ending().is_some() || has_moved || opening.is_some_and(|it| it.has_heard()) {
        Manner::Spoken
    } else if session.is_dialing() || session.is_queued() || session.is_deciding() {
        Manner::Unheard
    } else {
        Manner::Silent
    }
}
