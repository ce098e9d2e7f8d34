//! What both real engines have: how they are made, the clock, the connections in their
//! slots, and how a socket is dialled.
//!
//! Owns what every session of a reactor shares ([`Common`]) and where the two sides of
//! each stand ([`Conns`]). How an engine waits for the kernel, and what is in flight on
//! a side, is its own: that is the type parameter of [`Conns`].

use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chunks::Chunks;
use super::key::SessionKey;
use super::pump::{Kit, Store};
use super::slab::Slots;
use super::spin::{BusyPoll, Spin};
use super::{Holdings, Target};
use crate::net::address::Endpoint;
use crate::net::dial::{self, Connecting, Early};
use crate::net::errno::{Failure, Obstacle, Operation, Resource};
use crate::net::listener;
use crate::net::options::plan::{self, Stage};
use crate::net::options::{Family, OptionPlan};
use crate::net::pipe::PipePool;
use crate::net::shared;
use crate::observe::tap::Feed;
use crate::relay::ending::Cause;
use crate::relay::session::Close;
use crate::relay::time::Time;
use crate::relay::{Direction, Side};

/// What an engine is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Bytes of the scratch buffer.
    pub scratch_buffer: u32,
    /// Bytes asked for each pipe.
    pub pipe_size: u32,
    /// Bytes of tails and pipes beyond which reads shrink and pipes are refused.
    pub buffer_limit: u64,
    /// How long to spin before sleeping.
    pub busy_poll: BusyPoll,
    /// Local ports the kernel hands out; see [`dial::may_self_connect`].
    pub ephemeral_ports: RangeInclusive<u16>,
}

/// A listener as an engine takes it.
#[derive(Debug)]
pub struct Listener {
    /// Listening, non-blocking. Closed once nobody holds it: whoever keeps it may give it
    /// to another reactor, its queue with it.
    pub fd: Arc<OwnedFd>,
    /// Its family, and so that of the sockets it accepts.
    pub family: Family,
    /// Options of accepted sockets.
    pub options: Arc<OptionPlan>,
}

/// A connection accepted and not yet adopted.
#[derive(Debug)]
pub struct Incoming {
    pub(super) fd: OwnedFd,
    pub(super) family: Family,
}

/// The time since an origin, read when it is told to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    origin: Instant,
    now: Time,
}

impl Clock {
    /// `origin` is time zero.
    fn new(origin: Instant) -> Self {
        let mut clock = Self {
            origin,
            now: Time::ZERO,
        };
        clock.read();
        clock
    }

    /// Brings it up to date.
    pub(super) fn read(&mut self) {
        self.now = Time::from_micros(self.origin.elapsed().as_micros() as u64);
    }

    /// How long ago it was last read.
    pub(super) fn since_read(&self) -> Duration {
        let passed = self.origin.elapsed().as_micros() as u64;
        Duration::from_micros(passed.saturating_sub(self.now.as_micros()))
    }

    /// As it was last read.
    pub(super) const fn now(&self) -> Time {
        self.now
    }
}

/// What the sessions of a reactor share in its engine.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) kit: Kit,
    pub(super) clock: Clock,
    pub(super) spin: Spin,
    ephemeral_ports: RangeInclusive<u16>,
}

/// A socket whose connect was started.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) fd: OwnedFd,
    /// The outcome is still to come.
    pub(super) connecting: bool,
    /// See [`dial::may_self_connect`].
    pub(super) suspect: Option<NonZeroU16>,
}

impl Common {
    /// `origin` is time zero.
    pub(super) fn new(setup: &Setup, origin: Instant) -> Self {
        Self {
            kit: Kit {
                scratch: vec![0; setup.scratch_buffer as usize].into_boxed_slice(),
                chunks: Chunks::default(),
                pipes: PipePool::new(setup.pipe_size),
                held: 0,
                held_limit: setup.buffer_limit,
                spare: u32::MAX,
                pipes_used: 0,
                splice_refused: 0,
                options_refused: 0,
            },
            clock: Clock::new(origin),
            spin: Spin::new(setup.busy_poll),
            ephemeral_ports: setup.ephemeral_ports.clone(),
        }
    }

    /// When a sleep begins: later than the clock was read, by what the turn took.
    pub(super) fn begin_sleep(&mut self) -> Time {
        if self.spin.learns() {
            self.clock.read();
        }
        self.clock.now()
    }

    /// The clock was read after the sleep.
    pub(super) fn end_sleep(&mut self, since: Time) {
        if self.spin.learns() {
            self.spin.slept(self.clock.now().since(since));
        }
    }

