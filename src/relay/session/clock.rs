//! The deadlines of a session that relays: silence and stalled writes.
//!
//! Activity moves [`Session`]'s own clock and nothing else. Only when a deadline
//! seems to have passed is the kernel asked how much it has still to deliver:
//! a slow reader makes progress long after the last write, and is not silent.

use std::time::Duration;

use super::{Action, Delivery, Rules, Session};
use crate::relay::ending::{Cause, Who};
use crate::relay::time::Time;
use crate::relay::{Direction, Side};

impl Session {
    pub(super) fn take_note(&mut self, unsent: [u32; 2], now: Time) {
        self.looked = now;
        for (delivery, unsent) in self.delivery.iter_mut().zip(unsent) {
            if delivery.unsent != unsent {
                *delivery = Delivery { unsent, since: now };
            }
        }
    }

    /// Silence counts from the last byte that moved, or that the kernel was seen
    /// to deliver: a slow reader makes progress long after the last write.
    pub(super) fn expire(&mut self, now: Time, rules: &Rules, actions: &mut Vec<Action>) {
        if now >= self.stall_expiry(rules) {
            let stalled = Direction::BOTH
                .into_iter()
                .find(|d| self.lane(*d).is_stalled());
            let sink = stalled.map_or(Side::Client, Direction::sink);
            self.cut(Who::Peer(sink), Cause::WriteStall, actions);
        } else if now >= self.silence_expiry(rules) {
            let (who, cause) = match self.half_open() {
                Some(silent) => (Who::Peer(silent), Cause::HalfCloseTimeout),
                None => (Who::Peer(Side::Client), Cause::IdleTimeout),
            };
            self.cut(who, cause, actions);
        }
    }

    /// The side that has not ended although the other has.
    fn half_open(&self) -> Option<Side> {
        let ended = Side::BOTH.map(|side| self.lane(side.outgoing()).source_ended());
        match ended {
            [true, false] => Some(Side::Upstream),
            [false, true] => Some(Side::Client),
            _ => None,
        }
    }

    fn silence_timeout(&self, rules: &Rules) -> Duration {
        if self.half_open().is_some() {
            rules.deadlines.half_close
        } else {
            rules.deadlines.idle
        }
    }

    fn silence_expiry(&self, rules: &Rules) -> Time {
        let delivering = self
            .delivery
            .iter()
            .filter(|d| d.unsent > 0)
            .map(|d| d.since)
            .max();
        self.last_activity.max(delivering.unwrap_or(Time::ZERO)) + self.silence_timeout(rules)
    }

    /// Halfway to the expiry a first look tells whether the kernel is still
    /// delivering; while it is, a look each quarter sees progress.
    pub(super) fn silence_deadline(&self, rules: &Rules) -> Time {
        let timeout = self.silence_timeout(rules);
        if timeout == Duration::MAX {
            return Time::NEVER;
        }
        let expiry = self.silence_expiry(rules);
        if self.looked <= self.last_activity {
            (self.last_activity + timeout / 2).min(expiry)
        } else if self.delivery.iter().any(|d| d.unsent > 0) {
            (self.looked + timeout / 4).min(expiry)
        } else {
            expiry
        }
    }

    fn stalled_since(&self) -> Option<Time> {
        let stalled = Direction::BOTH
            .into_iter()
            .filter(|d| self.lane(*d).is_stalled());
        stalled.map(|d| self.delivery[d.sink().index()].since).min()
    }

    fn stall_expiry(&self, rules: &Rules) -> Time {
        self.stalled_since()
            .map_or(Time::NEVER, |since| since + rules.deadlines.write_stall)
    }

    pub(super) fn stall_deadline(&self, rules: &Rules) -> Time {
        let timeout = rules.deadlines.write_stall;
        match self.stalled_since() {
            Some(since) if timeout != Duration::MAX => {
                (self.looked.max(since) + timeout / 4).min(since + timeout)
            }
            _ => Time::NEVER,
        }
    }
}
