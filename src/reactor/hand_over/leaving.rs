//! Sessions leave: a few in each turn, so that those that stay are not kept waiting.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use super::{CameIn, Kept, Manifest, MovedSession};
use crate::engine::detached::Baggage;
use crate::engine::{Datagrams, SessionKey, Start};
use crate::reactor::ends::settle;
use crate::reactor::opened::Opened;
use crate::reactor::{Entry, Reactor, rates};
use crate::relay::session::Event as SessionEvent;
use crate::relay::time::Time;
use crate::relay::{Direction, Side};

/// Sessions that begin to leave in one turn: some 10 µs each.
const LEAVE_PER_TURN: usize = 64;

/// Slots that are looked at in one turn for sessions that may leave: some 20 µs.
const SLOTS_PER_TURN: u32 = 1024;

/// Sessions that are to leave a reactor.
pub struct Release<D> {
    /// How many at the most.
    pub at_most: usize,
    /// Is called once, from within a turn, with those that have left: at once as many as
    /// may be had, or fewer if no more can be.
    pub reply: ReleaseReply<D>,
}

/// Is told once what has come of a [`Release`].
pub type ReleaseReply<D> = Box<dyn FnOnce(Released<D>) + Send>;

/// What has come of a [`Release`].
#[derive(Debug)]
pub struct Released<D> {
    /// Those that have left.
    pub moved: Vec<MovedSession<D>>,
    /// Sessions that are still in the reactor: they are being opened, connected or closed,
    /// or were not wanted.
    pub left: usize,
    /// The highest number that a session of this reactor has had.
    pub last_id: u64,
}

impl<D> fmt::Debug for Release<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_most = self.at_most;
        f.debug_struct("Release")
            .field("at_most", &at_most)
            .finish_non_exhaustive()
    }
}

/// The part of a reactor that lets sessions go.
#[derive(Debug)]
pub(in crate::reactor) struct Leaving<D> {
    orders: VecDeque<Release<D>>,
    /// For each of them: whom it names, if it does not mean anybody.
    named: VecDeque<Option<Vec<SessionKey>>>,
    /// Of the first order: those that have left,
    moved: Vec<MovedSession<D>>,
    /// slots that are still to be looked at, and the next of them,
    slots_left: u32,
    next_slot: u32,
    /// and sessions that are to leave once nothing of them is in flight.
    waiting: BTreeSet<SessionKey>,
    /// Of these, those of which nothing is.
    quiet: Vec<SessionKey>,
}

impl<D> Leaving<D> {
    pub(in crate::reactor) const fn new() -> Self {
        Self {
            orders: VecDeque::new(),
            named: VecDeque::new(),
            moved: Vec::new(),
            slots_left: 0,
            next_slot: 0,
            waiting: BTreeSet::new(),
            quiet: Vec::new(),
        }
    }

    /// Whether there is something to do that no event will tell of.
    pub(in crate::reactor) fn is_busy(&self) -> bool {
        self.slots_left > 0 || (self.waiting.is_empty() && !self.orders.is_empty())
    }

    /// The engine says that a session is quiet.
    pub(in crate::reactor) fn is_quiet(&mut self, key: SessionKey) {
        if self.waiting.contains(&key) {
            self.quiet.push(key);
        }
    }

    /// A session has ended.
    pub(in crate::reactor) fn ended(&mut self, key: SessionKey) {
        if !self.waiting.is_empty() {
            self.waiting.remove(&key);
        }
    }

    /// Sessions that have left and were not handed on yet.
    pub(in crate::reactor) const fn held(&self) -> usize {
        self.moved.len()
    }

    fn wanted(&self) -> usize {
        let at_most = self.orders.front().map_or(0, |it| it.at_most);
        at_most.saturating_sub(self.moved.len() + self.waiting.len())
    }
}

impl<E: Datagrams> Reactor<E> {
    /// Lets sessions go, in this turn and the next ones. Orders are carried out one after
    /// the other.
    pub fn release(&mut self, order: Release<E::Detached>) {
        self.order(order, None);
    }

    /// Lets these sessions go, those of them that live and may; a handful.
    pub fn release_these(&mut self, keys: Vec<SessionKey>, reply: ReleaseReply<E::Detached>) {
        let at_most = keys.len();
        self.order(Release { at_most, reply }, Some(keys));
    }

    fn order(&mut self, order: Release<E::Detached>, named: Option<Vec<SessionKey>>) {
        self.leaving.orders.push_back(order);
        self.leaving.named.push_back(named);
        if self.leaving.orders.len() == 1 {
            self.begin_order();
        }
        self.let_go_some();
    }

    /// The first order is carried out from now on.
    fn begin_order(&mut self) {
        let named = self.leaving.named.front_mut().and_then(Option::take);
        let Some(named) = named else {
            self.leaving.slots_left = self.ctx.sessions.slots();
            return;
        };
        self.leaving.slots_left = 0;
        for key in named {
            self.begin_to_leave(key);
        }
    }

    /// The share of a turn.
    pub(in crate::reactor) fn let_go_some(&mut self) {
        if self.leaving.orders.is_empty() {
            return;
        }
        for key in std::mem::take(&mut self.leaving.quiet) {
            self.take_out_waiting(key);
        }
        let mut begun = 0;
        let mut looked = 0;
        while self.leaving.slots_left > 0
            && self.leaving.wanted() > 0
            && begun < LEAVE_PER_TURN
            && looked < SLOTS_PER_TURN
        {
            looked += 1;
            let slots = self.ctx.sessions.slots().max(1);
            let slot = self.leaving.next_slot % slots;
            self.leaving.next_slot = slot + 1;
            self.leaving.slots_left -= 1;
            if let Some(key) = self.ctx.sessions.key_of(slot) {
                begun += usize::from(self.begin_to_leave(key));
            }
        }
        if self.leaving.wanted() == 0 {
            self.leaving.slots_left = 0;
        }
        if self.leaving.slots_left == 0 && self.leaving.waiting.is_empty() {
            self.reply();
        }
    }

