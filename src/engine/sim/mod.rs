//! A simulated engine: seeded, in virtual time, without a descriptor.
//!
//! Purpose: drive the real reactor and sessions through what kernels and peers do
//! rarely: short moves, spurious and stale events, resets anywhere, ends behind
//! residue, deferred closes, failing accepts and connects, jumps of time.
//! Owns: simulated sockets and the peers behind them ([`peer`]); what each peer
//! was sent and received. After each step [`Sim::check_invariants`] compares.
//!
//! Deliberately not here: payload. A byte is a count: what the relay decides
//! never depends on content, and real engines are checked by hash elsewhere.

mod chance;
mod datagrams;
mod listening;
mod moving;
mod parley;
mod passing;
pub mod peer;
mod pump;
mod socket;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::slab::Slots;
use super::{AcceptError, Engine, Event, Holdings, ListenerKey, Peeked, SessionKey, Start, Target};
use crate::net::address::Endpoint;
use crate::net::options::OptionPlan;
use crate::net::pipe::Pool;
use crate::net::turn_away::TurnAway;
use crate::observe::tap::Feed;
use crate::relay::ending::Cause;
use crate::relay::lane::Lane;
use crate::relay::probe::{self, Mutation};
use crate::relay::session::{Close, Pumped, Readiness};
use crate::relay::time::Time;
use crate::relay::{Direction, Side};

pub use chance::{Dice, Nastiness};
use datagrams::Mail;
pub use datagrams::{Letter, Manners, PostTally};
pub use listening::Listener;
use listening::{Backlog, Listeners};
pub use moving::Uprooted;
use peer::{Deed, Finale, Peer, Script};
use pump::SimPipe;
use socket::Socket;

/// Addresses of a simulated world at which one can listen.
pub const LISTENERS: usize = 4;

/// Servers of a simulated world.
pub const SERVERS: usize = 4;

/// Bytes that it likes to hold, so few that most lives see what follows from more.
const HELD_LIMIT: u64 = 256 * 1024;

/// What a server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Up,
    /// Refuses.
    Down,
    /// Never answers.
    Mute,
}

/// The simulated engine. See the module's documentation.
#[derive(Debug)]
pub struct Sim {
    dice: Dice,
    nastiness: Nastiness,
    now: Time,
    conns: Slots<Conn>,
    live: Vec<SessionKey>,
    backlogs: [Backlog; LISTENERS],
    listeners: Listeners,
    servers: [Server; SERVERS],
    queue: Vec<Event>,
    /// Events that the next wait brings.
    late: Vec<Event>,
    released: Vec<SessionKey>,
    /// What the sessions that are over came to.
    pub tally: Tally,
    open_sockets: u32,
    held: u64,
    /// How much of a fill may be held.
    spare: u32,
    pipes: Pool<SimPipe>,
    idle_steps: u32,
    mail: Mail,
    /// Sessions are being cut by order: nobody is owed anything any more.
    pub lenient: bool,
}

/// What came of the sessions that are over.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Connections that clients made.
    pub connections: u64,
    /// Both legs closed.
    pub closed: u64,
    /// Everything delivered both ways, both ends in good order.
    pub complete: u64,
    /// A peer was told of a failure by a reset.
    pub resets_told: u64,
    /// Bytes that peers received.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Conn {
    generation: u32,
    sockets: [Option<Socket>; 2],
    peers: [Peer; 2],
    held: [u32; 2],
    pipes: [Option<SimPipe>; 2],
    tap: Option<Box<Feed>>,
    read: [u64; 2],
    dropped: [u64; 2],
    /// Closes under way.
    closing: [Option<Close>; 2],
    upstream_script: Script,
    /// The session had both legs and pumped at least once.
    relayed: bool,
    /// Nothing is owed to its peers any more.
    forsaken: bool,
    /// A connection made ahead, without a client.
    ahead: bool,
    /// Its peer has ended or reset it meanwhile.
    stale: bool,
    /// It was told to be quiet, and is not yet.
    quiescing: bool,
}

