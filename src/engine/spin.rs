//! Whether a reactor spins for events before it sleeps, and for how long. Pure.
//!
//! Spinning saves a wake-up, which is most of what a lone message waits for, and burns a
//! core. [`BusyPoll::Auto`] spins only while that pays: after sleeps that were so short that
//! a spin would have seen their end. A spin that sees nothing is a doubt, and with each of
//! them it takes twice as many short sleeps until another is tried: so an idle reactor
//! sleeps, and one that shares its core with those it waits for (which come to run only when
//! it sleeps: every sleep is short there, and every spin in vain) hardly ever spins.
//!
//! ```text
//!            `doubt` short sleeps one after the other
//!   sleeps ──────────────────────────────────────────► spins ─┐ seen: half of the doubt
//!     ▲ ▲                                                │ ▲──┘
//!     │ └──── a long sleep: counts anew                  │
//!     └────── nothing seen: twice the doubt ─────────────┘
//! ```

use std::time::Duration;

/// How long a reactor spins for events before it sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusyPoll {
    /// So long; zero: it does not.
    For(Duration),
    /// For `AUTO`, while it pays.
    Auto,
}

impl BusyPoll {
    /// It sleeps at once.
    pub const NEVER: Self = Self::For(Duration::ZERO);
}

/// The spin of [`BusyPoll::Auto`]: longer than a round trip to a neighbour and the answer of a
/// quick server, short enough that one in vain costs less than a wake-up of the disk or of
/// the network behind a switch.
const AUTO: Duration = Duration::from_micros(100);

/// Short sleeps at the most until a spin is tried again: one in vain is 100 µs of at least 4096
/// wake-ups.
const DOUBT_MAX: u16 = 4096;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Spin {
    rule: BusyPoll,
    /// Short sleeps that it takes until it spins again; one at least.
    doubt: u16,
    /// Short sleeps since a long one, or since a spin in vain.
    short: u16,
}

impl Spin {
    pub(super) const fn new(rule: BusyPoll) -> Self {
        Self {
            rule,
            doubt: 1,
            short: 0,
        }
    }

    /// How long to spin now; `None`: not at all.
    pub(super) fn time(&self) -> Option<Duration> {
        match self.rule {
            BusyPoll::For(time) => (!time.is_zero()).then_some(time),
            BusyPoll::Auto => (self.short >= self.doubt).then_some(AUTO),
        }
    }

    /// Whether it wants to know how long sleeps take.
    pub(super) const fn learns(&self) -> bool {
        matches!(self.rule, BusyPoll::Auto)
    }

    /// It has spun, and seen something or not.
    pub(super) fn spun(&mut self, seen: bool) {
        if seen {
            self.doubt = (self.doubt / 2).max(1);
        } else {
            self.doubt = (self.doubt * 2).min(DOUBT_MAX);
            self.short = 0;
        }
    }

    /// It has slept for so long, without spinning before.
    pub(super) fn slept(&mut self, time: Duration) {
        self.short = if time <= AUTO {
            self.short.saturating_add(1)
        } else {
            0
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(20);
    const LONG: Duration = Duration::from_millis(5);

    /// Waits that end after these times; how many were spun for, and how many of these in
    /// vain. A spinner that keeps its core from others sees nothing while it spins.
    fn waits(spin: &mut Spin, times: impl Iterator<Item = Duration>, alone: bool) -> (u32, u32) {
        let (mut spins, mut vain) = (0, 0);
        for time in times {
            let Some(most) = spin.time() else {
                spin.slept(time);
                continue;
            };
            let seen = alone && time <= most;
            spin.spun(seen);
            spins += 1;
            vain += u32::from(!seen);
        }
        (spins, vain)
    }

    #[test]
    fn a_fixed_time_is_always_spun_and_none_never() {
        let mut spin = Spin::new(BusyPoll::For(SHORT));
        let times = || std::iter::repeat_n(LONG, 10);
        assert_eq!(waits(&mut spin, times(), true), (10, 10));
        let mut spin = Spin::new(BusyPoll::NEVER);
        assert_eq!(waits(&mut spin, times(), true), (0, 0));
    }

    #[test]
    fn under_traffic_nearly_every_wait_is_spun_for() {
        let mut spin = Spin::new(BusyPoll::Auto);
        let times = std::iter::repeat_n(SHORT, 1000);
        assert_eq!(waits(&mut spin, times, true), (999, 0));
        // A pause in every hundred costs one spin in vain and a few sleeps.
        let times = (0..10_000).map(|n| if n % 100 == 99 { LONG } else { SHORT });
        let (spins, vain) = waits(&mut spin, times, true);
        assert!(spins > 9_700 && vain == 100, "{spins} {vain}");
    }

    #[test]
    fn an_idle_reactor_does_not_spin() {
        let mut spin = Spin::new(BusyPoll::Auto);
        waits(&mut spin, std::iter::repeat_n(SHORT, 100), true);
        let times = std::iter::repeat_n(LONG, 1000);
        assert_eq!(waits(&mut spin, times, true), (1, 1));
    }

    #[test]
    fn one_that_shares_its_core_hardly_ever_spins() {
        let mut spin = Spin::new(BusyPoll::Auto);
        let times = std::iter::repeat_n(SHORT, 100_000);
        let (spins, vain) = waits(&mut spin, times, false);
        assert!(spins == vain && spins < 40, "{spins} {vain}");
        // Until it has its core to itself.
        let times = std::iter::repeat_n(SHORT, 10_000);
        let (spins, _) = waits(&mut spin, times, true);
        assert!(spins > 5_000, "{spins}");
    }
}
