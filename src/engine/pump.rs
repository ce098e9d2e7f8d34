//! Moves the bytes of one lane on readiness: recv/send through the scratch
//! buffer, or splice through a pipe, as the lane asks.
//!
//! Owns nothing but the reactor's [`Kit`]; what a lane holds lies in its
//! [`Store`]. The hot path allocates nothing: a chunk is taken from its pool, and
//! only for a tail that the sink refused.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};

use super::chunks::{self, Chunks, Tail};
use super::detached::Held;
use crate::net::errno::{Failure, Operation};
use crate::net::pipe::{Pipe, PipePool};
use crate::net::tcp_info;
use crate::observe::tap::{Appetite, Feed, StreamEnd};
use crate::relay::ending::Cause;
use crate::relay::lane::{Fallback, Lane, Next, Path};
use crate::relay::session::{self, Pumped};
use crate::relay::{Direction, Side};

/// Reads and writes of one pump, for peers that send a byte at a time.
const BUDGET_MOVES: u32 = 32;

/// A lane that may not hold more still reads this much towards a sink that has no room:
/// enough to make progress, little enough that the bound stays near the limit.
const PRESSED_FILL: u32 = chunks::SMALLEST as u32;

/// And no more than this at once towards one that says it has room: while TCP memory is short
/// a socket takes less than that (`sk_stream_moderate_sndbuf`), and the rest is held.
const ROOM_MAX: u32 = 64 * 1024;

/// A lane that may not hold what it wants gets a pipe only for as much.
const PIPE_WORTH: u32 = ROOM_MAX;

/// What every lane of a reactor shares.
#[derive(Debug)]
pub(super) struct Kit {
    pub(super) scratch: Box<[u8]>,
    pub(super) chunks: Chunks,
    pub(super) pipes: PipePool,
    /// Bytes in tails and pipes.
    pub(super) held: u64,
    pub(super) held_limit: u64,
    /// How much of what is read next may be held, where its sink has no room.
    pub(super) spare: u32,
    pub(super) pipes_used: u32,
    pub(super) splice_refused: u64,
    pub(super) options_refused: u64,
}

/// Where the held bytes of a lane are.
#[derive(Debug, Default)]
pub(super) enum Store {
    /// None are held.
    #[default]
    Empty,
    /// In user memory.
    Tail(Tail),
    /// In a pipe, which may be empty while the lane is being pumped.
    Pipe(Pipe),
}

/// The two sockets of a lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends<'a> {
    pub(super) direction: Direction,
    pub(super) source: BorrowedFd<'a>,
    pub(super) sink: BorrowedFd<'a>,
    /// A short read does not prove the source empty: an end, an error or urgent
    /// data may wait behind it. Read until the kernel says so.
    pub(super) exhaustive: bool,
    /// The sink's peer direction has ended too: both sockets are closed right
    /// after this lane's end, so shutting the sink down first would be one
    /// system call for nothing.
    pub(super) last: bool,
}

impl Kit {
    /// Pumps a lane until it parks or its budget ends.
    pub(super) fn pump(
        &mut self,
        ends: Ends<'_>,
        store: &mut Store,
        tap: Option<&mut Feed>,
        lane: &mut Lane,
        budget: u32,
    ) -> Pumped {
        let mut turn = Turn::start(store, ends.direction, tap, budget);
        while let Some(next) = turn.next(lane) {
            self.step(next, ends, store, lane, &mut turn);
        }
        self.finish(&turn, store, lane)
    }

    /// One move of a lane. An engine with other sources of bytes runs the loop of
    /// [`Kit::pump`] itself and leaves to this what it does not do otherwise.
    pub(super) fn step(
        &mut self,
        next: Next,
        ends: Ends<'_>,
        store: &mut Store,
        lane: &mut Lane,
        turn: &mut Turn<'_>,
    ) {
        match next {
            Next::Fill {
                max,
                path: Path::Copy,
            } => self.copy(ends, max, store, lane, turn),
            Next::Fill {
                max,
                path: Path::Splice,
            } => self.splice(ends, max, store, lane, turn),
            Next::Drain { len } => self.drain(ends, len, store, lane, turn),
            Next::Discard { max } => self.discard(ends, max, lane, turn),
            Next::ShutSink => shut(ends, lane, turn),
            Next::Park | Next::Done => {}
        }
    }

    /// Ends a turn: what came of it.
    pub(super) fn finish(&mut self, turn: &Turn<'_>, store: &mut Store, lane: &Lane) -> Pumped {
        if lane.held() == 0 {
            self.empty(store);
        }
        self.held = self.held - turn.cost_before + store.cost();
        turn.pumped
    }

    /// Drops what a lane held. A pipe that holds bytes is closed, never pooled.
    pub(super) fn drop_held(&mut self, store: &mut Store) {
        self.held -= store.cost();
        self.empty(store);
    }

