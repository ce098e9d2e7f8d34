//! What makes a server up or down: answers of active checks ([`Hysteresis`]),
//! failures of sessions in passing ([`PassiveMarks`]); and how much of its weight a
//! server has that has just come back ([`slow_start`]).
//!
//! Time is a parameter throughout. [`PassiveMarks`] is shared by reactors and kept
//! in atomics: `now` must come from one clock that they all read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::rules::WEIGHT_UNIT;
use crate::relay::time::Time;

/// A server changed sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is up from now on.
    Up,
    /// It is down from now on.
    Down,
}

/// Rise and fall: a server that is up goes down with `fall` failed checks in a row,
/// one that is down comes up with `rise` good ones in a row.
///
/// As in HAProxy a server starts up, but unproven: if its very first check fails it
/// is down at once, since nothing speaks for it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hysteresis {
    rise: u32,
    fall: u32,
    up: bool,
    unproven: bool,
    /// Answers in a row that speak against the present state.
    against: u32,
}

impl Hysteresis {
    /// Up and unproven. A `rise` or `fall` of 0 counts as 1.
    pub const fn new(rise: u32, fall: u32) -> Self {
        Self {
            rise: at_least_one(rise),
            fall: at_least_one(fall),
            up: true,
            unproven: true,
            against: 0,
        }
    }

    /// Down, as it was found by earlier checks.
    pub const fn down(rise: u32, fall: u32) -> Self {
        let mut health = Self::new(rise, fall);
        health.up = false;
        health.unproven = false;
        health
    }

    /// Takes the answer of a check; says whether the server changed sides by it.
    pub const fn answer(&mut self, ok: bool) -> Option<Change> {
        let first = std::mem::replace(&mut self.unproven, false);
        if ok == self.up {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let enough = if self.up { self.fall } else { self.rise };
        if self.against < enough && !first {
            return None;
        }
        self.up = ok;
        self.against = 0;
        Some(if ok { Change::Up } else { Change::Down })
    }

    /// Whether the server is up.
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// Whether nothing speaks for its state so far, nor against it.
    pub const fn is_unproven(&self) -> bool {
        self.unproven
    }

    /// Whether the next answers may change its side, so that they should come
    /// sooner: it is unproven, or the last answer spoke against its state.
    pub const fn in_transition(&self) -> bool {
        self.unproven || self.against > 0
    }

    /// Answers in a row that speak against the present state; 0 when it is settled.
    pub const fn against(&self) -> u32 {
        self.against
    }

    /// Other counts from now on; the state and what speaks against it are kept.
    pub const fn set_counts(&mut self, rise: u32, fall: u32) {
        self.rise = at_least_one(rise);
        self.fall = at_least_one(fall);
    }
}

const fn at_least_one(count: u32) -> u32 {
    if count == 0 { 1 } else { count }
}

/// More `max_fails` than this count as this many: each takes 8 bytes.
const MAX_FAILS: u32 = 1024;

/// What may be done with a server that sessions mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admission {
    /// It is not marked: any session may go there.
    Free,
    /// It is marked, and this session alone may try whether it is back.
    Trial,
    /// It is marked: no session may go there now.
    Marked,
}

/// Failures noticed in passing, by the sessions of all reactors: `max_fails` of them
/// within `fail_timeout` mark a server as down for `fail_timeout`; then one session
/// at a time may try it, and its success clears the mark (nginx's rules).
///
/// ```text
///           max_fails within fail_timeout            fail_timeout later, one session
///   free ──────────────────────────────────► marked ────────────────────────► trial
///    ▲                                         ▲    failed: for fail_timeout    │ │
///    │                                         └────────────────────────────────┘ │
///    └─────────────────────────── succeeded ──────────────────────────────────────┘
/// ```
/// A trial that never answers blocks the next one for `fail_timeout`, no longer.
///
/// The window slides: what counts is whether the last `max_fails` failures lie
/// within `fail_timeout`, successes between them or not. (nginx forgets failures
/// only after a `fail_timeout` without any, so rare failures add up there.)
///
/// Reads and writes single atomics: a failure that two reactors see at the same
/// instant may be counted with the time of the other, nothing worse.
#[derive(Debug)]
pub struct PassiveMarks {
    max_fails: u32,
    fail_timeout: Duration,
    /// When the next trial may begin, in microseconds and one more; 0: not marked.
    trial_at: AtomicU64,
    /// The times of the last `max_fails - 1` failures, as `trial_at`; 0: none.
    failures: Box<[AtomicU64]>,
    /// Failures so far; where the next one goes.
    count: AtomicU64,
}

impl PassiveMarks {
    /// With nothing counted. A `max_fails` of 0 never marks; so give that to the only
    /// server of a pool.
    pub fn new(max_fails: u32, fail_timeout: Duration) -> Self {
        let max_fails = max_fails.min(MAX_FAILS);
        Self {
            max_fails,
            fail_timeout,
            trial_at: AtomicU64::new(0),
            failures: (1..max_fails).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicU64::new(0),
        }
    }

