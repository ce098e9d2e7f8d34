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
mod doors;
mod lanes;
mod leg;
mod op;
mod probe;
mod ring;
mod vigil;
mod wake;

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::chunks::Chunks;
use super::epoll::{Listener, Setup};
use super::key::SessionKey;
use super::parley::{self, Peeked};
use super::pump::{Kit, Store};
use super::slab::Slots;
use super::{AcceptError, Engine, Event, Holdings, ListenerId, Start, Target};
use crate::net::address::Endpoint;
use crate::net::dial::{self, Connecting, Early};
use crate::net::errno::Failure;
use crate::net::listener;
use crate::net::options::Family;
use crate::net::options::plan::{self, Stage};
use crate::net::pipe::PipePool;
use crate::net::tcp_info::{self, TcpInfo};
use crate::observe::tap::Feed;
use crate::relay::ending::Cause;
use crate::relay::lane::{Lane, Progress};
use crate::relay::session::{Close, Pumped, Readiness};
use crate::relay::time::Time;
use crate::relay::{Direction, Side};

use doors::Doors;
use lanes::Mover;
use leg::Leg;
use op::{At, Op, SLOTS_MAX, Tag};
pub use probe::probe;
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
    listeners: Vec<Listener>,
    doors: Doors,
    conns: Slots<Conn>,
    kit: Kit,
    waker: Waker,
    /// Sides that will want a vigil, and when; in order of time.
    vigils: VecDeque<(At, Time)>,
    /// Sides with a send in flight.
    sends: Vec<At>,
    /// Something waits for these sends: do not sleep before they are over.
    hurry: bool,
    /// Sends whose buffers may stay out while the reactor sleeps.
    sends_asleep: usize,
    /// Receives that found no buffer.
    no_buffer: u64,
    /// Polls of the listeners and of the waker that were refused, and when they are
    /// started again.
    refused_polls: Vec<Tag>,
    polls_due: Time,
    /// Events to be reported by the next wait.
    queued: Vec<Event>,
    completions: Vec<Completion>,
    origin: Instant,
    now: Time,
    busy_poll: Duration,
    ephemeral_ports: RangeInclusive<u16>,
    /// Of listeners that are closed already.
    accept_overflows: u64,
}

/// A connection accepted and not yet adopted.
#[derive(Debug)]
pub struct Incoming {
    fd: OwnedFd,
    family: Family,
}

/// What an engine had to do without, so many times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacks {
    /// A receive found no provided buffer.
    pub buffers: u64,
    /// The kernel had no memory for submissions.
    pub submissions: u64,
}

/// The two sides of a session, and the bytes its lanes hold.
#[derive(Debug, Default)]
struct Conn {
    generation: u32,
    legs: [Leg; 2],
    stores: [Store; 2],
    /// Whoever looks at what its lanes read.
    tap: Option<Box<Feed>>,
}

impl Uring {
    /// An engine for the calling thread, its listeners registered. `origin` is time
    /// zero.
    pub fn new(setup: &Setup, listeners: Vec<Listener>, origin: Instant) -> io::Result<Self> {
        Self::with_sizes(setup, listeners, origin, Sizes::default())
    }