    /// Opens a socket and starts to connect it. `client` is the other side, if there is
    /// one: what waits there may ride on the SYN.
    pub(super) fn dial(
        &mut self,
        client: Option<BorrowedFd<'_>>,
        target: Target<'_>,
    ) -> Result<Dialled, Failure> {
        let Target {
            endpoint,
            options,
            local,
        } = target;
        let early = if options.fast_open {
            Early::of(client)
        } else {
            Early::Nothing
        };
        let opened = dial::open_for_connect_from(local, endpoint, options, early)?;
        if let Some(refusal) = opened.refusal {
            self.kit.options_refused += u64::from(refusal.count);
        }
        let connecting = dial::connect(opened.fd.as_fd(), endpoint)?;
        let suspect = dial::may_self_connect(endpoint, &self.ephemeral_ports);
        Ok(Dialled {
            fd: opened.fd,
            connecting: connecting == Connecting::InProgress,
            suspect: suspect.and_then(NonZeroU16::new),
        })
    }

    /// Local ports that the kernel draws from, if [`dial::may_self_connect`] holds.
    pub(super) fn suspect_ports(&self, endpoint: &Endpoint) -> Option<RangeInclusive<u16>> {
        dial::may_self_connect(endpoint, &self.ephemeral_ports)
            .map(|_| self.ephemeral_ports.clone())
    }

    /// Sets what an accepted socket does not inherit from its listener. A refusal was
    /// reported at start-up already and is no reason to turn a client away.
    pub(super) fn apply_accepted(&mut self, options: &OptionPlan, incoming: &Incoming) {
        let applied = options.apply(incoming.fd.as_fd(), Stage::Accepted, incoming.family);
        if let Err(refusal) = applied {
            self.kit.options_refused += u64::from(refusal.count);
        }
    }

    /// What it holds now.
    pub(super) const fn holdings(&self) -> Holdings {
        Holdings {
            held_bytes: self.kit.held,
            held_limit: self.kit.held_limit,
            pipes: self.kit.pipes_used,
            pipes_pooled: self.kit.pipes.len() as u32,
            splice_refused: self.kit.splice_refused,
            options_refused: self.kit.options_refused,
        }
    }
}

/// What a poll tells of a socket that is connecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It is writable, and nothing is wrong with it: a socket with a pending error is never
    /// told of without it (`tcp_poll`), so there is none to ask for.
    Writable,
    /// That it is or was writable; whether something is wrong has to be asked.
    Doubtful,
    /// Not that it is writable.
    Nothing,
}

/// How a connect ended that was pending, as far as the socket tells; `None`: not yet.
/// Where [`Told::Writable`] does not, `SO_ERROR` alone says so: an error or hang-up without one, and without
/// writability, says nothing.
pub(super) fn connect_outcome(
    fd: BorrowedFd<'_>,
    suspect: Option<NonZeroU16>,
    told: Told,
) -> Option<Result<(), Cause>> {
    if told != Told::Writable
        && let Some(failure) = dial::pending_error(fd, Operation::Connect)
    {
        return Some(Err(failure.into()));
    }
    if suspect.is_some_and(|port| dial::is_self_connect(fd, port.get())) {
        return Some(Err(Cause::SelfConnect));
    }
    (told != Told::Nothing).then_some(Ok(()))
}

/// Before the descriptor of a side is closed, so that its peer is told how; `shared`:
/// another process may have a copy.
pub(super) fn part(fd: BorrowedFd<'_>, how: Close, shared: bool) {
    match (how, shared) {
        (Close::Orderly, false) => {}
        // Best effort: a socket that refuses SO_LINGER is closed in order.
        (Close::Reset, false) => drop(plan::set_abort_on_close(fd)),
        (Close::Orderly, true) => shared::tell_end(fd),
        (Close::Reset, true) => shared::tell_reset(fd),
    }
}

/// Whether it is a unix socket: a short read does not prove such a one empty.
pub(super) fn is_unix(fd: BorrowedFd<'_>) -> bool {
    let local = listener::local_address(fd);
    !matches!(local, Some(Endpoint::Inet(_)))
}

/// One side of a session, as an engine keeps it.
pub(super) trait Leg: Default {
    /// Its descriptor, if it has one.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Whether nothing that the kernel does for it is under way.
    fn is_idle(&self) -> bool;
}

/// The two sides of a session, and the bytes its lanes hold.
#[derive(Debug, Default)]
pub(super) struct Conn<L> {
    generation: u32,
    /// While its upstream is being connected: see [`dial::may_self_connect`].
    pub(super) suspect: Option<NonZeroU16>,
    pub(super) legs: [L; 2],
    pub(super) cargo: Cargo,
}

/// What the lanes of a connection hold, and whoever looks at what they read: most have
/// neither, for all their life, and pay for a pointer. One that has held something keeps the
/// room for it, so that holding costs no allocation again and again.
#[derive(Debug, Default)]
pub(super) struct Cargo(Option<Box<Hold>>);

