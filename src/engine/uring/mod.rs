//! The completion engine: io_uring.
//!
//! Owns the ring, the descriptors of every session of its reactor, and the bytes
//! that lanes hold. Messages go through the ring: a multishot receive into
//! provided buffers, a send out of them, and one system call a turn for all of
//! them. Bulk, slow readers and short connections go the way of the readiness
//! engine (`Kit`), woken by polls of the ring.
//!
//! Deliberately not here: what to do next (the relay says), deadlines (the
//! reactor's wheel).
//!
//! Invariants: closing is a join (cancel, wait until nothing is in flight, close
//! the descriptor, report); a completion for another generation touches nothing.

mod buffers;
mod completions;
mod datagrams;
mod lanes;
mod leg;
mod listening;
mod moving;
mod op;
mod probe;
mod rest;
mod ring;
mod vigil;
mod wake;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::common::{self, Common, Conns, Dialled, Incoming, Listener, Setup};
use super::detached::Detached;
use super::key::{ListenerKey, SessionKey};
use super::listeners::Listeners;
use super::parley::{self, Peeked};
use super::sockets::Sockets;
use super::spin::BusyPoll;
use super::{AcceptError, Engine, Event, Holdings, Start, Target};
use crate::net::address::Endpoint;
use crate::net::errno::Failure;
use crate::net::listener::AcceptQueue;
use crate::net::options::OptionPlan;
use crate::net::tcp_info;
use crate::net::turn_away::{self, TurnAway};
use crate::observe::tap::Feed;
use crate::relay::ending::Cause;
use crate::relay::lane::{Lane, Progress};
use crate::relay::session::{Close, Pumped, Readiness};
use crate::relay::time::Time;
use crate::relay::{Direction, Side};

use lanes::Mover;
use leg::Leg;
use listening::ListenPoll;
use op::{At, Op, SLOTS_MAX, Tag};
pub use probe::probe;
use rest::list_rest;
pub use ring::Sizes;
use ring::{Completion, Ring};
use vigil::{VIGIL_PATIENCE, list_vigil};
pub use wake::Waker;

/// How long a poll of the listeners or of the waker rests that the kernel refused.
const POLL_PAUSE: Duration = Duration::from_millis(100);

/// The completion engine. See the module's documentation.
#[derive(Debug)]
pub struct Uring {
    // First, for it is dropped first: nothing else may go while operations fly.
    ring: Ring,
    listeners: Listeners,
    listen_poll: ListenPoll,
    conns: Conns<Leg>,
    datagrams: Sockets,
    common: Common,
    waker: Waker,
    /// Sides that will want a vigil, and when; in order of time.
    vigils: VecDeque<(At, Time)>,
    /// Sides that rest, and until when; in order of time.
    rests: VecDeque<(At, Time)>,
    /// Sides with a send in flight.
    sends: Vec<At>,
    /// Something waits for these sends: do not sleep before they are over.
    hurry: bool,
    /// Sends whose buffers may stay out while the reactor sleeps.
    sends_asleep: usize,
    /// Polls of the listeners and of the waker that were refused, and when they are
    /// started again.
    refused_polls: Vec<Tag>,
    polls_due: Time,
    /// Events to be reported by the next wait.
    queued: Vec<Event>,
    /// The epoll instance of the listeners has more to tell.
    unreported: bool,
    /// In this turn, before its completions were taken, that instance has told of something.
    has_told: bool,
    /// Sessions that are to be quiet, of which something has landed in this turn.
    quieting: Vec<SessionKey>,
    completions: Vec<Completion>,
}

impl Uring {
    /// An engine for the calling thread, without listeners. `origin` is time zero.
    pub fn new(setup: &Setup, origin: Instant) -> io::Result<Self> {
        Self::with_sizes(setup, origin, Sizes::default())
    }