    /// As [`Uring::new`], with queues of other sizes.
    pub fn with_sizes(
        setup: &Setup,
        listeners: Vec<Listener>,
        origin: Instant,
        sizes: Sizes,
    ) -> io::Result<Self> {
        let mut ring = Ring::new(sizes)?;
        let waker = Waker::new()?;
        if !setup.busy_poll.is_zero() {
            ring.busy_poll_cards(setup.busy_poll);
        }
        ring.poll_on(waker.as_fd(), libc::POLLIN, Tag::Waker);
        let doors = Doors::new(&listeners)?;
        ring.poll_on(doors.as_fd(), libc::POLLIN, Tag::Doors);
        Ok(Self {
            ring,
            listeners,
            doors,
            conns: Slots::new(),
            kit: Kit {
                scratch: vec![0; setup.scratch_buffer as usize].into_boxed_slice(),
                chunks: Chunks::default(),
                pipes: PipePool::new(setup.pipe_size),
                held: 0,
                held_limit: setup.buffer_limit,
                pipes_used: 0,
                splice_refused: 0,
                options_refused: 0,
            },
            waker,
            vigils: VecDeque::new(),
            sends: Vec::new(),
            hurry: false,
            sends_asleep: usize::from(sizes.buffers) / 4,
            no_buffer: 0,
            refused_polls: Vec::new(),
            polls_due: Time::NEVER,
            queued: Vec::new(),
            completions: Vec::new(),
            origin,
            now: Time::from_micros(origin.elapsed().as_micros() as u64),
            busy_poll: setup.busy_poll,
            ephemeral_ports: setup.ephemeral_ports.clone(),
            accept_overflows: 0,
        })
    }

    /// What it had to do without so far.
    pub const fn lacks(&self) -> Lacks {
        Lacks {
            buffers: self.no_buffer,
            submissions: self.ring.shortages(),
        }
    }

    /// A waker for other threads; [`Event::Woken`] follows its use.
    pub fn waker(&self) -> io::Result<Waker> {
        self.waker.try_clone()
    }

    fn read_clock(&mut self) {
        self.now = Time::from_micros(self.origin.elapsed().as_micros() as u64);
    }

    /// Passes submissions on and sleeps until a completion or `until`.
    fn sleep(&mut self, until: Time) -> io::Result<()> {
        if self.ring.has_completions() || until <= self.now {
            return self.ring.enter(0, None);
        }
        if !self.busy_poll.is_zero() && self.spin(until)? {
            return Ok(());
        }
        let timeout = (until != Time::NEVER).then(|| until.since(self.now));
        self.ring.enter(1, timeout)
    }

    /// Spins for completions instead of sleeping, for `busy_poll` at the most. The
    /// kernel says in shared memory when there is work, so that spinning costs no
    /// system calls.
    fn spin(&mut self, until: Time) -> io::Result<bool> {
        self.ring.enter(0, None)?;
        let spin_end = (self.now + self.busy_poll).min(until);
        while self.now < spin_end {
            if self.ring.has_news() {
                self.ring.enter(0, None)?;
                return Ok(true);
            }
            std::hint::spin_loop();
            self.read_clock();
        }
        Ok(false)
    }

    fn conn(&self, key: SessionKey) -> Option<&Conn> {
        self.conns
            .get(key.slot)
            .filter(|conn| conn.generation == key.generation)
    }

