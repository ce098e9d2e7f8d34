//! Which servers of a pool may be picked, kept so that no pick has to look at all of
//! them. All reactors share it.
//!
//! ```text
//!  Standing::enter, leave, checked, failed … ──► Index::look_at
//!      one server's state                          │ which tier, and whether it has room
//!                                                  ▼
//!   tier: clear | backup | marked | marked backup     due: who is to be looked at again,
//!     open: units that may be picked (Bits)                and when (Tournament)
//!     and what the policy needs of them:
//!       round_robin        their turns (Rotation), a cursor for the whole process
//!       least_conn         who has the fewest sessions for its weight (Tournament)
//!       random, p2c        their weights (Sums)
//! ```
//! A *unit* is what policies choose among: a server, or all addresses of a name that is
//! one server, of which the first that may be is used.
//!
//! Each change is made of three steps, and each step is undone by nobody who was slower:
//! what a thread has written it compares with what it was derived from, and writes again
//! if that has changed. So once nobody is changing a server everything here is what
//! follows from its [`Condition`]; until then a pick may see it as it was a moment ago,
//! and looks at the condition itself before it returns it.
//!
//! The alternative was to make an order of those that may be picked whenever they change.
//! It loses where `max_connections` is in play: a server that is full and not full in
//! turn changes the set with every session.

pub(super) mod bits;
mod due;
mod rotation;
pub(super) mod sums;
mod tournament;
pub(super) mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use super::condition::Condition;
use super::rules::{Place, Policy, Rules, WEIGHT_UNIT};
use crate::relay::time::Time;
use bits::Bits;
use due::Due;
use rotation::Rotation;
use sums::Sums;
use tournament::Tournament;
use turns::Turns;

/// Tiers, in the order in which they are used: no other while one of an earlier one may
/// be picked.
pub(super) const TIERS: usize = 4;

/// The first of those whose servers are marked by failures.
pub(super) const MARKED: usize = 2;

/// The virtual time that a unit of weight 1 pays for a turn, see [`Unit::turn`].
const TURN: u64 = 1 << 40;

/// So often during a slow start a server's load is looked at again.
const SLOW_START_LOOKS: u32 = 32;

/// Servers that one pick looks at again because their time has come; the next picks see
/// to the others.
const LOOKS_PER_PICK: usize = 8;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Index {
    slow_start: Duration,
    least: bool,
    /// Whether a mark can keep anybody out.
    marks: bool,
    retired: AtomicBool,
    seats: Box<[Seat]>,
    units: Box<[Unit]>,
    tiers: [Option<Box<Tier>>; TIERS],
    due: Due,
}

/// A server's place.
#[derive(Debug)]
struct Seat {
    unit: u16,
    backup: bool,
    weight: u32,
    state: AtomicU8,
    /// Sessions for the weight; only kept for [`Policy::LeastConn`].
    load: AtomicU64,
}

/// What policies choose among.
#[derive(Debug)]
struct Unit {
    /// Its servers stand together.
    first: u16,
    len: u16,
    /// As a server, and as a backup: that of the first such of its servers.
    weights: [u32; 2],
    /// How many of its servers may be picked, by tier.
    open: [AtomicI32; TIERS],
    /// When it is its turn among equals of [`Policy::LeastConn`], in virtual time: each
    /// turn moves it by [`TURN`] for its weight.
    turn: AtomicU64,
}

/// Servers that stand in for one another.
#[derive(Debug)]
pub(super) struct Tier {
    /// Servers in it, with room or without.
    usable: AtomicI32,
    /// Units of which a server may be picked.
    pub(super) open: Bits,
    pub(super) way: Way,
}

/// What a policy needs to pick a unit.
#[derive(Debug)]
pub(super) enum Way {
    /// The open units will do.
    Plain,
    /// [`Policy::RoundRobin`].
    Turns(Turns),
    /// Weights of open units.
    Sums(Sums),
    /// [`Policy::LeastConn`]; the virtual time of the last turn.
    Least(Tournament, AtomicU64),
}

/// What is known of a server: out of use, or in a tier with or without room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State(u8);

impl State {
    const OUT: Self = Self(0);

    const fn new(tier: usize, room: bool) -> Self {
        Self(1 + 2 * tier as u8 + room as u8)
    }

