//! Which server a session goes to: the policies, and the one [`Balancer`] of a pool that
//! all reactors share.
//!
//! | policy | a pick | servers |
//! | --- | --- | --- |
//! | round robin | the next step of one sequence whose server may be picked | O(1) |
//! | least_conn | the root of a tree of loads | O(log n), at each enter and leave too |
//! | p2c, random | lots drawn from a tree of weights | O(log n) |
//! | hash | a look into a table, a bounded walk, then lots by blocks of 64 | O(log n) |
//! | first | the first of a set of bits | O(1) |
//!
//! Which servers may be picked is kept by `Index` (`balance::index`), as they change; what a
//! session has tried is passed over. Lots and steps that fall on a server which may not be
//! picked (tried, in a slow start, changed this very moment) are drawn again a bounded
//! number of times; then the next one that may is taken.
//!
//! Invariants: a pick never returns a server that was tried, or that its standing says may
//! not be picked; returns one whenever there is one and nobody is changing it meanwhile;
//! allocates nothing, takes no lock.

use std::sync::Arc;

use super::condition::Condition;
use super::hash::Random;
use super::index::sums::Sums;
use super::index::turns::Turns;
use super::index::{Index, MARKED, TIERS, Tier, Way};
use super::maglev::{self, Maglev};
use super::rules::{Place, Policy, Rules, WEIGHT_UNIT};
use super::standing::Standing;
use super::tried::Tried;
use crate::relay::time::Time;

/// Lots drawn, and steps taken, before the next best is good enough. All servers of a
/// pool in the first moment of their slow start take one turn of 16.
const DRAWS: usize = 32;

/// Beside those that were tried, so many units may turn out to have changed this moment
/// before a pick gives up.
const SURPRISES: usize = 8;

/// Something that has a [`Standing`]: whatever else the caller knows of a server.
pub trait Member {
    /// Its standing.
    fn standing(&self) -> &Standing;
}

impl Member for Standing {
    fn standing(&self) -> &Standing {
        self
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The hash of the client ([`super::client_key`]), which only [`Policy::Hash`] looks at.
    pub key: u64,
    /// The servers that this session has tried.
    pub tried: &'a Tried,
    /// The time by the clock that all reactors share.
    pub now: Time,
}

/// Where a session may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// To the server at this position.
    Server {
        /// Its position.
        at: u16,
        /// It is marked by failures, and nothing else is left.
        marked: bool,
    },
    /// To servers that have as many sessions as they may.
    Full,
    /// Nowhere: every server is down or was tried.
    Nowhere,
}

/// Picks servers of one pool, for all reactors. See the module's documentation.
#[derive(Debug)]
pub struct Balancer {
    rules: Rules,
    index: Arc<Index>,
    /// [`Policy::Hash`] only: 128 KiB.
    table: Option<Maglev>,
}

