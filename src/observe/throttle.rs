//! How often trouble is logged: once in an interval for each kind and subject.
//!
//! Pure: time is a parameter. The counters have all of what is not said here, and the
//! next line says how many there were.
//!
//! Invariants: one subject's trouble is never a reason not to say another's, as long as
//! no more than [`SUBJECTS_MAX`] have some within an interval; beyond that those that
//! find no place share one line an interval for each kind. So the memory is bounded, and
//! so is what is written. Asking allocates nothing when the answer is no.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::relay::time::Time;

/// Between lines about the same trouble, wherever it is.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// Pairs of kind and subject that are told apart at a time.
pub const SUBJECTS_MAX: usize = 1024;

/// See the module's documentation.
#[derive(Debug)]
pub struct Throttle<K, S> {
    interval: Duration,
    places: HashMap<(K, S), Place>,
    /// For subjects that found no place, by kind.
    others: Vec<(K, Place)>,
    /// Nothing in `places` can be given up before.
    sweep_due: Time,
}

/// What is known of trouble that was said.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// From then on it is said again.
    due: Time,
    /// How often it was not said.
    suppressed: u64,
}

impl Place {
    fn pass(&mut self, now: Time, interval: Duration) -> Option<u64> {
        if now < self.due {
            self.suppressed += 1;
            return None;
        }
        self.due = now + interval;
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl<K: Copy + Eq + Hash, S: Copy + Eq + Hash> Throttle<K, S> {
    /// One that lets each trouble pass once an interval.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            places: HashMap::new(),
            others: Vec::new(),
            sweep_due: Time::ZERO,
        }
    }

    /// Whether trouble is to be said now; if so, how often it was not since it was said
    /// last.
    pub fn pass(&mut self, kind: K, subject: S, now: Time) -> Option<u64> {
        let interval = self.interval;
        if let Some(place) = self.places.get_mut(&(kind, subject)) {
            return place.pass(now, interval);
        }
        if self.places.len() >= SUBJECTS_MAX && now >= self.sweep_due {
            self.sweep(now);
        }
        if self.places.len() < SUBJECTS_MAX {
            let place = self.places.entry((kind, subject)).or_default();
            return place.pass(now, interval);
        }
        self.other(kind).pass(now, interval)
    }

    /// Forgets trouble that is over. What was not said of it is said with the others of
    /// its kind.
    fn sweep(&mut self, now: Time) {
        let mut next = Time::NEVER;
        let mut untold = Vec::new();
        self.places.retain(|(kind, _), place| {
            let keep = now < place.due;
            if keep {
                next = next.min(place.due);
            } else if place.suppressed > 0 {
                untold.push((*kind, place.suppressed));
            }
            keep
        });
        self.sweep_due = next;
        for (kind, suppressed) in untold {
            self.other(kind).suppressed += suppressed;
        }
    }

    fn other(&mut self, kind: K) -> &mut Place {
        let known = self.others.iter().position(|(other, _)| *other == kind);
        let at = known.unwrap_or_else(|| {
            self.others.push((kind, Place::default()));
            self.others.len() - 1
        });
        &mut self.others[at].1
    }

    /// What was not said and is not told yet.
    #[cfg(test)]
    fn untold(&self) -> u64 {
        let others = self.others.iter().map(|(_, place)| place);
        let all = self.places.values().chain(others);
        all.map(|place| place.suppressed).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn one_subject_hides_no_other_and_the_next_line_tells_how_many() {
        let mut throttle = Throttle::new(INTERVAL);
        assert_eq!(throttle.pass('c', 1, at(0)), Some(0));
        assert_eq!(throttle.pass('c', 1, at(1)), None);
        assert_eq!(throttle.pass('c', 2, at(1)), Some(0));
        assert_eq!(throttle.pass('d', 1, at(1)), Some(0));
        assert_eq!(throttle.pass('c', 1, at(9)), None);
        assert_eq!(throttle.pass('c', 1, at(10)), Some(2));
        assert_eq!(throttle.pass('c', 1, at(20)), Some(0));
    }

    #[test]
    fn more_subjects_than_places_share_a_line() {
        let mut throttle = Throttle::new(INTERVAL);
        let subjects = SUBJECTS_MAX as u32 * 3;
        let said = |throttle: &mut Throttle<char, u32>, now| {
            let passed = (0..subjects).filter_map(|it| throttle.pass('c', it, now));
            passed.fold((0, 0), |(lines, told), it| (lines + 1, told + it))
        };
        assert_eq!(said(&mut throttle, at(0)), (SUBJECTS_MAX as u64 + 1, 0));
        assert_eq!(said(&mut throttle, at(5)), (0, 0));
        let (lines, told) = said(&mut throttle, at(10));
        assert_eq!(lines, SUBJECTS_MAX as u64 + 1);
        assert!(told > 0 && throttle.places.len() <= SUBJECTS_MAX);
    }

    proptest! {
        /// Against what it should be without a bound: the same lines, at the same times,
        /// with the same numbers.
        #[test]
        fn each_pair_is_said_once_an_interval(
            trouble in prop::collection::vec((0..3_u8, 0..40_u16, 0..4_000_000_u64), 1..400),
        ) {
            let mut throttle = Throttle::new(INTERVAL);
            let mut model: HashMap<(u8, u16), (Time, u64)> = HashMap::new();
            let mut now = Time::ZERO;
            for (kind, subject, later) in trouble {
                now = now + Duration::from_micros(later);
                let known = model.get_mut(&(kind, subject));
                let expected = match known {
                    Some((said, suppressed)) if now.since(*said) < INTERVAL => {
                        *suppressed += 1;
                        None
                    }
                    Some((said, suppressed)) => {
                        *said = now;
                        Some(std::mem::take(suppressed))
                    }
                    None => {
                        model.insert((kind, subject), (now, 0));
                        Some(0)
                    }
                };
                prop_assert_eq!(throttle.pass(kind, subject, now), expected);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// With however many subjects: nothing is lost from the count, and memory and
        /// lines are bounded.
        #[test]
        fn nothing_is_forgotten_uncounted(
            trouble in prop::collection::vec((0..2_u8, 0..3_000_u16, 0..10_000_u64), 1..6_000),
        ) {
            let mut throttle = Throttle::new(INTERVAL);
            let (mut now, mut lines, mut told) = (Time::ZERO, 0_u64, 0);
            let total = trouble.len() as u64;
            for (kind, subject, later) in trouble {
                now = now + Duration::from_micros(later);
                if let Some(suppressed) = throttle.pass(kind, subject, now) {
                    lines += 1;
                    told += suppressed;
                }
            }
            prop_assert_eq!(lines + told + throttle.untold(), total);
            prop_assert!(throttle.places.len() <= SUBJECTS_MAX);
            let intervals = now.as_micros() / INTERVAL.as_micros() as u64 + 1;
            let most = intervals * (SUBJECTS_MAX as u64 + 2) + SUBJECTS_MAX as u64;
            prop_assert!(lines <= most, "{lines} lines, {most} at the most");
        }
    }
}
