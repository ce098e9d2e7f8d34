//! Processes that ended and that nobody else waits for: as the first process of a
//! container this one inherits what loses its parent, and unreaped they fill the table
//! of processes until no check can be started any more.
//!
//! Invariant: a child that this process started itself is never reaped here; whoever
//! started it wants its status.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;

/// Children that somebody here waits for.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn own() -> MutexGuard<'static, BTreeSet<i32>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this process inherits those that lose their parent: it is the first of its
/// namespace.
pub(super) fn orphans_are_ours() -> bool {
    Pid::this().as_raw() == 1
}

/// Starts a child whose status is wanted: [`forget`] it once it is reaped.
pub(super) fn start<E>(spawn: impl FnOnce() -> Result<Pid, E>) -> Result<Pid, E> {
    // Held meanwhile: one that ends at once must be known before anybody looks.
    let mut own = own();
    let child = spawn()?;
    own.insert(child.as_raw());
    Ok(child)
}

/// This child was reaped by whoever started it: its number may become another's.
pub(super) fn forget(child: Pid) {
    own().remove(&child.as_raw());
}

/// Reaps what was inherited and has ended. `false`: one of our own stands before the
/// rest, and is about to be reaped; look again soon.
pub(super) fn reap() -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        let own = own();
        let Some(ended) = waitid(Id::All, look).ok().and_then(|it| it.pid()) else {
            return true;
        };
        if own.contains(&ended.as_raw()) {
            return false;
        }
        let _ = waitpid(ended, Some(WaitPidFlag::WNOHANG));
    }
}
