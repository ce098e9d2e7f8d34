//! What there is to know of a server before it is picked: whether sessions may go there,
//! and how many are there. Bare atomics; whoever changes them tells of it
//! ([`Standing`](super::Standing)).

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::health::{self, Admission, Change, PassiveMarks};
use super::rules::WEIGHT_UNIT;
use crate::policy::connect_rate::ConnectRate;
use crate::relay::time::Time;

/// What is asked of a server; may change while it has sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Sessions at the most.
    pub max_connections: Option<u32>,
    /// How fast it may be given new ones.
    pub connect_rate: Option<ConnectRate>,
    /// An operator lets sessions go there.
    pub active: bool,
    /// Failures within `fail_timeout` that mark it; 0: never.
    pub max_fails: u32,
    /// See `max_fails`.
    pub fail_timeout: Duration,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Condition {
    max: AtomicU32,
    rate: AtRate,
    enabled: AtomicBool,
    marks: ArcSwap<PassiveMarks>,
    /// Found to be down by checks.
    checked_down: AtomicBool,
    /// When it last came up, in microseconds; 0: it was never down.
    back_since: AtomicU64,
    /// The only one of its pool: never marked, for there is no other to go to.
    alone: AtomicBool,
    /// What a slow start has saved up for a turn, see [`Condition::takes_turn`].
    turn: AtomicU32,
    active: Apart,
}

/// How fast new sessions may come, over all reactors: see [`ConnectRate`].
#[derive(Debug, Default)]
struct AtRate {
    /// Nanoseconds; 0: there is no such rate.
    interval: AtomicU64,
    burst: AtomicU32,
    /// When all that came so far are paid for, in nanoseconds. Written by those only that have
    /// a rate.
    paid: AtomicU64,
    /// How often no more could come at once.
    reached: AtomicU64,
}

impl AtRate {
    fn set(&self, rate: Option<ConnectRate>) {
        let interval = rate.map_or(0, |it| nanos(it.interval).max(1));
        let burst = rate.map_or(0, |it| it.burst);
        self.burst.store(burst, Ordering::Relaxed);
        self.interval.store(interval, Ordering::Relaxed);
    }

    fn rate(&self) -> Option<ConnectRate> {
        let interval = self.interval.load(Ordering::Relaxed);
        (interval > 0).then(|| ConnectRate {
            interval: Duration::from_nanos(interval),
            burst: self.burst.load(Ordering::Relaxed),
        })
    }

    /// When the next may come, if that is later than `now`.
    fn opens(&self, now: Time) -> Option<Duration> {
        let paid = || Duration::from_nanos(self.paid.load(Ordering::Relaxed));
        let opens = self.rate().map(|rate| rate.opens(paid()))?;
        (opens > since_start(now)).then_some(opens)
    }

