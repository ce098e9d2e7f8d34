//! The sessions of a soak: what one thread does with its forward, one step after
//! the other, several sessions open at the same time.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::duplex::{Chance, Pair, Seen, Who};
use crate::kit::{KIB, Listener, MIB, PATIENCE, poll};

/// Sessions that a driver keeps open while it makes others.
const OPEN_MAX: usize = 8;

/// Each of these happens once in so many sessions: they take long.
const BULK_ONE_IN: u64 = 400;
const SLOW_ONE_IN: u64 = 400;

/// Bytes by which a client tells its server which session it is.
const TAG: usize = 8;

/// What the peers of all sessions saw, in sum. Up is from client to server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) connections: u64,
    pub(crate) sent_up: u64,
    pub(crate) received_up: u64,
    pub(crate) sent_down: u64,
    pub(crate) received_down: u64,
    /// Both ends saw the other's end in good order.
    pub(crate) ended_well: u64,
    /// An end was reset although the other had not ended: no good order possible.
    pub(crate) resets: u64,
}

impl Tally {
    pub(crate) const fn plus(&self, other: &Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            sent_up: self.sent_up + other.sent_up,
            received_up: self.received_up + other.received_up,
            sent_down: self.sent_down + other.sent_down,
            received_down: self.received_down + other.received_down,
            ended_well: self.ended_well + other.ended_well,
            resets: self.resets + other.resets,
        }
    }
}

/// How a session ends.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// Each in good order, this one first.
    First(Who),
    /// In good order, at the same moment.
    Together,
    /// This one half-closes and then receives so many bytes.
    HalfClose(Who, u64),
    /// This one resets, while nothing moves.
    Reset(Who),
    /// This one resets while the other sends.
    ResetMidway(Who),
    /// This one closes without having read what has arrived, which resets.
    Unread(Who),
}

impl Ending {
    fn of(chance: &mut Chance) -> Self {
        let who = chance.side();
        match chance.below(8) {
            0..=2 => Self::First(who),
            3 => Self::Together,
            4 => Self::HalfClose(who, chance.size(64 * KIB)),
            5 => Self::Reset(who),
            6 => Self::ResetMidway(who),
            _ => Self::Unread(who),
        }
    }
}

/// A session whose ending is still to come.
#[derive(Debug)]
struct Open {
    pair: Pair,
    ending: Ending,
}

/// Makes sessions through one forward.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) server: Listener,
    pub(crate) forwarder: SocketAddr,
    made: u64,
    tally: Tally,
}

impl Driver {
    /// With a server on a free port of `ip`.
    pub(crate) fn new(ip: IpAddr) -> Self {
        let server = Listener::on(ip);
        Self {
            forwarder: server.address(),
            server,
            made: 0,
            tally: Tally::default(),
        }
    }

    /// Makes `count` sessions and sees them to their ends.
    pub(crate) fn drive(&mut self, count: u64, mut chance: Chance) -> Tally {
        self.tally = Tally::default();
        let mut open: Vec<Open> = Vec::new();
        for _ in 0..count {
            match chance.below(40) {
                0 => self.end_at_once(),
                1 => self.reset_at_once(),
                _ => {
                    let mut pair = self.connect();
                    converse(&mut pair, &mut chance);
                    let ending = Ending::of(&mut chance);
                    open.push(Open { pair, ending });
                }
            }
            if open.len() >= OPEN_MAX {
                let index = chance.below(open.len() as u64) as usize;
                self.end(open.swap_remove(index));
            }
        }
        for session in open {
            self.end(session);
        }
        while self.server.accept_within(Duration::ZERO).is_some() {}
        self.tally
    }

    fn client(&mut self) -> TcpStream {
        self.tally.connections += 1;
        self.made += 1;
        TcpStream::connect_timeout(&self.forwarder, PATIENCE).expect("cannot connect")
    }

    fn connect(&mut self) -> Pair {
        let mut client = self.client();
        let tag = self.made.to_le_bytes();
        client.set_nodelay(true).unwrap();
        client.write_all(&tag).expect("cannot send");
        // Connections whose clients were gone at once may come first.
        let server = poll(PATIENCE, || {
            let peer = self.server.accept_within(PATIENCE)?;
            let mut found = [0; TAG];
            let complete = peer.stream().read_exact_into(&mut found);
            (complete && found == tag).then(|| peer.stream().try_clone().unwrap())
        });
        let server = server.expect("the server is not connected");
        for bytes in [&mut self.tally.sent_up, &mut self.tally.received_up] {
            *bytes += TAG as u64;
        }
        Pair::new(client, server, self.made)
    }

    /// A client that has nothing to say.
    fn end_at_once(&mut self) {
        let client = self.client();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        client.set_nonblocking(true).unwrap();
        let end = poll(PATIENCE, || {
            // Whoever comes now is its server, or that of a client that is gone.
            drop(self.server.accept_within(Duration::from_millis(1)));
            (&client).read(&mut [0]).ok()
        });
        assert_eq!(end, Some(0), "no end in good order");
        self.tally.ended_well += 1;
    }

    fn reset_at_once(&mut self) {
        let client = self.client();
        let socket = socket2::SockRef::from(&client);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        self.tally.resets += 1;
    }

