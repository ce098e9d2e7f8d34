//! How an origin is run, its bounds, and what it counts: plain data.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::bench::precedence::Precedence;
use crate::bench::watch::Watch;
use crate::net::options::OptionPlan;

/// The longest line on the command port, in bytes.
pub const LINE_MAX: usize = 64 * 1024;

/// Bytes that all connections together may hold unless told otherwise.
pub const MEMORY_MAX: u64 = 256 * 1024 * 1024;

/// The highest position in the pattern that may be asked for, and the most bytes: their
/// sum stays far below 2^64, so that no position overflows.
pub const POSITION_MAX: u64 = 1 << 62;

/// Unsent bytes above which nothing more is read from a connection.
pub const PENDING_MAX: usize = 1024 * 1024;

/// How to run an origin. Addresses with port 0 get a free port from the kernel.
#[derive(Debug, Clone)]
pub struct OriginOptions {
    /// The command port.
    pub command: Option<SocketAddr>,
    /// Echo, RFC 862.
    pub echo: Option<SocketAddr>,
    /// Discard, RFC 863.
    pub discard: Option<SocketAddr>,
    /// An endless source of the pattern.
    pub source: Option<SocketAddr>,
    /// Echo of datagrams, RFC 862.
    pub datagrams: Option<DatagramOptions>,
    /// Threads that serve; connections are dealt out in turn.
    pub threads: usize,
    /// One more thread, to which connections go that ask for prompt answers: bulk does
    /// not keep them waiting there. `None`: they stay where they were dealt to.
    pub prompt: Option<Precedence>,
    /// Congestion control of every connection; `None`: the system's.
    pub congestion: Option<String>,
    /// What else connections are given: the options of a leg towards clients.
    pub options: Option<OptionPlan>,
    /// Whoever wants to look at their sockets meanwhile.
    pub watch: Option<Arc<Watch>>,
    /// Connections at the most over all threads.
    pub connections_max: usize,
    /// Bytes that all connections together may hold: lines, records and answers that are
    /// not complete. Above it, whoever holds more than an equal share is cut off.
    pub memory_max: u64,
    /// Without a byte for so long a connection is closed.
    pub idle_timeout: Duration,
}

/// How datagrams are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramOptions {
    /// Where; `None`: at the number of the command port.
    pub address: Option<SocketAddr>,
    /// Whoever orders a stream gets one. Anybody can order one for somebody else, so this is for
    /// measurements within one machine.
    pub streams: bool,
    /// Several of one flow are taken from the kernel in one piece (`UDP_GRO`).
    pub in_trains: bool,
}

impl Default for OriginOptions {
    fn default() -> Self {
        Self {
            command: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            echo: None,
            discard: None,
            source: None,
            datagrams: None,
            threads: 1,
            prompt: None,
            congestion: None,
            options: None,
            watch: None,
            connections_max: 100_000,
            memory_max: MEMORY_MAX,
            idle_timeout: Duration::from_secs(600),
        }
    }
}

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The first line says.
    Command,
    /// RFC 862.
    Echo,
    /// RFC 863.
    Discard,
    /// An endless source.
    Source,
    /// Echo of datagrams.
    Datagrams,
}

/// What the threads have counted since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Payload bytes received: everything but command lines.
    pub received: AtomicU64,
    /// Payload bytes sent.
    pub sent: AtomicU64,
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Bytes that connections hold now.
    pub held: AtomicU64,
    /// Connections that were cut off because all together held too much.
    pub cut: AtomicU64,
    /// Connections open now.
    pub open: AtomicU64,
    /// Connections closed at once because there were too many.
    pub refused: AtomicU64,
    /// Connections that ended with an error instead of an end of file.
    pub aborted: AtomicU64,
    /// Times that accepting paused for want of descriptors.
    pub starved: AtomicU64,
    /// Datagrams received, but for those of a stream, which are counted in
    /// [`Traffic`](crate::bench::traffic::Traffic).
    pub datagrams: AtomicU64,
    /// Datagrams that were not answered: the kernel took no answer, or whoever sent them says to be one
    /// that answers himself.
    pub datagrams_unanswered: AtomicU64,
    /// Connections whose bytes differed from the pattern.
    pub differed: AtomicU64,
}
