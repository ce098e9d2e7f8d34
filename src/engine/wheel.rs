//! The timer wheel of a reactor: one timer for each slot, 1 ms ticks.
//!
//! Hierarchical: six levels of 64 buckets, each level 64 times as coarse as the
//! one below (1 ms, 64 ms, 4 s, 4 min, 5 h, 12 days; beyond two years a timer
//! counts as never). A timer moves down a level when its bucket comes up, so it
//! fires on its tick, never early. Arming, moving and disarming are O(1) and
//! touch one linked list; a million short sessions leave nothing behind.
//!
//! Sessions arm lazily: activity only moves a session's own clock, and a timer
//! that fires too soon is armed again. So the hot path never comes here.

use super::slab::Slots;
use crate::relay::time::Time;

const LEVELS: usize = 6;
const BUCKETS: usize = 64;
const BITS: u32 = 6;
const TICK_MICROS: u64 = 1000;
const NIL: u32 = u32::MAX;
const UNARMED: u16 = u16::MAX;
const PLACE_BITS: u32 = u16::BITS;
const WHEN_MAX: u64 = u64::MAX >> PLACE_BITS;

/// Timers by slot. See the module's documentation.
#[derive(Debug)]
pub struct Wheel {
    nodes: Slots<Node>,
    heads: [[u32; BUCKETS]; LEVELS],
    occupied: [u64; LEVELS],
    /// The tick up to which everything has fired.
    elapsed: u64,
    len: usize,
}

/// Sixteen bytes, for each session has one.
#[derive(Debug)]
struct Node {
    /// Its tick, and in the low [`PLACE_BITS`] `level * BUCKETS + bucket` or [`UNARMED`]. 48
    /// bits of milliseconds are nine thousand years.
    when_and_place: u64,
    next: u32,
    prev: u32,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            when_and_place: u64::from(UNARMED),
            next: NIL,
            prev: NIL,
        }
    }
}

impl Node {
    const fn when(&self) -> u64 {
        self.when_and_place >> PLACE_BITS
    }

    const fn place(&self) -> u16 {
        self.when_and_place as u16
    }

    const fn is_armed(&self) -> bool {
        self.place() != UNARMED
    }
}

impl Wheel {
    /// A wheel whose time starts at [`Time::ZERO`].
    pub fn new() -> Self {
        Self {
            nodes: Slots::new(),
            heads: [[NIL; BUCKETS]; LEVELS],
            occupied: [0; LEVELS],
            elapsed: 0,
            len: 0,
        }
    }

    /// Timers that are armed.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none is armed.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Arms the timer of a slot, or moves it. [`Time::NEVER`] disarms.
    pub fn arm(&mut self, slot: u32, at: Time) {
        self.disarm(slot);
        if at == Time::NEVER {
            return;
        }
        // Rounded up: never early. At least one tick ahead: a timer armed while
        // timers fire cannot fire in the same pass, so a pass always ends.
        let when = at.as_micros().div_ceil(TICK_MICROS).max(self.elapsed + 1);
        self.insert(slot, when);
        self.len += 1;
    }

    /// Disarms the timer of a slot, if it is armed.
    pub fn disarm(&mut self, slot: u32) {
        if self.nodes.get(slot).is_some_and(Node::is_armed) {
            self.unlink(slot);
            self.len -= 1;
        }
    }

    /// When the timer of a slot fires, if it is armed.
    pub fn armed_for(&self, slot: u32) -> Option<Time> {
        let node = self.nodes.get(slot)?;
        node.is_armed()
            .then(|| Time::from_micros(node.when() * TICK_MICROS))
    }

    /// When [`Wheel::advance`] is due next; [`Time::NEVER`] if nothing is armed.
    /// For a far timer that is when it moves down a level.
    pub fn next(&self) -> Time {
        self.next_bucket().map_or(Time::NEVER, |(_, _, tick)| {
            Time::from_micros(tick * TICK_MICROS)
        })
    }

    /// Moves time on and appends the slots whose timers fired; these are
    /// disarmed.
    pub fn advance(&mut self, now: Time, fired: &mut Vec<u32>) {
        let now = now.as_micros() / TICK_MICROS;
        while let Some((level, bucket, tick)) = self.next_bucket() {
            if tick > now {
                break;
            }
            self.elapsed = tick;
            let mut slot = self.heads[level][bucket];
            while slot != NIL {
                let (when, next) = self
                    .nodes
                    .get(slot)
                    .map_or((0, NIL), |node| (node.when(), node.next));
                self.unlink(slot);
                if when <= tick {
                    self.len -= 1;
                    fired.push(slot);
                } else {
                    self.insert(slot, when);
                }
                slot = next;
            }
        }
        self.elapsed = self.elapsed.max(now);
    }

