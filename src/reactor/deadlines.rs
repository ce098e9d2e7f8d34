//! When a session is looked at again.

use super::attempts::Dialling;
use super::{Entry, rates};
use crate::relay::time::Time;

/// A timer fires late by at most this part of the time it was armed for.
pub(super) const COARSENESS: u32 = 32;

/// When a session or its race wants to be looked at.
pub(super) fn due(entry: &Entry) -> Time {
    let rules = &entry.listener.forward.rules;
    let race = entry.aside.dialling().map_or(Time::NEVER, Dialling::wake);
    let timeout = entry.session.deadline(rules).min(race);
    timeout.min(rates::due(entry))
}

/// A deadline, rounded up as far as [`COARSENESS`] allows: sessions of about the
/// same age then share a tick. Thousands of idle ones would wake the reactor for
/// each of their timers otherwise (behaviour 43).
pub(super) fn coarse(due: Time, now: Time) -> Time {
    let millis = due.since(now).as_millis() as u64 / u64::from(COARSENESS);
    if due == Time::NEVER || millis == 0 {
        return due;
    }
    // A power of two, so that sessions of different ages agree on the ticks and
    // these are boundaries of the wheel's buckets, which wake it up anyway.
    let step = 1000 << millis.ilog2();
    Time::from_micros(due.as_micros().div_ceil(step) * step)
}
