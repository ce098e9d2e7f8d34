//! Instants on their way from one clock to another: what is an instant here is an age there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Time;

/// How long ago something was, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Age(pub(super) u64);

impl Age {
    pub(super) const fn of(then: Time, now: Time) -> Self {
        Self(now.as_micros().saturating_sub(then.as_micros()))
    }

    pub(super) fn before(self, now: Time) -> Time {
        now - Duration::from_micros(self.0)
    }
}