/// An accepted connection that no session owns yet.
#[derive(Debug, Clone, Copy)]
pub struct Incoming {
    client: Script,
    upstream: Script,
}

impl Sim {
    /// An empty world.
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let nastiness = Nastiness::drawn(&mut dice);
        Self {
            dice,
            nastiness,
            now: Time::ZERO,
            conns: Slots::new(),
            live: Vec::new(),
            backlogs: Default::default(),
            listeners: Listeners::default(),
            servers: [Server::Up; SERVERS],
            queue: Vec::new(),
            late: Vec::new(),
            released: Vec::new(),
            tally: Tally::default(),
            open_sockets: 0,
            held: 0,
            spare: u32::MAX,
            pipes: Pool::new(),
            idle_steps: 0,
            mail: Mail::default(),
            lenient: false,
        }
    }

    /// The address of a server, by index below [`SERVERS`].
    pub fn server(index: usize) -> Endpoint {
        Endpoint::Inet(([127, 0, 0, 1], index as u16 + 1).into())
    }

    /// The dice, for whoever writes scripts.
    pub const fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    /// Sockets that are open.
    pub const fn open_sockets(&self) -> u32 {
        self.open_sockets
    }

    /// Nobody is connected or waits to be.
    pub fn is_quiet(&self) -> bool {
        let ahead = |key: &SessionKey| self.conn(*key).is_some_and(|conn| conn.ahead);
        self.live.iter().all(ahead) && self.backlogs.iter().all(Backlog::is_empty)
    }

    /// A kernel as nasty as told; [`Nastiness::default`] is one without surprises.
    pub fn with(seed: u64, nastiness: Nastiness) -> Self {
        Self {
            nastiness,
            ..Self::new(seed)
        }
    }

    /// A server, by index, stops answering.
    pub fn mute_server(&mut self, index: usize) {
        self.servers[index] = Server::Mute;
    }

    /// By hand: the peer of a side sends, ends, or resets. An event follows.
    pub fn peer_does(&mut self, key: SessionKey, side: Side, deed: Deed) {
        let Some(conn) = self.conn_mut(key) else {
            return;
        };
        let peer = &mut conn.peers[side.index()];
        peer.does(deed);
        let failed = deed == Deed::Reset;
        if conn.sockets[side.index()].is_some() {
            self.queue.push(Event::Ready(
                key,
                side,
                Readiness {
                    readable: true,
                    writable: failed,
                    failed,
                },
            ));
        }
    }

    /// By hand: the peer of a side reads all there is. `None` once it saw the end
    /// and nothing is left.
    pub fn peer_takes(&mut self, key: SessionKey, side: Side) -> Option<u64> {
        let conn = self.conn_mut(key)?;
        let peer = &mut conn.peers[side.index()];
        let taken = std::mem::take(&mut peer.queued);
        peer.received += taken;
        let freed = conn.sockets[side.index()]
            .as_mut()
            .is_some_and(|socket| std::mem::take(&mut socket.no_space));
        let ended = peer.fin_queued;
        if freed {
            let readiness = Readiness {
                writable: true,
                ..Readiness::default()
            };
            self.queue.push(Event::Ready(key, side, readiness));
        }
        (taken > 0 || !ended).then_some(taken)
    }

    /// Panics when the bytes of any connection do not add up, or an end
    /// overtook the bytes before it.
    pub fn check_invariants(&self) {
        for key in &self.live {
            if let Some(conn) = self.conn(*key) {
                conn.check();
            }
        }
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
}

impl Engine for Sim {
    type Listener = Listener;
    type Incoming = Incoming;
    type Detached = Uprooted;
    /// The network has it meanwhile.
    type Call = super::DatagramKey;

    fn now(&self) -> Time {
        self.now
    }

    fn since_wait(&self) -> Duration {
        Duration::ZERO
    }

