//! One side of a session: its descriptor, what is in flight on it, and what was
//! received and not yet forwarded.
//!
//! A leg is read in one of two ways:
//!
//! ```text
//!                     short reads, again and again
//!   watched ───────────────────────────────────────────► streamed
//!   poll once, then recv(2) or splice(2)      multishot receive, provided buffers
//!      ▲                                                    │
//!      └── a full buffer, a sink that is full, no buffer ───┘
//! ```
//! Every leg begins watched: a short connection never pays for the change, and
//! bulk goes through the large buffer and the pipes of [`Kit`].
//!
//! Memory: a leg that leaves the stream copies what it has received into chunks,
//! which count as held. With more held than the reactor may, every leg that
//! receives leaves, and none starts again. So the limit is passed by no more than
//! the provided buffers of the reactor hold for each turn in which legs leave
//! (2.5 MiB, in chunks of 8 MiB), besides what watched lanes add.
//!
//! Invariants: at most one of each operation in flight; a descriptor is closed
//! only with none in flight; provided buffers are held only by streamed legs, and
//! by a send for as long as a turn.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::buffers::{Inbox, Piece};
use super::op::{At, Op, Tag};
use super::ring::Ring;
use crate::engine::chunks::Tail;
use crate::engine::common;
use crate::engine::pump::{Kit, transmit};
use crate::net::errno::{Failure, Operation};
use crate::net::options::plan;
use crate::relay::session::Readiness;

/// Turns with little to read, one after the other, that make a leg streamed.
/// Fewer, and the cancellation at the end of a short connection costs more than
/// the receives saved.
const CALM_STREAK: u8 = 4;

/// A turn that read no more than this was calm: a record of TLS, or a message of 16 KiB, and less than a buffer, so
/// that a leg does not go to and fro.
const CALM_BYTES: u64 = 17 * 1024;

/// Pieces that may wait for a send before receiving stops.
const INBOX_MAX: u8 = 8;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Leg {
    pub(super) fd: Option<OwnedFd>,
    /// Operations in flight, as a set of [`Op::bit`].
    flying: u8,
    /// Calm turns in a row; [`CALM_STREAK`]: it is to be streamed.
    calm: u8,
    /// Pieces in the inbox.
    waiting: u8,
    /// A cancellation of the receive was asked for.
    leaving: bool,
    pub(super) connecting: bool,
    /// See `Ends::exhaustive`.
    pub(super) exhaustive: bool,
    /// Its write side was shut down.
    pub(super) shut: bool,
    /// It was asked to close and waits for what is in flight.
    pub(super) closing: bool,
    /// Nothing that outlives a turn is started for it any more.
    pub(super) quiescing: bool,
    /// See `LooseSide::shared`.
    pub(super) shared: bool,
    /// Its close is to be a reset, and is told so by more than the close.
    pub(super) aborts: bool,
    /// A failure or hang-up was reported; it needs no vigil any more.
    pub(super) hung_up: bool,
    /// It is on the engine's list of vigils to come.
    pub(super) vigil_due: bool,
    /// A poll said that it takes bytes, and none was taken since.
    told_writable: bool,
    /// It took none although it had said so: it is to rest before it is asked again.
    pub(super) rest_wanted: bool,
    /// The lane towards this leg waits for its send to complete.
    pub(super) sender_waits: bool,
    /// How its stream ended.
    pub(super) end: LegEnd,
    inbox: Inbox,
    /// What the send in flight sends.
    sending: Option<Piece>,
    behind: Option<Box<Behind>>,
}

/// What a leg that left its stream, or whose socket was full, has yet to hand on: rare, so
/// that a session which has none of it pays for a pointer.
#[derive(Debug, Default)]
struct Behind {
    /// What was received before it was watched again. Comes after nothing else.
    spill: VecDeque<Tail>,
    /// What a send left over, until the lane takes it back. Goes out before anything
    /// else.
    outbox: Option<Tail>,
    /// A send failed, after so many bytes were reported as written.
    send_failed: Option<(Failure, u32)>,
}

/// How a stream ended, if it did, in two bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LegEnd(u16);

impl LegEnd {
    const TO_COME: Self = Self(u16::MAX);

    /// 0: in good order; else an errno, which is below 4096.
    const fn new(errno: i32) -> Self {
        debug_assert!(0 <= errno && errno < 4096, "no errno");
        Self(errno as u16)
    }

    const fn has_come(self) -> bool {
        self.0 != Self::TO_COME.0
    }

    /// Takes it out: 0 in good order, else an errno.
    pub(super) fn take(&mut self) -> Option<i32> {
        let end = std::mem::replace(self, Self::TO_COME);
        end.has_come().then_some(i32::from(end.0))
    }
}