    fn tier(self) -> Option<usize> {
        let tier = self.0.checked_sub(1)? / 2;
        Some(tier.into())
    }

    const fn has_room(self) -> bool {
        self.0 > 0 && self.0.is_multiple_of(2)
    }
}

impl Index {
    /// Nobody may be picked before [`Self::look_at`] has been told of him.
    pub(super) fn new(rules: &Rules, places: &[Place<'_>]) -> Self {
        let units = units(rules, places);
        let mut seats = Vec::with_capacity(places.len());
        for (number, unit) in units.iter().enumerate() {
            for place in &places[usize::from(unit.first)..][..usize::from(unit.len)] {
                seats.push(Seat {
                    unit: number as u16,
                    backup: place.backup,
                    weight: place.weight,
                    state: AtomicU8::new(State::OUT.0),
                    load: AtomicU64::new(0),
                });
            }
        }
        // A single server is used, marked or not.
        let marks = places.len() > 1;
        let classes = [0, 1].map(|class| Class::new(rules.policy, class, &units));
        let tier = |tier: usize| {
            let class = classes[tier % MARKED].as_ref()?;
            (tier < MARKED || marks).then(|| Box::new(class.tier(units.len())))
        };
        let least = rules.policy == Policy::LeastConn;
        Self {
            slow_start: rules.slow_start,
            least,
            marks,
            retired: AtomicBool::new(false),
            tiers: std::array::from_fn(tier),
            due: Due::new(seats.len()),
            seats: seats.into(),
            units: units.into(),
        }
    }

    /// Used no more: it need not be told of anything.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    pub(super) fn tier(&self, tier: usize) -> Option<&Tier> {
        self.tiers[tier].as_deref()
    }

    /// How many servers there are.
    pub(super) const fn len(&self) -> usize {
        self.seats.len()
    }

    /// The unit of a server.
    pub(super) fn unit_of(&self, position: u16) -> usize {
        self.seats[usize::from(position)].unit.into()
    }

    /// The servers of a unit.
    pub(super) fn servers(&self, unit: usize) -> std::ops::Range<u16> {
        let unit = &self.units[unit];
        unit.first..unit.first + unit.len
    }

    /// The weight of a unit in a tier.
    pub(super) fn weight(&self, unit: usize, tier: usize) -> u32 {
        self.units[unit].weights[tier % MARKED]
    }

    /// The weight of a server, as it was configured.
    pub(super) fn weight_of(&self, position: u16) -> u32 {
        self.seats[usize::from(position)].weight
    }

    /// How many servers of a tier are in use, with room or without.
    pub(super) fn usable(&self, tier: usize) -> i32 {
        let tier = self.tier(tier);
        tier.map_or(0, |tier| tier.usable.load(Ordering::SeqCst))
    }

    /// Whether a server is of this tier.
    pub(super) fn is_of(&self, position: u16, tier: usize) -> bool {
        let seat = self.seats.get(usize::from(position));
        seat.is_some_and(|seat| seat.state().tier() == Some(tier))
    }

    /// Whether a server is known to be of this tier and to have room.
    pub(super) fn is_open(&self, position: u16, tier: usize) -> bool {
        let seat = &self.seats[usize::from(position)];
        seat.state() == State::new(tier, true)
    }

    /// Whether what is known of a server is so.
    pub(super) fn is_true(&self, position: u16, condition: &Condition, now: Time) -> bool {
        let seat = &self.seats[usize::from(position)];
        seat.state() == self.truth(seat, condition, now)
    }

    // Changes.

    /// Takes note of what has become of a server.
    pub(super) fn look_at(&self, position: u16, condition: &Condition, now: Time) {
        let Some(seat) = self.seats.get(usize::from(position)) else {
            return;
        };
        if self.is_retired() {
            return;
        }
        if self.least {
            self.note_load(seat, condition, now);
        }
        loop {
            let after = self.truth(seat, condition, now);
            if seat.state() == after {
                break;
            }
            let before = State(seat.state.swap(after.0, Ordering::SeqCst));
            if before != after {
                self.moved(seat, before, after);
            }
        }
        let next = || self.next_look(condition, now);
        self.due.note(usize::from(position), next);
    }

