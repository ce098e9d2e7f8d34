//! How long clients are let in at the end, and when the sessions of each forward are cut: pure.

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

/// Clients that come for longer than so many delays come for ever.
const DELAYS_MAX: u32 = 10;

/// Looks within a delay: it is over this part of it too late at the most.
const LOOKS: u32 = 8;

/// Whether clients still come, though they are told not to: nobody is turned away before that ends.
#[derive(Debug)]
pub(super) struct Quiet {
    delay: Duration,
    arrived: u64,
    /// The last one came no later than this.
    since: Instant,
    end: Instant,
    /// `None`: it is over.
    next: Option<Instant>,
}

impl Quiet {
    /// `arrived`: how many have come so far.
    pub(super) fn begin(delay: Duration, arrived: u64, now: Instant) -> Self {
        Self {
            delay,
            arrived,
            since: now,
            end: now + delay * DELAYS_MAX,
            next: (!delay.is_zero()).then_some(now + delay / LOOKS),
        }
    }

    /// When it is to look again; `None`: nobody comes any more.
    pub(super) const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// So many have come by now.
    pub(super) fn look(&mut self, arrived: u64, now: Instant) {
        if arrived != self.arrived {
            (self.arrived, self.since) = (arrived, now);
        }
        let is_over = now >= self.since + self.delay || now >= self.end;
        self.next = (!is_over).then_some(now + self.delay / LOOKS);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn b163_clients_are_let_in_until_none_has_come_for_the_delay() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut quiet = Quiet::begin(second, 7, start);
        let (mut arrived, mut looks) = (7, Vec::new());
        while let Some(at) = quiet.next() {
            // One comes within each of the first looks.
            arrived = (arrived + 1).min(12);
            looks.push(at);
            quiet.look(arrived, at);
        }
        assert_eq!(looks.last(), Some(&(looks[4] + second)));

        // Who never stops to come does not keep it for ever.
        let mut quiet = Quiet::begin(second, 0, start);
        let mut arrived = 0;
        let mut looks = 0;
        while let Some(at) = quiet.next() {
            arrived += 1;
            looks += 1;
            quiet.look(arrived, at);
        }
        assert_eq!(looks, DELAYS_MAX * LOOKS);
        // Without one there is nothing to wait for.
        assert!(Quiet::begin(Duration::ZERO, 0, start).next().is_none());
    }

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
