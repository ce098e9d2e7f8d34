//! Monotonic time as the relay sees it: microseconds since the reactor started.
//!
//! A plain number, so that the simulator can move it as it likes, and so that a
//! session spends 8 bytes on an instant. The wall clock never enters here.

use std::ops::{Add, Sub};
use std::time::Duration;

/// An instant, in microseconds of the monotonic clock since some start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Time(u64);

impl Time {
    /// The start.
    pub const ZERO: Self = Self(0);
    /// Later than anything: "never".
    pub const NEVER: Self = Self(u64::MAX);

    /// An instant so many microseconds after the start.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the start.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// How long after something else something was, in four bytes: half of an instant, for what a
/// session keeps for its record alone.
///
/// Up to 35 minutes in microseconds, beyond that in milliseconds; what was more than 24 days
/// later is said to have been 24 days later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lapse(u32);

impl Lapse {
    /// It has not been yet.
    pub const NEVER: Self = Self(u32::MAX);

    const IN_MILLIS: u32 = 1 << 31;

    /// From `earlier` to `later`.
    pub fn between(earlier: Time, later: Time) -> Self {
        let micros = later.as_micros().saturating_sub(earlier.as_micros());
        match u32::try_from(micros) {
            Ok(micros) if micros < Self::IN_MILLIS => Self(micros),
            _ => {
                let millis = (micros / 1000).min(u64::from(Self::IN_MILLIS) - 2);
                Self(Self::IN_MILLIS | millis as u32)
            }
        }
    }

    /// How long; `None` if it has not been yet.
    pub const fn get(self) -> Option<Duration> {
        match self.0 {
            u32::MAX => None,
            micros if micros < Self::IN_MILLIS => Some(Duration::from_micros(micros as u64)),
            millis => Some(Duration::from_millis((millis & !Self::IN_MILLIS) as u64)),
        }
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    /// Saturates: anything plus `Duration::MAX` is [`Time::NEVER`].
    fn add(self, by: Duration) -> Self {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, by: Duration) -> Self {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lapse_is_exact_for_half_an_hour_and_to_the_millisecond_for_weeks() {
        let second = 1_000_000;
        for (micros, said) in [
            (0, 0),
            (1, 1),
            ((1 << 31) - 1, (1 << 31) - 1),
            // From here on in milliseconds.
            (1 << 31, 2_147_483_000),
            (86_400 * second + 999, 86_400 * second),
            (1 << 60, 2_147_483_646_000),
        ] {
            let earlier = Time::from_micros(77);
            let lapse = Lapse::between(earlier, Time::from_micros(77 + micros));
            assert_eq!(lapse.get(), Some(Duration::from_micros(said)), "{micros}");
        }
        assert_eq!(Lapse::NEVER.get(), None);
        assert_eq!(size_of::<Lapse>(), 4);
    }
}
