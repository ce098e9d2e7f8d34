//! What the slots of a reactor hold: sessions, and connections made ahead of one.

use super::Entry;
use super::clients::ClientPermit;
use super::destination::Destination;
use super::gate::RivalPlace;
use crate::balance::health::Admission;
use crate::engine::SessionKey;
use crate::engine::slab::Slab;
use crate::relay::id::PoolId;
use crate::relay::time::Time;

/// A connection without a client: see `Engine::connect_ahead`.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) purpose: Purpose,
    pub(super) destination: Destination,
    /// When it was started.
    pub(super) since: Time,
    /// Its close was asked for.
    pub(super) closing: bool,
    /// The place that it has among its client's sessions at its server.
    pub(super) seat: Option<ClientPermit>,
    /// What it is counted by, of a race that has more than one.
    pub(super) _place: Option<RivalPlace>,
}

/// Why a connection is made ahead.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// One of several that are made for a session; the first to stand wins.
    Rival {
        /// The session.
        of: SessionKey,
        /// Its place in the race.
        index: u16,
        admission: Admission,
    },
    /// For whoever comes next.
    Spare {
        /// Of which pool.
        upstream: PoolId,
        connected: bool,
    },
}

#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are sessions; those made ahead are few"
)]
enum Occupant {
    Session(Entry),
    Ahead(Ahead),
}

/// Sessions and connections made ahead, by key.
#[derive(Debug)]
pub(super) struct Sessions {
    slots: Slab<Occupant>,
    ahead: usize,
}

impl Sessions {
    pub(super) const fn new() -> Self {
        Self {
            slots: Slab::new(),
            ahead: 0,
        }
    }

    /// Sessions that live.
    pub(super) const fn len(&self) -> usize {
        self.slots.len() - self.ahead
    }

    /// Connections made ahead, those that are being closed included.
    pub(super) const fn ahead_count(&self) -> usize {
        self.ahead
    }

    /// The key that the next insertion returns.
    pub(super) fn reserve(&mut self) -> Option<SessionKey> {
        self.slots.reserve()
    }

    pub(super) fn insert(&mut self, entry: Entry) -> Option<SessionKey> {
        self.slots.insert(Occupant::Session(entry))
    }

    pub(super) fn get(&self, key: SessionKey) -> Option<&Entry> {
        match self.slots.get(key)? {
            Occupant::Session(entry) => Some(entry),
            Occupant::Ahead(_) => None,
        }
    }

    pub(super) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Entry> {
        match self.slots.get_mut(key)? {
            Occupant::Session(entry) => Some(entry),
            Occupant::Ahead(_) => None,
        }
    }

    /// The session that lives in a slot.
    pub(super) fn key_of(&self, slot: u32) -> Option<SessionKey> {
        let key = self.slots.key_of(slot)?;
        self.get(key).map(|_| key)
    }

    /// The sessions that live in these slots.
    pub(super) fn in_slots(
        &self,
        slots: std::ops::Range<u32>,
    ) -> impl Iterator<Item = (SessionKey, &Entry)> {
        slots.filter_map(|slot| {
            let key = self.key_of(slot)?;
            Some((key, self.get(key)?))
        })
    }

    pub(super) fn remove(&mut self, key: SessionKey) -> Option<Entry> {
        self.get(key)?;
        match self.slots.remove(key)? {
            Occupant::Session(entry) => Some(entry),
            Occupant::Ahead(_) => None,
        }
    }

    /// Slots so far: every session has one below.
    pub(super) const fn slots(&self) -> u32 {
        self.slots.slots()
    }

    /// Every session, in slot order.
    pub(super) fn keys(&self) -> impl Iterator<Item = SessionKey> + '_ {
        let keys = self.slots.keys();
        keys.filter(|key| self.get(*key).is_some())
    }

    // Made ahead.

    pub(super) fn insert_ahead(&mut self, ahead: Ahead) -> Option<SessionKey> {
        let key = self.slots.insert(Occupant::Ahead(ahead));
        self.ahead += usize::from(key.is_some());
        key
    }

    pub(super) fn ahead(&self, key: SessionKey) -> Option<&Ahead> {
        match self.slots.get(key)? {
            Occupant::Ahead(ahead) => Some(ahead),
            Occupant::Session(_) => None,
        }
    }

    pub(super) fn ahead_mut(&mut self, key: SessionKey) -> Option<&mut Ahead> {
        match self.slots.get_mut(key)? {
            Occupant::Ahead(ahead) => Some(ahead),
            Occupant::Session(_) => None,
        }
    }

    pub(super) fn remove_ahead(&mut self, key: SessionKey) -> Option<Ahead> {
        self.ahead(key)?;
        match self.slots.remove(key)? {
            Occupant::Ahead(ahead) => {
                self.ahead -= 1;
                Some(ahead)
            }
            Occupant::Session(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an idle session takes of the reactor, besides the slot's generation and its timer.
    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<Entry>() <= 224);
        // Those made ahead cost a session nothing.
        assert_eq!(size_of::<Occupant>(), size_of::<Entry>());
    }
}
