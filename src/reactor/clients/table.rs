//! What is remembered of clients: how many connections each has, and how fast it has made
//! them. One table for all forwards and reactors, of a bounded number of entries.
//!
//! An entry is a client of a forward, or of a server that limits its clients, by its
//! address, or by the network around it that counts as one client. Its rate is one instant,
//! see [`ConnectRate`].
//!
//! Entries without connections whose rate is paid for are given up: at once, or, while
//! there is something to pay, when others come. If the table is full, those without
//! connections go, oldest first; those with some never do. Nothing scans.
//!
//! Shards, so that reactors seldom wait for each other: a lock is held for a lookup in a
//! map, once an accept and once an end. A shard has an equal part of the entries.
//!
//! Invariants: an entry's count is that of the [`ClientPermit`]s that live; each entry without
//! connections stands once in its shard's line.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Denied;
use crate::policy::connect_rate::ConnectRate;
use crate::policy::meter::{Buckets, Rate};
use crate::relay::id::{ForwardId, ServerId};

/// Parts of the table with a lock of their own.
const SHARDS: usize = 16;

/// Entries that are looked at, to be given up, when a client comes.
const GIVEN_UP_AT_ONCE: usize = 4;

/// Of the table.
#[derive(Debug, Clone, Copy)]
pub struct TableSettings {
    /// Entries at the most.
    pub entries_max: usize,
    /// When it is full of clients with connections, further ones are let in and not
    /// limited, or turned away.
    pub full: Full,
    /// Leading bits of an IPv4 address that make a client.
    pub prefix_v4: u8,
    /// Leading bits of an IPv6 address that make a client.
    pub prefix_v6: u8,
}

/// What happens to clients of which nothing can be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// They are let in, without limits.
    LetIn,
    /// They are turned away.
    TurnAway,
}

/// What one client of a forward or a server may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; `None`: any number.
    pub connections: Option<u32>,
    /// New ones.
    pub rate: Option<ConnectRate>,
    /// Bytes of all its sessions together, up and down.
    pub bytes: Option<[Rate; 2]>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct ClientTable {
    settings: TableSettings,
    /// Instants are counted from here.
    origin: Instant,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

/// Where a client counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::reactor) enum At {
    Forward(ForwardId),
    Server(ServerId),
}

/// A client of a forward, or of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    at: At,
    /// The beginning of its network.
    client: IpAddr,
}

#[derive(Debug, Clone, Default)]
struct Known {
    connections: u32,
    /// What its sessions have of its byte rate, if it has one.
    buckets: Option<Arc<Buckets>>,
    /// When what it has made is paid for, and what it has moved.
    paid: Duration,
    /// When its last connection ended; tells its true place in the line.
    idle_since: Duration,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Key, Known>,
    /// Those without connections, and since when. Some have connections again, or a later
    /// place: these are skipped.
    idle: VecDeque<(Key, Duration)>,
}

/// A connection that counts. Dropped, it counts no more.
#[derive(Debug)]
pub(in crate::reactor) struct ClientPermit {
    table: Arc<ClientTable>,
    key: Key,
    buckets: Option<Arc<Buckets>>,
}

impl ClientPermit {
    /// What all sessions of its client share, if its bytes are limited.
    pub(super) fn buckets(&self) -> Option<Arc<Buckets>> {
        self.buckets.clone()
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        self.table.leave(self.key);
    }
}

impl ClientTable {
    /// An empty one.
    pub fn new(settings: TableSettings) -> Self {
        Self {
            settings,
            origin: Instant::now(),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Entries now.
    pub fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|it| lock(it).entries.len()).sum()
    }

    /// Whether nothing is remembered of anybody.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Connections that count now.
    pub fn connections(&self) -> u64 {
        let counts = |shard: &Mutex<Shard>| -> u64 {
            let shard = lock(shard);
            let counts = shard.entries.values().map(|it| u64::from(it.connections));
            counts.sum()
        };
        self.shards.iter().map(counts).sum()
    }

    /// Lets a client in, if its limits permit; `None` if nothing can be remembered of it
    /// and it is let in all the same.
    pub(in crate::reactor) fn admit(
        this: &Arc<Self>,
        at: At,
        client: IpAddr,
        limits: &Limits,
        now: Instant,
    ) -> Result<Option<ClientPermit>, Denied> {
        let key = Key {
            at,
            client: this.network(client),
        };
        let now = now.saturating_duration_since(this.origin);
        let most = this.settings.entries_max.div_ceil(SHARDS);
        let mut shard = this.shard(&key);
        match shard.admit(key, limits, now, most) {
            Ok(buckets) => Ok(Some(ClientPermit {
                table: this.clone(),
                key,
                buckets,
            })),
            Err(Denied::TableFull) if this.settings.full == Full::LetIn => Ok(None),
            Err(denied) => Err(denied),
        }
    }

    /// Counts one more connection of a client, without a limit; `None` if nothing can be
    /// remembered of it.
    pub(in crate::reactor) fn readmit(
        this: &Arc<Self>,
        at: At,
        client: IpAddr,
        limits: &Limits,
    ) -> Option<ClientPermit> {
        let free = Limits {
            connections: None,
            rate: None,
            ..*limits
        };
        let permit = Self::admit(this, at, client, &free, Instant::now());
        permit.ok().flatten()
    }

