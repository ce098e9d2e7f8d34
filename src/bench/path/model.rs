//! One direction of a path as arithmetic: which packet is dropped, which is lost,
//! and when each of the others arrives.
//!
//! Pure: time is a parameter, in nanoseconds since an arbitrary start, and chance
//! comes from the seed. A packet passes three stages:
//!
//! ```text
//! offered ─► queue, bounded in bytes ─► line, `rate` ─► `delay` + jitter ─► arrives
//!               │ full: dropped            │ by chance: lost
//! ```
//!
//! Invariants: packets arrive in the order they were offered; the line never
//! carries more than `rate`; no more than `queue` bytes wait for the line, the part
//! of the packet on it that has not left included. A packet that is lost by chance
//! has used the line, as on a real path.

use std::time::Duration;

use super::spec::{Loss, PathSpec};
use crate::balance::Random;

const SECOND: u128 = 1_000_000_000;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives at this time.
    Arrives(u64),
    /// The queue had no room for it.
    Dropped,
    /// It got onto the line and is lost.
    Lost,
}

/// One direction.
#[derive(Debug, Clone)]
pub struct Model {
    rate: u64,
    delay: u64,
    jitter: u64,
    loss: Loss,
    queue: u64,
    /// When the line has sent all that was given to it, and the fraction of a
    /// nanosecond beyond that, in units of 1 / `rate` nanoseconds.
    line_free: u64,
    remainder: u64,
    last_arrival: u64,
    chance: Random,
}

impl Model {
    /// `seed` tells the directions of a path apart; `delay` is the propagation time
    /// of one way.
    pub fn new(spec: &PathSpec, delay: Duration, seed: u64) -> Self {
        Self {
            rate: spec.rate,
            delay: nanoseconds(delay),
            jitter: nanoseconds(spec.jitter),
            loss: spec.loss,
            queue: spec.queue,
            line_free: 0,
            remainder: 0,
            last_arrival: 0,
            chance: Random::new(seed),
        }
    }

    /// Decides on a packet of `len` bytes. Calls must not go back in time.
    pub fn offer(&mut self, len: u32, now: u64) -> Fate {
        if self.waiting(now) + u64::from(len) > self.queue {
            return Fate::Dropped;
        }
        if self.line_free <= now {
            self.line_free = now;
            self.remainder = 0;
        }
        let work = u128::from(len) * SECOND + u128::from(self.remainder);
        let rate = u128::from(self.rate);
        self.line_free += (work / rate) as u64;
        self.remainder = (work % rate) as u64;
        // Always two draws, so that one part of a path does not move the chance of
        // the other: the same packets are lost with jitter and without.
        let (lost, late) = (self.chance.draw(), self.chance.draw());
        if self.loss.strikes(lost) {
            return Fate::Lost;
        }
        let late = ((u128::from(late) * (u128::from(self.jitter) + 1)) >> 64) as u64;
        let arrival = self.line_free + self.delay + late;
        self.last_arrival = self.last_arrival.max(arrival);
        Fate::Arrives(self.last_arrival)
    }

    /// How long the line has something to send, nanoseconds: whatever is offered within
    /// that time leaves as if it had been offered now.
    pub fn busy(&self, now: u64) -> u64 {
        self.line_free.saturating_sub(now)
    }