    /// Looks at servers again whose time has come: a mark has run out, a slow start has
    /// got on, a rate lets the next session come.
    pub(super) fn look_at_due<'a>(
        &self,
        condition: impl Fn(u16) -> Option<&'a Condition>,
        now: Time,
    ) {
        for _ in 0..LOOKS_PER_PICK {
            let Some(position) = self.due.first(now) else {
                return;
            };
            let Some(condition) = condition(position) else {
                return;
            };
            self.look_at(position, condition, now);
        }
    }

    fn truth(&self, seat: &Seat, condition: &Condition, now: Time) -> State {
        if seat.weight == 0 || !condition.is_up() {
            return State::OUT;
        }
        let marked = self.marks && !condition.is_open(now);
        let tier = usize::from(seat.backup) + if marked { MARKED } else { 0 };
        State::new(tier, !condition.is_full(now))
    }

    /// A server goes from one tier to another, or is full or not. It arrives before it
    /// leaves, so that no pick between finds it nowhere.
    fn moved(&self, seat: &Seat, before: State, after: State) {
        if let Some(number) = after.tier()
            && let Some(tier) = self.tier(number)
        {
            if after.has_room() {
                self.count(seat, number, 1);
            }
            tier.usable.fetch_add(1, Ordering::SeqCst);
        }
        if let Some(number) = before.tier()
            && let Some(tier) = self.tier(number)
        {
            tier.usable.fetch_sub(1, Ordering::SeqCst);
            if before.has_room() {
                self.count(seat, number, -1);
            }
        }
    }

    /// One server more or less that may be picked of a unit.
    fn count(&self, seat: &Seat, number: usize, by: i32) {
        let Some(tier) = self.tier(number) else {
            return;
        };
        let unit = &self.units[usize::from(seat.unit)];
        let before = unit.open[number].fetch_add(by, Ordering::SeqCst);
        // Below 0 for a moment, if a thread that came later was faster: whatever the
        // order, what is added up here ends where the count does.
        let change = i64::from(before + by > 0) - i64::from(before > 0);
        if change == 0 {
            return;
        }
        if let Some(sums) = tier.sums() {
            let weight = i64::from(self.weight(seat.unit.into(), number));
            sums.add(seat.unit.into(), change * weight);
        }
        loop {
            let open = unit.is_open(number);
            self.show(seat.unit.into(), number, tier, open);
            if unit.is_open(number) == open {
                return;
            }
        }
    }

    /// A unit may be picked or not.
    fn show(&self, unit: usize, number: usize, tier: &Tier, open: bool) {
        tier.open.put(unit, open);
        match &tier.way {
            Way::Turns(turns) => turns.show(unit, open),
            Way::Least(tree, last) => {
                let turn = last.load(Ordering::SeqCst);
                self.units[unit].turn.fetch_max(turn, Ordering::SeqCst);
                // Out of this one too, when it is not open any more.
                tree.climb(unit, &self.key(number));
                self.climb(unit);
            }
            Way::Plain | Way::Sums(_) => {}
        }
    }

    /// Panics if anything here is not what follows from the standings. For tests and the
    /// simulator, while nobody is changing them.
    pub(super) fn check<'a>(&self, condition: impl Fn(u16) -> Option<&'a Condition>, now: Time) {
        let mut usable = [0; TIERS];
        let mut open = vec![[0_u64; TIERS]; self.units.len()];
        for (position, seat) in self.seats.iter().enumerate() {
            let Some(condition) = condition(position as u16) else {
                continue;
            };
            let due = self.due.time(position);
            if due.is_none_or(|due| due > now.as_micros()) {
                assert_eq!(
                    seat.state(),
                    self.truth(seat, condition, now),
                    "server {position}"
                );
            }
            if let Some(tier) = seat.state().tier() {
                usable[tier] += 1;
                open[usize::from(seat.unit)][tier] += u64::from(seat.state().has_room());
            }
        }
        for (number, tier) in self.tiers.iter().enumerate() {
            let Some(tier) = tier else { continue };
            assert_eq!(tier.usable.load(Ordering::SeqCst), usable[number]);
            let mut sum = 0;
            for (unit, open) in open.iter().enumerate() {
                assert_eq!(tier.open.contains(unit), open[number] > 0, "unit {unit}");
                sum += u64::from(self.weight(unit, number)) * u64::from(open[number] > 0);
            }
            let sums = tier.sums().map(Sums::total);
            assert!(
                sums.is_none_or(|sums| sums == sum),
                "weights of tier {number}"
            );
            if let Way::Least(tree, _) = &tier.way {
                let key = self.key(number);
                let least = (0..self.units.len()).filter(|it| key(*it).is_some());
                assert_eq!(tree.winner(&key), least.min_by_key(|it| key(*it)));
            }
        }
    }

    // The fewest sessions.

    /// The key of a unit among the least: its load, then its turn.
    pub(super) fn key(&self, number: usize) -> impl Fn(usize) -> Option<(u64, u64)> {
        move |unit| {
            let open = self.tier(number)?.open.contains(unit);
            open.then(|| self.load_and_turn(unit))
        }
    }

    fn load_and_turn(&self, unit: usize) -> (u64, u64) {
        let loads = self.servers(unit).map(|position| {
            let seat = &self.seats[usize::from(position)];
            seat.load.load(Ordering::SeqCst)
        });
        let turn = self.units[unit].turn.load(Ordering::SeqCst);
        (loads.fold(0, u64::saturating_add), turn)
    }

    /// Takes the turn of a unit: `false` if somebody else was faster.
    pub(super) fn take_turn(&self, unit: usize, number: usize) -> bool {
        let Some(Way::Least(_, last)) = self.tier(number).map(|tier| &tier.way) else {
            return false;
        };
        let turn = &self.units[unit].turn;
        let at = turn.load(Ordering::SeqCst);
        let next = at + stride(self.weight(unit, number));
        let taken = turn.compare_exchange(at, next, Ordering::SeqCst, Ordering::SeqCst);
        if taken.is_ok() {
            last.fetch_max(at, Ordering::SeqCst);
            self.climb(unit);
        }
        taken.is_ok()
    }

    /// Makes up for a new load or turn of a unit wherever it stands: a name's servers
    /// may be of several tiers at once, and their unit has one load and one turn in all.
    fn climb(&self, unit: usize) {
        for (number, tree, _) in self.least_of(unit) {
            tree.climb(unit, &self.key(number));
        }
    }

    /// The tiers where this unit is one of those with the fewest sessions to choose from.
    fn least_of(&self, unit: usize) -> impl Iterator<Item = (usize, &Tournament, &AtomicU64)> {
        (0..TIERS).filter_map(move |number| {
            let tier = self.tier(number).filter(|tier| tier.open.contains(unit))?;
            match &tier.way {
                Way::Least(tree, last) => Some((number, tree, last)),
                _ => None,
            }
        })
    }

    fn note_load(&self, seat: &Seat, condition: &Condition, now: Time) {
        let load = || {
            let weight = condition.weight(seat.weight, now, self.slow_start);
            load(condition.active(), weight)
        };
        let mut changed = false;
        loop {
            let new = load();
            changed |= seat.load.swap(new, Ordering::SeqCst) != new;
            if load() == new {
                break;
            }
        }
        if !changed {
            return;
        }
        let unit = usize::from(seat.unit);
        for (_, _, last) in self.least_of(unit) {
            // Nobody saves up turns that came while he had too many sessions.
            let turn = last.load(Ordering::SeqCst);
            self.units[unit].turn.fetch_max(turn, Ordering::SeqCst);
        }
        self.climb(unit);
    }

    // What time does.

    /// When this server is to be looked at again though nothing happens to it.
    fn next_look(&self, condition: &Condition, now: Time) -> u64 {
        let mark = self.marks.then(|| condition.trial_at(now)).flatten();
        let rate = condition.rate_opens(now);
        let since = condition.back_for(now);
        let slow = (self.least && since < self.slow_start).then(|| {
            let step = (self.slow_start / SLOW_START_LOOKS).max(Duration::from_micros(1));
            let next = step.as_micros() - since.as_micros() % step.as_micros();
            now + Duration::from_micros(next as u64)
        });
        let next = mark.into_iter().chain(rate).chain(slow).min();
        next.unwrap_or(Time::NEVER).as_micros()
    }

    /// Goes on where another index was, which this one takes the place of: the round
    /// robin with whose turn it is, and units at their turns. `known` says where a server
    /// stood before.
    pub(super) fn follow(&self, earlier: &Self, known: impl Fn(u16) -> Option<u16>) {
        let mut heirs = vec![None; earlier.units.len()];
        for (number, unit) in self.units.iter().enumerate() {
            let before = known(unit.first).filter(|at| usize::from(*at) < earlier.len());
            if let Some(before) = before.map(|at| earlier.unit_of(at)) {
                heirs[before] = Some(number);
                let turn = earlier.units[before].turn.load(Ordering::SeqCst);
                unit.turn.store(turn, Ordering::SeqCst);
            }
        }
        for (tier, before) in self.tiers.iter().zip(&earlier.tiers) {
            let (Some(tier), Some(before)) = (tier, before) else {
                continue;
            };
            match (&tier.way, &before.way) {
                (Way::Turns(turns), Way::Turns(before)) => turns.follow(before, &heirs),
                (Way::Least(_, last), Way::Least(_, before)) => {
                    last.store(before.load(Ordering::SeqCst), Ordering::SeqCst);
                }
                _ => {}
            }
        }
    }
}

