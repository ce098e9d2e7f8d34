//! Storage by slot: [`Slab`] hands slots out with generations, [`Slots`] follows
//! another's slots.
//!
//! Both grow by pages that never move: no reallocation doubles the memory or
//! stalls a reactor with a copy, and what an idle session costs is what it holds.
//! Freed slots are used again, the latest first: it is still in the cache.

use std::marker::PhantomData;

use super::key::{Key, SessionKey};

/// Slots to a page: large enough that the page table is small, small enough
/// that the last page wastes little.
const PAGE: usize = 64;

const NO_SLOT: u32 = u32::MAX;

/// Values by key.
#[derive(Debug)]
pub struct Slab<T, K = SessionKey> {
    pages: Vec<Box<[Entry<T>]>>,
    free: u32,
    len: u32,
    keys: PhantomData<K>,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    next_free: u32,
    value: Option<T>,
}

impl<T> Entry<T> {
    fn is_of(&self, key: impl Key) -> bool {
        self.generation == key.generation()
    }
}

impl<T, K: Key> Slab<T, K> {
    /// An empty slab; allocates nothing.
    pub const fn new() -> Self {
        Self {
            pages: Vec::new(),
            free: NO_SLOT,
            len: 0,
            keys: PhantomData,
        }
    }

    /// Values in it.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Slots so far, in use or free: every key has one below.
    pub const fn slots(&self) -> u32 {
        (self.pages.len() * PAGE) as u32
    }

    /// Whether it is empty.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The key that the next [`Slab::insert`] returns; `None` when full.
    pub fn reserve(&mut self) -> Option<K> {
        if self.free == NO_SLOT {
            self.grow()?;
        }
        let slot = self.free;
        Some(K::new(slot, self.entry(slot).generation))
    }

    /// Stores a value; `None` (and the value dropped) when a billion are stored.
    pub fn insert(&mut self, value: T) -> Option<K> {
        let key = self.reserve()?;
        let entry = self.entry_mut(key.slot());
        let next = entry.next_free;
        entry.value = Some(value);
        self.free = next;
        self.len += 1;
        Some(key)
    }

    /// The value of a key, unless it is stale.
    pub fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let entry = self
            .pages
            .get_mut(key.slot() as usize / PAGE)?
            .get_mut(key.slot() as usize % PAGE)?;
        if entry.is_of(key) {
            entry.value.as_mut()
        } else {
            None
        }
    }

    /// The value of a key, unless it is stale.
    pub fn get(&self, key: K) -> Option<&T> {
        let entry = self
            .pages
            .get(key.slot() as usize / PAGE)?
            .get(key.slot() as usize % PAGE)?;
        if entry.is_of(key) {
            entry.value.as_ref()
        } else {
            None
        }
    }

    /// The key that now lives in a slot.
    pub fn key_of(&self, slot: u32) -> Option<K> {
        let entry = self
            .pages
            .get(slot as usize / PAGE)?
            .get(slot as usize % PAGE)?;
        let key = || K::new(slot, entry.generation);
        entry.value.as_ref().map(|_| key())
    }

    /// Takes a value out and makes its key stale.
    pub fn remove(&mut self, key: K) -> Option<T> {
        self.get(key)?;
        let free = self.free;
        let entry = self.entry_mut(key.slot());
        let value = entry.value.take();
        entry.generation = entry.generation.wrapping_add(1);
        entry.next_free = free;
        self.free = key.slot();
        self.len -= 1;
        value
    }

    /// Every live key, in slot order.
    pub fn keys(&self) -> impl Iterator<Item = K> + '_ {
        let slots = 0..(self.pages.len() * PAGE) as u32;
        slots.filter_map(|slot| self.key_of(slot))
    }

    fn grow(&mut self) -> Option<()> {
        let first = (self.pages.len() * PAGE) as u32;
        if first >= SessionKey::SLOTS_MAX {
            return None;
        }
        let last = first + PAGE as u32 - 1;
        let page = (first..=last).map(|slot| Entry {
            generation: 0,
            next_free: if slot == last { NO_SLOT } else { slot + 1 },
            value: None,
        });
        self.pages.push(page.collect());
        self.free = first;
        Some(())
    }

    fn entry(&self, slot: u32) -> &Entry<T> {
        &self.pages[slot as usize / PAGE][slot as usize % PAGE]
    }

    fn entry_mut(&mut self, slot: u32) -> &mut Entry<T> {
        &mut self.pages[slot as usize / PAGE][slot as usize % PAGE]
    }
}

impl<T, K: Key> Default for Slab<T, K> {
    fn default() -> Self {
        Self::new()
    }
}

/// Values by slot, made by `Default` when a slot is first touched.
#[derive(Debug)]
pub struct Slots<T> {
    pages: Vec<Box<[T]>>,
}

impl<T: Default> Slots<T> {
    /// No slots; allocates nothing.
    pub const fn new() -> Self {
        Self { pages: Vec::new() }
    }

    /// The value of a slot, made if need be.
    pub fn touch(&mut self, slot: u32) -> &mut T {
        let page = slot as usize / PAGE;
        while self.pages.len() <= page {
            self.pages.push((0..PAGE).map(|_| T::default()).collect());
        }
        &mut self.pages[page][slot as usize % PAGE]
    }

    /// The value of a slot that was touched.
    pub fn get(&self, slot: u32) -> Option<&T> {
        self.pages
            .get(slot as usize / PAGE)?
            .get(slot as usize % PAGE)
    }

    /// The value of a slot that was touched.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.pages
            .get_mut(slot as usize / PAGE)?
            .get_mut(slot as usize % PAGE)
    }
}

impl<T: Default> Default for Slots<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_slot_is_used_again_and_its_old_key_is_stale() {
        let mut slab: Slab<_> = Slab::new();
        let first = slab.insert("first").unwrap();
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second").unwrap();
        assert_eq!(second.slot, first.slot);
        assert_eq!((slab.get(first), slab.get(second)), (None, Some(&"second")));
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn a_reserved_key_is_the_one_inserted_next() {
        let mut slab: Slab<_> = Slab::new();
        for n in 0..200 {
            let reserved = slab.reserve().unwrap();
            assert_eq!(slab.insert(n), Some(reserved));
        }
        assert_eq!(slab.keys().count(), 200);
    }
}
