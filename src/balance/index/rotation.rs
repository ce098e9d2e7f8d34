//! The order in which a round robin goes through weighted items, computed once: nginx's
//! smooth one, so that weights 5, 1, 1 give a a b a c a a.
//!
//! In that algorithm everybody's current grows by his weight at each turn, the highest
//! is picked and pays the total. After as many turns as the weights add up to (divided by
//! what they have in common) all currents are 0, so the order repeats, and the whole of
//! it can be written down. Items of one weight take turns in their order, so only one
//! candidate for each weight is looked at in a turn.
//!
//! An order of more than [`STEPS_MAX`] steps is not written down: its steps are then
//! *spread*. Of all lots below the total each comes once in a round, in steps of nearly
//! the golden section of it, so that the shares are exact, and every weight's turns are
//! at nearly even distances ("three-distance theorem"). The order is not nginx's.

use std::collections::BTreeMap;

/// Longer orders are not written down: it would take long to make one, and an item's
/// coming and going is written at each of its steps.
pub(crate) const STEPS_MAX: u64 = 1 << 16;

/// Nor is one in which a single item has more steps.
const STEPS_EACH_MAX: u64 = 4096;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) enum Rotation {
    /// Equal weights: a step is an item. Items of weight 0 have no turn, which is for
    /// the caller to see to.
    Equal {
        /// Items, those of weight 0 included.
        items: usize,
    },
    /// As it is written down.
    Listed(Listed),
    /// As lots.
    Spread {
        /// The sum of the weights.
        total: u64,
        /// From one lot to the next; has no divisor in common with the total.
        stride: u64,
    },
}

/// An order that is written down.
#[derive(Debug)]
pub(crate) struct Listed {
    /// The item of each step.
    items: Box<[u16]>,
    /// The steps of each item, one item's after the other's.
    steps: Box<[u32]>,
    /// Where those of each item begin, and the end of the last.
    starts: Box<[u32]>,
}

impl Rotation {
    /// The order of items of these weights; `None` if none has one.
    pub(crate) fn new(weights: &[u32]) -> Option<Self> {
        let some = || weights.iter().copied().filter(|weight| *weight > 0);
        let common = some().fold(0, gcd);
        if common == 0 {
            return None;
        }
        if some().all(|weight| weight == common) {
            let items = weights.len();
            return Some(Self::Equal { items });
        }
        let reduced: Vec<u32> = weights.iter().map(|weight| weight / common).collect();
        let total: u64 = reduced.iter().copied().map(u64::from).sum();
        let highest = reduced.iter().copied().max().unwrap_or(0);
        if total > STEPS_MAX || u64::from(highest) > STEPS_EACH_MAX {
            // Lots are drawn of the weights as they are.
            let total = some().map(u64::from).sum();
            let stride = stride(total);
            return Some(Self::Spread { total, stride });
        }
        Some(Self::Listed(Listed::new(smooth(&reduced), weights.len())))
    }

    /// Whose turn it is, where that does not depend on who is missing.
    pub(crate) fn item(&self, turn: u64) -> Option<usize> {
        match self {
            Self::Equal { items } => Some((turn % *items as u64) as usize),
            Self::Listed(listed) => Some(listed.item((turn % listed.len() as u64) as usize)),
            Self::Spread { .. } => None,
        }
    }

    /// The turn of an item that is nearest to another, if it is known which it has.
    pub(crate) fn nearest(&self, item: usize, to: u64) -> Option<u64> {
        match self {
            Self::Equal { .. } => Some(item as u64),
            Self::Listed(listed) => {
                let steps = listed.steps(item).iter().copied().map(u64::from);
                steps.min_by_key(|step| step.abs_diff(to))
            }
            Self::Spread { .. } => None,
        }
    }
}

impl Listed {
    fn new(items: Box<[u16]>, count: usize) -> Self {
        let mut starts = vec![0_u32; count + 1];
        for item in &items {
            starts[usize::from(*item) + 1] += 1;
        }
        for item in 0..count {
            starts[item + 1] += starts[item];
        }
        let (mut ends, mut steps) = (starts.clone(), vec![0; items.len()]);
        for (step, item) in items.iter().enumerate() {
            let end = &mut ends[usize::from(*item)];
            steps[*end as usize] = step as u32;
            *end += 1;
        }
        Self {
            items,
            steps: steps.into(),
            starts: starts.into(),
        }
    }

    /// How many steps there are until it repeats.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Whose turn a step is.
    pub(crate) fn item(&self, step: usize) -> usize {
        self.items[step].into()
    }

    /// The turns of an item, in order.
    pub(crate) fn steps(&self, item: usize) -> &[u32] {
        &self.steps[self.starts[item] as usize..self.starts[item + 1] as usize]
    }
}

/// The lot of a turn.
pub(crate) fn lot(turn: u64, total: u64, stride: u64) -> u64 {
    (u128::from(turn % total) * u128::from(stride) % u128::from(total)) as u64
}

