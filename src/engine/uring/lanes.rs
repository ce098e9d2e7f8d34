//! Moves the bytes of one lane: what was received through the ring by sends
//! through the ring, and everything else as the readiness engine does.
//!
//! A send is reported to the lane when it is queued: so a message costs one pump
//! and not two. What the sink then did not take is the first thing the lane learns
//! of at its next pump: it takes those bytes back, holds them, and is stalled as
//! one whose write came short. Until the outcome is known nothing follows them: no
//! byte, no end and no failure of the source.

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::buffers::Piece;
use super::leg::Leg;
use super::op::{At, Op};
use super::ring::Ring;
use crate::engine::SessionKey;
use crate::engine::pump::{Ends, Kit, Store, Turn, transmit};
use crate::net::errno::{Failure, Operation};
use crate::observe::tap::Feed;
use crate::relay::Direction;
use crate::relay::lane::{Lane, Next, Path};
use crate::relay::session::Pumped;

/// What it takes to move the bytes of a lane.
pub(super) struct Mover<'a> {
    pub(super) ring: &'a mut Ring,
    pub(super) kit: &'a mut Kit,
    pub(super) source: &'a mut Leg,
    pub(super) sink: &'a mut Leg,
    pub(super) store: &'a mut Store,
    pub(super) tap: Option<&'a mut Feed>,
    pub(super) key: SessionKey,
    pub(super) direction: Direction,
}