impl Default for LegEnd {
    fn default() -> Self {
        Self::TO_COME
    }
}

impl common::Leg for Leg {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    fn is_idle(&self) -> bool {
        self.is_quiet()
    }
}

impl Leg {
    /// Another connection, or none, in the place of this one.
    pub(super) fn replace(&mut self, fd: Option<OwnedFd>) {
        debug_assert!(self.is_quiet(), "replaced with operations in flight");
        *self = Self {
            fd,
            vigil_due: self.vigil_due,
            ..Self::default()
        };
    }

    /// Whether it has a descriptor to be used.
    pub(super) const fn is_open(&self) -> bool {
        self.fd.is_some() && !self.closing
    }

    /// Whether this operation is in flight.
    pub(super) const fn flies(&self, op: Op) -> bool {
        self.flying & op.bit() != 0
    }

    /// Whether nothing is in flight.
    pub(super) const fn is_quiet(&self) -> bool {
        self.flying == 0
    }

    /// An operation has come back for good.
    pub(super) const fn landed(&mut self, op: Op) {
        self.flying &= !op.bit();
        if matches!(op, Op::Recv) {
            self.leaving = false;
        }
    }

    /// Polls for an operation's condition, unless it does already.
    pub(super) fn watch(&mut self, op: Op, at: At, ring: &mut Ring) {
        let mask = match op {
            Op::WatchIn => libc::POLLIN | libc::POLLPRI | libc::POLLRDHUP,
            Op::WatchOut => libc::POLLOUT,
            // The kernel adds POLLERR and POLLHUP to every mask.
            Op::Vigil => 0,
            Op::Recv | Op::Send => unreachable!("not a poll"),
        };
        self.poll(op, mask, at, ring);
    }

    /// Polls for room for bytes. A socket may say that there is some and take none, for as
    /// long as TCP memory is exhausted: asked again at once, it would say so again and
    /// again.
    pub(super) fn watch_out(&mut self, at: At, ring: &mut Ring) {
        if self.told_writable {
            self.rest_wanted = true;
        } else {
            self.watch(Op::WatchOut, at, ring);
        }
    }

    /// A poll says that it takes bytes.
    pub(super) const fn is_told_writable(&mut self) {
        self.told_writable = true;
    }

    /// It took some, or has rested.
    pub(super) const fn may_be_asked(&mut self) {
        self.told_writable = false;
    }

    /// Polls for bytes that are only looked at so far. A look does not go past the mark
    /// of urgent data: a poll for that would complete over and over.
    pub(super) fn watch_request(&mut self, at: At, ring: &mut Ring) {
        self.poll(Op::WatchIn, libc::POLLIN | libc::POLLRDHUP, at, ring);
    }

    fn poll(&mut self, op: Op, mask: libc::c_short, at: At, ring: &mut Ring) {
        if let Some(fd) = &self.fd
            && !self.closing
            && !self.quiescing
            && !self.flies(op)
        {
            ring.poll(fd.as_fd(), mask, Tag::Side(at, op));
            self.flying |= op.bit();
        }
    }

    /// Waits for bytes, in the way this leg is read. While more is held than may be
    /// it is watched: what it then reads is bounded.
    pub(super) fn await_bytes(&mut self, at: At, ring: &mut Ring, kit: &Kit) {
        if self.flies(Op::Recv) || self.end.has_come() || self.quiescing {
            return;
        }
        if !self.is_streamed() || kit.is_pressed() {
            return self.watch(Op::WatchIn, at, ring);
        }
        if let Some(fd) = &self.fd
            && !self.closing
        {
            ring.recv(fd.as_fd(), Tag::Side(at, Op::Recv));
            self.flying |= Op::Recv.bit();
        }
    }

    /// A turn read so many bytes from it by recv(2). Short reads again and again
    /// make it streamed.
    pub(super) const fn note_read(&mut self, bytes: u64) {
        if self.is_streamed() {
            return;
        }
        if bytes > CALM_BYTES {
            self.calm = 0;
        } else if bytes > 0 {
            self.calm += 1;
        }
    }

    /// Whether it is received from as a stream, or is to be.
    const fn is_streamed(&self) -> bool {
        self.calm >= CALM_STREAK
    }

    /// Back to being watched: no more receives, and the buffers go back.
    pub(super) fn leave_stream(&mut self, at: At, ring: &mut Ring, kit: &mut Kit) {
        self.calm = 0;
        if self.flies(Op::Recv) && !self.leaving {
            self.leaving = true;
            ring.cancel(Tag::Side(at, Op::Recv));
        }
        while let Some(piece) = self.next_piece(ring) {
            self.spill(piece, ring, kit);
        }
    }