    /// Gives back what a lane that holds nothing has no use for.
    pub(super) fn empty(&mut self, store: &mut Store) {
        match std::mem::take(store) {
            Store::Empty => {}
            Store::Tail(tail) => self.chunks.recycle(tail),
            Store::Pipe(pipe) => {
                self.pipes_used -= 1;
                self.pipes.give_back(pipe);
            }
        }
    }

    /// Lets go of what a lane holds.
    pub(super) fn let_go(&mut self, store: &mut Store) -> Held {
        self.held -= store.cost();
        match std::mem::take(store) {
            Store::Pipe(pipe) if !pipe.is_empty() => {
                self.pipes_used -= 1;
                Held::Pipe(pipe)
            }
            Store::Tail(tail) if !tail.unsent().is_empty() => Held::Tail(tail),
            mut rest => {
                self.empty(&mut rest);
                Held::Nothing
            }
        }
    }

    /// Takes over what a lane holds.
    pub(super) fn take_up(&mut self, held: Held) -> Store {
        let store = match held {
            Held::Nothing => Store::Empty,
            Held::Tail(tail) => Store::Tail(tail),
            Held::Pipe(pipe) => {
                self.pipes_used += 1;
                Store::Pipe(pipe)
            }
        };
        self.held += store.cost();
        store
    }

    /// More is held than the reactor may.
    pub(super) const fn is_pressed(&self) -> bool {
        self.held > self.held_limit
    }

    /// How much a fill of `max` bytes may read: what may be held, or what its sink has room
    /// for, of which nothing will be. While more is held than may be, nobody may hold more:
    /// who keeps up pays a system call for it, and the pressure is on those whose sinks are
    /// full. Before that it is on lanes of those who hold most.
    fn pressed(&self, sink: BorrowedFd<'_>, max: u32) -> u32 {
        let spare = if self.is_pressed() { 0 } else { self.spare };
        if spare >= max {
            return max;
        }
        // Half of it: the kernel counts its overhead, too.
        let room = tcp_info::room(sink).unwrap_or(0) / 2;
        max.min(room.min(ROOM_MAX).max(spare).max(PRESSED_FILL))
    }

    /// One read into the scratch buffer and one write straight out of it.
    fn copy(
        &mut self,
        ends: Ends<'_>,
        max: u32,
        store: &mut Store,
        lane: &mut Lane,
        turn: &mut Turn<'_>,
    ) {
        self.empty(store);
        let max = (self.pressed(ends.sink, max) as usize).min(self.scratch.len());
        let buffer = &mut self.scratch[..max];
        let n = match receive(ends.source, buffer) {
            Ok(0) => return turn.source_ended(lane),
            Ok(n) => n,
            Err(failure) => return turn.fill_failed(ends.direction, failure, lane),
        };
        lane.filled(n as u32);
        turn.moved(n as u32);
        turn.show(&self.scratch[..n], lane);
        if n < max && !ends.exhaustive {
            lane.fill_blocked();
        }
        let taken = match transmit(ends.sink, &self.scratch[..n]) {
            Ok(taken) => taken,
            Err(Failure::WouldBlock) => 0,
            Err(failure) => return turn.drain_failed(ends.direction, failure, lane),
        };
        if taken > 0 {
            lane.drained(taken as u32);
        }
        if taken < n {
            // The kernel took less than it was given: its buffer is full, and
            // its write-space wake-up is armed.
            lane.drain_blocked();
            *store = Store::Tail(self.chunks.park(&self.scratch[taken..n]));
        }
    }

    /// One splice from the source into the lane's pipe.
    fn splice(
        &mut self,
        ends: Ends<'_>,
        max: u32,
        store: &mut Store,
        lane: &mut Lane,
        turn: &mut Turn<'_>,
    ) {
        let max_spliced = self.pressed(ends.sink, max);
        if !matches!(store, Store::Pipe(_)) {
            self.empty(store);
            if self.pressed(ends.sink, PIPE_WORTH) < PIPE_WORTH {
                return lane.splice_refused(Fallback::BufferLimit);
            }
            let Ok(pipe) = self.pipes.take() else {
                return lane.splice_refused(Fallback::NoPipe);
            };
            self.pipes_used += 1;
            *store = Store::Pipe(pipe);
        }
        let Store::Pipe(pipe) = store else { return };
        let max_spliced = max_spliced.min(pipe.capacity());
        match pipe.fill(ends.source, max_spliced) {
            // Not always the end: splice(2) stops at the mark of urgent data for
            // ever, with 0 once the end has arrived behind it and EAGAIN before.
            // recv(2) goes past the mark, and its word counts.
            Ok(0) => self.copy(ends, max, store, lane, turn),
            Err(Failure::WouldBlock) if ends.exhaustive => self.copy(ends, max, store, lane, turn),
            Ok(n) => {
                lane.filled(n);
                turn.moved(n);
            }
            Err(Failure::Unsupported) => {
                self.splice_refused += 1;
                lane.splice_refused(Fallback::Unsupported);
            }
            // Out of memory for the moment: copying needs none of its own.
            Err(Failure::Exhausted(_)) => lane.splice_refused(Fallback::NoPipe),
            Err(failure) => turn.fill_failed(ends.direction, failure, lane),
        }
    }

