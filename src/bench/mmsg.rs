//! Datagrams of a measurement in batches, with segments in one piece where that is asked for: the
//! forwarder's own [`Batch`], as either end of a measurement uses it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use nix::errno::Errno;

use super::datagram::HEADER;
use crate::net::datagram::batch::{Batch, Message, Piece, SLOT, SLOTS};
use crate::net::datagram::is_v6;

/// What has arrived.
pub(super) struct Arrivals {
    batch: Batch,
    /// Of the socket that is answered by, once one was.
    is_v6: Option<bool>,
}

/// One of them.
pub(super) struct Arrival<'a> {
    /// Whole, or several in one piece.
    pub(super) bytes: &'a [u8],
    /// Bytes of each but the last, which may be shorter.
    pub(super) segment: usize,
    /// It was longer than there was room for.
    pub(super) cut: bool,
    /// Who sent it.
    pub(super) from: SocketAddr,
}

impl<'a> Arrival<'a> {
    /// Each datagram of it.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        // An empty one is a datagram, too.
        let empty = self.bytes.is_empty().then_some(&self.bytes[..0]);
        empty
            .into_iter()
            .chain(self.bytes.chunks(self.segment.max(1)))
    }
}

impl Arrivals {
    pub(super) fn new() -> Self {
        Self {
            batch: Batch::new(),
            is_v6: None,
        }
    }

