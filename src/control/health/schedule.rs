//! When a server is checked: pure, with chance as a parameter.

use std::time::Duration;

use crate::balance::health::Hysteresis;
use crate::config::Check;

/// The first checks of new servers are spread over one interval, but over no more
/// than this: until its first check a server counts as up without anybody having
/// asked it.
const SPREAD_MAX: Duration = Duration::from_secs(2);

/// How long after the start the first check of the `index`th of `count` new servers
/// begins: the first at once, the others at even distances within one interval.
pub(super) fn first_delay(check: &Check, index: usize, count: usize) -> Duration {
    let span = shortest(check).min(SPREAD_MAX);
    span.mul_f64(index as f64 / count.max(1) as f64)
}

/// From the start of one check to the start of the next: the interval, or the fast
/// one while the server is on its way up or down, longer or shorter by up to the
/// jitter's percentage. `lot` is drawn from all of `u64`.
pub(super) fn next_delay(check: &Check, health: &Hysteresis, lot: u64) -> Duration {
    let interval = if health.in_transition() {
        shortest(check)
    } else {
        check.interval
    };
    let jitter = f64::from(check.jitter.min(100)) / 100.0;
    // From 0 to 1: the upper 53 bits are what an f64 holds.
    let part = (lot >> 11) as f64 / ((1_u64 << 53) - 1) as f64;
    interval.mul_f64(1.0 - jitter + 2.0 * jitter * part)
}

fn shortest(check: &Check) -> Duration {
    check
        .fast_interval
        .map_or(check.interval, |fast| fast.min(check.interval))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{CheckKind, OnDown};

    fn check(interval: Duration, fast_interval: Option<Duration>, jitter: u8) -> Check {
        Check {
            kind: CheckKind::Tcp,
            interval,
            fast_interval,
            timeout: Duration::from_millis(10),
            rise: 2,
            fall: 3,
            jitter,
            on_down: OnDown::Keep,
            port: None,
        }
    }

    fn settled() -> Hysteresis {
        let mut health = Hysteresis::new(2, 3);
        health.answer(true);
        health
    }

    proptest! {
        #[test]
        fn jitter_stays_within_its_percentage(
            millis in 10..86_400_000_u64,
            jitter in 0..=50_u8,
            lot in any::<u64>(),
        ) {
            let interval = Duration::from_millis(millis);
            let delay = next_delay(&check(interval, None, jitter), &settled(), lot);
            let part = f64::from(jitter) / 100.0;
            // A nanosecond for the rounding.
            prop_assert!(delay + Duration::from_nanos(1) >= interval.mul_f64(1.0 - part));
            prop_assert!(delay <= interval.mul_f64(1.0 + part) + Duration::from_nanos(1));
        }

        #[test]
        fn first_checks_begin_at_once_and_are_over_within_the_interval(
            millis in 10..86_400_000_u64,
            count in 1..500_usize,
        ) {
            let check = check(Duration::from_millis(millis), None, 10);
            let delays: Vec<_> = (0..count).map(|it| first_delay(&check, it, count)).collect();
            prop_assert_eq!(delays[0], Duration::ZERO);
            prop_assert!(delays.is_sorted());
            prop_assert!(delays[count - 1] < check.interval.min(SPREAD_MAX));
        }
    }

    #[test]
    fn jitter_reaches_both_of_its_ends() {
        let second = Duration::from_secs(1);
        let check = check(second, None, 10);
        assert_eq!(next_delay(&check, &settled(), 0), second.mul_f64(0.9));
        assert_eq!(
            next_delay(&check, &settled(), u64::MAX),
            second.mul_f64(1.1)
        );
    }

    #[test]
    fn b31_the_fast_interval_holds_while_in_transition() {
        let (slow, fast) = (Duration::from_secs(10), Duration::from_secs(1));
        let check = check(slow, Some(fast), 0);
        let mut health = Hysteresis::new(2, 2);
        let mut delays = Vec::new();
        for ok in [true, false, false, true, true] {
            delays.push(next_delay(&check, &health, 7));
            health.answer(ok);
        }
        delays.push(next_delay(&check, &health, 7));
        // Unproven, up, going down, down, coming up, up.
        assert_eq!(delays, [fast, slow, fast, slow, fast, slow]);
    }
}
