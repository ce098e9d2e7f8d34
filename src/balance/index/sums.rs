//! Weights of which one is drawn in proportion, in a logarithm of their number: a
//! Fenwick tree that many threads change.
//!
//! Changes are additions, which commute: once nobody is adding, every sum is exact,
//! whoever was faster. Meanwhile a draw may land on a neighbour.

use std::sync::atomic::{AtomicI64, Ordering};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Sums {
    /// The number at index `i` (from 1) is the sum of the last `i & -i` weights up to
    /// the `i`th.
    nodes: Box<[AtomicI64]>,
    total: AtomicI64,
}

impl Sums {
    /// So many weights, all 0.
    pub(crate) fn new(len: usize) -> Self {
        Self {
            nodes: (0..=len).map(|_| AtomicI64::new(0)).collect(),
            total: AtomicI64::new(0),
        }
    }

    /// Adds to the weight of this index.
    pub(crate) fn add(&self, index: usize, by: i64) {
        let mut at = index + 1;
        while let Some(node) = self.nodes.get(at) {
            node.fetch_add(by, Ordering::SeqCst);
            at += at & at.wrapping_neg();
        }
        self.total.fetch_add(by, Ordering::SeqCst);
    }

    /// The sum of all weights.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::SeqCst).max(0) as u64
    }

    /// The sum of the weights before this index.
    pub(crate) fn before(&self, index: usize) -> u64 {
        let (mut at, mut sum) = (index, 0);
        while at > 0 {
            sum += self.nodes[at].load(Ordering::SeqCst);
            at &= at - 1;
        }
        sum.max(0) as u64
    }

    /// The index in whose weight this lot falls, if all stand in a row; one behind the
    /// last for a lot that is not below the total.
    pub(crate) fn find(&self, lot: u64) -> usize {
        let len = self.nodes.len() - 1;
        let (mut at, mut left) = (0, lot as i64);
        let mut step = (len + 1).next_power_of_two() / 2;
        while step > 0 {
            if at + step <= len {
                let sum = self.nodes[at + step].load(Ordering::SeqCst);
                if sum <= left {
                    at += step;
                    left -= sum;
                }
            }
            step /= 2;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_a_row_of_weights_has(
            weights in prop::collection::vec(0..5_i64, 1..200),
            more in prop::collection::vec((0..200_usize, 0..9_i64), 0..40),
        ) {
            let (sums, mut model) = (Sums::new(weights.len()), weights.clone());
            for (index, weight) in weights.iter().enumerate() {
                sums.add(index, *weight);
            }
            for (index, weight) in more {
                let index = index % model.len();
                sums.add(index, weight - model[index]);
                model[index] = weight;
            }
            let row: Vec<usize> = model
                .iter()
                .enumerate()
                .flat_map(|(index, weight)| std::iter::repeat_n(index, *weight as usize))
                .collect();
            prop_assert_eq!(sums.total(), row.len() as u64);
            for (lot, index) in row.iter().enumerate() {
                prop_assert_eq!(sums.find(lot as u64), *index);
            }
            for index in 0..=model.len() {
                let before: i64 = model[..index].iter().sum();
                prop_assert_eq!(sums.before(index), before as u64);
            }
        }
    }
}
