//! Pumping a lane of the simulator: as `engine/pump.rs` does it, with counts.

use std::collections::VecDeque;

use super::{Conn, Sim};
use crate::engine::SessionKey;
use crate::engine::chunks::SMALLEST;
use crate::net::pipe::Reservoir;
use crate::observe::tap::Appetite;
use crate::relay::ending::Cause;
use crate::relay::lane::{Fallback, Lane, Next, Path};
use crate::relay::probe::{self, Mutation};
use crate::relay::session::{Failure, Pumped};
use crate::relay::{Direction, Side};

/// A pipe whose bytes know whose they are.
#[derive(Debug, Default)]
pub(super) struct SimPipe(VecDeque<(SessionKey, u32)>);

impl Reservoir for SimPipe {
    fn is_empty(&self) -> bool {
        self.0.is_empty() || probe::mutated(Mutation::PipeReusedWithResidue)
    }
}

impl SimPipe {
    /// Its bytes are those of another key from now on: the session has moved.
    pub(super) fn changes_hands(&mut self, owner: SessionKey) {
        for (whose, _) in &mut self.0 {
            *whose = owner;
        }
    }

    pub(super) fn put(&mut self, owner: SessionKey, n: u32) {
        self.0.push_back((owner, n));
    }

    fn take(&mut self, owner: SessionKey, mut n: u32) {
        while n > 0 {
            let Some((whose, there)) = self.0.front_mut() else {
                panic!("more came out of a pipe than went in")
            };
            assert_eq!(*whose, owner, "bytes of one connection reached another");
            let taken = n.min(*there);
            *there -= taken;
            n -= taken;
            if *there == 0 {
                self.0.pop_front();
            }
        }
    }
}

impl Sim {
    /// What the lane says, unless a bug is switched on.
    fn next_of(lane: &Lane) -> Next {
        let (source, sink) = lane.states();
        probe::visit(source, sink);
        if probe::mutated(Mutation::EndBeforeResidue) && lane.is_stalled() {
            return Next::ShutSink;
        }
        lane.next()
    }

    /// What can be done for the lane now, if anything.
    pub(super) fn can_move(lane: &Lane) -> bool {
        !matches!(Self::next_of(lane), Next::Park | Next::Done)
    }

    /// One read or write.
    pub(super) fn move_once(
        &mut self,
        key: SessionKey,
        direction: Direction,
        lane: &mut Lane,
        budget: u32,
        pumped: &mut Pumped,
    ) {
        let short = self.dice.percent(self.nastiness.short);
        let part = self.dice.between(1, 64 * 1024) as u32;
        let at_most = |n: u32| if short { n.min(part) } else { n };
        match Self::next_of(lane) {
            Next::Fill { max, path } => {
                let spare = u64::from(self.spare).max(SMALLEST) as u32;
                let max = at_most(max.min(budget).min(spare));
                self.fill(key, direction, lane, max, path, pumped);
            }
            Next::Drain { len } => self.drain(key, direction, lane, at_most(len), pumped),
            Next::Discard { max } => self.discard(key, direction, lane, max, pumped),
            Next::ShutSink => {
                self.conns.touch(key.slot).shut(direction.sink());
                lane.sink_shut();
                pumped.moved = true;
            }
            Next::Park | Next::Done => {}
        }
    }

    /// A pipe goes back as soon as its lane holds nothing.
    pub(super) fn return_pipe(&mut self, key: SessionKey, direction: Direction, lane: &Lane) {
        let conn = self.conns.touch(key.slot);
        if lane.held() == 0
            && let Some(pipe) = conn.pipes[direction.index()].take()
        {
            self.pipes.give_back(pipe);
        }
    }

    fn fill(
        &mut self,
        key: SessionKey,
        direction: Direction,
        lane: &mut Lane,
        max: u32,
        path: Path,
        pumped: &mut Pumped,
    ) {
        let index = direction.index();
        if path == Path::Splice && self.dice.percent(self.nastiness.splice_failure) {
            let why = if self.dice.percent(50) {
                Fallback::Unsupported
            } else {
                Fallback::NoPipe
            };
            return lane.splice_refused(why);
        }
        if path == Path::Copy {
            self.return_pipe(key, direction, lane);
        }
        let conn = self.conns.touch(key.slot);
        match conn.read(direction.source(), max) {
            Ok(0) => {
                lane.source_eof();
                pumped.moved = true;
            }
            Ok(n) => {
                if path == Path::Splice {
                    let pooled = || self.pipes.take().unwrap_or_default();
                    conn.pipes[index].get_or_insert_with(pooled).put(key, n);
                }
                conn.held[index] = n;
                self.held += u64::from(n);
                assert!(
                    path == Path::Copy || !lane.is_tapped(),
                    "bytes that somebody looks at were spliced"
                );
                lane.filled(n);
                let bytes = &[0; 256][..n.min(256) as usize];
                if let Some(tap) = &mut conn.tap
                    && tap.chunk(direction, bytes) == Appetite::Sated
                {
                    lane.untap();
                }
                // A short read proves the socket empty, if nothing follows.
                if conn.is_drained(direction.source()) && self.dice.percent(50) {
                    lane.fill_blocked();
                }
                pumped.moved = true;
            }
            Err(None) => lane.fill_blocked(),
            Err(Some(cause)) => {
                lane.source_failed();
                fail(pumped, direction.source(), cause);
            }
        }
    }

    fn drain(
        &mut self,
        key: SessionKey,
        direction: Direction,
        lane: &mut Lane,
        len: u32,
        pumped: &mut Pumped,
    ) {
        let index = direction.index();
        let conn = self.conns.touch(key.slot);
        match conn.write(direction.sink(), len) {
            Ok(n) => {
                conn.held[index] -= n;
                self.held -= u64::from(n);
                if let Some(pipe) = &mut conn.pipes[index] {
                    pipe.take(key, n);
                }
                let lie =
                    conn.pipes[index].is_some() && probe::mutated(Mutation::ShortSpliceCountedFull);
                lane.drained(if lie { lane.held() } else { n });
                pumped.moved = true;
            }
            Err(None) => lane.drain_blocked(),
            Err(Some(cause)) => {
                self.held -= u64::from(conn.held[index]);
                conn.dropped[index] += u64::from(conn.held[index]);
                conn.held[index] = 0;
                lane.sink_failed();
                fail(pumped, direction.sink(), cause);
            }
        }
    }

    fn discard(
        &mut self,
        key: SessionKey,
        direction: Direction,
        lane: &mut Lane,
        max: u32,
        pumped: &mut Pumped,
    ) {
        let conn: &mut Conn = self.conns.touch(key.slot);
        match conn.read(direction.source(), max) {
            Ok(0) => lane.source_eof(),
            Ok(n) => {
                conn.dropped[direction.index()] += u64::from(n);
                lane.discarded(n);
            }
            Err(None) => lane.fill_blocked(),
            Err(Some(cause)) => {
                lane.source_failed();
                fail(pumped, direction.source(), cause);
            }
        }
    }
}

fn fail(pumped: &mut Pumped, side: Side, cause: Cause) {
    pumped.failure.get_or_insert(Failure { side, cause });
}
