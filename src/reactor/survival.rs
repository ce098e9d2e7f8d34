//! Sessions that go on after this process was killed: those that are old enough to be worth it
//! are shown to a store, which has copies of their descriptors kept elsewhere and gives a
//! mark for each; from then on the engine notes in it how far their lanes have come.
//!
//! ```text
//!  young ── old enough ─► shown ──► noted ─► its end
//!                          │ ▲        │ somebody else has the place now
//!             no place ────▼ │        ▼
//!                        waiting: shown again once there is one
//! ```
//! Young ones cost nothing but a place in a line, and nobody is looked for: who comes last is
//! due last.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::hand_over::manifest;
use super::{Entry, Reactor};
use crate::engine::detached::Uncut;
use crate::engine::{Datagrams, SessionKey};
use crate::net::journal::{Mark, SlotName};
use crate::policy::client::Client;
use crate::relay::time::Time;

/// A session this young ends with its process: storing it is two messages to another process.
const AGE: Duration = Duration::from_secs(5);

/// Those that come in the same second are due together, so that an idle process is woken at
/// most once a second, and only while it has young ones or some that wait for a place.
const STEP: Duration = Duration::from_secs(1);

/// Sessions that are shown in one turn: each is written as JSON and has two descriptors copied.
const PER_TURN: usize = 16;

/// Where the descriptors of sessions are kept. Called from within a turn, so it does not wait.
pub trait SessionStore: Debug + Send {
    /// Is shown a session, and may answer by [`Reactor::note`] or [`Reactor::no_place`].
    fn store(&self, session: OldSession);

    /// A session that is kept already is here, under this key.
    fn has(&self, kept: KeptSession);

    /// Whether another one may find a place, as far as that is known here.
    fn has_room(&self) -> bool;
}

/// A session that is to be kept.
#[derive(Debug)]
pub struct OldSession {
    /// It.
    pub key: SessionKey,
    /// Whose it is.
    pub client: Client,
    /// Copies of its descriptors: client and upstream.
    pub sides: [OwnedFd; 2],
    /// A [`Manifest`](super::Manifest), as JSON.
    pub text: Vec<u8>,
}

/// One that is.
#[derive(Debug, Clone, Copy)]
pub struct KeptSession {
    /// It.
    pub key: SessionKey,
    /// Whose it is.
    pub client: Client,
    /// What it is called where it is kept.
    pub name: SlotName,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct OldSessions {
    store: Option<Box<dyn SessionStore>>,
    /// Those that are not kept so far, by when they are looked at.
    young: VecDeque<(Time, SessionKey)>,
    /// Those that found no place, and the one that was shown again last.
    waiting: BTreeSet<SessionKey>,
    shown: Option<SessionKey>,
    /// When it is seen next whether there is a place for them.
    look_at: Time,
}

impl OldSessions {
    /// A session is here from now on.
    pub(super) fn entered(&mut self, key: SessionKey, now: Time) {
        if self.store.is_some() {
            self.young.push_back((due(now + AGE), key));
        }
    }