impl Seat {
    fn state(&self) -> State {
        State(self.state.load(Ordering::SeqCst))
    }
}

impl Unit {
    fn is_open(&self, tier: usize) -> bool {
        self.open[tier].load(Ordering::SeqCst) > 0
    }
}

impl Tier {
    fn sums(&self) -> Option<&Sums> {
        match &self.way {
            Way::Sums(sums) => Some(sums),
            Way::Turns(turns) => turns.sums(),
            Way::Plain | Way::Least(..) => None,
        }
    }
}

/// What the tiers of servers, or those of backups, have in common.
struct Class {
    policy: Policy,
    rotation: Option<Arc<Rotation>>,
}

impl Class {
    /// `None` if no unit has a weight.
    fn new(policy: Policy, class: usize, units: &[Unit]) -> Option<Self> {
        let weights: Vec<u32> = units.iter().map(|unit| unit.weights[class]).collect();
        if weights.iter().all(|weight| *weight == 0) {
            return None;
        }
        let rotation = (policy == Policy::RoundRobin).then(|| Rotation::new(&weights));
        Some(Self {
            policy,
            rotation: rotation.flatten().map(Arc::new),
        })
    }

    fn tier(&self, units: usize) -> Tier {
        Tier {
            usable: AtomicI32::new(0),
            open: Bits::new(units),
            way: match (self.policy, &self.rotation) {
                (Policy::RoundRobin, Some(rotation)) => Way::Turns(Turns::new(rotation, units)),
                (Policy::LeastConn, _) => Way::Least(Tournament::new(units), AtomicU64::new(0)),
                (Policy::PowerOfTwo | Policy::Random, _) => Way::Sums(Sums::new(units)),
                (Policy::RoundRobin | Policy::Hash | Policy::First, _) => Way::Plain,
            },
        }
    }
}

