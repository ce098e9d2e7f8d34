//! What runs by itself: tests that measure (rates, round trips, wake-ups, memory), and
//! those that take the whole machine and would disturb whatever is measured beside them.
//!
//! Each of them holds [`alone`] from its beginning to its end. That keeps them from one
//! another under a plain `cargo test`; `scripts/test` and nextest keep everything else
//! from them too, by the name of this module.

mod bench_datagrams;
mod bench_run;
mod crowds;
mod memory;
mod pacing;
mod path;
mod pressure;
mod rates;
mod soak;
mod steering;
mod tune;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits until no other test of this module runs. The lock guards no data, so that one
/// test failed is no reason for the next to fail too.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