    /// The same with other counts, still marked if it is; `None`: they are those it has.
    /// What was counted towards a mark is forgotten.
    pub(super) fn with_counts(&self, max_fails: u32, fail_timeout: Duration) -> Option<Self> {
        let changed = Self::new(max_fails, fail_timeout);
        if changed.max_fails == self.max_fails && fail_timeout == self.fail_timeout {
            return None;
        }
        if max_fails > 0 {
            let trial_at = self.trial_at.load(Ordering::Relaxed);
            changed.trial_at.store(trial_at, Ordering::Relaxed);
        }
        Some(changed)
    }

    /// Whether a session could go there now: what a view asks while a policy picks.
    pub fn is_open(&self, now: Time) -> bool {
        self.trial_at.load(Ordering::Relaxed) <= stamp(now)
    }

    /// When a session may try it: `None` if it is not marked, or one may now.
    pub fn trial_at(&self, now: Time) -> Option<Time> {
        let due = self.trial_at.load(Ordering::Relaxed);
        (due > stamp(now)).then(|| Time::from_micros(due - 1))
    }

    /// Marked until then, whatever speaks for it; unless it is one that is never marked.
    pub fn mark_until(&self, trial: Time) {
        if self.max_fails > 0 {
            self.trial_at.store(stamp(trial), Ordering::Relaxed);
        }
    }

    /// Not marked any more, whatever speaks against it.
    pub fn clear(&self) {
        for failure in &self.failures {
            failure.store(0, Ordering::Relaxed);
        }
        self.trial_at.store(0, Ordering::Relaxed);
    }

    /// Asks to go there, after the policy picked it. Takes the trial if it is due: so
    /// another session may have been faster, and the answer is [`Admission::Marked`].
    pub fn admit(&self, now: Time) -> Admission {
        let due = self.trial_at.load(Ordering::Relaxed);
        if due == 0 {
            return Admission::Free;
        }
        if due > stamp(now) {
            return Admission::Marked;
        }
        let next = stamp(now + self.fail_timeout);
        if self.exchange(due, next) {
            Admission::Trial
        } else {
            Admission::Marked
        }
    }

    /// A session that was admitted failed there. [`Change::Down`] if it marks the
    /// server: once, however many fail at the same time.
    pub fn failed(&self, admission: Admission, now: Time) -> Option<Change> {
        if self.max_fails == 0 {
            return None;
        }
        if admission == Admission::Trial {
            self.trial_at
                .store(stamp(now + self.fail_timeout), Ordering::Relaxed);
            return None;
        }
        if !self.is_one_too_many(now) {
            return None;
        }
        // Sessions that were on their way when it was marked change nothing more.
        let marked = self.exchange(0, stamp(now + self.fail_timeout));
        marked.then_some(Change::Down)
    }

    /// A session that was admitted got through. [`Change::Up`] if that clears the
    /// mark, which only a trial can: one that was on its way when the server was
    /// marked says nothing about what came after.
    pub fn succeeded(&self, admission: Admission) -> Option<Change> {
        if admission != Admission::Trial || self.trial_at.swap(0, Ordering::Relaxed) == 0 {
            return None;
        }
        for failure in &self.failures {
            failure.store(0, Ordering::Relaxed);
        }
        Some(Change::Up)
    }

    /// A trial ended without an answer, such as when its client left: the next session
    /// may try at once.
    pub fn abandoned(&self, admission: Admission, now: Time) {
        if admission == Admission::Trial && self.is_marked() {
            self.trial_at.store(stamp(now), Ordering::Relaxed);
        }
    }

    /// Whether it is marked, a trial on its way or not.
    pub fn is_marked(&self) -> bool {
        self.trial_at.load(Ordering::Relaxed) != 0
    }

    /// Notes a failure; whether it is the last of `max_fails` within `fail_timeout`.
    fn is_one_too_many(&self, now: Time) -> bool {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let len = self.failures.len() as u64;
        let Some(at) = count.checked_rem(len) else {
            return true; // A single failure is enough.
        };
        // The ring has one place less than failures are needed, so what stands where
        // this one goes is the first of them.
        let first = self.failures[at as usize].swap(stamp(now), Ordering::Relaxed);
        first != 0 && now.since(Time::from_micros(first - 1)) <= self.fail_timeout
    }

    fn exchange(&self, from: u64, to: u64) -> bool {
        self.trial_at
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

/// A time that is never 0.
fn stamp(time: Time) -> u64 {
    time.as_micros().saturating_add(1)
}

/// The share of its weight that a server begins with when it comes back: a 16th, as
/// HAProxy's does.
const SLOW_START_FLOOR: u32 = WEIGHT_UNIT / 16;

/// The weight of a server that came back `since` ago, in units of [`WEIGHT_UNIT`]:
/// grows in a straight line from a 16th of `weight` (the configured one) to all of it
/// after `over`. Never 0 unless `weight` is; all at once when `over` is 0.
///
/// Policies that do not weigh are not slowed by it: `hash`, whose keys are either a
/// server's or not, and `first`.
pub fn slow_start(weight: u32, since: Duration, over: Duration) -> u32 {
    let unit = if since >= over {
        WEIGHT_UNIT
    } else {
        // `over` is not 0 here. The growing part is below `WEIGHT_UNIT`.
        let growing = u128::from(WEIGHT_UNIT - SLOW_START_FLOOR);
        SLOW_START_FLOOR + (growing * since.as_micros() / over.as_micros().max(1)) as u32
    };
    weight.saturating_mul(unit)
}

#[cfg(test)]
mod tests;