    /// As [`Uring::new`], with queues of other sizes.
    pub fn with_sizes(setup: &Setup, origin: Instant, sizes: Sizes) -> io::Result<Self> {
        let mut ring = Ring::new(sizes)?;
        let waker = Waker::new()?;
        // Cards are polled in every wait, and have no means to tell whether that pays.
        if let BusyPoll::For(time) = setup.busy_poll
            && !time.is_zero()
        {
            ring.busy_poll_cards(time);
        }
        ring.poll_on(waker.as_fd(), libc::POLLIN, Tag::Waker);
        let listen_poll = ListenPoll::new()?;
        ring.poll_on(listen_poll.as_fd(), libc::POLLIN, Tag::Listeners);
        Ok(Self {
            ring,
            listeners: Listeners::default(),
            listen_poll,
            conns: Conns::new(),
            datagrams: Sockets::default(),
            common: Common::new(setup, origin),
            waker,
            vigils: VecDeque::new(),
            rests: VecDeque::new(),
            sends: Vec::new(),
            hurry: false,
            sends_asleep: usize::from(sizes.buffers) / 4,
            refused_polls: Vec::new(),
            polls_due: Time::NEVER,
            queued: Vec::new(),
            unreported: false,
            has_told: false,
            quieting: Vec::new(),
            completions: Vec::new(),
        })
    }

    /// A waker for other threads; [`Event::Woken`] follows its use.
    pub fn waker(&self) -> io::Result<Waker> {
        self.waker.try_clone()
    }

    /// Passes submissions on and sleeps until a completion or `until`.
    fn sleep(&mut self, until: Time) -> io::Result<()> {
        if self.ring.has_completions() || until <= self.now() {
            return self.ring.enter(0, None);
        }
        let spins = self.common.spin.time();
        if let Some(time) = spins {
            let found = self.spin(time, until)?;
            self.common.spin.spun(found);
            if found {
                return Ok(());
            }
        }
        let since = self.common.begin_sleep();
        let timeout = (until != Time::NEVER).then(|| until.since(self.now()));
        self.ring.enter(1, timeout)?;
        if spins.is_none() && self.common.spin.learns() {
            self.common.clock.read();
            self.common.end_sleep(since);
        }
        Ok(())
    }

    /// Spins for completions instead of sleeping, for so long at the most. The
    /// kernel says in shared memory when there is work, so that spinning costs no
    /// system calls.
    fn spin(&mut self, time: Duration, until: Time) -> io::Result<bool> {
        self.ring.enter(0, None)?;
        if self.ring.has_completions() {
            return Ok(true);
        }
        let spin_end = (self.now() + time).min(until);
        while self.now() < spin_end {
            if self.ring.has_news() {
                self.ring.enter(0, None)?;
                return Ok(true);
            }
            std::hint::spin_loop();
            self.common.clock.read();
        }
        Ok(false)
    }

    /// Starts the polls again that were refused. What happened meanwhile was not
    /// reported: they do that at once.
    #[cold]
    fn restart_polls(&mut self) {
        self.polls_due = Time::NEVER;
        for tag in std::mem::take(&mut self.refused_polls) {
            self.start_poll(tag);
        }
    }

    /// The upstream side stands. Of a session: what the client has sent meanwhile is
    /// looked for, what the upstream will send is waited for. Of one without a client,
    /// made ahead: nothing is in flight, so that it can be handed over.
    fn established(&mut self, key: SessionKey) {
        let client = self.conns.leg(key, Side::Client);
        if !client.is_some_and(Leg::is_open) {
            return;
        }
        let at = At {
            key,
            side: Side::Upstream,
        };
        if let Some(leg) = self.conns.leg_mut(key, at.side) {
            leg.watch(Op::WatchIn, at, &mut self.ring);
        }
        self.queued.push(ready(Side::Client, key, READABLE));
    }

    fn try_connect(
        &mut self,
        key: SessionKey,
        target: Target<'_>,
    ) -> Result<Start<Result<(), Cause>>, Failure> {
        let client = self.conns.fd(key, Side::Client);
        let Dialled {
            fd,
            connecting,
            suspect,
        } = self.common.dial(client, target)?;
        let at = At {
            key,
            side: Side::Upstream,
        };
        let Some(conn) = self.conns.get_mut(key) else {
            return Ok(Start::Done(Err(Cause::Stopped)));
        };
        conn.suspect = suspect;
        let leg = &mut conn.legs[at.side.index()];
        leg.replace(Some(fd));
        leg.connecting = connecting;
        if connecting {
            leg.watch(Op::WatchOut, at, &mut self.ring);
            return Ok(Start::Pending);
        }
        self.established(key);
        Ok(Start::Done(Ok(())))
    }
}

