//! What a report says of the path that its figures were taken on.

use std::time::Duration;

use serde::Serialize;

use super::{Link, LinkCounters};
use crate::bench::{process, units};

/// A mean delay that no machine can be blamed for: a wake-up, nanoseconds.
const LATE: u64 = 200_000;

/// The emulated path of a run.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PathFacts {
    /// As on the command line, every part written out.
    pub spec: String,
    /// Round trip that this machine needs itself; part of the path's, nanoseconds.
    #[serde(rename = "own_delay_nanoseconds")]
    pub own_delay_ns: u64,
    /// CPU time of the two threads that carry the packets, nanoseconds.
    #[serde(rename = "cpu_nanoseconds")]
    pub cpu_ns: u64,
    /// What crossed it in the whole run, warm-ups included.
    pub counters: LinkCounters,
}

impl PathFacts {
    /// What a link was and did.
    pub fn of(link: &Link) -> Self {
        Self {
            spec: link.spec().to_string(),
            own_delay_ns: link.own_delay().as_nanos() as u64,
            cpu_ns: process::usage_of_threads(&link.thread_ids()).cpu_ns,
            counters: link.counters(),
        }
    }

    /// What makes figures taken on it doubtful, in words; `asked` is the round trip
    /// time of the specification.
    pub fn doubts(&self, asked: Duration) -> Vec<String> {
        let mut doubts = Vec::new();
        let LinkCounters { up, down } = self.counters;
        let overrun = up.overrun + down.overrun;
        if overrun > 0 {
            doubts.push(format!(
                "this machine is too slow for the path: {overrun} packets were dropped before \
                 they came to it; ask for a lower rate"
            ));
        }
        if u128::from(self.own_delay_ns) > asked.as_nanos() {
            doubts.push(format!(
                "the path's round trip is longer than asked: this machine needs {} itself",
                units::latency(self.own_delay_ns as f64)
            ));
        }
        let late = up.late_mean_ns.max(down.late_mean_ns);
        if u128::from(late) * 40 > asked.as_nanos() && late > LATE {
            doubts.push(format!(
                "the machine was busy elsewhere: packets were delivered {} late on average",
                units::latency(late as f64)
            ));
        }
        doubts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::path::DirectionCounters;

    #[test]
    fn a_machine_that_is_too_slow_is_said() {
        let idle = DirectionCounters {
            packets: 1,
            bytes: 1500,
            dropped: 0,
            lost: 0,
            queue_peak: 1500,
            late_peak_ns: 0,
            late_mean_ns: 0,
            overrun: 0,
        };
        let mut facts = PathFacts {
            spec: "rtt=40ms,rate=1Gbit".to_owned(),
            own_delay_ns: 80_000,
            cpu_ns: 0,
            counters: LinkCounters {
                up: idle,
                down: idle,
            },
        };
        let asked = Duration::from_millis(40);
        assert_eq!(facts.doubts(asked), [""; 0]);
        facts.counters.down.overrun = 3;
        assert!(facts.doubts(asked)[0].contains("3 packets"));
        assert!(facts.doubts(Duration::from_micros(50))[1].contains("80.0 µs"));
        facts.counters.up.late_mean_ns = 1_100_000;
        assert!(facts.doubts(asked)[1].contains("1.10 ms late"));
    }
}
