//! Engines: who waits for the kernel, and owns the bytes meanwhile.
//!
//! Readiness (epoll) and completion (io_uring) differ in who owns the payload
//! while it waits. So no payload crosses this seam: an engine holds the bytes,
//! the relay above it sees counts.
//!
//! # The contract of [`Engine`]
//! Written here, tested on each engine by `tests/it/conformance`:
//! 1. One outcome for each operation: [`Engine::connect`] answers at once or
//!    later by an event, never both; likewise [`Engine::close`].
//! 2. An engine never calls back: it returns, or queues an [`Event`].
//! 3. At most one fill and one drain of a lane are in flight.
//! 4. [`Event::Closed`] is the last event of a side and comes only when nothing
//!    of that side is in flight. Events of a key that was released may still
//!    be on their way: whoever receives them drops them by the generation.
//! 5. A failed connect leaves nothing behind: no descriptor, no later event.
//! 6. Readiness is edge-triggered and may be spurious. After an event, pump
//!    until the lane parks; a pump that answers `more` is called again without
//!    waiting for an event.
//! 7. Bytes come out in order, each once; an end only after the last of them.
//! 8. [`Engine::peek`], [`Engine::take`] and [`Engine::say`] are for a side whose
//!    lanes have not started. A peek that finds nothing, a say that is cut short, and
//!    [`Engine::await_more`], are followed by an event of that side once there is more
//!    to do.
//!
//! 9. Listeners come and go while an engine runs. An event of one that was removed may
//!    still be on its way; its key finds nothing, whoever has the slot by then.
//!
//! 10. A session's two sides move from one engine to another: [`Engine::quiesce`], then
//!     [`Engine::detach`], then [`Engine::attach`] there. Not a byte is lost, doubled or
//!     put in another place; whatever can be read or written is told of again.
//!
//! 11. What is noted of a session ([`Engine::note`]) is dirty before a lane reads and clean only
//!     when it holds nothing, and is nobody's before a side is closed.
//!
//! # What an engine has to write itself
//! How it waits, what it waits for, and how it moves bytes. The rest is done to a
//! descriptor in the same way by all ([`Engine::fd`]) and is provided. What two real
//! engines need besides stands in `common`; the simulator, which has no descriptors,
//! overrides what is provided.

pub mod choice;
pub mod chunks;
mod common;
pub mod datagrams;
pub mod detached;
pub mod epoll;
pub mod key;
mod listeners;
pub mod parley;
mod pump;
pub mod sim;
pub mod slab;
mod sockets;
mod spin;
#[cfg(feature = "uring")]
pub mod uring;
pub mod wheel;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::net::address::Endpoint;
use crate::net::dial::{self, Local};
use crate::net::errno::Failure;
use crate::net::journal::{Mark, SlotName};
use crate::net::listener::{self, AcceptQueue};
use crate::net::options::plan::{self, Stage};
use crate::net::options::{Family, OptionPlan};
use crate::net::tcp_info::{self, TcpInfo};
use crate::net::turn_away::TurnAway;
use crate::observe::tap::Feed;
use crate::relay::ending::Cause;
use crate::relay::lane::Lane;
use crate::relay::session::{Close, Pumped, Readiness};
use crate::relay::time::Time;
use crate::relay::{Direction, Side};

pub use common::{Incoming, Listener, Setup};
pub use datagrams::Datagrams;
pub use detached::Detached;
pub use key::{DatagramKey, ListenerKey, SessionKey};
pub use parley::Peeked;
pub use spin::BusyPoll;

/// What an engine reports from [`Engine::wait`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Connections wait at a listener: call [`Engine::accept`] until it is empty.
    Acceptable(ListenerKey),
    /// A connect that was pending succeeded.
    Connected(SessionKey),
    /// A connect that was pending failed; nothing of it is left.
    ConnectFailed(SessionKey, Cause),
    /// A side is ready, or a completion for one of its lanes waits to be pumped.
    Ready(SessionKey, Side, Readiness),
    /// A close that was pending is complete.
    Closed(SessionKey, Side),
    /// A datagram socket has something: see [`Datagrams`].
    Datagrams(DatagramKey),
    /// Nothing of a session is in flight any more, as [`Engine::quiesce`] asked for.
    Quiet(SessionKey),
    /// Somebody used the waker.
    Woken,
}

/// Answer to starting an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<T> {
    /// Complete; no event follows.
    Done(T),
    /// An event follows.
    Pending,
}

/// Why nothing was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptError {
    /// No connection waits.
    Empty,
    /// One was lost before it could be accepted (ECONNABORTED and its like):
    /// carry on with the next.
    Lost,
    /// Out of descriptors or memory: pause, then try again.
    Exhausted(Cause),
    /// The listener is broken.
    Broken(i32),
}