    fn drain(
        &mut self,
        ends: Ends<'_>,
        len: u32,
        store: &mut Store,
        lane: &mut Lane,
        turn: &mut Turn<'_>,
    ) {
        let result = match store {
            Store::Tail(tail) => transmit(ends.sink, tail.unsent()).map(|n| n as u32),
            Store::Pipe(pipe) => pipe.drain(ends.sink),
            Store::Empty => unreachable!("a lane holds bytes that no store has"),
        };
        match result {
            Ok(0) => lane.drain_blocked(),
            Ok(n) => {
                lane.drained(n);
                turn.pumped.moved = true;
                if let Store::Tail(tail) = store {
                    tail.advance(n);
                    if n < len {
                        lane.drain_blocked();
                    }
                }
            }
            Err(Failure::WouldBlock) => lane.drain_blocked(),
            Err(Failure::Unsupported) if matches!(store, Store::Pipe(_)) => {
                self.splice_refused += 1;
                self.rescue(store, lane, Fallback::Unsupported);
            }
            // Out of memory for the moment; copying may need less.
            Err(Failure::Exhausted(_)) if matches!(store, Store::Pipe(_)) => {
                self.rescue(store, lane, Fallback::NoPipe);
            }
            Err(failure) => turn.drain_failed(ends.direction, failure, lane),
        }
    }

    /// splice does not work towards this sink: take the bytes out of the pipe
    /// and copy from here on. Not one is lost (behaviour 38).
    fn rescue(&mut self, store: &mut Store, lane: &mut Lane, why: Fallback) {
        lane.splice_refused(why);
        if let Store::Pipe(pipe) = std::mem::take(store) {
            self.pipes_used -= 1;
            let held = pipe.len() as usize;
            let bytes = pipe.rescue();
            debug_assert_eq!(bytes.len(), held, "a pipe held less than was put in");
            *store = Store::Tail(self.chunks.park(&bytes));
        }
    }

    fn discard(&mut self, ends: Ends<'_>, max: u32, lane: &mut Lane, turn: &mut Turn<'_>) {
        let max = (max as usize).min(self.scratch.len());
        match receive(ends.source, &mut self.scratch[..max]) {
            Ok(0) => lane.source_eof(),
            Ok(n) => {
                lane.discarded(n as u32);
                turn.moved(n as u32);
            }
            Err(failure) => turn.fill_failed(ends.direction, failure, lane),
        }
    }
}

impl Store {
    /// Memory that it keeps from others, in bytes.
    const fn cost(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Tail(tail) => tail.footprint(),
            Self::Pipe(pipe) => pipe.len() as u64,
        }
    }
}

/// One pump: what it has done so far.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    direction: Direction,
    /// Whoever looks at the bytes.
    tap: Option<&'a mut Feed>,
    pumped: Pumped,
    /// Bytes that may be read before others have their turn.
    budget: u32,
    bytes: u32,
    moves: u32,
    cost_before: u64,
}

impl<'a> Turn<'a> {
    /// Nothing done yet, for a lane with this store and this tap.
    pub(super) const fn start(
        store: &Store,
        direction: Direction,
        tap: Option<&'a mut Feed>,
        budget: u32,
    ) -> Self {
        Self {
            direction,
            tap,
            pumped: Pumped {
                moved: false,
                more: false,
                failure: None,
            },
            budget,
            bytes: 0,
            moves: 0,
            cost_before: store.cost(),
        }
    }

    /// What to do next; `None` when the lane parks or the budget has ended.
    pub(super) fn next(&mut self, lane: &Lane) -> Option<Next> {
        let next = lane.next();
        if matches!(next, Next::Park | Next::Done) {
            return None;
        }
        if self.bytes >= self.budget || self.moves >= BUDGET_MOVES {
            self.pumped.more = true;
            return None;
        }
        self.moves += 1;
        Some(match next {
            // No more than once over the budget, whatever a pipe would take.
            Next::Fill { max, path } => Next::Fill {
                max: max.min(self.budget),
                path,
            },
            next => next,
        })
    }

    pub(super) const fn moved(&mut self, n: u32) {
        self.pumped.moved = true;
        self.bytes = self.bytes.saturating_add(n);
    }

