//! Datagram sockets of the real engines, which differ only in what tells them that one is
//! ready.
//!
//! Both are told by an epoll instance. The socket of a listener is watched edge-triggered and
//! read in batches. That of a flow is watched level-triggered: most have one datagram at a time,
//! which one `recv(2)` takes, and neither a second call nor the rest of a batch has to find out
//! that there is no other. Against a batch of four that saves a third of a microsecond for each
//! datagram, a tenth of what receiving it takes (Linux 6.18, loopback). One that has several at
//! a time is read in batches, too: whoever asks says how many.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::common::Listener;
use super::datagrams::{Datagrams, Outcome, Post, Received};
use super::key::DatagramKey;
use super::slab::Slab;
use super::{Engine, Target};
use crate::net::address::Endpoint;
use crate::net::datagram::batch::{self, Batch, Message, Piece, SEGMENTS_MAX, SLOTS, Train};
use crate::net::datagram::{self, Call, Connected, Lost, PAYLOAD_MAX};
use crate::net::errno::{Failure, Operation, Resource};
use crate::net::listener;
use crate::net::options::Family;
use crate::relay::ending::Cause;

/// An engine that has [`Sockets`], and an epoll instance to watch them with: all that
/// [`Datagrams`] needs of it.
pub trait WithSockets: Engine<Listener = Listener, Call = OwnedFd> {
    /// Its sockets.
    fn sockets(&self) -> &Sockets;

    /// Likewise, to be changed.
    fn sockets_mut(&mut self) -> &mut Sockets;

