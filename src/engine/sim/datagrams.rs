//! Datagrams of the simulator: clients that send, servers that answer, late, twice or not at
//! all, or say that nobody listens; queues that overflow and sends that fail.
//!
//! Every datagram carries where it came from, so what reaches a client is held against what
//! that client asked: an answer that is another's, or that leaves from another address than
//! was asked, is a panic, and so is one that comes more often than a server sent it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Listener, Sim};
use crate::engine::datagrams::{Datagrams, Outcome, Post, Received};
use crate::engine::slab::Slab;
use crate::engine::{DatagramKey, Event, Target};
use crate::net::address::Endpoint;
use crate::net::datagram::batch::{SLOTS, Train};
use crate::net::datagram::{LocalAddress, Lost};
use crate::relay::ending::Cause;
use crate::relay::time::Time;

/// Datagrams that a socket's receive queue holds.
const QUEUE_MAX: usize = 64;

/// What a client sent, on its way and in the answers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Letter {
    /// Its own number; that of an answer is the question's.
    pub number: u64,
    /// Who asked.
    pub client: SocketAddr,
    /// At which address.
    pub local: Option<LocalAddress>,
    /// At which listener, by index.
    pub listener: usize,
    /// Bytes of each datagram, and how many are joined to a train.
    pub len: u16,
    /// See `len`.
    pub datagrams: u32,
}

/// What servers do with what they get, in percent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manners {
    /// Questions that are answered.
    pub answers: u64,
    /// Of these, answered twice.
    pub twice: u64,
    /// Questions to which ICMP says that nobody listens.
    pub refuses: u64,
    /// Datagrams that vanish on their way, in either direction.
    pub loses: u64,
    /// Sends that fail.
    pub fails: u64,
    /// How late an answer is, at the most.
    pub late: Duration,
}

/// What came of it all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PostTally {
    /// Datagrams that clients sent.
    pub asked: u64,
    /// Of these, lost in a full queue of a listener.
    pub overflown: u64,
    /// Datagrams that vanished, in either direction.
    pub lost: u64,
    /// Datagrams that reached servers.
    pub reached: u64,
    /// Datagrams that servers sent and that a socket took.
    pub answered: u64,
    /// Datagrams that reached clients.
    pub returned: u64,
    /// Sends that failed.
    pub failed: u64,
}

#[derive(Debug)]
enum Socket {
    Port {
        listener: Listener,
        queue: VecDeque<Letter>,
        drops: u32,
        muted: bool,
    },
    Flow {
        server: Endpoint,
        queue: VecDeque<Letter>,
        refusals: u32,
        /// Which clients were heard by it: one, for life.
        client: Option<(SocketAddr, Option<LocalAddress>, usize)>,
    },
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Mail {
    sockets: Slab<Socket, DatagramKey>,
    received: Vec<(Train, Letter, Vec<u8>)>,
    /// Everything that clients have said, by its number.
    said: BTreeMap<u64, Letter>,
    /// The numbers of those that reached a server.
    arrived: BTreeSet<u64>,
    posts: Vec<Post>,
    /// Answers on their way, by when they arrive.
    travelling: BTreeMap<(Time, u64), (DatagramKey, Letter)>,
    sequence: u64,
    pub(super) manners: Manners,
    pub(super) tally: PostTally,
}

impl Mail {
    /// When the next answer arrives.
    pub(super) fn due(&self) -> Time {
        let first = self.travelling.keys().next();
        first.map_or(Time::NEVER, |(at, _)| *at)
    }
}

impl Sim {
    /// Servers of datagrams behave like this from now on.
    pub const fn set_manners(&mut self, manners: Manners) {
        self.mail.manners = manners;
    }

    /// What came of all datagrams so far.
    pub const fn post_tally(&self) -> PostTally {
        self.mail.tally
    }

    /// Whether a letter has reached a server.
    pub fn has_arrived(&self, number: u64) -> bool {
        self.mail.arrived.contains(&number)
    }

    /// Datagrams that wait in receive queues.
    pub fn unread_datagrams(&self) -> u64 {
        let keys = self.mail.sockets.keys();
        let queues = keys.filter_map(|key| match self.mail.sockets.get(key)? {
            Socket::Port { queue, .. } | Socket::Flow { queue, .. } => Some(queue),
        });
        queues.flatten().map(|it| u64::from(it.datagrams)).sum()
    }

    /// Datagram sockets that are open.
    pub fn datagram_sockets(&self) -> usize {
        self.mail.sockets.len()
    }

    /// A client sends to a listener.
    pub fn client_asks(&mut self, letter: Letter) {
        self.mail.tally.asked += u64::from(letter.datagrams);
        self.mail.said.insert(letter.number, letter);
        let keys: Vec<DatagramKey> = self.mail.sockets.keys().collect();
        for key in keys {
            if let Some(Socket::Port {
                listener,
                queue,
                drops,
                muted: false,
            }) = self.mail.sockets.get_mut(key)
                && listener.index() == letter.listener
            {
                if queue.len() < QUEUE_MAX {
                    queue.push_back(letter);
                } else {
                    *drops += letter.datagrams;
                    self.mail.tally.overflown += u64::from(letter.datagrams);
                }
                return self.queue.push(Event::Datagrams(key));
            }
        }
        self.mail.tally.overflown += u64::from(letter.datagrams);
    }