const READABLE: Readiness = Readiness {
    readable: true,
    writable: false,
    failed: false,
};

const fn ready(side: Side, key: SessionKey, readiness: Readiness) -> Event {
    Event::Ready(key, side, readiness)
}

impl Engine for Uring {
    type Listener = Listener;
    type Incoming = Incoming;
    type Detached = Detached;
    type Call = std::os::fd::OwnedFd;

    fn now(&self) -> Time {
        self.common.clock.now()
    }

    fn since_wait(&self) -> Duration {
        self.common.clock.since_read()
    }

    fn wait(&mut self, until: Time, events: &mut Vec<Event>) -> io::Result<()> {
        let vigil = self.keep_vigils().min(self.end_rests());
        if self.polls_due <= self.now() {
            self.restart_polls();
        }
        events.append(&mut self.queued);
        let is_unsure = std::mem::take(&mut self.datagrams.unsure);
        self.has_told = false;
        if std::mem::take(&mut self.unreported) || is_unsure {
            let earlier = events.len();
            self.report(events);
            self.has_told = events.len() > earlier;
        }
        let hurry = self.hurry || self.sends.len() > self.sends_asleep;
        let until = if events.is_empty() && !hurry {
            until.min(vigil).min(self.polls_due)
        } else {
            Time::ZERO
        };
        self.sleep(until)?;
        let settled = self.ring.is_settled();
        self.common.clock.read();
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.take(&mut completions);
        let earlier = events.len();
        for completion in completions.drain(..) {
            self.dispatch(completion, events);
        }
        self.completions = completions;
        // Not settled: some of it has still to be submitted or taken, now.
        self.hurry = !settled;
        if settled {
            let landed = events.len();
            self.settle_sends(events);
            // First of all a lane learns that it has to take bytes back: what ends a
            // session is judged by what it holds.
            let told = events.len() - landed;
            if told > 0 {
                events[earlier..].rotate_right(told);
            }
        }
        if !self.quieting.is_empty() {
            self.tell_of_quiet(events);
        }
        Ok(())
    }

    fn listen(&mut self, listener: Listener) -> io::Result<ListenerKey> {
        let key = self.listeners.add(listener)?;
        let fd = self.listeners.fd(key);
        let added = fd.map_or(Ok(()), |fd| self.listen_poll.add(key, fd));
        if let Err(error) = added {
            self.listeners.remove(key);
            return Err(error);
        }
        Ok(key)
    }

    fn unlisten(&mut self, key: ListenerKey) -> Option<Listener> {
        let listener = self.listeners.remove(key)?;
        self.listen_poll.remove(listener.fd.as_fd());
        Some(listener)
    }

    fn set_options(&mut self, key: ListenerKey, options: Arc<OptionPlan>) {
        self.listeners.set_options(key, options);
    }

    fn hold_acks(&mut self, key: ListenerKey, hold: bool) {
        self.listeners.hold_acks(key, hold);
    }

    fn accept(&mut self, key: ListenerKey) -> Result<(Incoming, Endpoint), AcceptError> {
        self.listeners.accept(key, &mut self.common)
    }

    fn has_waiting(&self, key: ListenerKey) -> bool {
        self.listeners.has_waiting(key)
    }

    fn accept_queue(&mut self, key: ListenerKey) -> Option<AcceptQueue> {
        self.listeners.accept_queue(key)
    }

    fn accept_overflows(&self) -> u64 {
        self.listeners.overflows()
    }

    fn turn_away(&mut self, incoming: Incoming, how: TurnAway) {
        turn_away::turn_away(incoming.fd, how);
    }

    fn adopt(&mut self, key: SessionKey, incoming: Incoming) -> Result<(), Cause> {
        if key.slot >= SLOTS_MAX {
            return Err(Cause::NoMemory);
        }
        let conn = self.conns.open(key);
        conn.legs[0].replace(Some(incoming.fd));
        conn.legs[0].vigil_due = true;
        let at = At {
            key,
            side: Side::Client,
        };
        self.vigils.push_back((at, self.now() + VIGIL_PATIENCE));
        Ok(())
    }

