//! What every part of a reactor works with, and how parts tell each other something.
//!
//! A part owns its state, gets the context, and imports no other part: what one wants
//! of another it leaves in [`Ctx::out`], and the reactor carries that out.

use std::collections::VecDeque;
use std::sync::Arc;

use super::gate::Gate;
use super::pressure::Pressure;
use super::sessions::Sessions;
use super::setup::Forward;
use super::shortage::Shortage;
use crate::engine::{Engine, SessionKey};
use crate::observe::counters::Counters;
use crate::observe::log::Log;
use crate::observe::notice::{Kind, Notice, Subject};
use crate::observe::throttle::{self, Throttle};
use crate::relay::id::ForwardId;
use crate::relay::session::Event as SessionEvent;
use crate::relay::time::Time;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Ctx<E: Engine> {
    pub(super) engine: E,
    pub(super) sessions: Sessions,
    /// How many sessions there may be, over all reactors.
    pub(super) gate: Arc<Gate>,
    /// Who has how many of them, while they run short.
    pub(super) shortage: Shortage,
    /// Who holds how much for slow receivers, while that runs short.
    pub(super) pressure: Pressure,
    pub(super) counters: Arc<Counters>,
    pub(super) log: Log,
    /// Which reactor this is, from 0.
    pub(super) reactor: u16,
    /// What parts want of others, in order.
    pub(super) out: VecDeque<Effect>,
    throttle: Throttle<Kind, Subject>,
}

/// What a part wants of the rest of the reactor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Tell a session how its race ended.
    Concluded(SessionKey, SessionEvent),
    /// The deadline of a session may be nearer than its timer.
    Arm(SessionKey),
    /// Descriptors or memory have run out: nobody is let in for a while, and what can
    /// be spared is given up.
    Starved,
    /// This session makes room for somebody who waits.
    MakeRoom(SessionKey),
}

impl<E: Engine> Ctx<E> {
    pub(super) fn new(
        engine: E,
        (counters, log): (Arc<Counters>, Log),
        gate: Arc<Gate>,
        reactor: u16,
    ) -> Self {
        gate.add_reactor();
        Self {
            engine,
            sessions: Sessions::new(),
            gate,
            shortage: Shortage::default(),
            pressure: Pressure::default(),
            counters,
            log,
            reactor,
            out: VecDeque::new(),
            throttle: Throttle::new(throttle::INTERVAL),
        }
    }

    /// Sees whether places run short, of all or at this forward.
    pub(super) fn review_places(&mut self, forward: &Forward) {
        let now = self.engine.now();
        self.shortage
            .review(&self.gate, forward, &self.sessions, now);
    }

    /// Once a turn: who holds how much, if that runs short, and who has how many places.
    pub(super) fn take_stock(&mut self) {
        self.pressure
            .review(&self.engine.holdings(), self.engine.now());
        self.pressure.take_stock(&self.sessions);
        self.shortage.take_stock(&self.sessions);
    }

    /// Not everybody has been entered who has a share of what runs short.
    pub(super) fn has_more_to_enter(&self) -> bool {
        self.shortage.has_more_to_enter(&self.sessions)
            || self.pressure.has_more_to_enter(&self.sessions)
    }

    /// A session is over, or somebody else's.
    pub(super) fn left(&mut self, key: SessionKey) {
        self.shortage.left(key);
        self.pressure.left(key);
    }

    /// Somebody waits, and of so many places there is none: whether a session makes room.
    pub(super) fn room_maker(&mut self, of: Option<ForwardId>, max: u32) -> Option<SessionKey> {
        let now = self.engine.now();
        self.shortage.makes_room((of, max), &self.sessions, now)
    }

    /// The time of this turn.
    pub(super) fn now(&self) -> Time {
        self.engine.now()
    }

    /// Logs trouble of this kind at a bounded rate for each subject; the counters have
    /// all of it.
    pub(super) fn complain(
        &mut self,
        kind: Kind,
        subject: Subject,
        notice: impl FnOnce() -> Notice,
    ) {
        let now = self.now();
        if let Some(suppressed) = self.throttle.pass(kind, subject, now) {
            let notice = notice();
            debug_assert_eq!(notice.kind(), kind);
            self.log.notice_after(suppressed, notice);
        }
    }
}
