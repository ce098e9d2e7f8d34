//! Time that leaves out what the machine took away: tests that bound a duration from
//! above allow for a machine that is busy with something else.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often it is looked whether this process is let run.
const TICK: Duration = Duration::from_millis(3);

/// What a sleep of [`TICK`] is late by on a machine that is quiet: the slack of timers
/// is 50 µs (prctl(2), PR_SET_TIMERSLACK), and a wake-up takes a little.
const QUIET: Duration = Duration::from_micros(500);

/// A byte passes a client, a forwarder and a server, which each wait for a processor as
/// long as the thread did that was looked at, several times.
const WAITS: u32 = 8;

/// Time that a thread of this process wanted to run and was not let, ever; counted by a
/// thread that does nothing else, from the first use on.
fn lost() -> Duration {
    static LOST: AtomicU64 = AtomicU64::new(0);
    static COUNTING: LazyLock<()> = LazyLock::new(|| {
        let count = || loop {
            let begun = Instant::now();
            std::thread::sleep(TICK);
            let late = begun.elapsed().saturating_sub(TICK);
            if late > QUIET {
                LOST.fetch_add(late.as_nanos() as u64, Ordering::Relaxed);
            }
        };
        let thread = std::thread::Builder::new().name("stopwatch".to_owned());
        thread.spawn(count).expect("a thread");
    });
    LazyLock::force(&COUNTING);
    Duration::from_nanos(LOST.load(Ordering::Relaxed))
}

/// Started now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch {
    start: Instant,
    lost: Duration,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self {
            lost: lost(),
            start: Instant::now(),
        }
    }

    /// All of the time: for bounds from below.
    pub(crate) fn elapsed(self) -> Duration {
        self.start.elapsed()
    }

    /// Without what the machine took away: for bounds from above. On a quiet machine
    /// both are the same.
    pub(crate) fn allowing(self) -> Duration {
        let taken = self.start.elapsed();
        taken.saturating_sub(self.taken_away())
    }

    /// What the machine took away from whatever was waited for.
    pub(crate) fn taken_away(self) -> Duration {
        WAITS * self.late()
    }

    /// For how long one thread was not let run that wanted to.
    pub(crate) fn late(self) -> Duration {
        // A tick that is under way is told with the next.
        lost().saturating_sub(self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_of_ones_own_is_not_taken_away() {
        // A quiet moment comes on any machine.
        let found = (0..100).any(|_| {
            let watch = Stopwatch::start();
            std::thread::sleep(Duration::from_millis(20));
            watch.allowing() >= Duration::from_millis(20)
        });
        assert!(found, "the watch takes sleeping for a busy machine");
    }
}
