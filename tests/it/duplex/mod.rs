//! Both ends of one connection in the hands of one thread: whatever is to be sent
//! goes one way while bytes come the other way, so no script can block itself.
//! Every byte is checked where it arrives. And chance, from a seed.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;
use thalweg::balance::Random;

use crate::kit::PATIENCE;
use crate::kit::pattern::{CHUNK, Pattern};

/// The client, or the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Client,
    Server,
}

impl Who {
    pub(crate) const BOTH: [Self; 2] = [Self::Client, Self::Server];

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// How an end sees that the other has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// In good order.
    Eof,
    /// ECONNRESET, or EPIPE: what the kernel calls a reset behind an end.
    Reset,
}

/// One end. Its socket does not block.
#[derive(Debug)]
pub(crate) struct Leg {
    stream: TcpStream,
    outgoing: Pattern,
    incoming: Pattern,
    /// Bytes that are to be sent, of those not sent yet.
    pub(crate) to_send: u64,
    /// Bytes that it will read and no more until it is told.
    pub(crate) to_read: u64,
    /// What it has seen of the other's end.
    pub(crate) seen: Option<Seen>,
    /// Sending failed: the other is gone.
    pub(crate) refused: bool,
    pub(crate) ended: bool,
}

impl Leg {
    fn new(stream: TcpStream, outgoing: u64, incoming: u64) -> Self {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            outgoing: Pattern::new(outgoing),
            incoming: Pattern::new(incoming),
            to_send: 0,
            to_read: 0,
            seen: None,
            refused: false,
            ended: false,
        }
    }

    pub(crate) const fn sent(&self) -> u64 {
        self.outgoing.position()
    }

    pub(crate) const fn received(&self) -> u64 {
        self.incoming.position()
    }

    /// Ends its direction.
    pub(crate) fn half_close(&mut self) {
        // ENOTCONN: the other has reset it meanwhile.
        let _ = self.stream.shutdown(Shutdown::Write);
        self.ended = true;
    }

    /// Closes by a reset.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// Bytes sent that the other kernel has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> u32 {
        thalweg::net::tcp_info::unsent(self.stream.as_fd()).unwrap_or(0)
    }

    /// Bytes that lie in its receive queue.
    pub(crate) fn arrived(&self) -> u64 {
        BUFFER.with_borrow_mut(|buffer| self.stream.peek(buffer).map_or(0, |n| n as u64))
    }

    fn wants_to_send(&self) -> bool {
        self.to_send > 0 && !self.refused
    }

    fn wants_to_read(&self) -> bool {
        self.to_read > 0 && self.seen.is_none()
    }

    /// Sends what it can of what it is to send; whether anything moved.
    fn send(&mut self) -> bool {
        if !self.wants_to_send() {
            return false;
        }
        match self.stream.write(self.outgoing.upcoming(self.to_send)) {
            Ok(n) => {
                self.outgoing.advance(n as u64);
                self.to_send -= n as u64;
                true
            }
            Err(error) if is_not_now(&error) => false,
            Err(error) => {
                assert!(is_gone(&error), "an unexpected error of a send: {error}");
                self.refused = true;
                true
            }
        }
    }

    /// Reads what there is of what it is to read; whether anything moved.
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        if !self.wants_to_read() {
            return false;
        }
        let max = self.to_read.min(buffer.len() as u64) as usize;
        match self.stream.read(&mut buffer[..max]) {
            Ok(0) => self.seen = Some(Seen::Eof),
            Ok(n) => {
                self.incoming.check(&buffer[..n]);
                // Until the end: it stays as large as it is.
                if self.to_read != u64::MAX {
                    self.to_read -= n as u64;
                }
            }
            Err(error) if is_not_now(&error) => return false,
            Err(error) => {
                assert!(is_gone(&error), "an unexpected error of a read: {error}");
                self.seen = Some(Seen::Reset);
            }
        }
        true
    }

    fn poll_flags(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        if self.wants_to_read() {
            flags |= PollFlags::POLLIN;
        }
        if self.wants_to_send() {
            flags |= PollFlags::POLLOUT;
        }
        flags
    }
}

