//! The deadlines of a session that relays: silence and stalled writes.
//!
//! Activity moves [`Relaying`]'s own clock and nothing else. Only when a deadline
//! seems to have passed is the kernel asked how much it has still to deliver:
//! a slow reader makes progress long after the last write, and is not silent.

use std::time::Duration;

use super::common::{Common, Context};
use super::relaying::{Delivery, Relaying};
use super::{Rules, Stage};
use crate::relay::ending::{Cause, Who};
use crate::relay::lane::Lane;
use crate::relay::time::Time;
use crate::relay::{Direction, Side};

impl Relaying {
    pub(super) fn take_note(&mut self, unsent: [u32; 2], now: Time) {
        self.looked = now;
        for side in Side::BOTH.map(Side::index) {
            if self.delivery.unsent[side] != unsent[side] {
                self.delivery.unsent[side] = unsent[side];
                self.delivery.since[side] = now;
            }
        }
    }

    /// Silence counts from the last byte that moved, or that the kernel was seen
    /// to deliver: a slow reader makes progress long after the last write.
    pub(super) fn expire(self, unsent: [u32; 2], cx: &mut Context<'_>) -> Stage {
        let (common, rules) = (&*cx.common, cx.rules);
        let stalled_since = self.stalled_since(common);
        let stall = stalled_since.map_or(Time::NEVER, |it| it + rules.deadlines.write_stall);
        if cx.now >= stall {
            let stalled = Direction::BOTH
                .into_iter()
                .find(|d| common.lane(*d).is_stalled());
            let sink = stalled.map_or(Side::Client, Direction::sink);
            self.cut(Who::Peer(sink), Cause::WriteStall, unsent, cx)
        } else if cx.now >= self.silence_expiry(common, rules) {
            let (who, cause) = match half_open(common) {
                Some(silent) => (Who::Peer(silent), Cause::HalfCloseTimeout),
                None => (Who::Peer(Side::Client), Cause::IdleTimeout),
            };
            self.cut(who, cause, unsent, cx)
        } else {
            self.stay()
        }
    }

    /// A lane that a rate holds back is not silent: it may not speak.
    fn silence_expiry(&self, common: &Common, rules: &Rules) -> Time {
        if common.lanes.iter().any(Lane::is_held_back) {
            return Time::NEVER;
        }
        let Delivery { unsent, since } = self.delivery;
        let delivering = since
            .into_iter()
            .zip(unsent)
            .filter(|(_, unsent)| *unsent > 0);
        let delivered = delivering.map(|(since, _)| since).max();
        let since = self.last_activity.max(delivered.unwrap_or(Time::ZERO));
        since + silence_timeout(common, rules)
    }

    /// Halfway to the expiry a first look tells whether the kernel is still
    /// delivering; while it is, a look each quarter sees progress.
    pub(super) fn silence_deadline(&self, common: &Common, rules: &Rules) -> Time {
        let timeout = silence_timeout(common, rules);
        let expiry = self.silence_expiry(common, rules);
        if timeout == Duration::MAX || expiry == Time::NEVER {
            return Time::NEVER;
        }
        if self.looked <= self.last_activity {
            (self.last_activity + timeout / 2).min(expiry)
        } else if self.delivery.unsent != [0; 2] {
            (self.looked + timeout / 4).min(expiry)
        } else {
            expiry
        }
    }

    fn stalled_since(&self, common: &Common) -> Option<Time> {
        let stalled = Direction::BOTH
            .into_iter()
            .filter(|d| common.lane(*d).is_stalled());
        stalled.map(|d| self.delivery.since[d.sink().index()]).min()
    }

    pub(super) fn stall_deadline(&self, common: &Common, rules: &Rules) -> Time {
        let timeout = rules.deadlines.write_stall;
        match self.stalled_since(common) {
            Some(since) if timeout != Duration::MAX => {
                (self.looked.max(since) + timeout / 4).min(since + timeout)
            }
            _ => Time::NEVER,
        }
    }
}

/// The side that has not ended although the other has.
fn half_open(common: &Common) -> Option<Side> {
    let ended = Side::BOTH.map(|side| common.lane(side.outgoing()).source_ended());
    match ended {
        [true, false] => Some(Side::Upstream),
        [false, true] => Some(Side::Client),
        _ => None,
    }
}

fn silence_timeout(common: &Common, rules: &Rules) -> Duration {
    if half_open(common).is_some() {
        rules.deadlines.half_close
    } else {
        rules.deadlines.idle
    }
}
