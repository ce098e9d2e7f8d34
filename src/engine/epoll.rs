//! The readiness engine: epoll, through mio.
//!
//! Owns the descriptors of every session of its reactor, and the bytes that
//! lanes hold. Registers each socket once, for both directions, edge-triggered (that of a flow of
//! datagrams level-triggered, see `engine::sockets`); closing a socket removes it. Only a connection
//! made ahead is registered again, under the key of the session that it is handed to.
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

use super::common::{self, Cargo, Common, Conn, Conns, Dialled, Incoming, Listener, Setup, Told};
use super::detached::{Detached, LooseSide};
use super::key::{DatagramKey, ListenerKey, SessionKey, Token};
use super::listeners::Listeners;
use super::pump::{Ends, Kit};
use super::sockets::{Sockets, WithSockets};
use super::{AcceptError, Engine, Event, Holdings, Start, Target};
use crate::net::address::Endpoint;
use crate::net::datagram;
use crate::net::errno::{Failure, Operation};
use crate::net::journal::{Mark, SlotName};
use crate::net::listener::{self, AcceptQueue};
use crate::net::options::{Family, OptionPlan};
use crate::net::turn_away::{self, TurnAway};
use crate::observe::tap::Feed;
use crate::relay::ending::Cause;
use crate::relay::lane::{Lane, Progress};
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

/// The readiness engine. See the module's documentation.
#[derive(Debug)]
pub struct Epoll {
    poll: Poll,
    ready: Events,
    listeners: Listeners,
    conns: Conns<Leg>,
    datagrams: Sockets,
    common: Common,
}

#[derive(Debug, Default)]
struct Leg {
    fd: Option<OwnedFd>,
    connecting: bool,
    /// See [`Ends::exhaustive`].
    exhaustive: bool,
    /// Its write side was shut down.
    shut: bool,
    /// See [`LooseSide::shared`].
    shared: bool,
}

impl common::Leg for Leg {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    fn is_idle(&self) -> bool {
        true
    }
}

impl Epoll {
    /// An engine without listeners. `origin` is time zero.
    pub fn new(setup: &Setup, origin: Instant) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            ready: Events::with_capacity(EVENTS_PER_WAIT),
            listeners: Listeners::default(),
            conns: Conns::new(),
            datagrams: Sockets::default(),
            common: Common::new(setup, origin),
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