    // What was received.

    /// Takes in a piece that was received.
    pub(super) fn take_in(&mut self, piece: Piece, at: At, ring: &mut Ring, kit: &mut Kit) {
        let full = piece.len() == super::buffers::BUFFER_SIZE;
        if self.is_streamed() {
            ring.buffers().push(&mut self.inbox, piece);
            self.waiting += 1;
        } else {
            self.spill(piece, ring, kit);
        }
        if full || self.waiting >= INBOX_MAX || kit.is_pressed() {
            self.leave_stream(at, ring, kit);
        }
    }

    /// A receive completed with this result: what the leg is ready for. Its piece,
    /// if any, was taken in before.
    pub(super) const fn received(&mut self, result: i32, more: bool) -> Readiness {
        let mut failed = false;
        match -result {
            ..0 => {}
            // Back to watching: no buffer was left, or the stream was left.
            libc::ENOBUFS => {
                self.calm = 0;
            }
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            0 => self.end = LegEnd::new(0),
            errno => {
                self.end = LegEnd::new(errno);
                self.hung_up = true;
                failed = true;
            }
        }
        debug_assert!(result > 0 || !more, "a receive goes on after its end");
        Readiness {
            readable: true,
            writable: false,
            failed,
        }
    }

    /// Whether anything received waits to be forwarded, or the end does.
    pub(super) fn has_received(&self) -> bool {
        !self.inbox.is_empty() || self.end.has_come() || self.has_spilled()
    }

    fn has_spilled(&self) -> bool {
        self.behind.as_ref().is_some_and(|it| !it.spill.is_empty())
    }

    /// Takes of what is behind, and lets go of its room with the last of it.
    fn take_behind<T>(&mut self, take: impl FnOnce(&mut Behind) -> Option<T>) -> Option<T> {
        let behind = self.behind.as_mut()?;
        let taken = take(behind);
        if behind.spill.is_empty() && behind.outbox.is_none() && behind.send_failed.is_none() {
            self.behind = None;
        }
        taken
    }

