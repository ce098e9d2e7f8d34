//! The readiness engine: epoll, through mio.
//!
//! Owns the descriptors of every session of its reactor, and the bytes that
//! lanes hold. Registers each socket once, for both directions, edge-triggered;
//! closing a socket removes it. Only a connection made ahead is registered again,
//! under the key of the session that it is handed to.
//!
//! Deliberately not here: what to do next (the relay says), deadlines (the
//! reactor's wheel).

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Waker};

use super::chunks::Chunks;
use super::key::{SessionKey, Token};
use super::parley::{self, Peeked};
use super::pump::{Ends, Kit, Store};
use super::slab::Slots;
use super::{AcceptError, Engine, Event, Holdings, ListenerId, Start, Target};
use crate::net::address::Endpoint;
use crate::net::dial::{self, Connecting, Early};
use crate::net::errno::{Failure, Obstacle, Operation, Resource};
use crate::net::listener;
use crate::net::options::plan::{self, Stage};
use crate::net::options::{Family, OptionPlan};
use crate::net::pipe::PipePool;
use crate::net::tcp_info::{self, TcpInfo};
use crate::observe::tap::Feed;
use crate::relay::ending::Cause;
use crate::relay::lane::Lane;
use crate::relay::session::{Close, Pumped, Readiness};
use crate::relay::time::Time;
use crate::relay::{Direction, Side};

/// Events taken from the kernel in one wait. More would only delay timers.
const EVENTS_PER_WAIT: usize = 512;

/// Both directions, and urgent data: behind the urgent mark a short read does
/// not mean that the socket is empty.
const INTEREST: Interest = Interest::READABLE
    .add(Interest::WRITABLE)
    .add(Interest::PRIORITY);

/// What an engine is made with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Bytes of the scratch buffer.
    pub scratch_buffer: u32,
    /// Bytes asked for each pipe.
    pub pipe_size: u32,
    /// Bytes of tails and pipes beyond which reads shrink and pipes are refused.
    pub buffer_limit: u64,
    /// Spin this long before sleeping.
    pub busy_poll: Duration,
    /// Local ports the kernel hands out; see [`dial::may_self_connect`].
    pub ephemeral_ports: RangeInclusive<u16>,
}

/// A listener as an engine takes it.
#[derive(Debug)]
pub struct Listener {
    /// Listening, non-blocking.
    pub fd: OwnedFd,
    /// Its family, and so that of the sockets it accepts.
    pub family: Family,
    /// Options of accepted sockets.
    pub options: Arc<OptionPlan>,
}

/// The readiness engine. See the module's documentation.
#[derive(Debug)]
pub struct Epoll {
    poll: Poll,
    ready: Events,
    listeners: Vec<Listener>,
    conns: Slots<Conn>,
    kit: Kit,
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

/// The descriptors and stores of one session.
#[derive(Debug, Default)]
struct Conn {
    generation: u32,
    legs: [Leg; 2],
    stores: [Store; 2],
    /// Whoever looks at what its lanes read.
    tap: Option<Box<Feed>>,
}

#[derive(Debug, Default)]
struct Leg {
    fd: Option<OwnedFd>,
    connecting: bool,
    /// See [`Ends::exhaustive`].
    exhaustive: bool,
    /// Its write side was shut down.
    shut: bool,
    /// See [`dial::may_self_connect`].
    suspect: bool,
}

impl Epoll {
    /// An engine with its listeners registered. `origin` is time zero.
    pub fn new(setup: &Setup, listeners: Vec<Listener>, origin: Instant) -> io::Result<Self> {
        let poll = Poll::new()?;
        for (index, listener) in listeners.iter().enumerate() {
            let token = mio_token(Token::Listener(index as u32));
            poll.registry().register(
                &mut SourceFd(&listener.fd.as_raw_fd()),
                token,
                Interest::READABLE,
            )?;
        }
        Ok(Self {
            poll,
            ready: Events::with_capacity(EVENTS_PER_WAIT),
            listeners,
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
            origin,
            now: Time::from_micros(origin.elapsed().as_micros() as u64),
            busy_poll: setup.busy_poll,
            ephemeral_ports: setup.ephemeral_ports.clone(),
            accept_overflows: 0,
        })
    }

