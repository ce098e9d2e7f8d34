//! The listeners of a reactor: which of them have somebody waiting, and who is let in
//! next.
//!
//! ```text
//!            somebody came                          a limit is reached
//!   idle ──────────────────► ready (taken in turn) ──────────────────► parked
//!    ▲   nobody is left        │  ▲       room was made, or it is time to try
//!    └─────────────────────────┘  └────────────────────────────────────┘
//! ```
//! Owns the state of each listener and two kinds of queues: of those that are ready, and
//! of those parked at a limit, one queue for each [`Gate`] that is full. Who is not let
//! in waits in the kernel's accept queue, in order, and sees nothing but a slow answer.
//!
//! Invariants: a listener stands in one queue at the most; nothing that a turn or the
//! end of a session does here grows with the number of listeners.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::context::{Ctx, Effect};
use super::gate::Gate;
use super::setup::{Forward, Listener};
use crate::engine::slab::Slots;
use crate::engine::{AcceptError, Engine, ListenerKey};
use crate::net::address::Endpoint;
use crate::net::options::OptionPlan;
use crate::observe::notice::{Kind, Notice, Subject};
use crate::relay::id::{ForwardId, ListenerId};
use crate::relay::probe::{self, Mutation};
use crate::relay::time::Time;

/// Attempts to accept in one turn, over all listeners: about a millisecond of connects.
/// Established sessions wait for no more than that.
const ACCEPTS_PER_TURN: u32 = 32;

/// Of them at one listener before the next one has its turn.
const ACCEPTS_IN_A_ROW: u32 = 8;

/// Gates at which it is tried again in one turn, because it is time to.
const RETRIES_PER_TURN: u32 = 32;

/// Clients that are let in at a socket that leaves, at the most: more than any queue
/// holds, so that a storm cannot keep it for ever.
const LEAVING_ACCEPTS: u32 = 65_536;

/// Until the next try after running out of descriptors or memory.
const STARVED_RETRY: Duration = Duration::from_millis(100);

/// Until the next try at `max_connections`; another reactor may have made room.
const LIMIT_RETRY: Duration = Duration::from_millis(50);

/// Which limit keeps a client out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum WhichGate {
    /// That of the whole process: `max_connections`, or its descriptors.
    Process,
    /// That of a forward.
    Forward(ForwardId),
}

/// A limit that is reached, in figures.
#[derive(Debug, Clone, Copy)]
struct FullGate {
    which: WhichGate,
    live: u32,
    max: u32,
    /// Whose sessions make room: any, or those of this forward.
    among: Option<ForwardId>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nobody waits, as far as is known.
    #[default]
    Idle,
    /// In the queue of those that are ready.
    Ready,
    /// In the queue of a limit.
    Parked(WhichGate),
}

/// A listener that the engine looks after.
#[derive(Debug)]
struct Socket {
    generation: u32,
    at: Arc<Listener>,
    state: Standing,
    /// It was parked and nothing has changed since: that is counted and logged.
    was_counted: bool,
    /// It is closed once its queue is empty, or after so many more.
    leaving: Option<u32>,
}

/// A client that was let in.
#[derive(Debug)]
pub struct Admitted<I> {
    pub(super) incoming: I,
    pub(super) client: Endpoint,
    pub(super) at: Arc<Listener>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct ListenQueue {
    gate: Arc<Gate>,
    sockets: Slots<Option<Socket>>,
    /// An address may have several sockets.
    keys: BTreeMap<ListenerId, Vec<ListenerKey>>,
    first_served: Option<ForwardId>,
    /// They are not all of one forward, or were not.
    serves_several: bool,
    ready: VecDeque<ListenerKey>,
    parked: BTreeMap<WhichGate, VecDeque<ListenerKey>>,
    /// When the first at a limit is tried again, in order of time: all wait equally
    /// long. One for each queue of those parked.
    retries: VecDeque<(Time, WhichGate)>,
    /// Nobody is let in before.
    starved_until: Time,
    /// Attempts left in this turn, over all and at the listener that is first.
    left: u32,
    left_in_a_row: u32,
}

impl ListenQueue {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self {
            gate,
            sockets: Slots::new(),
            keys: BTreeMap::new(),
            first_served: None,
            serves_several: false,
            ready: VecDeque::new(),
            parked: BTreeMap::new(),
            retries: VecDeque::new(),
            starved_until: Time::ZERO,
            left: 0,
            left_in_a_row: 0,
        }
    }

