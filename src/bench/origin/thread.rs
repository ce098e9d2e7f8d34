//! One thread of the origin: a readiness loop over its connections. The first
//! thread also accepts, and deals connections out in turn, so that a handful of
//! bulk flows spreads evenly (SO_REUSEPORT would leave that to a hash).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use super::connection::{Connection, Context, Memory, Pumped};
use super::handlers::Handlers;
use super::options::{Counters, OriginOptions, Role};
use crate::bench::socket;
use crate::bench::watch::Watch;
use crate::net::options::OptionPlan;
use crate::observe::aside::aside;

/// Reads go through one buffer a thread; 256 KiB is where more stops helping.
const SCRATCH: usize = 256 * 1024;

/// How often overdue connections are looked for, and a starved accept is retried.
const SWEEP: Duration = Duration::from_millis(500);

const WAKE: Token = Token(usize::MAX);
/// Listeners count down from here.
const FIRST_LISTENER: usize = usize::MAX - 1;

/// What comes to a thread from another one.
pub(super) enum Incoming {
    /// Just accepted.
    New(Role, TcpStream),
    /// Its command said that it belongs on the prompt thread.
    Moved(Connection),
}

/// Where a thread sends a connection.
#[derive(Clone)]
pub(super) struct PeerThread {
    pub(super) connections: mpsc::Sender<Incoming>,
    pub(super) waker: Arc<Waker>,
}

impl PeerThread {
    /// False: that thread is stopping.
    fn send(&self, incoming: Incoming) -> bool {
        self.connections.send(incoming).is_ok() && self.waker.wake().is_ok()
    }
}

pub(super) struct Server {
    poll: Poll,
    waker: Arc<Waker>,
    incoming: mpsc::Receiver<Incoming>,
    /// The thread without bulk, unless this is it.
    prompt: Option<PeerThread>,
    listeners: Vec<(Role, TcpListener)>,
    peers: Vec<PeerThread>,
    next_peer: usize,
    accept_paused: bool,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    run_queue: VecDeque<usize>,
    scratch: Vec<u8>,
    handlers: Arc<Handlers>,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    connections_max: u64,
    memory: Memory,
    idle_timeout: Duration,
    congestion: Option<String>,
    options: Option<OptionPlan>,
    watch: Option<Arc<Watch>>,
}