    fn reply(&mut self) {
        let released = Released {
            moved: std::mem::take(&mut self.leaving.moved),
            left: self.live(),
            last_id: self.sessions_started,
        };
        self.leaving.named.pop_front();
        if let Some(order) = self.leaving.orders.pop_front() {
            (order.reply)(released);
        }
        if !self.leaving.orders.is_empty() {
            self.begin_order();
        }
    }

    /// Whether a session leaves, now or soon.
    fn begin_to_leave(&mut self, key: SessionKey) -> bool {
        let Some(entry) = self.ctx.sessions.get(key) else {
            return false;
        };
        if !entry.session.may_be_frozen() {
            return false;
        }
        if entry.session.lane(Direction::Up).bytes_out() == 0 {
            // What waits for the first payload to ride on does not wait any longer.
            self.ctx.engine.flush(key, Side::Upstream);
            self.ctx.engine.acknowledge(key, Side::Upstream);
        }
        self.leaving.waiting.insert(key);
        if self.ctx.engine.quiesce(key) == Start::Done(()) {
            self.take_out_waiting(key);
        }
        true
    }

    /// Takes out a session of which nothing is in flight. One that has to close a side
    /// first is asked again in a later turn; one that ends does not leave.
    fn take_out_waiting(&mut self, key: SessionKey) {
        if !self.leaving.waiting.contains(&key) {
            return;
        }
        for direction in Direction::BOTH {
            self.hear_of_sends(key, direction);
        }
        let entry = self.ctx.sessions.get(key);
        if entry.is_some_and(|it| it.session.is_closing()) {
            // By way of its end.
            return self.leaving.ended(key);
        }
        match self.take_out(key) {
            Some(moved) => {
                self.leaving.ended(key);
                self.leaving.moved.push(moved);
            }
            None => self.leaving.quiet.push(key),
        }
    }

    /// A lane learns of what was reported as written and was not, and its session of a
    /// failure.
    fn hear_of_sends(&mut self, key: SessionKey, direction: Direction) {
        let Some(entry) = self.ctx.sessions.get_mut(key) else {
            return;
        };
        if !entry.session.may_be_frozen() {
            return;
        }
        let lane = entry.session.lane_mut(direction);
        let written = lane.bytes_out();
        let mut pumped = self.ctx.engine.pump(key, direction, lane, 0);
        let written = lane.bytes_out().wrapping_sub(written);
        self.count_written(direction, written);
        if pumped.failure.is_some() {
            pumped.more = false;
            self.deliver(key, SessionEvent::Pumped { direction, pumped });
        }
    }

    fn count_written(&self, direction: Direction, bytes: u64) {
        let counters = &self.ctx.counters;
        match direction {
            Direction::Up => counters.bytes_up.add(bytes),
            Direction::Down => counters.bytes_down.add(bytes),
        }
    }

    fn take_out(&mut self, key: SessionKey) -> Option<MovedSession<E::Detached>> {
        let now = self.ctx.now();
        let entry = self.ctx.sessions.get_mut(key)?;
        if !entry.session.may_be_frozen() {
            return None;
        }
        let lanes = entry.session.lanes_mut();
        let before = lanes.each_ref().map(|it| (it.bytes_in(), it.bytes_out()));
        let detached = self.ctx.engine.detach(key, lanes)?;
        let after = lanes.each_ref().map(|it| (it.bytes_in(), it.bytes_out()));
        for direction in Direction::BOTH {
            let (read, written) = before[direction.index()];
            let (read_now, written_now) = after[direction.index()];
            self.ctx.counters.bytes_read.add(read_now - read);
            self.count_written(direction, written_now.wrapping_sub(written));
        }
        self.wheel.disarm(key.slot);
        self.ctx.left(key);
        self.old.left(key);
        let mut entry = self.ctx.sessions.remove(key)?;
        settle(&mut entry, self.ctx.reactor);
        self.ctx.counters.released.add(1);
        let manifest = manifest(&entry, &detached, now)?;
        Some(MovedSession {
            manifest,
            detached,
            kept: Kept {
                entry: Some(entry),
                gate: self.ctx.gate.clone(),
                at: now,
            },
        })
    }
}

/// What is told of a session.
pub(in crate::reactor) fn manifest(
    entry: &Entry,
    baggage: &impl Baggage,
    now: Time,
) -> Option<Manifest> {
    let destination = entry.destination.as_ref()?;
    let failures = entry.aside.dialling().map(|it| it.failures.as_slice());
    let failures = failures.unwrap_or_default().iter();
    Some(Manifest {
        came_in: CameIn::at(&entry.listener, (entry.id.reactor(), entry.id.id())),
        reached: entry.aside.last_words().and_then(|it| it.reached.clone()),
        client: entry.client.get(),
        server: destination.endpoint().clone(),
        pool: destination
            .account()
            .map(|it| it.settings().pool.to_string()),
        debts: rates::meters(entry).map(|meters| meters.debts(now)),
        warm: entry.warm,
        unproven: entry.unproven,
        tried: failures
            .map(|(tried, cause)| (tried.endpoint().clone(), *cause))
            .collect(),
        opened: entry.aside.opened().map(Opened::note),
        state: entry.session.freeze(now)?,
        sides: baggage.sides(),
        held: baggage.held(),
    })
}