    fn leg(&self, at: At) -> Option<&Leg> {
        self.conn(at.key).map(|conn| &conn.legs[at.side.index()])
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

    /// A slot for another session, or for a connection made ahead.
    fn open_slot(&mut self, key: SessionKey) -> &mut Conn {
        let conn = self.conns.touch(key.slot);
        debug_assert!(
            conn.legs.iter().all(Leg::is_quiet),
            "a slot is used again with operations in flight"
        );
        *conn = Conn {
            generation: key.generation,
            ..Conn::default()
        };
        conn
    }

    /// The upstream side stands. Of a session: what the client has sent meanwhile is
    /// looked for, what the upstream will send is waited for. Of one without a client,
    /// made ahead: nothing is in flight, so that it can be handed over.
    fn established(&mut self, key: SessionKey) {
        if !self
            .conn(key)
            .is_some_and(|conn| conn.legs[Side::Client.index()].is_open())
        {
            return;
        }
        let at = At {
            key,
            side: Side::Upstream,
        };
        if let Some(leg) = leg_mut(&mut self.conns, at) {
            leg.watch(Op::WatchIn, at, &mut self.ring);
        }
        self.queued.push(ready(Side::Client, key, READABLE));
    }

    fn try_connect(
        &mut self,
        key: SessionKey,
        target: Target<'_>,
    ) -> Result<Start<Result<(), Cause>>, Failure> {
        let client = self.conn(key).and_then(|conn| conn.legs[0].fd.as_ref());
        let early = if target.options.fast_open {
            Early::of(client.map(AsFd::as_fd))
        } else {
            Early::Nothing
        };
        let Target {
            endpoint,
            options,
            local,
        } = target;
        let opened = dial::open_for_connect_from(local, endpoint, options, early)?;
        if let Some(refusal) = opened.refusal {
            self.kit.options_refused += u64::from(refusal.count);
        }
        let connecting = dial::connect(opened.fd.as_fd(), target.endpoint)?;
        let at = At {
            key,
            side: Side::Upstream,
        };
        let Some(leg) = leg_mut(&mut self.conns, at) else {
            return Ok(Start::Done(Err(Cause::Stopped)));
        };
        leg.replace(Some(opened.fd));
        leg.connecting = connecting == Connecting::InProgress;
        leg.suspect = dial::may_self_connect(target.endpoint, &self.ephemeral_ports);
        if leg.connecting {
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

fn conn_mut(conns: &mut Slots<Conn>, key: SessionKey) -> Option<&mut Conn> {
    conns
        .get_mut(key.slot)
        .filter(|conn| conn.generation == key.generation)
}

fn leg_mut(conns: &mut Slots<Conn>, at: At) -> Option<&mut Leg> {
    conn_mut(conns, at.key).map(|conn| &mut conn.legs[at.side.index()])
}

impl Engine for Uring {
    type Incoming = Incoming;

    fn now(&self) -> Time {
        self.now
    }

    fn wait(&mut self, until: Time, events: &mut Vec<Event>) -> io::Result<()> {
        let vigil = self.keep_vigils();
        if self.polls_due <= self.now {
            self.restart_polls();
        }
        events.append(&mut self.queued);
        let hurry = self.hurry || self.sends.len() > self.sends_asleep;
        let until = if events.is_empty() && !hurry {
            until.min(vigil).min(self.polls_due)
        } else {
            Time::ZERO
        };
        self.sleep(until)?;
        let settled = self.ring.is_settled();
        self.read_clock();
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
        Ok(())
    }

    fn accept(&mut self, listener: ListenerId) -> Result<(Incoming, Endpoint), AcceptError> {
        let Some(listener) = self.listeners.get(listener.0 as usize) else {
            return Err(AcceptError::Empty);
        };
        let accepted = listener::accept(listener.fd.as_fd())?;
        let incoming = Incoming {
            fd: accepted.fd,
            family: listener.family,
        };
        Ok((incoming, accepted.peer))
    }

    fn has_waiting(&self, listener: ListenerId) -> bool {
        let listener = self.listeners.get(listener.0 as usize);
        listener.is_some_and(|listener| listener::has_waiting(listener.fd.as_fd()))
    }

    fn adopt(
        &mut self,
        key: SessionKey,
        incoming: Incoming,
        listener: ListenerId,
    ) -> Result<(), Cause> {
        let Incoming { fd, family } = incoming;
        if key.slot >= SLOTS_MAX {
            return Err(Cause::NoMemory);
        }
        if let Some(listener) = self.listeners.get(listener.0 as usize) {
            // A refusal was reported at start-up already and is no reason to
            // turn a client away.
            if let Err(refusal) = listener.options.apply(fd.as_fd(), Stage::Accepted, family) {
                self.kit.options_refused += u64::from(refusal.count);
            }
        }
        let conn = self.open_slot(key);
        conn.legs[0].replace(Some(fd));
        conn.legs[0].vigil_due = true;
        let at = At {
            key,
            side: Side::Client,
        };
        self.vigils.push_back((at, self.now + VIGIL_PATIENCE));
        Ok(())
    }

    fn peek(&mut self, key: SessionKey, buffer: &mut [u8]) -> Peeked {
        let side = Side::Client;
        let at = At { key, side };
        let Some(leg) = leg_mut(&mut self.conns, at).filter(|leg| leg.is_open()) else {
            return Peeked::Ended;
        };
        let peeked = leg
            .fd
            .as_ref()
            .map_or(Peeked::Ended, |fd| parley::peek(fd.as_fd(), buffer));
        if peeked == Peeked::Empty {
            // Nothing that was seen is left to be found again: the poll sleeps.
            leg.watch_request(at, &mut self.ring);
        }
        peeked
    }

    fn take(&mut self, key: SessionKey, len: usize) -> Result<(), Cause> {
        let side = Side::Client;
        let leg = leg_mut(&mut self.conns, At { key, side });
        let fd = leg.and_then(|leg| leg.fd.as_ref());
        fd.map_or(Err(Cause::Stopped), |fd| {
            parley::take(fd.as_fd(), len, &mut self.kit.scratch)
        })
    }

    fn say(&mut self, key: SessionKey, bytes: &[u8]) -> Result<usize, Cause> {
        let side = Side::Client;
        let at = At { key, side };
        let Some(leg) = leg_mut(&mut self.conns, at).filter(|leg| leg.is_open()) else {
            return Err(Cause::Stopped);
        };
        let fd = leg.fd.as_ref();
        let said = fd.map_or(Err(Cause::Stopped), |fd| parley::say(fd.as_fd(), bytes));
        if said.is_ok_and(|taken| taken < bytes.len()) {
            leg.watch(Op::WatchOut, at, &mut self.ring);
        }
        said
    }

    fn conclude(&mut self, key: SessionKey) {
        let side = Side::Client;
        if let Some(fd) = self.leg(At { key, side }).and_then(|leg| leg.fd.as_ref()) {
            parley::conclude(fd.as_fd());
        }
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
        self.open_slot(key);
        self.connect(key, target)
    }

    fn is_fresh(&self, key: SessionKey) -> bool {
        let side = Side::Upstream;
        let fd = self.leg(At { key, side }).and_then(|leg| leg.fd.as_ref());
        fd.is_some_and(|fd| dial::is_fresh(fd.as_fd()))
    }

    fn hand_over(&mut self, from: SessionKey, to: SessionKey) -> bool {
        let at = |key| At {
            key,
            side: Side::Upstream,
        };
        let Some(leg) = leg_mut(&mut self.conns, at(from)) else {
            return false;
        };
        debug_assert!(leg.is_quiet(), "handed over with operations in flight");
        let (fd, suspect) = (leg.fd.take(), leg.suspect);
        leg.replace(None);
        match leg_mut(&mut self.conns, at(to)) {
            Some(leg) if fd.is_some() => {
                leg.replace(fd);
                leg.suspect = suspect;
                self.established(to);
                true
            }
            _ => false,
        }
    }

    fn apply_connected(&mut self, key: SessionKey, target: Target<'_>) {
        let family = Family::of(target.endpoint);
        let Some(fd) = self.conn(key).and_then(|conn| conn.legs[1].fd.as_ref()) else {
            return;
        };
        let stage = Stage::AfterConnect;
        if let Err(refusal) = target.options.apply(fd.as_fd(), stage, family) {
            self.kit.options_refused += u64::from(refusal.count);
        }
    }

    fn pump(&mut self, key: SessionKey, direction: Direction, lane: &mut Lane) -> Pumped {
        let Some(conn) = conn_mut(&mut self.conns, key) else {
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
        let mut mover = Mover {
            ring: &mut self.ring,
            kit: &mut self.kit,
            source,
            sink,
            store: &mut conn.stores[direction.index()],
            tap: conn.tap.as_deref_mut(),
            key,
            direction,
        };
        let flew = mover.sink.flies(Op::Send);
        let pumped = mover.pump(lane);
        if mover.sink.flies(Op::Send) {
            self.hurry |= mover.sink.sender_waits;
            if !flew {
                let side = direction.sink();
                self.sends.push(At { key, side });
            }
        }
        if lane.progress() == Progress::Finished {
            mover.sink.shut = true;
        }
        let side = direction.source();
        list_vigil(&mut self.vigils, mover.source, At { key, side }, self.now);
        pumped
    }

    fn tap(&mut self, key: SessionKey, mut feed: Box<Feed>) {
        if let Some(conn) = conn_mut(&mut self.conns, key) {
            let client = conn.legs[0].fd.as_ref().map(AsFd::as_fd);
            if let Some(local) = client.and_then(listener::local_address) {
                feed.set_local(local);
            }
            conn.tap = Some(feed);
        }
    }

    fn untap(&mut self, key: SessionKey) -> Option<Box<Feed>> {
        conn_mut(&mut self.conns, key)?.tap.take()
    }

    fn drop_held(&mut self, key: SessionKey, direction: Direction) {
        let Some(conn) = conn_mut(&mut self.conns, key) else {
            return;
        };
        self.kit.drop_held(&mut conn.stores[direction.index()]);
        let side = direction.source();
        let source = &mut conn.legs[side.index()];
        source.leave_stream(At { key, side }, &mut self.ring, &mut self.kit);
    }

    fn unsent(&self, key: SessionKey) -> [u32; 2] {
        let Some(conn) = self.conn(key) else {
            return [0; 2];
        };
        conn.legs.each_ref().map(|leg| {
            let queued = leg
                .fd
                .as_ref()
                .and_then(|fd| tcp_info::unsent(fd.as_fd()).ok());
            queued.unwrap_or(0) + leg.unsent()
        })
    }

    fn close(&mut self, key: SessionKey, side: Side, how: Close) -> Start<()> {
        let at = At { key, side };
        let Some(leg) = leg_mut(&mut self.conns, at) else {
            return Start::Done(());
        };
        // An orderly end would claim that what a send left over had been sent.
        if how == Close::Reset || leg.has_left_over() {
            leg.abort_on_close();
        }
        leg.shut_down(at, &mut self.ring, &mut self.kit);
        if leg.fd.is_none() {
            return Start::Done(());
        }
        if leg.is_quiet() {
            leg.fd = None;
            return Start::Done(());
        }
        leg.closing = true;
        self.hurry |= leg.flies(Op::Send);
        Start::Pending
    }

    fn tcp_info(&self, key: SessionKey, side: Side) -> Option<TcpInfo> {
        let fd = self.leg(At { key, side })?.fd.as_ref()?;
        TcpInfo::read(fd.as_fd()).ok()
    }

    fn owe_no_ack(&mut self, key: SessionKey) {
        let side = Side::Upstream;
        if let Some(fd) = self.leg(At { key, side }).and_then(|leg| leg.fd.as_ref()) {
            // Only ever a matter of 200 ms; a socket that failed says so itself.
            let _ = plan::send_delayed_ack(fd.as_fd());
        }
    }

    fn close_listeners(&mut self) {
        self.accept_overflows = Engine::accept_overflows(self);
        self.doors.close(&self.listeners);
        self.listeners.clear();
    }

    fn accept_overflows(&self) -> u64 {
        let drops = self
            .listeners
            .iter()
            .map(|listener| listener::drops(listener.fd.as_fd()));
        self.accept_overflows + drops.map(|drops| drops.map_or(0, u64::from)).sum::<u64>()
    }

    fn release_spares(&mut self) {
        self.kit.pipes.clear();
    }

    fn holdings(&self) -> Holdings {
        Holdings {
            held_bytes: self.kit.held,
            pipes: self.kit.pipes_used,
            pipes_pooled: self.kit.pipes.len() as u32,
            splice_refused: self.kit.splice_refused,
            options_refused: self.kit.options_refused,
        }
    }
}