    /// Whether more pieces wait.
    pub(super) const fn has_pieces(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// The next piece. Spilled bytes come first.
    pub(super) fn next_piece(&mut self, ring: &mut Ring) -> Option<Piece> {
        let piece = ring.buffers().pop(&mut self.inbox);
        self.waiting -= u8::from(piece.is_some());
        piece
    }

    /// The next spilled bytes; no longer counted as held by the kit.
    pub(super) fn next_spilled(&mut self, kit: &mut Kit) -> Option<Tail> {
        let tail = self.take_behind(|it| it.spill.pop_front())?;
        kit.held -= tail.footprint();
        Some(tail)
    }

    fn spill(&mut self, piece: Piece, ring: &mut Ring, kit: &mut Kit) {
        let bytes = ring.buffers().bytes(&piece);
        let spill = &mut self.behind.get_or_insert_default().spill;
        if !spill.back_mut().is_some_and(|last| last.append(bytes)) {
            let tail = kit.chunks.park(bytes);
            kit.held += tail.footprint();
            spill.push_back(tail);
        }
        ring.buffers().recycle(piece);
    }

    /// Drops what was received; returns how many bytes.
    pub(super) fn drop_received(&mut self, ring: &mut Ring, kit: &mut Kit) -> u32 {
        let mut dropped = 0;
        while let Some(tail) = self.next_spilled(kit) {
            dropped += tail.unsent().len() as u32;
            kit.chunks.recycle(tail);
        }
        while let Some(piece) = self.next_piece(ring) {
            dropped += piece.len();
            ring.buffers().recycle(piece);
        }
        dropped
    }

    // Sends.

    /// Starts to send a piece.
    pub(super) fn send(&mut self, piece: Piece, at: At, ring: &mut Ring) {
        let Some(fd) = &self.fd else {
            return ring.buffers().recycle(piece);
        };
        debug_assert!(!self.flies(Op::Send), "a send overtakes another");
        ring.send(fd.as_fd(), &piece, Tag::Side(at, Op::Send));
        self.flying |= Op::Send.bit();
        self.sending = Some(piece);
    }

    /// The send in flight is over: `Ok`, or what its completion said.
    pub(super) fn sent(&mut self, result: Result<(), i32>, ring: &mut Ring, kit: &mut Kit) {
        self.landed(Op::Send);
        let Some(piece) = self.sending.take() else {
            return;
        };
        match result {
            Ok(()) => {}
            // An orderly end would claim that the rest had been sent.
            Err(_) if self.closing => self.abort_on_close(),
            // Some of it was taken.
            Err(taken @ 0..) => self.leave_over(&piece, taken as usize, ring, kit),
            Err(errno) => match Failure::of(Operation::Transfer, Errno::from_raw(-errno)) {
                Failure::WouldBlock | Failure::Interrupted => {
                    self.leave_over(&piece, 0, ring, kit);
                }
                failure => self.note_failure(failure, piece.len()),
            },
        }
        ring.buffers().recycle(piece);
    }

    fn leave_over(&mut self, piece: &Piece, taken: usize, ring: &mut Ring, kit: &mut Kit) {
        let tail = kit.chunks.park(&ring.buffers().bytes(piece)[taken..]);
        kit.held += tail.footprint();
        self.behind.get_or_insert_default().outbox = Some(tail);
    }

    fn note_failure(&mut self, failure: Failure, len: u32) {
        self.behind.get_or_insert_default().send_failed = Some((failure, len));
    }

    /// Whether a send failed.
    pub(super) fn has_send_failed(&self) -> bool {
        let behind = self.behind.as_ref();
        behind.is_some_and(|it| it.send_failed.is_some())
    }

    /// How a send failed, and how many bytes were reported as written before; told once.
    pub(super) fn take_send_failure(&mut self) -> Option<(Failure, u32)> {
        self.take_behind(|it| it.send_failed.take())
    }

    /// Hands what a send left over back to its lane; no longer counted as held by
    /// the kit.
    pub(super) fn take_left_over(&mut self, kit: &mut Kit) -> Option<Tail> {
        let tail = self.take_behind(|it| it.outbox.take())?;
        kit.held -= tail.footprint();
        Some(tail)
    }

    /// Sends what a send left over and no lane has taken back: that of a source
    /// that has ended is not pumped any more. `false`: some of it is still there.
    pub(super) fn flush(&mut self, kit: &mut Kit) -> bool {
        let left_over = |behind: &mut Option<Box<Behind>>| behind.as_mut()?.outbox.take();
        while let (Some(fd), Some(mut tail)) = (&self.fd, left_over(&mut self.behind)) {
            let sent = transmit(fd.as_fd(), tail.unsent());
            if let Ok(taken) = sent {
                tail.advance(taken as u32);
                self.told_writable = false;
            }
            let blocked = sent == Err(Failure::WouldBlock);
            let failed = sent.err().filter(|_| !blocked);
            let len = tail.unsent().len() as u32;
            if len > 0 && failed.is_none() {
                self.behind.get_or_insert_default().outbox = Some(tail);
            } else {
                kit.held -= tail.footprint();
                kit.chunks.recycle(tail);
            }
            if let Some(failure) = failed {
                self.note_failure(failure, len);
            }
            if blocked {
                return false;
            }
        }
        self.take_behind(|_| None::<()>);
        true
    }

    /// Whether a send left something over.
    pub(super) fn has_left_over(&self) -> bool {
        self.behind.as_ref().is_some_and(|it| it.outbox.is_some())
    }

    fn drop_outbox(&mut self, kit: &mut Kit) {
        if let Some(tail) = self.take_left_over(kit) {
            kit.chunks.recycle(tail);
        }
    }

    /// Bytes reported as written that are still to be handed to the kernel.
    pub(super) fn unsent(&self) -> u32 {
        let left_over = self.behind.as_ref().and_then(|it| it.outbox.as_ref());
        self.sending.as_ref().map_or(0, Piece::len)
            + left_over.map_or(0, |tail| tail.unsent().len() as u32)
    }

    // The end.

    /// Makes the close a reset.
    pub(super) fn abort_on_close(&mut self) {
        self.aborts = true;
        if let Some(fd) = self.fd.as_ref().filter(|_| !self.shared) {
            // Best effort: a socket that refuses SO_LINGER is closed in order.
            let _ = plan::set_abort_on_close(fd.as_fd());
        }
    }

    /// Drops what is held and cancels what is in flight.
    pub(super) fn shut_down(&mut self, at: At, ring: &mut Ring, kit: &mut Kit) {
        self.drop_received(ring, kit);
        self.drop_outbox(kit);
        for op in Op::ALL {
            // A send is over before a cancellation could find it.
            if self.flies(op) && op != Op::Send && !(op == Op::Recv && self.leaving) {
                ring.cancel(Tag::Side(at, op));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::common::Conn;

    #[test]
    fn a_connection_is_small() {
        assert!(size_of::<Leg>() <= 40);
        assert!(size_of::<Conn<Leg>>() <= 96);
    }
}