    /// Listens at one more socket.
    pub(super) fn listen<E: Engine>(
        &mut self,
        socket: E::Listener,
        at: Arc<Listener>,
        ctx: &mut Ctx<E>,
    ) -> io::Result<()> {
        let key = ctx.engine.listen(socket)?;
        if matches!(at.address, Endpoint::Inet(_)) {
            // Said in any case: it may have been another's, with other routes.
            ctx.engine.hold_acks(key, at.forward.holds_acks());
        }
        let first = *self.first_served.get_or_insert(at.forward.id);
        self.serves_several |= first != at.forward.id;
        self.keys.entry(at.id).or_default().push(key);
        *self.sockets.touch(key.slot) = Some(Socket {
            generation: key.generation,
            at,
            state: Standing::Idle,
            was_counted: false,
            leaving: None,
        });
        Ok(())
    }

    /// Who comes in at this address from now on has this listener, and is given these
    /// options; a socket that was about to leave stays. `false`: there is none.
    pub(super) fn change<E: Engine>(
        &mut self,
        at: &Arc<Listener>,
        options: Option<&Arc<OptionPlan>>,
        ctx: &mut Ctx<E>,
    ) -> bool {
        let mut found = false;
        for key in self.keys.get(&at.id).into_iter().flatten() {
            let socket = find(&mut self.sockets, *key);
            if let Some(socket) = socket.filter(|it| it.at.socket == at.socket) {
                found = true;
                let holds = at.forward.holds_acks();
                if holds != socket.at.forward.holds_acks() {
                    ctx.engine.hold_acks(*key, holds);
                }
                socket.at = at.clone();
                socket.leaving = None;
                if let Some(options) = options {
                    ctx.engine.set_options(*key, options.clone());
                }
            }
        }
        found
    }

    /// Looks after one socket of an address no more: another reactor does, or nobody.
    pub(super) fn give_away<E: Engine>(&mut self, id: ListenerId, socket: u32, ctx: &mut Ctx<E>) {
        let keys = self.keys.get(&id).cloned().unwrap_or_default();
        for key in keys {
            if find(&mut self.sockets, key).is_some_and(|it| it.at.socket == socket) {
                self.close(key, ctx);
            }
        }
    }

    /// Whoever waits at an address is let in, as far as there is room, and then its
    /// sockets are closed.
    pub(super) fn begin_to_leave(&mut self, id: ListenerId) {
        for key in self.keys.get(&id).cloned().unwrap_or_default() {
            if let Some(socket) = find(&mut self.sockets, key) {
                socket.leaving = Some(LEAVING_ACCEPTS);
            }
            // Whether anybody waits is found out by a try.
            self.acceptable(key);
        }
    }

    /// The sockets of these forwards that are about to leave are closed now: whoever
    /// still waits there is reset.
    pub(super) fn close_leaving<E: Engine>(&mut self, forwards: &[ForwardId], ctx: &mut Ctx<E>) {
        for key in self.all() {
            let socket = find(&mut self.sockets, key);
            let leaves =
                |it: &mut Socket| it.leaving.is_some() && forwards.contains(&it.at.forward.id);
            if socket.is_some_and(leaves) {
                self.close(key, ctx);
            }
        }
    }

    /// Closes one socket. Where it stands in a queue its key is stale, and skipped.
    fn close<E: Engine>(&mut self, key: ListenerKey, ctx: &mut Ctx<E>) {
        let Some(socket) = find(&mut self.sockets, key) else {
            return;
        };
        let id = socket.at.id;
        *self.sockets.touch(key.slot) = None;
        if let Some(keys) = self.keys.get_mut(&id) {
            keys.retain(|it| *it != key);
            if keys.is_empty() {
                self.keys.remove(&id);
            }
        }
        drop(ctx.engine.unlisten(key));
    }