impl From<Failure> for AcceptError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::WouldBlock => Self::Empty,
            failure @ Failure::Exhausted(_) => Self::Exhausted(failure.into()),
            Failure::Other(errno) => Self::Broken(errno),
            _ => Self::Lost,
        }
    }
}

/// What a connect needs.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Whom to dial.
    pub endpoint: &'a Endpoint,
    /// With which socket options.
    pub options: &'a OptionPlan,
    /// From where.
    pub local: Local,
}

/// What an engine holds, as figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Bytes of parked tails and of pipes in use.
    pub held_bytes: u64,
    /// How many it may hold; 0: it has no limit of its own.
    pub held_limit: u64,
    /// Pipes in use by lanes.
    pub pipes: u32,
    /// Pipes waiting in the pool.
    pub pipes_pooled: u32,
    /// splice(2) refused to work and lanes copy instead, so many times.
    pub splice_refused: u64,
    /// Socket options that the kernel refused at run time, so many times.
    pub options_refused: u64,
}

/// Waits for the kernel and moves bytes. See the module's documentation.
pub trait Engine {
    /// A listener as this engine takes it.
    type Listener;

    /// An accepted connection that no session owns yet.
    type Incoming;

    /// A connection that was detached from an engine of this kind.
    type Detached: detached::Baggage;

    /// A socket of datagrams that no engine looks after, with whatever waits in it.
    type Call: Send + std::fmt::Debug;

    /// The time of the last [`Engine::wait`]; the clock is read once a turn.
    fn now(&self) -> Time;

    /// How long ago the last [`Engine::wait`] returned. Reads the clock.
    fn since_wait(&self) -> Duration;

    /// Appends what happened, sleeping until something does but not beyond
    /// `until`. [`Time::NEVER`] sleeps for as long as it takes, a time that has
    /// passed does not sleep.
    fn wait(&mut self, until: Time, events: &mut Vec<Event>) -> io::Result<()>;

    /// Looks after a listener from now on. [`Event::Acceptable`] follows for whoever
    /// waits there already.
    fn listen(&mut self, listener: Self::Listener) -> io::Result<ListenerKey>;

    /// Looks after it no more, and gives it back; `None` if the key is stale. Whoever
    /// drops it closes the socket: connections still in its accept queue are then reset
    /// by the kernel, unless another descriptor refers to it.
    fn unlisten(&mut self, key: ListenerKey) -> Option<Self::Listener>;

    /// Accepted connections have these options from now on.
    fn set_options(&mut self, key: ListenerKey, options: Arc<OptionPlan>);

    /// The first bytes of accepted connections are acknowledged together with what is
    /// answered, as far as that comes within the time of a delayed ACK (40 ms); or at once,
    /// as the kernel has it. No system call for a connection: they inherit it.
    fn hold_acks(&mut self, key: ListenerKey, hold: bool);

    /// Takes one waiting connection off a listener; of one that was removed there is
    /// none.
    fn accept(&mut self, key: ListenerKey) -> Result<(Self::Incoming, Endpoint), AcceptError>;

    /// Whether a connection waits at a listener. Costs a system call; asked only
    /// when nobody can be let in.
    fn has_waiting(&self, key: ListenerKey) -> bool;

    /// Connections the kernel dropped so far because an accept queue was full. Asks
    /// each listener.
    fn accept_overflows(&self) -> u64;

    /// Is rid of an accepted connection that no session is made for.
    fn turn_away(&mut self, incoming: Self::Incoming, how: TurnAway);
    /// What the kernel knows of a listener's accept queue; `None` where there is no
    /// kernel, or no such listener.
    fn accept_queue(&self, _: ListenerKey) -> Option<AcceptQueue> {
        None
    }

    /// Gives an accepted connection to a session as its client side. On an error
    /// the connection is closed.
    fn adopt(&mut self, key: SessionKey, incoming: Self::Incoming) -> Result<(), Cause>;

