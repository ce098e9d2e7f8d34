//! How fast connections may be made: the generic cell rate algorithm.
//!
//! All that is remembered is one instant, at which the connections so far are paid for. However
//! long nobody looked, and whatever any clock did meanwhile, nobody gets more than the burst
//! at once.

use std::time::Duration;

/// So many connections in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectRate {
    /// Between two of them, in the long run.
    pub interval: Duration,
    /// So many at once; one at least.
    pub burst: u32,
}

impl ConnectRate {
    /// One more connection at `now`: when all are paid for with it; `None`: it is one too many.
    pub fn take(self, paid: Duration, now: Duration) -> Option<Duration> {
        (self.opens(paid) <= now).then(|| paid.max(now) + self.interval)
    }

    /// When the next connection may be made.
    pub fn opens(self, paid: Duration) -> Duration {
        paid.saturating_sub(self.interval * self.burst.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_burst_at_once_and_then_the_rate() {
        let rate = ConnectRate {
            interval: 100 * MS,
            burst: 3,
        };
        let (mut paid, mut at) = (Duration::ZERO, Duration::from_secs(9));
        for _ in 0..3 {
            paid = rate.take(paid, at).expect("the burst");
        }
        assert_eq!(rate.take(paid, at), None);
        assert_eq!(rate.opens(paid), at + 100 * MS);
        assert_eq!(rate.take(paid, at + 99 * MS), None);
        paid = rate.take(paid, at + 100 * MS).expect("one is paid for");
        // A pause of any length earns the burst.
        at += Duration::from_secs(86_400);
        for _ in 0..3 {
            paid = rate.take(paid, at).expect("the burst");
        }
        assert_eq!(rate.take(paid, at), None);
    }

    #[test]
    fn a_burst_of_none_is_one() {
        let rate = ConnectRate {
            interval: 100 * MS,
            burst: 0,
        };
        let paid = rate.take(Duration::ZERO, MS).expect("the first");
        assert_eq!(rate.take(paid, 2 * MS), None);
    }
}
