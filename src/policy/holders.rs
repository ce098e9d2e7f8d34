//! Who holds how much for slow receivers, and how much more each may: what nobody has to
//! configure.
//!
//! What one fill reads and its sink does not take is held. A client may hold as much as is
//! still free of what may be held in all, and one session an eighth of that (`OF_A_SESSION`). So
//! one client that has receivers stall takes half of all, another one half of the rest, and who
//! holds little goes on as if nobody held anything: whoever holds most gives first. (The
//! dynamic thresholds of [`super::shares`].)
//!
//! Kept only while half of what may be held is: less than that nobody's share is. Invariant:
//! what a client holds is the sum of what its sessions hold. Everything is O(log n).

use std::collections::BTreeMap;

use super::client::Client;

/// What is free, by what one session may hold of it. Few sessions ever hold more than two
/// pipes: this matters where little may be held, or little is left.
const OF_A_SESSION: u64 = 8;

/// See the module's documentation.
#[derive(Debug)]
pub struct Holders<K> {
    sessions: BTreeMap<K, Held>,
    clients: BTreeMap<Client, u64>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    client: Client,
    bytes: u64,
}

impl<K> Default for Holders<K> {
    fn default() -> Self {
        Self {
            sessions: BTreeMap::new(),
            clients: BTreeMap::new(),
        }
    }
}

impl<K: Copy + Ord> Holders<K> {
    /// A session of this client holds so many bytes now.
    pub fn holds(&mut self, key: K, client: Client, bytes: u64) {
        let same = self.sessions.get(&key);
        if same.is_some_and(|it| it.bytes == bytes && it.client == client) {
            return;
        }
        self.leave(key);
        if bytes > 0 {
            self.sessions.insert(key, Held { client, bytes });
            *self.clients.entry(client).or_default() += bytes;
        }
    }

    /// A session is over.
    pub fn leave(&mut self, key: K) {
        let Some(Held { client, bytes }) = self.sessions.remove(&key) else {
            return;
        };
        if let Some(sum) = self.clients.get_mut(&client) {
            *sum -= bytes;
            if *sum == 0 {
                self.clients.remove(&client);
            }
        }
    }

    /// How much more a session of this client may hold while so much is free. Clients of
    /// unix sockets are as many as they are: only their sessions have shares.
    pub fn may_hold(&self, key: K, client: Client, free: u64) -> u64 {
        let of_session = self.sessions.get(&key).map_or(0, |it| it.bytes);
        let more = (free / OF_A_SESSION).saturating_sub(of_session);
        if !client.is_remote() {
            return more;
        }
        let of_client = self.clients.get(&client).copied().unwrap_or(0);
        // What it takes is free no more.
        more.min(free.saturating_sub(of_client) / 2)
    }

    /// Panics when the books do not close, or when somebody is in them who is not there.
    pub fn check_invariants(&self, lives: impl Fn(K) -> bool) {
        let mut sums: BTreeMap<Client, u64> = BTreeMap::new();
        for (key, held) in &self.sessions {
            assert!(lives(*key) && held.bytes > 0, "it holds nothing any more");
            *sums.entry(held.client).or_default() += held.bytes;
        }
        assert_eq!(sums, self.clients, "what clients hold");
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    const LIMIT: u64 = 1 << 20;
    const PAGE: u64 = 4096;

    fn client(number: u8) -> Client {
        Client::from(Some(IpAddr::from([10, 0, 0, number])))
    }

    /// As a lane does: a page is read whatever may be held.
    fn stall(holders: &mut Holders<u32>, key: u32, whose: Client, wanted: u64) -> u64 {
        let free = LIMIT.saturating_sub(holders.clients.values().sum());
        let held = wanted.min(holders.may_hold(key, whose, free).max(PAGE));
        holders.holds(key, whose, held);
        held
    }

    #[test]
    fn whoever_holds_most_gives_first() {
        let mut holders = Holders::default();
        let greedy = client(1);
        let most: u64 = (0..40)
            .map(|key| stall(&mut holders, key, greedy, 64 * 1024))
            .sum();
        assert!(most > LIMIT / 2, "{most}");
        assert!(most < LIMIT / 2 + 40 * PAGE, "{most}");
        assert_eq!(stall(&mut holders, 100, greedy, 64 * 1024), PAGE);
        // Somebody else has as much as it asks for.
        assert_eq!(stall(&mut holders, 101, client(2), 32 * 1024), 32 * 1024);
    }

    #[test]
    fn one_session_has_a_part_of_what_is_free_and_unix_clients_no_other_bound() {
        let mut holders = Holders::default();
        assert_eq!(holders.may_hold(1, client(1), LIMIT), LIMIT / 8);
        holders.holds(1, client(1), LIMIT / 16);
        assert_eq!(holders.may_hold(1, client(1), LIMIT), LIMIT / 16);
        assert_eq!(holders.may_hold(2, client(1), LIMIT), LIMIT / 8);
        let local = Client::from(None);
        for key in 10..30 {
            holders.holds(key, local, LIMIT / 8);
        }
        assert_eq!(holders.may_hold(9, local, LIMIT), LIMIT / 8);
        assert_eq!(holders.may_hold(10, local, LIMIT), 0);
    }

    proptest! {
        /// However greedy others are, a client that comes finds half of what was there before
        /// each of them, less the pages that they read whatever they may hold.
        #[test]
        fn greed_of_several_leaves_a_share(
            greedy in 1..12_u8,
            order in prop::collection::vec((0..12_u8, 1..256_u64), 1..300),
        ) {
            let mut holders = Holders::default();
            for (key, (who, pages)) in order.iter().enumerate() {
                let held = stall(&mut holders, key as u32, client(who % greedy), pages * PAGE);
                prop_assert!(held <= pages * PAGE);
            }
            let held: u64 = holders.clients.values().sum();
            let pages = order.len() as u64 * PAGE;
            let least = (LIMIT >> greedy).saturating_sub(pages);
            prop_assert!(LIMIT.saturating_sub(held) >= least, "{held}");
            holders.check_invariants(|_| true);
        }

        #[test]
        fn the_books_are_those_of_a_count(
            steps in prop::collection::vec((0..20_u32, 0..4_u8, 0..3_u64), 0..200),
        ) {
            let mut holders = Holders::default();
            let mut known = BTreeMap::new();
            for (key, whose, bytes) in steps {
                if whose == 3 {
                    holders.leave(key);
                    known.remove(&key);
                } else {
                    holders.holds(key, client(whose), bytes);
                    known.insert(key, bytes);
                }
                holders.check_invariants(|key| known.get(&key).is_some_and(|it| *it > 0));
                let sum: u64 = known.values().sum();
                prop_assert_eq!(holders.clients.values().sum::<u64>(), sum);
            }
        }
    }
}