    /// It is here no more.
    pub(super) fn left(&mut self, key: SessionKey) {
        if !self.waiting.is_empty() {
            self.waiting.remove(&key);
        }
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Time {
        let young = self.young.front().map_or(Time::NEVER, |(at, _)| *at);
        if self.waiting.is_empty() {
            return young;
        }
        young.min(self.look_at)
    }

    fn waits(&mut self, key: SessionKey, now: Time) {
        if self.waiting.is_empty() {
            self.look_at = due(now + STEP);
        }
        self.waiting.insert(key);
    }

    /// The next one that waits, each in turn.
    fn next_waiting(&mut self) -> Option<SessionKey> {
        let behind = self.shown.and_then(|shown| {
            use std::ops::Bound::{Excluded, Unbounded};
            let mut behind = self.waiting.range((Excluded(shown), Unbounded));
            behind.next().copied()
        });
        let next = behind.or_else(|| self.waiting.first().copied())?;
        self.waiting.remove(&next);
        self.shown = Some(next);
        Some(next)
    }
}

/// The next full step from there on.
fn due(from: Time) -> Time {
    let step = STEP.as_micros() as u64;
    Time::from_micros(from.as_micros().div_ceil(step) * step)
}

fn client_of(entry: &Entry) -> Client {
    Client::from(entry.client.ip())
}

impl<E: Datagrams> Reactor<E> {
    /// From now on sessions are shown to this store, those that are there already included.
    pub fn keep_in(&mut self, store: Box<dyn SessionStore>) {
        let now = self.ctx.now();
        self.old = OldSessions {
            store: Some(store),
            ..OldSessions::default()
        };
        let all: Vec<SessionKey> = self.ctx.sessions.keys().collect();
        for key in all {
            self.old.entered(key, now);
        }
    }

    /// The share of a turn.
    pub(super) fn keep_old(&mut self) {
        let now = self.ctx.now();
        for _ in 0..PER_TURN {
            let front = self.old.young.front();
            let Some((_, key)) = front.copied().filter(|(at, _)| *at <= now) else {
                break;
            };
            self.old.young.pop_front();
            self.keep_one(key, now);
        }
        if self.old.waiting.is_empty() || self.old.look_at > now {
            return;
        }
        self.old.look_at = due(now + STEP);
        for _ in 0..PER_TURN {
            if !self.old.store.as_ref().is_some_and(|it| it.has_room()) {
                return;
            }
            let Some(key) = self.old.next_waiting() else {
                return;
            };
            self.keep_one(key, now);
        }
    }

    fn keep_one(&mut self, key: SessionKey, now: Time) {
        let Some(store) = &self.old.store else {
            return;
        };
        let Some(entry) = self.ctx.sessions.get(key) else {
            return;
        };
        if entry.session.is_closing() {
            return;
        }
        let client = client_of(entry);
        if let Some(name) = self.ctx.engine.noted_as(key) {
            return store.has(KeptSession { key, client, name });
        }
        if !entry.session.may_be_frozen() {
            // It is being opened or dialled.
            return self.old.entered(key, now);
        }
        let Some(sides) = self.ctx.engine.share(key) else {
            return;
        };
        let written = manifest(entry, &Uncut::of(&sides), now);
        let written = written.filter(|it| it.state.may_be_found());
        // Plain data always serialises.
        let text = written.and_then(|it| serde_json::to_vec(&it).ok());
        if let Some(text) = text {
            store.store(OldSession {
                key,
                client,
                sides,
                text,
            });
        }
    }

    /// A session that was shown is kept: what comes of it is noted from now on.
    pub fn note(&mut self, key: SessionKey, mark: Mark) {
        let Some(entry) = self.ctx.sessions.get(key) else {
            return;
        };
        let session = &entry.session;
        // One that has lost a side meanwhile is nobody's to go on with.
        if !session.is_relaying() {
            return;
        }
        let first = session.first_byte_time();
        let first = first.map(|after| session.started() + after);
        self.ctx.engine.note(key, mark, session.lanes(), first);
    }

    /// A session that was shown found no place: it is shown again once there may be one.
    pub fn no_place(&mut self, key: SessionKey) {
        let waits = self.ctx.sessions.get(key).is_some();
        if waits && self.ctx.engine.noted_as(key).is_none() {
            let now = self.ctx.now();
            self.old.waits(key, now);
        }
    }

    /// The place of a session is for another one: it is kept no more, and waits. One that has it
    /// no longer, or is elsewhere by now, is left as it is.
    pub fn keep_no_more(&mut self, key: SessionKey, name: SlotName) {
        if self.ctx.engine.noted_as(key) == Some(name) {
            self.ctx.engine.note_no_more(key);
            self.no_place(key);
        }
    }
}
