//! A round robin: one sequence of turns for all reactors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bits::{self, Bits};
use super::rotation::{self, Rotation};
use super::sums::Sums;

/// A round robin.
#[derive(Debug)]
pub(crate) struct Turns {
    rotation: Arc<Rotation>,
    /// The next step; not reset at the end of a round.
    cursor: AtomicU64,
    /// Of an order that is written down: the steps of open units.
    steps: Option<Bits>,
    /// Of one that is spread: the weights of open units.
    sums: Option<Sums>,
}

impl Turns {
    pub(super) fn new(rotation: &Arc<Rotation>, units: usize) -> Self {
        Self {
            rotation: rotation.clone(),
            cursor: AtomicU64::new(0),
            steps: match &**rotation {
                Rotation::Listed(listed) => Some(Bits::new(listed.len())),
                Rotation::Equal { .. } | Rotation::Spread { .. } => None,
            },
            sums: match &**rotation {
                Rotation::Spread { .. } => Some(Sums::new(units)),
                Rotation::Equal { .. } | Rotation::Listed(_) => None,
            },
        }
    }

    /// Steps of a round.
    fn len(&self) -> u64 {
        match &*self.rotation {
            Rotation::Equal { items } => *items as u64,
            Rotation::Listed(listed) => listed.len() as u64,
            Rotation::Spread { total, .. } => *total,
        }
    }

    /// Takes the next step whose unit may be picked: its unit. The steps of others are
    /// passed over, so that the order of the rest is kept. `open` are the units that may
    /// be picked.
    ///
    /// One sequence for all reactors: a step is one compare-and-swap.
    pub(crate) fn take(&self, open: &Bits) -> Option<usize> {
        match (&*self.rotation, &self.steps, &self.sums) {
            (Rotation::Equal { .. }, ..) => self.step(open),
            (Rotation::Listed(listed), Some(steps), _) => {
                self.step(steps).map(|step| listed.item(step))
            }
            (Rotation::Spread { total, stride }, _, Some(sums)) => {
                let turn = self.cursor.fetch_add(1, Ordering::SeqCst);
                let lot = rotation::lot(turn, *total, *stride);
                // Of those that are left everybody has his share; exactly, while
                // nobody is missing.
                let left = u128::from(sums.total().min(*total));
                let lot = u128::from(lot) * left / u128::from(*total);
                let unit = sums.find(lot as u64);
                open.next_around(unit)
            }
            (Rotation::Listed(_) | Rotation::Spread { .. }, ..) => None,
        }
    }

    fn step(&self, open: &Bits) -> Option<usize> {
        let len = self.len();
        let mut from = self.cursor.load(Ordering::SeqCst);
        loop {
            let at = from % len;
            let next = open.next_around(at as usize)? as u64;
            let passed = if next >= at {
                next - at
            } else {
                len - at + next
            };
            let after = from + passed + 1;
            match self
                .cursor
                .compare_exchange(from, after, Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => return Some(next as usize),
                // Another reactor took it: that one gets on, and so does this.
                Err(now) => from = now,
            }
        }
    }

    /// The weights of open units, where turns are lots.
    pub(super) const fn sums(&self) -> Option<&Sums> {
        self.sums.as_ref()
    }

    /// Whoever was to be next is next. Of several turns that he has in a round, the one
    /// about as far on in it.
    pub(super) fn follow(&self, earlier: &Self, heirs: &[Option<usize>]) {
        let (len, at) = (earlier.len(), earlier.cursor.load(Ordering::SeqCst));
        let part = u128::from(at % len) * u128::from(self.len()) / u128::from(len);
        let part = part as u64;
        let mut turns = (at..at + len).map_while(|turn| earlier.rotation.item(turn));
        let next = turns.find_map(|unit| heirs.get(unit).copied().flatten());
        let step = next.and_then(|unit| self.rotation.nearest(unit, part));
        self.cursor.store(step.unwrap_or(part), Ordering::SeqCst);
    }

    pub(super) fn show(&self, unit: usize, open: bool) {
        let (Rotation::Listed(listed), Some(bits)) = (&*self.rotation, &self.steps) else {
            return;
        };
        let of_unit = listed.steps(unit);
        for of_word in of_unit.chunk_by(|a, b| a / 64 == b / 64) {
            let word = of_word[0] as usize / 64;
            let mask = of_word
                .iter()
                .fold(0, |mask, step| mask | bits::bit(*step as usize));
            bits.put_word(word, mask, open);
        }
    }
}
