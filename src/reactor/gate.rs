//! How many sessions there may be.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::net::limits;

/// How many sessions there may be; shared by reactors, touched once an accept
/// and once an end.
#[derive(Debug)]
pub struct Gate {
    live: AtomicU32,
    max: AtomicU32,
    configured: AtomicU32,
    /// `None`: not bound to descriptors.
    reserve: Option<Reserve>,
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
            reserve: None,
        }
    }

    /// A gate for `max` sessions or as many as descriptors allow, two for each,
    /// beside those that are `taken` already and some to `spare`.
    pub const fn by_descriptors(max: u32, taken: u32, spare: u32) -> Self {
        Self {
            live: AtomicU32::new(0),
            max: AtomicU32::new(max),
            configured: AtomicU32::new(max),
            reserve: Some(Reserve { taken, spare }),
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

    /// Reads the descriptor limit again: an operator may have changed it.
    pub fn review(&self) {
        if let Some(reserve) = self.reserve
            && let Ok(limit) = limits::descriptor_limit()
        {
            let fit = reserve.sessions(limit);
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
        let entered = self.live.fetch_add(1, Ordering::Relaxed) < self.max();
        if !entered {
            self.leave();
        }
        entered
    }

    pub(super) fn leave(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
