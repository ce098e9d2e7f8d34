//! The least of many keys that change all the time: each node of a binary tree holds
//! the winner of its half, so that the least is read at the root, and a key that has
//! changed costs one path.
//!
//! Keys are the caller's, who says of each leaf what it is now, or that it takes no
//! part. After a change of a key he climbs from its leaf ([`Tournament::climb`]).
//! Any number of threads may do so: at each node the winner of the two below is
//! written by compare-and-swap over a version, and once more if another thread was
//! faster, which then saw the new key itself (the "f-array" of Jayanti, PODC 2002).
//! So once everybody has climbed every node is right, and nobody ever waits. Until
//! then the root may be a winner of a moment ago.

use std::sync::atomic::{AtomicU64, Ordering};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Tournament {
    /// The inner nodes, the root at 1: a version above, the winner and one below; 0 in
    /// the lower half: nobody takes part.
    nodes: Box<[AtomicU64]>,
    leaves: usize,
}

impl Tournament {
    /// With so many leaves, of which none takes part.
    pub(crate) fn new(leaves: usize) -> Self {
        let width = leaves.next_power_of_two();
        Self {
            nodes: (0..width).map(|_| AtomicU64::new(0)).collect(),
            leaves,
        }
    }

    /// The leaf with the least key; of equals the first.
    pub(crate) fn winner<K: Ord>(&self, key: &impl Fn(usize) -> Option<K>) -> Option<usize> {
        self.of(1, key)
    }

    /// Makes up for a change of this leaf's key.
    pub(crate) fn climb<K: Ord>(&self, leaf: usize, key: &impl Fn(usize) -> Option<K>) {
        let mut node = usize::midpoint(self.nodes.len(), leaf);
        while node > 0 {
            if !self.replay(node, key) {
                self.replay(node, key);
            }
            node /= 2;
        }
    }

    /// The least of those that the caller wants; for each of the others that is in the
    /// way one more path is looked at.
    pub(crate) fn best<K: Ord>(
        &self,
        key: &impl Fn(usize) -> Option<K>,
        wants: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        self.best_below(1, key, wants)
    }

    fn best_below<K: Ord>(
        &self,
        node: usize,
        key: &impl Fn(usize) -> Option<K>,
        wants: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let winner = self.of(node, key)?;
        if wants(winner) {
            return Some(winner);
        }
        if node >= self.nodes.len() {
            return None;
        }
        let left = self.best_below(2 * node, key, wants);
        let right = self.best_below(2 * node + 1, key, wants);
        less(left, right, key)
    }

    /// Writes the winner of the two below; `false` if another thread was faster.
    fn replay<K: Ord>(&self, node: usize, key: &impl Fn(usize) -> Option<K>) -> bool {
        let before = self.nodes[node].load(Ordering::SeqCst);
        let winner = less(self.of(2 * node, key), self.of(2 * node + 1, key), key);
        let version = (before >> 32).wrapping_add(1) << 32;
        let after = version | winner.map_or(0, |leaf| leaf as u64 + 1);
        self.nodes[node]
            .compare_exchange(before, after, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// The winner of a node or leaf.
    fn of<K: Ord>(&self, node: usize, key: &impl Fn(usize) -> Option<K>) -> Option<usize> {
        if let Some(inner) = self.nodes.get(node) {
            let winner = inner.load(Ordering::SeqCst) as u32;
            return (winner as usize).checked_sub(1);
        }
        let leaf = node - self.nodes.len();
        (leaf < self.leaves && key(leaf).is_some()).then_some(leaf)
    }
}

/// Of two leaves the one with the smaller key, of equals the first.
fn less<K: Ord>(
    first: Option<usize>,
    second: Option<usize>,
    key: &impl Fn(usize) -> Option<K>,
) -> Option<usize> {
    let of = |leaf: Option<usize>| leaf.and_then(|leaf| Some((key(leaf)?, leaf)));
    match (of(first), of(second)) {
        (Some((a, first)), Some((b, second))) => Some(if b < a { second } else { first }),
        (one, other) => one.or(other).map(|(_, leaf)| leaf),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_winner_is_the_least(
            leaves in 1..70_usize,
            changes in prop::collection::vec((0..70_usize, prop::option::of(0..9_u32)), 1..100),
            unwanted in prop::collection::vec(0..70_usize, 0..6),
        ) {
            let keys = RefCell::new(vec![None; leaves]);
            let key = |leaf: usize| keys.borrow()[leaf];
            let tree = Tournament::new(leaves);
            for (leaf, new) in changes {
                let leaf = leaf % leaves;
                keys.borrow_mut()[leaf] = new;
                tree.climb(leaf, &key);
                let taking = (0..leaves).filter(|leaf| key(*leaf).is_some());
                let least = taking.clone().min_by_key(|leaf| key(*leaf));
                prop_assert_eq!(tree.winner(&key), least);
                let wants = |leaf: usize| !unwanted.contains(&leaf);
                let least = taking.filter(|leaf| wants(*leaf)).min_by_key(|leaf| key(*leaf));
                prop_assert_eq!(tree.best(&key, &wants), least);
            }
        }
    }
}
