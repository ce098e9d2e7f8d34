//! What is to be done when: subjects in the order of their times, each once.
//!
//! O(log n) for each operation, so that nobody has to look through all subjects for
//! those that are due.

use std::collections::{BTreeMap, BTreeSet};

use crate::relay::time::Time;

/// See the module's documentation.
#[derive(Debug)]
pub struct Agenda<K> {
    by_time: BTreeSet<(Time, K)>,
    times: BTreeMap<K, Time>,
}

impl<K: Ord + Copy> Agenda<K> {
    /// Nothing is to be done.
    pub const fn new() -> Self {
        Self {
            by_time: BTreeSet::new(),
            times: BTreeMap::new(),
        }
    }

    /// This subject is due at `at`, or earlier if it already was.
    pub fn set(&mut self, subject: K, at: Time) {
        if let Some(before) = self.times.get(&subject).copied() {
            if before <= at {
                return;
            }
            self.by_time.remove(&(before, subject));
        }
        self.times.insert(subject, at);
        self.by_time.insert((at, subject));
    }

    /// This subject is due at `at`, later or earlier than it was.
    pub fn put_off(&mut self, subject: K, at: Time) {
        if let Some(before) = self.times.remove(&subject) {
            self.by_time.remove(&(before, subject));
        }
        self.set(subject, at);
    }

    /// When the next one is due; [`Time::NEVER`] if none is.
    pub fn next(&self) -> Time {
        self.by_time.first().map_or(Time::NEVER, |(time, _)| *time)
    }

    /// Takes the one that has been due for longest.
    pub fn pop(&mut self, now: Time) -> Option<K> {
        if self.next() > now {
            return None;
        }
        let (_, subject) = self.by_time.pop_first()?;
        self.times.remove(&subject);
        Some(subject)
    }
}

impl<K: Ord + Copy> Default for Agenda<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn subjects_come_once_each_at_their_earliest_time(
            events in prop::collection::vec((0..12_u32, 0..100_u64, 0..5_u32), 1..200),
        ) {
            let (mut agenda, mut model) = (Agenda::new(), BTreeMap::<u32, u64>::new());
            for (subject, time, what) in events {
                match what {
                    0 | 1 => {
                        let first = model.iter().map(|(subject, at)| (*at, *subject)).min();
                        let due = first.filter(|(at, _)| *at <= time).map(|(_, subject)| subject);
                        prop_assert_eq!(agenda.pop(Time::from_micros(time)), due);
                        if let Some(due) = due {
                            model.remove(&due);
                        }
                    }
                    2 => {
                        agenda.put_off(subject, Time::from_micros(time));
                        model.insert(subject, time);
                    }
                    _ => {
                        agenda.set(subject, Time::from_micros(time));
                        let at = model.entry(subject).or_insert(time);
                        *at = time.min(*at);
                    }
                }
                let next = model.values().min().map_or(Time::NEVER, |at| Time::from_micros(*at));
                prop_assert_eq!(agenda.next(), next);
            }
        }
    }
}
