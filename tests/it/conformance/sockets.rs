//! Real engines on loopback: the peers are plain blocking sockets of the test,
//! and bytes are compared with the pattern that was sent.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thalweg::engine::epoll::Epoll;
use thalweg::engine::{BusyPoll, Engine, Event, Listener, SessionKey, Setup};
use thalweg::net::address::Endpoint;
use thalweg::net::limits;
use thalweg::net::options::{Family, Leg, SocketOptions};
use thalweg::relay::Side;

use super::rig::World;

pub(crate) struct Sockets<E> {
    engine: E,
    entrance: TcpListener,
    origin: TcpListener,
    peers: [Option<Peer>; 2],
    /// Bound and not listening, so that nobody else gets their ports.
    unlistened: Vec<socket2::Socket>,
}

struct Peer {
    stream: TcpStream,
    sent: u64,
    /// Sent by the caller, not taken by the kernel yet.
    unsent: u64,
    taken: u64,
}

pub(crate) fn epoll() -> Sockets<Epoll> {
    world(|setup| Epoll::new(&setup, Instant::now()).expect("an epoll engine"))
}

/// `None`, said aloud, where the kernel permits no io_uring.
#[cfg(feature = "uring")]
pub(crate) fn io_uring(
    sizes: thalweg::engine::uring::Sizes,
) -> Option<Sockets<thalweg::engine::uring::Uring>> {
    use thalweg::engine::uring::{Uring, probe};
    if let Err(reason) = probe() {
        println!("skipped: {reason}");
        return None;
    }
    Some(world(|setup| {
        Uring::with_sizes(&setup, Instant::now(), sizes).expect("an io_uring engine")
    }))
}

/// What an engine of this suite is made with.
pub(crate) fn setup() -> Setup {
    Setup {
        scratch_buffer: 256 * 1024,
        pipe_size: 1 << 20,
        buffer_limit: 1 << 30,
        busy_poll: BusyPoll::NEVER,
        ephemeral_ports: limits::ephemeral_ports(),
    }
}

fn world<E: Engine<Listener = Listener>>(make: impl FnOnce(Setup) -> E) -> Sockets<E> {
    let entrance = TcpListener::bind("127.0.0.1:0").expect("a port");
    let origin = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut engine = make(setup());
    // As with the socket of a unix listener, another descriptor refers to it: it is
    // not gone from the kernel's lists with the engine's.
    let listener = listener(&entrance);
    engine.listen(listener).expect("the engine listens");
    Sockets {
        engine,
        entrance,
        origin,
        peers: [None, None],
        unlistened: Vec::new(),
    }
}

fn listener(socket: &TcpListener) -> Listener {
    socket.set_nonblocking(true).expect("non-blocking");
    Listener {
        fd: OwnedFd::from(socket.try_clone().expect("a descriptor")).into(),
        family: Family::V4,
        options: Arc::new(SocketOptions::default().plan(Leg::Client)),
    }
}

/// Position-dependent: a byte that is lost, doubled or swapped shows.
fn pattern(position: u64) -> u8 {
    (position.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).expect("non-blocking");
        Self {
            stream,
            sent: 0,
            unsent: 0,
            taken: 0,
        }
    }

    fn flush(&mut self) {
        while self.unsent > 0 {
            let n = self.unsent.min(64 * 1024);
            let bytes: Vec<u8> = (self.sent..self.sent + n).map(pattern).collect();
            match self.stream.write(&bytes) {
                Ok(n) => {
                    self.sent += n as u64;
                    self.unsent -= n as u64;
                }
                Err(_) => return,
            }
        }
    }
}

impl<E> Sockets<E> {
    /// The same peers, and another engine; that which was.
    pub(crate) fn with_engine<F>(self, engine: F) -> (Sockets<F>, E) {
        let world = Sockets {
            engine,
            entrance: self.entrance,
            origin: self.origin,
            peers: self.peers,
            unlistened: self.unlistened,
        };
        (world, self.engine)
    }
}

impl<E: Engine> Sockets<E> {
    fn peer(&mut self, side: Side) -> &mut Peer {
        if side == Side::Upstream && self.peers[1].is_none() {
            let (stream, _) = self.origin.accept().expect("the engine connected");
            self.peers[1] = Some(Peer::new(stream));
        }
        self.peers[side.index()]
            .as_mut()
            .expect("the client connected")
    }
}

