//! Which server a session goes to: the policies, and one [`Balancer`] for each
//! pool and reactor.
//!
//! Owns the state of the policies (currents of the round robin, a table, a random
//! sequence) and nothing about the servers: those are asked through [`View`] at
//! each pick, because what they are doing is shared by all reactors and changes
//! meanwhile. Deliberately not here: which servers are healthy, full, or of the
//! tier in use. The view says so by a weight of 0.
//!
//! Invariants: a pick never returns a server of weight 0 or one that was tried,
//! returns one whenever there is one, allocates nothing, and takes a few passes over
//! the servers at most ([`Policy::Hash`] usually a single look).

use std::sync::Arc;

use super::hash::Random;
use super::maglev::Maglev;
use super::tried::Tried;

/// The weight in a [`View`] that a configured weight of 1 has: so much room there
/// is below it for a slow start.
pub const WEIGHT_UNIT: u32 = 256;

/// A reactor's head start in the round robin goes no further than this, so that a
/// balancer is made in bounded time.
const HEAD_START: u32 = 1024;

/// A current is kept within so many totals of the weights. Constant weights never
/// get there (1.4 was the most in a search of 20,000 sets), so they have their exact
/// shares, which is tested. When weights fall from thousands to few, what a server had saved or
/// owed under the old ones would otherwise be paid back in a burst.
const CURRENT_TOTALS: i64 = 2;

/// What a policy may know of the servers of a pool, asked while it picks. A server
/// is its position in the set.
pub trait View {
    /// How many servers there are, whatever their state.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The weight now: 0 for a server that is not to be picked (down, drained,
    /// full, of the other tier, weight 0), else in units of [`WEIGHT_UNIT`] for
    /// each configured 1, less during a slow start.
    fn weight(&self, server: u16) -> u32;

    /// Sessions on it now, those of all reactors.
    fn active(&self, server: u16) -> u32;
}

/// How a pool is balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Shares by weight, as smooth as can be: nginx's algorithm.
    RoundRobin,
    /// The fewest sessions for its weight; round robin among equals.
    LeastConn,
    /// Of two drawn by weight, the one with fewer sessions for its weight.
    PowerOfTwo,
    /// Drawn by weight.
    Random,
    /// By a hash of the client, the same on every machine: Maglev.
    Hash,
    /// The first in the list that may be picked.
    First,
}

/// Picks servers of one pool, on one reactor.
#[derive(Debug, Clone)]
pub struct Balancer {
    policy: Policy,
    /// The currents of the smooth round robin, by server.
    currents: Box<[i64]>,
    /// The configured weights in units of [`WEIGHT_UNIT`].
    weights: Arc<[u32]>,
    /// [`Policy::Hash`] only. Shared: a table takes 128 KiB.
    table: Option<Arc<Maglev>>,
    random: Random,
}

impl Balancer {
    /// For servers of which `servers` has a stable identity (the address as text)
    /// and the configured weight. Identities need not differ.
    ///
    /// `start` tells reactors apart: each begins the round robin so many picks
    /// later, so that few sessions over many reactors still spread. `seed` is that
    /// of the random policies, and should differ as well.
    ///
    /// [`Policy::Hash`] builds a table here, which takes milliseconds: off the
    /// reactors, and once for all of them ([`Balancer::for_reactor`]).
    pub fn new(policy: Policy, servers: &[(&str, u32)], start: u32, seed: u64) -> Self {
        // Positions are u16; what lies beyond is never picked.
        let servers = &servers[..servers.len().min(usize::from(u16::MAX))];
        let balancer = Self {
            policy,
            currents: vec![0; servers.len()].into(),
            weights: servers
                .iter()
                .map(|(_, weight)| weight.saturating_mul(WEIGHT_UNIT))
                .collect(),
            table: (policy == Policy::Hash).then(|| Arc::new(Maglev::new(servers))),
            random: Random::new(seed),
        };
        balancer.for_reactor(start, seed)
    }

    /// One for another reactor, which shares the table of this one.
    pub fn for_reactor(&self, start: u32, seed: u64) -> Self {
        let mut balancer = Self {
            currents: vec![0; self.currents.len()].into(),
            random: Random::new(seed),
            ..self.clone()
        };
        let idle = Idle(&self.weights);
        for _ in 0..start % HEAD_START {
            balancer.smooth(&idle, |_, _| true);
        }
        balancer
    }

    /// The policy it was made for.
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    /// The server for a session; `None` if every weight is 0 or was tried.
    ///
    /// `key` is the hash of the client ([`super::hash::client_key`]), which only
    /// [`Policy::Hash`] looks at; `tried` the servers this session tried already.
    pub fn pick(&mut self, view: &impl View, key: u64, tried: &Tried) -> Option<u16> {
        // The weight of a server that may be picked, or 0.
        let open = |server: u16| {
            if tried.contains(server) {
                0
            } else {
                view.weight(server)
            }
        };
        match self.policy {
            Policy::RoundRobin => self.smooth(view, |server, _| !tried.contains(server)),
            Policy::LeastConn => self.least_conn(view, tried),
            Policy::PowerOfTwo => self.power_of_two(view, open),
            Policy::Random => self.draw(view, open),
            Policy::Hash => {
                let servers = self.servers(view);
                let table = self.table.as_ref()?;
                table.pick(key, |server| server < servers && open(server) > 0)
            }
            Policy::First => (0..self.servers(view)).find(|server| open(*server) > 0),
        }
    }

