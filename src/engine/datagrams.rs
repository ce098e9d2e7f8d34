//! Datagrams: what an engine does with them, and how both real engines do it.
//!
//! ```text
//!            receive                       post                   flush
//!  socket ────────────► trains in slots ────────► posts in order ───────► sockets
//!                        (who, how many, how long)                        │ outcomes
//! ```
//! Bytes stay in the slots that they were read into until they are flushed; whoever decides
//! sees trains: a datagram, or several of the same size that came as one. Posts of one flow
//! that stand next to each other leave as one again where the kernel takes that
//! (`UDP_SEGMENT`); where it does not, singly, and nothing is lost for it.
//!
//! Readiness is edge-triggered. A socket that was not read empty is read again without an
//! event; whoever receives remembers that.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};

use super::common::Listener;
use super::key::DatagramKey;
use super::slab::Slab;
use super::{Engine, Target};
use crate::net::address::Endpoint;
use crate::net::datagram::batch::{self, Batch, Message, Piece, SEGMENTS_MAX, SLOTS, Train};
use crate::net::datagram::{self, Call, LocalAddress, Lost, PAYLOAD_MAX};
use crate::net::listener;
use crate::net::options::Family;
use crate::relay::ending::Cause;

/// What an engine does with datagrams. See the module's documentation.
///
/// # Contract
/// 1. A train is whole, or said to be cut; trains of a socket come in order.
/// 2. What is posted is flushed in order for each socket, or has an outcome that says why
///    not. Nothing is sent twice.
/// 3. An error that the kernel has for an earlier datagram costs no later one.
/// 4. [`Event::Datagrams`](super::Event::Datagrams) may be spurious, and may come after the
///    socket was closed.
pub trait Datagrams: Engine {
    /// Takes the datagrams of a listener from now on.
    fn open_port(&mut self, listener: Self::Listener) -> io::Result<DatagramKey>;

    /// Takes them no more, and gives the listener back.
    fn close_port(&mut self, key: DatagramKey) -> Option<Self::Listener>;

    /// Tells of it no more; datagrams can still be sent by it.
    fn mute_port(&mut self, key: DatagramKey);

    /// A socket for the datagrams of one flow, connected to its server.
    fn call(&mut self, target: Target<'_>, never_fragment: bool) -> Result<DatagramKey, Cause>;

    /// Closes a socket of a flow.
    fn hang_up(&mut self, key: DatagramKey);

    /// Looks after a flow's socket no more, and gives it back.
    fn let_go(&mut self, key: DatagramKey) -> Option<Self::Call>;

    /// Looks after a flow's socket that was let go, here or in another process. What waits
    /// in it need not raise an event.
    fn take_up(&mut self, call: Self::Call) -> io::Result<DatagramKey>;

    /// Trains that can be received before what was received must be flushed.
    fn room(&self) -> usize;

    /// Receives from a socket, no more trains than that.
    fn receive(&mut self, key: DatagramKey, most: usize) -> Received;

    /// Throws away what has come to a socket and was not received; how many that were.
    fn discard(&mut self, key: DatagramKey) -> u32;

    /// A train that was received.
    fn train(&self, index: usize) -> &Train;

    /// Its bytes.
    fn payload(&self, index: usize) -> &[u8];

    /// Has a train sent with the next flush.
    fn post(&mut self, post: Post);

    /// Sends a datagram at once, before all posts.
    fn send_at_once(&mut self, key: DatagramKey, datagram: &[u8]) -> Result<(), Lost>;

    /// Sends all posts; appends what came of them. Trains that were received stay.
    fn send_posts(&mut self, outcomes: &mut Vec<Outcome>);

    /// Forgets the trains that were received: the next ones take their place. Nothing is posted.
    fn forget_trains(&mut self);

    /// Datagrams that a socket has lost so far, because its receive queue was full. Costs a
    /// system call.
    fn queue_drops(&self, key: DatagramKey) -> u32;
}

/// What came of [`Datagrams::receive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// The first train, and how many.
    pub first: usize,
    /// See `first`.
    pub count: usize,
    /// There may be more: it is to be called again without an event.
    pub more: bool,
    /// What ICMP said of datagrams sent before: that nobody listens, or no way there.
    pub refusals: u32,
}

/// A train that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Post {
    /// From which socket.
    pub socket: DatagramKey,
    /// Which train.
    pub train: u16,
    /// Whose it is: that of the outcome. Posts of a socket with the same tag have the same
    /// receiver.
    pub tag: u32,
    /// To whom, and from which local address; `None`: a connected socket knows.
    pub to: Option<(SocketAddr, Option<LocalAddress>)>,
    /// It may leave as one with its neighbours.
    pub joined: bool,
    /// Bytes at its beginning that are left out, and how many follow: whole datagrams.
    pub skip: u32,
    /// See `skip`.
    pub len: u32,
}

/// What came of posts that left together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// See [`Post::tag`].
    pub tag: u32,
    /// The first train of them.
    pub train: u16,
    /// Datagrams that were sent, and their bytes.
    pub sent: u32,
    /// See `sent`.
    pub bytes: u64,
    /// Why others were not, and how many.
    pub lost: Option<(Lost, u32)>,
    /// They had to be sent singly: what is posted for the same receiver is not to be joined.
    pub singly: bool,
}

