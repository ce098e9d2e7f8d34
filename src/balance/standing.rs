//! A server as policies know it: its [`Condition`], and the balancers in which it has a
//! place.
//!
//! Every change is told to those balancers as one path in each of their trees; so a pick
//! never walks over servers to find out. Deliberately not here: where the server is, and
//! what came of dialling it.
//!
//! Invariants: what was entered is left exactly once (the caller's part); each method
//! that changes anything tells of it before it returns; none takes a lock.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::condition::{Condition, Terms};
use super::health::{Admission, Change};
use super::index::Index;
use crate::relay::time::Time;

/// See the module's documentation.
pub struct Standing {
    condition: Condition,
    places: ArcSwap<Vec<Place>>,
}

/// Where a server stands in a balancer.
#[derive(Clone)]
struct Place {
    index: Arc<Index>,
    position: u16,
}

impl Deref for Standing {
    type Target = Condition;

    fn deref(&self) -> &Condition {
        &self.condition
    }
}

impl Standing {
    /// Up, and without a session.
    pub fn new(terms: &Terms) -> Self {
        Self {
            condition: Condition::new(terms),
            places: ArcSwap::from_pointee(Vec::new()),
        }
    }

    /// One session more, unless it has as many as it may or they come too fast.
    pub fn enter(&self, now: Time) -> bool {
        let entered = self.condition.enter(now);
        if !entered {
            self.condition.leave();
        }
        self.tell(now);
        entered
    }

    /// One session more, which was let in elsewhere: no limit keeps it out.
    pub fn take_in(&self, now: Time) {
        self.condition.take_in();
        self.tell(now);
    }

    /// One session less.
    pub fn leave(&self, now: Time) {
        self.condition.leave();
        self.tell(now);
    }

    /// Other terms from now on. What is known of it stays: its sessions, a mark, what checks
    /// found.
    pub fn set_terms(&self, terms: &Terms, now: Time) {
        self.condition.set_terms(terms);
        self.tell(now);
    }

    /// A check found it down, or up again at `now`: then its slow start begins.
    pub fn checked(&self, change: Change, now: Time) {
        if change == Change::Up {
            self.condition.came_back(now);
        }
        self.condition.set_checked_down(change == Change::Down);
        self.tell(now);
    }

    /// It joins others that have served already: its slow start begins.
    pub fn joined(&self, now: Time) {
        self.condition.came_back(now);
        self.tell(now);
    }

    /// It is checked no more: it counts as up.
    pub fn unchecked(&self, now: Time) {
        self.condition.set_checked_down(false);
        self.tell(now);
    }

    /// Whether it is the only one of its pool: it is never marked then.
    pub fn set_alone(&self, alone: bool, now: Time) {
        self.condition.set_alone(alone);
        self.tell(now);
    }

    /// How long until a session may try it, if it is marked.
    pub fn marked_for(&self, now: Time) -> Option<Duration> {
        let trial = || self.condition.trial_at(now).unwrap_or(now).since(now);
        self.condition.is_marked().then(trial)
    }

    /// The process before had it marked: it is for so long still.
    pub fn mark_for(&self, still: Duration, now: Time) {
        self.condition.mark_until(now + still);
        self.tell(now);
    }

    /// In the process before it was given sessions that far ahead of its rate.
    pub fn owe(&self, ahead: Duration, now: Time) {
        self.condition.owe(ahead, now);
        self.tell(now);
    }

    /// An operator forgives it its failures.
    pub fn clear_marks(&self, now: Time) {
        self.condition.clear_marks();
        self.tell(now);
    }

    // Marks by failures, see [`super::health::PassiveMarks`].

    /// Asks to go there, after it was picked: see [`super::health::PassiveMarks::admit`].
    pub fn admit(&self, now: Time) -> Admission {
        let admission = self.condition.admit(now);
        if admission == Admission::Trial {
            self.tell(now);
        }
        admission
    }

    /// A session that was admitted failed there. [`Change::Down`] if that marks it.
    pub fn failed(&self, admission: Admission, now: Time) -> Option<Change> {
        let change = self.condition.failed(admission, now);
        if change.is_some() || admission == Admission::Trial {
            self.tell(now);
        }
        change
    }

    /// A session that was admitted got through. [`Change::Up`] if that clears a mark:
    /// then its slow start begins.
    pub fn succeeded(&self, admission: Admission, now: Time) -> Option<Change> {
        let change = self.condition.succeeded(admission)?;
        self.condition.came_back(now);
        self.tell(now);
        Some(change)
    }

    /// A trial ended without an answer: the next session may try at once.
    pub fn abandoned(&self, admission: Admission, now: Time) {
        if admission == Admission::Trial {
            self.condition.abandoned(admission, now);
            self.tell(now);
        }
    }

    // Places in balancers.

    /// It stands at this position of a balancer from now on. It leaves those that are
    /// used no more.
    pub(super) fn take_place(&self, index: &Arc<Index>, position: u16) {
        self.places.rcu(|places| {
            let kept = places.iter().filter(|place| !place.index.is_retired());
            let mut places: Vec<Place> = kept.cloned().collect();
            places.push(Place {
                index: index.clone(),
                position,
            });
            places
        });
    }

    fn tell(&self, now: Time) {
        for place in &**self.places.load() {
            place.index.look_at(place.position, &self.condition, now);
        }
    }
}

impl fmt::Debug for Standing {
    /// Without the places, which hold all other servers of the pool.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)
    }
}