impl Mover<'_> {
    /// Moves until the lane parks or the budget ends, and sees to it that an event
    /// follows when there is something to do again.
    pub(super) fn pump(&mut self, lane: &mut Lane, budget: u32) -> Pumped {
        let (read_before, written_before) = (lane.bytes_in(), lane.bytes_out());
        let streamed = self.source.flies(Op::Recv) || self.source.has_received();
        let tap = self.tap.take();
        let mut turn = Turn::start(self.store, self.direction, tap, budget);
        self.take_back(lane, &mut turn);
        while let Some(next) = turn.next(lane) {
            if !self.step(next, lane, &mut turn) {
                break;
            }
        }
        let pumped = self.kit.finish(&turn, self.store, lane);
        if lane.bytes_out() > written_before {
            self.sink.may_be_asked();
        }
        if !pumped.more {
            if !streamed && lane.path() == Path::Copy {
                self.source.note_read(lane.bytes_in() - read_before);
            }
            self.await_more(lane);
        }
        pumped
    }

    /// The lane takes back what the sink was sent and did not take.
    fn take_back(&mut self, lane: &mut Lane, turn: &mut Turn<'_>) {
        if let Some(tail) = self.sink.take_left_over(self.kit) {
            lane.undrained(tail.unsent().len() as u32);
            self.kit.empty(self.store);
            if lane.held() > 0 {
                *self.store = Store::Tail(tail);
            } else {
                self.kit.chunks.recycle(tail);
            }
        }
        if let Some((failure, len)) = self.sink.take_send_failure() {
            lane.undrained(len);
            turn.drain_failed(self.direction, failure, lane);
        }
    }

    /// One move; `false`: nothing more to do before the sink is heard of.
    fn step(&mut self, next: Next, lane: &mut Lane, turn: &mut Turn<'_>) -> bool {
        match next {
            Next::Fill { .. } if self.source.flies(Op::Recv) && !self.source.has_received() => {
                lane.fill_blocked();
            }
            Next::Fill { .. } | Next::Drain { .. } | Next::ShutSink
                if self.sink.flies(Op::Send) =>
            {
                // The outcome is known at the end of this turn, and an event says so.
                self.sink.sender_waits = true;
                lane.fill_blocked();
                return false;
            }
            Next::Fill { .. } if self.source.has_received() => self.forward(lane, turn),
            Next::Discard { .. } if self.source.has_received() => self.discard(lane, turn),
            Next::Discard { .. } if self.source.flies(Op::Recv) => {
                lane.fill_blocked();
            }
            _ => {
                let Some(source) = &self.source.fd else {
                    return false;
                };
                // Discarding needs no sink; every other move of a lane has both.
                let sink = self.sink.fd.as_ref().unwrap_or(source);
                let ends = Ends {
                    direction: self.direction,
                    source: source.as_fd(),
                    sink: sink.as_fd(),
                    exhaustive: self.source.exhaustive,
                    last: self.source.shut,
                };
                self.kit.step(next, ends, self.store, lane, turn);
            }
        }
        true
    }

    /// Fills the lane with what was received, and sends it on.
    fn forward(&mut self, lane: &mut Lane, turn: &mut Turn<'_>) {
        self.kit.empty(self.store);
        if let Some(tail) = self.source.next_spilled(self.kit) {
            let len = tail.unsent().len() as u32;
            lane.filled(len);
            turn.moved(len);
            turn.show(tail.unsent(), lane);
            *self.store = Store::Tail(tail);
        } else if let Some(piece) = self.source.next_piece(self.ring) {
            lane.filled(piece.len());
            turn.moved(piece.len());
            turn.show(self.ring.buffers().bytes(&piece), lane);
            self.deliver(piece, lane, turn);
        } else if let Some(errno) = self.source.end.take() {
            self.source_ended(errno, lane, turn);
        }
    }

    fn deliver(&mut self, piece: Piece, lane: &mut Lane, turn: &mut Turn<'_>) {
        let Some(sink) = &self.sink.fd else {
            return self.ring.buffers().recycle(piece);
        };
        if !self.source.has_pieces() && !self.sink.quiescing {
            lane.drained(piece.len());
            let at = self.at_sink();
            return self.sink.send(piece, at, self.ring);
        }
        let bytes = self.ring.buffers().bytes(&piece);
        match transmit(sink.as_fd(), bytes) {
            Err(failure) if failure != Failure::WouldBlock => {
                turn.drain_failed(self.direction, failure, lane);
            }
            result => {
                let taken = result.unwrap_or(0) as u32;
                if taken > 0 {
                    lane.drained(taken);
                }
                if taken < piece.len() {
                    lane.drain_blocked();
                    *self.store = Store::Tail(self.kit.chunks.park(&bytes[taken as usize..]));
                }
            }
        }
        self.ring.buffers().recycle(piece);
    }

    fn discard(&mut self, lane: &mut Lane, turn: &mut Turn<'_>) {
        let at = self.at_source();
        self.source.leave_stream(at, self.ring, self.kit);
        let dropped = self.source.drop_received(self.ring, self.kit);
        if dropped > 0 {
            lane.discarded(dropped);
        } else if let Some(errno) = self.source.end.take() {
            self.source_ended(errno, lane, turn);
        }
    }

    fn source_ended(&self, errno: i32, lane: &mut Lane, turn: &mut Turn<'_>) {
        if errno == 0 {
            turn.source_ended(lane);
        } else {
            let failure = Failure::of(Operation::Transfer, Errno::from_raw(errno));
            turn.fill_failed(self.direction, failure, lane);
        }
    }

    /// The lane is parked, or over: arms what will tell of the next thing to do.
    fn await_more(&mut self, lane: &Lane) {
        let (source, sink) = (self.at_source(), self.at_sink());
        match lane.next() {
            Next::Park if lane.held() > 0 => {
                self.sink.watch_out(sink, self.ring);
                self.source.leave_stream(source, self.ring, self.kit);
            }
            // Bytes that wait would complete a poll at once; a failure is the vigil's.
            Next::Park if lane.is_held_back() => {
                self.source.leave_stream(source, self.ring, self.kit);
            }
            // The event that follows the send has the lane pumped again; a poll would
            // only tell once more of bytes that wait.
            Next::Park if self.sink.sender_waits => {}
            Next::Park => self.source.await_bytes(source, self.ring, self.kit),
            Next::Fill { .. }
            | Next::Drain { .. }
            | Next::Discard { .. }
            | Next::ShutSink
            | Next::Done => {}
        }
    }

    const fn at_source(&self) -> At {
        At {
            key: self.key,
            side: self.direction.source(),
        }
    }

    const fn at_sink(&self) -> At {
        At {
            key: self.key,
            side: self.direction.sink(),
        }
    }
}
