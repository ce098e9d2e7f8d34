//! Who may have another place, and who makes room for somebody else, while places run
//! short: what nobody has to configure.
//!
//! A place is short when fewer than one in `FACTOR` + 1 is free. Then
//!
//! - a client may hold `FACTOR` times what is free, and a forward `FORWARD_FACTOR`
//!   times. However many are greedy, places stay free for those who hold little: one that
//!   takes all it can leaves a 33rd, `n` of them a `32 n + 1`th. (The dynamic thresholds by
//!   which switches share a buffer, Choudhury and Hahne 1998: no share has to be configured,
//!   and while there is plenty there is none.)
//! - a site of IPv6, a /48, may hold `SITE_FACTOR` times what is free: whoever has one has
//!   65,536 clients.
//! - the last place of a small limit, in which there is no such rest, is for a client that
//!   has none ([`Places::kept`]).
//! - when none is left at all, a session whose client has never said a byte makes room:
//!   the oldest of the client that has the most such sessions, if these are `MANY` or
//!   half of all, after `PATIENCE_OF_MANY`; or else the oldest of all, after `PATIENCE`.
//!   A session whose client has spoken never does.
//!
//! ```text
//!   plenty ──► short: shares ──► none left: the silent make room ──► who comes waits
//! ```
//! Kept only while places are short, so that it costs nothing otherwise: whoever keeps it
//! enters the sessions that there are by and by. What is not entered yet is not counted, and
//! nobody is turned away for it.
//!
//! Invariants: a session is counted once for all and once for its forward; those that are
//! thought to be silent stand in the order of their age, in both. Everything is O(log n).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::client::{Client, Site};
use crate::relay::id::ForwardId;
use crate::relay::time::Time;

/// What a client may hold is so many times what is free.
const FACTOR: u64 = 32;

/// What a site of IPv6 may hold is so many times what is free: more than a client, less than
/// a forward, so that none of them keeps those of the next kind from their last places.
const SITE_FACTOR: u64 = 48;

/// Likewise of a forward.
const FORWARD_FACTOR: u64 = 64;

/// A client with so many silent sessions waits for nothing: it has opened them ahead, or
/// to take places away. Of a limit of fewer than twice as many it is half of them.
const MANY: u32 = 32;

/// Limits below have too few places for one to be kept for anybody: who sets one means it.
const KEPT_FROM: u32 = 8;

/// How long a session of such a client may be silent when no place is left. What a client
/// says first usually comes with the first round trip.
const PATIENCE_OF_MANY: Duration = Duration::from_millis(500);

/// How long a session of any client may be.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sessions that are looked at for one that makes room. Those that turn out to have spoken
/// are not looked at again.
const LOOKED_AT: u32 = 256;

/// Places: how many there are, and how many of them are free.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// In all.
    pub max: u32,
    /// Free.
    pub free: u32,
    /// The last of them, which are for clients that have none.
    pub kept: u32,
}

impl Places {
    /// How many of a limit that somebody has set are for clients that have none.
    pub const fn kept_of(limit: u32) -> u32 {
        (limit >= KEPT_FROM && limit as u64 <= FACTOR) as u32
    }

    /// Whether they are shared out.
    pub const fn are_short(self) -> bool {
        self.free as u64 * FACTOR < self.max as u64 || self.free <= self.kept
    }

    /// As they were before the one was taken that it is about.
    #[must_use]
    pub const fn and_one(self) -> Self {
        Self {
            free: self.free.saturating_add(1),
            ..self
        }
    }
}

/// What a session is found to be when it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Its client could speak, and has not.
    Silent,
    /// Its client could not be heard yet.
    Unheard,
    /// It has spoken, or is over.
    Spoken,
}

/// By age; the number tells apart what began at one time.
type Order = (Time, u64);

/// See the module's documentation.
#[derive(Debug)]
pub struct Shares<K> {
    members: BTreeMap<K, Member>,
    all: Group<K>,
    forwards: BTreeMap<ForwardId, Group<K>>,
    entered: u64,
    /// How many keep books as these: each has about as many sessions of everybody.
    keepers: u64,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    forward: ForwardId,
    client: Client,
    /// Since when it is thought to be silent.
    silent: Option<Order>,
}

#[derive(Debug)]
struct Group<K> {
    sessions: u64,
    clients: BTreeMap<Client, Holding>,
    /// Sessions of the clients of each site of IPv6.
    sites: BTreeMap<Site, u64>,
    silent: BTreeMap<Order, K>,
    /// Clients by how many silent sessions they have.
    ranked: BTreeSet<(usize, Client)>,
}

#[derive(Debug, Default)]
struct Holding {
    sessions: u64,
    silent: BTreeSet<Order>,
}

impl<K: Copy + Ord> Shares<K> {
    /// Nobody is entered. There are so many `keepers` of a part of all sessions each.
    pub fn new(keepers: u32) -> Self {
        Self {
            members: BTreeMap::new(),
            all: Group::default(),
            forwards: BTreeMap::new(),
            entered: 0,
            keepers: u64::from(keepers.max(1)),
        }
    }

    /// A session, unless it is entered already; `silent`: since when, as far as is known.
    pub fn enter(&mut self, key: K, forward: ForwardId, client: Client, silent: Option<Time>) {
        if self.members.contains_key(&key) {
            return;
        }
        self.entered += 1;
        let member = Member {
            forward,
            client,
            silent: silent.map(|since| (since, self.entered)),
        };
        self.members.insert(key, member);
        self.all.enter(key, member);
        self.forwards.entry(forward).or_default().enter(key, member);
    }

