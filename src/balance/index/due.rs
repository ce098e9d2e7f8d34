//! Servers that are to be looked at again though nothing happens to them: a mark runs
//! out, a slow start gets on, a rate lets the next session come.

use std::sync::atomic::{AtomicU64, Ordering};

use super::tournament::Tournament;
use crate::relay::time::Time;

/// Who is to be looked at again, by position: in microseconds, `u64::MAX` for never.
#[derive(Debug)]
pub(super) struct Due {
    times: Box<[AtomicU64]>,
    tree: Tournament,
}

impl Due {
    pub(super) fn new(len: usize) -> Self {
        Self {
            times: (0..len).map(|_| AtomicU64::new(u64::MAX)).collect(),
            tree: Tournament::new(len),
        }
    }

    pub(super) fn time(&self, position: usize) -> Option<u64> {
        let time = self.times[position].load(Ordering::SeqCst);
        (time != u64::MAX).then_some(time)
    }

    /// The first of those whose time has come.
    pub(super) fn first(&self, now: Time) -> Option<u16> {
        let key = |position: usize| self.time(position);
        let first = self.tree.winner(&key)?;
        (key(first)? <= now.as_micros()).then_some(first as u16)
    }

    pub(super) fn note(&self, position: usize, next: impl Fn() -> u64) {
        let time = &self.times[position];
        let mut changed = false;
        loop {
            let new = next();
            if time.load(Ordering::SeqCst) == new {
                break;
            }
            time.store(new, Ordering::SeqCst);
            changed = true;
        }
        if changed {
            self.tree.climb(position, &|position| self.time(position));
        }
    }
}
