//! Places that run short: how many sessions each client and each forward has here, kept
//! only meanwhile, and who makes room. What follows from it is decided in
//! [`crate::policy::shares`].
//!
//! Each reactor keeps books of its own sessions, a [`Stock`]: the kernel spreads the
//! connections of everybody over reactors evenly enough.

use super::Entry;
use super::gate::Gate;
use super::opened::Opened;
use super::sessions::Sessions;
use super::setup::Forward;
use super::stock::Stock;
use crate::engine::SessionKey;
use crate::net::address::Endpoint;
use crate::policy::client::Client;
use crate::policy::shares::{Manner, Shares};
use crate::relay::Direction;
use crate::relay::id::ForwardId;
use crate::relay::time::Time;

/// Servers that speak first say less than this before they listen; one that goes on is
/// heard by somebody who need not say anything.
const GREETING_MAX: u64 = 4096;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Shortage(Stock<Shares<SessionKey>>);

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
        let new = || Shares::new(process.reactors());
        if self.0.review(is_short, now, new) {
            // So many come in before the next turn as a small limit has places left.
            self.take_stock(sessions);
        }
    }

    /// Not everybody who is here has been entered.
    pub(super) fn has_more_to_enter(&self, sessions: &Sessions) -> bool {
        self.0.has_more_to_enter(sessions)
    }

    /// Enters some of those who were here before.
    pub(super) fn take_stock(&mut self, sessions: &Sessions) {
        self.0.take_stock(sessions, enter);
    }

    /// A session has begun.
    pub(super) fn entered(&mut self, key: SessionKey, sessions: &Sessions) {
        if let Some(shares) = self.0.books_mut()
            && let Some(entry) = sessions.get(key)
        {
            enter(shares, key, entry);
        }
    }

    /// A session is over, or its client turned out to be another.
    pub(super) fn left(&mut self, key: SessionKey) {
        if let Some(shares) = self.0.books_mut() {
            shares.leave(key);
        }
    }

    /// Whether a client may have a place that was taken for it already.
    pub(super) fn may_enter(&self, client: &Endpoint, process: &Gate, forward: &Forward) -> bool {
        let Some(shares) = self.0.books() else {
            return true;
        };
        let client = client_of(client);
        let of_forward = forward.gate.as_ref();
        shares.may_enter(client, None, process.places().and_one())
            && of_forward.is_none_or(|gate| {
                let places = gate.places().and_one();
                shares.may_enter(client, Some(forward.id), places)
            })
    }

    /// Whether a forward may have a place that was taken for it already.
    pub(super) fn may_grow(&self, forward: ForwardId, process: &Gate) -> bool {
        let shares = self.0.books();
        shares.is_none_or(|shares| shares.may_grow(forward, process.places().and_one()))
    }

    /// A session that makes room for somebody who waits for one of so many places, of all or
    /// of those of this forward.
    pub(super) fn makes_room(
        &mut self,
        (of, max): (Option<ForwardId>, u32),
        sessions: &Sessions,
        now: Time,
    ) -> Option<SessionKey> {
        let shares = self.0.books_mut()?;
        shares.makes_room(of, max, now, |key| {
            sessions.get(key).map_or(Manner::Spoken, manner)
        })
    }
}

fn enter(shares: &mut Shares<SessionKey>, key: SessionKey, entry: &Entry) {
    let silent = match manner(entry) {
        Manner::Spoken => None,
        Manner::Silent | Manner::Unheard => Some(entry.session.started()),
    };
    let (forward, client) = (entry.listener.forward.id, Client::from(entry.client.ip()));
    shares.enter(key, forward, client, silent);
}

/// Who it is, for whatever is shared out among clients.
fn client_of(client: &Endpoint) -> Client {
    Client::from(client.ip())
}

/// Whether the client of a session has ever said something. A PROXY header is said by
/// somebody else.
fn manner(entry: &Entry) -> Manner {
    let session = &entry.session;
    let has_moved = session.lane(Direction::Up).bytes_in() > 0
        || session.lane(Direction::Down).bytes_in() > GREETING_MAX;
    let opening = entry.aside.opened();
    if session.ending().is_some() || has_moved || opening.is_some_and(Opened::has_heard) {
        Manner::Spoken
    } else if session.is_dialing() || session.is_queued() || session.is_deciding() {
        Manner::Unheard
    } else {
        Manner::Silent
    }
}
