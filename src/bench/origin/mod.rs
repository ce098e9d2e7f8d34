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
//! | `ECHO` | every further byte comes back; ends when the client ends. `ECHO prompt`: on the thread that has no bulk, where there is one. `ECHO halves`: what each read brought in two writes, with Nagle's algorithm on |
//! | `MARK` | each further byte is answered by a line: the payload bytes that have come to this origin by then, over all connections; prompt likewise |
//! | `SINK [seed [one-in]]` | every further byte is swallowed; at the client's end, `OK bytes`. With a seed the bytes are checked against the pattern from that position on: `ERR differs at N`; with a number behind it, one MiB of so many, and the rest is not copied from the kernel. `SINK discard`: they are not even copied from the kernel; `SINK prompt`: nor on a thread that has other bulk |
//! | `SOURCE [bytes\|-] [seed] [file]` | the pattern from position `seed` on; then the next command. `-` or nothing: until the client ends. `file`: without copying it |
//! | `STRING` | one line follows, and comes back as a line |
//! | `RECORD bytes` | so many bytes of CBOR follow ([`record::Record`]); the answer is `RECORD bytes` and the record as decoded, encoded again |
//! | `INFO` | one line: this connection's `TCP_INFO` as seen here |
//!
//! In front of the first line may stand what a forwarder looks at: TLS records of a handshake (a ClientHello) and
//! PROXY headers of version 2. They are skipped, and neither answered nor counted.
//!
//! An unknown name is answered by `ERR unknown command …` with the known names, and
//! the connection goes on with the next line. A line that is too long, a record
//! that is too long or does not decode: `ERR …`, and the connection is closed,
//! because there is no telling where the next command begins.
//!
//! # Datagrams
//!
//! [`OriginOptions::datagrams`]: each datagram comes back as it is (RFC 862), but for those of a stream
//! ([`crate::bench::datagram`]), which are compared and counted. Whoever says that it was sent from port 0, or
//! from where this origin is, gets no answer, and neither does a datagram that is cut.
//!
//! A library user adds commands of his own: [`handlers::Handlers::register`].
//!
//! # Bounds
//!
//! Connections: [`OriginOptions::connections_max`], above which new ones are closed
//! at once (counted as `refused`), and the process's descriptors, without which
//! accepting pauses until some come free. Memory: [`OriginOptions::memory_max`] over all
//! connections. A record: [`record::RECORD_MAX`]. Unsent output: [`PENDING_MAX`]
//! a connection, above which nothing is read from it. Silence:
//! [`OriginOptions::idle_timeout`]. A connection that this side ends is shut down
//! first and read until the client's end, so that no reset overtakes an answer.

mod connection;
mod conversation;
mod datagrams;
pub mod handlers;
mod options;
pub mod record;
mod thread;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use handlers::Handlers;
pub use options::{
    Counters, DatagramOptions, LINE_MAX, MEMORY_MAX, OriginOptions, PENDING_MAX, POSITION_MAX, Role,
};

use crate::bench::precedence::Precedence;
use crate::bench::socket;
use crate::bench::traffic::Traffic;
use thread::{PeerThread, Server};

