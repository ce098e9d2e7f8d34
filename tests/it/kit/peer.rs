//! Clients and servers: plain blocking sockets on which every operation has a
//! deadline and every byte that arrives is checked.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockRef, Socket, Type};

use super::PATIENCE;
use super::pattern::{CHUNK, Pattern};

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// In good order.
    Eof,
    /// By a reset.
    Reset,
    /// ETIMEDOUT, EHOSTUNREACH: the kernel gave the peer up.
    TimedOut,
}

/// One end of a connection. What it sends and what it expects are patterns.
#[derive(Debug)]
pub(crate) struct Peer {
    stream: TcpStream,
    outgoing: Pattern,
    incoming: Pattern,
}

thread_local! {
    /// One for each thread instead of one for each peer: some tests have thousands.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

/// Seeds of the two directions of connection number `n`.
const fn seeds(n: u64) -> (u64, u64) {
    (2 * n + 1, 2 * n + 2)
}

impl Peer {
    /// Connects; see [`Peer::try_connect`].
    #[track_caller]
    pub(crate) fn connect(to: SocketAddr) -> Self {
        Self::try_connect(to).expect("cannot connect")
    }

    /// Connects as client number 0.
    pub(crate) fn try_connect(to: SocketAddr) -> std::io::Result<Self> {
        TcpStream::connect_timeout(&to, PATIENCE).map(Self::client)
    }

    /// Connects with so small a receive buffer (the kernel has a minimum of its
    /// own), so that little data is enough to fill the path.
    #[track_caller]
    pub(crate) fn connect_small(to: SocketAddr, receive_buffer: usize) -> Self {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(receive_buffer).unwrap();
        socket.connect_timeout(&to.into(), PATIENCE).unwrap();
        Self::client(socket.into())
    }

    /// Connects from a port of 127.0.0.1 that the test chose: outside of a range
    /// of ephemeral ports that it has narrowed.
    #[track_caller]
    pub(crate) fn connect_from(port: u16, to: SocketAddr) -> Self {
        Self::try_connect_from(port, to).expect("cannot connect")
    }

    /// As [`Peer::connect_from`].
    pub(crate) fn try_connect_from(port: u16, to: SocketAddr) -> std::io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        let local = SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), port);
        socket.set_reuse_address(true).unwrap();
        socket.bind(&local.into()).unwrap();
        socket.connect_timeout(&to.into(), PATIENCE)?;
        Ok(Self::client(socket.into()))
    }

    /// Connects from another of this host's addresses.
    #[track_caller]
    pub(crate) fn connect_from_address(from: [u8; 4], to: SocketAddr) -> Self {
        Self::try_connect_from_address(from, to).unwrap()
    }

    /// The same, for whoever may be turned away before he knows that he is connected.
    pub(crate) fn try_connect_from_address(from: [u8; 4], to: SocketAddr) -> std::io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        let local = SocketAddr::from((from, 0));
        socket.bind(&local.into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        Ok(Self::client(socket.into()))
    }

    /// A stream that was connected to the forwarder.
    pub(crate) fn client(stream: TcpStream) -> Self {
        let (up, down) = seeds(0);
        Self::new(stream, up, down)
    }

    /// A stream that was accepted from the forwarder.
    pub(crate) fn server(stream: TcpStream) -> Self {
        let (up, down) = seeds(0);
        Self::new(stream, down, up)
    }

    fn new(stream: TcpStream, outgoing: u64, incoming: u64) -> Self {
        stream.set_nonblocking(false).unwrap();
        // A unix socket has no such option, and no need of it.
        let _ = stream.set_nodelay(true);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            outgoing: Pattern::new(outgoing),
            incoming: Pattern::new(incoming),
        }
    }

    /// The client of connection `n`, whose payload no other connection has.
    pub(crate) fn numbered_client(mut self, n: u64) -> Self {
        let (up, down) = seeds(n);
        (self.outgoing, self.incoming) = (Pattern::new(up), Pattern::new(down));
        self
    }

    /// The server of connection `n`.
    pub(crate) fn numbered_server(mut self, n: u64) -> Self {
        let (up, down) = seeds(n);
        (self.outgoing, self.incoming) = (Pattern::new(down), Pattern::new(up));
        self
    }

    /// The stream, for whatever has no word here.
    pub(crate) const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.stream.peer_addr().unwrap()
    }

    /// Bytes sent so far.
    pub(crate) const fn sent(&self) -> u64 {
        self.outgoing.position()
    }

    /// Bytes received so far, all of them right.
    pub(crate) const fn received(&self) -> u64 {
        self.incoming.position()
    }

    /// Sends the next `len` bytes of its pattern.
    #[track_caller]
    pub(crate) fn send(&mut self, len: u64) {
        let sent = self.try_send(len);
        assert!(sent.is_ok(), "cannot send: {sent:?}");
    }

    /// As [`Peer::send`], for a connection that may be gone.
    pub(crate) fn try_send(&mut self, len: u64) -> std::io::Result<()> {
        let end = self.sent() + len;
        while self.sent() < end {
            let n = self
                .stream
                .write(self.outgoing.upcoming(end - self.sent()))?;
            self.outgoing.advance(n as u64);
        }
        Ok(())
    }

    /// Sends the next byte in a segment of its own.
    #[track_caller]
    pub(crate) fn send_byte(&mut self) {
        self.send(1);
    }

    /// Sends the next `len` bytes and the end in one segment: with `MSG_MORE` the
    /// kernel keeps the bytes, and the end is put on them.
    #[track_caller]
    pub(crate) fn send_with_end(&mut self, len: u64) {
        let bytes = self.outgoing.upcoming(len);
        let sent = SockRef::from(&self.stream).send_with_flags(bytes, libc::MSG_MORE);
        assert_eq!(sent.ok(), Some(len as usize), "one segment takes it");
        self.outgoing.advance(len);
        self.half_close();
    }

    /// Sends until nothing has gone through for `quiet`: every buffer on the way is
    /// full. Returns how much went.
    #[track_caller]
    pub(crate) fn send_until_stuck(&mut self, quiet: Duration) -> u64 {
        let before = self.sent();
        self.stream.set_write_timeout(Some(quiet)).unwrap();
        // Twice in a row: a machine that was away for a while lets any wait run out.
        let mut silences = 0;
        while silences < 2 {
            match self.stream.write(self.outgoing.upcoming(CHUNK as u64)) {
                Ok(n) => {
                    self.outgoing.advance(n as u64);
                    silences = 0;
                }
                Err(error) if is_timeout(&error) => silences += 1,
                Err(error) => panic!("cannot send: {error}"),
            }
        }
        self.stream.set_write_timeout(Some(PATIENCE)).unwrap();
        self.sent() - before
    }

    /// Receives exactly the next `len` bytes of the pattern.
    #[track_caller]
    pub(crate) fn expect(&mut self, len: u64) {
        let end = self.received() + len;
        while self.received() < end {
            match self.receive_some(end - self.received()) {
                Ok(0) => panic!("the end after {} of {end} bytes", self.received()),
                Ok(_) => {}
                Err(error) => panic!("{error} after {} of {end} bytes", self.received()),
            }
        }
    }

    /// Receives to the end, whatever comes; how it ended, and when it did not end in
    /// time, `None`.
    #[track_caller]
    pub(crate) fn receive_until_end_within(&mut self, patience: Duration) -> Option<End> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.set_patience(left.max(Duration::from_millis(1)));
            let received = self.receive_some(CHUNK as u64);
            self.set_patience(PATIENCE);
            match received {
                Ok(0) => return Some(End::Eof),
                Ok(_) => {}
                Err(error) if is_timeout(&error) => {
                    if Instant::now() >= deadline {
                        return None;
                    }
                }
                Err(error) => return Some(end_of(&error)),
            }
        }
    }

    /// Receives to the end; panics when there is none.
    #[track_caller]
    pub(crate) fn receive_until_end(&mut self) -> End {
        match self.receive_until_end_within(PATIENCE) {
            Some(end) => end,
            None => panic!(
                "no end within {PATIENCE:?}, after {} bytes",
                self.received()
            ),
        }
    }

    /// Receives exactly `len` bytes more, then the end in good order.
    #[track_caller]
    pub(crate) fn expect_then_eof(&mut self, len: u64) {
        self.expect(len);
        let (received, end) = (self.received(), self.receive_until_end());
        assert_eq!(end, End::Eof);
        assert_eq!(self.received(), received, "more than was sent");
    }

    /// One read; checks what came.
    #[track_caller]
    pub(crate) fn receive_some(&mut self, max: u64) -> std::io::Result<usize> {
        let max = max.min(CHUNK as u64) as usize;
        BUFFER.with_borrow_mut(|buffer| {
            let n = loop {
                match self.stream.read(&mut buffer[..max]) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    result => break result?,
                }
            };
            self.incoming.check(&buffer[..n]);
            Ok(n)
        })
    }

    /// Whether an end, an error or a byte can be read within `patience`.
    pub(crate) fn is_readable_within(&self, patience: Duration) -> bool {
        self.set_patience(patience);
        let looked = self.stream.peek(&mut [0]);
        self.set_patience(PATIENCE);
        !matches!(looked, Err(error) if is_timeout(&error))
    }

    fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }

    /// Ends its direction; goes on receiving.
    #[track_caller]
    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes in good order (unless bytes are unread: then the kernel resets).
    pub(crate) fn close(self) {
        drop(self);
    }

    /// Closes by a reset.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// Waits until the other kernel has acknowledged all that was sent.
    #[track_caller]
    pub(crate) fn wait_until_acknowledged(&self) {
        super::wait_until("everything is acknowledged", PATIENCE, || {
            self.unacknowledged() == 0
        });
    }

    /// Bytes sent that the other kernel has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> u32 {
        thalweg::net::tcp_info::unsent(self.stream.as_fd()).unwrap()
    }
}