    /// Tells of a listener's socket as often as something comes.
    fn watch_port(&self, key: DatagramKey, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// Tells of a flow's socket for as long as something is in it.
    fn watch_flow(&self, key: DatagramKey, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// Tells of a socket no more.
    fn unwatch(&self, fd: BorrowedFd<'_>);

    /// Local ports that the kernel draws from, if that of a server is one of them: a socket that is
    /// connected there may become its own peer.
    fn suspect_ports(&self, endpoint: &Endpoint) -> Option<RangeInclusive<u16>>;
}

impl<E: WithSockets> Datagrams for E {
    fn open_port(&mut self, listener: Listener) -> io::Result<DatagramKey> {
        let key = self.sockets_mut().add_port(listener)?;
        let fd = self.sockets().fd(key);
        if let Err(error) = fd.map_or(Ok(()), |fd| self.watch_port(key, fd)) {
            self.sockets_mut().remove_port(key);
            return Err(error);
        }
        Ok(key)
    }

    fn close_port(&mut self, key: DatagramKey) -> Option<Listener> {
        self.mute_port(key);
        self.sockets_mut().remove_port(key)
    }

    fn mute_port(&mut self, key: DatagramKey) {
        if let Some(fd) = self.sockets().fd(key) {
            // Others may hold the socket, which would leave it registered.
            self.unwatch(fd);
        }
    }

    fn call(&mut self, target: Target<'_>, never_fragment: bool) -> Result<DatagramKey, Cause> {
        let suspect = self.suspect_ports(target.endpoint);
        let key = self
            .sockets_mut()
            .call(target, never_fragment, suspect.as_ref())?;
        let fd = self.sockets().fd(key);
        if let Err(error) = fd.map_or(Ok(()), |fd| self.watch_flow(key, fd)) {
            self.sockets_mut().remove(key);
            return Err(Failure::of_io(Operation::Open, &error).into());
        }
        Ok(key)
    }

    fn call_anew(&mut self, key: DatagramKey, target: Target<'_>) -> Result<u32, Cause> {
        self.sockets_mut().call_anew(key, target)
    }

    fn hang_up(&mut self, key: DatagramKey) {
        self.sockets_mut().remove(key);
    }

    fn let_go(&mut self, key: DatagramKey) -> Option<OwnedFd> {
        // Another process may have it soon, which would leave it registered.
        self.mute_port(key);
        self.sockets_mut().let_go(key)
    }

    fn take_up(&mut self, call: OwnedFd) -> io::Result<DatagramKey> {
        let key = self.sockets_mut().take_up(call)?;
        let fd = self.sockets().fd(key);
        let watched = fd.map_or(Ok(()), |fd| self.watch_flow(key, fd));
        watched.inspect_err(|_| self.sockets_mut().remove(key))?;
        Ok(key)
    }

    fn room(&self) -> usize {
        SLOTS - self.sockets().filled
    }

    fn receive(&mut self, key: DatagramKey, most: usize) -> Received {
        self.sockets_mut().receive(key, most)
    }

    fn train(&self, index: usize) -> &Train {
        self.sockets().batch().train(index)
    }

    fn payload(&self, index: usize) -> &[u8] {
        self.sockets().batch().payload(index)
    }

    fn send_at_once(&mut self, key: DatagramKey, datagram: &[u8]) -> Result<(), Lost> {
        self.sockets().send_at_once(key, datagram)
    }

    fn post(&mut self, post: Post) {
        self.sockets_mut().posts.push(post);
    }

    fn send_posts(&mut self, outcomes: &mut Vec<Outcome>) {
        self.sockets_mut().send_posts(outcomes);
    }

    fn forget_trains(&mut self) {
        let sockets = self.sockets_mut();
        debug_assert!(sockets.posts.is_empty(), "what is posted is gone");
        sockets.filled = 0;
    }

    fn queue_drops(&self, key: DatagramKey) -> u32 {
        let fd = self.sockets().fd(key);
        fd.and_then(|fd| listener::drops(fd).ok()).unwrap_or(0)
    }
}

/// Datagram sockets of a real engine.
#[derive(Debug, Default)]
pub struct Sockets {
    slots: Slab<Socket, DatagramKey>,
    /// Made with the first socket: a megabyte of addresses that nobody else needs.
    batch: Option<Box<Batch>>,
    filled: usize,
    posts: Vec<Post>,
    messages: Vec<Message>,
    pieces: Vec<Piece>,
    /// Whose each message is: a post, by its place.
    senders: Vec<u16>,
    /// Something may be left in a socket of a flow, which its epoll instance tells whoever
    /// asks it, and nobody who waits for news of it. Who waits for news takes this.
    pub(super) unsure: bool,
    /// Sockets that were made to servers whose port is one of those that the kernel draws from.
    beside: u32,
}

#[derive(Debug)]
struct Socket {
    of: Of,
    is_v6: bool,
    /// It may become its own peer when it is connected.
    is_suspect: bool,
    /// See [`datagram::keep_source`].
    keeps_source: bool,
    /// Something waits in its queue of errors.
    has_errors: bool,
    /// Trains come in one piece.
    takes_trains: bool,
}

#[derive(Debug)]
enum Of {
    /// That of a listener.
    Port(Box<Listener>),
    /// A flow's own.
    Flow(OwnedFd),
}

impl Socket {
    fn fd(&self) -> BorrowedFd<'_> {
        match &self.of {
            Of::Port(listener) => listener.fd.as_fd(),
            Of::Flow(fd) => fd.as_fd(),
        }
    }
}

/// So many trains from one flow at once are worth the option that has them come joined.
const TRAINS_WORTH_JOINING: usize = 8;

impl Sockets {
    fn add_port(&mut self, listener: Listener) -> io::Result<DatagramKey> {
        let is_v6 = listener.family == Family::V6;
        self.add(Socket {
            of: Of::Port(Box::new(listener)),
            is_v6,
            is_suspect: false,
            keeps_source: false,
            has_errors: true,
            takes_trains: true,
        })
    }

    fn add(&mut self, socket: Socket) -> io::Result<DatagramKey> {
        if self.batch.is_none() {
            self.batch = Some(Box::default());
        }
        let key = self.slots.insert(socket);
        key.ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn remove_port(&mut self, key: DatagramKey) -> Option<Listener> {
        match self.slots.remove(key)?.of {
            Of::Port(listener) => Some(*listener),
            Of::Flow(_) => None,
        }
    }

    /// A socket that is connected to its server, not yet waited for.
    fn call(
        &mut self,
        target: Target<'_>,
        never_fragment: bool,
        suspect: Option<&RangeInclusive<u16>>,
    ) -> Result<DatagramKey, Cause> {
        let Endpoint::Inet(server) = target.endpoint else {
            return Err(Cause::Unreachable);
        };
        let ports = suspect.and_then(|all| {
            self.beside = self.beside.wrapping_add(1);
            datagram::ports_beside(server.port(), all, self.beside)
        });
        let mut call = Call {
            server: *server,
            options: target.options,
            local: target.local,
            never_fragment,
            ports,
        };
        let connected = match datagram::connect(&call) {
            // On that side of the server's port none is left; on the other one may be.
            Err(Failure::Exhausted(Resource::Ports)) if ports.is_some() => {
                call.ports = None;
                datagram::connect(&call)
            }
            connected => connected,
        };
        let Connected { fd, has_ports } = connected?;
        let is_suspect = suspect.is_some() && !has_ports;
        if is_suspect && datagram::is_self_connect(fd.as_fd(), server.port()) {
            return Err(Cause::SelfConnect);
        }
        let socket = Socket {
            of: Of::Flow(fd),
            is_v6: server.is_ipv6(),
            is_suspect,
            keeps_source: false,
            has_errors: false,
            takes_trains: false,
        };
        self.add(socket).map_err(|_| Cause::NoMemory)
    }

    /// One that was connected, to the same server from another port.
    fn call_anew(&mut self, key: DatagramKey, target: Target<'_>) -> Result<u32, Cause> {
        let socket = self.slots.get_mut(key);
        let (Some(socket), Endpoint::Inet(server)) = (socket, target.endpoint) else {
            return Err(Cause::Unreachable);
        };
        if !std::mem::replace(&mut socket.keeps_source, true) {
            datagram::keep_source(socket.fd())?;
        }
        let thrown_away = datagram::connect_anew(socket.fd(), server)?;
        if socket.is_suspect && datagram::is_self_connect(socket.fd(), server.port()) {
            return Err(Cause::SelfConnect);
        }
        Ok(thrown_away)
    }

    fn remove(&mut self, key: DatagramKey) {
        self.slots.remove(key);
    }

    /// The socket of a flow, not waited for any more.
    fn let_go(&mut self, key: DatagramKey) -> Option<OwnedFd> {
        match self.slots.remove(key)?.of {
            Of::Flow(fd) => Some(fd),
            Of::Port(_) => None,
        }
    }

    /// One that was let go, not yet waited for.
    fn take_up(&mut self, fd: OwnedFd) -> io::Result<DatagramKey> {
        let is_v6 = datagram::is_v6(fd.as_fd());
        // Maybe they come joined already: whoever had it knows.
        datagram::take_trains(fd.as_fd());
        self.add(Socket {
            of: Of::Flow(fd),
            is_v6,
            is_suspect: true,
            keeps_source: false,
            has_errors: true,
            takes_trains: true,
        })
    }

    fn fd(&self, key: DatagramKey) -> Option<BorrowedFd<'_>> {
        self.slots.get(key).map(Socket::fd)
    }

    /// The kernel has something to say of it; whether the socket is there.
    pub(super) fn is_ready(&mut self, key: DatagramKey, failed: bool) -> bool {
        let socket = self.slots.get_mut(key);
        let is_there = socket.is_some();
        if let Some(socket) = socket {
            socket.has_errors |= failed;
        }
        is_there
    }

    fn receive(&mut self, key: DatagramKey, most: usize) -> Received {
        let mut received = Received {
            first: self.filled,
            ..Received::default()
        };
        let (Some(socket), Some(batch)) = (self.slots.get_mut(key), &mut self.batch) else {
            return received;
        };
        if std::mem::take(&mut socket.has_errors) {
            received.refusals = batch::take_errors(socket.fd());
        }
        let of_clients = matches!(socket.of, Of::Port(_));
        let most = most.min(SLOTS - self.filled);
        // Of a train one has to know more than its bytes.
        let is_single = most == 1 && !of_clients && !socket.takes_trains;
        // An error that ICMP has left is told once; behind it are datagrams.
        for _ in 0..4 {
            let came = if is_single {
                batch.receive_single(socket.fd(), self.filled)
            } else {
                batch.receive(socket.fd(), self.filled, most, of_clients)
            };
            match came {
                Ok(count) => {
                    received.count = count;
                    received.more = count == most && !is_single;
                    break;
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => received.more = true,
                Err(_) => {
                    received.more = true;
                    received.refusals += batch::take_errors(socket.fd());
                }
            }
        }
        if received.count >= TRAINS_WORTH_JOINING && !socket.takes_trains {
            socket.takes_trains = true;
            datagram::take_trains(socket.fd());
        }
        self.unsure |= is_single && received.count > 0;
        self.filled += received.count;
        received
    }

    fn batch(&self) -> &Batch {
        let batch = self.batch.as_deref();
        batch.expect("trains come from sockets, and the first of these made the batch")
    }

    fn send_at_once(&self, key: DatagramKey, payload: &[u8]) -> Result<(), Lost> {
        datagram::send_at_once(self.fd(key).ok_or(Lost::Failed)?, payload)
    }

    fn send_posts(&mut self, outcomes: &mut Vec<Outcome>) {
        let mut posts = std::mem::take(&mut self.posts);
        // Those of one receiver next to each other, in their order: numbers that are compared at once.
        let order = |post: &Post| {
            let socket = u64::from(post.socket.slot) << 32 | u64::from(post.socket.generation);
            let train = u64::from(post.tag) << 16 | u64::from(post.train);
            (socket, train, post.skip)
        };
        if !posts.is_sorted_by_key(order) {
            posts.sort_unstable_by_key(order);
        }
        let mut rest = posts.as_slice();
        while let Some(first) = rest.first() {
            let same = |post: &&Post| post.socket == first.socket;
            let (these, others) = rest.split_at(rest.iter().take_while(same).count());
            match these {
                [post] if post.to.is_none() => self.send_single(post, outcomes),
                these => self.send(these, outcomes),
            }
            rest = others;
        }
        posts.clear();
        self.posts = posts;
    }

    /// Sends the only post of a flow's socket: a question, mostly, for which no batch is laid out.
    fn send_single(&mut self, post: &Post, outcomes: &mut Vec<Outcome>) {
        let (Some(socket), Some(batch)) = (self.slots.get(post.socket), &self.batch) else {
            return;
        };
        let train = batch.train(usize::from(post.train));
        if segment(post, train) != 0 {
            return self.send(std::slice::from_ref(post), outcomes);
        }
        let (start, len) = (post.skip as usize, post.len as usize);
        let payload = &batch.payload(usize::from(post.train))[start..start + len];
        let sent = datagram::send_at_once(socket.fd(), payload);
        outcomes.push(Outcome {
            tag: post.tag,
            train: post.train,
            sent: u32::from(sent.is_ok()),
            bytes: sent.map_or(0, |()| u64::from(post.len)),
            lost: sent.err().map(|why| (why, 1)),
            singly: false,
        });
    }

    /// Sends the posts of one socket.
    fn send(&mut self, posts: &[Post], outcomes: &mut Vec<Outcome>) {
        let Some(key) = posts.first().map(|post| post.socket) else {
            return;
        };
        let (Some(socket), Some(batch)) = (self.slots.get(key), &mut self.batch) else {
            return;
        };
        self.messages.clear();
        self.pieces.clear();
        self.senders.clear();
        for (at, post) in posts.iter().enumerate() {
            let train = *batch.train(usize::from(post.train));
            let joined = at > 0
                && self.senders.last().is_some_and(|sender| {
                    let earlier = &posts[usize::from(*sender)];
                    earlier.tag == post.tag && post.joined && earlier.joined
                })
                && self
                    .messages
                    .last_mut()
                    .is_some_and(|message| join(message, &mut self.pieces, post, &train));
            if !joined {
                self.senders.push(at as u16);
                self.messages.push(begin(&mut self.pieces, post, &train));
            }
        }
        let sender = Sender {
            batch,
            fd: socket.fd(),
            is_v6: socket.is_v6,
        };
        sender.send_all(&self.messages, &self.pieces, |message, outcome| {
            let post = &posts[usize::from(self.senders[message])];
            outcomes.push(Outcome {
                tag: post.tag,
                train: post.train,
                ..outcome
            });
        });
    }
}

/// A message for one train, or what of it is posted.
fn begin(pieces: &mut Vec<Piece>, post: &Post, train: &Train) -> Message {
    let first = pieces.len() as u16;
    pieces.push(piece(post));
    Message {
        pieces: (first, 1),
        to: post.to,
        segment: segment(post, train),
    }
}

const fn piece(post: &Post) -> Piece {
    Piece {
        slot: post.train,
        start: post.skip,
        len: post.len,
    }
}

/// Bytes of each datagram of what is posted; 0: it is one.
const fn segment(post: &Post, train: &Train) -> u16 {
    if post.len > train.segment as u32 {
        train.segment
    } else {
        0
    }
}

/// Puts a train behind those of a message, if all of it then is one train.
fn join(message: &mut Message, pieces: &mut Vec<Piece>, post: &Post, train: &Train) -> bool {
    let (first, count) = (usize::from(message.pieces.0), usize::from(message.pieces.1));
    let len: u32 = pieces[first..first + count].iter().map(|it| it.len).sum();
    let more = post.len;
    // Of a message with one datagram so far, that one says how long each is.
    let segment = match message.segment {
        0 => len,
        segment => u32::from(segment),
    };
    let its_segment = match self::segment(post, train) {
        0 => more,
        segment => u32::from(segment),
    };
    let fits = segment > 0
        && more > 0
        && u16::try_from(segment).is_ok()
        // Only the last may be shorter.
        && len.is_multiple_of(segment)
        && (its_segment == segment || (its_segment == more && more < segment))
        && (len + more) as usize <= PAYLOAD_MAX
        && (len + more).div_ceil(segment) as usize <= SEGMENTS_MAX;
    if fits {
        message.segment = segment as u16;
        message.pieces.1 += 1;
        pieces.push(piece(post));
    }
    fits
}

/// What messages go out by.
struct Sender<'a> {
    batch: &'a mut Batch,
    fd: BorrowedFd<'a>,
    is_v6: bool,
}

impl Sender<'_> {
    /// Sends messages in order, each as one or singly, and tells what came of each.
    fn send_all(
        mut self,
        messages: &[Message],
        pieces: &[Piece],
        mut told: impl FnMut(usize, Outcome),
    ) {
        let mut at = 0;
        let mut again = false;
        while at < messages.len() {
            match self
                .batch
                .send(self.fd, self.is_v6, &messages[at..], pieces)
            {
                Ok(sent) => {
                    let sent = sent.max(1);
                    for (message, of) in (at..).zip(&messages[at..at + sent]) {
                        told(message, all_sent(of, pieces));
                    }
                    at += sent;
                    again = false;
                }
                Err(Errno::EINTR) => {}
                // What was said of an earlier datagram is told once, in the place of this one.
                Err(errno) if datagram::may_be_pending(errno) && !again => again = true,
                Err(errno) => {
                    told(at, self.singly(&messages[at], pieces, errno));
                    at += 1;
                    again = false;
                }
            }
        }
    }

    /// Several datagrams were refused as one: they go one by one.
    fn singly(&mut self, message: &Message, pieces: &[Piece], errno: Errno) -> Outcome {
        let (first, count) = (usize::from(message.pieces.0), usize::from(message.pieces.1));
        let pieces = &pieces[first..first + count];
        let mut outcome = NOTHING;
        let total: u32 = pieces.iter().map(|it| it.len).sum();
        let segment = u32::from(message.segment);
        if segment == 0 || !datagram::may_pass_singly(errno) {
            let datagrams = if segment == 0 {
                1
            } else {
                total.div_ceil(segment)
            };
            outcome.lost = Some((Lost::of(errno), datagrams));
            return outcome;
        }
        outcome.singly = true;
        for piece in pieces {
            let end = piece.start + piece.len;
            let mut start = piece.start;
            while start < end {
                let single = Piece {
                    slot: piece.slot,
                    start,
                    len: segment.min(end - start),
                };
                start += single.len;
                match self.one(single, message) {
                    Ok(()) => {
                        outcome.sent += 1;
                        outcome.bytes += u64::from(single.len);
                    }
                    Err(errno) => {
                        let lost = outcome.lost.get_or_insert((Lost::of(errno), 0));
                        lost.1 += 1;
                    }
                }
            }
        }
        outcome
    }

    fn one(&mut self, piece: Piece, message: &Message) -> Result<(), Errno> {
        let single = Message {
            pieces: (0, 1),
            segment: 0,
            ..*message
        };
        let mut again = false;
        loop {
            match self.batch.send(self.fd, self.is_v6, &[single], &[piece]) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) if datagram::may_be_pending(errno) && !again => again = true,
                Err(errno) => return Err(errno),
            }
        }
    }
}

const NOTHING: Outcome = Outcome {
    tag: 0,
    train: 0,
    sent: 0,
    bytes: 0,
    lost: None,
    singly: false,
};

fn all_sent(message: &Message, pieces: &[Piece]) -> Outcome {
    let (first, count) = (usize::from(message.pieces.0), usize::from(message.pieces.1));
    let bytes: u64 = pieces[first..first + count]
        .iter()
        .map(|it| u64::from(it.len))
        .sum();
    let sent = match u64::from(message.segment) {
        0 => 1,
        segment => bytes.div_ceil(segment) as u32,
    };
    Outcome {
        sent,
        bytes,
        ..NOTHING
    }
}
