//! Threads beside the reactors go on after a panic: what was being done is lost, counted
//! and told, and forwarding does not end for it.
//!
//! A reactor's panic is another matter: the kernel may own its buffers, and what its
//! sessions were in the middle of is not known. The process ends then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use super::log::Log;
use super::notice::Notice;

/// So many are told one by one; of more, every one that doubles their number.
const TOLD: u64 = 16;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Panics of threads beside the reactors so far.
pub fn count() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Does something for the thread of this name; `None`: it panicked, which the log has (if
/// there is one that is not its own), and standard error with the place.
///
/// What `work` changes must be whole at any moment, or not be looked at again after a panic.
pub fn caught<T>(thread: &'static str, log: Option<&Log>, work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    if done.is_err() {
        tell(thread, log);
    }
    done.ok()
}

/// Counts a panic that was caught elsewhere, and tells of it.
pub fn tell(thread: &'static str, log: Option<&Log>) {
    let panics = PANICS.fetch_add(1, Ordering::Relaxed) + 1;
    if let Some(log) = log.filter(|_| panics <= TOLD || panics.is_power_of_two()) {
        log.notice(Notice::HelperPanicked { thread, panics });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_counted_and_what_follows_it_is_done() {
        let before = count();
        assert_eq!(caught("x", None, || 7), Some(7));
        let panics = || -> u32 { panic!("as a test does") };
        assert_eq!(caught("x", None, panics), None);
        assert!(count() > before);
        assert_eq!(caught("x", None, || 8), Some(8));
    }
}