    /// Answers whose time has come.
    pub(super) fn deliver_answers(&mut self) {
        while let Some(entry) = self.mail.travelling.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            let (key, letter) = entry.remove();
            if let Some(Socket::Flow { queue, .. }) = self.mail.sockets.get_mut(key) {
                self.mail.tally.answered += u64::from(letter.datagrams);
                queue.push_back(letter);
                self.queue.push(Event::Datagrams(key));
            }
        }
    }

    /// A letter has reached its server.
    fn reached(&mut self, key: DatagramKey, letter: Letter) {
        let manners = self.mail.manners;
        if self.dice.percent(manners.loses) {
            self.mail.tally.lost += u64::from(letter.datagrams);
            return;
        }
        self.mail.tally.reached += u64::from(letter.datagrams);
        self.mail.arrived.insert(letter.number);
        if self.dice.percent(manners.refuses) {
            if let Some(Socket::Flow { refusals, .. }) = self.mail.sockets.get_mut(key) {
                *refusals += 1;
                self.queue.push(Event::Datagrams(key));
            }
            return;
        }
        if !self.dice.percent(manners.answers) {
            return;
        }
        let times = 1 + u32::from(self.dice.percent(manners.twice));
        for _ in 0..times {
            if self.dice.percent(manners.loses) {
                self.mail.tally.lost += u64::from(letter.datagrams);
                continue;
            }
            let late = self.dice.between(0, manners.late.as_micros() as u64);
            let at = self.now + Duration::from_micros(late);
            self.mail.sequence += 1;
            let place = (at, self.mail.sequence);
            self.mail.travelling.insert(place, (key, letter));
        }
    }

    /// What a post carries: so many datagrams of a letter.
    fn carried(post: &Post, train: &Train, letter: Letter) -> Letter {
        let datagrams = match u32::from(train.segment) {
            0 => 1,
            segment => post.len.div_ceil(segment),
        };
        Letter {
            datagrams,
            ..letter
        }
    }

    fn send(&mut self, post: &Post, train: &Train, letter: Letter) -> Outcome {
        let carried = Self::carried(post, train, letter);
        let mut outcome = Outcome {
            tag: post.tag,
            train: post.train,
            sent: 0,
            bytes: 0,
            lost: None,
            singly: false,
        };
        if self.dice.percent(self.mail.manners.fails) {
            let why = [Lost::SendQueue, Lost::NoBuffers, Lost::TooBig];
            let why = why[self.dice.between(0, 2) as usize];
            self.mail.tally.failed += u64::from(carried.datagrams);
            outcome.lost = Some((why, carried.datagrams));
            return outcome;
        }
        outcome.sent = carried.datagrams;
        outcome.bytes = u64::from(post.len);
        match self.mail.sockets.get_mut(post.socket) {
            Some(Socket::Flow { client, server, .. }) => {
                let who = (letter.client, letter.local, letter.listener);
                let first = *client.get_or_insert(who);
                assert_eq!(first, who, "two flows share a socket to {server}");
                assert_eq!(post.to, None, "a connected socket knows its server");
                self.reached(post.socket, carried);
            }
            Some(Socket::Port { listener, .. }) => {
                let (to, from) = post.to.expect("an answer of a port has a receiver");
                assert_eq!(to, letter.client, "an answer reached another client");
                assert_eq!(from, letter.local, "an answer left from another address");
                assert_eq!(
                    listener.index(),
                    letter.listener,
                    "an answer left by another listener"
                );
                self.mail.tally.returned += u64::from(carried.datagrams);
            }
            None => panic!("posted to a socket that is closed"),
        }
        outcome
    }
}

/// Zeroes; the last eight bytes of each datagram are the letter's number.
fn bytes_of(letter: Letter) -> Vec<u8> {
    let mut one = vec![0; usize::from(letter.len)];
    if let Some(end) = one.last_chunk_mut() {
        *end = letter.number.to_be_bytes();
    }
    one.repeat(letter.datagrams as usize)
}

fn train_of(letter: Letter, of_client: bool) -> Train {
    Train {
        from: letter.client,
        to: if of_client { letter.local } else { None },
        len: u32::from(letter.len) * letter.datagrams,
        segment: if letter.datagrams > 1 { letter.len } else { 0 },
        is_cut: false,
    }
}

