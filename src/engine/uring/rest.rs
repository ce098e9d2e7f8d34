//! Rests: sides that were said to take bytes and took none.
//!
//! A poll of the ring tells a level: while TCP memory is exhausted (`tcp_mem`) a socket has
//! room in its send buffer and refuses what is sent all the same, so that a poll for room
//! is over as soon as it begins. epoll rests there by itself, since it tells an edge.

use std::collections::VecDeque;

use super::leg::Leg;
use super::op::At;
use super::{POLL_PAUSE, Uring};
use crate::engine::Engine;
use crate::relay::time::Time;

impl Uring {
    /// Sides that have rested are asked again. Returns when the next have.
    pub(super) fn end_rests(&mut self) -> Time {
        while let Some(&(at, due)) = self.rests.front() {
            if due > self.now() {
                return due;
            }
            self.rests.pop_front();
            if let Some(leg) = self.conns.leg_mut(at.key, at.side) {
                leg.may_be_asked();
                leg.watch_out(at, &mut self.ring);
            }
        }
        Time::NEVER
    }
}

/// Lets a side rest that is to.
pub(super) fn list_rest(rests: &mut VecDeque<(At, Time)>, leg: &mut Leg, at: At, now: Time) {
    if std::mem::take(&mut leg.rest_wanted) {
        rests.push_back((at, now + POLL_PAUSE));
    }
}