    fn wait(&mut self, until: Time, events: &mut Vec<Event>) -> io::Result<()> {
        self.now = self.now + Duration::from_micros(1);
        let mut steps = 0;
        self.idle_steps = 0;
        // What was held back comes soon, but after something else.
        let patience = if self.late.is_empty() { 10_000 } else { 30 };
        while self.queue.is_empty() && self.now < until && steps < patience {
            self.step(until.min(self.mail.due()));
            self.deliver_answers();
            steps += 1;
            if self.live.is_empty() {
                break;
            }
        }
        let late = std::mem::take(&mut self.late);
        // Order among events of one wait means nothing.
        while !self.queue.is_empty() {
            let pick = self.dice.between(0, self.queue.len() as u64 - 1) as usize;
            let event = self.queue.remove(pick);
            let held_back = self.dice.percent(self.nastiness.late);
            if held_back && matches!(event, Event::Ready(..)) {
                self.late.push(event);
            } else {
                events.push(event);
            }
        }
        events.extend(late);
        self.noise(events);
        if probe::mutated(Mutation::StaleKeyHonoured) {
            for event in events.iter_mut() {
                self.honour(event);
            }
        }
        Ok(())
    }

    fn listen(&mut self, listener: Listener) -> io::Result<ListenerKey> {
        Ok(self.add_listener(listener))
    }

    fn unlisten(&mut self, key: ListenerKey) -> Option<Listener> {
        self.listeners.remove(key)
    }

    fn set_options(&mut self, _: ListenerKey, _: Arc<OptionPlan>) {}

    fn accept(&mut self, key: ListenerKey) -> Result<(Incoming, Endpoint), AcceptError> {
        self.accept_at(key)
    }

    fn has_waiting(&self, key: ListenerKey) -> bool {
        self.listeners.has_waiting(key)
    }

    fn accept_overflows(&self) -> u64 {
        0
    }

    /// Nothing was made of it yet.
    fn turn_away(&mut self, _: Incoming, _: TurnAway) {}

    fn adopt(&mut self, key: SessionKey, incoming: Incoming) -> Result<(), Cause> {
        let conn = self.conns.touch(key.slot);
        assert!(
            conn.sockets.iter().all(Option::is_none),
            "a slot was used again while sockets were open"
        );
        *conn = Conn {
            generation: key.generation,
            sockets: [Some(Socket::default()), None],
            peers: [Peer::new(incoming.client), Peer::new(Script::default())],
            upstream_script: incoming.upstream,
            ..Conn::default()
        };
        self.open_sockets += 1;
        self.live.push(key);
        Ok(())
    }

    fn connect_ahead(&mut self, key: SessionKey, target: Target<'_>) -> Start<Result<(), Cause>> {
        let conn = self.conns.touch(key.slot);
        assert!(
            conn.sockets.iter().all(Option::is_none),
            "a slot was used again while sockets were open"
        );
        *conn = Conn {
            generation: key.generation,
            ahead: true,
            ..Conn::default()
        };
        let start = self.connect(key, target);
        if !matches!(start, Start::Done(Err(_))) {
            self.live.push(key);
        }
        start
    }

    fn is_fresh(&self, key: SessionKey) -> bool {
        self.conn(key).is_some_and(|conn| {
            let connected = |socket: &Socket| !socket.connecting;
            !conn.stale && conn.sockets[1].as_ref().is_some_and(connected)
        })
    }

