//! The far end of a measurement: a server that echoes, swallows, produces, and
//! answers strings and structured records.
//!
//! It offers a command port, on which a client names what it wants in the first
//! line, and optionally a port for each of the classic roles: echo (RFC 862),
//! discard (RFC 863), and an endless source (like RFC 864, with the pattern of
//! [`crate::bench::pattern`] instead of text).
//!
//! # The command port
//!
//! A line ends with a newline (a carriage return before it is ignored) and has at
//! most [`LINE_MAX`] bytes.
//!
//! | line | what happens |
//! | --- | --- |
//! | `ECHO` | every further byte comes back; ends when the client ends |
//! | `SINK [seed]` | every further byte is swallowed; at the client's end, `OK bytes`. With a seed the bytes are checked against the pattern from that position on: `ERR differs at N` |
//! | `SOURCE [bytes\|-] [seed]` | the pattern from position `seed` on; then the next command. `-` or nothing: until the client ends |
//! | `STRING` | one line follows, and comes back as a line |
//! | `RECORD bytes` | so many bytes of CBOR follow ([`record::Record`]); the answer is `RECORD bytes` and the record as decoded, encoded again |
//! | `INFO` | one line: this connection's `TCP_INFO` as seen here |
//!
//! An unknown name is answered by `ERR unknown command …` with the known names, and
//! the connection goes on with the next line. A line that is too long, a record
//! that is too long or does not decode: `ERR …`, and the connection is closed,
//! because there is no telling where the next command begins.
//!
//! A library user adds commands of his own: [`handlers::Handlers::register`].
//!
//! # Bounds
//!
//! Connections: [`OriginOptions::connections_max`], above which new ones are closed
//! at once (counted as `refused`), and the process's descriptors, without which
//! accepting pauses until some come free. Unsent output: [`PENDING_MAX`]
//! a connection, above which nothing is read from it. Silence:
//! [`OriginOptions::idle_timeout`]. A connection that this side ends is shut down
//! first and read until the client's end, so that no reset overtakes an answer.

mod connection;
pub mod handlers;
pub mod record;
mod thread;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use handlers::Handlers;

use crate::bench::socket;
use crate::bench::watch::Watch;
use crate::net::options::OptionPlan;

/// The longest line on the command port, in bytes.
pub const LINE_MAX: usize = 64 * 1024;

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
    /// Threads that serve; connections are dealt out in turn.
    pub threads: usize,
    /// Congestion control of every connection; `None`: the system's.
    pub congestion: Option<String>,
    /// What else connections are given: the options of a leg towards clients.
    pub options: Option<OptionPlan>,
    /// Whoever wants to look at their sockets meanwhile.
    pub watch: Option<Arc<Watch>>,
    /// Connections at the most over all threads.
    pub connections_max: usize,
    /// Without a byte for so long a connection is closed.
    pub idle_timeout: Duration,
}

impl Default for OriginOptions {
    fn default() -> Self {
        Self {
            command: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            echo: None,
            discard: None,
            source: None,
            threads: 1,
            congestion: None,
            options: None,
            watch: None,
            connections_max: 100_000,
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
    /// Connections open now.
    pub open: AtomicU64,
    /// Connections closed at once because there were too many.
    pub refused: AtomicU64,
    /// Connections that ended with an error instead of an end of file.
    pub aborted: AtomicU64,
    /// Times that accepting paused for want of descriptors.
    pub starved: AtomicU64,
    /// Connections whose bytes differed from the pattern.
    pub differed: AtomicU64,
}

/// A running origin. Dropping it stops its threads and closes its connections.
#[derive(Debug)]
pub struct Origin {
    addresses: Vec<(Role, SocketAddr)>,
    counters: Arc<Counters>,
    thread_ids: Vec<i32>,
    stop: Arc<AtomicBool>,
    wakers: Vec<Arc<mio::Waker>>,
    threads: Vec<JoinHandle<()>>,
}

impl Origin {
    /// Binds every address asked for and starts serving.
    ///
    /// # Errors
    /// An address that cannot be bound, by name; threads or descriptors missing.
    pub fn start(options: &OriginOptions, handlers: Handlers) -> io::Result<Self> {
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        let roles = [
            (Role::Command, options.command),
            (Role::Echo, options.echo),
            (Role::Discard, options.discard),
            (Role::Source, options.source),
        ];
        for (role, address) in roles {
            let Some(address) = address else { continue };
            let listener = socket::listen(
                address,
                options.congestion.as_deref(),
                options.options.as_ref(),
            )
            .map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
            })?;
            addresses.push((role, listener.local_addr()?));
            listeners.push((role, listener));
        }
        if listeners.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an origin needs at least one address to listen on",
            ));
        }
        let mut origin = Self {
            addresses,
            counters: Arc::new(Counters::default()),
            thread_ids: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            wakers: Vec::new(),
            threads: Vec::new(),
        };
        origin.spawn(options, &Arc::new(handlers), listeners)?;
        Ok(origin)
    }

    fn spawn(
        &mut self,
        options: &OriginOptions,
        handlers: &Arc<Handlers>,
        listeners: Vec<(Role, mio::net::TcpListener)>,
    ) -> io::Result<()> {
        let count = options.threads.max(1);
        let mut servers = Vec::with_capacity(count);
        let mut peers = Vec::with_capacity(count);
        for _ in 0..count {
            let (sender, receiver) = mpsc::channel();
            let server = thread::Server::new(
                options,
                Arc::clone(handlers),
                Arc::clone(&self.counters),
                Arc::clone(&self.stop),
                receiver,
            )?;
            self.wakers.push(server.waker());
            peers.push(thread::PeerThread {
                connections: sender,
                waker: server.waker(),
            });
            servers.push(server);
        }
        servers[0].accept_from(listeners, peers)?;
        let (ids, id_of) = mpsc::channel();
        for (index, server) in servers.into_iter().enumerate() {
            let ids = ids.clone();
            let thread = std::thread::Builder::new()
                .name(format!("origin-{index}"))
                .spawn(move || {
                    // The receiver waits below for exactly one id from each thread.
                    let _ = ids.send(nix::unistd::gettid().as_raw());
                    server.run();
                })?;
            self.threads.push(thread);
        }
        self.thread_ids = id_of.iter().take(count).collect();
        Ok(())
    }

    /// Where a role listens; `None` when it was not asked for.
    pub fn address(&self, role: Role) -> Option<SocketAddr> {
        self.addresses
            .iter()
            .find(|(listens, _)| *listens == role)
            .map(|(_, address)| *address)
    }

    /// Every role and its address.
    pub fn addresses(&self) -> &[(Role, SocketAddr)] {
        &self.addresses
    }

    /// The running counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Kernel thread ids, for pinning and for CPU time.
    pub fn thread_ids(&self) -> &[i32] {
        &self.thread_ids
    }

    /// Waits until at most `open` connections are left.
    ///
    /// # Errors
    /// How many were still open at the deadline.
    pub fn wait_until_open(&self, open: u64, deadline: Instant) -> Result<(), u64> {
        loop {
            let now_open = self.counters.open.load(Ordering::Relaxed);
            if now_open <= open {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(now_open);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for waker in &self.wakers {
            // A waker fails only when its poll is gone, and then so is the thread.
            let _ = waker.wake();
        }
        for thread in self.threads.drain(..) {
            // A panic in a server thread was printed there.
            let _ = thread.join();
        }
    }
}