    /// Takes what is there without waiting, and says how many; 0: nothing.
    pub(super) fn receive(&mut self, socket: &impl AsFd) -> io::Result<usize> {
        loop {
            match self.batch.receive(socket.as_fd(), 0, SLOTS, true) {
                Ok(count) => return Ok(count),
                Err(Errno::EAGAIN) => return Ok(0),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// One of those that came last.
    pub(super) fn get(&self, index: usize) -> Arrival<'_> {
        let train = self.batch.train(index);
        let bytes = self.batch.payload(index);
        Arrival {
            bytes,
            segment: match usize::from(train.segment) {
                0 => bytes.len(),
                segment => segment,
            },
            cut: train.is_cut,
            from: train.from,
        }
    }

    /// Sends some of those that came last back to where they came from, each in one piece. What the
    /// kernel does not take is lost, as on a path. Says how many it took.
    pub(super) fn send_back(&mut self, socket: &impl AsFd, which: &[usize]) -> usize {
        let fd = socket.as_fd();
        let is_v6 = *self.is_v6.get_or_insert_with(|| is_v6(fd));
        let (mut messages, mut pieces) = (Vec::new(), Vec::new());
        for (at, index) in which.iter().enumerate() {
            let train = self.batch.train(*index);
            messages.push(Message {
                pieces: (at as u16, 1),
                to: Some((train.from, None)),
                // As one, whatever it was.
                segment: 0,
            });
            pieces.push(Piece {
                slot: *index as u16,
                start: 0,
                len: train.len,
            });
        }
        let (mut at, mut taken) = (0, 0);
        while at < messages.len() {
            match self.batch.send(fd, is_v6, &messages[at..], &pieces) {
                Ok(sent) => {
                    at += sent.max(1);
                    taken += sent;
                }
                Err(Errno::EINTR) => {}
                // That one is left out.
                Err(_) => at += 1,
            }
        }
        taken
    }
}

/// Datagrams that are sent one behind the other.
pub(super) struct Departures {
    batch: Batch,
    size: usize,
    train: usize,
    count: usize,
    /// Trains that lie in one slot.
    in_slot: usize,
    messages: Vec<Message>,
    pieces: Vec<Piece>,
    /// Of the socket that is sent by, where that is not connected.
    is_v6: Option<bool>,
}

impl Departures {
    /// `count` datagrams at a time of `size` bytes, `train` of them in one piece.
    pub(super) fn new(count: usize, size: usize, train: usize) -> Self {
        let train = train.max(1);
        Self {
            batch: Batch::new(),
            size,
            train,
            count,
            in_slot: (SLOT / (size * train).max(1)).max(1),
            messages: Vec::new(),
            pieces: Vec::new(),
            is_v6: None,
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Where the one at a place lies: in which slot, and where in it.
    fn place(&self, index: usize) -> (usize, usize) {
        let (train, within) = (index / self.train, index % self.train);
        let (slot, before) = (train / self.in_slot, train % self.in_slot);
        (slot, (before * self.train + within) * self.size)
    }

    /// The one at a place, to be written.
    pub(super) fn datagram(&mut self, index: usize) -> &mut [u8] {
        let (slot, start) = self.place(index);
        &mut self.batch.slot_mut(slot)[start..][..self.size]
    }

    /// The front of it.
    pub(super) fn front(&mut self, index: usize) -> Option<&mut [u8; HEADER]> {
        self.datagram(index).first_chunk_mut()
    }

    /// Sends the first `count` of them, to whom the socket is connected or to `to`, and says how many the
    /// kernel took.
    pub(super) fn send(
        &mut self,
        socket: &impl AsFd,
        to: Option<SocketAddr>,
        count: usize,
    ) -> io::Result<usize> {
        let fd = socket.as_fd();
        let is_v6 = to.is_some() && *self.is_v6.get_or_insert_with(|| is_v6(fd));
        self.messages.clear();
        self.pieces.clear();
        for at in (0..count).step_by(self.train) {
            let here = self.train.min(count - at);
            let (slot, start) = self.place(at);
            self.messages.push(Message {
                pieces: (self.pieces.len() as u16, 1),
                to: to.map(|to| (to, None)),
                segment: if here > 1 { self.size as u16 } else { 0 },
            });
            self.pieces.push(Piece {
                slot: slot as u16,
                start: start as u32,
                len: (here * self.size) as u32,
            });
        }
        loop {
            match self.batch.send(fd, is_v6, &self.messages, &self.pieces) {
                Ok(sent) => return Ok((sent * self.train).min(count)),
                Err(Errno::EAGAIN) => return Ok(0),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        let there = UdpSocket::bind("127.0.0.1:0").unwrap();
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        here.connect(there.local_addr().unwrap()).unwrap();
        (here, there)
    }

    #[test]
    fn a_train_arrives_in_one_piece_or_in_many_and_goes_back_again() {
        for train in [1, 4] {
            let (here, there) = pair();
            if train > 1 {
                setsockopt(&there, sockopt::UdpGroSegment, &true).unwrap();
            }
            let mut out = Departures::new(6, 100, train);
            for index in 0..6 {
                out.datagram(index).fill(index as u8);
            }
            assert_eq!(out.send(&here, None, 6).unwrap(), 6);
            let mut arrivals = Arrivals::new();
            for _ in 0..2 {
                let count = arrivals.receive(&there).unwrap();
                assert_eq!(count, if train > 1 { 2 } else { 6 });
                let mut seen = Vec::new();
                for index in 0..count {
                    let arrival = arrivals.get(index);
                    assert!(!arrival.cut);
                    assert_eq!(arrival.from, here.local_addr().unwrap());
                    for datagram in arrival.datagrams() {
                        assert_eq!(datagram.len(), 100);
                        seen.push(datagram[0]);
                    }
                }
                assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
                out.send(&here, None, 6).unwrap();
            }
            arrivals.receive(&there).unwrap();
            assert_eq!(arrivals.send_back(&there, &[1]), 1);
            let mut back = [0; 2048];
            let len = here.recv(&mut back).unwrap();
            assert_eq!(len, if train > 1 { 200 } else { 100 });
        }
    }

    #[test]
    fn an_empty_one_is_one_and_nothing_is_none() {
        let (here, there) = pair();
        here.send(&[1; 300]).unwrap();
        here.send(&[]).unwrap();
        let mut arrivals = Arrivals::new();
        assert_eq!(arrivals.receive(&there).unwrap(), 2);
        assert_eq!(arrivals.get(0).bytes, [1; 300]);
        let empty = arrivals.get(1);
        assert!(!empty.cut && empty.datagrams().eq([&[] as &[u8]]));
        assert_eq!(arrivals.receive(&there).unwrap(), 0);
    }

    /// More than one slot has room for, to somebody whom the socket is not connected to.
    #[test]
    fn long_trains_lie_in_slots_of_their_own() {
        let (_, there) = pair();
        setsockopt(&there, sockopt::UdpGroSegment, &true).unwrap();
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut out = Departures::new(120, 1000, 40);
        for index in 0..120 {
            out.datagram(index).fill(index as u8);
        }
        let to = there.local_addr().ok();
        assert_eq!(out.send(&here, to, 120).unwrap(), 120);
        let mut arrivals = Arrivals::new();
        let count = arrivals.receive(&there).unwrap();
        let all = (0..count).flat_map(|at| arrivals.get(at).datagrams());
        assert!(
            all.map(|it| (it.len(), it[0]))
                .eq((0..120).map(|n| (1000, n)))
        );
    }
}