/// The units of servers that stand in this order.
fn units(rules: &Rules, places: &[Place<'_>]) -> Vec<Unit> {
    let together = |a: &Place<'_>, b: &Place<'_>| {
        rules.name_is_one_server && a.family.is_some() && a.family == b.family
    };
    let mut first = 0;
    let unit = |of_unit: &[Place<'_>]| {
        let weight = |backup: bool| {
            let mut of_class = of_unit.iter().filter(|place| place.backup == backup);
            let first = of_class.find(|place| place.weight > 0);
            first.map_or(0, |place| place.weight)
        };
        let weights = [weight(false), weight(true)];
        let unit = Unit {
            first,
            len: of_unit.len() as u16,
            weights,
            open: [0; TIERS].map(AtomicI32::new),
            // In the middle of what a turn costs, so that unlike weights mix.
            turn: AtomicU64::new(stride(weights[0].max(weights[1])) / 2),
        };
        first += unit.len;
        unit
    };
    places.chunk_by(together).map(unit).collect()
}

const fn stride(weight: u32) -> u64 {
    if weight == 0 {
        TURN
    } else {
        TURN / weight as u64
    }
}

/// Sessions for a weight (in units of [`WEIGHT_UNIT`]), so that loads can be compared: equal
/// fractions are equal numbers. Unlike ones differ as long as the weights are below 65,536.
fn load(active: u32, weight: u32) -> u64 {
    let scaled = (u128::from(active) * u128::from(WEIGHT_UNIT)) << 32;
    u64::try_from(scaled / u128::from(weight.max(1))).unwrap_or(u64::MAX)
}