    /// How many servers there are to look at.
    fn servers(&self, view: &impl View) -> u16 {
        // At most u16::MAX currents, see `new`.
        view.len().min(self.currents.len()) as u16
    }

    /// Smooth weighted round robin, as nginx has it: everyone's current grows by
    /// its weight, the highest is picked and pays the total. After as many picks as
    /// the weights' sum everyone had its share exactly and all currents are 0.
    ///
    /// `takes_part` is asked of servers with a weight, which it is given. Who takes no
    /// part in this pick keeps its current; who has no weight in the view loses it, so
    /// that a server returns without debts or savings.
    fn smooth(&mut self, view: &impl View, takes_part: impl Fn(u16, u32) -> bool) -> Option<u16> {
        let (mut stakes, mut total, mut widest) = (0, 0, 0);
        let mut best = None;
        for server in 0..self.servers(view) {
            let weight = view.weight(server);
            let current = &mut self.currents[usize::from(server)];
            if weight == 0 {
                *current = 0;
                continue;
            }
            total += i64::from(weight);
            if takes_part(server, weight) {
                stakes += i64::from(weight);
                *current += i64::from(weight);
                if best.is_none_or(|(_, highest)| *current > highest) {
                    best = Some((server, *current));
                }
            }
            widest = current.abs().max(widest);
        }
        let (server, highest) = best?;
        let paid = highest - stakes;
        self.currents[usize::from(server)] = paid;
        let bound = CURRENT_TOTALS * total;
        if widest.max(paid.abs()) > bound {
            for current in &mut self.currents {
                *current = (*current).clamp(-bound, bound);
            }
        }
        Some(server)
    }

    fn least_conn(&mut self, view: &impl View, tried: &Tried) -> Option<u16> {
        let load = |server: u16, weight| Load::of(view.active(server), weight);
        let mut least: Option<Load> = None;
        for server in (0..self.servers(view)).filter(|server| !tried.contains(*server)) {
            if let Some(load) = load(server, view.weight(server))
                && least.is_none_or(|least| load.is_below(least))
            {
                least = Some(load);
            }
        }
        let least = least?;
        // Sessions come and go on other reactors meanwhile. Whoever is below the least
        // by now belongs to the best, too; if everyone is above it, all take part.
        let among_best = |server, weight| {
            let load = load(server, weight);
            !tried.contains(server) && load.is_some_and(|load| !least.is_below(load))
        };
        self.smooth(view, among_best)
            .or_else(|| self.smooth(view, |server, _| !tried.contains(server)))
    }

    fn power_of_two(&mut self, view: &impl View, open: impl Fn(u16) -> u32) -> Option<u16> {
        let one = self.draw(view, &open)?;
        let others = |server: u16| if server == one { 0 } else { open(server) };
        let Some(other) = self.draw(view, others) else {
            return Some(one);
        };
        let load = |server: u16| Load::of(view.active(server), open(server));
        match (load(one), load(other)) {
            (Some(first), Some(second)) if second.is_below(first) => Some(other),
            (None, Some(_)) => Some(other),
            _ => Some(one),
        }
    }

    /// One by weight.
    fn draw(&mut self, view: &impl View, open: impl Fn(u16) -> u32) -> Option<u16> {
        let servers = self.servers(view);
        let total: u64 = (0..servers).map(|server| u64::from(open(server))).sum();
        if total == 0 {
            return None;
        }
        let mut lot = self.random.below(total);
        let mut last = None;
        for server in 0..servers {
            let weight = u64::from(open(server));
            if weight == 0 {
                continue;
            }
            if lot < weight {
                return Some(server);
            }
            lot -= weight;
            last = Some(server);
        }
        // Weights fell between the two passes (another reactor): the last will do.
        last
    }
}

/// Sessions for the weight, compared without dividing.
#[derive(Debug, Clone, Copy)]
struct Load {
    active: u64,
    weight: u64,
}

impl Load {
    /// `None` for a server that takes no part.
    fn of(active: u32, weight: u32) -> Option<Self> {
        (weight > 0).then_some(Self {
            active: u64::from(active),
            weight: u64::from(weight),
        })
    }

    const fn is_below(self, other: Self) -> bool {
        self.active * other.weight < other.active * self.weight
    }
}

/// The servers as configured, with nothing to do: for a head start.
struct Idle<'a>(&'a [u32]);

impl View for Idle<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn weight(&self, server: u16) -> u32 {
        self.0[usize::from(server)]
    }

    fn active(&self, _server: u16) -> u32 {
        0
    }
}

#[cfg(test)]
mod tests;