    /// Spins for events instead of sleeping, for so long at the most. The
    /// clock is read in here because nothing else would end it.
    fn spin(&mut self, time: Duration, until: Time) -> io::Result<bool> {
        let spin_end = (self.now() + time).min(until);
        while self.now() < spin_end {
            self.poll(Some(Duration::ZERO))?;
            self.common.clock.read();
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

    /// What an epoll event on a leg means, appended to `events`.
    fn interpret(
        conn: &mut Conn<Leg>,
        key: SessionKey,
        side: Side,
        event: &mio::event::Event,
        events: &mut Vec<Event>,
    ) {
        let failed = event.is_error();
        if failed && let Some(mark) = conn.cargo.mark() {
            // Whoever goes on would see an end where there was a failure.
            mark.spoil();
        }
        let leg = &mut conn.legs[side.index()];
        let Some(fd) = &leg.fd else { return };
        let writable = event.is_writable();
        if leg.connecting {
            let told = match (writable, failed || event.is_write_closed()) {
                (true, false) => Told::Writable,
                (true, true) => Told::Doubtful,
                (false, _) => Told::Nothing,
            };
            let outcome = common::connect_outcome(fd.as_fd(), conn.suspect, told);
            let Some(outcome) = outcome else { return };
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
    type Listener = Listener;
    type Incoming = Incoming;
    type Detached = Detached;
    type Call = OwnedFd;

    fn now(&self) -> Time {
        self.common.clock.now()
    }

    fn since_wait(&self) -> Duration {
        self.common.clock.since_read()
    }

    fn wait(&mut self, until: Time, events: &mut Vec<Event>) -> io::Result<()> {
        let may_sleep = self.now() < until;
        let spins = self.common.spin.time().filter(|_| may_sleep);
        let found = match spins {
            Some(time) => self.spin(time, until)?,
            None => false,
        };
        if spins.is_some() {
            self.common.spin.spun(found);
        }
        if !found {
            let since = self.common.begin_sleep();
            let timeout = (until != Time::NEVER).then(|| until.since(self.now()));
            self.poll(timeout)?;
            self.common.clock.read();
            if may_sleep && spins.is_none() {
                self.common.end_sleep(since);
            }
        }
        for event in &self.ready {
            match Token::decode(event.token().0 as u64) {
                Token::Waker => events.push(Event::Woken),
                Token::Listener(key) => events.push(Event::Acceptable(key)),
                Token::Datagrams(key) => {
                    if self.datagrams.is_ready(key, event.is_error()) {
                        events.push(Event::Datagrams(key));
                    }
                }
                Token::Side(key, side) => {
                    if let Some(conn) = self.conns.get_mut(key) {
                        Self::interpret(conn, key, side, event, events);
                    }
                }
            }
        }
        Ok(())
    }

    fn listen(&mut self, listener: Listener) -> io::Result<ListenerKey> {
        let key = self.listeners.add(listener)?;
        let fd = self.listeners.fd(key).map(|fd| fd.as_raw_fd());
        let token = mio_token(Token::Listener(key));
        let registry = self.poll.registry();
        let registered = fd.map_or(Ok(()), |fd| {
            registry.register(&mut SourceFd(&fd), token, Interest::READABLE)
        });
        if let Err(error) = registered {
            self.listeners.remove(key);
            return Err(error);
        }
        Ok(key)
    }

    fn unlisten(&mut self, key: ListenerKey) -> Option<Listener> {
        let listener = self.listeners.remove(key)?;
        // The socket of a unix listener is shared by reactors: closing its descriptor
        // alone would leave it registered.
        let _ = self
            .poll
            .registry()
            .deregister(&mut SourceFd(&listener.fd.as_raw_fd()));
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

    fn accept_queue(&self, key: ListenerKey) -> Option<AcceptQueue> {
        Some(listener::accept_queue(self.listeners.fd(key)?))
    }

    fn accept_overflows(&self) -> u64 {
        self.listeners.overflows()
    }

    fn turn_away(&mut self, incoming: Incoming, how: TurnAway) {
        turn_away::turn_away(incoming.fd, how);
    }

    fn adopt(&mut self, key: SessionKey, incoming: Incoming) -> Result<(), Cause> {
        let Incoming { fd, family } = incoming;
        self.register(key, Side::Client, fd.as_raw_fd())?;
        self.conns.open(key).legs[Side::Client.index()] = Leg {
            fd: Some(fd),
            exhaustive: family == Family::Unix,
            ..Leg::default()
        };
        Ok(())
    }

    fn connect(&mut self, key: SessionKey, target: Target<'_>) -> Start<Result<(), Cause>> {
        match self.try_connect(key, target) {
            Ok(start) => start,
            Err(failure) => Start::Done(Err(failure.into())),
        }
    }

    fn connect_ahead(&mut self, key: SessionKey, target: Target<'_>) -> Start<Result<(), Cause>> {
        self.conns.open(key);
        self.connect(key, target)
    }

    fn hand_over(&mut self, from: SessionKey, to: SessionKey) -> bool {
        let Some(leg) = self.conns.leg_mut(from, Side::Upstream) else {
            return false;
        };
        let leg = std::mem::take(leg);
        let Some(fd) = &leg.fd else { return false };
        // Told of again by the kernel: a change of the registration renews the edge
        // of whatever the socket is ready for.
        let token = mio_token(Token::Side(to, Side::Upstream));
        let registry = self.poll.registry();
        let moved = registry.reregister(&mut SourceFd(&fd.as_raw_fd()), token, INTEREST);
        match self.conns.leg_mut(to, Side::Upstream) {
            Some(absent) if moved.is_ok() => {
                *absent = leg;
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
        if conn.cargo.mark().is_some() {
            let now = self.common.clock.now().as_micros();
            return pump_noted(&mut self.common.kit, conn, direction, lane, (budget, now));
        }
        pump_conn(&mut self.common.kit, conn, direction, lane, budget)
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
        if let Some(conn) = self.conns.get_mut(key) {
            let mut store = conn.cargo.take(direction);
            self.common.kit.drop_held(&mut store);
        }
    }

    fn share(&mut self, key: SessionKey) -> Option<[OwnedFd; 2]> {
        let conn = self.conns.get_mut(key)?;
        let copy = |leg: &Leg| leg.fd.as_ref()?.try_clone().ok();
        let copies = [copy(&conn.legs[0])?, copy(&conn.legs[1])?];
        for leg in &mut conn.legs {
            leg.shared = true;
        }
        Some(copies)
    }

    fn note(&mut self, key: SessionKey, mark: Mark, lanes: &[Lane; 2], first: Option<Time>) {
        let now = self.now();
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let crossed = lanes.each_ref().map(crossed);
        mark.valid(crossed, (now.as_micros(), first.map(Time::as_micros)));
        conn.cargo.note_in(Some(Box::new(mark)));
    }

    fn noted_as(&self, key: SessionKey) -> Option<SlotName> {
        Some(self.conns.get(key)?.cargo.mark()?.name())
    }

    fn note_no_more(&mut self, key: SessionKey) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.cargo.note_in(None);
        }
    }

    fn close(&mut self, key: SessionKey, side: Side, how: Close) -> Start<()> {
        if let Some(conn) = self.conns.get_mut(key) {
            // Before its peer is told: nobody goes on with one side.
            conn.cargo.note_in(None);
        }
        if let Some(leg) = self.conns.leg_mut(key, side) {
            let Leg { fd, shared, .. } = std::mem::take(leg);
            if let Some(fd) = fd {
                common::part(fd.as_fd(), how, shared);
            }
        }
        Start::Done(())
    }

    fn quiesce(&mut self, _key: SessionKey) -> Start<()> {
        // Nothing is ever in flight.
        Start::Done(())
    }

    fn detach(&mut self, key: SessionKey, _lanes: &mut [Lane; 2]) -> Option<Detached> {
        let conn = self.conns.get_mut(key)?;
        let registry = self.poll.registry();
        let sides = Side::BOTH.map(|side| {
            let leg = std::mem::take(&mut conn.legs[side.index()]);
            let fd = leg.fd?;
            // Before another has it: a registration is that of the socket, and would go on
            // for as long as anybody has a descriptor of it.
            let _ = registry.deregister(&mut SourceFd(&fd.as_raw_fd()));
            Some(LooseSide {
                fd,
                exhaustive: leg.exhaustive,
                shut: leg.shut,
                shared: leg.shared,
            })
        });
        let kit = &mut self.common.kit;
        // Whoever has it from now on notes it elsewhere.
        conn.cargo.note_in(None);
        Some(Detached {
            sides,
            held: Direction::BOTH.map(|direction| kit.let_go(&mut conn.cargo.take(direction))),
            tap: conn.cargo.take_tap(),
            mark: None,
        })
    }

    fn attach(&mut self, key: SessionKey, detached: Detached) -> Result<(), (Cause, Detached)> {
        // The kernel tells of what is there when a socket is added.
        for side in Side::BOTH {
            let fd = detached.fd(side).map(|fd| fd.as_raw_fd());
            let added = fd.map_or(Ok(()), |fd| self.register(key, side, fd));
            if let Err(failure) = added {
                let before = Side::BOTH.into_iter().take(side.index());
                for fd in before.filter_map(|it| detached.fd(it)) {
                    let registry = self.poll.registry();
                    let _ = registry.deregister(&mut SourceFd(&fd.as_raw_fd()));
                }
                return Err((failure.into(), detached));
            }
        }
        let Detached {
            sides,
            held,
            tap,
            mark,
        } = detached;
        let kit = &mut self.common.kit;
        let stores = held.map(|held| kit.take_up(held));
        let conn = self.conns.open(key);
        conn.legs = sides.map(|side| {
            side.map_or_else(Leg::default, |side| Leg {
                exhaustive: side.exhaustive || common::is_unix(side.fd.as_fd()),
                fd: Some(side.fd),
                shut: side.shut,
                shared: side.shared,
                ..Leg::default()
            })
        });
        conn.cargo = Cargo::new(stores, tap);
        conn.cargo.note_in(mark);
        Ok(())
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

impl WithSockets for Epoll {
    fn sockets(&self) -> &Sockets {
        &self.datagrams
    }

    fn sockets_mut(&mut self) -> &mut Sockets {
        &mut self.datagrams
    }

    fn watch_port(&self, key: DatagramKey, fd: BorrowedFd<'_>) -> io::Result<()> {
        let token = mio_token(Token::Datagrams(key));
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)
    }

    fn watch_flow(&self, key: DatagramKey, fd: BorrowedFd<'_>) -> io::Result<()> {
        let token = mio_token(Token::Datagrams(key));
        let epoll = self.poll.registry().as_fd();
        datagram::watch(epoll, fd, token.0 as u64)
    }

    fn unwatch(&self, fd: BorrowedFd<'_>) {
        let registry = self.poll.registry();
        let _ = registry.deregister(&mut SourceFd(&fd.as_raw_fd()));
    }

    fn suspect_ports(&self, endpoint: &Endpoint) -> Option<RangeInclusive<u16>> {
        self.common.suspect_ports(endpoint)
    }
}

impl Epoll {
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
        // Registered after the connect: before it, epoll reports a hang-up.
        self.register(key, Side::Upstream, fd.as_raw_fd())?;
        let Some(conn) = self.conns.get_mut(key) else {
            return Ok(Start::Done(Err(Cause::Stopped)));
        };
        conn.suspect = suspect;
        conn.legs[Side::Upstream.index()] = Leg {
            fd: Some(fd),
            connecting,
            exhaustive: matches!(target.endpoint, Endpoint::Unix(_)),
            ..Leg::default()
        };
        Ok(if connecting {
            Start::Pending
        } else {
            Start::Done(Ok(()))
        })
    }
}

/// As [`Engine::pump`], of a session that is noted. `now` in microseconds.
#[inline(never)]
fn pump_noted(
    kit: &mut Kit,
    conn: &mut Conn<Leg>,
    direction: Direction,
    lane: &mut Lane,
    (budget, now): (u32, u64),
) -> Pumped {
    if let Some(mark) = conn.cargo.mark() {
        mark.dirty(direction.index());
    }
    let pumped = pump_conn(kit, conn, direction, lane, budget);
    let Some(mark) = conn.cargo.mark() else {
        return pumped;
    };
    if direction == Direction::Down && lane.bytes_in() > 0 {
        mark.first(now);
    }
    // A failure stays dirty: it was told once, and whoever goes on would see an end.
    if pumped.failure.is_none()
        && let Some(bytes) = crossed(lane)
    {
        mark.clean(direction.index(), bytes, pumped.moved.then_some(now));
    }
    pumped
}

/// Bytes that have crossed a lane that holds nothing, has lost nothing and has not failed.
fn crossed(lane: &Lane) -> Option<u64> {
    let goes_on = matches!(
        lane.progress(),
        Progress::Open | Progress::Ending | Progress::Finished
    );
    let whole = lane.held() == 0 && lane.bytes_in() == lane.bytes_out();
    (goes_on && whole).then(|| lane.bytes_out())
}

#[inline]
fn pump_conn(
    kit: &mut Kit,
    conn: &mut Conn<Leg>,
    direction: Direction,
    lane: &mut Lane,
    budget: u32,
) -> Pumped {
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
    let mut store = conn.cargo.take(direction);
    let tap = conn.cargo.tap();
    let pumped = kit.pump(ends, &mut store, tap, lane, budget);
    conn.cargo.put(direction, store);
    if lane.progress() == Progress::Finished {
        conn.legs[sink].shut = true;
    }
    pumped
}

const fn mio_token(token: Token) -> mio::Token {
    mio::Token(token.encode() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_small() {
        assert!(size_of::<Conn<Leg>>() <= 32);
    }
}
