//! Rules that differ only in their ports, as one table: which of them is the first for
//! a port is found by halving, however many they are.

use core::ops::RangeInclusive;
use std::collections::{BTreeMap, BTreeSet};

/// The place of a rule in its list: who stands before, decides.
pub type Place = u32;

/// Disjoint ranges of ports and the first rule for each. See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortTable {
    /// In order, each from its port up to the next one's.
    segments: Box<[Segment]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    from: u16,
    first: Option<Place>,
}

impl PortTable {
    /// Of rules in any order.
    pub fn new(rules: &[(RangeInclusive<u16>, Place)]) -> Self {
        // Where rules begin and cease to hold; one past the last port ceases nowhere.
        let mut edges: BTreeMap<u32, (Vec<Place>, Vec<Place>)> = BTreeMap::new();
        for (ports, place) in rules.iter().filter(|(ports, _)| !ports.is_empty()) {
            let (from, to) = (u32::from(*ports.start()), u32::from(*ports.end()) + 1);
            edges.entry(from).or_default().0.push(*place);
            edges.entry(to).or_default().1.push(*place);
        }
        let mut holding = BTreeSet::new();
        let mut segments: Vec<Segment> = Vec::new();
        for (from, (begin, cease)) in edges {
            for place in cease {
                holding.remove(&place);
            }
            holding.extend(begin);
            let first = holding.first().copied();
            let same = segments
                .last()
                .map_or(first.is_none(), |it| it.first == first);
            if let (false, Ok(from)) = (same, u16::try_from(from)) {
                segments.push(Segment { from, first });
            }
        }
        Self {
            segments: segments.into(),
        }
    }

    /// The first rule for this port.
    pub fn first(&self, port: u16) -> Option<Place> {
        let behind = self.segments.partition_point(|it| it.from <= port);
        self.segments.get(behind.checked_sub(1)?)?.first
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rule_holds_from_its_first_port_to_its_last() {
        let table = PortTable::new(&[(443..=443, 5), (1..=65_535, 7), (65_535..=65_535, 2)]);
        for (port, first) in [(0, None), (1, Some(7)), (442, Some(7)), (443, Some(5))] {
            assert_eq!(table.first(port), first, "{port}");
        }
        for (port, first) in [(444, Some(7)), (65_534, Some(7)), (65_535, Some(2))] {
            assert_eq!(table.first(port), first, "{port}");
        }
        assert_eq!(PortTable::new(&[]).first(443), None);
    }

    proptest! {
        /// One rule a place, as in a list.
        #[test]
        fn the_first_is_that_of_a_scan(
            ranges in prop::collection::vec((0_u16..40, 0_u16..40), 0..12),
            port in 0_u16..42,
        ) {
            let rules: Vec<_> = (0..).zip(&ranges).map(|(at, (a, b))| (*a..=*b, at)).collect();
            let scanned = rules.iter().find(|(ports, _)| ports.contains(&port));
            let table = PortTable::new(&rules);
            prop_assert_eq!(table.first(port), scanned.map(|(_, place)| *place));
        }
    }
}
