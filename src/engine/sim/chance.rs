//! What chance decides in a simulated world: dice, and how nasty its kernel is.

use crate::balance::Random;

/// Chance as scripts want it: the same seed, the same run, on any machine.
#[derive(Debug, Clone)]
pub struct Dice(Random);

impl Dice {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    /// The next 64 bits.
    pub const fn roll(&mut self) -> u64 {
        self.0.draw()
    }

    /// A number from `low` to `high`, both included.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.roll() % (high - low + 1)
    }

    /// Yes in `percent` of a hundred cases.
    pub const fn percent(&mut self, percent: u64) -> bool {
        self.roll() % 100 < percent
    }
}

/// How nasty the simulated kernel is, each in percent of the occasions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nastiness {
    /// Events without a cause, and events of keys that were released.
    pub spurious: u64,
    /// Reads and writes that move less than they could.
    pub short: u64,
    /// Readiness that one wait holds back for the next: what a socket answers is
    /// then ahead of what was reported of it.
    pub late: u64,
    /// Accepts that fail.
    pub accept_failure: u64,
    /// Connects that fail or never answer.
    pub connect_failure: u64,
    /// Closes that complete later.
    pub deferred_close: u64,
    /// splice that does not work, pipes that are not to be had.
    pub splice_failure: u64,
}

impl Nastiness {
    /// As the seed has it: from a friendly kernel to a vile one.
    pub const fn drawn(dice: &mut Dice) -> Self {
        let level = dice.between(0, 3);
        Self {
            spurious: level * 4,
            short: level * 25,
            late: level * 20,
            accept_failure: level * 5,
            connect_failure: level * 8,
            deferred_close: level * 25,
            splice_failure: level * 5,
        }
    }
}