    fn peek(&mut self, key: SessionKey, side: Side, buffer: &mut [u8]) -> Peeked {
        let Some(leg) = self.conns.leg_mut(key, side) else {
            return Peeked::Ended;
        };
        let Some(fd) = leg.fd.as_ref().filter(|_| leg.is_open()) else {
            return Peeked::Ended;
        };
        let peeked = parley::peek(fd.as_fd(), buffer);
        if peeked == Peeked::Empty {
            // Nothing that was seen is left to be found again: the poll sleeps.
            leg.watch_request(At { key, side }, &mut self.ring);
        }
        peeked
    }

    fn await_more(&mut self, key: SessionKey, side: Side) {
        let Some(leg) = self.conns.leg_mut(key, side) else {
            return;
        };
        let Some(fd) = leg.fd.as_ref().filter(|_| leg.is_open()) else {
            return;
        };
        if self.listen_poll.watch(key, side, fd.as_fd()).is_err() {
            // Short of memory: it costs some turns, until there is more.
            leg.watch_request(At { key, side }, &mut self.ring);
        }
    }

    fn await_no_more(&mut self, key: SessionKey, side: Side) {
        if let Some(fd) = self.fd(key, side) {
            self.listen_poll.remove(fd);
        }
    }

    fn say(&mut self, key: SessionKey, side: Side, bytes: &[u8]) -> Result<usize, Cause> {
        let Some(leg) = self.conns.leg_mut(key, side) else {
            return Err(Cause::Stopped);
        };
        let Some(fd) = leg.fd.as_ref().filter(|_| leg.is_open()) else {
            return Err(Cause::Stopped);
        };
        let said = parley::say(fd.as_fd(), bytes);
        if said.is_ok_and(|taken| taken > 0) {
            leg.may_be_asked();
        }
        if said.is_ok_and(|taken| taken < bytes.len()) {
            let at = At { key, side };
            leg.watch_out(at, &mut self.ring);
            list_rest(&mut self.rests, leg, at, self.common.clock.now());
        }
        said
    }

    fn say_first(&mut self, key: SessionKey, side: Side, bytes: &[u8]) -> Result<usize, Cause> {
        let Some(leg) = self.conns.leg_mut(key, side) else {
            return Err(Cause::Stopped);
        };
        let Some(fd) = leg.fd.as_ref().filter(|_| leg.is_open()) else {
            return Err(Cause::Stopped);
        };
        let said = parley::say_first(fd.as_fd(), bytes);
        if said.is_ok_and(|taken| taken < bytes.len()) {
            leg.watch(Op::WatchOut, At { key, side }, &mut self.ring);
        }
        said
    }

    fn connect(&mut self, key: SessionKey, target: Target<'_>) -> Start<Result<(), Cause>> {
        match self.try_connect(key, target) {
            Ok(start) => start,
            Err(failure) => Start::Done(Err(failure.into())),
        }
    }

    fn connect_ahead(&mut self, key: SessionKey, target: Target<'_>) -> Start<Result<(), Cause>> {
        if key.slot >= SLOTS_MAX {
            return Start::Done(Err(Cause::NoMemory));
        }
        self.conns.open(key);
        self.connect(key, target)
    }

    fn hand_over(&mut self, from: SessionKey, to: SessionKey) -> bool {
        let Some(leg) = self.conns.leg_mut(from, Side::Upstream) else {
            return false;
        };
        debug_assert!(leg.is_quiet(), "handed over with operations in flight");
        let (fd, shared) = (leg.fd.take(), leg.shared);
        leg.replace(None);
        match self.conns.leg_mut(to, Side::Upstream) {
            Some(leg) if fd.is_some() => {
                leg.replace(fd);
                leg.shared = shared;
                self.established(to);
                true
            }
            _ => false,
        }
    }

