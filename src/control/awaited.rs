//! What is being waited for at a moment, so that it can be told when it does not come.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// What is being done, so that it can be said what something waits for.
#[derive(Debug, Clone, Default)]
pub(super) struct Awaited(Arc<Mutex<String>>);

impl Awaited {
    pub(super) fn is(&self, what: impl fmt::Display) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what.to_string();
    }

    pub(super) fn now(&self) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
