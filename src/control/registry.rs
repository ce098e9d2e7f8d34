//! Identities from names: the same name keeps its identity from one configuration to
//! the next, and a number that was handed out once never stands for anything else.

use std::collections::HashMap;
use std::hash::Hash;

/// Identities of one kind.
#[derive(Debug)]
pub(super) struct Registry<N, I> {
    known: HashMap<N, I>,
    next: u32,
    make: fn(u32) -> I,
}

impl<N: Eq + Hash, I: Copy> Registry<N, I> {
    /// An empty one; `make` is the constructor of the identity.
    pub(super) fn new(make: fn(u32) -> I) -> Self {
        Self {
            known: HashMap::new(),
            next: 0,
            make,
        }
    }

    /// Forgets names; their numbers are not handed out again.
    pub(super) fn retain(&mut self, keep: impl Fn(&N, &I) -> bool) {
        self.known.retain(|name, id| keep(name, id));
    }

    /// The identity of a name: the one it has, or the next that nobody ever had.
    pub(super) fn id(&mut self, name: N) -> I {
        let (next, make) = (&mut self.next, self.make);
        *self.known.entry(name).or_insert_with(|| {
            *next += 1;
            make(*next - 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::id::ForwardId;

    #[test]
    fn a_name_keeps_its_identity() {
        let mut registry = Registry::new(ForwardId::new);
        let (web, db) = (registry.id("web"), registry.id("db"));
        assert_ne!(web, db);
        assert_eq!(registry.id("web"), web);
    }
}
