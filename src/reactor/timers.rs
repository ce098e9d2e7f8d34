//! Timers of sessions: they are lazy, so that a byte that moves a deadline away touches no
//! wheel, and coarse, so that those of many sessions share a wake-up.

use super::Reactor;
use super::context::Effect;
use super::deadlines::{coarse, due};
use crate::engine::{Engine, SessionKey};
use crate::relay::ending::Cause;
use crate::relay::session::Event as SessionEvent;
use crate::relay::time::Time;

impl<E: Engine> Reactor<E> {
    /// Arms the timer only if it would fire too late: a deadline that moves away
    /// is found out when the timer fires.
    pub(super) fn arm(&mut self, key: SessionKey) {
        let Some(entry) = self.ctx.sessions.get(key) else {
            return;
        };
        let due = coarse(due(entry), self.ctx.engine.now());
        if due < self.wheel.armed_for(key.slot).unwrap_or(Time::NEVER) {
            self.wheel.arm(key.slot, due);
        }
    }

    pub(super) fn fire_timers(&mut self) {
        let now = self.ctx.engine.now();
        let mut fired = std::mem::take(&mut self.fired);
        fired.clear();
        self.wheel.advance(now, &mut fired);
        self.ctx.counters.timers_fired.add(fired.len() as u64);
        for slot in &fired {
            let Some(key) = self.ctx.sessions.key_of(*slot) else {
                continue;
            };
            self.release_lanes(key, now);
            let Some(entry) = self.ctx.sessions.get(key) else {
                continue;
            };
            let rules = &entry.listener.forward.rules;
            if entry.session.deadline(rules) <= now {
                if entry.session.is_dialing() && !self.dialler.race_timed_out(&mut self.ctx, key) {
                    self.dialler
                        .connect_failed_at(&mut self.ctx, key, Cause::ConnectTimeout);
                }
                let unsent = self.ctx.engine.unsent(key);
                self.deliver(key, SessionEvent::Looked { unsent });
            } else if due(entry) <= now
                && let Some(event) = self.dialler.step_race(&mut self.ctx, key)
            {
                self.ctx.out.push_back(Effect::Concluded(key, event));
                self.settle();
            }
            self.arm(key);
        }
        self.fired = fired;
    }
}
