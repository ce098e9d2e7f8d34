//! Which server a connection id belongs to.
//!
//! The id that a server chose stands in its long headers, in plain, and the client puts it into every packet
//! from then on: with its length where the header is long, without where it is short. So a packet that comes from
//! an address nobody knows, because a NAT forgot the port, still says whose it is. Ids that a server gives out
//! later are encrypted; a client that moves on purpose uses one of those, and is nobody's.
//!
//! Bounded: so many ids, in two generations. What was not used while a whole generation came is forgotten.

use std::collections::BTreeMap;

use super::header::{self, Form, ID_MAX};

/// Bytes of the shortest id that is looked for. One of fewer is met by chance: of three bytes, by one of 16
/// million datagrams of strangers for each id that is known.
pub const ID_MIN: usize = 4;

type Id = ([u8; ID_MAX], u8);

/// Ids, and what belongs to each.
#[derive(Debug, Clone)]
pub struct Ids<T> {
    young: BTreeMap<Id, T>,
    old: BTreeMap<Id, T>,
    /// How many of each length there are, in both.
    lengths: [usize; ID_MAX + 1],
    most: usize,
}

impl<T: Clone + PartialEq> Ids<T> {
    /// So many at the most, and two at least.
    pub fn new(most: usize) -> Self {
        Self {
            young: BTreeMap::new(),
            old: BTreeMap::new(),
            lengths: [0; ID_MAX + 1],
            most: most.max(2),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes the id that a server tells in what it sends, if it tells one.
    pub fn learn(&mut self, from_server: &[u8], belongs_to: &T) {
        let Some(Form::Long(long)) = header::read(from_server) else {
            return;
        };
        // Version 0 is an answer without a connection.
        if long.version == 0 {
            return;
        }
        let Some(id) = key(long.source) else {
            return;
        };
        if self.young.get(&id) != Some(belongs_to) {
            self.put(id, belongs_to.clone());
        }
    }

    /// Whose a datagram of a client is.
    pub fn find(&mut self, from_client: &[u8]) -> Option<T> {
        match header::read(from_client)? {
            Form::Long(long) => self.get(key(long.destination)?),
            Form::Short => {
                let id = from_client.get(1..)?;
                (ID_MIN..=ID_MAX.min(id.len()))
                    .filter(|len| self.lengths[*len] > 0)
                    .filter_map(|len| key(&id[..len]))
                    .collect::<Vec<_>>()
                    .into_iter()
                    // The longest first: it is met by chance the least.
                    .rev()
                    .find_map(|id| self.get(id))
            }
        }
    }

    /// Forgets what belongs to something that is gone.
    pub fn retain(&mut self, keeps: impl Fn(&T) -> bool) {
        let lengths = &mut self.lengths;
        for generation in [&mut self.young, &mut self.old] {
            generation.retain(|id, belongs_to| {
                let kept = keeps(belongs_to);
                lengths[usize::from(id.1)] -= usize::from(!kept);
                kept
            });
        }
    }

    /// What was not used since the last time is forgotten by the next.
    pub fn age(&mut self) {
        for id in self.old.keys() {
            self.lengths[usize::from(id.1)] -= 1;
        }
        self.old = core::mem::take(&mut self.young);
    }

    fn get(&mut self, id: Id) -> Option<T> {
        if let Some(found) = self.young.get(&id) {
            return Some(found.clone());
        }
        let found = self.old.get(&id)?.clone();
        self.put(id, found.clone());
        Some(found)
    }

    fn put(&mut self, id: Id, belongs_to: T) {
        if self.young.len() >= self.most / 2 && !self.young.contains_key(&id) {
            self.age();
        }
        let had = usize::from(self.old.remove(&id).is_some());
        let has = usize::from(self.young.insert(id, belongs_to).is_none());
        let count = &mut self.lengths[usize::from(id.1)];
        *count = *count + has - had;
    }
}

fn key(id: &[u8]) -> Option<Id> {
    if !(ID_MIN..=ID_MAX).contains(&id.len()) {
        return None;
    }
    let mut bytes = [0; ID_MAX];
    bytes[..id.len()].copy_from_slice(id);
    Some((bytes, id.len() as u8))
}
