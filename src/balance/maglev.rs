//! Maglev: a table that maps the hash of a client to a server, so that every
//! machine with the same servers has the same table (Eisenbud and others, "Maglev:
//! A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4).
//!
//! Each server has a permutation of the entries, drawn from its name alone. The
//! servers take turns, in the order of their names and in proportion to their
//! weights, and at each turn a server takes the first entry of its permutation
//! that is still free. So shares follow the weights, and a table without one
//! server differs little from the table with it, beyond that server's own entries.
//!
//! A server that is down stays in the table. Who meets it walks on to the next
//! entries: its clients spread over the others by weight, and nobody else's
//! client moves, neither when it goes nor when it returns.
//!
//! Built once and then only read; one table serves every reactor.

use super::hash::{GOLDEN, mix, server_key};

/// Entries of a table: a prime, so that every step through it visits every entry.
///
/// One size for any number of servers. A size that followed the number would
/// change at some number, and there a single server more or less would move
/// nearly every client. 65537 is the small size of the paper: a server with a share
/// of 100 entries or more, such as one of 655 equals, is within 1 % of it. 128 KiB,
/// of which a pick reads one line.
const ENTRIES: usize = 65_537;

/// The walk past servers that are down looks at so many entries for each server of
/// the pool. With a single one of equals left up, 3 clients in 10,000 need more.
const WALK: usize = 8;

/// But at no more than this. With one server of a hundred open, 6 clients in 1000 need
/// more.
const WALK_MAX: usize = 512;

/// The table of a pool.
#[derive(Debug)]
pub(super) struct Maglev {
    /// The server of each entry; none at all if no server has a weight.
    entries: Box<[u16]>,
    /// The identity of each server, by position.
    keys: Box<[u64]>,
}

impl Maglev {
    /// For servers with these names and weights, at most 65535 of them.
    pub(super) fn new(servers: &[(&str, u32)]) -> Self {
        let mut seats = seats(servers);
        let mut keys = vec![0; servers.len()];
        for seat in &seats {
            keys[usize::from(seat.server)] = seat.key;
        }
        seats.retain(|seat| seat.weight > 0);
        Self {
            entries: fill(&mut seats),
            keys: keys.into(),
        }
    }

    /// The server for a client: the first one that is open, from the client's entry
    /// on. Moves no client of a server that stays open, whichever others close. `None`
    /// after a bounded walk, when nearly every server is closed: then each server has a
    /// [`Self::lot`] for each client, and the highest wins.
    pub(super) fn walk(&self, key: u64, open: impl Fn(u16) -> bool) -> Option<u16> {
        let start = (key % (self.entries.len() as u64).max(1)) as usize;
        let (before, after) = self.entries.split_at(start);
        let len = WALK_MAX.min(WALK * self.keys.len());
        let mut walk = after.iter().chain(before).take(len);
        walk.find(|server| open(**server)).copied()
    }

    /// What a server has drawn for a client (rendezvous hashing): as stable as the walk,
    /// but blind to weights.
    pub(super) fn lot(&self, key: u64, server: u16) -> u64 {
        mix(key ^ self.keys[usize::from(server)])
    }
}

/// What a block of servers has drawn for a client, where there are more than 64.
pub(super) fn lot_of_block(key: u64, level: usize, block: usize) -> u64 {
    mix(key ^ mix(GOLDEN.wrapping_mul((block as u64) << 8 | level as u64)))
}

/// A server while the table is filled.
struct Seat {
    server: u16,
    weight: u32,
    key: u64,
    /// The entry that its permutation comes to next, and its step.
    next: usize,
    step: usize,
    /// Grows by its weight in each round; the highest weight buys a turn.
    credit: u64,
}

/// The servers in the order of their names, whatever the order of the list. Several
/// of one name are told apart by their number, heavier ones first.
fn seats(servers: &[(&str, u32)]) -> Vec<Seat> {
    let mut order: Vec<usize> = (0..servers.len()).collect();
    order.sort_by(|a, b| {
        let ((name, weight), (other, others_weight)) = (servers[*a], servers[*b]);
        name.cmp(other).then(others_weight.cmp(&weight))
    });
    let mut occurrence = 0;
    let mut earlier = None;
    let mut seats = Vec::with_capacity(order.len());
    for index in order {
        let (name, weight) = servers[index];
        occurrence = if earlier == Some(name) {
            occurrence + 1
        } else {
            0
        };
        earlier = Some(name);
        let key = server_key(name, occurrence);
        seats.push(Seat {
            server: index as u16,
            weight,
            key,
            next: (key % ENTRIES as u64) as usize,
            step: (mix(key ^ GOLDEN) % (ENTRIES as u64 - 1)) as usize + 1,
            credit: 0,
        });
    }
    seats
}

/// The entries, taken in turns. No seat has the weight 0.
fn fill(seats: &mut [Seat]) -> Box<[u16]> {
    let Some(price) = seats.iter().map(|seat| u64::from(seat.weight)).max() else {
        return Box::default();
    };
    let mut entries: Vec<Option<u16>> = vec![None; ENTRIES];
    let mut free = ENTRIES;
    // The heaviest takes a turn in every round, so this ends.
    loop {
        for seat in &mut *seats {
            seat.credit += u64::from(seat.weight);
            if seat.credit < price {
                continue;
            }
            seat.credit -= price;
            // Ends as well: a permutation comes to every entry, and one is free.
            while entries[seat.next].is_some() {
                seat.next = (seat.next + seat.step) % ENTRIES;
            }
            entries[seat.next] = Some(seat.server);
            free -= 1;
            if free == 0 {
                return entries.into_iter().flatten().collect();
            }
        }
    }
}

#[cfg(test)]
mod tests;
