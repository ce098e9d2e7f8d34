//! Byte rates: what a pump may read, and when a lane that is held back goes on.
//!
//! Nobody is held back but by not reading: what the lane holds goes on to its sink, and
//! what it does not read fills the kernel's buffers, until its peer waits. A session
//! without a rate pays one test for each pump.

use super::clients::ClientGrant;
use super::context::Ctx;
use super::metered::count;
use super::{Entry, Reactor};
use crate::engine::{Datagrams, Engine, SessionKey};
use crate::observe::counters::Counters;
use crate::policy::meter::{Grant, Meters};
use crate::relay::Direction;
use crate::relay::session::Action;
use crate::relay::time::Time;

/// How many of these bytes a lane may read, and whether [`flowed`] is to be told what it
/// read. With none its source is held back until a timer of [`due`]; what it holds may go
/// on.
pub(super) fn allowance(
    entry: &mut Entry,
    direction: Direction,
    bytes: u32,
    now: Time,
    counters: &Counters,
) -> (u32, bool) {
    let Some(meters) = meters_mut(entry.grant.as_deref_mut()) else {
        return (bytes, false);
    };
    let lane = entry.session.lane_mut(direction);
    if !lane.wants_fill() {
        return (bytes, false);
    }
    match meters.ask(direction, bytes, now) {
        Grant::Flow(bytes) => (bytes, true),
        Grant::Wait(_, level) => {
            lane.hold_back();
            count(counters, level);
            (bytes, false)
        }
    }
}

/// A lane has read so many bytes, which its meters are told.
pub(super) fn flowed(
    entry: &mut Entry,
    direction: Direction,
    bytes: u64,
    now: Time,
    counters: &Counters,
) {
    if let Some(meters) = meters_mut(entry.grant.as_deref_mut())
        && let Some(level) = meters.flowed(direction, bytes, now)
    {
        count(counters, level);
    }
}

/// When a lane that is held back may go on.
pub(super) fn due(entry: &Entry) -> Time {
    meters(entry).map_or(Time::NEVER, Meters::due)
}

/// What holds a session back, if anything may.
pub(super) fn meters(entry: &Entry) -> Option<&Meters> {
    entry.grant.as_deref()?.meters.as_ref()
}

fn meters_mut(grant: Option<&mut ClientGrant>) -> Option<&mut Meters> {
    grant?.meters.as_mut()
}

impl<E: Datagrams> Reactor<E> {
    /// Lets lanes go on whose turn has come.
    pub(super) fn release_lanes(&mut self, key: SessionKey, now: Time) {
        for direction in Direction::BOTH {
            if released(&mut self.ctx, key, direction, now) {
                let mut actions = std::mem::take(&mut self.actions);
                actions.clear();
                actions.push(Action::Pump(direction));
                self.carry_out(key, &mut actions);
                self.actions = actions;
            }
        }
    }
}

fn released<E: Engine>(ctx: &mut Ctx<E>, key: SessionKey, direction: Direction, now: Time) -> bool {
    let Some(entry) = ctx.sessions.get_mut(key) else {
        return false;
    };
    let Some(meters) = meters_mut(entry.grant.as_deref_mut()) else {
        return false;
    };
    let released = meters.release(direction, now);
    if released {
        entry.session.lane_mut(direction).release();
    }
    released
}
