//! Threads beside the reactors go on after a panic: what was being done is lost, counted
//! and told, and forwarding does not end for it.
//!
//! A reactor's panic is another matter: the kernel may own its buffers, and what its
//! sessions were in the middle of is not known. The process ends then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Panics of threads beside the reactors so far.
pub fn count() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// One more, which was caught elsewhere; how many that are.
pub fn add() -> u64 {
    PANICS.fetch_add(1, Ordering::Relaxed) + 1
}

/// Does something; `None`: it panicked, which is counted, and standard error has the place.
/// [`Log::guard`](super::log::Log::guard) tells the log as well.
///
/// What `work` changes must be whole at any moment, or not be looked at again after a panic.
pub fn caught<T>(thread: &'static str, work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(|| {
        provoked(thread);
        work()
    }));
    if done.is_err() {
        add();
    }
    done.ok()
}

/// Panics here, once, if a test wants the thread of this name to: it names a folder with
/// `THALWEG_PROBE_PANICS`, and puts a file of the thread's name there, which is removed.
/// Nothing without the feature `probes`.
#[cfg(feature = "probes")]
pub fn provoked(thread: &'static str) {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    static WISHES: OnceLock<Option<PathBuf>> = OnceLock::new();
    let wishes = WISHES.get_or_init(|| std::env::var_os("THALWEG_PROBE_PANICS").map(PathBuf::from));
    if let Some(wishes) = wishes {
        let is_wished = std::fs::remove_file(wishes.join(thread)).is_ok();
        assert!(!is_wished, "{thread}: as a test wants");
    }
}

/// See above.
#[cfg(not(feature = "probes"))]
#[inline]
pub const fn provoked(_: &'static str) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_counted_and_what_follows_it_is_done() {
        let before = count();
        assert_eq!(caught("test", || 7), Some(7));
        let panics = || -> u32 { panic!("as a test does") };
        assert_eq!(caught("test", panics), None);
        assert!(count() > before);
        assert_eq!(caught("test", || 8), Some(8));
    }
}
