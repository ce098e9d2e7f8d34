//! How many sessions there may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::net::limits;
use crate::policy::shares::Places;

/// Of so many places one is left to sessions by the rivals of races: what is left to others
/// by one that takes all it can (see [`crate::policy::shares`]).
const REST: u32 = 33;

/// How many sessions there may be; shared by reactors, touched once an accept
/// and once an end.
#[derive(Debug)]
pub struct Gate {
    live: AtomicU32,
    max: AtomicU32,
    configured: AtomicU32,
    /// Sessions that descriptors allow.
    fit: AtomicU32,
    /// Connects beside the one that each session is counted with: those of races, a
    /// descriptor each.
    rivals: AtomicU32,
    /// Those who let sessions in here.
    reactors: AtomicU32,
    /// `None`: not bound to descriptors.
    reserve: Option<Reserve>,
}

/// The descriptor of one more connect; given back when dropped.
#[derive(Debug)]
pub(super) struct RivalPlace(Arc<Gate>);

impl Drop for RivalPlace {
    fn drop(&mut self) {
        self.0.rivals.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Descriptors that are no session's.
#[derive(Debug, Clone, Copy)]
struct Reserve {
    /// Those that were open before the first session.
    taken: u32,
    /// Those for pipes and the like, which it is better to have and which can be
    /// done without.
    spare: u32,
}

impl Reserve {
    /// Sessions that fit, two descriptors each. Of a small limit the spares get at
    /// most an eighth: the estimate must not keep clients out whom the kernel
    /// would let in (behaviour 33).
    fn sessions(self, limit: u64) -> u32 {
        let limit = limit.min(u64::from(u32::MAX)) as u32;
        let left = limit.saturating_sub(self.taken);
        (left - self.spare.min(left / 8)) / 2
    }
}

impl Gate {
    /// A gate for `max` sessions.
    pub const fn new(max: u32) -> Self {
        Self {
            live: AtomicU32::new(0),
            max: AtomicU32::new(max),
            configured: AtomicU32::new(max),
            fit: AtomicU32::new(u32::MAX),
            rivals: AtomicU32::new(0),
            reactors: AtomicU32::new(0),
            reserve: None,
        }
    }

    /// A gate for `max` sessions or as many as descriptors allow, two for each,
    /// beside those that are `taken` already and some to `spare`.
    pub const fn by_descriptors(max: u32, taken: u32, spare: u32) -> Self {
        Self {
            reserve: Some(Reserve { taken, spare }),
            ..Self::new(max)
        }
    }

    /// Sessions now.
    pub fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Sessions at the most, as of now.
    pub fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// How many places there are, and how many are free.
    pub(super) fn places(&self) -> Places {
        let rivals = self.rivals.load(Ordering::Relaxed).div_ceil(2);
        let fit = self.fit.load(Ordering::Relaxed).saturating_sub(rivals);
        let max = self.max().min(fit);
        Places {
            max,
            free: max.saturating_sub(self.live()),
            kept: Places::kept_of(self.configured.load(Ordering::Relaxed)),
        }
    }

    /// One more reactor lets sessions in here.
    pub(super) fn add_reactor(&self) {
        self.reactors.fetch_add(1, Ordering::Relaxed);
    }

    /// How many do.
    pub(super) fn reactors(&self) -> u32 {
        self.reactors.load(Ordering::Relaxed)
    }

    /// Reads the descriptor limit again: an operator may have changed it.
    pub fn review(&self) {
        if let Some(reserve) = self.reserve
            && let Ok(limit) = limits::descriptor_limit()
        {
            let fit = reserve.sessions(limit);
            self.fit.store(fit.max(1), Ordering::Relaxed);
            let configured = self.configured.load(Ordering::Relaxed);
            self.max.store(fit.clamp(1, configured), Ordering::Relaxed);
        }
    }

    /// Another limit from now on; who is in stays in.
    pub fn set_max(&self, max: u32) {
        self.configured.store(max, Ordering::Relaxed);
        self.max.store(max, Ordering::Relaxed);
        self.review();
    }

    pub(super) fn enter(&self) -> bool {
        let before = self.live.fetch_add(1, Ordering::Relaxed);
        let entered = before < self.max() && self.fits(before.saturating_add(1));
        if !entered {
            self.leave();
        }
        entered
    }

    /// One that was let in elsewhere: no limit keeps it out.
    pub(super) fn take_in(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether so many sessions and the rivals of now have their descriptors.
    fn fits(&self, sessions: u32) -> bool {
        let rivals = self.rivals.load(Ordering::Relaxed);
        sessions.saturating_add(rivals.div_ceil(2)) <= self.fit.load(Ordering::Relaxed)
    }

    /// One more connect of a session that has one under way; `None`: there is no
    /// descriptor to spare for it.
    pub(super) fn add_rival(self: &Arc<Self>) -> Option<RivalPlace> {
        self.rivals.fetch_add(1, Ordering::Relaxed);
        let place = RivalPlace(self.clone());
        // The last places are for sessions: a name of many silent addresses would take
        // from others what their shares leave them.
        let rest = self.fit.load(Ordering::Relaxed).min(self.max()) / REST;
        self.fits(self.live().saturating_add(rest)).then_some(place)
    }

    pub(super) fn leave(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b33_the_rivals_of_a_race_have_descriptors_too() {
        let gate = Arc::new(Gate::by_descriptors(100, 0, 0));
        gate.fit.store(3, Ordering::Relaxed);
        assert!(gate.enter());
        // Two places of two descriptors each are left.
        let mut rivals: Vec<_> = (0..4).filter_map(|_| gate.add_rival()).collect();
        assert_eq!(rivals.len(), 4);
        assert!(gate.add_rival().is_none() && !gate.enter());
        rivals.truncate(3);
        assert!(!gate.enter(), "half a place");
        rivals.truncate(2);
        assert!(gate.enter() && !gate.enter());
        rivals.clear();
        assert!(gate.enter());
        assert_eq!(gate.live(), 3);
        assert!(gate.add_rival().is_none());
    }

    #[test]
    fn b33_a_small_limit_is_for_sessions_first() {
        let reserve = Reserve {
            taken: 10,
            spare: 56,
        };
        assert_eq!(reserve.sessions(64), 24);
        assert_eq!(reserve.sessions(1_024), (1_024 - 10 - 56) / 2);
        assert_eq!(reserve.sessions(10), 0);
        assert_eq!(reserve.sessions(0), 0);
    }
}