    /// Bytes that the lane was filled with, for whoever looks at them.
    #[inline]
    pub(super) fn show(&mut self, bytes: &[u8], lane: &mut Lane) {
        if let Some(tap) = &mut self.tap
            && tap.chunk(self.direction, bytes) == Appetite::Sated
        {
            lane.untap();
        }
    }

    /// An end counts as movement: it is the last thing the peer said.
    pub(super) fn source_ended(&mut self, lane: &mut Lane) {
        lane.source_eof();
        self.pumped.moved = true;
        if let Some(tap) = &mut self.tap {
            tap.end(self.direction, StreamEnd::Orderly, lane.bytes_in());
        }
    }

    pub(super) fn fill_failed(&mut self, direction: Direction, failure: Failure, lane: &mut Lane) {
        match failure {
            Failure::WouldBlock => lane.fill_blocked(),
            failure => {
                lane.source_failed();
                if let Some(tap) = &mut self.tap {
                    tap.end(self.direction, StreamEnd::Failed, lane.bytes_in());
                }
                self.failed(direction.source(), failure);
            }
        }
    }

    pub(super) fn drain_failed(&mut self, direction: Direction, failure: Failure, lane: &mut Lane) {
        lane.sink_failed();
        self.failed(direction.sink(), failure);
    }

    fn failed(&mut self, side: Side, failure: Failure) {
        let cause = Cause::from(failure);
        self.pumped
            .failure
            .get_or_insert(session::Failure { side, cause });
    }
}

pub(super) fn shut(ends: Ends<'_>, lane: &mut Lane, turn: &mut Turn<'_>) {
    if ends.last {
        lane.sink_shut();
        return;
    }
    match shutdown(ends.sink.as_raw_fd(), Shutdown::Write) {
        // ENOTCONN: the sink failed meanwhile; its own event says so.
        Ok(()) | Err(nix::errno::Errno::ENOTCONN) => lane.sink_shut(),
        Err(errno) => turn.drain_failed(
            ends.direction,
            Failure::of(Operation::Transfer, errno),
            lane,
        ),
    }
}

fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Failure> {
    loop {
        match recv(fd.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(n) => return Ok(n),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Failure::of(Operation::Transfer, errno)),
        }
    }
}

pub(super) fn transmit(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Failure> {
    loop {
        match send(fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
            Ok(n) => return Ok(n),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Failure::of(Operation::Transfer, errno)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;
    use crate::relay::lane::PathPolicy;

    const SCRATCH: usize = 256 * 1024;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        (near, far)
    }

    /// Writes until no more is taken.
    fn fill(mut stream: &TcpStream) {
        let bytes = vec![0; SCRATCH];
        while stream.write(&bytes).is_ok() {}
    }

    /// What one fill reads while so much is held of one byte that may be, by a lane that may
    /// hold so much more.
    fn read_under_pressure(policy: PathPolicy, sink_is_full: bool, held: u64, spare: u32) -> u64 {
        let mut kit = Kit {
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            chunks: Chunks::default(),
            pipes: PipePool::new(1 << 20),
            held,
            held_limit: 1,
            spare,
            pipes_used: 0,
            splice_refused: 0,
            options_refused: 0,
        };
        let ((from, source), (sink, _to)) = (pair(), pair());
        fill(&from);
        if sink_is_full {
            fill(&sink);
        }
        let ends = Ends {
            direction: Direction::Up,
            source: source.as_fd(),
            sink: sink.as_fd(),
            exhaustive: false,
            last: false,
        };
        let mut lane = Lane::new(policy, SCRATCH as u32);
        let mut store = Store::Empty;
        lane.source_ready();
        let mut turn = Turn::start(&store, ends.direction, None, SCRATCH as u32);
        while lane.bytes_in() == 0 {
            let next = lane.next();
            assert!(matches!(next, Next::Fill { .. }), "{next:?}");
            kit.step(next, ends, &mut store, &mut lane, &mut turn);
        }
        lane.bytes_in()
    }

    /// Fills of 4 KiB cost an innocent bulk transfer five to seven times the CPU.
    #[test]
    fn pressure_is_on_lanes_whose_sinks_are_full_and_on_no_others() {
        for policy in [PathPolicy::Copy, PathPolicy::Splice] {
            // All of them, and one that was told so.
            for (held, spare) in [(2, u32::MAX), (0, 0)] {
                let freely = read_under_pressure(policy, false, held, spare);
                assert!(freely > 4 * u64::from(PRESSED_FILL), "{policy:?}: {freely}");
                let stalled = read_under_pressure(policy, true, held, spare);
                assert!(stalled <= u64::from(PRESSED_FILL), "{policy:?}: {stalled}");
            }
            // What others may hold is no matter of one that holds little.
            let little = read_under_pressure(policy, true, 0, 64 * 1024);
            assert!(little > 4 * u64::from(PRESSED_FILL), "{policy:?}: {little}");
        }
    }
}
