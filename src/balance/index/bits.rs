//! A set of numbers that many threads read and change, with "the next member from
//! here on" in a few loads whatever the size: words of 64 bits, and above them words
//! that say which of those below are not empty.
//!
//! Exact once nobody is changing it. While somebody is, a search may miss a member
//! that is being added, or find one that is being removed.

use std::sync::atomic::{AtomicU64, Ordering};

/// Levels at the most: 64^3 numbers.
const LEVELS: usize = 3;

/// Numbers that fit.
pub(crate) const LEN_MAX: usize = 64 * 64 * 64;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Bits {
    /// All levels, the lowest first.
    words: Box<[AtomicU64]>,
    /// Where each level begins in `words`, and the end of the last.
    starts: [u32; LEVELS + 1],
    levels: u8,
}

impl Bits {
    /// The empty set of numbers below `len`, at most [`LEN_MAX`].
    pub(crate) fn new(len: usize) -> Self {
        debug_assert!(len <= LEN_MAX, "too many numbers for a set of bits");
        let mut starts = [0; LEVELS + 1];
        let (mut levels, mut words, mut width) = (0, 0, len.max(1));
        loop {
            width = width.div_ceil(64);
            words += width;
            levels += 1;
            starts[levels] = words as u32;
            if width == 1 || levels == LEVELS {
                break;
            }
        }
        Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            starts,
            levels: levels as u8,
        }
    }

    /// Whether no number is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.word(self.top(), 0).is_none_or(|word| word == 0)
    }

    /// Whether this number is in it.
    pub(crate) fn contains(&self, number: usize) -> bool {
        let word = self.word(0, number / 64).unwrap_or(0);
        word & bit(number) != 0
    }

    /// Adds or removes numbers that share a word: `bits` of the word of this index.
    pub(crate) fn put_word(&self, index: usize, bits: u64, member: bool) {
        let Some(word) = self.at(0, index) else {
            return;
        };
        let (before, after) = if member {
            let before = word.fetch_or(bits, Ordering::SeqCst);
            (before, before | bits)
        } else {
            let before = word.fetch_and(!bits, Ordering::SeqCst);
            (before, before & !bits)
        };
        if (before == 0) != (after == 0) {
            self.tell_above(index);
        }
    }

    /// Says on every level above whether the word below is empty. Whoever writes looks
    /// again after it, so that the last to write has seen the last change.
    fn tell_above(&self, index: usize) {
        let mut below = index;
        for level in 1..usize::from(self.levels) {
            let Some(word) = self.at(level, below / 64) else {
                return;
            };
            loop {
                let empty = self.word(level - 1, below) == Some(0);
                if empty {
                    word.fetch_and(!bit(below), Ordering::SeqCst);
                } else {
                    word.fetch_or(bit(below), Ordering::SeqCst);
                }
                if (self.word(level - 1, below) == Some(0)) == empty {
                    break;
                }
            }
            below /= 64;
        }
    }

    /// Adds a number, or removes it.
    pub(crate) fn put(&self, number: usize, member: bool) {
        self.put_word(number / 64, bit(number), member);
    }

    /// The first member from this number on.
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        let mut from = from;
        loop {
            let (level, mut index) = self.climb(from)?;
            let mut below = level;
            loop {
                if below == 0 {
                    return Some(index);
                }
                below -= 1;
                let word = self.word(below, index)?;
                if word == 0 {
                    // It was emptied a moment ago: on behind it.
                    from = (index + 1) << (6 * (below + 1));
                    break;
                }
                index = index * 64 + word.trailing_zeros() as usize;
            }
        }
    }

    /// The first member from this number on, and round again.
    pub(crate) fn next_around(&self, from: usize) -> Option<usize> {
        self.next(from).or_else(|| self.next(0))
    }

    /// The member that is reached from the top by going to the best of what is not
    /// empty, level by level: what `lot` of the level and the index there is highest
    /// for. On the lowest level the index is the number.
    pub(crate) fn descend(&self, lot: impl Fn(usize, usize) -> u64) -> Option<usize> {
        let mut index = 0;
        for level in (0..usize::from(self.levels)).rev() {
            let mut left = self.word(level, index)?;
            let mut best: Option<(u64, usize)> = None;
            while left != 0 {
                let child = index * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                let lot = lot(level, child);
                if best.is_none_or(|(highest, _)| lot >= highest) {
                    best = Some((lot, child));
                }
            }
            index = best?.1;
        }
        Some(index)
    }

    /// The lowest level that has a member from here on, and its index there.
    fn climb(&self, from: usize) -> Option<(usize, usize)> {
        let mut index = from;
        for level in 0..usize::from(self.levels) {
            let at = index / 64;
            let word = self.word(level, at)? & (u64::MAX << (index % 64));
            if word != 0 {
                return Some((level, at * 64 + word.trailing_zeros() as usize));
            }
            index = at + 1;
        }
        None
    }

    const fn top(&self) -> usize {
        self.levels as usize - 1
    }

    fn at(&self, level: usize, index: usize) -> Option<&AtomicU64> {
        let at = self.starts[level] as usize + index;
        let end = self.starts[level + 1] as usize;
        self.words.get(at).filter(|_| at < end)
    }

    fn word(&self, level: usize, index: usize) -> Option<u64> {
        self.at(level, index)
            .map(|word| word.load(Ordering::SeqCst))
    }
}

/// The bit of a number in its word.
pub(crate) const fn bit(number: usize) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_a_set_of_numbers_finds(
            len in prop_oneof![1..70_usize, 60..5000_usize, 4090..70_000_usize],
            changes in prop::collection::vec((any::<u32>(), prop::bool::weighted(0.7)), 1..120),
            looks in prop::collection::vec(any::<u32>(), 1..40),
        ) {
            let (bits, mut model) = (Bits::new(len), BTreeSet::new());
            for (number, member) in changes {
                let number = number as usize % len;
                bits.put(number, member);
                if member {
                    model.insert(number);
                } else {
                    model.remove(&number);
                }
                prop_assert_eq!(bits.contains(number), member);
                prop_assert_eq!(bits.is_empty(), model.is_empty());
            }
            for from in looks {
                let from = from as usize % len;
                let next = model.range(from..).next().copied();
                prop_assert_eq!(bits.next(from), next);
                let around = next.or_else(|| model.first().copied());
                prop_assert_eq!(bits.next_around(from), around);
            }
            let found = bits.descend(|_, index| index as u64);
            prop_assert_eq!(found, model.last().copied());
            prop_assert_eq!(bits.next(len + 64), None);
        }
    }
}