    /// It is over. One that was not entered is none of those counted.
    pub fn leave(&mut self, key: K) {
        self.mute(key);
        if let Some(member) = self.members.remove(&key) {
            self.all.leave(member);
            if let Some(group) = self.forwards.get_mut(&member.forward) {
                group.leave(member);
                if group.sessions == 0 {
                    self.forwards.remove(&member.forward);
                }
            }
        }
    }

    /// Whether a client may have one more of these places, of all or of those of one forward.
    pub fn may_enter(&self, client: Client, of: Option<ForwardId>, places: Places) -> bool {
        if !places.are_short() || !client.is_remote() {
            return true;
        }
        let Some(group) = self.group(of) else {
            return true;
        };
        let free = u64::from(places.free);
        let here = group.clients.get(&client).map_or(0, |it| it.sessions);
        let of_network = client.site().and_then(|it| group.sites.get(&it).copied());
        if self.held_of_all(of_network.unwrap_or(0)) >= SITE_FACTOR * free {
            return false;
        }
        if places.free <= places.kept {
            return here == 0;
        }
        self.held_of_all(here) < FACTOR * free
    }

    /// Whether a forward may have one more of the places of all.
    pub fn may_grow(&self, forward: ForwardId, places: Places) -> bool {
        let held = self.forwards.get(&forward).map_or(0, |it| it.sessions);
        self.held_of_all(held) < FORWARD_FACTOR * u64::from(places.free)
    }

    /// A session that makes room for somebody who waits at a limit of so many, for any forward
    /// or for this one; it is not named again. `look` says what one is now.
    pub fn makes_room(
        &mut self,
        of: Option<ForwardId>,
        max: u32,
        now: Time,
        mut look: impl FnMut(K) -> Manner,
    ) -> Option<K> {
        let half = max / (2 * self.keepers.min(u64::from(u32::MAX / 2)) as u32);
        let many = half.clamp(2, MANY) as usize;
        for _ in 0..LOOKED_AT {
            let key = self.group(of)?.due(now, many)?;
            let member = self.members.get(&key).copied();
            self.mute(key);
            match look(key) {
                Manner::Silent => return Some(key),
                Manner::Spoken => {}
                Manner::Unheard => {
                    // Its silence has not begun.
                    self.leave(key);
                    if let Some(Member {
                        forward, client, ..
                    }) = member
                    {
                        self.enter(key, forward, client, Some(now));
                    }
                }
            }
        }
        None
    }

    fn group(&self, of: Option<ForwardId>) -> Option<&Group<K>> {
        match of {
            None => Some(&self.all),
            Some(forward) => self.forwards.get(&forward),
        }
    }

    /// What somebody holds in all, of whom so many are here: others keep about as many.
    /// One alone may be the only one.
    const fn held_of_all(&self, here: u64) -> u64 {
        match here {
            0 | 1 => here,
            _ => (here - 1) * self.keepers + 1,
        }
    }

    /// It counts, and is not thought to be silent.
    fn mute(&mut self, key: K) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        if let Some(order) = member.silent.take() {
            let (forward, client) = (member.forward, member.client);
            self.all.mute(client, order);
            if let Some(group) = self.forwards.get_mut(&forward) {
                group.mute(client, order);
            }
        }
    }
}

impl<K> Default for Group<K> {
    fn default() -> Self {
        Self {
            sessions: 0,
            clients: BTreeMap::new(),
            sites: BTreeMap::new(),
            silent: BTreeMap::new(),
            ranked: BTreeSet::new(),
        }
    }
}

impl<K: Copy> Group<K> {
    fn enter(&mut self, key: K, member: Member) {
        self.sessions += 1;
        if let Some(site) = member.client.site() {
            *self.sites.entry(site).or_default() += 1;
        }
        let holding = self.clients.entry(member.client).or_default();
        holding.sessions += 1;
        if let Some(order) = member.silent {
            self.ranked.remove(&(holding.silent.len(), member.client));
            holding.silent.insert(order);
            self.ranked.insert((holding.silent.len(), member.client));
            self.silent.insert(order, key);
        }
    }

    fn mute(&mut self, client: Client, order: Order) {
        self.silent.remove(&order);
        if let Some(holding) = self.clients.get_mut(&client) {
            self.ranked.remove(&(holding.silent.len(), client));
            holding.silent.remove(&order);
            if !holding.silent.is_empty() {
                self.ranked.insert((holding.silent.len(), client));
            }
        }
    }

    fn leave(&mut self, member: Member) {
        self.sessions -= 1;
        if let Some(site) = member.client.site()
            && let Some(sessions) = self.sites.get_mut(&site)
        {
            *sessions -= 1;
            if *sessions == 0 {
                self.sites.remove(&site);
            }
        }
        if let Some(holding) = self.clients.get_mut(&member.client) {
            holding.sessions -= 1;
            if holding.sessions == 0 {
                self.clients.remove(&member.client);
            }
        }
    }

    /// The one that has been silent for too long, if there is any.
    fn due(&self, now: Time, many: usize) -> Option<K> {
        let most = self.ranked.last().filter(|(silent, _)| *silent >= many);
        let oldest = most.and_then(|(_, client)| self.clients.get(client)?.silent.first());
        if let Some(order) = oldest
            && now.since(order.0) >= PATIENCE_OF_MANY
        {
            return self.silent.get(order).copied();
        }
        let (order, key) = self.silent.first_key_value()?;
        (now.since(order.0) >= PATIENCE).then_some(*key)
    }
}

#[cfg(test)]
mod tests;