    /// Bytes that wait for the line or are on it, rounded up.
    pub fn waiting(&self, now: u64) -> u64 {
        let left = u128::from(self.busy(now));
        (left * u128::from(self.rate)).div_ceil(SECOND) as u64
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(text: &str) -> PathSpec {
        text.parse().unwrap()
    }

    fn model(spec: &PathSpec) -> Model {
        Model::new(spec, spec.rtt / 2, spec.seed)
    }

    /// Offers packets at these gaps; for each: when it was offered, and its fate.
    fn run(model: &mut Model, packets: &[(u64, u32)]) -> Vec<(u64, u32, Fate)> {
        let mut now = 0;
        let offer = |&(gap, len): &(u64, u32)| {
            now += gap;
            (now, len, model.offer(len, now))
        };
        packets.iter().map(offer).collect()
    }

    #[test]
    fn a_packet_on_an_idle_path_takes_the_line_and_the_delay() {
        // 1500 bytes at 12 Mbit/s: one millisecond.
        let mut model = model(&spec("rtt=40ms,rate=12Mbit"));
        let second = 1_000_000_000;
        assert_eq!(
            model.offer(1500, second),
            Fate::Arrives(second + 21_000_000)
        );
        assert_eq!(model.waiting(second), 1500);
        assert_eq!(model.waiting(second + 500_000), 750);
        assert_eq!(model.waiting(second + 1_000_000), 0);
        // Right behind it, one more millisecond.
        assert_eq!(
            model.offer(1500, second),
            Fate::Arrives(second + 22_000_000)
        );
    }

    #[test]
    fn a_backlog_leaves_at_exactly_the_rate() {
        // A rate that divides nothing: rounding must not add up.
        let spec = spec("rtt=0s,rate=7777777B/s,queue=64MiB");
        let mut model = model(&spec);
        let packets = vec![(0, 1499); 10_000];
        let fates = run(&mut model, &packets);
        let sent = u128::from(1499_u32) * 10_000;
        let due = (sent * SECOND / u128::from(spec.rate)) as u64;
        assert_eq!(fates.last().unwrap().2, Fate::Arrives(due));
    }

    #[test]
    fn the_queue_drops_its_tail() {
        let spec = spec("rtt=10ms,rate=12Mbit,queue=15000B");
        let mut model = model(&spec);
        let fates = run(&mut model, &[(0, 1500); 12]);
        let dropped = fates.iter().filter(|it| it.2 == Fate::Dropped).count();
        assert_eq!(dropped, 2, "ten fit: {fates:?}");
        // One packet's time later there is room for one.
        assert_ne!(model.offer(1500, 1_000_000), Fate::Dropped);
        assert_eq!(model.offer(1500, 1_000_000), Fate::Dropped);
    }

    #[test]
    fn losses_are_binomial_and_repeatable() {
        for (loss, share) in [("0.1%", 0.001), ("2%", 0.02), ("50%", 0.5)] {
            for seed in 0..10 {
                let spec = spec(&format!("rtt=1ms,rate=1Gbit,loss={loss},seed={seed}"));
                let packets = vec![(12_000, 1500); 100_000];
                let fates = run(&mut model(&spec), &packets);
                let lost = fates.iter().filter(|it| it.2 == Fate::Lost).count() as f64;
                let n = packets.len() as f64;
                // Five standard deviations: one in 1.7 million honest runs.
                let slack = 5.0 * (n * share * (1.0 - share)).sqrt();
                assert!((lost - n * share).abs() < slack, "{loss} {seed}: {lost}");
                assert_eq!(fates, run(&mut model(&spec), &packets));
            }
        }
    }

    #[test]
    fn jitter_spreads_over_its_whole_range() {
        let spec = spec("rtt=10ms,rate=1Gbit,jitter=2ms");
        // Further apart than the jitter, so that none holds another up.
        let fates = run(&mut model(&spec), &vec![(3_000_000, 125); 10_000]);
        let late: Vec<u64> = fates
            .iter()
            .map(|&(at, _, fate)| match fate {
                Fate::Arrives(arrival) => arrival - at - 5_000_000 - 1_000,
                other => panic!("{other:?}"),
            })
            .collect();
        let mean = late.iter().sum::<u64>() / late.len() as u64;
        assert!((900_000..1_100_000).contains(&mean), "{mean}");
        assert!(late.iter().all(|it| *it <= 2_000_000));
        assert!(*late.iter().max().unwrap() > 1_990_000);
        assert!(*late.iter().min().unwrap() < 10_000);
    }

    proptest! {
        #[test]
        fn any_traffic_keeps_to_the_path(
            rtt in 0_u64..100_000,
            rate in 1_000_u64..2_000_000_000,
            jitter in 0_u64..5_000,
            queue in 1_500_u64..1_000_000,
            seed in any::<u64>(),
            loss in 0_u32..300_000_000,
            packets in prop::collection::vec((0_u64..100_000, 20_u32..=1500), 1..300),
        ) {
            let spec = PathSpec {
                rtt: Duration::from_micros(rtt),
                rate,
                loss: Loss::from_billionths(loss).unwrap(),
                mtu: 1500,
                queue,
                jitter: Duration::from_micros(jitter),
                seed,
            };
            let mut model = model(&spec);
            let fates = run(&mut model, &packets);
            // Replayed by a line that is told nothing but who got onto it.
            let mut last = 0;
            let mut free = 0_f64;
            for &(at, len, fate) in &fates {
                let waits = (free - at as f64).max(0.0) * rate as f64 / 1e9;
                let fits = waits + f64::from(len) <= queue as f64;
                match fate {
                    Fate::Dropped => {
                        prop_assert!(waits + f64::from(len) + 2.0 > queue as f64);
                        continue;
                    }
                    _ => prop_assert!(fits || waits + f64::from(len) < queue as f64 + 2.0),
                }
                free = free.max(at as f64) + f64::from(len) * 1e9 / rate as f64;
                if let Fate::Arrives(arrival) = fate {
                    let before = std::mem::replace(&mut last, arrival);
                    prop_assert!(arrival >= before, "overtaken");
                    let least = free + (rtt * 500) as f64;
                    prop_assert!(arrival as f64 + 2.0 >= least, "{arrival} before {least}");
                    let most = least + (jitter * 1000) as f64 + 2.0;
                    // A slower one before it may hold it up, never beyond its own.
                    prop_assert!(arrival as f64 <= most.max(before as f64));
                }
            }
        }
    }
}
