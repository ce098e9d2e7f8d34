//! What whoever makes pictures of the process shares with those who look at them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::watch;

/// Pictures, for all who look.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) latest: watch::Sender<Arc<str>>,
    /// Somebody makes them.
    pub(super) drawing: AtomicBool,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            latest: watch::Sender::new("".into()),
            drawing: AtomicBool::new(false),
        }
    }
}
