//! Sessions that go on after this process was killed: those that are old enough to be worth it
//! are shown to a store, which has copies of their descriptors kept elsewhere and gives a
//! mark for each; from then on the engine notes in it how far their lanes have come.
//!
//! Young ones cost nothing but a place in a line, and nobody is looked for: who comes last is
//! due last.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::Reactor;
use super::hand_over::manifest;
use crate::engine::detached::Uncut;
use crate::engine::{Datagrams, SessionKey};
use crate::net::journal::Mark;
use crate::relay::time::Time;

/// A session this young ends with its process: storing it is two messages to another process.
const AGE: Duration = Duration::from_secs(5);

/// Those that come in the same second are due together, so that an idle process is woken at
/// most once a second, and only while it has young ones.
const STEP: Duration = Duration::from_secs(1);

/// Sessions that are shown in one turn: each is written as JSON and has two descriptors copied.
const PER_TURN: usize = 16;

/// Where the descriptors of sessions are kept.
pub trait SessionStore: Debug + Send {
    /// Is shown a session, and may answer by [`Reactor::note`]. Called from within a turn, so it
    /// does not wait.
    fn store(&self, session: OldSession);
}

/// A session that is to be kept.
#[derive(Debug)]
pub struct OldSession {
    /// It.
    pub key: SessionKey,
    /// Copies of its descriptors: client and upstream.
    pub sides: [OwnedFd; 2],
    /// A [`Manifest`](super::Manifest), as JSON.
    pub text: Vec<u8>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct OldSessions {
    store: Option<Box<dyn SessionStore>>,
    /// Those that are not kept so far, by when they are looked at.
    young: VecDeque<(Time, SessionKey)>,
}

impl OldSessions {
    /// A session is here from now on.
    pub(super) fn entered(&mut self, key: SessionKey, now: Time) {
        if self.store.is_some() {
            self.young.push_back((due(now), key));
        }
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Time {
        self.young.front().map_or(Time::NEVER, |(at, _)| *at)
    }
}

fn due(now: Time) -> Time {
    let step = STEP.as_micros() as u64;
    let at = (now + AGE).as_micros();
    Time::from_micros(at.div_ceil(step) * step)
}

impl<E: Datagrams> Reactor<E> {
    /// From now on sessions are shown to this store, those that are there already included.
    pub fn keep_in(&mut self, store: Box<dyn SessionStore>) {
        self.old.store = Some(store);
        let now = self.ctx.now();
        let all: Vec<SessionKey> = self.ctx.sessions.keys().collect();
        self.old.young.clear();
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
                return;
            };
            self.old.young.pop_front();
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
        if entry.session.is_closing() || self.ctx.engine.is_noted(key) {
            return;
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
            store.store(OldSession { key, sides, text });
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
}