/// The client, unless the forwarder has reset it before its own connect returned.
#[track_caller]
pub(crate) fn unless_reset(connected: std::io::Result<Peer>) -> Option<Peer> {
    match connected {
        Ok(client) => Some(client),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("cannot connect: {error}"),
    }
}

/// Sends `len` bytes from one peer to the other, both at work at the same time.
#[track_caller]
pub(crate) fn transfer(from: &mut Peer, to: &mut Peer, len: u64) {
    let name = std::thread::current().name().map(str::to_owned);
    std::thread::scope(|scope| {
        let sender = std::thread::Builder::new().name(name.unwrap_or_default());
        let sender = sender.spawn_scoped(scope, || from.send(len)).unwrap();
        to.expect(len);
        sender.join().unwrap();
    });
}

fn wait_readable(socket: &impl AsFd, patience: Duration) {
    // At least a millisecond, so that a rest below one does not spin.
    let timeout = PollTimeout::try_from(patience.max(Duration::from_millis(1))).unwrap();
    let _ = poll(
        &mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)],
        timeout,
    );
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
        && error.raw_os_error() != Some(libc::ETIMEDOUT)
}

#[track_caller]
fn end_of(error: &std::io::Error) -> End {
    match error.raw_os_error() {
        Some(libc::ECONNRESET | libc::EPIPE) => End::Reset,
        Some(libc::ETIMEDOUT | libc::EHOSTUNREACH) => End::TimedOut,
        _ => panic!("an unexpected error: {error}"),
    }
}

