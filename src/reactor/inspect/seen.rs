//! What a visitor sees.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::SessionKey;
use crate::net::address::Endpoint;
use crate::net::tcp_info::TcpInfo;
use crate::policy::meter::Level;
use crate::reactor::destination::Destination;
use crate::reactor::{Forward, Listener};
use crate::relay::flow::Traffic;
use crate::relay::time::Time;

/// A part of something, and where the next one begins.
#[derive(Debug)]
pub struct Slice<T> {
    /// In the order of slots.
    pub items: Vec<T>,
    /// `None` behind the last one.
    pub next: Option<u32>,
}

/// How closely to look at sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// At what the reactor knows.
    Known,
    /// Also at what the kernel knows of each leg.
    Kernel,
}

/// A live session.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Where it is.
    pub key: SessionKey,
    /// On which reactor.
    pub reactor: u16,
    /// Its number on that reactor, from 1.
    pub id: u64,
    /// What it is about.
    pub phase: &'static str,
    /// Who came.
    pub client: Endpoint,
    /// Where it came in, and its forward.
    pub listener: Arc<Listener>,
    /// Where it is or is being connected to.
    pub destination: Option<Destination>,
    /// Where the client asked to go, and who it says it is; escaped.
    pub target: Option<String>,
    /// See `target`.
    pub user: Option<String>,
    /// Which server TLS asked for (SNI); escaped.
    pub sni: Option<String>,
    /// The route by which it goes.
    pub route: Option<Arc<str>>,
    /// When this was seen, by the reactor's clock.
    pub now: Time,
    /// Since the accept.
    pub age: Duration,
    /// From accept to connected.
    pub connect: Option<Duration>,
    /// From accept to the first byte for the client.
    pub first_byte: Option<Duration>,
    /// Up and down.
    pub lanes: [LaneView; 2],
    /// What its bytes are held back by: of whom, with bytes a second up and down.
    pub rates: Vec<(Level, [u64; 2])>,
    /// How long they were held back so far, if they may be.
    pub held_back: Option<Duration>,
    /// The kernel's view of client and upstream, if it was asked.
    pub tcp: [Option<TcpInfo>; 2],
    /// Its datagrams up and down, if it is a flow of such.
    pub datagrams: Option<[Traffic; 2]>,
}

/// One direction of a live session.
#[derive(Debug, Clone, Copy, Default)]
pub struct LaneView {
    /// Bytes written.
    pub bytes: u64,
    /// Bytes read and not written yet.
    pub held: u32,
    /// Whether any crossed by splice.
    pub spliced: bool,
    /// Its source has ended.
    pub ended: bool,
    /// It stands still because its sink takes nothing.
    pub stalled: bool,
}

/// A listener of a reactor.
#[derive(Debug, Clone)]
pub struct ListenerView {
    /// Its identity, address and forward.
    pub listener: Arc<Listener>,
    /// Connections that wait to be accepted; `None` of a unix socket, and of one of datagrams.
    pub queued: Option<u32>,
    /// How many may.
    pub backlog: Option<u32>,
    /// How many connections, or datagrams, the kernel dropped because the queue was full, since the
    /// socket was made.
    pub dropped: Option<u32>,
}

impl SessionView {
    /// Its forward.
    pub fn forward(&self) -> &Forward {
        &self.listener.forward
    }
}