/// Datagram sockets of a real engine.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    slots: Slab<Socket, DatagramKey>,
    /// Made with the first socket: a megabyte of addresses that nobody else needs.
    batch: Option<Box<Batch>>,
    filled: usize,
    posts: Vec<Post>,
    messages: Vec<Message>,
    pieces: Vec<Piece>,
    /// Whose each message is: a post, by its place.
    senders: Vec<u16>,
}

#[derive(Debug)]
struct Socket {
    of: Of,
    is_v6: bool,
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
    pub(super) fn add_port(&mut self, listener: Listener) -> io::Result<DatagramKey> {
        let is_v6 = listener.family == Family::V6;
        self.add(Socket {
            of: Of::Port(Box::new(listener)),
            is_v6,
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

    pub(super) fn remove_port(&mut self, key: DatagramKey) -> Option<Listener> {
        match self.slots.remove(key)?.of {
            Of::Port(listener) => Some(*listener),
            Of::Flow(_) => None,
        }
    }

    /// A socket that is connected to its server, not yet waited for.
    pub(super) fn call(
        &mut self,
        target: Target<'_>,
        never_fragment: bool,
        may_meet_itself: bool,
    ) -> Result<DatagramKey, Cause> {
        let Endpoint::Inet(server) = target.endpoint else {
            return Err(Cause::Unreachable);
        };
        let call = Call {
            server: *server,
            options: target.options,
            local: target.local,
            never_fragment,
        };
        let fd = datagram::connect(&call)?;
        if may_meet_itself && datagram::is_self_connect(fd.as_fd()) {
            return Err(Cause::SelfConnect);
        }
        let socket = Socket {
            of: Of::Flow(fd),
            is_v6: server.is_ipv6(),
            has_errors: false,
            takes_trains: false,
        };
        self.add(socket).map_err(|_| Cause::NoMemory)
    }

    pub(super) fn remove(&mut self, key: DatagramKey) {
        self.slots.remove(key);
    }

    /// The socket of a flow, not waited for any more.
    pub(super) fn let_go(&mut self, key: DatagramKey) -> Option<OwnedFd> {
        match self.slots.remove(key)?.of {
            Of::Flow(fd) => Some(fd),
            Of::Port(_) => None,
        }
    }

    /// One that was let go, not yet waited for.
    pub(super) fn take_up(&mut self, fd: OwnedFd) -> io::Result<DatagramKey> {
        let is_v6 = datagram::is_v6(fd.as_fd());
        self.add(Socket {
            of: Of::Flow(fd),
            is_v6,
            has_errors: true,
            takes_trains: false,
        })
    }

    pub(super) fn fd(&self, key: DatagramKey) -> Option<BorrowedFd<'_>> {
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

    pub(super) const fn room(&self) -> usize {
        SLOTS - self.filled
    }

    pub(super) fn receive(&mut self, key: DatagramKey, most: usize) -> Received {
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
        // An error that ICMP has left is told once; behind it are datagrams.
        for _ in 0..4 {
            match batch.receive(socket.fd(), self.filled, most, of_clients) {
                Ok(count) => {
                    received.count = count;
                    received.more = count == most;
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
        self.filled += received.count;
        received
    }

    pub(super) fn discard(&self, key: DatagramKey) -> u32 {
        self.fd(key).map_or(0, datagram::discard_all)
    }

    pub(super) fn train(&self, index: usize) -> &Train {
        self.batch().train(index)
    }

    pub(super) fn payload(&self, index: usize) -> &[u8] {
        self.batch().payload(index)
    }

    fn batch(&self) -> &Batch {
        let batch = self.batch.as_deref();
        batch.expect("trains come from sockets, and the first of these made the batch")
    }

    pub(super) fn post(&mut self, post: Post) {
        self.posts.push(post);
    }

    /// An error that the kernel has for an earlier datagram costs this one nothing.
    pub(super) fn send_at_once(&self, key: DatagramKey, payload: &[u8]) -> Result<(), Lost> {
        let fd = self.fd(key).ok_or(Lost::Failed)?;
        let mut again = false;
        loop {
            match send(fd.as_raw_fd(), payload, MsgFlags::MSG_DONTWAIT) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) if datagram::may_be_pending(errno) && !again => again = true,
                Err(errno) => return Err(Lost::of(errno)),
            }
        }
    }

    pub(super) fn queue_drops(&self, key: DatagramKey) -> u32 {
        let fd = self.fd(key);
        fd.and_then(|fd| listener::drops(fd).ok()).unwrap_or(0)
    }

    pub(super) fn forget_trains(&mut self) {
        debug_assert!(self.posts.is_empty(), "what is posted is gone");
        self.filled = 0;
    }

    pub(super) fn send_posts(&mut self, outcomes: &mut Vec<Outcome>) {
        let mut posts = std::mem::take(&mut self.posts);
        // Those of one receiver next to each other, in their order.
        let order = |post: &Post| (post.socket, post.tag, post.train, post.skip);
        if !posts.is_sorted_by_key(order) {
            posts.sort_unstable_by_key(order);
        }
        let mut rest = posts.as_slice();
        while let Some(first) = rest.first() {
            let same = |post: &&Post| post.socket == first.socket;
            let (these, others) = rest.split_at(rest.iter().take_while(same).count());
            self.send(these, outcomes);
            rest = others;
        }
        posts.clear();
        self.posts = posts;
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