/// A server's listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// On a free port of 127.0.0.1.
    pub(crate) fn new() -> Self {
        Self::on(IpAddr::from(Ipv4Addr::LOCALHOST))
    }

    /// On a free port of `ip`.
    pub(crate) fn on(ip: IpAddr) -> Self {
        Self::with(SocketAddr::new(ip, 0), 1024, None)
    }

    /// Whose connections have so small a receive buffer.
    pub(crate) fn small(receive_buffer: usize) -> Self {
        let address = SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), 0);
        Self::with(address, 1024, Some(receive_buffer))
    }

    /// On which the kernel keeps a single connection until it is accepted.
    pub(crate) fn without_backlog() -> Self {
        let address = SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), 0);
        Self::with(address, 0, None)
    }

    pub(crate) fn with(address: SocketAddr, backlog: i32, receive_buffer: Option<usize>) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size).unwrap();
        }
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(backlog).unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = TcpListener::from(socket);
        let address = socket.local_addr().unwrap();
        Self { socket, address }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection.
    #[track_caller]
    pub(crate) fn accept(&self) -> Peer {
        match self.accept_within(PATIENCE) {
            Some(peer) => peer,
            None => panic!("nobody connected within {PATIENCE:?}"),
        }
    }

    /// The next connection, if one comes in time.
    #[track_caller]
    pub(crate) fn accept_within(&self, patience: Duration) -> Option<Peer> {
        let deadline = Instant::now() + patience;
        loop {
            match self.socket.accept() {
                Ok((stream, _)) => return Some(Peer::server(stream)),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) if is_timeout(&error) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    wait_readable(&self.socket, left);
                }
                Err(error) => panic!("cannot accept: {error}"),
            }
        }
    }
}

impl Listener {
    /// Connects until the kernel takes no more connections for a server that accepts
    /// none: from then on, while the result lives, it answers no SYN.
    #[track_caller]
    pub(crate) fn fill_accept_queue(&self) -> Vec<TcpStream> {
        let patience = Duration::from_millis(200);
        let connect = || TcpStream::connect_timeout(&self.address, patience);
        let fillers: Vec<_> = std::iter::from_fn(|| connect().ok()).take(100).collect();
        assert!(fillers.len() < 100, "the accept queue has no end");
        fillers
    }
}

/// A port of 127.0.0.1 on which nobody listens. Kept from everybody else while the
/// value lives: it is bound and does not listen. A [`Listener`] may be put there for
/// a while ([`Listener::with`]).
#[derive(Debug)]
pub(crate) struct Refusing {
    _socket: Socket,
    address: SocketAddr,
}

impl Refusing {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), 0);
        socket.set_reuse_address(true).unwrap();
        socket.bind(&any.into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self {
            _socket: socket,
            address,
        }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}