    fn hand_over(&mut self, from: SessionKey, to: SessionKey) -> bool {
        let Some(conn) = self.conn_mut(from) else {
            panic!("a stale key hands over")
        };
        assert!(conn.ahead, "handed over by a session");
        assert!(conn.closing[1].is_none(), "handed over while it closes");
        let socket = conn.sockets[1].take();
        let stale = conn.stale;
        let connected = socket.as_ref().is_some_and(|socket| !socket.connecting);
        assert!(connected, "handed over before it was connected");
        self.forget(from);
        let Some(conn) = self.conn_mut(to) else {
            panic!("handed over to a stale key")
        };
        assert!(conn.sockets[1].is_none(), "two upstreams for one session");
        conn.sockets[1] = socket;
        conn.peers[1] = Peer::new(conn.upstream_script);
        if stale {
            // It happened on the way: the peer is one that resets.
            conn.upstream_script.finale = Finale::Reset;
            conn.peers[1] = Peer::new(conn.upstream_script);
            conn.peers[1].does(Deed::Reset);
        }
        let readiness = Readiness {
            readable: true,
            writable: true,
            failed: stale,
        };
        self.queue.push(Event::Ready(to, Side::Upstream, readiness));
        true
    }

    fn peek(&mut self, key: SessionKey, side: Side, buffer: &mut [u8]) -> Peeked {
        self.peek_at(key, side, buffer)
    }

    fn take(&mut self, key: SessionKey, side: Side, len: usize) -> Result<(), Cause> {
        self.take_from(key, side, len);
        Ok(())
    }

    fn say(&mut self, key: SessionKey, side: Side, bytes: &[u8]) -> Result<usize, Cause> {
        self.say_to(key, side, bytes)
    }

    fn say_first(&mut self, key: SessionKey, side: Side, bytes: &[u8]) -> Result<usize, Cause> {
        self.say_to(key, side, bytes)
    }

    fn await_more(&mut self, key: SessionKey, side: Side) {
        if !self.has_more(key, side) {
            return;
        }
        let readiness = Readiness {
            readable: true,
            ..Readiness::default()
        };
        self.queue.push(Event::Ready(key, side, readiness));
    }

    fn local_address(&self, _key: SessionKey, _side: Side) -> Option<Endpoint> {
        None
    }

    fn flush(&mut self, _key: SessionKey, _side: Side) {}

    fn has_ended(&self, key: SessionKey, side: Side) -> bool {
        self.ended(key, side)
    }

    fn forsake(&mut self, key: SessionKey) {
        self.conns.touch(key.slot).forsaken = true;
    }

    fn conclude(&mut self, key: SessionKey, side: Side) {
        self.conclude_side(key, side);
    }

    /// Port 0 stands for an address where nobody listens.
    fn connect(&mut self, key: SessionKey, target: Target<'_>) -> Start<Result<(), Cause>> {
        let port = match target.endpoint {
            Endpoint::Inet(address) => usize::from(address.port()),
            Endpoint::Unix(_) | Endpoint::Unnamed => 0,
        };
        let nobody = port == 0;
        let server = port.saturating_sub(1) % SERVERS;
        let fails = nobody || self.dice.percent(self.nastiness.connect_failure);
        let at_once = self.dice.percent(20) && self.servers[server] == Server::Up;
        let Some(conn) = self.conn_mut(key) else {
            panic!("a connect for a stale key")
        };
        assert!(
            conn.sockets[1].is_none(),
            "a second connect while the first has a socket"
        );
        if nobody || fails && at_once {
            return Start::Done(Err(Cause::Unreachable));
        }
        conn.sockets[1] = Some(Socket {
            connecting: !at_once,
            server,
            ..Socket::default()
        });
        conn.peers[1] = Peer::new(conn.upstream_script);
        self.open_sockets += 1;
        if at_once {
            Start::Done(Ok(()))
        } else {
            Start::Pending
        }
    }