    /// Closes one that is about to leave and has nobody waiting.
    fn close_if_leaving<E: Engine>(&mut self, key: ListenerKey, ctx: &mut Ctx<E>) {
        if find(&mut self.sockets, key).is_some_and(|it| it.leaving.is_some()) {
            self.close(key, ctx);
        }
    }

    /// Listens there no more, and gives the sockets back.
    pub(super) fn unlisten<E: Engine>(
        &mut self,
        id: ListenerId,
        ctx: &mut Ctx<E>,
    ) -> Vec<E::Listener> {
        let keys = self.keys.remove(&id).unwrap_or_default();
        let sockets = keys.into_iter().filter_map(|key| {
            // Where it stands in a queue its key is stale, and skipped.
            *self.sockets.touch(key.slot) = None;
            ctx.engine.unlisten(key)
        });
        sockets.collect()
    }

    /// Every socket from this slot on, with its listener, in order of slots.
    pub(super) fn sockets(&self, from: u32) -> impl Iterator<Item = (ListenerKey, &Arc<Listener>)> {
        let slots = (from..).map_while(|slot| Some((slot, self.sockets.get(slot)?)));
        slots.filter_map(|(slot, socket)| {
            let socket = socket.as_ref()?;
            let generation = socket.generation;
            Some((ListenerKey { slot, generation }, &socket.at))
        })
    }

    /// The addresses.
    pub(super) fn ids(&self) -> Vec<ListenerId> {
        self.keys.keys().copied().collect()
    }

    /// Somebody waits at a listener. Of one that is parked that is known.
    pub(super) fn acceptable(&mut self, key: ListenerKey) {
        if let Some(socket) = find(&mut self.sockets, key)
            && socket.state == Standing::Idle
        {
            socket.state = Standing::Ready;
            self.ready.push_back(key);
        }
    }

    /// Somebody may wait at any listener.
    pub(super) fn look_everywhere(&mut self) {
        for key in self.all() {
            self.acceptable(key);
        }
    }

    /// When somebody who waits can be let in: a time that has passed is now.
    pub(super) fn next_try(&self) -> Time {
        let ready = if self.ready.is_empty() {
            Time::NEVER
        } else {
            Time::ZERO
        };
        let retry = self.retries.front().map_or(Time::NEVER, |(due, _)| *due);
        ready.min(retry).max(self.starved_until)
    }

    /// Nobody is let in for want of descriptors or memory.
    pub(super) fn is_starved(&self, now: Time) -> bool {
        now < self.starved_until
    }

    /// Nobody is let in for a while; the descriptor limit is read again.
    pub(super) fn starve(&mut self, now: Time) {
        self.gate.review();
        self.starved_until = now + STARVED_RETRY;
    }

    /// A session of this forward has ended, or did not come to be: there is room for
    /// one, and if it had both sides, there are two descriptors. One that never got its
    /// second leaves none to spare: letting the next client in at once would only turn
    /// that one away too.
    pub(super) fn make_room(&mut self, forward: &Forward, had_both: bool) {
        self.leave(forward);
        if had_both {
            self.starved_until = Time::ZERO;
        }
        self.wake_one_of(forward, false);
    }

    /// A turn's attempts begin.
    pub(super) fn start_turn(&mut self, now: Time) {
        self.left = ACCEPTS_PER_TURN;
        self.left_in_a_row = ACCEPTS_IN_A_ROW;
        for _ in 0..RETRIES_PER_TURN {
            let Some(limit) = self.due_limit(now) else {
                return;
            };
            self.retries.pop_front();
            if self.wake_one(limit, true) {
                self.retries.push_back((now + LIMIT_RETRY, limit));
            } else {
                self.parked.remove(&limit);
            }
        }
    }