/// One round of nginx's smooth order.
fn smooth(weights: &[u32]) -> Box<[u16]> {
    let total: i64 = weights.iter().copied().map(i64::from).sum();
    let mut classes: BTreeMap<u32, Class> = BTreeMap::new();
    for (item, weight) in weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight > 0)
    {
        let class = classes.entry(*weight).or_insert_with(|| Class {
            weight: i64::from(*weight),
            items: Vec::new(),
            next: 0,
            current: i64::from(*weight),
        });
        class.items.push(item as u16);
    }
    let mut classes: Vec<Class> = classes.into_values().collect();
    let mut order = Vec::with_capacity(total as usize);
    for _ in 0..total {
        // Of equals the one that stands first in the list, as nginx finds it.
        let best = classes
            .iter_mut()
            .max_by_key(|class| (class.current, std::cmp::Reverse(class.items[class.next])));
        let Some(class) = best else { break };
        order.push(class.items[class.next]);
        class.next += 1;
        if class.next == class.items.len() {
            // Every one of them has paid.
            class.next = 0;
            class.current -= total;
        }
        for class in &mut classes {
            class.current += class.weight;
        }
    }
    order.into()
}

/// Items of one weight. Their currents differ by whole totals: those that were picked
/// once more are behind, and the first of the others is the candidate.
struct Class {
    weight: i64,
    items: Vec<u16>,
    next: usize,
    /// The candidate's.
    current: i64,
}

const fn gcd(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// A number near the golden section of `total` that has no divisor in common with it, so
/// that its multiples come to every lot. Of those at hand the one whose ratio to the total
/// is hardest to approximate: the smaller the largest quotient of its continued fraction,
/// the more evenly its multiples are spread at any time.
fn stride(total: u64) -> u64 {
    const CANDIDATES: u64 = 256;
    // 0.618…, in 2^-32ths.
    let golden = ((u128::from(total) * 2_654_435_769) >> 32) as u64;
    let golden = golden.max(1);
    let candidates = (golden..total.min(golden + CANDIDATES)).filter_map(|stride| {
        let (mut a, mut b, mut largest) = (total, stride, 0);
        while b != 0 {
            largest = largest.max(a / b);
            (a, b) = (b, a % b);
        }
        (a == 1).then_some((largest, stride))
    });
    candidates.min().map_or(1, |(_, stride)| stride)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// nginx's own words, as plainly as they can be written.
    fn nginx(weights: &[u32]) -> Vec<u16> {
        let total: i64 = weights.iter().copied().map(i64::from).sum();
        let mut currents = vec![0; weights.len()];
        let mut order = Vec::new();
        for _ in 0..total {
            let mut best: Option<usize> = None;
            for (item, weight) in weights.iter().enumerate().filter(|it| *it.1 > 0) {
                currents[item] += i64::from(*weight);
                if best.is_none_or(|best| currents[item] > currents[best]) {
                    best = Some(item);
                }
            }
            currents[best.unwrap()] -= total;
            order.push(best.unwrap() as u16);
        }
        order
    }

    fn listed(weights: &[u32]) -> Listed {
        match Rotation::new(weights) {
            Some(Rotation::Listed(listed)) => listed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_example_of_nginx() {
        assert_eq!(*listed(&[5, 1, 1]).items, [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(listed(&[500, 100, 100]).len(), 7);
    }

    #[test]
    fn nobody_has_a_turn_without_a_weight() {
        assert!(Rotation::new(&[]).is_none());
        assert!(Rotation::new(&[0, 0]).is_none());
        assert_eq!(*listed(&[0, 1, 0, 2]).items, [3, 1, 3]);
    }

    #[test]
    fn thousands_of_unlike_weights_are_spread() {
        let weights: Vec<u32> = (1..=1000).collect();
        let Some(Rotation::Spread { total, stride }) = Rotation::new(&weights) else {
            panic!("it was written down");
        };
        assert_eq!(total, 500_500);
        let mut came = vec![false; total as usize];
        for turn in 0..total {
            came[lot(turn, total, stride) as usize] = true;
        }
        assert!(came.into_iter().all(|came| came));
    }

    proptest! {
        #[test]
        fn it_is_the_order_of_nginx(weights in prop::collection::vec(0..30_u32, 1..14)) {
            let common = weights.iter().copied().filter(|it| *it > 0).fold(0, gcd);
            prop_assume!(common > 0);
            let reduced: Vec<u32> = weights.iter().map(|it| it / common).collect();
            let order = nginx(&reduced);
            match Rotation::new(&weights).unwrap() {
                Rotation::Listed(listed) => {
                    prop_assert_eq!(&*listed.items, order);
                    for (item, weight) in reduced.iter().enumerate() {
                        let turns = listed.steps(item);
                        prop_assert_eq!(turns.len(), *weight as usize);
                        prop_assert!(turns.iter().all(|it| listed.item(*it as usize) == item));
                        prop_assert!(turns.is_sorted());
                    }
                }
                Rotation::Equal { items } => {
                    let all = (0..items as u16).filter(|it| weights[usize::from(*it)] > 0);
                    prop_assert_eq!(order, all.collect::<Vec<_>>());
                }
                Rotation::Spread { .. } => prop_assert!(false, "a short order was spread"),
            }
        }

        #[test]
        fn lots_that_are_spread_come_once_each(total in 1..3000_u64) {
            let stride = stride(total);
            let mut lots: Vec<u64> = (7..7 + total).map(|turn| lot(turn, total, stride)).collect();
            lots.sort_unstable();
            prop_assert_eq!(lots, (0..total).collect::<Vec<_>>());
        }
    }
}
