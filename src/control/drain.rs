//! When the sessions of each forward are cut at the end: pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::relay::id::ForwardId;

/// Which forwards' sessions are cut when, the soonest last.
#[derive(Debug)]
pub(super) struct Deadlines(Vec<(Instant, Vec<ForwardId>)>);

impl Deadlines {
    /// Of forwards that begin to drain at `now`. Those that are as patient as can be
    /// are never cut.
    pub(super) fn of(timeouts: &[(ForwardId, Duration)], now: Instant) -> Self {
        let mut each: Vec<(Instant, ForwardId)> = timeouts
            .iter()
            .filter_map(|(forward, timeout)| Some((now.checked_add(*timeout)?, *forward)))
            .collect();
        each.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let mut deadlines: Vec<(Instant, Vec<ForwardId>)> = Vec::new();
        for (at, forward) in each {
            match deadlines.last_mut() {
                Some((known, forwards)) if *known == at => forwards.push(forward),
                _ => deadlines.push((at, vec![forward])),
            }
        }
        Self(deadlines)
    }

    /// When the next ones are cut; `None`: nobody is.
    pub(super) fn next(&self) -> Option<Instant> {
        Some(self.0.last()?.0)
    }

    /// Those whose time has come.
    pub(super) fn due(&mut self, now: Instant) -> Option<Arc<[ForwardId]>> {
        self.next().filter(|at| *at <= now)?;
        Some(self.0.pop()?.1.into())
    }
}

/// The most patient of them; `None`: as long as it takes.
pub(super) fn longest(timeouts: &[(ForwardId, Duration)]) -> Option<Duration> {
    let each = timeouts.iter().map(|(_, timeout)| *timeout);
    let longest = each.max().unwrap_or_default();
    (longest != Duration::MAX).then_some(longest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_forward_is_cut_at_its_own_time() {
        let forwards = [0, 1, 2, 3].map(ForwardId::new);
        let seconds = [2, 1, 2].map(Duration::from_secs);
        let timeouts = [
            (forwards[0], seconds[0]),
            (forwards[1], seconds[1]),
            (forwards[2], seconds[2]),
            (forwards[3], Duration::MAX),
        ];
        let now = Instant::now();
        let mut deadlines = Deadlines::of(&timeouts, now);
        assert!(deadlines.due(now).is_none());
        assert_eq!(deadlines.next(), Some(now + seconds[1]));
        let late = now + Duration::from_secs(9);
        assert_eq!(*deadlines.due(late).unwrap(), [forwards[1]]);
        assert_eq!(*deadlines.due(late).unwrap(), [forwards[0], forwards[2]]);
        assert!(deadlines.due(late).is_none());
        assert_eq!(deadlines.next(), None);
        assert_eq!(longest(&timeouts), None);
        assert_eq!(longest(&timeouts[..3]), Some(seconds[0]));
    }
}
