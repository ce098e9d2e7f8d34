//! The servers that one session has tried.

/// A small set of positions in a set of servers. The first 64 stand inline, so
/// that a session of an ordinary pool allocates nothing for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried {
    first: u64,
    /// Positions from 64 on, as far as the highest one that was inserted.
    beyond: Box<[u64]>,
    len: u16,
}

impl Tried {
    /// Adds a server; nothing changes if it is in the set already.
    pub fn insert(&mut self, server: u16) {
        if self.contains(server) {
            return;
        }
        let (word, bit) = (usize::from(server / 64), 1 << (server % 64));
        if word == 0 {
            self.first |= bit;
        } else {
            if self.beyond.len() < word {
                let mut grown = self.beyond.to_vec();
                grown.resize(word, 0);
                self.beyond = grown.into_boxed_slice();
            }
            self.beyond[word - 1] |= bit;
        }
        // Not 65536: servers are numbered up to 65534 (a set has at most 65535).
        self.len = self.len.saturating_add(1);
    }

    /// Whether a server is in the set.
    pub fn contains(&self, server: u16) -> bool {
        let (word, bit) = (usize::from(server / 64), 1 << (server % 64));
        let bits = match word {
            0 => self.first,
            further => self.beyond.get(further - 1).copied().unwrap_or(0),
        };
        bits & bit != 0
    }

    /// The servers in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        let words = std::iter::once(self.first).chain(self.beyond.iter().copied());
        let words = words.enumerate().filter(|(_, word)| *word != 0);
        words.flat_map(|(at, word)| {
            let bits = (0..64).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| (at * 64 + bit) as u16)
        })
    }

    /// How many servers are in the set.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether none is.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_set_holds_nothing() {
        let tried = Tried::default();
        assert!(tried.is_empty());
        assert!(!tried.contains(0) && !tried.contains(64) && !tried.contains(u16::MAX));
    }

    proptest! {
        #[test]
        fn it_holds_what_was_inserted_and_nothing_else(
            servers in prop::collection::vec(0..700_u16, 0..50),
        ) {
            let mut tried = Tried::default();
            for server in &servers {
                tried.insert(*server);
            }
            let expected: BTreeSet<u16> = servers.into_iter().collect();
            prop_assert_eq!(tried.len(), expected.len());
            prop_assert!(tried.iter().eq(expected.iter().copied()));
            for server in 0..800 {
                prop_assert_eq!(tried.contains(server), expected.contains(&server));
            }
        }
    }
}