    /// Lets the next client in, if this turn has attempts left for it.
    pub(super) fn next<E: Engine>(&mut self, ctx: &mut Ctx<E>) -> Option<Admitted<E::Incoming>> {
        let now = ctx.now();
        while self.left > 0 && now >= self.starved_until {
            let key = *self.ready.front()?;
            let Some(socket) = find(&mut self.sockets, key) else {
                self.ready.pop_front();
                continue;
            };
            if self.left_in_a_row == 0 {
                self.left_in_a_row = ACCEPTS_IN_A_ROW;
                self.ready.rotate_left(1);
                continue;
            }
            self.left -= 1;
            self.left_in_a_row -= 1;
            let at = socket.at.clone();
            if let Err(full) = self.enter(&at.forward, ctx) {
                self.park(key, full, ctx);
                continue;
            }
            match ctx.engine.accept(key) {
                Ok((incoming, client)) => {
                    if let Some(socket) = find(&mut self.sockets, key) {
                        socket.was_counted = false;
                        if let Some(left) = &mut socket.leaving {
                            *left = left.saturating_sub(1);
                            if *left == 0 {
                                self.set_first(key, Standing::Idle);
                                self.close(key, ctx);
                            }
                        }
                    }
                    // Where there was room for one there may be room for more.
                    self.wake_one_of(&at.forward, true);
                    return Some(Admitted {
                        incoming,
                        client,
                        at,
                    });
                }
                Err(error) => {
                    self.leave(&at.forward);
                    self.accept_failed(key, &at, error, ctx);
                }
            }
        }
        None
    }

    fn accept_failed<E: Engine>(
        &mut self,
        key: ListenerKey,
        at: &Listener,
        error: AcceptError,
        ctx: &mut Ctx<E>,
    ) {
        match error {
            AcceptError::Empty => {
                self.set_first(key, Standing::Idle);
                self.close_if_leaving(key, ctx);
                // It may have been woken for room that it has no use for.
                self.wake_one_of(&at.forward, true);
            }
            AcceptError::Lost => ctx.counters.accept_lost.add(1),
            AcceptError::Exhausted(cause) => {
                if probe::mutated(Mutation::LostWakeUpAfterExhaustion) {
                    self.set_first(key, Standing::Idle);
                }
                self.starve(ctx.now());
                ctx.out.push_back(Effect::Starved);
                let reactor = ctx.reactor;
                ctx.complain(Kind::AcceptPaused, Subject::Process, || {
                    Notice::AcceptPaused { reactor, cause }
                });
            }
            AcceptError::Broken(errno) => {
                self.starve(ctx.now());
                ctx.out.push_back(Effect::Starved);
                ctx.complain(Kind::AcceptFailed, Subject::Listener(at.id), || {
                    let error = io::Error::from_raw_os_error(errno);
                    let listener = at.address.clone();
                    Notice::AcceptFailed { listener, error }
                });
            }
        }
    }

    /// Nobody is let in at the listener that is first; whether somebody waits decides
    /// whether that is worth another look, a line, and a count (one for each time the
    /// limit is hit).
    fn park<E: Engine>(&mut self, key: ListenerKey, full: FullGate, ctx: &mut Ctx<E>) {
        if !ctx.engine.has_waiting(key) {
            // The next to come is an event of its own.
            self.set_first(key, Standing::Idle);
            self.close_if_leaving(key, ctx);
            return;
        }
        self.set_first(key, Standing::Parked(full.which));
        let retries = &mut self.retries;
        let parked = self.parked.entry(full.which).or_insert_with(|| {
            retries.push_back((ctx.now() + LIMIT_RETRY, full.which));
            VecDeque::new()
        });
        parked.push_back(key);
        if let WhichGate::Forward(_) = full.which {
            // There is room in the process, and this one has no use for it.
            self.wake_one(WhichGate::Process, true);
        }
        self.gate.review();
        let Some(socket) = find(&mut self.sockets, key) else {
            return;
        };
        ctx.review_places(&socket.at.forward);
        if let Some(silent) = ctx.room_maker(full.among, full.max) {
            ctx.out.push_back(Effect::MakeRoom(silent));
        }
        if !std::mem::replace(&mut socket.was_counted, true) {
            ctx.counters.limit_pauses.add(1);
            let at = socket.at.clone();
            let FullGate {
                which, live, max, ..
            } = full;
            let forward = || at.forward.name.clone();
            match which {
                WhichGate::Forward(id) => {
                    ctx.complain(Kind::ForwardFull, Subject::Forward(id), || {
                        let forward = forward();
                        Notice::ForwardFull { forward, live, max }
                    });
                }
                WhichGate::Process => {
                    ctx.complain(Kind::ProcessFull, Subject::Process, || {
                        let forward = forward();
                        Notice::ProcessFull { forward, live, max }
                    });
                }
            }
        }
    }