    fn insert(&mut self, slot: u32, when: u64) {
        let span = 1_u64 << (BITS * LEVELS as u32);
        // Farther than the wheel reaches: the last bucket before it comes round.
        let when_placed = when.min(self.elapsed + span - 1);
        let differing = (self.elapsed ^ when_placed) | (BUCKETS as u64 - 1);
        let level = ((differing.ilog2() / BITS) as usize).min(LEVELS - 1);
        let bucket = (when_placed >> (BITS * level as u32)) as usize % BUCKETS;

        let head = self.heads[level][bucket];
        let place = level * BUCKETS + bucket;
        *self.nodes.touch(slot) = Node {
            when_and_place: (when.min(WHEN_MAX) << PLACE_BITS) | place as u64,
            next: head,
            prev: NIL,
        };
        if let Some(node) = self.nodes.get_mut(head) {
            node.prev = slot;
        }
        self.heads[level][bucket] = slot;
        self.occupied[level] |= 1 << bucket;
    }

    fn unlink(&mut self, slot: u32) {
        let Some(node) = self.nodes.get_mut(slot) else {
            return;
        };
        let (next, prev, place) = (node.next, node.prev, usize::from(node.place()));
        node.when_and_place = u64::from(UNARMED);
        if let Some(node) = self.nodes.get_mut(next) {
            node.prev = prev;
        }
        if let Some(node) = self.nodes.get_mut(prev) {
            node.next = next;
        } else {
            let (level, bucket) = (place / BUCKETS, place % BUCKETS);
            self.heads[level][bucket] = next;
            if next == NIL {
                self.occupied[level] &= !(1 << bucket);
            }
        }
    }

    /// The bucket that comes up next: level, bucket, tick. The lowest occupied
    /// level holds it, for a timer is put no higher than it must be.
    fn next_bucket(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        let shift = BITS * level as u32;
        let here = (self.elapsed >> shift) as usize % BUCKETS;
        let ahead = self.occupied[level]
            .rotate_right(here as u32)
            .trailing_zeros() as usize;
        let bucket = (here + ahead) % BUCKETS;
        let round = 1_u64 << (shift + BITS);
        let mut tick = (self.elapsed & !(round - 1)) + ((bucket as u64) << shift);
        if tick < self.elapsed {
            tick += round;
        }
        Some((level, bucket, tick))
    }
}

impl Default for Wheel {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(n: u64) -> Time {
        Time::from_micros(n * 1000)
    }

    #[test]
    fn fires_on_its_tick_and_never_early() {
        for delay in [
            1, 2, 63, 64, 65, 4095, 4096, 4097, 262_144, 600_000, 20_000_000,
        ] {
            let mut wheel = Wheel::new();
            wheel.advance(ms(1_000_003), &mut Vec::new());
            wheel.arm(7, ms(1_000_003 + delay));
            let mut fired = Vec::new();
            let mut wakes = 0;
            while fired.is_empty() {
                let at = wheel.next();
                wheel.advance(at, &mut fired);
                wakes += 1;
                assert!(
                    fired.is_empty() || at == ms(1_000_003 + delay),
                    "delay {delay} fired at {at:?}"
                );
            }
            assert!(wakes <= LEVELS, "{wakes} wake-ups for one timer");
            assert!(wheel.is_empty());
        }
    }

    #[test]
    fn a_timer_is_small() {
        assert_eq!(size_of::<Node>(), 16);
    }

    #[test]
    fn a_timer_armed_in_the_past_fires_on_the_next_tick() {
        let mut wheel = Wheel::new();
        let mut fired = Vec::new();
        wheel.advance(ms(500), &mut fired);
        wheel.arm(1, ms(3));
        wheel.advance(ms(500), &mut fired);
        assert!(fired.is_empty());
        wheel.advance(ms(501), &mut fired);
        assert_eq!(fired, [1]);
    }

    #[test]
    fn b73_a_jump_of_a_minute_fires_each_timer_once() {
        let mut wheel = Wheel::new();
        for slot in 0..1000 {
            wheel.arm(slot, ms(u64::from(slot) * 50));
        }
        let mut fired = Vec::new();
        wheel.advance(ms(60_000), &mut fired);
        fired.sort_unstable();
        assert_eq!(fired, (0..1000).collect::<Vec<_>>());
        assert_eq!(wheel.next(), Time::NEVER);
    }

    proptest! {
        /// Against a plain list of deadlines.
        #[test]
        fn agrees_with_a_list(script in proptest::collection::vec((0_u32..40, 0_u64..5_000_000, 0_u64..70_000), 1..200)) {
            let mut wheel = Wheel::new();
            let mut list = std::collections::BTreeMap::new();
            let mut now = 0;
            for (slot, delay, step) in script {
                if delay % 7 == 0 {
                    wheel.disarm(slot);
                    list.remove(&slot);
                } else {
                    wheel.arm(slot, ms(now + delay));
                    list.insert(slot, (now + delay).max(now + 1));
                }
                now += step;
                let mut fired = Vec::new();
                wheel.advance(ms(now), &mut fired);
                fired.sort_unstable();
                let due: Vec<u32> = list.iter().filter(|(_, at)| **at <= now).map(|(slot, _)| *slot).collect();
                list.retain(|_, at| *at > now);
                prop_assert_eq!(fired, due);
                prop_assert_eq!(wheel.len(), list.len());
                if let Some(first) = list.values().min() {
                    prop_assert!(wheel.next() <= ms(*first));
                }
            }
        }
    }
}