impl Datagrams for Sim {
    fn open_port(&mut self, listener: Listener) -> io::Result<DatagramKey> {
        let port = Socket::Port {
            listener,
            queue: VecDeque::new(),
            drops: 0,
            muted: false,
        };
        let key = self.mail.sockets.insert(port);
        key.ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn close_port(&mut self, key: DatagramKey) -> Option<Listener> {
        match self.mail.sockets.remove(key)? {
            Socket::Port { listener, .. } => Some(listener),
            Socket::Flow { .. } => panic!("a flow's socket is no port"),
        }
    }

    fn mute_port(&mut self, key: DatagramKey) {
        if let Some(Socket::Port { muted, .. }) = self.mail.sockets.get_mut(key) {
            *muted = true;
        }
    }

    fn call(&mut self, target: Target<'_>, _: bool) -> Result<DatagramKey, Cause> {
        if self.dice.percent(self.mail.manners.fails) {
            let causes = [Cause::PortsExhausted, Cause::Unreachable];
            return Err(causes[self.dice.between(0, 1) as usize]);
        }
        let flow = Socket::Flow {
            server: target.endpoint.clone(),
            queue: VecDeque::new(),
            refusals: 0,
            client: None,
        };
        self.mail.sockets.insert(flow).ok_or(Cause::NoMemory)
    }

    fn hang_up(&mut self, key: DatagramKey) {
        let closed = self.mail.sockets.remove(key);
        assert!(closed.is_some(), "a socket is closed twice");
    }

    fn let_go(&mut self, key: DatagramKey) -> Option<DatagramKey> {
        match self.mail.sockets.get(key)? {
            Socket::Flow { .. } => Some(key),
            Socket::Port { .. } => panic!("a port is no flow's socket"),
        }
    }

    fn take_up(&mut self, call: DatagramKey) -> io::Result<DatagramKey> {
        Ok(call)
    }

    fn room(&self) -> usize {
        SLOTS - self.mail.received.len()
    }

    fn receive(&mut self, key: DatagramKey, most: usize) -> Received {
        let first = self.mail.received.len();
        let most = most.min(SLOTS - first);
        let mut received = Received {
            first,
            ..Received::default()
        };
        let Some(socket) = self.mail.sockets.get_mut(key) else {
            return received;
        };
        let (queue, of_client) = match socket {
            Socket::Port { queue, .. } => (queue, true),
            Socket::Flow {
                queue, refusals, ..
            } => {
                received.refusals = std::mem::take(refusals);
                (queue, false)
            }
        };
        while received.count < most
            && let Some(letter) = queue.pop_front()
        {
            let train = train_of(letter, of_client);
            self.mail.received.push((train, letter, bytes_of(letter)));
            received.count += 1;
        }
        received.more = received.count == most;
        received
    }

    fn call_anew(&mut self, key: DatagramKey, target: Target<'_>) -> Result<u32, Cause> {
        if self.dice.percent(self.mail.manners.fails) {
            return Err(Cause::PortsExhausted);
        }
        let Some(Socket::Flow {
            server,
            queue,
            client,
            ..
        }) = self.mail.sockets.get_mut(key)
        else {
            panic!("what is called anew is a flow's socket");
        };
        assert_eq!(server, target.endpoint, "it leads elsewhere");
        // Whoever has it next is somebody else.
        *client = None;
        let thrown_away = queue.drain(..).map(|it| it.datagrams).sum();
        // What is under way to the port that it had finds nobody.
        let travelling = std::mem::take(&mut self.mail.travelling);
        let (gone, rest): (BTreeMap<_, _>, BTreeMap<_, _>) =
            travelling.into_iter().partition(|(_, (to, _))| *to == key);
        self.mail.travelling = rest;
        let gone = gone.values().map(|(_, letter)| u64::from(letter.datagrams));
        self.mail.tally.lost += gone.sum::<u64>();
        Ok(thrown_away)
    }

    fn train(&self, index: usize) -> &Train {
        &self.mail.received[index].0
    }

    fn payload(&self, index: usize) -> &[u8] {
        &self.mail.received[index].2
    }

    fn send_at_once(&mut self, key: DatagramKey, datagram: &[u8]) -> Result<(), Lost> {
        // Whatever stands before it.
        let number = datagram.last_chunk().map(|it| u64::from_be_bytes(*it));
        let letter = number.and_then(|it| self.mail.said.get(&it)).copied();
        let letter = letter.expect("what is sent at once is what a client said");
        let post = Post {
            socket: key,
            train: 0,
            tag: 0,
            to: None,
            joined: false,
            skip: 0,
            len: u32::from(letter.len),
        };
        let one = Letter {
            datagrams: 1,
            ..letter
        };
        let outcome = self.send(&post, &train_of(one, true), one);
        outcome.lost.map_or(Ok(()), |(why, _)| Err(why))
    }

    fn post(&mut self, post: Post) {
        self.mail.posts.push(post);
    }

    fn send_posts(&mut self, outcomes: &mut Vec<Outcome>) {
        for post in std::mem::take(&mut self.mail.posts) {
            let (train, letter, _) = &self.mail.received[usize::from(post.train)];
            let (train, letter) = (*train, *letter);
            let outcome = self.send(&post, &train, letter);
            outcomes.push(outcome);
        }
    }

    fn forget_trains(&mut self) {
        assert!(self.mail.posts.is_empty(), "what is posted is gone");
        self.mail.received.clear();
    }

    fn queue_drops(&self, key: DatagramKey) -> u32 {
        match self.mail.sockets.get(key) {
            Some(Socket::Port { drops, .. }) => *drops,
            Some(Socket::Flow { .. }) | None => 0,
        }
    }
}
