//! Who takes part in a race: which addresses of a name are dialled beside the one that
//! was picked, and in which order. When each is dialled is `relay::race`'s.
//!
//! ```text
//!   a name is one server:          picked, then the others from there on and round again
//!   each address is a server:      picked, and one of the other family (IPv4, IPv6)
//! ```
//! Invariants: the one that was picked is first; nobody is in it twice, and nobody who
//! may not be dialled; a race of servers by themselves has two at the most, so that a
//! connect counts at two servers at the most.

use std::ops::Range;

/// What is asked of the addresses of a name, by their positions.
pub trait Addresses {
    /// Whether it may be dialled beside another now.
    fn may(&self, at: u16) -> bool;

    /// Whether it is an IPv6 address.
    fn is_v6(&self, at: u16) -> bool;

    /// Sessions that are there.
    fn active(&self, at: u16) -> u32;
}

/// The positions to dial, `picked` first, of the addresses of one name that stand at
/// `name`. `name_is_one_server`: else each is a server by itself.
pub fn rivals(
    picked: u16,
    name: Range<u16>,
    name_is_one_server: bool,
    addresses: &impl Addresses,
) -> Vec<u16> {
    let mut rivals = vec![picked];
    // From the picked one on and round again, so that equals take turns.
    let around = (picked..name.end).chain(name.start..picked).skip(1);
    let others = around.filter(|at| addresses.may(*at));
    if name_is_one_server {
        // In the order in which they stand: families take turns in it.
        rivals.extend(others);
    } else {
        let family = addresses.is_v6(picked);
        let others = others.filter(|at| addresses.is_v6(*at) != family);
        rivals.extend(others.min_by_key(|at| addresses.active(*at)));
    }
    rivals
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    struct Address {
        may: bool,
        v6: bool,
        active: u32,
    }

    #[derive(Debug)]
    struct Name(Vec<Address>);

    impl Addresses for Name {
        fn may(&self, at: u16) -> bool {
            self.0[usize::from(at)].may
        }

        fn is_v6(&self, at: u16) -> bool {
            self.0[usize::from(at)].v6
        }

        fn active(&self, at: u16) -> u32 {
            self.0[usize::from(at)].active
        }
    }

    fn names() -> impl Strategy<Value = (Name, u16, u16)> {
        let address = (any::<bool>(), any::<bool>(), 0..4_u32);
        let address = address.prop_map(|(may, v6, active)| Address { may, v6, active });
        let all = prop::collection::vec(address, 1..12);
        (all, any::<u16>(), any::<u16>()).prop_map(|(all, start, picked)| {
            let start = start % all.len() as u16;
            let picked = start + picked % (all.len() as u16 - start);
            (Name(all), start, picked)
        })
    }

    proptest! {
        #[test]
        fn a_name_that_is_one_server_races_all_its_addresses((name, start, picked) in names()) {
            let range = start..name.0.len() as u16;
            let rivals = rivals(picked, range.clone(), true, &name);
            prop_assert_eq!(rivals[0], picked);
            let mut sorted = rivals.clone();
            sorted.sort_unstable();
            let due = range.clone().filter(|at| *at == picked || name.may(*at));
            prop_assert_eq!(sorted, due.collect::<Vec<_>>());
            // Round the circle, from the picked one on.
            let len = range.len() as u16;
            let distance = |at: &u16| (at + len - picked) % len;
            prop_assert!(rivals.iter().map(distance).is_sorted());
        }

        #[test]
        fn servers_by_themselves_race_one_of_the_other_family((name, start, picked) in names()) {
            let range = start..name.0.len() as u16;
            let rivals = rivals(picked, range.clone(), false, &name);
            let others = || range.clone()
                .filter(|at| *at != picked && name.may(*at) && name.is_v6(*at) != name.is_v6(picked));
            prop_assert_eq!(rivals[0], picked);
            prop_assert_eq!(rivals.len(), 1 + usize::from(others().next().is_some()));
            if let Some(other) = rivals.get(1) {
                prop_assert!(others().any(|at| at == *other));
                prop_assert!(others().all(|at| name.active(at) >= name.active(*other)));
            }
        }
    }
}