#[derive(Debug, Default)]
struct Hold {
    stores: [Store; 2],
    tap: Option<Box<Feed>>,
}

impl Cargo {
    /// Of a connection that has come from elsewhere.
    pub(super) fn new([up, down]: [Store; 2], tap: Option<Box<Feed>>) -> Self {
        let mut cargo = Self::default();
        cargo.put(Direction::Up, up);
        cargo.put(Direction::Down, down);
        if let Some(feed) = tap {
            cargo.show_to(feed);
        }
        cargo
    }

    /// Takes out what a lane holds, for as long as it is moved.
    pub(super) fn take(&mut self, direction: Direction) -> Store {
        let hold = self.0.as_mut();
        hold.map_or(Store::Empty, |hold| {
            std::mem::take(&mut hold.stores[direction.index()])
        })
    }

    /// Puts back what it holds then.
    pub(super) fn put(&mut self, direction: Direction, store: Store) {
        if self.0.is_some() || !matches!(store, Store::Empty) {
            self.0.get_or_insert_default().stores[direction.index()] = store;
        }
    }

    /// Whoever looks at what the lanes read.
    pub(super) fn tap(&mut self) -> Option<&mut Feed> {
        self.0.as_mut()?.tap.as_deref_mut()
    }

    /// Nobody looks any more.
    pub(super) fn take_tap(&mut self) -> Option<Box<Feed>> {
        self.0.as_mut()?.tap.take()
    }

    fn show_to(&mut self, feed: Box<Feed>) {
        self.0.get_or_insert_default().tap = Some(feed);
    }
}

impl<L: Leg> Conn<L> {
    /// Shows what its lanes read to a tap from now on.
    pub(super) fn set_tap(&mut self, mut feed: Box<Feed>) {
        let client = self.legs[Side::Client.index()].descriptor();
        if let Some(local) = client.and_then(listener::local_address) {
            feed.set_local(&local);
        }
        self.cargo.show_to(feed);
    }
}

/// Connections by the key of their session. A key of another generation finds nothing.
#[derive(Debug, Default)]
pub(super) struct Conns<L: Leg> {
    slots: Slots<Conn<L>>,
}

impl<L: Leg> Conns<L> {
    /// None; allocates nothing.
    pub(super) const fn new() -> Self {
        Self {
            slots: Slots::new(),
        }
    }

    /// A slot for another session, or for a connection made ahead.
    pub(super) fn open(&mut self, key: SessionKey) -> &mut Conn<L> {
        let conn = self.slots.touch(key.slot);
        debug_assert!(
            conn.legs.iter().all(Leg::is_idle),
            "a slot is used again with operations in flight"
        );
        *conn = Conn {
            generation: key.generation,
            ..Conn::default()
        };
        conn
    }

    pub(super) fn get(&self, key: SessionKey) -> Option<&Conn<L>> {
        let conn = self.slots.get(key.slot)?;
        (conn.generation == key.generation).then_some(conn)
    }

    pub(super) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Conn<L>> {
        let conn = self.slots.get_mut(key.slot)?;
        (conn.generation == key.generation).then_some(conn)
    }

    pub(super) fn leg(&self, key: SessionKey, side: Side) -> Option<&L> {
        Some(&self.get(key)?.legs[side.index()])
    }

    pub(super) fn leg_mut(&mut self, key: SessionKey, side: Side) -> Option<&mut L> {
        Some(&mut self.get_mut(key)?.legs[side.index()])
    }

    /// The descriptor of a side.
    pub(super) fn fd(&self, key: SessionKey, side: Side) -> Option<BorrowedFd<'_>> {
        self.leg(key, side)?.descriptor()
    }
}

impl From<Failure> for Cause {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Reset => Self::Reset,
            Failure::BrokenPipe => Self::BrokenPipe,
            Failure::Refused => Self::Refused,
            Failure::Unreachable(Obstacle::Source | Obstacle::Interface) => Self::NoSource,
            Failure::Unreachable(_) => Self::Unreachable,
            Failure::TimedOut => Self::PeerTimeout,
            Failure::Exhausted(Resource::Ports) => Self::PortsExhausted,
            Failure::Exhausted(Resource::Backlog) => Self::Refused,
            Failure::Exhausted(Resource::ProcessDescriptors | Resource::SystemDescriptors) => {
                Self::NoDescriptors
            }
            Failure::Exhausted(Resource::Memory | Resource::Watches | Resource::PipePages) => {
                Self::NoMemory
            }
            Failure::Unsupported => Self::Errno(libc::EINVAL as u16),
            Failure::WouldBlock | Failure::Interrupted => Self::Errno(libc::EAGAIN as u16),
            Failure::ConnectionLost => Self::Reset,
            Failure::Other(errno) => Self::Errno(u16::try_from(errno).unwrap_or(u16::MAX)),
        }
    }
}
