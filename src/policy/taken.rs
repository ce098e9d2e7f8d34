//! Places that are all taken: whoever has most of them gives one up for whoever has fewer, so
//! that nobody who came first has all.
//!
//! A client may have every place as long as nobody else wants one. Then one of its own makes
//! room, the one that it took last, unless the other would have as many as it is left with: so
//! what is taken evens out, and comes to rest. (The shares of [`super::shares`] keep places free
//! instead; here each place that is free is one that could be of use.)
//!
//! Invariant: a place is one client's. Everything is O(log n).

use std::collections::{BTreeMap, BTreeSet};

use super::client::Client;

/// See the module's documentation.
#[derive(Debug)]
pub struct TakenPlaces<K> {
    /// Whose each is, and the how manieth that was taken.
    places: BTreeMap<K, (Client, u64)>,
    /// Those of each client, in the order in which they were taken.
    clients: BTreeMap<Client, BTreeMap<u64, K>>,
    /// Clients by how many they have.
    ranked: BTreeSet<(usize, Client)>,
    taken: u64,
}

impl<K> Default for TakenPlaces<K> {
    fn default() -> Self {
        Self {
            places: BTreeMap::new(),
            clients: BTreeMap::new(),
            ranked: BTreeSet::new(),
            taken: 0,
        }
    }
}

impl<K: Copy + Ord> TakenPlaces<K> {
    /// A place is this client's.
    pub fn take(&mut self, place: K, client: Client) {
        self.free(place);
        self.taken += 1;
        self.places.insert(place, (client, self.taken));
        let taken = self.taken;
        self.change(client, |its| its.insert(taken, place));
    }

    /// It is nobody's again.
    pub fn free(&mut self, place: K) {
        if let Some((client, taken)) = self.places.remove(&place) {
            self.change(client, |its| its.remove(&taken));
        }
    }

    /// None is free, and this client wants one: which makes room, if one does. It is nobody's
    /// from now on.
    pub fn makes_room(&mut self, client: Client) -> Option<K> {
        let (most, of) = *self.ranked.last()?;
        let has = self.clients.get(&client).map_or(0, BTreeMap::len);
        if most < has + 2 {
            return None;
        }
        let place = *self.clients.get(&of)?.values().next_back()?;
        self.free(place);
        Some(place)
    }

    fn change(&mut self, client: Client, change: impl FnOnce(&mut BTreeMap<u64, K>) -> Option<K>) {
        let its = self.clients.entry(client).or_default();
        let before = its.len();
        change(its);
        let now = its.len();
        if now == 0 {
            self.clients.remove(&client);
        }
        self.ranked.remove(&(before, client));
        if now > 0 {
            self.ranked.insert((now, client));
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    fn client(last: u8) -> Client {
        Client::from(Some(IpAddr::from([10, 0, 0, last])))
    }

    /// As many as `places` wants, one after the other; what each has then.
    fn share_out(wants: &[(u8, usize)], places: usize) -> Vec<usize> {
        let mut taken = TakenPlaces::default();
        let mut has = BTreeMap::<u8, usize>::new();
        let mut owner = BTreeMap::new();
        let mut free: Vec<usize> = (0..places).collect();
        for (of, wanted) in wants {
            for _ in 0..*wanted {
                let place = free.pop().or_else(|| taken.makes_room(client(*of)));
                let Some(place) = place else { continue };
                if let Some(before) = owner.insert(place, *of) {
                    *has.entry(before).or_default() -= 1;
                }
                *has.entry(*of).or_default() += 1;
                taken.take(place, client(*of));
            }
        }
        has.into_values().collect()
    }

    #[test]
    fn one_alone_has_all_and_two_have_halves() {
        assert_eq!(share_out(&[(1, 100)], 10), [10]);
        assert_eq!(share_out(&[(1, 100), (2, 100)], 10), [5, 5]);
        assert_eq!(share_out(&[(1, 100), (2, 3)], 10), [7, 3]);
        assert_eq!(share_out(&[(1, 100), (2, 100), (3, 100)], 10), [4, 3, 3]);
        // Who has one of as many as there are places keeps it.
        let each: Vec<(u8, usize)> = (0..20).map(|of| (of, 1)).collect();
        assert_eq!(share_out(&each, 10), [1; 10]);
    }

    #[test]
    fn the_one_taken_last_makes_room_and_a_free_one_is_nobody_s() {
        let mut taken = TakenPlaces::default();
        for place in 0..3 {
            taken.take(place, client(1));
        }
        taken.free(2);
        taken.free(2);
        assert_eq!(taken.makes_room(client(2)), Some(1));
        taken.take(1, client(2));
        assert_eq!(taken.makes_room(client(2)), None);
        assert_eq!(taken.makes_room(client(3)), None, "all would have as many");
        assert_eq!(TakenPlaces::<u8>::default().makes_room(client(1)), None);
    }
}
