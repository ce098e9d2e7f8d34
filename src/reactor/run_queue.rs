//! Lanes with more to move than others should wait for: they take turns.
//!
//! What a lane moves at once when an event says that it can is little
//! ([`EVENT_BYTES`]); bulk moves nothing then, and waits here for its share. After a
//! share of all of them together ([`TURN_BYTES`], `TURN_TIME`) readiness is looked
//! at again, and whoever has little to say goes first. So a short message waits for one
//! share of all bulk, however many flows there are, and a lane for one share of each of
//! those before it. A lane that stands here already ignores further events: its
//! wake-ups cost next to nothing.
//!
//! Invariants: a lane stands here once at the most; it waits for no more than one share
//! of each lane that stood before it (checked at each turn of a lane in debug builds).

use std::collections::VecDeque;
use std::time::Duration;

use crate::engine::SessionKey;
use crate::relay::Direction;

/// Bytes that a lane reads at once on an event. As many make a fill a large one (see
/// `relay::lane`): what is longer goes on in the queue.
pub const EVENT_BYTES: u32 = 64 * 1024;

/// Bytes that a lane reads when it is its turn, times the scale of the turn.
pub const LANE_BYTES: u32 = 256 * 1024;

/// Bytes that lanes move together before readiness is looked at again, times the scale:
/// about 250 µs at 5 GB/s. It trades one for the other: beside 50 bulk flows 200 ping-pongs
/// take 1.37 times as long as without with 1 MiB (epoll) and bulk moves 12.5 Gb/s, with this
/// 1.48 times and 14.1 Gb/s; see docs/benchmarking.md.
pub const TURN_BYTES: u32 = 1280 * 1024;

/// Time after which no further lane has its turn, times the scale, where moving takes
/// longer than that. The clock is read for it before the first lane and after each,
/// which has moved a quarter of a megabyte or has parked.
const TURN_TIME: Duration = Duration::from_micros(500);

/// Shares grow up to this scale while nobody has little to say, so that bulk alone does
/// not pay for looking; and so far that bulk has half of the time that others took,
/// so that many of them do not starve it.
const SCALE_MAX: u32 = 4;

/// Time that others take for each step of the scale: twice that of a share.
const TIME_OF_OTHERS: Duration = Duration::from_micros(400);

/// What a turn of a lane counts for besides its bytes: it makes system calls.
const TURN_MIN: u32 = 4 * 1024;

/// What a lane may move in its turn: what it held, and a fill that is begun with one
/// byte of its share left.
const TURN_MAX: u64 = 3 * (LANE_BYTES * SCALE_MAX) as u64;

#[derive(Debug, Clone, Copy)]
struct Waiting {
    key: SessionKey,
    direction: Direction,
    /// Lanes before it when it came.
    before: u32,
    /// [`RunQueue::served`] when it came.
    since: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    lanes: VecDeque<Waiting>,
    /// Whose turn it is.
    current: Option<(SessionKey, Direction)>,
    /// Bytes that lanes have moved in their turns, ever.
    served: u64,
    /// Of them in this turn of the reactor.
    in_turn: u32,
    /// By how much the shares of this turn are larger.
    scale: u32,
    /// Lanes were pumped at once since the last turn.
    others: bool,
    /// When the shares of this turn began, after the wait.
    began: Duration,
}

impl RunQueue {
    /// No lane waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// A lane waits for its turn. The caller knows that it does not yet.
    pub(super) fn push(&mut self, key: SessionKey, direction: Direction) {
        self.lanes.push_back(Waiting {
            key,
            direction,
            before: self.lanes.len() as u32,
            since: self.served,
        });
    }

    /// A lane is pumped without waiting for a turn.
    pub(super) const fn passed_by(&mut self) {
        self.others = true;
    }

    /// The shares of another turn of the reactor begin, so long after the wait.
    pub(super) fn start_turn(&mut self, passed: Duration) {
        self.in_turn = 0;
        self.began = passed;
        let steps = if std::mem::take(&mut self.others) {
            (passed.as_micros() / TIME_OF_OTHERS.as_micros()) as u32
        } else {
            self.scale * 2
        };
        self.scale = steps.clamp(1, SCALE_MAX);
    }

    /// Bytes that a lane reads in its turn.
    pub(super) const fn lane_bytes(&self) -> u32 {
        LANE_BYTES * self.scale
    }

    /// Whose turn it is now, if any share is left. `passed`: since the wait.
    pub(super) fn next(
        &mut self,
        passed: impl FnOnce() -> Duration,
    ) -> Option<(SessionKey, Direction)> {
        let first = self.in_turn == 0;
        if self.lanes.is_empty() || self.in_turn >= TURN_BYTES * self.scale {
            return None;
        }
        if !first && passed().saturating_sub(self.began) >= TURN_TIME * self.scale {
            return None;
        }
        let lane = self.lanes.pop_front()?;
        debug_assert!(
            self.served - lane.since <= u64::from(lane.before) * TURN_MAX,
            "a lane has waited for more than the shares of those before it"
        );
        self.current = Some((lane.key, lane.direction));
        self.current
    }

    /// Whether it is the turn of this lane. It has one pump.
    pub(super) fn takes_turn(&mut self, key: SessionKey, direction: Direction) -> bool {
        self.current.take_if(|it| *it == (key, direction)).is_some()
    }

    /// The lane whose turn it is has moved so many bytes.
    pub(super) fn has_moved(&mut self, bytes: u64) {
        self.served += bytes;
        self.in_turn = self
            .in_turn
            .saturating_add(bytes.min(u64::from(u32::MAX)) as u32);
    }

    /// The turn is over, whether the lane had a use for it or not.
    pub(super) const fn end_of_turn(&mut self) {
        self.current = None;
        self.in_turn = self.in_turn.saturating_add(TURN_MIN);
    }

    /// Lanes that wait.
    pub(super) fn keys(&self) -> impl Iterator<Item = SessionKey> + '_ {
        self.lanes.iter().map(|lane| lane.key)
    }
}
