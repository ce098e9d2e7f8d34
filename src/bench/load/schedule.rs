//! When requests of an open loop are due.
//!
//! Pure: instants in, instants out. A request is due at its own time however late
//! the answers to earlier ones are, and its latency counts from there. That is what
//! a closed loop hides ("coordinated omission"): while the subject stalls, it asks
//! nothing, and so measures nothing.

use std::time::{Duration, Instant};

/// Evenly spaced due times.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    start: Instant,
    per_second: f64,
    issued: u64,
}

impl Schedule {
    /// `per_second` requests a second; `share` of `shares` threads issues each
    /// `shares`-th of them, so that the threads together are evenly spaced too.
    pub(super) fn new(start: Instant, per_second: u64, share: usize, shares: usize) -> Self {
        let offset = share as f64 / per_second.max(1) as f64;
        Self {
            start: start + Duration::from_secs_f64(offset),
            per_second: per_second.max(1) as f64 / shares as f64,
            issued: 0,
        }
    }

    /// When the next request is due.
    pub(super) fn next_due(&self) -> Instant {
        // From the count, not by adding intervals: no drift however long it runs.
        self.start + Duration::from_secs_f64(self.issued as f64 / self.per_second)
    }

    /// Takes the next request if it is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next_due();
        (due <= now).then(|| {
            self.issued += 1;
            due
        })
    }

    /// Takes every request due before `end`, whether or not its time has come.
    pub(super) fn rest_until(&mut self, end: Instant) -> Vec<Instant> {
        std::iter::from_fn(|| {
            let due = self.next_due();
            (due < end).then(|| {
                self.issued += 1;
                due
            })
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_together_are_evenly_spaced_and_never_drift() {
        let start = Instant::now();
        let mut due: Vec<Instant> = (0..3)
            .flat_map(|share| {
                Schedule::new(start, 3_000, share, 3).rest_until(start + Duration::from_secs(1))
            })
            .collect();
        due.sort_unstable();
        assert_eq!(due.len(), 3_000);
        for (index, instant) in due.iter().enumerate() {
            let expected = index as f64 / 3_000.0;
            let error = instant.duration_since(start).as_secs_f64() - expected;
            assert!(error.abs() < 1e-6, "request {index} is off by {error} s");
        }
    }

    #[test]
    fn after_a_stall_every_missed_request_is_still_due_at_its_own_time() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 1_000, 0, 1);
        assert_eq!(schedule.take(start), Some(start));
        assert_eq!(schedule.take(start), None);
        let late = start + Duration::from_millis(10);
        let missed: Vec<Instant> = std::iter::from_fn(|| schedule.take(late)).collect();
        assert_eq!(missed.len(), 10);
        assert!(late.duration_since(missed[0]) > Duration::from_millis(8));
    }
}
