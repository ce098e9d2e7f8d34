//! What every part of a reactor works with, and how parts tell each other something.
//!
//! A part owns its state, gets the context, and imports no other part: what one wants
//! of another it leaves in [`Ctx::out`], and the reactor carries that out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::sessions::Sessions;
use crate::config::LogLevel;
use crate::engine::{Engine, SessionKey};
use crate::observe::counters::Counters;
use crate::observe::log::Log;
use crate::relay::time::Time;

/// Between lines about the same trouble (no descriptors, no ports …).
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Ctx<E: Engine> {
    pub(super) engine: E,
    pub(super) sessions: Sessions,
    pub(super) counters: Arc<Counters>,
    pub(super) log: Log,
    /// Which reactor this is, from 0.
    pub(super) reactor: u16,
    /// What parts want of others, in order.
    pub(super) out: VecDeque<Effect>,
    complaints: [Time; 3],
}

/// What a part wants of the rest of the reactor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// The deadline of a session may be nearer than its timer.
    Arm(SessionKey),
    /// Descriptors or memory have run out: nobody is let in for a while, and what can
    /// be spared is given up.
    Starved,
}

impl<E: Engine> Ctx<E> {
    pub(super) fn new(engine: E, counters: Arc<Counters>, log: Log, reactor: u16) -> Self {
        Self {
            engine,
            sessions: Sessions::new(),
            counters,
            log,
            reactor,
            out: VecDeque::new(),
            complaints: [Time::ZERO; 3],
        }
    }

    /// The time of this turn.
    pub(super) fn now(&self) -> Time {
        self.engine.now()
    }

    /// Logs trouble at a bounded rate; the counters have all of it.
    pub(super) fn complain(&mut self, what: Complaint, text: impl FnOnce() -> String) {
        let now = self.now();
        let due = &mut self.complaints[what as usize];
        if now >= *due {
            *due = now + COMPLAINT_INTERVAL;
            self.log.line(LogLevel::Warn, text());
        }
    }
}

/// Kinds of trouble, each with a rate limit of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Complaint {
    Accept = 0,
    Connect = 1,
    Shortage = 2,
}