impl<E: Engine> Sockets<E> {
    /// How the connection that the server has ends, if it does in time: an error is
    /// told, an end in good order is `UnexpectedEof`.
    pub(crate) fn server_hears_of_the_end(&mut self, patience: Duration) -> Option<ErrorKind> {
        let stream = &mut self.peer(Side::Upstream).stream;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            match stream.read(&mut [0]) {
                Ok(0) => return Some(ErrorKind::UnexpectedEof),
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Some(error.kind()),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        None
    }
}

/// A server that answers no SYN: its accept queue is full.
pub(crate) struct Mute {
    listener: socket2::Socket,
    _fillers: Vec<socket2::Socket>,
}

impl Mute {
    pub(crate) fn new() -> Self {
        let socket = || {
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
                .expect("a socket")
        };
        let listener = socket();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        listener.bind(&any.into()).expect("a port");
        listener.listen(0).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let filler = || {
            let socket = socket();
            let patience = Duration::from_millis(100);
            let connected = socket.connect_timeout(&address, patience);
            connected.is_ok().then_some(socket)
        };
        let fillers: Vec<_> = std::iter::from_fn(filler).take(20).collect();
        assert!(fillers.len() < 20, "the accept queue has no end");
        Self {
            listener,
            _fillers: fillers,
        }
    }

    fn address(&self) -> SocketAddr {
        let address = self.listener.local_addr().ok();
        address.and_then(|it| it.as_socket()).expect("an address")
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::Inet(self.address())
    }

    /// Sockets of this host that wait for its answer, as /proc/net/tcp has them.
    pub(crate) fn callers(&self) -> usize {
        let to_it = format!(":{:04X}", self.address().port());
        let table = std::fs::read_to_string("/proc/net/tcp").expect("a table of sockets");
        let calls = |line: &&str| {
            let mut fields = line.split_whitespace().skip(2);
            let remote = fields.next().unwrap_or_default();
            remote.ends_with(&to_it) && fields.next() == Some("02")
        };
        table.lines().filter(calls).count()
    }
}

impl<E: Engine<Listener = Listener>> World for Sockets<E> {
    type Engine = E;

    fn engine(&mut self) -> &mut E {
        &mut self.engine
    }

    fn client_connects(&mut self) {
        let address = self.entrance.local_addr().expect("an address");
        let stream = TcpStream::connect(address).expect("the engine listens");
        self.peers[0] = Some(Peer::new(stream));
    }

    fn other_listener(&mut self) -> Listener {
        listener(&TcpListener::bind("127.0.0.1:0").expect("a port"))
    }

    fn server(&mut self) -> Endpoint {
        Endpoint::Inet(self.origin.local_addr().expect("an address"))
    }

    fn nobody(&mut self) -> Endpoint {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        socket
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .expect("a port");
        let address = socket
            .local_addr()
            .ok()
            .and_then(|address| address.as_socket())
            .expect("an address");
        self.unlistened.push(socket);
        Endpoint::Inet(address)
    }

    fn sends(&mut self, _key: SessionKey, side: Side, n: u64) {
        let peer = self.peer(side);
        peer.unsent += n;
        peer.flush();
    }

    fn ends(&mut self, _key: SessionKey, side: Side) {
        let peer = self.peer(side);
        peer.flush();
        assert_eq!(
            peer.unsent, 0,
            "the kernel takes what this suite sends before an end"
        );
        peer.stream
            .shutdown(std::net::Shutdown::Write)
            .expect("a shutdown");
    }

    fn resets(&mut self, _key: SessionKey, side: Side) {
        self.peer(side);
        let peer = self.peers[side.index()].take().expect("a peer");
        socket2::SockRef::from(&peer.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("linger");
    }

    fn takes(&mut self, _key: SessionKey, side: Side) -> Option<u64> {
        let peer = self.peer(side);
        let mut buffer = vec![0; 256 * 1024];
        let mut taken = 0;
        loop {
            match peer.stream.read(&mut buffer) {
                Ok(0) if taken == 0 => return None,
                Ok(0) => return Some(taken),
                Ok(n) => {
                    for byte in &buffer[..n] {
                        assert_eq!(*byte, pattern(peer.taken), "byte {} is wrong", peer.taken);
                        peer.taken += 1;
                    }
                    taken += n as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(taken),
                Err(error) => panic!("a read failed: {error}"),
            }
        }
    }

    fn server_parts(&mut self) {
        self.peer(Side::Upstream);
        self.peers[Side::Upstream.index()] = None;
    }

    fn turn(&mut self, events: &mut Vec<Event>) {
        for peer in self.peers.iter_mut().flatten() {
            peer.flush();
        }
        let until = self.engine.now() + Duration::from_millis(2);
        self.engine.wait(until, events).expect("a wait");
    }
}