    /// Starts to connect the upstream side.
    fn connect(&mut self, key: SessionKey, target: Target<'_>) -> Start<Result<(), Cause>>;

    /// Starts to connect in a slot without a client, for a session that takes the
    /// connection over later ([`Engine::hand_over`]): the rivals of a race, and
    /// spares. Nothing is read from it meanwhile; its events are those of an upstream
    /// side, and an engine need not notice that the peer ends ([`Engine::is_fresh`]).
    fn connect_ahead(&mut self, key: SessionKey, target: Target<'_>) -> Start<Result<(), Cause>>;

    /// Gives the connection that was made ahead under `from` to the session `to` as
    /// its upstream side, which is absent; nothing is left under `from`. What had
    /// arrived on it is reported as if it came now. `false`, with nothing changed but
    /// the connection closed, when the kernel refuses.
    fn hand_over(&mut self, from: SessionKey, to: SessionKey) -> bool;

    /// Moves bytes of one lane until it parks or the budget ends: no fill is larger than
    /// `budget` bytes, and none is begun once that many were read. Many small moves end
    /// it too.
    fn pump(
        &mut self,
        key: SessionKey,
        direction: Direction,
        lane: &mut Lane,
        budget: u32,
    ) -> Pumped;

    /// From now on no more than so many bytes of a fill may be held beyond what its sink has
    /// room for. Who has more than that to read reads less at a time.
    fn may_hold(&mut self, bytes: u32);

    /// Drops the bytes held for a lane.
    fn drop_held(&mut self, key: SessionKey, direction: Direction);

    /// From now on shows what the lanes of this session read, and their ends, to a
    /// tap. Whoever calls this also taps the lanes: what is spliced is not seen.
    fn tap(&mut self, key: SessionKey, feed: Box<Feed>);

    /// Takes the tap back, if there is one. Works until the slot is used again.
    fn untap(&mut self, key: SessionKey) -> Option<Box<Feed>>;

    /// Closes a side; one that is absent is `Done`.
    fn close(&mut self, key: SessionKey, side: Side, how: Close) -> Start<()>;

    /// Begins to let go of a session whose lanes have started: nothing more is begun for
    /// it that outlives the call. Its lanes are pumped as before meanwhile, and events go
    /// on. [`Start::Pending`]: [`Event::Quiet`] follows, unless the session is closed
    /// before. There is no way back but [`Engine::detach`] and [`Engine::attach`].
    fn quiesce(&mut self, key: SessionKey) -> Start<()>;

    /// Gives away a session that is quiet, with what its lanes hold; nothing is left under
    /// the key. What was read ahead of a lane is in it from now on, and so is its end.
    fn detach(&mut self, key: SessionKey, lanes: &mut [Lane; 2]) -> Option<Self::Detached>;

    /// Takes over a connection that was detached. Events follow for what can be read and
    /// written. On an error nothing has changed, and it comes back.
    fn attach(
        &mut self,
        key: SessionKey,
        detached: Self::Detached,
    ) -> Result<(), (Cause, Self::Detached)>;

    /// Takes over a connection without a client, which was made ahead elsewhere and detached
    /// when it stood: from now on as one of [`Engine::connect_ahead`].
    fn attach_ahead(
        &mut self,
        key: SessionKey,
        detached: Self::Detached,
    ) -> Result<(), (Cause, Self::Detached)> {
        self.attach(key, detached)
    }

    /// Copies of a session's two descriptors, for whoever keeps them until this process is gone.
    /// From now on its peers are told of its end as those of sockets that others have. `None`:
    /// it does not have both, or this engine reads ahead of its lanes.
    fn share(&mut self, _key: SessionKey) -> Option<[OwnedFd; 2]> {
        None
    }

    /// Notes from now on how far the lanes of a session have come; `first`: when the first byte
    /// came down. Whoever cannot drops the mark.
    fn note(&mut self, key: SessionKey, mark: Mark, lanes: &[Lane; 2], first: Option<Time>) {
        let _ = (key, lanes, first);
        drop(mark);
    }

    /// What it is called where that is noted, if it is.
    fn noted_as(&self, _key: SessionKey) -> Option<SlotName> {
        None
    }

    /// Notes it no more: the mark is dropped.
    fn note_no_more(&mut self, _key: SessionKey) {}

    /// Passes on to the kernel what would otherwise wait for the end of the turn, because
    /// something long comes before that.
    fn pass_on(&mut self) {}

    /// Gives up descriptors and memory that it can do without.
    fn release_spares(&mut self);

    /// What it holds now.
    fn holdings(&self) -> Holdings;

    /// So many socket options were refused by the kernel; see
    /// [`Holdings::options_refused`].
    fn count_refused(&mut self, options: u32);

    /// The descriptor of a side that is open; what is provided below goes by it.
    fn fd(&self, key: SessionKey, side: Side) -> Option<BorrowedFd<'_>>;

    // Provided.

    /// Looks at what a side has sent, without taking it. Only before a lane of the
    /// session is pumped.
    fn peek(&mut self, key: SessionKey, side: Side, buffer: &mut [u8]) -> Peeked {
        self.fd(key, side)
            .map_or(Peeked::Ended, |fd| parley::peek(fd, buffer))
    }

    /// What was peeked at stays where it is, and more is needed: an event of that side
    /// follows once more has come, or its end. [`Engine::peek`] tells of no end while
    /// bytes wait in front of it; [`Engine::has_ended`] does.
    fn await_more(&mut self, key: SessionKey, side: Side) {
        // Edge-triggered: whatever comes is an event.
        let _ = (key, side);
    }

    /// No more is needed, after an [`Engine::await_more`].
    fn await_no_more(&mut self, key: SessionKey, side: Side) {
        let _ = (key, side);
    }

    /// Whether a side has ended for reading, whatever waits in front of the end. Costs a
    /// system call.
    fn has_ended(&self, key: SessionKey, side: Side) -> bool {
        self.fd(key, side).is_none_or(parley::has_ended)
    }

    /// Takes exactly so many bytes off a side, no more than were seen; they are
    /// nobody's payload.
    fn take(&mut self, key: SessionKey, side: Side, len: usize) -> Result<(), Cause> {
        self.fd(key, side)
            .map_or(Err(Cause::Stopped), |fd| parley::take(fd, len))
    }

    /// Writes to a side, before a lane of the session does; returns how many bytes
    /// the kernel took.
    fn say(&mut self, key: SessionKey, side: Side, bytes: &[u8]) -> Result<usize, Cause> {
        self.fd(key, side)
            .map_or(Err(Cause::Stopped), |fd| parley::say(fd, bytes))
    }

    /// As [`Engine::say`]; the last of it may wait for what a lane writes, to ride in the
    /// same segment. [`Engine::flush`] sends it without.
    fn say_first(&mut self, key: SessionKey, side: Side, bytes: &[u8]) -> Result<usize, Cause> {
        self.fd(key, side)
            .map_or(Err(Cause::Stopped), |fd| parley::say_first(fd, bytes))
    }

    /// Sends what [`Engine::say_first`] left waiting.
    fn flush(&mut self, key: SessionKey, side: Side) {
        if let Some(fd) = self.fd(key, side) {
            parley::flush(fd);
        }
    }

    /// The address of this end of a side.
    fn local_address(&self, key: SessionKey, side: Side) -> Option<Endpoint> {
        listener::local_address(self.fd(key, side)?)
    }

    /// A session is about to be ended although its peers did nothing wrong: what they are
    /// owed is not delivered. Only of interest to who checks that it is.
    fn forsake(&mut self, _key: SessionKey) {}

    /// Ends a side for writing, after what was said. The session has no other side,
    /// and what this one still sends is discarded by its lane.
    fn conclude(&mut self, key: SessionKey, side: Side) {
        if let Some(fd) = self.fd(key, side) {
            parley::conclude(fd);
        }
    }

    /// Whether a connection made ahead is established and its peer has not ended it.
    /// Bytes that wait in it do no harm. Costs a system call.
    fn is_fresh(&self, key: SessionKey) -> bool {
        self.fd(key, Side::Upstream).is_some_and(dial::is_fresh)
    }

    /// Sets what can only be set on a connected upstream; called once it is, and
    /// only if there is anything to set.
    fn apply_connected(&mut self, key: SessionKey, target: Target<'_>) {
        let Some(fd) = self.fd(key, Side::Upstream) else {
            return;
        };
        let family = Family::of(target.endpoint);
        if let Err(refusal) = target.options.apply(fd, Stage::AfterConnect, family) {
            self.count_refused(refusal.count);
        }
    }

    /// What a side has sent is acknowledged now and without delay from here on, as
    /// far as the kernel sees fit. Of an upstream before the first write this sends the handshake's last
    /// ACK, which waits for data to ride on: an upstream that speaks first would wait for
    /// it. Behind that write it ends the delay that the write has begun.
    /// Of a client it is what [`Engine::hold_acks`] of its listener holds back.
    fn acknowledge(&mut self, key: SessionKey, side: Side) {
        if let Some(fd) = self.fd(key, side) {
            // Only ever a matter of 200 ms; a socket that failed says so itself.
            let _ = plan::send_delayed_ack(fd);
        }
    }

    /// Bytes the kernel has still to deliver to each side; 0 for an absent one.
    fn unsent(&self, key: SessionKey) -> [u32; 2] {
        Side::BOTH.map(|side| {
            let queued = self.fd(key, side).map(tcp_info::unsent);
            queued.and_then(Result::ok).unwrap_or(0)
        })
    }

    /// The kernel's view of a side, while it is open and TCP.
    fn tcp_info(&self, key: SessionKey, side: Side) -> Option<TcpInfo> {
        TcpInfo::read(self.fd(key, side)?).ok()
    }
}