    /// A waker for other threads; [`Event::Woken`] follows its use.
    pub fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), mio_token(Token::Waker))
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.ready, timeout) {
            // A signal came first: no event is not an error.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }

    fn read_clock(&mut self) {
        self.now = Time::from_micros(self.origin.elapsed().as_micros() as u64);
    }

    /// Spins for events instead of sleeping, for `busy_poll` at the most. The
    /// clock is read in here because nothing else would end it.
    fn spin(&mut self, until: Time) -> io::Result<bool> {
        let spin_end = (self.now + self.busy_poll).min(until);
        while self.now < spin_end {
            self.poll(Some(Duration::ZERO))?;
            self.read_clock();
            if !self.ready.is_empty() {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }

    fn register(&self, key: SessionKey, side: Side, fd: RawFd) -> Result<(), Failure> {
        self.poll
            .registry()
            .register(
                &mut SourceFd(&fd),
                mio_token(Token::Side(key, side)),
                INTEREST,
            )
            .map_err(|error| Failure::of_io(Operation::Open, &error))
    }

    fn conn(&self, key: SessionKey) -> Option<&Conn> {
        self.conns
            .get(key.slot)
            .filter(|conn| conn.generation == key.generation)
    }

    fn conn_mut(&mut self, key: SessionKey) -> Option<&mut Conn> {
        self.conns
            .get_mut(key.slot)
            .filter(|conn| conn.generation == key.generation)
    }

    /// What an epoll event on a leg means, appended to `events`.
    fn interpret(
        conn: &mut Conn,
        key: SessionKey,
        side: Side,
        event: &mio::event::Event,
        events: &mut Vec<Event>,
    ) {
        let leg = &mut conn.legs[side.index()];
        let Some(fd) = &leg.fd else { return };
        let failed = event.is_error();
        let writable = event.is_writable();
        if leg.connecting {
            // SO_ERROR alone says how the connect ended; an error or hang-up
            // without one, and without writability, says nothing yet.
            let outcome = match dial::pending_error(fd.as_fd(), Operation::Connect) {
                Some(failure) => Err(Cause::from(failure)),
                None if leg.suspect && dial::is_self_connect(fd.as_fd()) => Err(Cause::SelfConnect),
                None if writable => Ok(()),
                None => return,
            };
            leg.connecting = false;
            match outcome {
                Ok(()) => events.push(Event::Connected(key)),
                Err(cause) => {
                    leg.fd = None;
                    events.push(Event::ConnectFailed(key, cause));
                    return;
                }
            }
        }
        let ended = event.is_read_closed();
        leg.exhaustive |= ended || failed || event.is_priority();
        let readable = event.is_readable() || ended;
        events.push(Event::Ready(
            key,
            side,
            Readiness {
                readable,
                writable,
                failed,
            },
        ));
    }
}

impl Engine for Epoll {
    type Incoming = Incoming;

    fn now(&self) -> Time {
        self.now
    }

    fn wait(&mut self, until: Time, events: &mut Vec<Event>) -> io::Result<()> {
        let found = !self.busy_poll.is_zero() && self.now < until && self.spin(until)?;
        if !found {
            let timeout = (until != Time::NEVER).then(|| until.since(self.now));
            self.poll(timeout)?;
            self.read_clock();
        }
        for event in &self.ready {
            match Token::decode(event.token().0 as u64) {
                Token::Waker => events.push(Event::Woken),
                Token::Listener(index) => events.push(Event::Acceptable(ListenerId(index))),
                Token::Side(key, side) => {
                    if let Some(conn) = self.conns.get_mut(key.slot)
                        && conn.generation == key.generation
                    {
                        Self::interpret(conn, key, side, event, events);
                    }
                }
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
        if let Some(listener) = self.listeners.get(listener.0 as usize) {
            // A refusal was reported at start-up already and is no reason to
            // turn a client away.
            if let Err(refusal) = listener.options.apply(fd.as_fd(), Stage::Accepted, family) {
                self.kit.options_refused += u64::from(refusal.count);
            }
        }
        self.register(key, Side::Client, fd.as_raw_fd())?;
        let conn = self.conns.touch(key.slot);
        *conn = Conn {
            generation: key.generation,
            ..Conn::default()
        };
        conn.legs[0] = Leg {
            fd: Some(fd),
            exhaustive: family == Family::Unix,
            ..Leg::default()
        };
        Ok(())
    }

    fn peek(&mut self, key: SessionKey, buffer: &mut [u8]) -> Peeked {
        // Whatever comes after this is an edge of its own.
        self.client(key)
            .map_or(Peeked::Ended, |fd| parley::peek(fd, buffer))
    }

    fn take(&mut self, key: SessionKey, len: usize) -> Result<(), Cause> {
        let conn = self.conns.get(key.slot);
        let conn = conn.filter(|conn| conn.generation == key.generation);
        let fd = conn.and_then(|conn| conn.legs[0].fd.as_ref());
        fd.map_or(Err(Cause::Stopped), |fd| {
            parley::take(fd.as_fd(), len, &mut self.kit.scratch)
        })
    }

    fn say(&mut self, key: SessionKey, bytes: &[u8]) -> Result<usize, Cause> {
        self.client(key)
            .map_or(Err(Cause::Stopped), |fd| parley::say(fd, bytes))
    }

    fn conclude(&mut self, key: SessionKey) {
        if let Some(fd) = self.client(key) {
            parley::conclude(fd);
        }
    }

    fn connect(&mut self, key: SessionKey, target: Target<'_>) -> Start<Result<(), Cause>> {
        match self.try_connect(key, target) {
            Ok(start) => start,
            Err(failure) => Start::Done(Err(failure.into())),
        }
    }

    fn connect_ahead(&mut self, key: SessionKey, target: Target<'_>) -> Start<Result<(), Cause>> {
        *self.conns.touch(key.slot) = Conn {
            generation: key.generation,
            ..Conn::default()
        };
        self.connect(key, target)
    }

    fn is_fresh(&self, key: SessionKey) -> bool {
        let fd = self.conn(key).and_then(|conn| conn.legs[1].fd.as_ref());
        fd.is_some_and(|fd| dial::is_fresh(fd.as_fd()))
    }

    fn hand_over(&mut self, from: SessionKey, to: SessionKey) -> bool {
        let Some(leg) = self
            .conn_mut(from)
            .map(|conn| std::mem::take(&mut conn.legs[1]))
        else {
            return false;
        };
        let Some(fd) = &leg.fd else { return false };
        // Told of again by the kernel: a change of the registration renews the edge
        // of whatever the socket is ready for.
        let token = mio_token(Token::Side(to, Side::Upstream));
        let registry = self.poll.registry();
        let moved = registry.reregister(&mut SourceFd(&fd.as_raw_fd()), token, INTEREST);
        match self.conn_mut(to) {
            Some(conn) if moved.is_ok() => {
                conn.legs[1] = leg;
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
        let Some(conn) = self
            .conns
            .get_mut(key.slot)
            .filter(|conn| conn.generation == key.generation)
        else {
            return Pumped::default();
        };
        let (source, sink) = (direction.source().index(), direction.sink().index());
        // Discarding needs no sink; every other move of a lane has both.
        let Some(source_fd) = &conn.legs[source].fd else {
            return Pumped::default();
        };
        let sink_fd = conn.legs[sink].fd.as_ref().unwrap_or(source_fd);
        let ends = Ends {
            direction,
            source: source_fd.as_fd(),
            sink: sink_fd.as_fd(),
            exhaustive: conn.legs[source].exhaustive,
            last: conn.legs[source].shut,
        };
        let pumped = self.kit.pump(
            ends,
            &mut conn.stores[direction.index()],
            conn.tap.as_deref_mut(),
            lane,
        );
        if lane.progress() == crate::relay::lane::Progress::Finished {
            conn.legs[sink].shut = true;
        }
        pumped
    }

    fn tap(&mut self, key: SessionKey, mut feed: Box<Feed>) {
        if let Some(conn) = self.conn_mut(key) {
            let client = conn.legs[0].fd.as_ref().map(AsFd::as_fd);
            if let Some(local) = client.and_then(listener::local_address) {
                feed.set_local(local);
            }
            conn.tap = Some(feed);
        }
    }

    fn untap(&mut self, key: SessionKey) -> Option<Box<Feed>> {
        self.conn_mut(key)?.tap.take()
    }

    fn drop_held(&mut self, key: SessionKey, direction: Direction) {
        if let Some(conn) = self
            .conns
            .get_mut(key.slot)
            .filter(|conn| conn.generation == key.generation)
        {
            self.kit.drop_held(&mut conn.stores[direction.index()]);
        }
    }

    fn unsent(&self, key: SessionKey) -> [u32; 2] {
        let Some(conn) = self.conn(key) else {
            return [0; 2];
        };
        conn.legs.each_ref().map(|leg| {
            leg.fd
                .as_ref()
                .and_then(|fd| tcp_info::unsent(fd.as_fd()).ok())
                .unwrap_or(0)
        })
    }

    fn close(&mut self, key: SessionKey, side: Side, how: Close) -> Start<()> {
        if let Some(conn) = self.conn_mut(key)
            && let Some(fd) = std::mem::take(&mut conn.legs[side.index()]).fd
            && how == Close::Reset
        {
            // Best effort: a socket that refuses SO_LINGER is closed in order.
            let _ = plan::set_abort_on_close(fd.as_fd());
        }
        Start::Done(())
    }

    fn tcp_info(&self, key: SessionKey, side: Side) -> Option<TcpInfo> {
        let fd = self.conn(key)?.legs[side.index()].fd.as_ref()?;
        TcpInfo::read(fd.as_fd()).ok()
    }

    fn owe_no_ack(&mut self, key: SessionKey) {
        if let Some(fd) = self.conn(key).and_then(|conn| conn.legs[1].fd.as_ref()) {
            // Only ever a matter of 200 ms; a socket that failed says so itself.
            let _ = plan::send_delayed_ack(fd.as_fd());
        }
    }

    fn close_listeners(&mut self) {
        self.accept_overflows = Engine::accept_overflows(self);
        for listener in self.listeners.drain(..) {
            // The socket of a unix listener is shared by reactors: closing this
            // descriptor alone would leave it registered.
            let _ = self
                .poll
                .registry()
                .deregister(&mut SourceFd(&listener.fd.as_raw_fd()));
        }
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

impl Epoll {
    fn client(&self, key: SessionKey) -> Option<BorrowedFd<'_>> {
        let fd = self.conn(key)?.legs[Side::Client.index()].fd.as_ref()?;
        Some(fd.as_fd())
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
        // Registered after the connect: before it, epoll reports a hang-up.
        self.register(key, Side::Upstream, opened.fd.as_raw_fd())?;
        let leg = Leg {
            fd: Some(opened.fd),
            exhaustive: matches!(target.endpoint, Endpoint::Unix(_)),
            suspect: dial::may_self_connect(target.endpoint, &self.ephemeral_ports),
            ..Leg::default()
        };
        Ok(self.install(key, leg, connecting))
    }

    fn install(
        &mut self,
        key: SessionKey,
        mut leg: Leg,
        connecting: Connecting,
    ) -> Start<Result<(), Cause>> {
        leg.connecting = connecting == Connecting::InProgress;
        let start = if leg.connecting {
            Start::Pending
        } else {
            Start::Done(Ok(()))
        };
        let Some(conn) = self.conn_mut(key) else {
            return Start::Done(Err(Cause::Stopped));
        };
        conn.legs[1] = leg;
        start
    }
}

const fn mio_token(token: Token) -> mio::Token {
    mio::Token(token.encode() as usize)
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
            Failure::Unsupported => Self::Errno(libc::EINVAL),
            Failure::WouldBlock | Failure::Interrupted => Self::Errno(libc::EAGAIN),
            Failure::ConnectionLost => Self::Reset,
            Failure::Other(errno) => Self::Errno(errno),
        }
    }
}