    /// Clients whose connections are not paid for, and how long until they are.
    pub fn owed(&self) -> Vec<(ForwardId, IpAddr, Duration)> {
        let now = self.origin.elapsed();
        let mut owed = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let all = shard.entries.iter().map(|(key, it)| (key, it.paid));
            owed.extend(all.filter_map(|(key, paid)| {
                let ahead = paid.checked_sub(now).filter(|ahead| !ahead.is_zero())?;
                match key.at {
                    At::Forward(forward) => Some((forward, key.client, ahead)),
                    At::Server(_) => None,
                }
            }));
        }
        owed
    }

    /// A client of the process before owes so much still. One that nothing can be remembered
    /// of owes nothing.
    pub fn owe(&self, forward: ForwardId, client: IpAddr, ahead: Duration) {
        let client = self.network(client);
        let at = At::Forward(forward);
        let (key, now) = (Key { at, client }, self.origin.elapsed());
        let most = self.settings.entries_max.div_ceil(SHARDS);
        self.shard(&key).owe(key, now + ahead, now, most);
    }

    fn leave(&self, key: Key) {
        let now = self.origin.elapsed();
        self.shard(&key).leave(key, now);
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(key) as usize;
        lock(&self.shards[hash % SHARDS])
    }

    fn network(&self, client: IpAddr) -> IpAddr {
        let TableSettings {
            prefix_v4,
            prefix_v6,
            ..
        } = self.settings;
        match client.to_canonical() {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix_v4)).unwrap_or(0);
                IpAddr::V4((ip.to_bits() & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix_v6));
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask.unwrap_or(0)))
            }
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn admit(
        &mut self,
        key: Key,
        limits: &Limits,
        now: Duration,
        most: usize,
    ) -> Result<Option<Arc<Buckets>>, Denied> {
        for _ in 0..GIVEN_UP_AT_ONCE {
            if !self.give_up_first(|entry| entry.paid <= now) {
                break;
            }
        }
        if !self.entries.contains_key(&key)
            && self.entries.len() >= most
            && !self.give_up_first(|_| true)
        {
            return Err(Denied::TableFull);
        }
        let known = self.entries.get(&key).cloned();
        let mut entry = known.unwrap_or_default();
        if limits
            .connections
            .is_some_and(|max| entry.connections >= max)
        {
            return Err(Denied::Connections);
        }
        if let Some(rate) = limits.rate {
            entry.paid = rate.take(entry.paid, now).ok_or(Denied::Rate)?;
        }
        entry.connections += 1;
        let buckets = limits.bytes.map(|rates| {
            let known = entry.buckets.take();
            // A reload may have changed them.
            known
                .inspect(|it| it.set_rates(rates))
                .unwrap_or_else(|| Arc::new(Buckets::new(rates)))
        });
        entry.buckets.clone_from(&buckets);
        self.entries.insert(key, entry);
        Ok(buckets)
    }

    fn owe(&mut self, key: Key, paid: Duration, now: Duration, most: usize) {
        if let Some(known) = self.entries.get_mut(&key) {
            known.paid = known.paid.max(paid);
        } else if self.entries.len() < most {
            let known = Known {
                paid,
                idle_since: now,
                ..Known::default()
            };
            self.entries.insert(key, known);
            self.idle.push_back((key, now));
        }
    }

    fn leave(&mut self, key: Key, now: Duration) {
        let Some(entry) = self.entries.get_mut(&key) else {
            debug_assert!(false, "a permit of nobody");
            return;
        };
        entry.connections -= 1;
        if entry.connections > 0 {
            return;
        }
        if let Some(buckets) = &entry.buckets {
            // Forgotten sooner, it would have its burst again at each connection.
            entry.paid = entry.paid.max(now + buckets.burst());
        }
        if entry.paid <= now {
            self.entries.remove(&key);
            return;
        }
        entry.idle_since = now;
        self.idle.push_back((key, now));
        if self.idle.len() > 2 * self.entries.len() + GIVEN_UP_AT_ONCE {
            let entries = &self.entries;
            self.idle
                .retain(|(key, since)| stands(entries, key, *since).is_some());
        }
    }

    /// Gives up the first in the line, if it may be; those that only seem to stand there
    /// do so in any case. Whether there may be more.
    fn give_up_first(&mut self, may: impl FnOnce(&Known) -> bool) -> bool {
        while let Some((key, since)) = self.idle.front().copied() {
            match stands(&self.entries, &key, since) {
                None => {
                    self.idle.pop_front();
                }
                Some(entry) if may(entry) => {
                    self.entries.remove(&key);
                    self.idle.pop_front();
                    return true;
                }
                Some(_) => return false,
            }
        }
        false
    }
}

/// The entry that has this place in the line.
fn stands<'e>(entries: &'e HashMap<Key, Known>, key: &Key, since: Duration) -> Option<&'e Known> {
    let entry = entries.get(key)?;
    (entry.connections == 0 && entry.idle_since == since).then_some(entry)
}

#[cfg(test)]
mod tests;