impl Balancer {
    /// For servers in these places. A server must be given its place
    /// ([`Self::seat`]) before it is ever picked.
    ///
    /// Takes milliseconds for [`Policy::Hash`], and for unlike weights with a large sum:
    /// off the reactors.
    pub fn new(rules: Rules, places: &[Place<'_>]) -> Self {
        // Positions are u16; what lies beyond is never picked.
        let places = &places[..places.len().min(usize::from(u16::MAX))];
        let weighed = || {
            let weighed = places.iter().map(|place| (place.name, place.weight));
            Maglev::new(&weighed.collect::<Vec<_>>())
        };
        Self {
            table: (rules.policy == Policy::Hash).then(weighed),
            index: Arc::new(Index::new(&rules, places)),
            rules,
        }
    }

    /// Takes the servers in, in the order of their places.
    pub fn seat<M: Member>(&self, members: &[M], now: Time) {
        for (at, member) in members.iter().enumerate().take(self.index.len()) {
            // From here on it tells of changes; what it is now is looked at after.
            member.standing().take_place(&self.index, at as u16);
            self.index.look_at(at as u16, member.standing(), now);
        }
    }

    /// Goes on where `earlier` is now, whose place it takes: no server that stays is
    /// picked earlier or later than it would have been by more than a turn. `known` says
    /// where a server stood before. Comes before [`Self::seat`].
    pub fn follow(&self, earlier: &Self, known: impl Fn(u16) -> Option<u16>) {
        self.index.follow(&earlier.index, known);
    }

    /// The policy it was made for.
    pub const fn policy(&self) -> Policy {
        self.rules.policy
    }

    /// The server for a session, among the `members` that it was seated with. Backups
    /// are used only while no other server that was not tried can be, full or not; those
    /// that are marked only while nothing else is left, because a mark is a guess from
    /// the past, and no server at all is worse.
    pub fn pick<M: Member>(&self, members: &[M], ask: &Ask<'_>, random: &mut Random) -> Choice {
        self.look_at_due(members, ask.now);
        let pick = Pick {
            balancer: self,
            members,
            ask,
        };
        for tier in 0..MARKED {
            if self.is_in_use(tier, ask.tried) {
                let at = pick.in_tier(tier, random);
                return at.map_or(Choice::Full, |at| Choice::Server { at, marked: false });
            }
        }
        let at = (MARKED..TIERS).find_map(|tier| pick.in_tier(tier, random));
        at.map_or(Choice::Nowhere, |at| Choice::Server { at, marked: true })
    }

    /// Whether sessions that wait should ask again: a server has room, or none may be
    /// picked any more and there is nothing to wait for.
    pub fn is_worth_a_try<M: Member>(&self, members: &[M], now: Time) -> bool {
        self.look_at_due(members, now);
        let nobody = Tried::default();
        let tier = (0..MARKED).find(|tier| self.is_in_use(*tier, &nobody));
        let tier = tier.and_then(|tier| self.index.tier(tier));
        tier.is_none_or(|tier| !tier.open.is_empty())
    }

    /// Panics if what is kept of the servers is not what their standings say. For tests
    /// and the simulator, while no other thread changes them.
    pub fn check_invariants<M: Member>(&self, members: &[M], now: Time) {
        self.index.check(conditions(members), now);
    }

    /// Whether a server of this tier that was not tried can be used, full or not.
    fn is_in_use(&self, tier: usize, tried: &Tried) -> bool {
        let of_tier = |at: &u16| self.index.is_of(*at, tier);
        let left = self.index.usable(tier);
        left > 0 && (tried.is_empty() || left > tried.iter().filter(of_tier).count() as i32)
    }

    fn look_at_due<M: Member>(&self, members: &[M], now: Time) {
        self.index.look_at_due(conditions(members), now);
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.index.retire();
    }
}

fn conditions<'a, M: Member>(members: &'a [M]) -> impl Fn(u16) -> Option<&'a Condition> {
    move |at| members.get(usize::from(at)).map(|it| &**it.standing())
}

/// One pick.
struct Pick<'a, M> {
    balancer: &'a Balancer,
    members: &'a [M],
    ask: &'a Ask<'a>,
}