    fn pump(
        &mut self,
        key: SessionKey,
        direction: Direction,
        lane: &mut Lane,
        budget: u32,
    ) -> Pumped {
        let Some(conn) = self.conns.get_mut(key) else {
            return Pumped::default();
        };
        let [client, upstream] = &mut conn.legs;
        let (source, sink) = match direction {
            Direction::Up => (client, upstream),
            Direction::Down => (upstream, client),
        };
        if !source.is_open() {
            return Pumped::default();
        }
        let mut store = conn.cargo.take(direction);
        let mut mover = Mover {
            ring: &mut self.ring,
            kit: &mut self.common.kit,
            source,
            sink,
            store: &mut store,
            tap: conn.cargo.tap(),
            key,
            direction,
        };
        let flew = mover.sink.flies(Op::Send);
        let pumped = mover.pump(lane, budget);
        let Mover { source, sink, .. } = mover;
        if sink.flies(Op::Send) {
            self.hurry |= sink.sender_waits;
            if !flew {
                let side = direction.sink();
                self.sends.push(At { key, side });
            }
        }
        if lane.progress() == Progress::Finished {
            sink.shut = true;
        }
        let now = self.common.clock.now();
        let side = direction.sink();
        list_rest(&mut self.rests, sink, At { key, side }, now);
        let side = direction.source();
        list_vigil(&mut self.vigils, source, At { key, side }, now);
        conn.cargo.put(direction, store);
        pumped
    }

    fn may_hold(&mut self, bytes: u32) {
        self.common.kit.spare = bytes;
    }

    fn tap(&mut self, key: SessionKey, feed: Box<Feed>) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.set_tap(feed);
        }
    }

    fn untap(&mut self, key: SessionKey) -> Option<Box<Feed>> {
        self.conns.get_mut(key)?.cargo.take_tap()
    }

    fn drop_held(&mut self, key: SessionKey, direction: Direction) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let mut store = conn.cargo.take(direction);
        self.common.kit.drop_held(&mut store);
        let side = direction.source();
        let source = &mut conn.legs[side.index()];
        source.leave_stream(At { key, side }, &mut self.ring, &mut self.common.kit);
    }

    fn unsent(&self, key: SessionKey) -> [u32; 2] {
        Side::BOTH.map(|side| {
            let leg = self.conns.leg(key, side);
            let queued = leg.and_then(common::Leg::descriptor).map(tcp_info::unsent);
            // What was reported as written and is still to be handed to the kernel.
            queued.and_then(Result::ok).unwrap_or(0) + leg.map_or(0, Leg::unsent)
        })
    }

    fn close(&mut self, key: SessionKey, side: Side, how: Close) -> Start<()> {
        let at = At { key, side };
        let Some(leg) = self.conns.leg_mut(key, side) else {
            return Start::Done(());
        };
        // An orderly end would claim that what a send left over had been sent.
        if how == Close::Reset || leg.has_left_over() {
            leg.abort_on_close();
        }
        leg.shut_down(at, &mut self.ring, &mut self.common.kit);
        if leg.fd.is_none() {
            return Start::Done(());
        }
        if leg.is_quiet() {
            leg.drop_fd();
            return Start::Done(());
        }
        leg.closing = true;
        self.hurry |= leg.flies(Op::Send);
        Start::Pending
    }

    fn quiesce(&mut self, key: SessionKey) -> Start<()> {
        self.begin_to_quiesce(key)
    }

    fn detach(&mut self, key: SessionKey, lanes: &mut [Lane; 2]) -> Option<Detached> {
        self.let_go(key, lanes)
    }

    fn attach(&mut self, key: SessionKey, detached: Detached) -> Result<(), (Cause, Detached)> {
        self.take_over(key, detached)
    }

    fn attach_ahead(
        &mut self,
        key: SessionKey,
        detached: Detached,
    ) -> Result<(), (Cause, Detached)> {
        self.take_over_ahead(key, detached)
    }

    fn pass_on(&mut self) {
        // Messages do not wait for bulk, whose turns come now.
        if !self.sends.is_empty() {
            self.ring.pass_on();
        }
    }

    fn release_spares(&mut self) {
        self.common.kit.pipes.clear();
    }

    fn holdings(&self) -> Holdings {
        self.common.holdings()
    }

    fn count_refused(&mut self, options: u32) {
        self.common.kit.options_refused += u64::from(options);
    }

    fn fd(&self, key: SessionKey, side: Side) -> Option<BorrowedFd<'_>> {
        self.conns.fd(key, side)
    }
}