impl Server {
    pub(super) fn new(
        options: &OriginOptions,
        handlers: Arc<Handlers>,
        counters: Arc<Counters>,
        stop: Arc<AtomicBool>,
        incoming: mpsc::Receiver<Incoming>,
        prompt: Option<PeerThread>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        Ok(Self {
            poll,
            waker,
            incoming,
            prompt,
            listeners: Vec::new(),
            peers: Vec::new(),
            next_peer: 0,
            accept_paused: false,
            connections: Vec::new(),
            free: Vec::new(),
            run_queue: VecDeque::new(),
            scratch: vec![0; SCRATCH],
            handlers,
            counters,
            stop,
            connections_max: options.connections_max as u64,
            memory: Memory {
                most: options.memory_max,
                share: options.memory_max / (options.connections_max as u64).max(1),
            },
            idle_timeout: options.idle_timeout,
            congestion: options.congestion.clone(),
            options: options.options.clone(),
            watch: options.watch.clone(),
        })
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Makes this the accepting thread.
    pub(super) fn accept_from(
        &mut self,
        listeners: Vec<(Role, TcpListener)>,
        peers: Vec<PeerThread>,
    ) -> io::Result<()> {
        self.listeners = listeners;
        self.peers = peers;
        for (index, (_, listener)) in self.listeners.iter_mut().enumerate() {
            self.poll.registry().register(
                listener,
                Token(FIRST_LISTENER - index),
                Interest::READABLE,
            )?;
        }
        Ok(())
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut next_sweep = Instant::now() + SWEEP;
        while !self.stop.load(Relaxed) {
            let timeout = if self.run_queue.is_empty() {
                next_sweep.saturating_duration_since(Instant::now())
            } else {
                Duration::ZERO
            };
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Nothing but a bug makes epoll_wait fail on a valid descriptor.
                Err(error) => panic!("epoll_wait: {error}"),
            }
            let now = Instant::now();
            let mut accepts = false;
            // What a budget cut short waits behind what has just become ready.
            let queued = self.run_queue.len();
            for event in &events {
                match event.token() {
                    WAKE => self.adopt(now),
                    Token(token) if token > FIRST_LISTENER - self.listeners.len() => {
                        accepts = true;
                    }
                    Token(index) => {
                        if event.is_read_closed()
                            && let Some(Some(connection)) = self.connections.get_mut(index)
                        {
                            connection.peer_ended();
                        }
                        self.pump(index, now);
                    }
                }
            }
            for _ in 0..queued {
                if let Some(index) = self.run_queue.pop_front() {
                    self.pump(index, now);
                }
            }
            if now >= next_sweep {
                next_sweep = now + SWEEP;
                accepts |= self.accept_paused;
                self.sweep(now);
            }
            if accepts {
                self.accept(now);
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        self.accept_paused = false;
        for index in 0..self.listeners.len() {
            loop {
                let (role, listener) = &self.listeners[index];
                let role = *role;
                match listener.accept() {
                    Ok((stream, _)) => self.deal(role, stream, now),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if is_starved(&error) => {
                        self.counters.starved.fetch_add(1, Relaxed);
                        self.accept_paused = true;
                        break;
                    }
                    // The connection is gone, not the listener: the next one.
                    Err(_) => {}
                }
            }
        }
    }

    fn deal(&mut self, role: Role, stream: TcpStream, now: Instant) {
        self.counters.accepted.fetch_add(1, Relaxed);
        if self.counters.open.load(Relaxed) >= self.connections_max {
            self.counters.refused.fetch_add(1, Relaxed);
            return;
        }
        if let Err(error) =
            socket::accepted(&stream, self.congestion.as_deref(), self.options.as_ref())
        {
            // Its client has gone, or the kernel refuses an option: not served.
            aside(&format!("thalweg: cannot serve a connection: {error}\n"));
            self.counters.aborted.fetch_add(1, Relaxed);
            return;
        }
        self.counters.open.fetch_add(1, Relaxed);
        let peer = self.next_peer;
        self.next_peer = (peer + 1) % self.peers.len();
        if peer == 0 {
            self.add(role, stream, now);
            return;
        }
        if !self.peers[peer].send(Incoming::New(role, stream)) {
            // That thread is stopping, and so is this one.
            self.counters.open.fetch_sub(1, Relaxed);
        }
    }

    fn adopt(&mut self, now: Instant) {
        while let Ok(incoming) = self.incoming.try_recv() {
            match incoming {
                Incoming::New(role, stream) => self.add(role, stream, now),
                Incoming::Moved(connection) => self.register(connection),
            }
        }
    }

    fn add(&mut self, role: Role, stream: TcpStream, now: Instant) {
        if let Some(watch) = &self.watch {
            watch.show(&stream);
        }
        self.register(Connection::new(stream, role, now, self.counters.clone()));
    }

    /// Its first event comes from the registration itself.
    fn register(&mut self, mut connection: Connection) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) =
            self.poll
                .registry()
                .register(&mut connection.stream, Token(index), interest)
        {
            // Out of epoll watches or memory: this connection is given up.
            aside(&format!("thalweg: cannot watch a connection: {error}\n"));
            self.counters.aborted.fetch_add(1, Relaxed);
            self.counters.open.fetch_sub(1, Relaxed);
            self.free.push(index);
            return;
        }
        self.connections[index] = Some(connection);
    }

    fn pump(&mut self, index: usize, now: Instant) {
        let Some(Some(connection)) = self.connections.get_mut(index) else {
            // Closed earlier in the same batch of events.
            return;
        };
        let mut context = Context {
            scratch: &mut self.scratch,
            handlers: &self.handlers,
            counters: &self.counters,
            now,
            memory: self.memory,
            hands_over: self.prompt.is_some(),
        };
        match connection.pump(&mut context) {
            Pumped::Wait => connection.shut_if_lingering(),
            Pumped::Again => self.run_queue.push_back(index),
            Pumped::HandOver => self.hand_over(index),
            Pumped::Close => self.close(index),
        }
    }

    fn hand_over(&mut self, index: usize) {
        let (Some(prompt), Some(mut connection)) = (&self.prompt, self.connections[index].take())
        else {
            return;
        };
        self.free.push(index);
        let left = self.poll.registry().deregister(&mut connection.stream);
        if left.is_err() || !prompt.send(Incoming::Moved(connection)) {
            // That thread is stopping, and so is this one.
            self.counters.open.fetch_sub(1, Relaxed);
        }
    }

    fn close(&mut self, index: usize) {
        if self.connections[index].take().is_some() {
            self.free.push(index);
            self.counters.open.fetch_sub(1, Relaxed);
        }
    }

    fn sweep(&mut self, now: Instant) {
        for index in 0..self.connections.len() {
            if let Some(connection) = &self.connections[index]
                && connection.is_overdue(now, self.idle_timeout)
            {
                self.close(index);
            }
        }
    }
}

/// No descriptor or no memory for one more connection.
fn is_starved(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