impl<M: Member> Pick<'_, M> {
    fn in_tier(&self, number: usize, random: &mut Random) -> Option<u16> {
        let tier = self.balancer.index.tier(number)?;
        match &tier.way {
            Way::Plain => match &self.balancer.table {
                Some(table) => self.by_hash(number, tier, table),
                None => self.any_from(number, tier, 0, None),
            },
            Way::Turns(turns) => self.in_turn(number, tier, turns),
            Way::Least(tree, _) => {
                let index = &self.balancer.index;
                let key = index.key(number);
                for _ in 0..DRAWS {
                    // The winner first: only if he cannot be had the tree is searched.
                    let open = |unit: usize| self.open_in(unit, number).is_some();
                    let unit = tree.best(&key, &open)?;
                    let at = self.open_in(unit, number);
                    if at.is_some() && index.take_turn(unit, number) {
                        return at;
                    }
                }
                self.any_from(number, tier, 0, None)
            }
            Way::Sums(sums) => {
                let one = self.by_lot(number, tier, sums, None, random)?;
                if self.balancer.rules.policy != Policy::PowerOfTwo {
                    return Some(one);
                }
                let unit = self.balancer.index.unit_of(one);
                match self.by_lot(number, tier, sums, Some(unit), random) {
                    Some(other) if self.load(other).is_below(self.load(one)) => Some(other),
                    _ => Some(one),
                }
            }
        }
    }

    /// The server of a unit that is used: the first that may be.
    fn open_in(&self, unit: usize, tier: usize) -> Option<u16> {
        let index = &self.balancer.index;
        index.servers(unit).find(|at| {
            if !index.is_open(*at, tier) || self.ask.tried.contains(*at) {
                return false;
            }
            let Some(member) = self.members.get(usize::from(*at)) else {
                return false;
            };
            // What is known of it may be a moment old.
            let standing = member.standing();
            let is_true = index.is_true(*at, standing, self.ask.now);
            if !is_true {
                index.look_at(*at, standing, self.ask.now);
            }
            is_true
        })
    }

    /// The first unit that may be picked, from this one on and round again.
    fn any_from(
        &self,
        number: usize,
        tier: &Tier,
        from: usize,
        without: Option<usize>,
    ) -> Option<u16> {
        let mut from = from;
        for _ in 0..=self.ask.tried.len() + SURPRISES {
            let unit = tier.open.next_around(from)?;
            if Some(unit) != without
                && let Some(at) = self.open_in(unit, number)
            {
                return Some(at);
            }
            from = unit + 1;
        }
        None
    }

    fn in_turn(&self, number: usize, tier: &Tier, turns: &Turns) -> Option<u16> {
        let mut last = 0;
        for _ in 0..DRAWS {
            last = turns.take(&tier.open)?;
            if let Some(at) = self.open_in(last, number)
                && self.takes_turn(at)
            {
                return Some(at);
            }
        }
        self.any_from(number, tier, last + 1, None)
    }

    fn by_lot(
        &self,
        number: usize,
        tier: &Tier,
        sums: &Sums,
        without: Option<usize>,
        random: &mut Random,
    ) -> Option<u16> {
        let mut last = 0;
        for _ in 0..DRAWS {
            let Some(unit) = self.draw(number, tier, sums, without, random) else {
                break;
            };
            last = unit;
            if let Some(at) = self.open_in(unit, number)
                && self.has_luck(at, random)
            {
                return Some(at);
            }
        }
        self.any_from(number, tier, last, without)
    }

    /// A unit by its weight.
    fn draw(
        &self,
        number: usize,
        tier: &Tier,
        sums: &Sums,
        without: Option<usize>,
        random: &mut Random,
    ) -> Option<usize> {
        let index = &self.balancer.index;
        // The lots of the one that is not wanted are left out.
        let without = without.filter(|unit| tier.open.contains(*unit));
        let gap = without.map_or((u64::MAX, 0), |unit| {
            (sums.before(unit), u64::from(index.weight(unit, number)))
        });
        let total = sums.total().saturating_sub(gap.1);
        if total == 0 {
            return None;
        }
        let lot = random.below(total);
        let lot = if lot < gap.0 { lot } else { lot + gap.1 };
        // Behind the last if weights fell between two reads (another reactor).
        tier.open.next_around(sums.find(lot))
    }

    /// Whether a server in its slow start takes a turn that has come to it.
    fn takes_turn(&self, at: u16) -> bool {
        let slow_start = self.balancer.rules.slow_start;
        let standing = self.members[usize::from(at)].standing();
        slow_start.is_zero() || standing.takes_turn(self.ask.now, slow_start)
    }

    /// Likewise of lots.
    fn has_luck(&self, at: u16, random: &mut Random) -> bool {
        let slow_start = self.balancer.rules.slow_start;
        if slow_start.is_zero() {
            return true;
        }
        let standing = self.members[usize::from(at)].standing();
        let share = standing.weight(1, self.ask.now, slow_start);
        share >= WEIGHT_UNIT || random.below(WEIGHT_UNIT.into()) < u64::from(share)
    }

    /// The sessions of a server's unit, for its weight.
    fn load(&self, at: u16) -> Load {
        let index = &self.balancer.index;
        let servers = index.servers(index.unit_of(at)).map(usize::from);
        let standings = servers.filter_map(|at| self.members.get(at).map(Member::standing));
        let slow_start = self.balancer.rules.slow_start;
        let standing = self.members[usize::from(at)].standing();
        let weight = standing.weight(index.weight_of(at), self.ask.now, slow_start);
        Load {
            active: standings.map(|it| u64::from(it.active())).sum(),
            weight: u64::from(weight),
        }
    }

    fn by_hash(&self, number: usize, tier: &Tier, table: &Maglev) -> Option<u16> {
        let index = &self.balancer.index;
        if tier.open.is_empty() {
            return None;
        }
        let open = |at: u16| {
            index.is_open(at, number) && self.open_in(index.unit_of(at), number) == Some(at)
        };
        if let Some(at) = table.walk(self.ask.key, open) {
            return Some(at);
        }
        let lot = |level, at| match level {
            0 => table.lot(self.ask.key, index.servers(at).start),
            _ => maglev::lot_of_block(self.ask.key, level, at),
        };
        let unit = tier.open.descend(lot)?;
        self.any_from(number, tier, unit, None)
    }
}

/// Sessions for the weight, compared without dividing.
#[derive(Debug, Clone, Copy)]
struct Load {
    active: u64,
    weight: u64,
}

impl Load {
    const fn is_below(self, other: Self) -> bool {
        self.active as u128 * (other.weight as u128) < other.active as u128 * self.weight as u128
    }
}

#[cfg(test)]
mod tests;