/// A running origin. Dropping it stops its threads and closes its connections.
#[derive(Debug)]
pub struct Origin {
    addresses: Vec<(Role, SocketAddr)>,
    counters: Arc<Counters>,
    traffic: Arc<Traffic>,
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
        if let Some(datagrams) = options.datagrams
            && datagrams.address.is_none()
        {
            return Self::start_at_one_number(options, datagrams, handlers);
        }
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
        let datagrams = options.datagrams.map(datagrams::Server::bind).transpose()?;
        if let Some(server) = &datagrams {
            addresses.push((Role::Datagrams, server.address()?));
        }
        if addresses.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an origin needs at least one address to listen on",
            ));
        }
        let mut origin = Self {
            addresses,
            counters: Arc::new(Counters::default()),
            traffic: Arc::new(Traffic::default()),
            thread_ids: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            wakers: Vec::new(),
            threads: Vec::new(),
        };
        origin.spawn(options, &Arc::new(handlers), listeners)?;
        if let Some(server) = datagrams {
            origin.serve_datagrams(server)?;
        }
        Ok(origin)
    }

    /// Datagrams at the number of the command port, whatever number the kernel gives that.
    fn start_at_one_number(
        options: &OriginOptions,
        datagrams: DatagramOptions,
        handlers: Handlers,
    ) -> io::Result<Self> {
        const ATTEMPTS: usize = 32;
        let mut handlers = Some(handlers);
        let mut taken = None;
        for _ in 0..ATTEMPTS {
            let Some(command) = options.command else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "datagrams at the number of the command port, and no command port",
                ));
            };
            let reserved = socket::listen(command, None, None)?;
            let address = reserved.local_addr()?;
            let at = DatagramOptions {
                address: Some(address),
                ..datagrams
            };
            if let Err(error) = std::net::UdpSocket::bind(address) {
                // A number that is free for connections need not be free for datagrams.
                taken = Some(error);
                continue;
            }
            drop(reserved);
            let options = OriginOptions {
                command: Some(address),
                datagrams: Some(at),
                ..options.clone()
            };
            return Self::start(&options, handlers.take().unwrap_or_default());
        }
        Err(taken.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
    }

    fn serve_datagrams(&mut self, server: datagrams::Server) -> io::Result<()> {
        let shared = datagrams::Shared {
            counters: Arc::clone(&self.counters),
            traffic: Arc::clone(&self.traffic),
            stop: Arc::clone(&self.stop),
        };
        let server = server.share(shared)?;
        self.wakers.push(server.waker());
        let (ids, id_of) = mpsc::channel();
        let thread = std::thread::Builder::new().name("origin-datagrams".to_owned());
        self.threads.push(thread.spawn(move || {
            // The receiver waits below for exactly this.
            let _ = ids.send(nix::unistd::gettid().as_raw());
            server.run();
        })?);
        self.thread_ids.extend(id_of.recv().ok());
        Ok(())
    }

    fn spawn(
        &mut self,
        options: &OriginOptions,
        handlers: &Arc<Handlers>,
        listeners: Vec<(Role, mio::net::TcpListener)>,
    ) -> io::Result<()> {
        let mut server = |prompt: Option<PeerThread>| {
            let (sender, receiver) = mpsc::channel();
            let server = Server::new(
                options,
                Arc::clone(handlers),
                Arc::clone(&self.counters),
                Arc::clone(&self.stop),
                receiver,
                prompt,
            )?;
            self.wakers.push(server.waker());
            let peer = PeerThread {
                connections: sender,
                waker: server.waker(),
            };
            Ok::<_, io::Error>((server, peer))
        };
        let prompt = options.prompt.map(|_| server(None)).transpose()?;
        let mut servers = Vec::new();
        let mut peers = Vec::new();
        for _ in 0..options.threads.max(1) {
            let prompt = prompt.as_ref().map(|(_, peer)| peer.clone());
            let (server, peer) = server(prompt)?;
            servers.push((server, Precedence::Ordinary));
            peers.push(peer);
        }
        servers[0].0.accept_from(listeners, peers)?;
        servers.extend(prompt.map(|(server, _)| server).zip(options.prompt));
        let count = servers.len();
        let (ids, id_of) = mpsc::channel();
        for (index, (server, precedence)) in servers.into_iter().enumerate() {
            let ids = ids.clone();
            let thread = std::thread::Builder::new()
                .name(format!("origin-{index}"))
                .spawn(move || {
                    // The receiver waits below for exactly one id from each thread.
                    let _ = ids.send(nix::unistd::gettid().as_raw());
                    // Whoever asked for it has tried whether it is permitted.
                    let _ = precedence.take();
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

    /// Datagrams of streams, both ways; one end of it is the load generator's.
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
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