    fn apply_connected(&mut self, _key: SessionKey, _target: Target<'_>) {}

    fn pump(
        &mut self,
        key: SessionKey,
        direction: Direction,
        lane: &mut Lane,
        budget: u32,
    ) -> Pumped {
        let Some(conn) = self.conn_mut(key) else {
            panic!("a pump for a stale key")
        };
        // Not yet of one whose client is turned away.
        conn.relayed |= conn.sockets[1].is_some() && conn.closing[1].is_none();
        let mut pumped = Pumped::default();
        // A budget of moves, as real engines have one; a friendly kernel needs few.
        let most = if self.nastiness.short > 0 { 12 } else { 32 };
        let least = if self.nastiness.short > 0 { 1 } else { most };
        let moves = self.dice.between(least, most);
        let before = lane.bytes_in();
        for _ in 0..moves {
            let read = lane.bytes_in() - before;
            if !Self::can_move(lane) || read >= u64::from(budget) {
                break;
            }
            self.move_once(key, direction, lane, budget, &mut pumped);
        }
        self.return_pipe(key, direction, lane);
        pumped.more = Self::can_move(lane);
        pumped
    }

    fn tap(&mut self, key: SessionKey, feed: Box<Feed>) {
        if let Some(conn) = self.conn_mut(key) {
            conn.tap = Some(feed);
        }
    }

    fn untap(&mut self, key: SessionKey) -> Option<Box<Feed>> {
        self.conn_mut(key)?.tap.take()
    }

    fn may_hold(&mut self, bytes: u32) {
        self.spare = bytes;
    }

    fn drop_held(&mut self, key: SessionKey, direction: Direction) {
        let Some(conn) = self.conn_mut(key) else {
            return;
        };
        let pipe = conn.pipes[direction.index()].take();
        let held = std::mem::take(&mut conn.held[direction.index()]);
        conn.dropped[direction.index()] += u64::from(held);
        self.held -= u64::from(held);
        if let Some(pipe) = pipe {
            self.pipes.give_back(pipe);
        }
    }

    fn unsent(&self, key: SessionKey) -> [u32; 2] {
        let Some(conn) = self.conn(key) else {
            return [0; 2];
        };
        [0, 1].map(|side| {
            if conn.sockets[side].is_some() {
                conn.peers[side].queued as u32
            } else {
                0
            }
        })
    }

    fn close(&mut self, key: SessionKey, side: Side, how: Close) -> Start<()> {
        let deferred = self.dice.percent(self.nastiness.deferred_close);
        let Some(conn) = self.conn_mut(key) else {
            panic!("a close for a stale key")
        };
        assert!(conn.closing[side.index()].is_none(), "closed twice");
        if conn.sockets[side.index()].is_none() {
            return Start::Done(());
        }
        if side == Side::Client {
            conn.peers[0].over = true;
        }
        if deferred {
            conn.closing[side.index()] = Some(how);
            return Start::Pending;
        }
        self.close_now(key, side, how);
        Start::Done(())
    }

    fn quiesce(&mut self, key: SessionKey) -> Start<()> {
        self.begin_to_quiesce(key)
    }

    fn detach(&mut self, key: SessionKey, lanes: &mut [Lane; 2]) -> Option<Uprooted> {
        self.uproot(key, lanes)
    }

    fn attach(&mut self, key: SessionKey, detached: Uprooted) -> Result<(), (Cause, Uprooted)> {
        self.replant(key, detached);
        Ok(())
    }

    fn attach_ahead(
        &mut self,
        key: SessionKey,
        detached: Uprooted,
    ) -> Result<(), (Cause, Uprooted)> {
        self.replant(key, detached);
        self.conns.touch(key.slot).ahead = true;
        Ok(())
    }

    fn acknowledge(&mut self, _key: SessionKey, _side: Side) {}

    fn hold_acks(&mut self, _key: ListenerKey, _hold: bool) {}

    fn count_refused(&mut self, _options: u32) {}

    /// It has none: everything that goes by one is overridden.
    fn fd(&self, _key: SessionKey, _side: Side) -> Option<BorrowedFd<'_>> {
        None
    }

    fn release_spares(&mut self) {}

    fn holdings(&self) -> Holdings {
        Holdings {
            held_bytes: self.held,
            held_limit: HELD_LIMIT,
            ..Holdings::default()
        }
    }
}
