//! Vigils: polls for failure alone, of sides from which nothing is being read: their
//! sink is full, or they have ended.

use std::collections::VecDeque;
use std::time::Duration;

use super::Uring;
use super::leg::Leg;
use super::op::{At, Op};
use crate::engine::Engine;
use crate::relay::time::Time;

/// How long a side from which nothing is read goes unwatched. Short connections
/// are over by then and save two operations; a peer that fails meanwhile is
/// noticed well within the second that behaviour 12 allows.
pub(super) const VIGIL_PATIENCE: Duration = Duration::from_millis(50);

impl Uring {
    /// Sides that were left unwatched for long enough are watched for failure.
    /// Returns when the next will be; those that want none any more are forgotten,
    /// so that sessions long over wake nobody.
    pub(super) fn keep_vigils(&mut self) -> Time {
        while let Some(&(at, due)) = self.vigils.front() {
            let now = self.now();
            let leg = self.conns.leg_mut(at.key, at.side);
            match leg {
                Some(leg) if wants_vigil(leg) => {
                    if due > now {
                        return due;
                    }
                    leg.vigil_due = false;
                    leg.watch(Op::Vigil, at, &mut self.ring);
                }
                Some(leg) => leg.vigil_due = false,
                None => {}
            }
            self.vigils.pop_front();
        }
        Time::NEVER
    }
}

/// Whether nothing would tell of a failure of this side.
const fn wants_vigil(leg: &Leg) -> bool {
    leg.is_open()
        && !leg.hung_up
        && !leg.connecting
        && !leg.flies(Op::WatchIn)
        && !leg.flies(Op::Recv)
        && !leg.flies(Op::Vigil)
}

/// Puts a side that wants a vigil on the list, unless it is there.
pub(super) fn list_vigil(vigils: &mut VecDeque<(At, Time)>, leg: &mut Leg, at: At, now: Time) {
    if wants_vigil(leg) && !leg.vigil_due {
        leg.vigil_due = true;
        vigils.push_back((at, now + VIGIL_PATIENCE));
    }
}