    fn take(&self, now: Time) -> bool {
        let Some(rate) = self.rate() else {
            return true;
        };
        let now = since_start(now);
        let next = |paid| rate.take(Duration::from_nanos(paid), now).map(nanos);
        let taken = self
            .paid
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let paid = taken.ok().and_then(next);
        if paid.is_some_and(|paid| rate.opens(Duration::from_nanos(paid)) > now) {
            self.reached.fetch_add(1, Ordering::Relaxed);
        }
        paid.is_some()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn since_start(time: Time) -> Duration {
    Duration::from_micros(time.as_micros())
}

/// On a cache line of its own: written by every session, while what stands before it is
/// read by every choice.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart(AtomicU32);

impl Condition {
    pub(super) fn new(terms: &Terms) -> Self {
        let rate = AtRate::default();
        rate.set(terms.connect_rate);
        Self {
            max: AtomicU32::new(terms.max_connections.unwrap_or(u32::MAX)),
            rate,
            enabled: AtomicBool::new(terms.active),
            marks: ArcSwap::from_pointee(PassiveMarks::new(terms.max_fails, terms.fail_timeout)),
            checked_down: AtomicBool::new(false),
            back_since: AtomicU64::new(0),
            alone: AtomicBool::new(false),
            turn: AtomicU32::new(0),
            active: Apart::default(),
        }
    }

    /// Sessions that are there or on their way, over all reactors.
    pub fn active(&self) -> u32 {
        self.active.0.load(Ordering::Relaxed)
    }

    /// Whether it has as many sessions as it may, or has been given them as fast as it may.
    pub fn is_full(&self, now: Time) -> bool {
        self.active() >= self.max() || self.rate.opens(now).is_some()
    }

    /// When its rate lets the next session come, if that is still to be.
    pub(super) fn rate_opens(&self, now: Time) -> Option<Time> {
        let opens = self.rate.opens(now)?;
        let micros = nanos(opens).div_ceil(1000);
        Some(Time::from_micros(micros))
    }

    /// For how long what it was given is ahead of its rate.
    pub fn owes(&self, now: Time) -> Duration {
        let paid = Duration::from_nanos(self.rate.paid.load(Ordering::Relaxed));
        paid.saturating_sub(since_start(now))
    }

    /// The process before was that far ahead.
    pub(super) fn owe(&self, ahead: Duration, now: Time) {
        let paid = nanos(since_start(now) + ahead);
        self.rate.paid.fetch_max(paid, Ordering::Relaxed);
    }

    /// How often it was given all that its rate lets come at once.
    pub fn rate_reached(&self) -> u64 {
        self.rate.reached.load(Ordering::Relaxed)
    }

    /// Another process has counted so many of those.
    pub fn absorb_rate_reached(&self, more: u64) {
        self.rate.reached.fetch_add(more, Ordering::Relaxed);
    }

    /// Whether there is a bound to its sessions.
    pub fn is_limited(&self) -> bool {
        self.max() != u32::MAX
    }

    fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// Whether operator and checks let sessions go there.
    pub fn is_up(&self) -> bool {
        self.enabled.load(Ordering::Relaxed) && !self.is_checked_down()
    }

    /// Whether checks found it down.
    pub fn is_checked_down(&self) -> bool {
        self.checked_down.load(Ordering::Relaxed)
    }

    /// Whether a session could go there now as far as marks are concerned.
    pub fn is_open(&self, now: Time) -> bool {
        self.marks.load().is_open(now)
    }

    /// Whether it is marked, a trial on its way or not.
    pub fn is_marked(&self) -> bool {
        self.marks.load().is_marked()
    }

    /// When a session may try it, if it is marked and that is to come.
    pub(super) fn trial_at(&self, now: Time) -> Option<Time> {
        self.marks.load().trial_at(now)
    }

    /// `weight` as it counts now, in units of [`WEIGHT_UNIT`].
    pub fn weight(&self, weight: u32, now: Time, slow_start: Duration) -> u32 {
        health::slow_start(weight, self.back_for(now), slow_start)
    }

    /// Since when it is up again; [`Duration::MAX`] if it was never down.
    pub(super) fn back_for(&self, now: Time) -> Duration {
        match self.back_since.load(Ordering::Relaxed) {
            0 => Duration::MAX,
            back => now.since(Time::from_micros(back)),
        }
    }

    /// Whether it takes a turn that has come to it: during a slow start so many of them
    /// as its weight has grown, at even distances; else each.
    pub(super) fn takes_turn(&self, now: Time, slow_start: Duration) -> bool {
        let share = self.weight(1, now, slow_start);
        if share >= WEIGHT_UNIT {
            return true;
        }
        let before = self.turn.fetch_add(share, Ordering::Relaxed) % WEIGHT_UNIT;
        before + share >= WEIGHT_UNIT
    }

    // Changes, each to be told of.

    /// One session more; `false` if that is one too many, which is then to be left.
    pub(super) fn enter(&self, now: Time) -> bool {
        self.active.0.fetch_add(1, Ordering::Relaxed) < self.max() && self.rate.take(now)
    }

    /// One session more, whatever the limits are.
    pub(super) fn take_in(&self) {
        self.active.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        self.active.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Other terms from now on; what is known of it stays, a mark too.
    pub(super) fn set_terms(&self, terms: &Terms) {
        let max = terms.max_connections.unwrap_or(u32::MAX);
        self.max.store(max, Ordering::Relaxed);
        self.rate.set(terms.connect_rate);
        self.enabled.store(terms.active, Ordering::Relaxed);
        let marks = self.marks.load();
        if let Some(changed) = marks.with_counts(terms.max_fails, terms.fail_timeout) {
            self.marks.store(changed.into());
        }
    }

    pub(super) fn set_checked_down(&self, down: bool) {
        self.checked_down.store(down, Ordering::Relaxed);
    }

    /// It is up again: its slow start begins.
    pub(super) fn came_back(&self, now: Time) {
        let micros = now.as_micros().max(1);
        self.back_since.store(micros, Ordering::Relaxed);
    }

    pub(super) fn mark_until(&self, trial: Time) {
        self.marks.load().mark_until(trial);
    }

    pub(super) fn clear_marks(&self) {
        self.marks.load().clear();
    }

    pub(super) fn set_alone(&self, alone: bool) {
        self.alone.store(alone, Ordering::Relaxed);
        if alone {
            self.marks.load().clear();
        }
    }

    pub(super) fn admit(&self, now: Time) -> Admission {
        self.marks.load().admit(now)
    }

    pub(super) fn failed(&self, admission: Admission, now: Time) -> Option<Change> {
        if self.alone.load(Ordering::Relaxed) {
            return None;
        }
        self.marks.load().failed(admission, now)
    }

    pub(super) fn succeeded(&self, admission: Admission) -> Option<Change> {
        self.marks.load().succeeded(admission)
    }

    pub(super) fn abandoned(&self, admission: Admission, now: Time) {
        self.marks.load().abandoned(admission, now);
    }
}
