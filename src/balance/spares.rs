//! The plan for the spares of one server: how many to make now, and when not to, because
//! those before failed or did not live long.
//!
//! Invariants: no more than are wanted; no more than [`PER_LOOK`] at a time; after a
//! failure none before a pause, which doubles from [`PAUSE`] up to [`PAUSE_MAX`] and is
//! the first one again once a spare was of use.

use std::time::Duration;

use crate::relay::time::Time;

/// First pause after a spare that failed or did not live long.
pub const PAUSE: Duration = Duration::from_secs(1);

/// The longest.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Spares of one server that are made at a time: clients wait meanwhile.
pub const PER_LOOK: usize = 16;

/// A spare that its server ends sooner was not worth making.
const WORTHWHILE: Duration = Duration::from_secs(1);

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparePlan {
    pause: Duration,
    /// None is made before.
    paused_until: Time,
}

impl SparePlan {
    /// Nothing speaks against a spare.
    pub const fn new() -> Self {
        Self {
            pause: PAUSE,
            paused_until: Time::ZERO,
        }
    }

    /// How many to make now, of those that are wanted beside those there are.
    pub fn missing(&self, wanted: usize, there_are: usize, now: Time) -> usize {
        if now < self.paused_until {
            return 0;
        }
        wanted.saturating_sub(there_are).min(PER_LOOK)
    }

    /// One could not be made. Those that were made together fail together, and are one
    /// reason to pause.
    pub fn failed(&mut self, now: Time) {
        if now < self.paused_until {
            return;
        }
        self.paused_until = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// One that is so old is of no use any more. Age is no fault of the server's.
    pub fn worn(&mut self, age: Duration, max_age: Duration, now: Time) {
        if age < WORTHWHILE.min(max_age) {
            self.failed(now);
        } else {
            self.used();
        }
    }

    /// One was handed to a client.
    pub fn used(&mut self) {
        self.pause = PAUSE;
    }
}

impl Default for SparePlan {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn those_that_fail_together_are_one_reason_to_pause() {
        let mut plan = SparePlan::new();
        for _ in 0..5 {
            plan.failed(at(10));
        }
        assert_eq!(plan.missing(3, 0, at(1009)), 0);
        assert_eq!(plan.missing(3, 1, at(1010)), 2);
        plan.failed(at(1010));
        assert_eq!(plan.missing(3, 0, at(3009)), 0);
        assert_eq!(plan.missing(3, 0, at(3010)), 3);
        plan.used();
        plan.failed(at(4000));
        assert_eq!(plan.missing(100, 0, at(5000)), PER_LOOK);
    }

    #[test]
    fn age_is_no_fault_of_the_server_s() {
        let mut plan = SparePlan::new();
        plan.worn(Duration::from_secs(1), Duration::from_secs(60), at(5));
        // Ends at 200 ms, as it is configured to.
        plan.worn(
            Duration::from_millis(200),
            Duration::from_millis(200),
            at(5),
        );
        assert_eq!(plan, SparePlan::new());
        plan.worn(Duration::from_millis(999), Duration::from_secs(60), at(5));
        assert_eq!(plan.missing(1, 0, at(1004)), 0);
    }

    proptest! {
        #[test]
        fn pauses_double_up_to_a_bound_and_end(
            failures in prop::collection::vec(0..200_000_u64, 1..40),
            wanted in 0..40_usize,
            there_are in 0..40_usize,
        ) {
            let (mut plan, mut now) = (SparePlan::new(), 0);
            for later in failures {
                now += later;
                let before = plan.clone();
                plan.failed(at(now));
                prop_assert!(plan.pause <= PAUSE_MAX);
                prop_assert!(plan.paused_until <= at(now) + PAUSE_MAX);
                if at(now) >= before.paused_until {
                    prop_assert_eq!(plan.paused_until, at(now) + before.pause);
                } else {
                    prop_assert_eq!(&plan, &before);
                }
                prop_assert_eq!(plan.missing(wanted, there_are, at(now)), 0);
                let later = at(now) + PAUSE_MAX;
                let missing = wanted.saturating_sub(there_are).min(PER_LOOK);
                prop_assert_eq!(plan.missing(wanted, there_are, later), missing);
            }
        }
    }
}