    fn end(&mut self, session: Open) {
        let Open { mut pair, ending } = session;
        match ending {
            Ending::First(who) => {
                pair.leg(who).half_close();
                assert_eq!(pair.read_to_end(who.other()), Seen::Eof);
                self.last_end(pair, who);
            }
            Ending::Together => {
                for who in Who::BOTH {
                    pair.leg(who).half_close();
                }
                for who in Who::BOTH {
                    assert_eq!(pair.read_to_end(who), Seen::Eof);
                }
                self.count(&mut pair);
                self.tally.ended_well += 1;
            }
            Ending::HalfClose(who, len) => {
                pair.leg(who).half_close();
                assert_eq!(pair.read_to_end(who.other()), Seen::Eof);
                pair.leg(who.other()).to_send = len;
                self.last_end_after(pair, who, len);
            }
            Ending::Reset(who) => {
                self.count(&mut pair);
                pair.take(who).reset();
                assert_eq!(pair.read_to_end(who.other()), Seen::Reset);
                self.tally.resets += 1;
            }
            Ending::ResetMidway(who) => {
                pair.leg(who.other()).to_send = MIB;
                pair.leg(who).to_read = 100 * KIB;
                // Until its buffers are full, or who is to read has read.
                let _ = pair.try_run(Duration::from_millis(1));
                self.cut(pair, who, crate::duplex::Leg::reset);
            }
            Ending::Unread(who) => {
                pair.leg(who.other()).to_send = 1_000;
                pair.run();
                let arrived = poll(PATIENCE, || (pair.leg(who).arrived() > 0).then_some(()));
                assert!(arrived.is_some(), "nothing arrives");
                self.cut(pair, who, drop);
            }
        }
    }

    /// The end that did not end first ends now; nothing follows.
    fn last_end(&mut self, pair: Pair, first: Who) {
        self.last_end_after(pair, first, 0);
    }

    fn last_end_after(&mut self, mut pair: Pair, first: Who, len: u64) {
        let received = pair.leg(first).received();
        pair.leg(first).to_read = len;
        pair.run();
        pair.leg(first.other()).half_close();
        assert_eq!(pair.read_to_end(first), Seen::Eof);
        assert_eq!(pair.leg(first).received(), received + len);
        self.count(&mut pair);
        self.tally.ended_well += 1;
    }

    /// One end goes in this way while bytes are under way to it.
    fn cut(&mut self, mut pair: Pair, who: Who, how: impl FnOnce(crate::duplex::Leg)) {
        let leg = pair.take(who);
        let (sent, received) = (leg.sent(), leg.received());
        how(leg);
        pair.read_to_end(who.other());
        let other = pair.leg(who.other());
        let (up, down) = match who {
            Who::Client => ((sent, other.received()), (other.sent(), received)),
            Who::Server => ((other.sent(), received), (sent, other.received())),
        };
        self.add(up, down);
        self.tally.resets += 1;
    }

    fn count(&mut self, pair: &mut Pair) {
        let client = pair.leg(Who::Client);
        let (sent_up, received_down) = (client.sent(), client.received());
        let server = pair.leg(Who::Server);
        let (sent_down, received_up) = (server.sent(), server.received());
        self.add((sent_up, received_up), (sent_down, received_down));
    }

    /// Bytes sent and received, up and down.
    fn add(&mut self, up: (u64, u64), down: (u64, u64)) {
        self.tally.sent_up += up.0;
        self.tally.received_up += up.1;
        self.tally.sent_down += down.0;
        self.tally.received_down += down.1;
    }
}

/// What is said before the end.
fn converse(pair: &mut Pair, chance: &mut Chance) {
    if chance.one_in(BULK_ONE_IN) {
        let (there, back) = (chance.size(16 * MIB), chance.size(4 * MIB));
        return pair.exchange(chance.side(), there, back);
    }
    if chance.one_in(SLOW_ONE_IN) {
        return read_slowly(pair, chance.side());
    }
    match chance.below(3) {
        0 => {}
        1 => {
            for _ in 0..chance.below(8) {
                pair.transfer(Who::Client, chance.size(512));
                pair.transfer(Who::Server, chance.size(512));
            }
        }
        _ => pair.exchange(Who::Client, chance.size(16 * KIB), chance.size(128 * KIB)),
    }
}

/// `who` does not read until no more can be sent, and then a little at a time.
fn read_slowly(pair: &mut Pair, who: Who) {
    const LEN: u64 = 2 * MIB;
    pair.leg(who.other()).to_send = LEN;
    let _ = pair.try_run(Duration::from_millis(20));
    let mut left = LEN;
    while left > 0 {
        let piece = left.min(64 * KIB);
        pair.leg(who).to_read = piece;
        let _ = pair.try_run(Duration::from_millis(1));
        left -= piece - pair.leg(who).to_read;
    }
    pair.run();
}

/// Reading exactly so many bytes, or not.
trait ReadExactInto {
    fn read_exact_into(self, buffer: &mut [u8]) -> bool;
}

impl ReadExactInto for &TcpStream {
    fn read_exact_into(mut self, buffer: &mut [u8]) -> bool {
        self.read_exact(buffer).is_ok()
    }
}