    /// The listener that is first in the queue leaves it.
    fn set_first(&mut self, key: ListenerKey, state: Standing) {
        debug_assert_eq!(self.ready.front(), Some(&key), "another one is first");
        self.ready.pop_front();
        self.left_in_a_row = ACCEPTS_IN_A_ROW;
        if let Some(socket) = find(&mut self.sockets, key) {
            socket.state = state;
        }
    }

    /// Whoever waits longest for room in the process, or in this forward. `again`:
    /// nothing has changed since it was parked, as far as is known.
    fn wake_one_of(&mut self, forward: &Forward, again: bool) {
        self.wake_one(WhichGate::Process, again);
        if forward.gate.is_some() {
            self.wake_one(WhichGate::Forward(forward.id), again);
        }
    }

    fn wake_one(&mut self, limit: WhichGate, again: bool) -> bool {
        let Some(parked) = self.parked.get_mut(&limit) else {
            return false;
        };
        while let Some(key) = parked.pop_front() {
            // One that was removed meanwhile is skipped.
            if let Some(socket) = find(&mut self.sockets, key) {
                socket.state = Standing::Ready;
                socket.was_counted &= again;
                self.ready.push_back(key);
                return true;
            }
        }
        false
    }

    fn due_limit(&self, now: Time) -> Option<WhichGate> {
        let (due, limit) = *self.retries.front()?;
        (due <= now).then_some(limit)
    }

    fn enter<E: Engine>(&self, forward: &Forward, ctx: &Ctx<E>) -> Result<(), FullGate> {
        let full = |which, gate: &Gate, among| FullGate {
            which,
            live: gate.live(),
            max: gate.max(),
            among,
        };
        if !self.gate.enter() {
            return Err(full(WhichGate::Process, &self.gate, None));
        }
        // One alone may have all of them.
        if self.serves_several && !ctx.shortage.may_grow(forward.id, &self.gate) {
            self.gate.leave();
            let own = Some(forward.id);
            return Err(full(WhichGate::Process, &self.gate, own));
        }
        match &forward.gate {
            Some(gate) if !gate.enter() => {
                self.gate.leave();
                let own = Some(forward.id);
                Err(full(WhichGate::Forward(forward.id), gate, own))
            }
            _ => Ok(()),
        }
    }

    fn leave(&self, forward: &Forward) {
        self.gate.leave();
        if let Some(gate) = &forward.gate {
            gate.leave();
        }
    }

    fn all(&self) -> Vec<ListenerKey> {
        self.keys.values().flatten().copied().collect()
    }

    /// Panics when a listener stands in two queues, or in none where it should.
    pub(super) fn check_invariants(&self) {
        let count =
            |queue: &VecDeque<ListenerKey>, key| queue.iter().filter(|it| **it == key).count();
        for key in self.all() {
            let Some(Some(socket)) = self.sockets.get(key.slot) else {
                panic!("a listener without a place")
            };
            let ready = count(&self.ready, key);
            let parked: usize = self.parked.values().map(|queue| count(queue, key)).sum();
            let (is_ready, is_parked) = match socket.state {
                Standing::Idle => (0, 0),
                Standing::Ready => (1, 0),
                Standing::Parked(_) => (0, 1),
            };
            assert_eq!((ready, parked), (is_ready, is_parked), "{:?}", socket.state);
        }
        for limit in self.parked.keys() {
            let retries = self.retries.iter().filter(|(_, it)| it == limit);
            assert_eq!(retries.count(), 1, "looks again at {limit:?}");
        }
        assert_eq!(self.retries.len(), self.parked.len(), "retries of nobody");
    }
}

fn find(sockets: &mut Slots<Option<Socket>>, key: ListenerKey) -> Option<&mut Socket> {
    let socket = sockets.get_mut(key.slot)?.as_mut()?;
    (socket.generation == key.generation).then_some(socket)
}