fn is_not_now(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn is_gone(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

/// A client and its server. An end that was closed or reset is `None`.
#[derive(Debug)]
pub(crate) struct Pair {
    client: Option<Leg>,
    server: Option<Leg>,
}

thread_local! {
    /// One for each thread: there are many pairs.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

impl Pair {
    /// Their payload is that of connection number `n`, which no other has.
    pub(crate) fn new(client: TcpStream, server: TcpStream, n: u64) -> Self {
        let (up, down) = (2 * n + 1, 2 * n + 2);
        Self {
            client: Some(Leg::new(client, up, down)),
            server: Some(Leg::new(server, down, up)),
        }
    }

    /// A client whose server sends back what it gets.
    pub(crate) fn echoed(client: TcpStream, n: u64) -> Self {
        let seed = 2 * n + 1;
        Self {
            client: Some(Leg::new(client, seed, seed)),
            server: None,
        }
    }

    /// An end that has not been closed.
    #[track_caller]
    pub(crate) fn leg(&mut self, who: Who) -> &mut Leg {
        self.slot(who).as_mut().expect("this end is closed")
    }

    fn slot(&mut self, who: Who) -> &mut Option<Leg> {
        match who {
            Who::Client => &mut self.client,
            Who::Server => &mut self.server,
        }
    }

    /// Takes an end away, to be closed one way or the other.
    #[track_caller]
    pub(crate) fn take(&mut self, who: Who) -> Leg {
        self.slot(who).take().expect("this end is closed")
    }

    fn legs(&mut self) -> impl Iterator<Item = &mut Leg> {
        self.client.iter_mut().chain(self.server.iter_mut())
    }

    /// Moves bytes until both ends have sent and read what they are to, or have
    /// learnt that the other is gone. `None` when that takes too long.
    pub(crate) fn try_run(&mut self, patience: Duration) -> Option<()> {
        let deadline = Instant::now() + patience;
        loop {
            let moved = BUFFER.with_borrow_mut(|buffer| {
                let mut moved = false;
                for leg in self.legs() {
                    moved |= leg.send();
                    moved |= leg.read(buffer);
                }
                moved
            });
            if !self.legs().any(|leg| !leg.poll_flags().is_empty()) {
                return Some(());
            }
            if !moved {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return None;
                }
                self.wait(left);
            }
        }
    }

    /// As [`Pair::try_run`]; too long is a failure.
    #[track_caller]
    pub(crate) fn run(&mut self) {
        let done = self.try_run(PATIENCE);
        assert!(done.is_some(), "stuck for {PATIENCE:?}: {self:?}");
    }

    fn wait(&mut self, patience: Duration) {
        let legs = self.client.iter().chain(self.server.iter());
        let legs = legs.filter(|leg| !leg.poll_flags().is_empty());
        let mut ready: Vec<_> = legs
            .map(|leg| PollFd::new(leg.stream.as_fd(), leg.poll_flags()))
            .collect();
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut ready, patience);
    }

    /// Sends so many bytes from `who`, all of which the other reads.
    #[track_caller]
    pub(crate) fn transfer(&mut self, who: Who, len: u64) {
        self.exchange(who, len, 0);
    }

    /// As [`Pair::transfer`], and so many the other way at the same time.
    #[track_caller]
    pub(crate) fn exchange(&mut self, who: Who, len: u64, back: u64) {
        self.leg(who).to_send = len;
        self.leg(who.other()).to_send = back;
        self.leg(who).to_read = back;
        self.leg(who.other()).to_read = len;
        self.run();
        let complete = |leg: &Leg| leg.to_send == 0 && leg.to_read == 0 && leg.seen.is_none();
        assert!(self.legs().all(|leg| complete(leg)), "cut short: {self:?}");
    }

    /// `who` reads until it has seen the other's end.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self, who: Who) -> Seen {
        let leg = self.leg(who);
        leg.to_read = u64::MAX;
        self.run();
        let leg = self.leg(who);
        leg.to_read = 0;
        leg.seen.expect("it read to the end")
    }

    /// `who` sends a byte now and then until it learns that nobody takes them.
    #[track_caller]
    pub(crate) fn send_until_refused(&mut self, who: Who) {
        let gone = crate::kit::poll(PATIENCE, || {
            let leg = self.leg(who);
            leg.to_send = 1;
            leg.send();
            leg.refused.then_some(())
        });
        assert!(gone.is_some(), "it may send for ever: {self:?}");
    }
}

/// Chance, the same on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Chance(Random);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0.draw()
    }

    /// Below `bound`, which is positive.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// One time in `n`.
    pub(crate) const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// 1 to `max`, small numbers as likely as large ones.
    pub(crate) fn size(&mut self, max: u64) -> u64 {
        let bits = 64 - u64::from(max.leading_zeros() as u8);
        let magnitude = 1_u64 << self.below(bits.max(1));
        (magnitude + self.below(magnitude)).min(max)
    }

    pub(crate) fn side(&mut self) -> Who {
        Who::BOTH[self.below(2) as usize]
    }
}
